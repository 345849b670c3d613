/**
 * The disk under the data-dir is full, read-only or gone, under load: new rows are refused with a
 * reason, what was acknowledged is delivered, and all is well again as soon as the disk is.
 * Runs once: test/spool/ and test/batch/ have both runtimes.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { compare, load, type LoadOptions, storedIds } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { assertDelivered, watch } from "../system/books.ts";
import { drained } from "./drained.ts";
import { mountSmallDisk, type SmallDisk } from "./small_disk.ts";
import { Told } from "./told.ts";

const QUICK = ["--flush-interval", "50ms"];
const SMALL = ["--max-block-size", "500"];
/** After trouble: a probe of the disk, or of ClickHouse, and the delivery. */
const SOON = { withinMs: 10_000 };

/** A folder in which files are made meanwhile: again, until none has come in between. */
function removeInUse(path: string): void {
  for (let left = 1_000;; left--) {
    try {
      return rmSync(path, { recursive: true, force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOTEMPTY" || left === 0) throw error;
    }
  }
}

let clickhouse: ClickHouse;
let shishi: Shishi;
let told: Told;
let stopLoad: AbortController;
let watching: ReturnType<typeof watch>;

before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());
beforeEach(() => {
  told = new Told();
  stopLoad = new AbortController();
});
afterEach(async () => {
  stopLoad.abort();
  await watching.end().catch(() => {});
  await shishi.close();
  if (clickhouse.pid === 0) await clickhouse.start();
  await clickhouse.query("DROP TABLE IF EXISTS analytics_events SYNC");
});

async function start(dataDir: string, ...args: readonly string[]): Promise<void> {
  shishi = await startShishi({
    args: ["--clickhouse-url", clickhouse.url, "--data-dir", dataDir, ...SMALL, ...args],
  });
  watching = watch(shishi);
  await eventually(ready, SOON);
}

const send = (more: Partial<LoadOptions> = {}) =>
  told.add(load({
    url: shishi.url,
    clients: 8,
    events: 1_000_000,
    eventsPerRequest: 20,
    // What is refused at once would be sent again at once.
    rowsPerSecond: 5_000,
    signal: stopLoad.signal,
    ...more,
  }));

const some = { events: 500 };

async function ready(): Promise<void> {
  const { status, text } = await shishi.get("/readyz");
  assert.equal(status, 200, text);
}

/** The disk is the reason why a write is refused, and why `/readyz` does. */
async function refusedForTheDisk(reason: RegExp): Promise<void> {
  await eventually(async () => {
    const readyz = await shishi.get("/readyz");
    assert.equal(readyz.status, 503);
    const spool = (readyz.json.reasons as string[]).find((reason) => reason.startsWith("spool: "));
    assert.match(spool ?? readyz.text, reason);
  }, SOON);
  await eventually(async () => {
    const id = crypto.randomUUID();
    const { status, json, headers } = await shishi.post({ id, eventType: "no room" });
    (status === 202 ? told.acknowledged : told.refused).add(id);
    assert.equal(status, 429);
    assert.match(json.error, reason);
    assert.ok(Number(headers.get("retry-after")) >= 1);
  }, SOON);
}

async function allIsWell(): Promise<void> {
  stopLoad.abort();
  await eventually(ready, SOON);
  await told.add(load({
    url: shishi.url,
    clients: 2,
    events: 200,
    eventsPerRequest: 10,
    insist: true,
  }));
  await eventually(() => assertDelivered(shishi), SOON);
  const rows = await told.assertOnce(clickhouse);
  const { scrapes } = await watching.end();
  assert.ok(scrapes > 1);
  assert.ok(rows > 200, `${rows} rows`);
  assert.deepEqual([...told.statuses.keys()].filter((status) => ![202, 429].includes(status)), []);
}

describe("a small disk", () => {
  let disk: SmallDisk;
  beforeEach(() => {
    disk = mountSmallDisk("2m");
  });
  afterEach(() => disk.close());

  test("is filled by the spool while ClickHouse is away", async () => {
    await start(join(disk.path, "data"), ...QUICK);
    await told.add(load({ url: shishi.url, clients: 2, events: 200, eventsPerRequest: 10 }));
    await clickhouse.kill();
    const loading = send();
    await refusedForTheDisk(/ENOSPC/);
    const { ledger, spool_bytes } = await shishi.status();
    assert.ok(ledger.held > 1_000, `${ledger.held} rows held`);
    assert.ok(spool_bytes > 1_000_000, `${spool_bytes} bytes in the spool`);
    await clickhouse.start();
    await eventually(async () => {
      const { stored } = (await shishi.status()).ledger;
      assert.ok(stored > ledger.held, "what the full disk holds is delivered");
    }, SOON);
    stopLoad.abort();
    await loading;
    assert.ok(told.times(429) > 0);
    await allIsWell();
  });

  test("is filled by somebody else: what is held is delivered, and room is noticed", async () => {
    await start(join(disk.path, "data"), ...QUICK);
    const loading = send({ rowsPerSecond: 2_000 });
    await eventually(async () => assert.ok((await shishi.status()).ledger.stored > 500), SOON);
    disk.fill();
    await refusedForTheDisk(/ENOSPC/);
    await eventually(() => assertDelivered(shishi), SOON);
    stopLoad.abort();
    await loading;
    disk.makeRoom();
    // Nobody writes at this moment: a load balancer that asks /readyz would send nobody.
    await eventually(ready, SOON);
    await allIsWell();
  });

  test("is read-only for a while", async () => {
    await start(join(disk.path, "data"), ...QUICK);
    const first = send({ rowsPerSecond: 2_000 });
    await eventually(async () => assert.ok((await shishi.status()).ledger.stored > 500), SOON);
    stopLoad.abort();
    await first;
    stopLoad = new AbortController();
    await disk.readOnly();
    const loading = send({ rowsPerSecond: 2_000 });
    await refusedForTheDisk(/EROFS/);
    await eventually(() => assertDelivered(shishi), SOON);
    disk.writable();
    await eventually(ready, SOON);
    stopLoad.abort();
    await loading;
    assert.ok(told.times(429) > 0);
    await allIsWell();
  });

  test("is full when a row is refused for good: its letter waits for room, no row is lost", async () => {
    await clickhouse.query(
      "CREATE TABLE IF NOT EXISTS narrow (n UInt32) ENGINE = MergeTree ORDER BY n " +
        "SETTINGS non_replicated_deduplication_window = 1000",
    );
    await start(join(disk.path, "data"), ...QUICK, "--tables", "narrow");
    await clickhouse.kill();
    const lines = [1, 2, "three", 4].map((n) => JSON.stringify({ n })).join("\n");
    assert.equal((await shishi.post(lines, { path: "/events/narrow" })).status, 202);
    disk.fill();
    await clickhouse.start();
    await eventually(async () => {
      const { tables } = await shishi.status();
      assert.match(tables.narrow.trouble ?? "", /ENOSPC|dead letters/);
    }, SOON);
    disk.makeRoom();
    await eventually(() => assertDelivered(shishi), SOON);
    const { ledger } = await shishi.status();
    assert.deepEqual([ledger.stored, ledger.dead, ledger.lost], [3, 1, 0]);
    assert.equal(await clickhouse.query("SELECT count(), sum(n) FROM narrow"), "3\t7");
    await send(some);
    await allIsWell();
  });
});

describe("a data-dir", () => {
  let folder: string;
  beforeEach(() => {
    folder = tempDir("data");
  });
  afterEach(() => removeDir(folder));

  test("is removed under load: rows in memory are delivered, the folder is made anew", async () => {
    const dataDir = join(folder, "data");
    await start(dataDir, "--flush-interval=500ms");
    const loading = send({ rowsPerSecond: 4_000 });
    for (let times = 0; times < 3; times++) {
      const before = (await shishi.status()).ledger.stored;
      await eventually(async () => {
        assert.ok((await shishi.status()).ledger.stored > before + 500);
      }, SOON);
      removeInUse(dataDir);
    }
    const before = (await shishi.status()).ledger.received;
    await eventually(async () => {
      assert.ok((await shishi.status()).ledger.received > before + 500, "rows are taken again");
    }, SOON);
    stopLoad.abort();
    await loading;
    await allIsWell();
    await assertKeptAtRestart(dataDir);
  });

  test("is removed while it alone holds rows: they are lost, which is told and counted", async () => {
    const dataDir = join(folder, "data");
    await start(dataDir, ...QUICK, "--backlog-bytes=1MiB");
    await clickhouse.kill();
    await send({ events: 5_000, insist: true });
    removeInUse(dataDir);
    await clickhouse.start();
    await eventually(async () => assert.equal((await shishi.status()).ledger.held, 0), SOON);
    const { stored, lost } = (await shishi.status()).ledger;
    assert.ok(stored > 0 && lost > 0, `${stored} stored, ${lost} lost`);
    assert.equal(stored + lost, 5_000);
    const { missing, doubled } = compare(told, await storedIds(clickhouse));
    assert.deepEqual([missing, doubled], [lost, 0]);
    const losses = shishi.lines().filter(({ message }) => /rows are lost/.test(`${message}`));
    assert.equal(losses.reduce((sum, { rows }) => sum + Number(rows), 0), lost);
    await eventually(ready, SOON);
    shishi.signal("SIGTERM");
    assert.equal((await shishi.exited).code, 1);
    assert.match(`${shishi.lines().at(-1)?.message}`, new RegExp(`${lost} rows were lost`));
  });

  /** The folder that was made anew is as good as the first one. */
  async function assertKeptAtRestart(dataDir: string): Promise<void> {
    await clickhouse.kill();
    await send({ events: 300 });
    stopLoad = new AbortController();
    await send({ events: 300 });
    await shishi.kill();
    await shishi.close();
    await clickhouse.start();
    await start(dataDir);
    // Nothing is held either as long as the spool is not read.
    await drained(shishi);
    await told.assertOnce(clickhouse);
  }

  test("spool-max-bytes is reached: refused with its name, and taken again", async () => {
    await start(join(folder, "data"), ...QUICK, "--spool-max-bytes", "300KiB");
    await clickhouse.kill();
    const loading = send();
    await refusedForTheDisk(/spool is full: \d+ of 307200 bytes \(spool-max-bytes\)/);
    const { spool_bytes } = await shishi.status();
    assert.ok(spool_bytes > 250_000 && spool_bytes < 310_000, `${spool_bytes} bytes`);
    await clickhouse.start();
    await eventually(ready, SOON);
    stopLoad.abort();
    await loading;
    assert.ok(told.times(429) > 0);
    await allIsWell();
  });
});
