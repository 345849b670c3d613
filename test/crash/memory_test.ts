/**
 * `ack=memory` promises less, but not nothing: a stop spills to disk what ClickHouse did not take, and
 * memory that is full spills before anybody is refused.
 * Runs once: points_test.ts and random_test.ts have the collector on both runtimes.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { load } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { assertDelivered, watch } from "../system/books.ts";
import { drained } from "./drained.ts";
import { Told } from "./told.ts";

const MEMORY_BYTES = 1024 * 1024;

let clickhouse: ClickHouse;
let shishi: Shishi;
let dataDir: string;
let told: Told;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());
beforeEach(async () => {
  dataDir = tempDir("data");
  told = new Told();
  await start();
  await told.add(load({ url: shishi.url, clients: 1, events: 100, eventsPerRequest: 10 }));
  await eventually(() => assertDelivered(shishi), { withinMs: 10_000 });
  await clickhouse.kill();
});
afterEach(async () => {
  await shishi.close();
  removeDir(dataDir);
  if (clickhouse.pid === 0) await clickhouse.start();
  await clickhouse.query("DROP TABLE IF EXISTS analytics_events SYNC");
});

async function start(): Promise<void> {
  shishi = await startShishi({
    args: [
      ...["--clickhouse-url", clickhouse.url, "--data-dir", dataDir, "--ack", "memory"],
      ...["--flush-interval", "100ms", "--max-block-size", "300", "--shutdown-timeout", "300ms"],
      ...["--backlog-bytes", String(MEMORY_BYTES)],
    ],
  });
}

test("SIGTERM while ClickHouse is away: what is unsent waits on disk for the next start", async () => {
  await told.add(load({ url: shishi.url, clients: 8, events: 500, eventsPerRequest: 7 }));
  assert.ok(!existsSync(join(dataDir, "spool", "analytics_events")), "the disk was not needed yet");
  shishi.signal("SIGTERM");
  assert.deepEqual(await shishi.exited, { code: 0, signal: null });
  const last = shishi.lines().at(-1);
  assert.deepEqual([last?.message, last?.held, last?.lost], [
    "stopped; 500 rows wait on disk",
    500,
    0,
  ]);
  await shishi.close();
  await clickhouse.start();
  await start();
  await drained(shishi);
  assert.equal((await shishi.status()).ledger.recovered, 500);
  assert.equal(await told.assertOnce(clickhouse), 600);
});

test("memory is full: it spills, and only a disk that is slower than the clients means 429", async () => {
  const watching = watch(shishi);
  // Three times what memory may hold.
  await told.add(load({
    url: shishi.url,
    clients: 8,
    events: 15_000,
    eventsPerRequest: 20,
    insist: true,
  }));
  assert.equal(told.acknowledged.size, 15_100);
  const { ledger, memory_bytes, spool_bytes } = await shishi.status();
  assert.equal(ledger.held, 15_000);
  assert.ok(memory_bytes <= MEMORY_BYTES, `${memory_bytes} bytes in memory`);
  assert.ok(spool_bytes > MEMORY_BYTES, `${spool_bytes} bytes on disk`);
  await clickhouse.start();
  await eventually(() => assertDelivered(shishi), { withinMs: 20_000 });
  await watching.end();
  assert.equal(await told.assertOnce(clickhouse), 15_100);
  assert.deepEqual([...told.statuses.keys()].filter((status) => ![202, 429].includes(status)), []);
});
