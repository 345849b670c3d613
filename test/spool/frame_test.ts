/**
 * A journal file's bytes: what is read of them, whatever a disk, a crash or a hand has done to them.
 * Runs once: the disk is the test's own; spool_test.ts has a real one on both runtimes.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import type { Memo } from "../../src/contracts.ts";
import {
  type FrameText,
  LONGEST_HEAD_BYTES,
  memosFrame,
  reachedFrame,
  readFrames,
  rowsFrame,
  settledFrame,
  tailOf,
  VOID_FRAME,
  written,
} from "../../src/spool/frame.ts";
import { rounds } from "../kit/rounds.ts";
import { idAt } from "./recovery_kit.ts";

const FILE = 1_764_400_000_123;
const END_LINE_BYTES = `#end ${FILE}.1 12345678\n`.length;
const head = (last: number, table = "events") => ({
  id: idAt(1000, last),
  table,
  shape: "event" as const,
  fingerprint: null,
  oldestMs: 1000,
});

/** A frame of `rows` rows of batch number `last`. */
function frameOf(
  last: number,
  rows: number,
  from = 0,
  text = "row",
  memos: readonly Memo[] | null = null,
): FrameText {
  const body = Buffer.from(
    Array.from({ length: rows }, (_, at) => `{"n":${from + at},"t":"${text}"}\n`).join(""),
  );
  return rowsFrame(from, rows, body.length, tailOf(head(last)), [body], memos);
}

const of = { table: "events", gone: false };
const KEY = { ...of, key: "k", hash: "h", accepted: 2, rejected: 1, sinceMs: 7, batches: [] };
const MARK = { ...of, source: "kafka:größe", partition: "a/0", position: "17-3", batches: [] };
const IDS = {
  ...of,
  source: "amqp",
  ids: JSON.stringify(['a"\n#end', "b"]),
  count: 2,
  sinceMs: 7,
  batches: [],
};
const batch = (last: number) => idAt(1000, last);

/** Frames as a file holds them, and where each ends. */
function fileOf(frames: readonly FrameText[], file = FILE, first = 1) {
  const room = Buffer.alloc(2 * LONGEST_HEAD_BYTES);
  const lengths: number[] = [];
  const pieces: Uint8Array[] = [];
  for (const piece of written(frames, file, first, room, lengths)) {
    pieces.push(new Uint8Array(piece));
  }
  let at = 0;
  return {
    bytes: new Uint8Array(Buffer.concat(pieces)),
    ends: lengths.map((length) => at += length),
  };
}

/** Each live frame in a word: its batch and rows, or what it marks; then what is remembered, in their order. */
function said(bytes: Uint8Array, file = FILE): string[] {
  const { live, memos } = readFrames(bytes, file);
  const frames = live.map((live) => {
    if ("settled" in live) return `settled ${live.settled}`;
    if ("notes" in live) {
      return live.notes.map(({ batch, n, line }) => `${batch.slice(-2)} #${n} ${line}`).join();
    }
    const { start, end } = live.body;
    const rows = new TextDecoder().decode(bytes.subarray(start, end)).split("\n").length - 1;
    assert.equal(rows, live.rows);
    return `${live.head.id.slice(-2)} ${live.from}+${live.rows}`;
  });
  return [...frames, ...memos.map((memo) => JSON.stringify(sorted(memo)))];
}

function sorted(memo: object): object {
  return Object.fromEntries(Object.entries(memo).sort(([a], [b]) => a < b ? -1 : 1));
}

const REACHED = { source: "kafka:größe", partition: "a/0", position: "17-3" };

/** Each frame, what it says, and what is to be remembered for its sake. */
const ALL: readonly [FrameText, string[], object[]][] = [
  [frameOf(1, 2), ["01 0+2"], []],
  [
    frameOf(2, 3, 0, "größe", [KEY, MARK, IDS]),
    ["02 0+3"],
    [KEY, MARK, IDS].map((memo) => ({ ...memo, batches: [batch(2)] })),
  ],
  [settledFrame([idAt(1000, 9)]), [`settled ${idAt(1000, 9)}`], []],
  [memosFrame([{ ...MARK, batches: [batch(5), batch(6)] }, IDS]), [], [
    { ...MARK, batches: [batch(5), batch(6)] },
    IDS,
  ]],
  [frameOf(1, 1, 2), ["01 2+1"], []],
  [reachedFrame([REACHED]), [], [REACHED]],
  [frameOf(3, 40), ["03 0+40"], []],
];
const FRAMES = ALL.map(([frame]) => frame);

