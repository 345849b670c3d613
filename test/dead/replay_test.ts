/** A replay into an intake that misbehaves, and through crashes: every row once, no letter lost. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import type { Chunk, LetterFilter, Replaying } from "../../src/contracts.ts";
import { PORTION_BYTES, PORTION_ROWS } from "../../src/dead/replay.ts";
import { DONE } from "../../src/kernel/result.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { rounds } from "../kit/rounds.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { FakeClickHouse, type FakeIntake, type Odd, startFakeIntake } from "./fake_intake.ts";
import { batch, idsOf, lettersOf, namesIn, storeOf, textOf, writerOf } from "./kit.ts";

const folders: string[] = [];
function folder(): string {
  folders.push(tempDir("replay"));
  return join(folders.at(-1)!, "data");
}
after(() => folders.forEach(removeDir));

/** Letters with these rows; codes by place. */
async function letters(
  dataDir: string,
  rows: readonly string[],
  { table = "t", shape = "row" as "row" | "event", codes = [27], writer = writerOf({ dataDir }) } =
    {},
): Promise<void> {
  const written = await writer.write(
    batch(`b-${table}-${shape}`, table, shape),
    rows.map((_, index) => ({ index, code: codes[index % codes.length]!, message: "bad" })),
    rows,
  );
  assert.equal(written, DONE);
}

const numbered = (count: number) => Array.from({ length: count }, (_, n) => `{"n":${n},"é":"ü"}`);
const rowsOf = ({ body }: Chunk) => new TextDecoder().decode(body).split("\n").slice(0, -1);

async function replay(
  { letters }: FakeIntake,
  wanted: Partial<LetterFilter> = {},
  signal = new AbortController().signal,
): Promise<Replaying> {
  const all = { table: null, ids: null, code: null, beforeMs: null };
  const replayed = await letters.replay({ ...all, ...wanted }, signal);
  assert.ok(replayed.ok, JSON.stringify(replayed));
  return replayed.value;
}

const NOTHING: Replaying = {
  stored: 0,
  dead: 0,
  left: 0,
  reasons: [],
  problems: [],
  retryAfterS: null,
};

test("all rows are stored, as they were and in order; nothing is left", async () => {
  const dataDir = folder();
  const rows = numbered(100);
  await letters(dataDir, rows);
  const long = `{"eventType":"${"x".repeat(300)}"}`;
  await letters(dataDir, ['{"eventType":"a"}', '{"eventType":"a"}', long], {
    table: "events",
    shape: "event",
  });
  const fake = startFakeIntake({ dataDir });
  assert.deepEqual(await replay(fake), { ...NOTHING, stored: 103 });
  assert.deepEqual(
    fake.chunks.map(({ table, shape, rows, types }) => [table, shape, rows, [...types]]),
    [["events", "event", 3, [["a", 2], ["other", 1]]], ["t", "row", 100, []]],
  );
  assert.deepEqual(rowsOf(fake.chunks[1]!), rows);
  assert.match(fake.chunks[0]!.replay!, /^[0-9a-f-]{36}$/);
  assert.deepEqual(namesIn(dataDir), []);
  assert.deepEqual(await replay(fake), NOTHING);
});

test("nothing is there: nothing is done, nothing is made", async () => {
  assert.deepEqual(await replay(startFakeIntake({ dataDir: folder() })), NOTHING);
});

test("rows that are dead again are letters again, with their new reason", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(10));
  const fake = startFakeIntake({ dataDir });
  fake.clickhouse.dead = (row) => row.includes('"n":3,');
  assert.deepEqual(await replay(fake), {
    ...NOTHING,
    stored: 9,
    dead: 1,
    reasons: [{ reason: "code 26: still bad", letters: 1 }],
  });
  const [letter, ...more] = await lettersOf(dataDir);
  assert.equal(more.length, 0);
  assert.deepEqual([letter?.code, letter?.row], [26, '{"n":3,"é":"ü"}']);
  assert.deepEqual(namesIn(dataDir), ["t.ndjson"]);
});

