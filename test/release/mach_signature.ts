/** Reads a Mac's program as its kernel does before it starts one. */

import { createHash } from "node:crypto";

export interface Signature {
  /** Who vouches for it: nobody. */
  readonly adHoc: boolean;
  /** All of the file that lies before it is hashed. */
  readonly complete: boolean;
  readonly pages: number;
  /** Whose hash is another one; from 0. */
  readonly broken: readonly number[];
}

const CODE_SIGNATURE = 0x1d;
const CODE_DIRECTORY = 0xfade0c02;
const ADHOC = 2;

/** Throws where there is none. */
export function signatureOf(program: Uint8Array): Signature {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  let command = 32;
  for (let left = view.getUint32(16, true); view.getUint32(command, true) !== CODE_SIGNATURE;) {
    if (--left <= 0) throw new Error("expected a signature, found none");
    command += view.getUint32(command + 4, true);
  }
  const start = view.getUint32(command + 8, true);
  const ends = start + view.getUint32(command + 12, true) === program.length;
  const at = start + view.getUint32(start + 16);
  if (view.getUint32(at) !== CODE_DIRECTORY) {
    throw new Error("expected the directory to come first");
  }
  const word = (index: number) => view.getUint32(at + 4 * index);
  const [flags, hashes, pages, limit] = [word(3), word(4), word(7), word(8)];
  const [hashBytes = 0, kind, , log2Page = 0] = program.subarray(at + 36, at + 40);
  if (kind !== 2) throw new Error(`expected hashes by sha256 (2), found kind ${kind}`);
  const pageBytes = 2 ** log2Page;
  const broken = Array.from({ length: pages }, (_, page) => page).filter((page) => {
    const content = program.subarray(page * pageBytes, Math.min((page + 1) * pageBytes, limit));
    const from = at + hashes + page * hashBytes;
    const hash = createHash("sha256").update(content).digest();
    return Buffer.compare(hash, program.subarray(from, from + hashBytes)) !== 0;
  });
  return {
    adHoc: (flags! & ADHOC) !== 0,
    complete: ends && limit === start && pages === Math.ceil(start / pageBytes),
    pages: pages!,
    broken,
  };
}
