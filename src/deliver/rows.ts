/**
 * A batch's bytes and its rows: where each line lies, and the body of some of them. Plain functions
 * over values; why rows are picked is not known here.
 */

import { nodeCrypto } from "../kernel/builtins.ts";

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
