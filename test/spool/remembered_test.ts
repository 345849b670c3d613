/**
 * What journals remember, whatever order their frames are read in: the newest of each, and nothing that is over.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { KnownIds, KnownKey, KnownMark, Memo, Recovered } from "../../src/contracts.ts";
import { addMemo, hasMemos, journalFile } from "../../src/spool/journal.ts";
import { Remembered } from "../../src/spool/recovery.ts";

const [one, two] = [1, 2].map((number) => journalFile(`/journal/${number}`, number, 0));

function mark(position: string, batches: string[] = [], partition = "p"): Recovered<KnownMark> {
  return { table: "t", source: "s", partition, position, batches, gone: false };
}

function said(remembered: Remembered): string[] {
  return remembered.all.map(({ memo, file }) => {
    const { batches } = memo;
    const [what, since] = "position" in memo
      ? [`${memo.partition} ${memo.position}`, ""]
      : ["key" in memo ? memo.key : JSON.parse(memo.ids).join(), ` since ${memo.sinceMs}`];
    return `${what}${since} [${batches}] in ${file.number}`;
  }).sort();
}

describe("marks", () => {
  test("of each batch of a partition the newest", () => {
    const remembered = new Remembered();
    remembered.add(one!, mark("9", ["a"]));
    remembered.add(one!, mark("10", ["a"]));
    remembered.add(two!, mark("8", ["a"]));
    remembered.add(two!, mark("7", ["b"]));
    remembered.add(two!, mark("1", ["a"], "other"));
    assert.deepEqual(said(remembered), ["other 1 [a] in 2", "p 10 [a] in 1", "p 7 [b] in 2"]);
  });

  test("none that the broker had when it was said, and all that came later", () => {
    const remembered = new Remembered();
    remembered.add(one!, mark("9", ["a"]));
    remembered.add(one!, mark("11", ["b"]));
    remembered.add(one!, mark("9", ["a"], "other"));
    remembered.add(one!, { source: "s", partition: "p", position: "10" });
    remembered.add(one!, { source: "another", partition: "p", position: "99" });
    remembered.add(two!, mark("2", ["c"]));
    assert.deepEqual(said(remembered), ["other 9 [a] in 1", "p 11 [b] in 1", "p 2 [c] in 2"]);
  });
});

test("keys and ids: the newest, with all batches that are said of it", () => {
  const remembered = new Remembered();
  const key = (sinceMs: number, batches: string[], table = "t"): Recovered<KnownKey> => ({
    ...{ table, key: "k", hash: "h", accepted: 1, rejected: 0, sinceMs, batches, gone: false },
  });
  const ids = (sinceMs: number, batches: string[]): Recovered<KnownIds> => ({
    ...{ table: "t", source: "s", ids: '["x","y"]', count: 2, sinceMs, batches, gone: false },
  });
  remembered.add(one!, key(5, ["a"]));
  remembered.add(two!, key(5, ["b"]));
  remembered.add(two!, key(4, ["c"]));
  remembered.add(two!, key(1, ["d"], "u"));
  remembered.add(one!, ids(5, ["a"]));
  remembered.add(two!, ids(5, []));
  remembered.add(two!, ids(6, ["b"]));
  assert.deepEqual(said(remembered), [
    "k since 1 [d] in 2",
    "k since 5 [a,b] in 2",
    "x,y since 5 [a] in 2",
    "x,y since 6 [b] in 2",
  ]);
});

test("a file lets go of what is gone, long before it is wanted", () => {
  const file = journalFile("/journal/3", 3, 0);
  const memos: { gone: boolean }[] = [];
  for (let at = 0; at < 50_000; at++) {
    const memo = mark(String(at));
    memos.push(memo);
    addMemo(file, memo as Memo);
    // One in a hundred lives.
    if (at % 100 !== 0) memo.gone = true;
  }
  assert.ok(file.memos.size < 5_000, `${file.memos.size} memos`);
  assert.ok(memos.every(({ gone }, at) => gone || file.memos.has(memos[at] as Memo)));
  assert.ok(hasMemos(file));
  for (const memo of memos) memo.gone = true;
  assert.ok(!hasMemos(file));
});
