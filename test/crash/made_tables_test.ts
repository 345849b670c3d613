/**
 * Several collectors take the first rows of a table that is not there, and rows with ever other keys, while
 * they are killed: there is one table, each key is one column of it, and each row is there once.
 * Runs once: points_test.ts and random_test.ts have the collector on both runtimes.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { say } from "../system/books.ts";

const COLLECTORS = 3;
const CLIENTS = 12;
const REQUESTS = 6;
const ROWS = 3;
const KILLS = 3;

let clickhouse: ClickHouse;
const folders: string[] = [];
before(async () => {
  clickhouse = await startClickHouse();
});
after(async () => {
  await clickhouse.close();
  folders.forEach(removeDir);
});

async function collector() {
  const listen = `127.0.0.1:${await freePort()}`;
  const folder = tempDir("data");
  folders.push(folder);
  let shishi: Shishi | null = null;
  const start = async () => {
    shishi = await startShishi({
      args: [
        ...["--clickhouse-url", clickhouse.url, "--listen", listen, "--data-dir", folder],
        ...["--create-tables=logs_*", "--unknown-keys=column", "--max-new-columns=500"],
        ...["--flush-interval=50ms", "--id", `c${folders.indexOf(folder)}`],
      ],
      withinMs: 60_000,
    });
  };
  await start();
  return {
    url: `http://${listen}/events/logs_crash`,
    running: () => shishi!,
    async crash() {
      await shishi!.close();
      await start();
    },
  };
}

/** Sent until it is answered, under one key: a row is sent once, however often it has to be told. */
async function send(url: string, key: string, body: string): Promise<void> {
  for (;;) {
    try {
      const response = await fetch(url, {
        method: "POST",
        body,
        headers: { "idempotency-key": key },
      });
      const text = await response.text();
      if (response.ok) {
        assert.match(text, /"rejected":0/);
        return;
      }
      assert.ok(response.status === 503 || response.status === 429, `${response.status} ${text}`);
    } catch (error) {
      // Killed: nobody listens, or the answer is lost.
      if (error instanceof assert.AssertionError) throw error;
    }
    await pause(50);
  }
}

test("one table, each column once, each row once", async () => {
  const collectors = await Promise.all(Array.from({ length: COLLECTORS }, collector));
  const from = performance.now();
  let sent = 0;
  const clients = Array.from({ length: CLIENTS }, async (_, client) => {
    const { url } = collectors[client % COLLECTORS]!;
    for (let request = 0; request < REQUESTS; request++) {
      const rows = Array.from({ length: ROWS }, (_, at) => {
        const n = (client * REQUESTS + request) * ROWS + at;
        return { time: 1764410400 + n, n, [`k${client}_${request >> 2}`]: `v${n}` };
      });
      await send(url, `${client}-${request}`, rows.map((row) => JSON.stringify(row)).join("\n"));
      sent++;
    }
  });
  const all = Promise.all(clients);
  all.catch(() => {});
  for (let kill = 0; kill < KILLS; kill++) {
    const wanted = Math.floor((kill + 0.5) * CLIENTS * REQUESTS / KILLS);
    await eventually(() => assert.ok(sent >= wanted), { withinMs: 60_000 });
    await collectors[kill % COLLECTORS]!.crash();
  }
  await all;
  for (const { running } of collectors) {
    await eventually(async () => {
      const { ledger, recovering } = await running().status();
      assert.deepEqual([recovering, ledger.held, ledger.dead, ledger.lost], [false, 0, 0, 0]);
    }, { withinMs: 60_000 });
  }
  const rows = CLIENTS * REQUESTS * ROWS;
  assert.equal(
    await clickhouse.query("SELECT count(), uniqExact(n), sum(n) FROM logs_crash"),
    `${rows}\t${rows}\t${rows * (rows - 1) / 2}`,
  );
  const columns = await clickhouse.query(
    "SELECT count(), uniqExact(name), countIf(type = 'Nullable(String)') FROM system.columns WHERE table = 'logs_crash'",
  );
  const keys = CLIENTS * Math.ceil(REQUESTS / 4);
  assert.equal(columns, `${keys + 2}\t${keys + 2}\t${keys}`);
  // Each value is where its key says.
  const names = Array.from({ length: CLIENTS }, (_, client) => `k${client}_1`);
  assert.equal(
    await clickhouse.query(
      `SELECT ${
        names.map((name) => `countIf(\`${name}\` = concat('v', toString(n)))`).join("+")
      } FROM logs_crash`,
    ),
    String(CLIENTS * (REQUESTS - 4) * ROWS),
  );
  say("tables made and widened under kill -9", {
    requests: sent,
    "rows/s": Math.round(rows / (performance.now() - from) * 1000),
    kills: KILLS,
  });
  for (const { running } of collectors) await running().close();
});
