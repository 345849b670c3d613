/**
 * What a journal file looks like inside, and how a damaged one is read. Pure.
 *
 * The journal makes open batches safe, all tables together, with one write and one sync a round. It is
 * text that `cat` shows and `grep -v '^#'` turns into rows: NDJSON as it will be INSERTed, between
 * lines that begin with `#`, which no row does.
 *
 *     #shishi {"file":1764400000123,"frame":12,"from":300,"rows":2,"bytes":52,"batch":"0190…",…}
 *     {"eventType":"a", …}
 *     {"eventType":"b", …}
 *     #end 1764400000123.12 9f3c1a2b
 *
 * A frame holds the rows that one batch got in one round. `from` says how many rows of the batch stand
 * in earlier frames, so that a batch is put together again whatever files its frames are in, a copy
 * is known as one, and what is missing is counted. The last line carries the CRC-32 of all that stands
 * before it in the frame, the head included. A frame without rows is a mark: `"settled"` names batches
 * whose rows have left (stored, dead letters, or lost); `"void"` says nothing at all. Fields that a
 * reader does not know are no business of its.
 *
 * **Keys** under which rows came stand behind the rows, one a line, and are as safe as they are:
 *
 *     #key {"table":"t","key":"order-7","hash":"…","accepted":2,"rejected":0,"since":1764400000123}
 *
 * `"keys"` in the head is how many bytes of such lines there are. All rows of a key are in the frame that
 * it stands in, so a crash leaves both or neither. Keys are remembered for longer than rows are held:
 * where a file is wanted, those that live are written once more, in a frame without rows
 * in the newest file, with the batches that their rows are in.
 *
 * **What a broker calls its messages** stands with the keys, and lives as they do: up to where a partition of a
 * source was taken when these rows were, and the ids of the messages whose rows they are.
 *
 *     #mark {"table":"t","source":"kafka:flights","partition":"flights/3","position":"17"}
 *     #ids {"ids":["7d0c…","7d0d…"],"table":"t","source":"amqp:orders","since":1764400000123}
 *
 * When the broker has it that a partition is acknowledged, that is said with the next frames, and no mark before
 * it counts that is not beyond: `#reached {"source":"kafka:flights","partition":"flights/3","position":"17"}`.
 *
 * **What was tried** of a batch stands the same way in a frame without rows, written before each INSERT
 * that depends on it: a batch that goes out for the first time, and each piece of one that goes in parts.
 * So a start knows what may be stored already and goes on under the same tokens. `n` counts up from 0; what
 * `is` says is the sink's own business.
 *
 *     #note {"batch":"0190…","n":0,"is":{"plan":1,"cap":10000}}
 *
 * **Recycling.** A file is written over from its start when no batch needs it any more: blocks that
 * were written before are synced in half the time (0.25 against 0.45 ms, and half of the kernel's
 * work), for no size has to be made safe. Behind the last frame there is then what the file held
 * before. It can never be taken for a live frame: `file` is the file's own number, its name, unique
 * for ever and given anew before it is written over; the number stands in each frame under the
 * checksum and in the file's name, which no flipped byte inside can touch.
 *
 * **A round that failed** is written over by the next one in its place. Frames count up by one, and a
 * number is never used twice: what remains of the failed round behind a shorter one has lower
 * numbers than the frame before it, and is nothing.
 *
 * **Damage** is what lies between two live frames, and behind the last one what is of this file without
 * being a whole frame of it, or a zeroed page. It costs the frames that it touches: the next one is
 * found by its first line, which cannot occur inside a row (JSON escapes quotes).
 */

import { Buffer } from "node:buffer";
import type { BatchHead, KnownKey, KnownMark, Mark, Memo, Recovered } from "../contracts.ts";
import { nodeZlib } from "../kernel/builtins.ts";
import { isPosition } from "../kernel/positions.ts";
import { isBatchId, isFingerprint, type Range } from "./segment.ts";