test("a second replay of what died again stores it once the cause is gone", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(10));
  const fake = startFakeIntake({ dataDir });
  fake.clickhouse.dead = () => true;
  assert.equal((await replay(fake)).dead, 10);
  fake.clickhouse.dead = () => false;
  assert.equal((await replay(fake)).stored, 10);
  assert.deepEqual(fake.clickhouse.stored, numbered(10));
});

test("only those of a code, of some ids, of a time; the others stay as they are", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(10), { codes: [26, 27] });
  const fake = startFakeIntake({ dataDir });
  assert.equal((await replay(fake, { beforeMs: Date.UTC(2020, 0, 1) })).stored, 0);
  assert.equal((await replay(fake, { code: 27 })).stored, 5);
  assert.deepEqual(fake.clickhouse.stored, numbered(10).filter((_, n) => n % 2 === 1));
  assert.ok((await lettersOf(dataDir)).every(({ code }) => code === 26));
  assert.equal((await replay(fake, { ids: ["b-t-row.4", "b-t-row.5"] })).stored, 1);
  assert.equal((await replay(fake)).stored, 4);
  assert.deepEqual(fake.clickhouse.stored.toSorted(), numbered(10));
});

test("portions are bounded, and each has an id of its own", async () => {
  const dataDir = folder();
  const large = JSON.stringify({ s: "x".repeat(PORTION_BYTES) });
  await letters(dataDir, [...numbered(PORTION_ROWS + 1), large]);
  const fake = startFakeIntake({ dataDir });
  assert.equal((await replay(fake)).left, 0);
  assert.deepEqual(fake.chunks.map(({ rows }) => rows), [PORTION_ROWS, 1, 1]);
  assert.equal(new Set(fake.chunks.map(({ replay }) => replay)).size, 3);
});

test("a row that was changed by hand is sent as it is now, and stays where it is none", async () => {
  const dataDir = folder();
  await letters(dataDir, numbered(4));
  const lines = textOf(dataDir).trimEnd().split("\n").map((line) => JSON.parse(line));
  for (const [at, row] of [[0, '{"n":5}'], [1, '{"n":\n6}'], [2, ""], [3, "[7]"]] as const) {
    lines[at].row = row;
  }
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  writeFileSync(join(dataDir, "dead", "t.ndjson"), text);
  const fake = startFakeIntake({ dataDir });
  assert.deepEqual(await replay(fake), {
    ...NOTHING,
    stored: 1,
    dead: 3,
    reasons: [{
      reason: "refused by the collector: expected one JSON object on one line",
      letters: 3,
    }],
  });
  assert.deepEqual(fake.clickhouse.stored, ['{"n":5}']);
  assert.equal((await lettersOf(dataDir)).length, 3);
});

