/**
 * Rows inside NDJSON bytes. Every row ends in `\n` and no row holds another one (JSON escapes it),
 * so a row's edge is a byte to search for.
 */

import { Buffer } from "node:buffer";
import {
  type Batch,
  type Chunk,
  type DeadRow,
  LONGEST_TYPE_BYTES,
  OTHER_TYPE,
  type TypeCounts,
} from "../contracts.ts";

const NEWLINE = 0x0a;

/** Byte offset just behind row number `rows` (1-based), or the end. */
export function offsetAfter(body: Uint8Array, rows: number): number {
  let end = 0;
  for (let row = 0; row < rows && end < body.length; row++) {
    const at = body.indexOf(NEWLINE, end);
    end = at < 0 ? body.length : at + 1;
  }
  return end;
}

/** How many whole rows fit into `maxBytes`; looks no further than `maxRows`. */
export function rowsWithin(body: Uint8Array, maxBytes: number, maxRows = Infinity): number {
  let rows = 0;
  for (let end = 0; rows < maxRows; rows++) {
    const at = body.indexOf(NEWLINE, end);
    if (at < 0 || at + 1 > maxBytes) break;
    end = at + 1;
  }
  return rows;
}

/**
 * The first `rows` rows of a chunk and the rest. The bytes are shared, not copied. The counts by type
 * are read from the shorter side's rows, so a cut costs at most half a parse.
 * @param types the chunk's own counts, which are taken from: a copy made once, and then those of the
 *   tail, for a chunk of a hundred thousand types is cut into many batches.
 */
export function cut(
  chunk: Chunk,
  rows: number,
  types: Map<string, number> = new Map(chunk.types),
): [head: Chunk, tail: Chunk] {
  const at = offsetAfter(chunk.body, rows);
  const head = chunk.body.subarray(0, at);
  const tail = chunk.body.subarray(at);
  const headShorter = rows * 2 <= chunk.rows;
  const counted = chunk.shape === "event" ? countTypes(headShorter ? head : tail) : new Map();
  for (const [type, rows] of counted) count(types, type, -rows);
  return [
    { ...chunk, rows, body: head, types: headShorter ? counted : types },
    { ...chunk, rows: chunk.rows - rows, body: tail, types: headShorter ? types : counted },
  ];
}

/** The rows at `indexes` (0-based, ascending) of a body in pieces, as text without the newline. */
export function rowsAt(pieces: readonly Uint8Array[], indexes: readonly number[]): string[] {
  const decoder = new TextDecoder();
  const found: string[] = [];
  let row = 0;
  for (const piece of pieces) {
    for (let start = 0; start < piece.length && found.length < indexes.length; row++) {
      const at = piece.indexOf(NEWLINE, start);
      const end = at < 0 ? piece.length : at;
      if (row === indexes[found.length]) found.push(decoder.decode(piece.subarray(start, end)));
      start = end + 1;
    }
  }
  return found;
}

/** The dead rows of a batch, with what is told of them. */
export interface DeadOf {
  /** Ascending by index. */
  readonly letters: readonly DeadRow[];
  /** The rows themselves, in the same order. */
  readonly rows: readonly string[];
  readonly types: TypeCounts;
}

export function deadOf(batch: Pick<Batch, "shape" | "body">, dead: readonly DeadRow[]): DeadOf {
  const letters = [...dead].sort((a, b) => a.index - b.index);
  const rows = letters.length === 0 ? [] : rowsAt(batch.body, letters.map(({ index }) => index));
  const types = new Map<string, number>();
  if (batch.shape === "event") { for (const row of rows) count(types, eventTypeOf(row), 1); }
  return { letters, rows, types };
}

/** The event type that a row of shape `event` counts as; `""` for a row that cannot be read. */
export function eventTypeOf(row: string): string {
  try {
    const { eventType } = JSON.parse(row) as { eventType?: unknown };
    if (typeof eventType !== "string") return "";
    return Buffer.byteLength(eventType) > LONGEST_TYPE_BYTES ? OTHER_TYPE : eventType;
  } catch {
    return "";
  }
}

function countTypes(body: Uint8Array): TypeCounts {
  const counts = new Map<string, number>();
  for (const row of new TextDecoder().decode(body).split("\n")) {
    if (row !== "") count(counts, eventTypeOf(row), 1);
  }
  return counts;
}

/** Adds to a count; a count that reaches 0 is taken away. */
export function count(counts: Map<string, number>, type: string, rows: number): void {
  const sum = (counts.get(type) ?? 0) + rows;
  if (sum === 0) counts.delete(type);
  else counts.set(type, sum);
}
