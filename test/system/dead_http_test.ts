/**
 * Dead letters over HTTP: listed and replayed by the running collector, one process or several, stored
 * once however often that is asked for, also while `shishi dead` works on the same letters.
 * Runs once: test/dead/ has both runtimes.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { DeadLetter } from "../../src/contracts.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Answer, runShishi, type Shishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { startIn } from "./database.ts";
import { bad, createPlain, DEDUPLICATED, good, postLines } from "./rows.ts";

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());

const WAIT = { prefer: "wait=20" };

/** A table whose `n` takes numbers only; and a collector with these bad rows as dead letters. */
async function withLetters(database: string, rows: number, ...args: string[]): Promise<Shishi> {
  const shishi = await startIn(
    clickhouse,
    database,
    "--tables=*",
    // What the door finds by itself never becomes a letter.
    "--type-check=off",
    "--flush-interval=50ms",
    ...args,
  );
  await createPlain(clickhouse, `${database}.t`, DEDUPLICATED);
  const lines = Array.from({ length: rows }, (_, n) => bad(n));
  const answer = await postLines(shishi, "t", [good(100), ...lines], WAIT);
  assert.equal(answer.json.dead, rows, answer.text);
  return shishi;
}

/** From here on the bad rows are good ones. */
async function mend(database: string): Promise<void> {
  await clickhouse.query(`DROP TABLE ${database}.t SYNC`);
  await clickhouse.query(
    `CREATE TABLE ${database}.t (n String, s String) ENGINE = MergeTree ORDER BY n ${DEDUPLICATED}`,
  );
}

const stored = (database: string) =>
  clickhouse.query(`SELECT count(), uniqExact(s) FROM ${database}.t`);

const replay = (shishi: Shishi, wanted: unknown = "", headers = {}): Promise<Answer> =>
  shishi.post(wanted, { path: "/api/dead/replay", headers });

async function listed(shishi: Shishi): Promise<{ letters: DeadLetter[]; total: number }> {
  const answer = await shishi.get("/api/dead");
  assert.equal(answer.status, 200, answer.text);
  return answer.json;
}

test("some, then all, then nothing is left; each row once", async () => {
  const database = "replayed";
  const shishi = await withLetters(database, 5);
  try {
    const { letters, total } = await listed(shishi);
    assert.deepEqual([letters.map(({ row }) => row), total], [[4, 3, 2, 1, 0].map(bad), 5]);

    const still = await replay(shishi, { ids: [letters[0]!.id] });
    assert.equal(still.status, 200, still.text);
    const { stored: none, dead, reasons } = still.json;
    assert.deepEqual([none, dead, reasons[0].letters], [0, 1, 1]);
    assert.match(reasons[0].reason, /^code 27: /);

    await mend(database);
    const ids = letters.slice(1, 3).map(({ id }) => id);
    const some = await replay(shishi, { table: "t", ids });
    assert.deepEqual([some.status, some.json.stored], [200, 2], some.text);
    assert.equal((await listed(shishi)).total, 3);
    assert.equal((await replay(shishi, { table: "t", ids })).json.stored, 0);
    assert.equal((await replay(shishi, { table: "elsewhere" })).json.stored, 0);

    // Side by side: one works, the others are told so, or find nothing to do.
    const answers = await Promise.all([replay(shishi), replay(shishi), replay(shishi)]);
    for (const { status, text } of answers) assert.ok([200, 409].includes(status), text);
    const sum = answers.reduce((sum, { json }) => sum + (json.stored ?? 0), 0);
    assert.equal(sum, 3);
    assert.deepEqual(await listed(shishi), { letters: [], total: 0 });
    assert.equal(await stored(database), "5\t5");
    const { ledger } = await shishi.status();
    assert.deepEqual([ledger.held, ledger.lost], [0, 0]);
  } finally {
    await shishi.close();
  }
});