/** What is said where only these frames are whole. */
function left(isWhole: (frame: number) => boolean): string[] {
  const those = ALL.filter((_, frame) => isWhole(frame));
  return [
    ...those.flatMap(([, words]) => words),
    ...those.flatMap(([, , memos]) => memos.map((memo) => JSON.stringify(sorted(memo)))),
  ];
}

const WHOLE = left(() => true);

/** What a file holds that was written over in part: whole frames of a later number in front. */
function recycled(fresh: readonly FrameText[] = FRAMES) {
  const old = fileOf(Array.from({ length: 9 }, (_, at) => frameOf(20 + at, 9)), FILE - 1).bytes;
  const { bytes, ends } = fileOf(fresh);
  const file = old.slice();
  file.set(bytes);
  assert.ok(file.length > bytes.length + 200);
  return { bytes: file, ends };
}

describe("a file in good order", () => {
  test("says what was written, in order", () => {
    const { bytes } = fileOf(FRAMES);
    assert.deepEqual(said(bytes), WHOLE);
    assert.deepEqual(readFrames(bytes, FILE).bad, []);
    const [first] = readFrames(bytes, FILE).live;
    assert.ok(first !== undefined && "head" in first);
    assert.deepEqual(first.head, head(1));
  });

  test("is text: rows between lines that begin with #", () => {
    const text = Buffer.from(fileOf(FRAMES.slice(0, 1)).bytes).toString();
    assert.match(text, new RegExp(`^#shishi \\{"file":${FILE},"frame":1,"from":0,"rows":2,`));
    assert.match(text, new RegExp(`\n#end ${FILE}\\.1 [0-9a-f]{8}\n$`));
    const rows = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
    assert.deepEqual(rows.map((row) => JSON.parse(row).n), [0, 1]);
  });

  test("also where a frame is larger than what is written at once", () => {
    const large = frameOf(1, 20_000);
    const { bytes } = fileOf([frameOf(2, 3), large, FRAMES[0]!]);
    assert.deepEqual(said(bytes), ["02 0+3", "01 0+20000", "01 0+2"]);
  });

  test("whatever it held before it was recycled is nothing, and no damage", () => {
    const { bytes } = recycled();
    assert.deepEqual(said(bytes), WHOLE);
    assert.deepEqual(readFrames(bytes, FILE).bad, []);
    assert.deepEqual(said(bytes, FILE + 1), [], "nor what it holds, once it has another number");
    assert.deepEqual(readFrames(bytes, FILE + 1).bad, []);
  });

  test("what a failed round left behind a later one is nothing", () => {
    const failed = fileOf([frameOf(5, 9), frameOf(6, 9), frameOf(7, 9)], FILE, 6).bytes;
    const { bytes: good } = fileOf(FRAMES);
    const void_ = fileOf([VOID_FRAME], FILE, 9).bytes;
    const next = fileOf([frameOf(8, 1)], FILE, 10).bytes;
    for (const over of [[void_], [void_, next]]) {
      const bytes = new Uint8Array(Buffer.concat([good, failed]));
      bytes.set(Buffer.concat(over), good.length);
      const [frames, memos] = [WHOLE.slice(0, 5), WHOLE.slice(5)];
      const more = over.length > 1 ? ["08 0+1"] : [];
      assert.deepEqual(said(bytes), [...frames, ...more, ...memos]);
      assert.deepEqual(readFrames(bytes, FILE).bad, []);
    }
  });

  test("fields that are not known here are no hindrance, nor is a frame of another kind", () => {
    const body = Buffer.from('{"n":1}\n');
    const tail = Buffer.from(`,"keys":["a"],${Buffer.from(tailOf(head(4))).toString().slice(1)}`);
    const keyed = rowsFrame(0, 1, body.length, tail, [body]);
    const other = { head: `,"bytes":0,"later":[1]}\n`, tail: null, bodies: [] };
    assert.deepEqual(said(fileOf([keyed, other, FRAMES[0]!]).bytes), ["04 0+1", "01 0+2"]);
  });

  test("a journal of before messages were remembered reads as ever", () => {
    const row = '{"n":1}\n';
    const key = '#key {"table":"t","key":"k","hash":"h","accepted":1,"rejected":0,"since":7}\n';
    const frame = `#shishi {"file":${FILE},"frame":1,"from":0,"rows":1,"bytes":${row.length},` +
      `"keys":${key.length},"batch":"${batch(1)}","table":"t","shape":"row","columns":null,` +
      `"since":1000}\n${row}${key}`;
    const crc = crc32(frame).toString(16).padStart(8, "0");
    const bytes = Buffer.from(`${frame}#end ${FILE}.1 ${crc}\n`);
    const { live, memos, bad } = readFrames(bytes, FILE);
    assert.deepEqual([live.length, bad.length], [1, 0]);
    assert.deepEqual(memos, [{
      ...{ table: "t", key: "k", hash: "h", accepted: 1, rejected: 0, sinceMs: 7, gone: false },
      batches: [batch(1)],
    }]);
  });

  test("what is no memo, and one that is not understood, says nothing", () => {
    const lines = Buffer.from(
      [
        '#mark {"table":"t","source":"s","partition":"l","position":"x"}',
        '#mark {"source":"s","partition":"l","position":"1"}',
        '#ids {"table":"t","source":"s","ids":"a","since":1}',
        '#later {"table":"t"}',
        "#mark nonsense",
        '#mark {"table":"t","source":"s","partition":"l","position":"1","more":[]}',
      ].map((line) => `${line}\n`).join(""),
    );
    const frame = { head: `,"bytes":0,"keys":${lines.length}}\n`, tail: null, bodies: [lines] };
    const { memos } = readFrames(fileOf([frame]).bytes, FILE);
    assert.deepEqual(memos, [
      { table: "t", source: "s", partition: "l", position: "1", batches: [], gone: false },
    ]);
  });
});

