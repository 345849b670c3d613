/**
 * A column is dropped under load, as in seed 1 where every INSERT then fails for ever and the data is
 * lost. Here the table's rows wait on disk, also over a crash; other tables flow; and when the column
 * is back, so do its rows: nothing is lost, nothing is a dead letter, nobody restarts anything.
 * Runs once: points_test.ts and random_test.ts have the collector on both runtimes.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { load } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { assertDelivered, say, watch } from "../system/books.ts";
import { DEDUPLICATED } from "../system/rows.ts";
import { Told } from "./told.ts";

const WITHOUT_COLUMN_MS = 4_000;
/** The longest backoff, and a probe. */
const FLOWS = { withinMs: 35_000 };
const SOON = { withinMs: 10_000 };

let clickhouse: ClickHouse;
let shishi: Shishi;
let watching: ReturnType<typeof watch>;
let dataDir: string;
let listen: string;

before(async () => {
  clickhouse = await startClickHouse();
  listen = `127.0.0.1:${await freePort()}`;
});
after(() => clickhouse.close());
beforeEach(() => {
  dataDir = tempDir("data");
});
afterEach(async () => {
  await watching.end().catch(() => {});
  await shishi.close();
  removeDir(dataDir);
});

async function start(): Promise<void> {
  shishi = await startShishi({
    args: [
      ...["--clickhouse-url", clickhouse.url, "--listen", listen, "--data-dir", dataDir],
      ...["--tables", "seed,other,later", "--flush-interval", "50ms", "--max-block-size", "200"],
    ],
  });
  watching = watch(shishi);
}

const createTable = (name: string) =>
  clickhouse.query(
    `CREATE TABLE ${name} (id UUID, Time DateTime, Value String) ` +
      `ENGINE = MergeTree ORDER BY id ${DEDUPLICATED}`,
  );

const row = (id: string, n: number) => ({ id, Time: 1525435200 + n, Value: `value ${n}` });

/** A row that ClickHouse has when this resolves, however the others fare. */
async function flows(told: Told, path: string, body: (id: string) => unknown): Promise<void> {
  const id = crypto.randomUUID();
  const answer = await shishi.post(body(id), { path, headers: { prefer: "wait=10" } });
  // 202: it is taken, and a busy ClickHouse stores it later.
  if (answer.status === 200 || answer.status === 202) told.acknowledged.add(id);
  assert.equal(answer.status, 200, answer.text);
}

async function inTrouble(...tables: readonly string[]): Promise<void> {
  await eventually(async () => {
    const { status, json } = await shishi.get("/readyz");
    assert.equal(status, 503);
    const named = (json.reasons as string[]).map((reason) => /^table (\w+): ./.exec(reason)?.[1]);
    assert.deepEqual(named.filter(Boolean).sort(), [...tables].sort(), json.reasons.join());
  }, SOON);
}

async function noTrouble(): Promise<void> {
  await eventually(async () => {
    await assertDelivered(shishi);
    const { status, text } = await shishi.get("/readyz");
    assert.equal(status, 200, text);
  }, FLOWS);
  const { ledger, state } = await shishi.status();
  assert.deepEqual([ledger.dead, ledger.lost, state], [0, 0, "running"]);
  const dead = join(dataDir, "dead");
  assert.deepEqual(existsSync(dead) ? readdirSync(dead) : [], []);
}

test("a column is dropped under load, the collector is killed, the column comes back", async () => {
  await createTable("seed");
  await createTable("other");
  await start();
  const stop = new AbortController();
  const [events, seed, other] = [new Told(), new Told(), new Told()];
  const steady = {
    url: shishi.url,
    clients: 4,
    events: Infinity,
    eventsPerRequest: 5,
    rowsPerSecond: 500,
    signal: stop.signal,
  };
  const loading = [
    events.add(load(steady)),
    seed.add(load({ ...steady, path: "/events/seed", row })),
    other.add(load({ ...steady, path: "/events/other", row })),
  ];
  await eventually(async () => assert.ok((await shishi.status()).ledger.stored > 300), SOON);

  const droppedMs = performance.now();
  await clickhouse.query("ALTER TABLE analytics_events DROP COLUMN user_id");
  await clickhouse.query("ALTER TABLE seed DROP COLUMN Value");
  const strippedRows = await clickhouse.query("SELECT count() FROM seed");
  await inTrouble("analytics_events", "seed");
  await flows(other, "/events/other", (id) => row(id, 0));
  const { tables } = await shishi.status();
  assert.deepEqual(
    ["analytics_events", "seed", "other"].map((name) => tables[name].state),
    ["trouble", "trouble", "ok"],
  );

  await pause(WITHOUT_COLUMN_MS / 2 - (performance.now() - droppedMs));
  await watching.end();
  const { held } = (await shishi.status()).ledger;
  assert.ok(held > 200, `${held} rows held`);
  await shishi.kill();
  await shishi.close();
  await start();
  await inTrouble("analytics_events", "seed");
  await flows(other, "/events/other", (id) => row(id, 1));

  await pause(WITHOUT_COLUMN_MS - (performance.now() - droppedMs));
  await clickhouse.query("ALTER TABLE analytics_events ADD COLUMN user_id String");
  await clickhouse.query("ALTER TABLE seed ADD COLUMN Value String");
  const addedMs = performance.now();
  // Their rows are taken again, and new ones do not wait for the old.
  await eventually(() => flows(seed, "/events/seed", (id) => row(id, 2)), FLOWS);
  await eventually(() => flows(events, "/events", (id) => ({ id, eventType: "back" })), FLOWS);
  stop.abort();
  await Promise.all(loading);
  await noTrouble();
  const recoveredMs = performance.now() - addedMs;
  await watching.end();
  const rows = [
    await events.assertOnce(clickhouse),
    await seed.assertOnce(clickhouse, "seed"),
    await other.assertOnce(clickhouse, "other"),
  ];
  // A column that is known to be missing is the client's mistake, and is told as one.
  const statuses = new Set([events, seed, other].flatMap((told) => [...told.statuses.keys()]));
  assert.deepEqual([...statuses].filter((status) => ![202, 400].includes(status)), []);
  assert.equal(events.times(400) + other.times(400), 0);
  // Rows that were there have lost their value, those that waited have not.
  const emptyRows = await clickhouse.query("SELECT countIf(Value = '') FROM seed");
  assert.ok(Number(emptyRows) <= Number(strippedRows), `${emptyRows} of ${strippedRows}`);
  assert.equal(await clickhouse.query("SELECT countIf(Value = '') FROM other"), "0");
  say("dropped column", {
    rows: rows.join(" + "),
    "held at the kill": held,
    "all is well after ms": Math.round(recoveredMs),
  });
});

test("a table that is missing is created later: its rows were waiting", async () => {
  await start();
  await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 200), SOON);
  await clickhouse.kill();
  const later = new Told();
  const events = new Told();
  await later.add(load({
    url: shishi.url,
    clients: 4,
    events: 1_000,
    eventsPerRequest: 20,
    path: "/events/later",
    row,
  }));
  assert.equal(later.acknowledged.size, 1_000);
  await clickhouse.start();
  await inTrouble("later");
  await flows(events, "/events", (id) => ({ id, eventType: "flows" }));
  await eventually(async () => {
    const id = crypto.randomUUID();
    const { status } = await shishi.post(row(id, 0), { path: "/events/later" });
    if (status === 202) later.acknowledged.add(id);
    assert.equal(status, 404);
  }, SOON);
  await createTable("later");
  await noTrouble();
  await watching.end();
  assert.ok(await later.assertOnce(clickhouse, "later") >= 1_000);
});