describe("what is not taken", () => {
  test("a table that is not there: its letters stay, the next table's go", async () => {
    const dataDir = folder();
    await letters(dataDir, numbered(5), { table: "a" });
    await letters(dataDir, numbered(7), { table: "b" });
    const fake = startFakeIntake({ dataDir, tables: ["b"] });
    assert.deepEqual(await replay(fake), {
      ...NOTHING,
      stored: 7,
      left: 5,
      problems: ["there is no table a"],
    });
    assert.equal((await lettersOf(dataDir, "a")).length, 5);
  });

  test("paused: nothing is taken, everything stays, all tables are counted", async () => {
    const dataDir = folder();
    await letters(dataDir, numbered(5), { table: "a" });
    const fake = startFakeIntake({ dataDir });
    fake.misbehave("paused");
    const { left, problems, retryAfterS } = await replay(fake);
    assert.deepEqual([left, problems, retryAfterS], [5, ["the collector is paused"], 1]);
    assert.equal((await idsOf(dataDir, "a")).length, 5);
    assert.equal((await replay(fake)).stored, 5);
  });

  test("full: it waits as it was asked, then goes on", async () => {
    const dataDir = folder();
    await letters(dataDir, numbered(5));
    const fake = startFakeIntake({ dataDir, hurry: false });
    fake.misbehave("full");
    const startedMs = performance.now();
    assert.equal((await replay(fake)).stored, 5);
    assert.ok(performance.now() - startedMs >= 990);
  });

  test("a disk that does not take it: the same again", async () => {
    const dataDir = folder();
    await letters(dataDir, numbered(5));
    const fake = startFakeIntake({ dataDir });
    fake.misbehave("not kept");
    assert.equal((await replay(fake)).stored, 5);
    assert.equal(new Set(fake.chunks.map(({ replay }) => replay)).size, 1);
    assert.deepEqual(fake.clickhouse.stored, numbered(5));
  });

  test("a spool that is still being read, or another replay: nothing is begun", async () => {
    const dataDir = folder();
    await letters(dataDir, numbered(5));
    let unready: string | null = "the spool is still being read";
    const fake = startFakeIntake({ dataDir, unready: () => unready });
    const all = { table: null, ids: null, code: null, beforeMs: null };
    const { signal } = new AbortController();
    assert.deepEqual(await fake.letters.replay(all, signal), { ok: false, problem: unready });
    unready = null;
    fake.misbehave("hold");
    const first = replay(fake);
    await eventually(() => assert.equal(fake.chunks.length, 1), { withinMs: 5_000, everyMs: 1 });
    for (
      const other of [await fake.letters.replay(all, signal), await fake.letters.purge(all, true)]
    ) {
      assert.match(other.ok ? "" : other.problem, /a replay or a purge is under way/);
    }
    fake.release();
    assert.equal((await first).stored, 5);
  });
});

describe("a fate that is not known", () => {
  test("a slow ClickHouse: the next replay sends the same rows, whatever it is asked for", async () => {
    const dataDir = folder();
    await letters(dataDir, numbered(10), { codes: [26, 27] });
    const fake = startFakeIntake({ dataDir });
    fake.misbehave("slow");
    const { left, problems, retryAfterS } = await replay(fake);
    assert.deepEqual([left, retryAfterS], [10, 1]);
    assert.match(problems.join(), /has not taken them yet; the next replay goes on from here$/);
    assert.equal(
      (await idsOf(dataDir)).length,
      10,
      "a letter goes when its row is known to be stored",
    );
    const fresh = { ...batch("new"), rows: ["{}"] };
    await fake.writer.write(fresh, [{ index: 0, code: 99, message: "" }], fresh.rows);
    assert.equal((await replay(fake, { code: 99 })).stored, 11);
    assert.deepEqual(fake.clickhouse.stored, [...numbered(10), "{}"]);
    assert.deepEqual(namesIn(dataDir), []);
  });

  test("an answer that is not waited for: the letters are free again at once", async () => {
    const dataDir = folder();
    await letters(dataDir, numbered(10));
    const fake = startFakeIntake({ dataDir });
    fake.misbehave("hold");
    const gone = new AbortController();
    const first = replay(fake, {}, gone.signal);
    await eventually(() => assert.equal(fake.chunks.length, 1), { withinMs: 5_000, everyMs: 1 });
    gone.abort();
    assert.equal((await first).left, 10);
    fake.release();
    assert.equal((await replay(fake)).stored, 10);
    assert.deepEqual(fake.clickhouse.stored, numbered(10));
  });
});