describe("damage costs the frames that it touches", () => {
  for (const [what, make] of [["new", () => fileOf(FRAMES)], ["recycled", recycled]] as const) {
    test(`every byte of a ${what} file, flipped one by one`, () => {
      const { bytes, ends } = make();
      for (let at = 0; at < bytes.length; at++) {
        const hit = ends.findIndex((end) => at < end);
        for (const bits of [1, 1 << at % 8, 0xff]) {
          bytes[at]! ^= bits;
          assert.deepEqual(said(bytes), left((frame) => frame !== hit), `byte ${at}, bits ${bits}`);
          const { bad } = readFrames(bytes, FILE);
          // What is dead may come to look as if it had been of this file; it is kept, and not sent.
          if (hit < 0) assert.ok(bad.length <= 1);
          else assert.equal(bad.length, 1, `byte ${at}, bits ${bits}`);
          // All of its rows are kept for a person to look at.
          const [start, end] = [ends[hit - 1] ?? 0, ends[hit]! - END_LINE_BYTES];
          if (hit >= 0) assert.ok(bad[0]!.start <= start && bad[0]!.end >= end);
          bytes[at]! ^= bits;
        }
      }
    });
  }

  test("a zeroed page anywhere, also over the newest frames of a recycled file", () => {
    const { bytes, ends } = recycled();
    for (let start = 0; start < bytes.length; start += 7) {
      const end = Math.min(bytes.length, start + 64);
      const torn = bytes.slice();
      torn.fill(0, start, end);
      const isWhole = (frame: number) => end <= (ends[frame - 1] ?? 0) || start >= ends[frame]!;
      assert.deepEqual(said(torn), left(isWhole), `zeroes from ${start}`);
    }
  });

  test("cut anywhere: what is whole in front of it, and the rest is told", () => {
    const { bytes, ends } = fileOf(FRAMES);
    for (let length = 0; length <= bytes.length; length++) {
      const cut = bytes.subarray(0, length);
      const whole = ends.filter((end) => end <= length).length;
      assert.deepEqual(said(cut), left((frame) => frame < whole), `cut at ${length}`);
      const rest = length - (ends[whole - 1] ?? 0);
      // Of the first line so much must be there that it is known as one of this file.
      if (rest > 60) assert.equal(readFrames(cut, FILE).bad.length, 1, `cut at ${length}`);
    }
  });

  test("whatever is done to it: no frame that was not written, none of another file", () => {
    const { bytes } = recycled();
    const known = new Set(WHOLE);
    const hit = fc.record({
      at: fc.nat(),
      length: fc.integer({ min: 1, max: 300 }),
      from: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(hit, { maxLength: 5 }), (hits) => {
        const damaged = bytes.slice();
        // Pieces of the file itself are what is most like a frame.
        for (const { at, length, from } of hits) {
          damaged.set(
            bytes.subarray(from % bytes.length).subarray(0, length).subarray(
              0,
              bytes.length - at % bytes.length,
            ),
            at % bytes.length,
          );
        }
        for (const word of said(damaged)) assert.ok(known.has(word), word);
      }),
      { numRuns: rounds(500) },
    );
  });
});
