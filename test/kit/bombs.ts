/** Little bytes that unpack to a gigabyte, made without unpacking: by the formats' own means. */
import { Buffer } from "node:buffer";
import zlib from "node:zlib";

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** A thousand gzip members of a megabyte of blanks each: one file to gzip (RFC 1952, 2.2). */
export function gzipBomb(): Uint8Array {
  const member = zlib.gzipSync(Buffer.alloc(MIB, " "), { level: 9 });
  return Buffer.concat(Array.from({ length: GIB / MIB }, () => member));
}

/** One stream, in a sixteenth of the size: nothing in brotli can be put together from pieces. */
export function brotliBomb(): Uint8Array {
  const params = { [zlib.constants.BROTLI_PARAM_QUALITY]: 1 };
  return zlib.brotliCompressSync(Buffer.alloc(GIB / 16, " "), { params });
}

/** One frame without a size, of blocks that say "this byte, 128 KiB times" (RFC 8878, 3.1.1.2). */
export function zstdBomb(): Uint8Array {
  const blockBytes = 128 * 1024;
  const blocks = GIB / blockBytes;
  const frame = Buffer.alloc(6 + blocks * 4);
  frame.writeUInt32LE(0xfd2fb528, 0);
  // No size, no checksum, no dictionary; a window of 128 KiB.
  frame.writeUInt8(0, 4);
  frame.writeUInt8(7 << 3, 5);
  for (let n = 0; n < blocks; n++) {
    const last = n === blocks - 1 ? 1 : 0;
    frame.writeUIntLE((blockBytes << 3) | (1 << 1) | last, 6 + n * 4, 3);
    frame.writeUInt8(32, 6 + n * 4 + 3);
  }
  return frame;
}