const NEWLINE = 0x0a;
const HEAD_BEGIN = '#shishi {"file":';
const END_BEGIN = "#end ";
const KEY_BEGIN = "#key ";
const MARK_BEGIN = "#mark ";
const IDS_BEGIN = "#ids ";
const REACHED_BEGIN = "#reached ";
const NOTE_BEGIN = "#note ";
/** Of a checksum in an end line. */
const CRC_CHARS = 8;
/** Ids that one mark names at most. */
export const IDS_A_MARK = 500;
/** Of an end line, of any file and frame. */
const LONGEST_END_BYTES = 64;
/** A head with its table's name, or a mark with `IDS_A_MARK`, takes less. */
export const LONGEST_HEAD_BYTES = 32 * 1024;

/** The runtime's, once it is wanted: a frame's rows are summed for each request that waits for it. */
let runtimes: typeof import("node:zlib").crc32 | null = null;

function crc32(bytes: Uint8Array, before = 0): number {
  return (runtimes ??= nodeZlib().crc32)(bytes, before);
}

// ---------------------------------------------------------------- writing

/** One frame to be written. */
export interface FrameText {
  /** Its first line, from behind the frame's number on, up to `tail`: `,…`, without one `,…}` and a newline. */
  readonly head: string;
  /** The rest of the first line, where it is the same in each frame of a batch. */
  readonly tail: Uint8Array | null;
  readonly bodies: readonly Uint8Array[];
}

const NO_BODIES: readonly Uint8Array[] = [];

/** Rows of a batch, whose `tail` is that of `tailOf`. @param from how many stand before them. */
export function rowsFrame(
  from: number,
  rows: number,
  bytes: number,
  tail: Uint8Array,
  bodies: readonly Uint8Array[],
  memos: readonly Memo[] | null = null,
): FrameText {
  const head = `,"from":${from},"rows":${rows},"bytes":${bytes}`;
  if (memos === null) return { head, tail, bodies };
  const lines = Buffer.from(memos.map((memo) => memoLine(memo, [])).join(""));
  return { head: `${head},"keys":${lines.length}`, tail, bodies: [...bodies, lines] };
}

/** Memos that outlive the file in which they came. */
export function memosFrame(memos: readonly Memo[]): FrameText {
  const lines = Buffer.from(memos.map((memo) => memoLine(memo, memo.batches)).join(""));
  return { head: `,"bytes":0,"keys":${lines.length}}\n`, tail: null, bodies: [lines] };
}

/** Up to where a broker has it that a partition is acknowledged. */
export interface Reached extends Mark {
  readonly source: string;
}

/** Of several partitions. */
export function reachedFrame(partitions: readonly Reached[]): FrameText {
  const lines = Buffer.from(
    partitions.map((said) => `${REACHED_BEGIN}${JSON.stringify(said)}\n`).join(""),
  );
  return { head: `,"bytes":0,"keys":${lines.length}}\n`, tail: null, bodies: [lines] };
}

/** A line of a batch's trail. */
export interface Note {
  readonly batch: string;
  /** Its place in the trail. */
  readonly n: number;
  /** JSON. */
  readonly line: string;
}

/** What was tried of batches. */
export function notesFrame(notes: readonly Note[]): FrameText {
  const lines = Buffer.from(
    notes.map(({ batch, n, line }) => `${NOTE_BEGIN}{"batch":"${batch}","n":${n},"is":${line}}\n`)
      .join(""),
  );
  return { head: `,"bytes":0,"keys":${lines.length}}\n`, tail: null, bodies: [lines] };
}

/** @param batches none: that of the frame. */
function memoLine(memo: Memo, batches: readonly string[]): string {
  const of = batches.length === 0 ? {} : { batches };
  if ("ids" in memo) {
    const { table, source, ids, sinceMs: since } = memo;
    // The text of the ids as it is.
    return `${IDS_BEGIN}{"ids":${ids},${
      JSON.stringify({ table, source, since, ...of }).slice(1)
    }\n`;
  }
  const { begin, said } = textOf(memo);
  return `${begin}${JSON.stringify({ ...said, ...of })}\n`;
}

