/**
 * A batch's bytes and its rows: where each line lies, and the body of some of them. Plain functions
 * over values; why rows are picked is not known here.
 */

import { nodeCrypto } from "../kernel/builtins.ts";
import { nextTurn } from "../kernel/time.ts";

/**
 * Where each row starts, and at the end the length: `rows + 1` offsets into the joined body. A body
 * whose lines are not `rows` is a bug where the batch was sealed.
 */
export function lineOffsets(body: readonly Uint8Array[], rows: number): Float64Array {
  const offsets = new Float64Array(rows + 1);
  let row = 0;
  let base = 0;
  for (const piece of body) {
    for (let at = piece.indexOf(10); at >= 0; at = piece.indexOf(10, at + 1)) {
      row++;
      if (row <= rows) offsets[row] = base + at + 1;
    }
    base += piece.length;
  }
  if (row !== rows || offsets[rows] !== base) {
    throw new Error(`a batch of ${rows} rows has ${row} lines, ${base} bytes`);
  }
  return offsets;
}

/** All pieces as one; the piece itself where there is only one. */
export function join(body: readonly Uint8Array[]): Uint8Array {
  if (body.length === 1) return body[0] as Uint8Array;
  const joined = new Uint8Array(body.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of body) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

/** The lines of some rows (ascending), as one body; neighbours are copied together. */
export function pick(whole: Uint8Array, offsets: Float64Array, rows: Uint32Array): Uint8Array {
  const runs: Uint8Array[] = [];
  for (let at = 0; at < rows.length;) {
    let end = at + 1;
    while (end < rows.length && rows[end] === (rows[end - 1] as number) + 1) end++;
    runs.push(
      whole.subarray(offsets[rows[at] as number], offsets[(rows[end - 1] as number) + 1]),
    );
    at = end;
  }
  return join(runs);
}

/**
 * The token of some rows of a batch: the batch's own id for all of them, else derived from which rows
 * they are, so that the same rows have the same token after a restart and other rows never do.
 */
export function tokenOf(batchId: string, batchRows: number, rows: Uint32Array): string {
  if (rows.length === batchRows) return batchId;
  const hash = nodeCrypto().createHash("sha256");
  hash.update(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength));
  return `${batchId}-${hash.digest("hex").slice(0, 24)}`;
}

/** Bytes that are read in one go: a few milliseconds. */
const SLICE_BYTES = 256 * 1024;

/**
 * The keys that rows have, for a batch that does not know them any more. Null where a row cannot be read.
 */
export async function keysIn(body: readonly Uint8Array[]): Promise<ReadonlySet<string> | null> {
  const keys = new Set<string>();
  const read = await eachRow(body, (row) => {
    for (const key of Object.keys(row)) keys.add(key);
  });
  return read ? keys : null;
}

/** Each is an INSERT of its own. A character of the trail says which, so there are no more; beyond go together. */
const MOST_GROUPS = 50_000;

/**
 * Rows by which of some columns they give: a number for each row, equal where they give the same ones. Null where
 * all do, or a row cannot be read.
 * @param nulls columns in which `null` is a value; elsewhere it is as if the row had none.
 */
export async function groupsOf(
  body: readonly Uint8Array[],
  columns: readonly string[],
  nulls: ReadonlySet<string>,
): Promise<readonly number[] | null> {
  const numbers = new Map<string, number>();
  const groups: number[] = [];
  const read = await eachRow(body, (row) => {
    const given = columns.filter((name) =>
      Object.hasOwn(row, name) && (row[name] !== null || nulls.has(name))
    ).join("\0");
    let number = numbers.get(given);
    if (number === undefined) numbers.set(given, number = Math.min(numbers.size, MOST_GROUPS));
    groups.push(number);
  });
  return read && numbers.size > 1 ? groups : null;
}

/** Others have their turn between slices. @returns false where one cannot be read. */
async function eachRow(
  body: readonly Uint8Array[],
  see: (row: Readonly<Record<string, unknown>>) => void,
): Promise<boolean> {
  const decoder = new TextDecoder();
  const whole = join(body);
  for (let at = 0; at < whole.length;) {
    // Up to a row's end.
    const end = whole.indexOf(10, at + SLICE_BYTES) + 1 || whole.length;
    const lines = decoder.decode(whole.subarray(at, end)).trimEnd();
    try {
      for (const line of lines.split("\n")) see(JSON.parse(line));
    } catch {
      return false;
    }
    at = end;
    if (at < whole.length) await nextTurn();
  }
  return true;
}
