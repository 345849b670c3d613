/**
 * A table in trouble is its own trouble, in the binary: it fills its share of the backlog, others their own;
 * and names that a client invents while ClickHouse is away are few, however many it tries.
 * Runs once: the collector is the binary.
 */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { assertDelivered } from "./books.ts";

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());

const BROKEN = ["bad", "worse"];
const rows = (count: number) => Array.from({ length: count }, (_, a) => ({ a }));

/** Posts rows until they are refused. @returns how many were taken, and why no more. */
async function fill(shishi: Shishi, table: string): Promise<{ taken: number; error: string }> {
  for (let taken = 0;; taken += 100) {
    const answer = await shishi.post(rows(100), { path: `/events/${table}` });
    if (answer.status !== 202) {
      assert.equal(answer.status, 429, answer.text);
      assert.ok(Number(answer.headers.get("retry-after")) >= 1);
      return { taken, error: answer.json.error };
    }
    assert.ok(taken < 2000, "it takes all of the backlog");
  }
}

test("two tables whose views are broken fill their share; events and a third table flow", async () => {
  for (const table of [...BROKEN, "good"]) {
    await clickhouse.query(
      `CREATE TABLE ${table} (a UInt32) ENGINE = MergeTree ORDER BY a ` +
        "SETTINGS non_replicated_deduplication_window = 1000",
    );
  }
  for (const table of BROKEN) {
    await clickhouse.query(`CREATE TABLE ${table}_to (a UInt32) ENGINE = MergeTree ORDER BY a`);
    await clickhouse.query(
      `CREATE MATERIALIZED VIEW ${table}_view TO ${table}_to AS SELECT a FROM ${table}`,
    );
    await clickhouse.query(`DROP TABLE ${table}_to SYNC`);
  }
  const shishi = await startShishi({
    binary: true,
    args: [
      ...["--clickhouse-url", clickhouse.url, "--tables", "good,bad,worse", "--backlog", "2000"],
      ...["--flush-interval", "50ms", "--max-block-size", "100"],
    ],
  });
  try {
    for (const [at, table] of BROKEN.entries()) {
      assert.equal((await shishi.post(rows(1), { path: `/events/${table}` })).status, 202);
      await eventually(async () => {
        const { state } = (await shishi.status()).tables[table];
        assert.equal(state, "trouble");
      }, { withinMs: 20_000 });
      const { taken, error } = await fill(shishi, table);
      assert.match(error, at === 0 ? /^bad is in trouble/ : /^worse and 1 more are in trouble/);
      assert.match(error, /more than 50% of backlog \(table-share\)/);
      assert.ok(at === 0 ? taken >= 800 && taken < 1000 : taken >= 100 && taken < 250, `${taken}`);
    }
    for (const path of ["/events", "/events/good"]) {
      const events = path === "/events"
        ? rows(900).map(({ a }) => ({ eventType: `${a}` }))
        : rows(900);
      const answer = await shishi.post(events, { path, headers: { prefer: "wait=20" } });
      assert.equal(answer.status, 200, answer.text);
      assert.equal(answer.json.ack, "clickhouse");
    }
    assert.equal(await clickhouse.query("SELECT count() FROM good"), "900");
    const { status, json } = await shishi.get("/readyz");
    assert.equal(status, 503);
    for (const table of BROKEN) assert.match(json.reasons.join(), new RegExp(`table ${table}: `));
    // Mended, they flow without a restart, and nothing is there twice.
    for (const table of BROKEN) {
      await clickhouse.query(`CREATE TABLE ${table}_to (a UInt32) ENGINE = MergeTree ORDER BY a`);
    }
    await eventually(() => assertDelivered(shishi), { withinMs: 60_000 });
    for (const table of BROKEN) {
      const { stored } = (await shishi.status()).tables[table];
      assert.equal(await clickhouse.query(`SELECT count() FROM ${table}`), `${stored}`);
    }
  } finally {
    await shishi.close();
  }
});

test("10,000 invented names while ClickHouse is away: a few are taken, the others wait", async () => {
  const shishi = await startShishi({
    binary: true,
    args: [
      ...["--clickhouse-url", `http://127.0.0.1:${await freePort()}`, "--tables", "*"],
      ...["--flush-interval", "50ms"],
    ],
  });
  try {
    const counts = new Map<number, number>();
    const names = Array.from({ length: 10_000 }, (_, n) => `invented_${n}`);
    const clients = Array.from({ length: 16 }, async () => {
      for (let name = names.pop(); name !== undefined; name = names.pop()) {
        const { status } = await shishi.post({ a: 1 }, { path: `/events/${name}` });
        counts.set(status, (counts.get(status) ?? 0) + 1);
      }
    });
    await Promise.all(clients);
    const taken = counts.get(202) ?? 0;
    assert.ok(taken > 0 && taken <= 256, `${taken} names`);
    assert.deepEqual([...counts.keys()].sort(), [202, 503]);
    assert.equal(counts.get(503), 10_000 - taken);
    const below = readdirSync(join(shishi.dir, "shishi-data"), { recursive: true });
    assert.ok(below.length < 50 + taken, `${below.length} files and folders`);
    assert.equal((await shishi.status()).ledger.held, taken);
  } finally {
    await shishi.close();
  }
});