function textOf(memo: KnownKey | KnownMark): { readonly begin: string; readonly said: object } {
  const { table } = memo;
  if ("key" in memo) {
    const { key, hash, accepted, rejected, sinceMs: since } = memo;
    return { begin: KEY_BEGIN, said: { table, key, hash, accepted, rejected, since } };
  }
  const { source, partition, position } = memo;
  return { begin: MARK_BEGIN, said: { table, source, partition, position } };
}

/** What all frames of a batch say of it. */
export function tailOf({ id, table, shape, fingerprint, oldestMs }: BatchHead): Uint8Array {
  const said = { batch: id, table, shape, columns: fingerprint, since: oldestMs };
  return Buffer.from(`,${JSON.stringify(said).slice(1)}\n`);
}

/** Batches that nothing is to be sent of any more; `IDS_A_MARK` at most. */
export function settledFrame(ids: readonly string[]): FrameText {
  return { head: `,"bytes":0,"settled":${JSON.stringify(ids)}}\n`, tail: null, bodies: NO_BODIES };
}

/** Says that what stands behind it is nothing. */
export const VOID_FRAME: FrameText = {
  head: `,"bytes":0,"void":true}\n`,
  tail: null,
  bodies: NO_BODIES,
};

/**
 * Frames as they are to be written, in pieces: most rounds are one.
 * @param first number of the first frame; each other has the next one.
 * @param room where each piece lies until the next one is asked for; of `LONGEST_HEAD_BYTES` at least.
 * @param lengths gets the length of each frame.
 */
export function* written(
  frames: readonly FrameText[],
  file: number,
  first: number,
  room: Buffer,
  lengths: number[],
): Generator<Uint8Array, void, undefined> {
  const [headBegin, endBegin] = [`${HEAD_BEGIN}${file},"frame":`, `${END_BEGIN}${file}.`];
  const { buffer, byteOffset } = room;
  const part = (from: number, to: number) => new Uint8Array(buffer, byteOffset + from, to - from);
  let used = 0;
  let number = first;
  for (const { head, tail, bodies } of frames) {
    if (used + LONGEST_HEAD_BYTES > room.length) {
      yield room.subarray(0, used);
      used = 0;
    }
    let crc = 0;
    /** From here on the room holds what is not in the checksum yet. */
    let summed = used;
    let length = 0;
    used = put(room, used, headBegin);
    used = put(room, used, String(number));
    used = put(room, used, head);
    if (tail !== null) {
      room.set(tail, used);
      used += tail.length;
    }
    for (const body of bodies) {
      if (body.length <= room.length - used) {
        room.set(body, used);
        used += body.length;
        continue;
      }
      for (let from = 0; from < body.length;) {
        if (used === room.length) {
          crc = crc32(part(summed, used), crc);
          length += used - summed;
          yield room;
          used = summed = 0;
        }
        const next = body.subarray(from, from + room.length - used);
        room.set(next, used);
        used += next.length;
        from += next.length;
      }
    }
    crc = crc32(part(summed, used), crc);
    length += used - summed;
    if (used + LONGEST_END_BYTES > room.length) {
      yield room.subarray(0, used);
      used = 0;
    }
    const end = used;
    used = put(room, used, endBegin);
    used = put(room, used, String(number++));
    used = put(room, used, ` ${crc.toString(16).padStart(CRC_CHARS, "0")}\n`);
    lengths.push(length + used - end);
  }
  yield room.subarray(0, used);
}

/**
 * With two hundred tables a round is mostly first and last lines: three times as fast there as `Buffer.write`.
 * @returns behind the text, whose characters are ASCII.
 */
function put(room: Buffer, at: number, text: string): number {
  for (let from = 0; from < text.length; from++) room[at++] = text.charCodeAt(from);
  return at;
}

// ---------------------------------------------------------------- reading

/** A live frame with rows. */
export interface RowsFrame {
  readonly head: BatchHead;
  readonly from: number;
  readonly rows: number;
  /** The whole frame, and its rows alone. */
  readonly frame: Range;
  readonly body: Range;
}

