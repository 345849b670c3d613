/**
 * What was tried of a batch: it outlives the process as the batch does, wherever its rows are, and no longer.
 * Runs once: the disk is the test's own; spool_test.ts has a real one on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { HeldBatch } from "../../src/batch/batch.ts";
import type { Spool } from "../../src/contracts.ts";
import { recover } from "../../src/spool/recovery.ts";
import { events } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { memoryLog } from "../kit/chunks.ts";
import {
  DATA,
  journalFiles,
  openBatch,
  segments,
  spill,
  spoolIn,
  spoolKit,
  submit,
} from "../batch/spool_kit.ts";

const LINES = [
  '{"plan":1,"rows":5,"cap":5}',
  '{"is":"row","row":3,"said":{"message":"ü # \\"x\\""}}',
];

async function note(spool: Spool, batch: HeldBatch, ...lines: string[]): Promise<void> {
  batch.trail.push(...lines);
  await spool.note(batch);
}

/** What the next process finds, in its order: of each batch its id and its trail. */
async function found(files: FaultyFiles): Promise<[string, readonly string[]][]> {
  const dir = { files, dataDir: DATA, log: memoryLog() };
  const spool = spoolIn(dir, { earlier: () => recover(dir), unread: true });
  const all: [string, readonly string[]][] = [];
  for await (const { id, trail } of spool.recover()) all.push([id, trail]);
  return all;
}

/** A batch whose rows are in the journal. */
async function journaled(spool: Spool, table = "t"): Promise<HeldBatch> {
  const chunk = events(5, { table });
  const batch = openBatch(chunk);
  assert.equal(await submit(spool, batch, chunk), null);
  batch.close();
  return batch;
}

describe("what was tried of a batch", () => {
  test("is found again by the next process, and that batch first", async () => {
    const { files, spool } = await spoolKit();
    const batches = [];
    for (let n = 0; n < 4; n++) batches.push(await journaled(spool));
    await note(spool, batches[2]!, LINES[0]!);
    await note(spool, batches[2]!, LINES[1]!);
    await note(spool, batches[1]!, LINES[0]!);
    const next = await found(files.crash("process"));
    const ids = batches.map(({ id }) => id).sort();
    const tried = [batches[1]!.id, batches[2]!.id].sort();
    assert.deepEqual(next.map(([id]) => id), [
      ...tried,
      ...ids.filter((id) => !tried.includes(id)),
    ]);
    assert.deepEqual(new Map(next).get(batches[2]!.id), LINES);
    assert.deepEqual(next.slice(2).map(([, trail]) => trail), [[], []]);
  });

  test("is found beside a segment that came from memory alone", async () => {
    const { files, spool } = await spoolKit();
    const chunk = events(5, { table: "t" });
    const batch = openBatch(chunk);
    batch.trail.push(...LINES);
    await spill(spool, batch, chunk);
    assert.equal(segments(files).length, 1);
    assert.deepEqual(await found(files.crash("process")), [[batch.id, LINES]]);
  });

  test("keeps its place when the file in which it stands is wanted; a table that is stuck pins none", async () => {
    const { files, spool } = await spoolKit(new FaultyFiles(), {
      fileBytes: 3000,
      memoryBytes: () => 3000,
    });
    const stuck = await journaled(spool, "stuck");
    await note(spool, stuck, ...LINES);
    for (let times = 0; times < 40; times++) {
      for (let n = 0; n < 5; n++) {
        const other = await journaled(spool, "other");
        if (n === 0) await note(spool, other, LINES[0]!);
        spool.remove(other.id);
      }
    }
    await spool.close();
    assert.ok(journalFiles(files).length <= 6, `${journalFiles(files).length} files`);
    assert.equal(segments(files).length, 1, "its rows have moved");
    assert.deepEqual(await found(files.crash("process")), [[stuck.id, LINES]]);
  });

  test("goes with the batch: nothing of it keeps a file", async () => {
    const { files, spool } = await spoolKit();
    const batch = await journaled(spool);
    await note(spool, batch, ...LINES);
    spool.remove(batch.id);
    await spool.close();
    assert.deepEqual(journalFiles(files), []);
    assert.deepEqual(await found(files), []);
  });

  test("of a line that is missing nothing behind it counts", async () => {
    const { files, spool } = await spoolKit();
    const batch = await journaled(spool);
    for (const line of ["0", "1", "2"]) await note(spool, batch, line);
    const [path] = journalFiles(files);
    const text = new TextDecoder().decode(files.get(path!)!);
    files.put(path!, text.replace('"n":1,"is":1}', '"n":1,"is":7}'));
    assert.deepEqual(await found(files), [[batch.id, ["0"]]]);
  });

  test("a disk that does not take it holds nothing up", async () => {
    const { files, spool } = await spoolKit();
    const batch = await journaled(spool);
    files.fail({ on: "write", code: "ENOSPC", times: 99 });
    await note(spool, batch, ...LINES);
    await note(spool, batch, "3");
    assert.notEqual(spool.trouble(), null);
  });
});
