/**
 * Bytes in the form of xz (https://tukaani.org/xz/xz-file-format.txt) without being compressed: to compress a hundred
 * megabytes, and to get them back, takes half a minute of a processor, and shows nothing of what is shipped.
 */

import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";

/** Of the stream: no sums over the content. */
const FLAGS = [0, 0];
/** One filter, LZMA2, with its smallest window. */
const BLOCK = [2, 0, 0x21, 1, 0, 0, 0, 0];
/** What the two bytes for its length can say. */
const CHUNK_BYTES = 1 << 16;
const ALIGNED = 4;

/** `bytes` as the one block of a file that `xz --decompress` takes. */
export function storedXz(bytes: Uint8Array): Uint8Array {
  const header = withSum(BLOCK);
  const content = [...chunksOf(bytes), Buffer.of(0)];
  const unpadded = header.length + content.reduce((sum, { length }) => sum + length, 0);
  const index = withSum(padded([0, 1, ...varint(unpadded), ...varint(bytes.length)]));
  const backward = Buffer.alloc(4);
  backward.writeUInt32LE(index.length / ALIGNED - 1);
  const end = [...backward, ...FLAGS];
  return Buffer.concat([
    ...[Buffer.from("\xfd7zXZ\0", "latin1"), withSum(FLAGS), header, ...content],
    ...[Buffer.alloc(-unpadded & ALIGNED - 1), index, sumOf(end), Buffer.from(end)],
    Buffer.from("YZ"),
  ]);
}

/** Each with what says that it is not compressed, and how long it is; the first forgets what was before. */
function* chunksOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    const chunk = bytes.subarray(at, at + CHUNK_BYTES);
    const last = chunk.length - 1;
    yield Buffer.of(at === 0 ? 1 : 2, last >> 8, last & 0xff);
    yield chunk;
  }
}

const padded = (bytes: readonly number[]) => [
  ...bytes,
  ...Array<number>(-bytes.length & ALIGNED - 1).fill(0),
];
const withSum = (bytes: readonly number[]) => Buffer.concat([Buffer.from(bytes), sumOf(bytes)]);

function sumOf(bytes: readonly number[]): Uint8Array {
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE(crc32(Buffer.from(bytes)));
  return sum;
}

/** Seven bits a byte, the lowest first. */
function varint(value: number): number[] {
  return value < 128 ? [value] : [value % 128 + 128, ...varint(Math.floor(value / 128))];
}
