/**
 * Not the check of a write (that is `scanner.ts`, with `closer.ts` for odd rows and `fit.ts` for values), but of
 * rows that were taken already, held against the columns of their table as they are by now: those of a batch
 * that was read while the columns were not known, or were others. A row that does not fit is named; one that
 * has to be put in other words is, and all others stay the bytes that they are, in the memory where they lie.
 *
 * One batch at a time, a slice of its rows at a time, others having their turn between slices, as in the
 * decode queue.
 */

import { Buffer } from "node:buffer";
import type { JudgeRows, Misfit, RowsJudged, RowsToJudge } from "../contracts.ts";
import { InTurn, nextTurn } from "../kernel/time.ts";
import { type Decoded, Decoding, SLICE_EFFORT, type Target } from "./decode.ts";
import { Scanner } from "./scanner.ts";

/** Bytes of rows that are decoded together; all of them are copied where one of them changes. */
const SLICE_BYTES = 64 * 1024;
const NEWLINE = 10;
const NO_ROW = "expected one JSON object on one line";

/** What came of the slices so far. */
interface Gathered {
  readonly body: Uint8Array[];
  readonly misfits: Misfit[];
  readonly keys: Set<string>;
  readonly strange: Set<string>;
  readonly wider: Map<string, string[]>;
  changed: boolean;
}

type Rows = Decoded & { readonly kind: "rows" };

/** @param yieldTurn resolves when all others have had a turn. */
export function createJudge(yieldTurn: () => Promise<void> = nextTurn): JudgeRows {
  /** Made when it is needed first. */
  let scanner: Scanner | null = null;
  const turns = new InTurn();
  /** What may be spent before others have their turn. */
  let effort = 0;

  async function judge(rows: RowsToJudge): Promise<RowsJudged> {
    scanner ??= new Scanner();
    const { table, shape, columns, unknownKeys, widens } = rows;
    const target: Target = {
      table,
      shape,
      columns,
      unknownKeys,
      again: true,
      ...(widens ? { widen: { asks: true } } : {}),
    };
    const gathered: Gathered = {
      body: [],
      misfits: [],
      keys: new Set(),
      strange: new Set(),
      wider: new Map(),
      changed: false,
    };
    let before = 0;
    for (const slice of slicesOf(rows.body)) {
      const ends = lineEnds(slice);
      await look(slice, ends, before, target, gathered);
      before += ends.length;
    }
    const { body, misfits, keys, strange, wider, changed } = gathered;
    return { body: changed ? body : null, misfits, keys, strange, wider };
  }

  /** @param ends of its lines. @param before so many rows come before it. */
  async function look(
    slice: Uint8Array,
    ends: readonly number[],
    before: number,
    target: Target,
    to: Gathered,
  ): Promise<void> {
    const decoded = await decode(slice, target);
    if (decoded === null || decoded.rows + decoded.rejected !== ends.length) {
      // One of its lines is no row, or more than one.
      if (ends.length === 1) {
        to.misfits.push({ index: before, problem: NO_ROW });
        to.body.push(slice);
        return;
      }
      for (const [at, end] of ends.entries()) {
        const line = slice.subarray(at === 0 ? 0 : ends[at - 1]!, end);
        await look(line, [line.length], before + at, target, to);
      }
      return;
    }
    for (const key of decoded.keys ?? []) to.keys.add(key);
    for (const key of decoded.strange ?? []) to.strange.add(key);
    for (const [key, values] of decoded.misfits ?? []) {
      to.wider.set(key, [...to.wider.get(key) ?? [], ...values]);
    }
    for (const { index, error } of decoded.errors) {
      to.misfits.push({ index: before + index, problem: error });
    }
    const bad = decoded.errors.map(({ index }) => index);
    const same = bad.length === 0 && Buffer.compare(decoded.body, slice) === 0;
    if (same) return void to.body.push(slice);
    const sent = together(slice, ends, decoded.body, bad);
    if (Buffer.compare(sent, slice) === 0) return void to.body.push(slice);
    to.changed = true;
    to.body.push(sent);
  }

  /** Null where no rows could be told apart. */
  async function decode(slice: Uint8Array, target: Target): Promise<Rows | null> {
    const decoding = new Decoding(slice, target, scanner!, 0, Infinity);
    for (;;) {
      if (effort <= 0) {
        await yieldTurn();
        effort = SLICE_EFFORT;
      }
      const done = decoding.go(effort);
      effort = decoding.left;
      if (done) break;
    }
    const decoded = decoding.end();
    return decoded.kind === "rows" ? decoded : null;
  }

  return (rows) => turns.run(() => judge(rows));
}

/** Whole rows of about so many bytes each; a longer row is one by itself. */
function* slicesOf(body: readonly Uint8Array[]): Generator<Uint8Array> {
  for (const piece of body) {
    for (let at = 0; at < piece.length;) {
      const end = piece.length - at <= SLICE_BYTES
        ? piece.length
        : piece.lastIndexOf(NEWLINE, at + SLICE_BYTES - 1) + 1;
      const to = end > at ? end : piece.indexOf(NEWLINE, at) + 1 || piece.length;
      yield piece.subarray(at, to);
      at = to;
    }
  }
}

/** Behind each of them. */
function lineEnds(bytes: Uint8Array): number[] {
  const ends: number[] = [];
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) {
    ends.push(at + 1);
  }
  return ends;
}

/** The good rows as they were put, and the bad ones (places, ascending) as they came. */
function together(
  slice: Uint8Array,
  ends: readonly number[],
  good: Uint8Array,
  bad: readonly number[],
): Uint8Array {
  const parts: Uint8Array[] = [];
  let from = 0;
  let row = 0;
  for (const place of bad) {
    let to = from;
    for (; row < place; row++) to = good.indexOf(NEWLINE, to) + 1;
    parts.push(good.subarray(from, to));
    parts.push(slice.subarray(place === 0 ? 0 : ends[place - 1]!, ends[place]!));
    from = to;
    row++;
  }
  parts.push(good.subarray(from));
  return new Uint8Array(Buffer.concat(parts));
}
