/**
 * How bodies may be packed, and what unpacks them: never to more than was allowed. A body that is cut
 * short is an error, also where the runtime's own decompressor would return the half that it has.
 */

import { nodeUtil, nodeZlib } from "../kernel/builtins.ts";

export type Encoding = "gzip" | "deflate" | "br" | "zstd";

/** For `Accept-Encoding` in an answer, and in errors. */
export const ENCODINGS = "gzip, deflate, br, zstd";

/**
 * Of a zstd body. Each costs up to a tenth of a millisecond even when it is empty, and ten megabytes
 * hold a million.
 */
export const MOST_FRAMES = 1000;

/**
 * `Content-Encoding` → what to unpack, null for nothing. `"unknown"` also for stacked encodings.
 * @param header the header as it came, or null.
 */
export function parseEncoding(header: string | null): Encoding | null | "unknown" {
  if (header === null) return null;
  const names = header.toLowerCase().split(",").map((name) => name.trim())
    .filter((name) => name !== "" && name !== "identity");
  if (names.length === 0) return null;
  if (names.length > 1) return "unknown";
  switch (names[0]) {
    case "gzip":
    case "x-gzip":
      return "gzip";
    case "deflate":
    case "br":
    case "zstd":
      return names[0];
    default:
      return "unknown";
  }
}

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

type Codec = "gunzip" | "inflate" | "inflateRaw" | "brotliDecompress" | "zstdDecompress";
interface Options {
  readonly maxOutputLength: number;
  readonly chunkSize: number;
}
type Unpack<Answer> = (bytes: Uint8Array, options: Options) => Answer;
type InPool = Unpack<Promise<Uint8Array>>;

/** The codecs of the thread pool, each made when it is needed first. */
const inPool: Partial<Record<Codec, InPool>> = {};

/** @param limit bytes that may come out at most. */
export async function inflate(
  bytes: Uint8Array,
  encoding: Encoding,
  limit: number,
): Promise<Inflated> {
  try {
    return await unpack(bytes, encoding, limit);
  } catch (error) {
    const code = (error as { code?: unknown } | null)?.code;
    return { kind: code === "ERR_BUFFER_TOO_LARGE" ? "large" : "corrupt" };
  }
}

/** Throws what the codec throws. */
async function unpack(bytes: Uint8Array, encoding: Encoding, limit: number): Promise<Inflated> {
  switch (encoding) {
    case "gzip":
      return inflated(await run("gunzip", bytes, limit));
    case "deflate":
      return inflated(await run(isZlib(bytes) ? "inflate" : "inflateRaw", bytes, limit));
    case "br": {
      const whole = await run("brotliDecompress", bytes, limit);
      return (noticing ??= brotliNotices()) || await isWholeBrotli(bytes)
        ? inflated(whole)
        : { kind: "corrupt" };
    }
    case "zstd": {
      const frames = zstdFrames(bytes, MOST_FRAMES);
      if (frames === null) return { kind: "corrupt" };
      if (frames === "many") return { kind: "pieces" };
      return inflated(await inflateFrames(frames, limit));
    }
  }
}

function inflated(bytes: Uint8Array): Inflated {
  return { kind: "inflated", bytes };
}

async function run(codec: Codec, bytes: Uint8Array, limit: number): Promise<Uint8Array> {
  const options = { maxOutputLength: Math.max(limit, 1), chunkSize: CHUNK_BYTES };
  const zlib = nodeZlib();
  if (limit <= AT_ONCE_BYTES) return (zlib[`${codec}Sync`] as Unpack<Uint8Array>)(bytes, options);
  const unpack = inPool[codec] ??= nodeUtil().promisify(zlib[codec]) as unknown as InPool;
  return await unpack(bytes, options);
}

async function inflateFrames(frames: readonly Uint8Array[], limit: number): Promise<Uint8Array> {
  if (frames.length === 1) return await run("zstdDecompress", frames[0]!, limit);
  const parts: Uint8Array[] = [];
  let total = 0;
  for (const frame of frames) {
    const part = await run("zstdDecompress", frame, limit - total);
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
let noticing: boolean | null = null;

function brotliNotices(): boolean {
  const zlib = nodeZlib();
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

// ── Where the frames of a zstd body end (RFC 8878), without unpacking it. The runtimes' own
// decompressors return what they have when a frame is cut short, and one of them stops after the
// first frame; so the frames are found here and unpacked one by one.

const FRAME = 0xfd2fb528;
/** The low four bits of a skippable frame's magic number are free. */
const SKIPPABLE = 0x184d2a50;

/**
 * The bytes of each frame that holds data, in order; null when the body is cut short or no zstd.
 * @param most frames, skipped ones included; a body of more is `"many"`.
 */
export function zstdFrames(bytes: Uint8Array, most: number): Uint8Array[] | "many" | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames: Uint8Array[] = [];
  let at = 0;
  for (let count = 0; at < bytes.length; count++) {
    if (count === most) return "many";
    if (at + 4 > bytes.length) return null;
    const magic = view.getUint32(at, true);
    if (magic === FRAME) {
      const end = frameEnd(view, at);
      if (end < 0) return null;
      frames.push(bytes.subarray(at, end));
      at = end;
    } else if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE) {
      if (at + 8 > bytes.length) return null;
      at += 8 + view.getUint32(at + 4, true);
      if (at > bytes.length) return null;
    } else {
      return null;
    }
  }
  return frames.length === 0 ? null : frames;
}

/** -1 when the frame is cut short or broken. */
function frameEnd(view: DataView, start: number): number {
  const length = view.byteLength;
  if (start + 5 > length) return -1;
  const descriptor = view.getUint8(start + 4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const checksumBytes = (descriptor & 4) !== 0 ? 4 : 0;
  let at = start + 5 + (singleSegment ? 0 : 1) + dictionaryBytes + sizeBytes;
  for (;;) {
    if (at + 3 > length) return -1;
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const type = (header >> 1) & 3;
    if (type === 3) return -1;
    // A run-length block is one byte, whatever size it unpacks to.
    at += 3 + (type === 1 ? 1 : header >> 3);
    if (at > length) return -1;
    if ((header & 1) !== 0) break;
  }
  at += checksumBytes;
  return at > length ? -1 : at;
}
