/**
 * A 2xx is kept: the collector is killed with SIGKILL at random moments under load from many clients,
 * and started again on its data-dir. In the end every acknowledged event is in ClickHouse, once.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { compare, load, storedIds } from "../kit/load.ts";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { drained } from "./drained.ts";

const ROUNDS = Number(process.env.CRASH_ROUNDS ?? 20);

describe("killed under load", () => {
  let clickhouse: ClickHouse;
  let dataDir: string;

  before(async () => {
    clickhouse = await startClickHouse();
    dataDir = tempDir("crash");
  });
  after(async () => {
    await clickhouse.close();
    removeDir(dataDir);
  });

  test(
    `${ROUNDS} times: every acknowledged event is there, once`,
    { timeout: 300_000 },
    async () => {
      const port = await freePort();
      const args = [
        "--clickhouse-url",
        clickhouse.url,
        "--listen",
        `127.0.0.1:${port}`,
        "--data-dir",
        dataDir,
        "--ack",
        "disk",
        "--flush-interval",
        "50ms",
        "--max-block-size",
        "500",
      ];
      const acknowledged = new Set<string>();
      for (let round = 0; round < ROUNDS; round++) {
        const shishi = await startShishi({ args });
        const stop = new AbortController();
        const clients = load({
          url: shishi.url,
          clients: 16,
          events: 1_000_000,
          eventsPerRequest: 1 + (round % 3) * 20,
          signal: stop.signal,
        });
        await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 300));
        await shishi.kill();
        stop.abort();
        const books = await clients;
        for (const id of books.acknowledged) acknowledged.add(id);
      }
      const last = await startShishi({ args });
      await drained(last);
      const stored = await storedIds(clickhouse);
      const found = compare({
        acknowledged,
        refused: new Set(),
        unanswered: new Set(),
        statuses: new Map(),
      }, stored);
      console.log(`${ROUNDS} kills, ${acknowledged.size} acknowledged, ${stored.size} stored`);
      assert.ok(acknowledged.size > ROUNDS, "the load reached the collector");
      assert.deepEqual(found, { missing: 0, doubled: 0, uninvited: 0 });
      last.signal("SIGTERM");
      assert.equal((await last.exited).code, 0);
      await last.close();
    },
  );
});
