/**
 * Unpacks request bodies, never to more than was allowed. A body that is cut short is an error, also
 * where the runtime's own decompressor would return the half that it has.
 */

import { promisify } from "node:util";
import zlib from "node:zlib";
import { type Encoding, MOST_FRAMES } from "./encoding.ts";
import { zstdFrames } from "./zstd.ts";

export type Inflated =
  | { readonly kind: "inflated"; readonly bytes: Uint8Array }
  /** More than `limit` bytes. */
  | { readonly kind: "large" }
  /** More than `MOST_FRAMES` pieces. */
  | { readonly kind: "pieces" }
  /** Cut short, or not of this encoding. */
  | { readonly kind: "corrupt" };

/** Up to here a body is unpacked on the spot; the thread pool costs four times as much. */
const AT_ONCE_BYTES = 1024 * 1024;
/** The default of 16 KiB makes half the speed. */
const CHUNK_BYTES = 256 * 1024;
interface Options {
  readonly maxOutputLength: number;
  readonly chunkSize: number;
}
interface Codec {
  readonly sync: (bytes: Uint8Array, options: Options) => Uint8Array;
  readonly async: (bytes: Uint8Array, options: Options) => Promise<Uint8Array>;
}

const GZIP: Codec = { sync: zlib.gunzipSync, async: promisify(zlib.gunzip) };
const ZLIB: Codec = { sync: zlib.inflateSync, async: promisify(zlib.inflate) };
const RAW: Codec = { sync: zlib.inflateRawSync, async: promisify(zlib.inflateRaw) };
const BROTLI: Codec = {
  sync: zlib.brotliDecompressSync,
  async: promisify(zlib.brotliDecompress),
};
const ZSTD: Codec = { sync: zlib.zstdDecompressSync, async: promisify(zlib.zstdDecompress) };

/** @param limit bytes that may come out at most. */
export async function inflate(
  bytes: Uint8Array,
  encoding: Encoding,
  limit: number,
): Promise<Inflated> {
  try {
    const inflated = await unpack(bytes, encoding, limit);
    if (inflated === null) return { kind: "corrupt" };
    return inflated === "many" ? { kind: "pieces" } : { kind: "inflated", bytes: inflated };
  } catch (error) {
    const code = (error as { code?: unknown } | null)?.code;
    return { kind: code === "ERR_BUFFER_TOO_LARGE" ? "large" : "corrupt" };
  }
}

/** Null: corrupt; `"many"`: too many frames. Throws what the codec throws. */
async function unpack(
  bytes: Uint8Array,
  encoding: Encoding,
  limit: number,
): Promise<Uint8Array | "many" | null> {
  switch (encoding) {
    case "gzip":
      return await run(GZIP, bytes, limit);
    case "deflate":
      return await run(isZlib(bytes) ? ZLIB : RAW, bytes, limit);
    case "br": {
      const inflated = await run(BROTLI, bytes, limit);
      return BROTLI_TELLS || await isWholeBrotli(bytes) ? inflated : null;
    }
    case "zstd": {
      const frames = zstdFrames(bytes, MOST_FRAMES);
      if (frames === null || frames === "many") return frames;
      if (frames.length === 1) return await run(ZSTD, frames[0]!, limit);
      return await inflateFrames(frames, limit);
    }
  }
}

async function run(codec: Codec, bytes: Uint8Array, limit: number): Promise<Uint8Array> {
  const options = { maxOutputLength: Math.max(limit, 1), chunkSize: CHUNK_BYTES };
  return limit <= AT_ONCE_BYTES ? codec.sync(bytes, options) : await codec.async(bytes, options);
}

async function inflateFrames(frames: readonly Uint8Array[], limit: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let total = 0;
  for (const frame of frames) {
    const part = await run(ZSTD, frame, limit - total);
    total += part.length;
    parts.push(part);
  }
  const whole = new Uint8Array(total);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** HTTP's "deflate" is zlib, but some clients send it without the wrapper (RFC 1950, 2.2). */
function isZlib(bytes: Uint8Array): boolean {
  return bytes.length >= 2 && (bytes[0]! & 15) === 8 && (bytes[0]! * 256 + bytes[1]!) % 31 === 0;
}

/** Whether this runtime's brotli notices that its input is cut short; found out once. */
const BROTLI_TELLS = brotliTells();

function brotliTells(): boolean {
  try {
    const whole = zlib.brotliCompressSync(new Uint8Array(64).map((_, i) => i * 37));
    zlib.brotliDecompressSync(whole.subarray(0, whole.length - 4));
    return false;
  } catch {
    return true;
  }
}

/**
 * The streaming decompressor does notice. It knows no limit, so it is only asked about what has been
 * unpacked within the limit already.
 */
async function isWholeBrotli(bytes: Uint8Array): Promise<boolean> {
  try {
    const stream = new DecompressionStream("brotli" as CompressionFormat);
    const body = new Blob([bytes.slice()]).stream().pipeThrough(stream);
    for await (const _ of body);
    return true;
  } catch {
    return false;
  }
}