/** What is live in a journal file, in the order in which it was written. */
export type Live =
  | RowsFrame
  | { readonly settled: readonly string[] }
  | { readonly notes: readonly Note[] };

export interface JournalContent {
  readonly live: readonly Live[];
  /** What stands in live frames beside rows. */
  readonly memos: readonly (Recovered | Reached)[];
  /** What was written there and cannot be read. */
  readonly bad: readonly Range[];
}

/** Whatever the bytes are: what of them can be trusted. @param file the number in the file's name. */
export function readFrames(bytes: Uint8Array, file: number): JournalContent {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const begin = `${HEAD_BEGIN}${file},"frame":`;
  const live: Live[] = [];
  const memos: (Recovered | Reached)[] = [];
  const bad: Range[] = [];
  /** Everything before it is judged. */
  let judged = 0;
  /** Number of the last live frame. */
  let last = 0;
  for (let at = text.indexOf(begin); at >= 0;) {
    const frame = frameAt(text, at, file);
    if (frame === null || frame.number <= last) {
      at = text.indexOf(begin, at + 1);
      continue;
    }
    if (at > judged) bad.push({ start: judged, end: at });
    if (frame.live !== null) live.push(frame.live);
    memos.push(...frame.memos);
    last = frame.number;
    judged = frame.end;
    at = text.indexOf(begin, judged);
  }
  const end = tornEnd(text, judged, file, last);
  if (end > judged) bad.push({ start: judged, end });
  return { live, memos, bad };
}

/** Where the rows lie of a frame that begins at `at`, if the checksum vouches for it; else null. */
export function rowsAt(bytes: Uint8Array, at: number, file: number): Range | null {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const live = frameAt(text, at, file)?.live;
  return live !== undefined && live !== null && "body" in live ? live.body : null;
}

/** Null unless it is whole. */
function frameAt(
  text: Buffer,
  at: number,
  file: number,
): {
  readonly number: number;
  readonly end: number;
  readonly live: Live | null;
  readonly memos: readonly (Recovered | Reached)[];
} | null {
  const newline = text.indexOf(NEWLINE, at);
  if (newline < 0) return null;
  const head = headIn(text.toString("utf8", at + "#shishi ".length, newline));
  if (head === null || head.file !== file || !isCount(head.bytes) || !isCount(head.frame)) {
    return null;
  }
  const start = newline + 1;
  const rowsEnd = start + head.bytes;
  const end = rowsEnd + (isCount(head.keys) ? head.keys : 0);
  if (end > text.length) return null;
  const named = `${END_BEGIN}${file}.${head.frame} `;
  const length = named.length + CRC_CHARS + 1;
  const line = text.toString("latin1", end, end + length);
  if (line.length < length || !line.startsWith(named) || !line.endsWith("\n")) return null;
  const crc = crc32(text.subarray(at, end)).toString(16).padStart(CRC_CHARS, "0");
  if (line.slice(named.length, -1) !== crc) return null;
  const frame = { start: at, end: end + length };
  const live = liveOf(head, frame, { start, end: rowsEnd });
  if (end === rowsEnd) return { number: head.frame, end: frame.end, live, memos: [] };
  const lines = text.toString("utf8", rowsEnd, end);
  const memos = memosIn(lines, head.batch);
  return { number: head.frame, end: frame.end, live: live ?? notesIn(lines), memos };
}

/** Null where there are none. */
function notesIn(lines: string): Live | null {
  const notes = lines.split("\n").flatMap((line): Note[] => {
    const said = line.startsWith(NOTE_BEGIN) ? headIn(line.slice(NOTE_BEGIN.length)) : null;
    if (said === null || !isBatchId(said.batch) || !isCount(said.n)) return [];
    return [{ batch: said.batch, n: said.n, line: JSON.stringify(said.is) }];
  });
  return notes.length === 0 ? null : { notes };
}

const MEMO_BEGINS = [KEY_BEGIN, MARK_BEGIN, IDS_BEGIN, REACHED_BEGIN];