test("whatever happens on the way: every row once in ClickHouse or a letter, and all in the end", async () => {
  const odd = fc.constantFrom<Odd>("usual", "full", "paused", "not kept", "slow");
  await fc.assert(
    fc.asyncProperty(
      fc.array(odd, { maxLength: 12 }),
      fc.integer({ min: 1, max: 12 }),
      fc.constantFrom(null, 26, 27),
      async (script, count, code) => {
        const dataDir = folder();
        await letters(dataDir, numbered(count), { codes: [26, 27] });
        const fake = startFakeIntake({ dataDir });
        const refused = numbered(count).filter((_, n) => n % 5 === 4);
        let strict = true;
        fake.clickhouse.dead = (row) => strict && refused.includes(row);
        fake.misbehave(...script);
        for (let runs = 0; runs < 3; runs++) await replay(fake, { code });
        const letters_ = (await lettersOf(dataDir)).map(({ row }) => row);
        const met = new Set([...letters_, ...fake.clickhouse.stored]);
        assert.deepEqual([...met].sort(), numbered(count).toSorted());
        strict = false;
        for (let runs = 0; runs < 20; runs++) await replay(fake);
        assert.deepEqual(fake.clickhouse.stored.toSorted(), numbered(count).toSorted());
        assert.deepEqual(namesIn(dataDir), []);
        removeDir(dataDir);
      },
    ),
    { numRuns: rounds(50) },
  );
});

/** The collector is killed at one operation of the disk after the other; the next one goes on. */
async function killedAt(
  step: number,
  how: "process" | "power",
  work: (fake: FakeIntake) => Promise<unknown>,
) {
  const files = new FaultyFiles(step);
  const clickhouse = new FakeClickHouse();
  await files.makeFolder("/data/dead");
  await files.syncFolder("/data/dead");
  await files.syncFolder("/data");
  await files.syncFolder("/");
  const writer = writerOf({ dataDir: "/data", files });
  await letters("/data", numbered(6), { writer, codes: [26, 27] });
  const before = files.operations;
  files.crashAt(before + step);
  const fake = startFakeIntake({ dataDir: "/data", files, clickhouse });
  clickhouse.dead = (row) => row.includes('"n":3,');
  const ended = await Promise.race([
    work(fake).then(() => true),
    files.crashed.then(() => false),
  ]);
  const next = files.crash(how);
  clickhouse.dead = () => false;
  return {
    ended,
    clickhouse,
    next,
    fake: startFakeIntake({ dataDir: "/data", files: next, clickhouse }),
  };
}

for (const how of ["process", "power"] as const) {
  test(`killed at any operation of a replay (${how}): the next stores each row once, and all of them`, async () => {
    for (let step = 1;; step++) {
      const { ended, clickhouse, next, fake } = await killedAt(step, how, (fake) => replay(fake));
      const met = new Set(clickhouse.stored);
      await storeOf("/data", next).visit("t", ({ row }) => void met.add(row));
      assert.equal(met.size, 6, `step ${step}: each row is stored or a letter`);
      for (let runs = 0; runs < 3; runs++) await replay(fake);
      assert.deepEqual(clickhouse.stored.toSorted(), numbered(6), `step ${step}`);
      assert.deepEqual(await storeOf("/data", next).tables(), [], `step ${step}`);
      if (ended) {
        assert.ok(step > 15, `${step} operations`);
        break;
      }
    }
  });

  test(`killed at any operation of a purge (${how}): what was not meant is still there`, async () => {
    const wanted = { table: "t", code: 26, beforeMs: null };
    for (let step = 1;; step++) {
      const { ended, next, fake } = await killedAt(
        step,
        how,
        (fake) => fake.letters.purge(wanted, false),
      );
      const rows: string[] = [];
      const look = () => storeOf("/data", next).visit("t", ({ row }) => void rows.push(row));
      await look();
      const others = numbered(6).filter((_, n) => n % 2 === 1);
      assert.deepEqual(others.filter((row) => !rows.includes(row)), [], `step ${step}`);
      assert.ok((await fake.letters.purge(wanted, false)).ok);
      rows.length = 0;
      await look();
      assert.deepEqual(rows, others, `step ${step}`);
      if (ended) break;
    }
  });
}
