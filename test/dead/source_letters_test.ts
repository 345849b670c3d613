/** Messages of sources that are no rows: how they are kept, shown, and read again by a replay. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { LetterFilter, Read, SourceLetter } from "../../src/contracts.ts";
import { shown } from "../../src/commands/dead.ts";
import { deadFolder } from "../../src/spool/data_dir.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { PlainReader } from "../sources/plain_reader.ts";
import { startFakeIntake } from "./fake_intake.ts";
import { lettersOf } from "./kit.ts";

const ALL: LetterFilter = { table: null, ids: null, code: null, beforeMs: null };

const letter = (index: number, row: string, base64 = false): SourceLetter => ({
  source: "kafka:t",
  address: `kafka:t/0@${index}`,
  table: "t",
  shape: "row",
  batch: `01890000-0000-8000-8000-00000000000${index}`,
  index: 0,
  error: "no row",
  row,
  base64,
});

/** Says how many objects it was asked to read. */
class CountingReader extends PlainReader {
  reads = 0;

  override read(table: string | null, body: Uint8Array): Promise<Read> {
    this.reads++;
    return super.read(table, body);
  }
}

async function withLetters(
  work: (
    of: ReturnType<typeof startFakeIntake>,
    reader: CountingReader,
    dir: string,
  ) => Promise<void>,
): Promise<void> {
  const dataDir = tempDir("letters");
  const reader = new CountingReader();
  const fake = startFakeIntake({ dataDir, reader });
  try {
    await work(fake, reader, dataDir);
  } finally {
    await fake.letters.close();
    removeDir(dataDir);
  }
}

test("where a message was is shown, and nothing in it moves a cursor", () =>
  withLetters(async ({ writer }, _, dir) => {
    const at = "redis:\x1b[2J/0@1";
    assert.ok((await writer.keep([letter(1, "{broken"), { ...letter(2, "x"), address: at }])).ok);
    const heads = [...shown(await lettersOf(dir), false, false)].filter((line) =>
      /code/.test(line)
    );
    assert.deepEqual(heads.map((line) => line.replace(/^\S+ +/, "")), [
      "t  code 0  message kafka:t/0@1 of source kafka:t, row 0",
      "t  code 0  message redis:\\u001b[2J/0@1 of source kafka:t, row 0",
    ]);
  }));

test("a letter has where its message was, and all of its bytes", () =>
  withLetters(async ({ letters, writer }, _, dir) => {
    const kept = await writer.keep([letter(1, "{broken\n"), letter(2, "/wD+", true)]);
    assert.ok(kept.ok);
    const lines = readFileSync(join(deadFolder(dir), "t.ndjson"), "utf8").trimEnd().split("\n");
    const [first, second] = lines.map((line) => JSON.parse(line));
    assert.equal(first.source, "kafka:t");
    assert.equal(first.address, "kafka:t/0@1");
    assert.equal(first.row, "{broken\n");
    assert.equal("base64" in first, false);
    assert.equal(second.base64, true);
    const { letters: [newest] } = await letters.newest("t", 1);
    assert.deepEqual([newest?.address, newest?.base64, newest?.row], ["kafka:t/0@2", true, "/wD+"]);
  }));

test("one that is written twice counts once", () =>
  withLetters(async ({ letters, writer }) => {
    await writer.keep([letter(1, "{")]);
    await writer.keep([letter(1, "{")]);
    const { tables: [table] } = await letters.tables({ table: null, code: null, beforeMs: null });
    assert.equal(table?.letters, 1);
  }));

test("a replay reads it again: what is no row still says why, and stays", () =>
  withLetters(async ({ letters, writer, chunks }) => {
    await writer.keep([letter(1, "{broken"), letter(2, "/wD+", true), letter(3, '{"m":1}')]);
    const replay = await letters.replay(ALL, AbortSignal.timeout(10_000));
    assert.ok(replay.ok);
    const { stored, dead, left, reasons } = replay.value;
    assert.deepEqual({ stored, dead, left }, { stored: 0, dead: 3, left: 0 });
    assert.deepEqual(reasons.map(({ reason }) => reason).sort(), [
      'refused by the collector: no row: {"m":1}',
      "refused by the collector: not JSON",
      "refused by the collector: the bytes of the message are no text, so no row can be made of them",
    ]);
    assert.equal(chunks.length, 0);
    assert.equal((await letters.newest("t", 10)).total, 3);
  }));

test("what has become rows is stored, once, and gone", () =>
  withLetters(async ({ letters, writer, clickhouse, chunks }, reader) => {
    await writer.keep([letter(1, '[{"n":1},\n {"n":2}]'.replace("\n", " ")), letter(2, '{"n":3}')]);
    const first = await letters.replay(ALL, AbortSignal.timeout(10_000));
    assert.ok(first.ok);
    assert.deepEqual(first.value.problems, []);
    assert.equal(first.value.stored, 2);
    assert.deepEqual(clickhouse.stored, ['{"n":1}', '{"n":2}', '{"n":3}']);
    assert.equal(chunks[0]?.rows, 3);
    assert.equal(reader.reads, 2);
    assert.equal((await letters.newest("t", 10)).total, 0);
  }));

test("a table that takes no rows leaves its letters as they are", () =>
  withLetters(async ({ letters, writer, chunks }, reader) => {
    reader.waits = "there is no table t";
    await writer.keep([letter(1, '{"n":1}')]);
    const replay = await letters.replay(ALL, AbortSignal.timeout(10_000));
    assert.ok(replay.ok);
    assert.equal(replay.value.left, 1);
    assert.deepEqual(replay.value.problems, ["there is no table t"]);
    assert.equal(chunks.length, 0);
    assert.equal((await letters.newest("t", 10)).total, 1);
  }));
