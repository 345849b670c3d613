/**
 * Rows inside NDJSON bytes, and what they count as. Every row ends in `\n` and no row holds another one
 * (JSON escapes it), so a row's edge is a byte to search for.
 */

import { Buffer } from "node:buffer";

/** Event types longer than this (UTF-8) are stored as they are, but counted as `OTHER_TYPE`. */
export const LONGEST_TYPE_BYTES = 256;
export const OTHER_TYPE = "other";

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

/** Adds to a count; a count that reaches 0 is taken away. */
export function count(counts: Map<string, number>, type: string, rows: number): void {
  const sum = (counts.get(type) ?? 0) + rows;
  if (sum === 0) counts.delete(type);
  else counts.set(type, sum);
}
