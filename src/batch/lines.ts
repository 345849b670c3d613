/** Rows of chunks and batches: a chunk cut in two, and the dead rows of a batch. */

import type { Batch, Chunk, DeadRow, TypeCounts } from "../contracts.ts";
import { count, eventTypeOf, offsetAfter, rowsAt } from "../kernel/ndjson.ts";

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

/** The dead rows of a batch, and what is known of them. */
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

function countTypes(body: Uint8Array): TypeCounts {
  const counts = new Map<string, number>();
  for (const row of new TextDecoder().decode(body).split("\n")) {
    if (row !== "") count(counts, eventTypeOf(row), 1);
  }
  return counts;
}