/** @param batch that of the frame, if it has one. */
function memosIn(lines: string, batch: unknown): (Recovered | Reached)[] {
  const memos: (Recovered | Reached)[] = [];
  for (const line of lines.split("\n")) {
    const begin = MEMO_BEGINS.find((begin) => line.startsWith(begin));
    const said = begin === undefined ? null : headIn(line.slice(begin.length));
    if (said === null) continue;
    if (begin === REACHED_BEGIN) {
      const reached = markIn(said);
      if (reached !== null) memos.push(reached);
      continue;
    }
    const { table, batches = [] } = said;
    if (typeof table !== "string" || !Array.isArray(batches)) continue;
    const of = { table, batches: isBatchId(batch) ? [batch] : batches.filter(isBatchId) };
    const memo = begin === KEY_BEGIN
      ? keyIn(said)
      : begin === IDS_BEGIN
      ? idsIn(said)
      : markIn(said);
    if (memo !== null) memos.push({ ...memo, ...of, gone: false });
  }
  return memos;
}

function keyIn({ key, hash, accepted, rejected, since }: Head) {
  const known = typeof key === "string" && typeof hash === "string" && isCount(accepted) &&
    isCount(rejected) && isCount(since);
  return known ? { key, hash, accepted, rejected, sinceMs: since } : null;
}

function markIn({ source, partition, position }: Head) {
  const known = typeof source === "string" && typeof partition === "string" && isPosition(position);
  return known ? { source, partition, position } : null;
}

function idsIn({ source, ids, since }: Head) {
  const known = typeof source === "string" && Array.isArray(ids) && isCount(since);
  if (!known) return null;
  const texts = ids.filter((id) => typeof id === "string");
  return { source, ids: JSON.stringify(texts), count: texts.length, sinceMs: since };
}

type Head = Readonly<Record<string, unknown>>;

function headIn(json: string): Head | null {
  try {
    const head: unknown = JSON.parse(json);
    return typeof head === "object" && head !== null ? head as Head : null;
  } catch {
    return null;
  }
}

/** Null for a frame of a kind that is not known here, or that says nothing. */
function liveOf(head: Head, frame: Range, body: Range): Live | null {
  const { settled, batch, table, shape, columns, since, from, rows } = head;
  if (Array.isArray(settled)) return { settled: settled.filter((id) => typeof id === "string") };
  const known = isBatchId(batch) && typeof table === "string" && isCount(from) && isCount(rows) &&
    (shape === "event" || shape === "row") && isCount(since) &&
    (columns === null || isFingerprint(columns));
  if (!known) return null;
  const of = { id: batch, table, shape, fingerprint: columns, oldestMs: since } as const;
  return { head: of, from, rows, frame, body };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && value as number >= 0;
}

/** Behind a file's number, in either line. */
const FRAME_NUMBER = /^(?:,"frame":|\.)(\d+)/;

/**
 * How far what lies behind the last live frame was written by a round that came later and is not
 * whole; `from` where nothing was. What a file held before it was recycled is nothing.
 */
function tornEnd(text: Buffer, from: number, file: number, last: number): number {
  let end = from;
  if (text[from] === 0) {
    end = from + 1;
    while (text[end] === 0) end++;
  }
  const name = String(file);
  for (let at = text.indexOf(name, from); at >= 0; at = text.indexOf(name, at + 1)) {
    const behind = (begin: string) =>
      text.toString("latin1", Math.max(from, at - begin.length), at) === begin;
    const isHead = behind(HEAD_BEGIN);
    if (!isHead && !behind(END_BEGIN)) continue;
    const after = at + name.length;
    const [, number = "0"] = FRAME_NUMBER.exec(text.toString("latin1", after, after + 32)) ?? [];
    if (Number(number) <= last) continue;
    const next = isHead ? text.indexOf("\n#", at) : text.indexOf(NEWLINE, at);
    end = Math.max(end, next < 0 ? text.length : next + 1);
  }
  return end;
}
