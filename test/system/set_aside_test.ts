/**
 * What a table in trouble holds, set aside by order of a person: seen with its reason, made dead letters by
 * the running collector or without one, mended and replayed. What may be stored is told apart.
 * Runs once: test/batch/ and test/dead/ have both runtimes.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { type LosingProxy, startLosingProxy } from "../kit/losing_proxy.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

const SOON = { withinMs: 30_000 };
const WINDOW = "ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000";
const TOKEN = "a-token-for-the-test";
const AUTH = { authorization: `Bearer ${TOKEN}` };

let clickhouse: ClickHouse;
let proxy: LosingProxy;
let shishi: Shishi;
let dataDir: string;
let listen: string;

before(async () => {
  clickhouse = await startClickHouse();
  proxy = await startLosingProxy(clickhouse.url);
});
after(async () => {
  await proxy.close();
  await clickhouse.close();
});
beforeEach(async () => {
  dataDir = tempDir("aside");
  listen = `127.0.0.1:${await freePort()}`;
  proxy.fateOf = () => "pass";
});
afterEach(async () => {
  await shishi.close();
  removeDir(dataDir);
});

async function start(): Promise<void> {
  shishi = await startShishi({
    args: [
      ...["--clickhouse-url", proxy.url, "--data-dir", dataDir, "--listen", listen],
      ...["--tables=*", "--flush-interval=50ms", "--max-block-size=10"],
    ],
    env: { SHISHI_AUTH_TOKENS: TOKEN },
  });
}
const post = (table: string, rows: readonly unknown[], key?: string) =>
  shishi.post(rows.map((row) => JSON.stringify(row)).join("\n"), {
    path: `/events/${table}`,
    headers: { ...AUTH, ...(key === undefined ? {} : { "idempotency-key": key }) },
  });
const status = async () => (await shishi.get("/api/status", AUTH)).json;
const run = (...args: string[]) =>
  runShishi(
    [...args, "--data-dir", dataDir, "--listen", listen],
    { env: { SHISHI_AUTH_TOKENS: TOKEN } },
  );
const spool = (...args: string[]) => run("spool", ...args);
const rowsOf = (from: number, count: number) =>
  Array.from({ length: count }, (_, at) => ({ id: from + at, b: 1 }));

const inTrouble = (table: string) =>
  eventually(async () => assert.equal((await status()).tables[table]?.state, "trouble"), SOON);
const settled = (dead: number, stored: number) =>
  eventually(async () => {
    const { ledger } = await status();
    assert.deepEqual([ledger.dead, ledger.stored, ledger.held, ledger.lost], [dead, stored, 0, 0]);
  }, SOON);

test("seen with its reason, set aside, mended, replayed; other tables go on", async () => {
  await clickhouse.query(`CREATE TABLE gone (id UInt32, b UInt8) ${WINDOW}`);
  await clickhouse.query(`CREATE TABLE well (id UInt32) ${WINDOW}`);
  await start();
  await post("gone", rowsOf(0, 1));
  await settled(0, 1);
  assert.match((await spool("set-aside", "gone", "--yes")).stderr, /gone is in no trouble/);
  await clickhouse.query("ALTER TABLE gone DROP COLUMN b");

  await post("gone", rowsOf(1, 8));
  await post("gone", rowsOf(9, 8));
  await inTrouble("gone");
  const ls = await spool("ls");
  assert.match(ls.stdout, /^TABLE .*HELD BECAUSE$/m);
  assert.match(ls.stdout, /^gone .* [1-9]\d* .* {2}(?:.*column|Unknown field).*$/m);
  const batches = (await spool("ls", "gone")).stdout.trimEnd().split("\n").slice(1)
    .map((line) => line.split(/ +/));
  assert.equal(batches.reduce((sum, [, rows]) => sum + Number(rows), 0), 16);
  const first = batches[0]!;

  const asked = await spool("set-aside", "gone");
  assert.deepEqual([asked.code, asked.stdout], [2, ""]);
  assert.match(asked.stderr, /expected --yes/);
  const bare = await fetch(`http://${listen}/api/spool/set-aside`, {
    method: "POST",
    body: '{"table":"gone"}',
  });
  assert.equal(bare.status, 401);

  const one = await eventually(async () => {
    const done = await spool("set-aside", "gone", "--batch", first[0]!, "--yes");
    assert.equal(done.code, 0, done.stdout + done.stderr);
    return done;
  }, SOON);
  assert.match(one.stdout, new RegExp(`^${first[1]} rows of 1 batch are dead letters$`, "m"));
  await eventually(async () => {
    const done = await spool("set-aside", "gone", "--yes");
    assert.equal(done.code, 0, done.stdout + done.stderr);
  }, SOON);
  await settled(16, 1);
  assert.equal((await status()).tables["gone"].state, "ok");
  await post("well", [{ id: 1 }]);
  await settled(16, 2);

  const { json } = await shishi.get("/api/dead?table=gone&limit=100", AUTH);
  assert.equal(json.total, 16);
  assert.match(json.letters[0].message, /^set aside by order, while its table was in trouble: /);
  assert.equal(json.letters[0].code, 0);
  await clickhouse.query("ALTER TABLE gone ADD COLUMN b UInt8");
  const replayed = await run("dead", "replay", "gone");
  assert.equal(replayed.code, 0, replayed.stdout + replayed.stderr);
  assert.equal(
    await clickhouse.query("SELECT count(), uniqExact(id), sum(b) FROM gone"),
    "17\t17\t16",
  );
});

test("what may be stored stays, unless that is said; its letters say so", async () => {
  await clickhouse.query(`CREATE TABLE doubt (id UInt32, b UInt8) ${WINDOW}`);
  await start();
  // Nothing gets through between the lost answer and the new name, or the batch would just be stored.
  const renamed = Promise.withResolvers<"pass">();
  const lost = Promise.withResolvers<void>();
  let sent = 0;
  proxy.fateOf = () => {
    if (sent++ === 0) return "lose";
    lost.resolve();
    return renamed.promise;
  };
  await post("doubt", rowsOf(0, 3));
  await lost.promise;
  await clickhouse.query("RENAME TABLE doubt TO elsewhere");
  renamed.resolve("pass");
  await inTrouble("doubt");
  const kept = await spool("set-aside", "doubt", "--yes");
  assert.equal(kept.code, 1);
  assert.match(kept.stdout, /it was sent, and may be stored already|it is under way/);
  await eventually(async () => {
    const { stdout } = await spool("set-aside", "doubt", "--yes");
    assert.match(stdout, /with --maybe-stored/);
  }, SOON);
  assert.equal((await status()).ledger.dead, 0);
  await eventually(async () => {
    const done = await spool("set-aside", "doubt", "--yes", "--maybe-stored");
    assert.equal(done.code, 0, done.stdout + done.stderr);
  }, SOON);
  await settled(3, 0);
  const { json } = await shishi.get("/api/dead?table=doubt", AUTH);
  for (const { message } of json.letters) {
    assert.match(message, /; it was sent, and may be in the table$/);
  }
  assert.equal(await clickhouse.query("SELECT count() FROM elsewhere"), "3");
});

test("without a collector, from the folder; a request under its key is still known", async () => {
  await clickhouse.query(`CREATE TABLE alone (id UInt32, b UInt8) ${WINDOW}`);
  await start();
  await post("alone", rowsOf(0, 1));
  await settled(0, 1);
  await clickhouse.query("ALTER TABLE alone DROP COLUMN b");
  await post("alone", rowsOf(1, 5), "the-key");
  await inTrouble("alone");
  await shishi.kill();
  const kept = await spool("set-aside", "alone", "--yes");
  assert.equal(kept.code, 1, kept.stdout + kept.stderr);
  assert.match(kept.stdout, /5 rows of 1 batch stay/);
  const done = await spool("set-aside", "alone", "--yes", "--maybe-stored");
  assert.equal(done.code, 0, done.stdout + done.stderr);
  assert.match(done.stdout, /^5 rows of 1 batch are dead letters$/m);
  assert.match((await spool("ls")).stderr, /nothing is in the spool/);
  const nothing = await spool("set-aside", "alone", "--yes");
  assert.deepEqual([nothing.code, nothing.stdout], [1, ""]);
  await clickhouse.query("ALTER TABLE alone ADD COLUMN b UInt8");
  await start();
  const again = await post("alone", rowsOf(1, 5), "the-key");
  assert.deepEqual([again.json.accepted, again.json.duplicate], [5, true]);
  assert.equal((await run("dead", "replay", "alone")).code, 0);
  assert.equal(await clickhouse.query("SELECT count(), uniqExact(id) FROM alone"), "6\t6");
});