test("beside `shishi dead`, which speaks to the same collector: one at a time", async () => {
  const shishi = await withLetters("beside", 2);
  try {
    await mend("beside");
    const dataDir = join(shishi.dir, "shishi-data");
    const [over, command] = await Promise.all([
      replay(shishi),
      runShishi(["dead", "replay", "--data-dir", dataDir, "--url", shishi.url]),
    ]);
    assert.ok(over.status === 200 || command.code === 0, `${over.text} ${command.stderr}`);
    assert.equal((await replay(shishi)).status, 200);
    assert.equal(await stored("beside"), "2\t2");
    const purged = await runShishi(["dead", "purge", "--all", "--yes", "--url", shishi.url]);
    assert.equal(purged.code, 0, purged.stderr);
    assert.equal((await listed(shishi)).total, 0);
  } finally {
    await shishi.close();
  }
});

test("a whole letter, all of them as lines, how many there are; then they are deleted", async () => {
  const shishi = await withLetters("looked_at", 3);
  try {
    const { letters } = await listed(shishi);
    const [one] = (await shishi.get(`/api/dead?id=${letters[1]!.id}`)).json.letters;
    assert.deepEqual(one, letters[1]);
    const lines = (await shishi.get("/api/dead/letters?table=t&limit=2")).text;
    assert.deepEqual(lines.trimEnd().split("\n").map((line) => JSON.parse(line).row), [
      bad(2),
      bad(1),
    ]);
    const { tables, asOf } = (await shishi.get("/api/dead/tables")).json;
    assert.deepEqual([tables[0].table, tables[0].letters, tables[0].codes], [
      "t",
      3,
      [{ code: 27, letters: 3 }],
    ]);
    const purge = (query: string) => fetch(`${shishi.url}/api/dead?${query}`, { method: "DELETE" });
    await postLines(shishi, "t", [bad(9)], WAIT);
    const purged = await (await purge(`table=t&before=${asOf}`)).json();
    assert.deepEqual(purged, { letters: 3, damaged: 0, bound: 0 });
    assert.deepEqual((await listed(shishi)).letters.map(({ row }) => row), [bad(9)]);
    assert.equal((await purge("table=t&before=tomorrow")).status, 400);
  } finally {
    await shishi.close();
  }
});

test("kill -9 of the collector in the middle of a replay: each row is stored once", async () => {
  const dir = tempDir("killed");
  let shishi = await withLetters("killed", 5, "--data-dir", dir);
  try {
    await clickhouse.query("DROP TABLE killed.t SYNC");
    let answered = false;
    const asked = replay(shishi).catch(() => {}).finally(() => answered = true);
    // Where the table is known to be missing by then, nothing is taken.
    await eventually(async () => {
      assert.ok(answered || (await shishi.status()).ledger.held === 5);
    }, { withinMs: 20_000 });
    await shishi.kill();
    await asked;
    await clickhouse.query(
      `CREATE TABLE killed.t (n String, s String) ENGINE = MergeTree ORDER BY n ${DEDUPLICATED}`,
    );
    await shishi.close();
    shishi = await startIn(
      clickhouse,
      "killed",
      "--tables=*",
      "--type-check=off",
      "--data-dir",
      dir,
    );
    await eventually(async () => {
      const { status, json, text } = await replay(shishi);
      assert.deepEqual([status, json.left], [200, 0], text);
    }, { withinMs: 30_000 });
    assert.equal((await listed(shishi)).total, 0);
    await eventually(async () => assert.equal(await stored("killed"), "5\t5"), {
      withinMs: 10_000,
    });
  } finally {
    await shishi.close();
    removeDir(dir);
  }
});

test("the table is away meanwhile: the replay is gone on with, and each row stored once", async () => {
  const shishi = await withLetters("away", 2);
  try {
    await clickhouse.query("DROP TABLE away.t SYNC");
    let answered = false;
    const asked = replay(shishi).finally(() => answered = true);
    // Where the table is known to be missing by then, nothing is taken.
    await eventually(async () => {
      assert.ok(answered || (await shishi.status()).ledger.held === 2);
    }, { withinMs: 20_000 });
    await clickhouse.query(
      `CREATE TABLE away.t (n String, s String) ENGINE = MergeTree ORDER BY n ${DEDUPLICATED}`,
    );
    let { status, json } = await asked;
    while (json.left > 0) {
      assert.equal(status, 202);
      ({ status, json } = await replay(shishi));
    }
    assert.equal(status, 200);
    assert.equal(await stored("away"), "2\t2");
    assert.equal((await listed(shishi)).total, 0);
  } finally {
    await shishi.close();
  }
});
