/**
 * Reads a request's body, and unpacks it, within limits: of bytes as sent and unpacked, of time, and of what the
 * intake grants, so that bodies under way are bounded too. Nothing is left behind by a client that
 * goes away or sends a byte a second.
 */

import type { Clock, Intake } from "../contracts.ts";
import { nodeUtil, nodeZlib } from "../kernel/builtins.ts";
import { within } from "../kernel/time.ts";

export type ReadBody =
  | { readonly kind: "read"; readonly bytes: Uint8Array }
  /**
   * `large` as sent, `bomb` unpacked, `pieces`: packed in too many, `full`: the intake grants no room,
   * `late`: the time is over.
   */
  | { readonly kind: "large" | "bomb" | "pieces" | "full" | "late" | "broken" | "corrupt" };

/**
 * Calls `then` when all that has come on the request's connection so far has been looked at, with whether
 * the connection is still there. A runtime that ends the connection of a client that does not wait for its
 * answers has done so by then, and nothing has been taken yet.
 */
export type StillThere = (request: Request, then: (there: boolean) => void) => void;

/** Grants are asked for in steps of this while the length of a body is not known. */
const STEP_BYTES = 64 * 1024;
/** What packed JSON usually unpacks to, at most. */
const USUAL_RATIO = 16;

/** What one request has been granted. `free` must be called in the end, once is enough. */
export class Grant {
  readonly #intake: Intake;
  #bytes = 0;
  #freed = false;

  constructor(intake: Intake) {
    this.#intake = intake;
  }

  /** Asks for `bytes` more. Never granted after `free`: a late chunk must not take what none gives back. */
  take(bytes: number): boolean {
    if (this.#freed) return false;
    if (bytes > 0 && !this.#intake.reserve(bytes)) return false;
    this.#bytes += bytes;
    return true;
  }

  free(): void {
    this.#freed = true;
    if (this.#bytes > 0) this.#intake.release(this.#bytes);
    this.#bytes = 0;
  }
}

/**
 * @param maxBytes as sent, and again unpacked.
 * @param grant what the body takes room for; the caller frees it when the rows are taken.
 * @param stillThere a body whose connection has ended is `broken`; null: that is not asked.
 */
export function readBody(
  request: Request,
  encoding: Encoding | null,
  maxBytes: number,
  grant: Grant,
  deadlines: Deadlines,
  stillThere: StillThere | null = null,
): ReadBody | Promise<ReadBody> {
  const sent = readSent(request, maxBytes, grant, { deadlines, stillThere });
  return encoding === null ? sent : unpackSent(sent, encoding, maxBytes, grant);
}

async function unpackSent(
  reading: ReadBody | Promise<ReadBody>,
  encoding: Encoding,
  maxBytes: number,
  grant: Grant,
): Promise<ReadBody> {
  const sent = await reading;
  if (sent.kind !== "read" || sent.bytes.length === 0) return sent;
  return await unpack(sent.bytes, encoding, maxBytes, grant);
}

function readSent(
  request: Request,
  maxBytes: number,
  grant: Grant,
  watch: Watch,
): ReadBody | Promise<ReadBody> {
  const header = request.headers.get("content-length");
  if (header !== null && /^\d+$/.test(header)) {
    const length = Number(header);
    if (length > maxBytes) return { kind: "large" };
    if (!grant.take(length)) return { kind: "full" };
    return inTime(request, watch, request.arrayBuffer(), (buffer) =>
      // Only a test or a broken server can come with more than was said.
      buffer.byteLength > maxBytes
        ? { kind: "large" }
        : { kind: "read", bytes: new Uint8Array(buffer) });
  }
  if (request.body === null) return { kind: "read", bytes: new Uint8Array(0) };
  return readStream(request, request.body.getReader(), maxBytes, grant, watch);
}

async function readStream(
  request: Request,
  reader: ReadableStreamDefaultReader<Uint8Array>,
  maxBytes: number,
  grant: Grant,
  watch: Watch,
): Promise<ReadBody> {
  const collected = collect(reader, maxBytes, grant).then(async (read) => {
    if (read.kind === "large" && saysClose(request)) await throwAway(reader);
    return read;
  });
  const read = await inTime(request, watch, collected, (read) => read);
  // Not awaited: a client that sends nothing more would hold this up.
  if (read.kind !== "read") reader.cancel().catch(() => {});
  return read;
}

async function collect(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  limit: number,
  grant: Grant,
): Promise<ReadBody> {
  // One array, however small the chunks are: a million of one byte must not become a million arrays.
  let bytes = new Uint8Array(0);
  let total = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { kind: "read", bytes: bytes.subarray(0, total) };
    const needed = total + value.length;
    if (needed > limit) return { kind: "large" };
    if (needed > bytes.length) {
      const room = Math.max(needed, Math.min(limit, bytes.length * 2), Math.min(limit, STEP_BYTES));
      if (!grant.take(room - bytes.length)) return { kind: "full" };
      const larger = new Uint8Array(room);
      larger.set(bytes);
      bytes = larger;
    }
    bytes.set(value, total);
    total = needed;
  }
}

/** What is watched while a body is read. */
interface Watch {
  readonly deadlines: Deadlines;
  readonly stillThere: StillThere | null;
}

/** What comes of `work`; `late` when it takes too long, `broken` when it fails. */
function inTime<T>(
  request: Request,
  { deadlines, stillThere }: Watch,
  work: Promise<T>,
  done: (value: T) => ReadBody,
): Promise<ReadBody> {
  return new Promise((resolve) => {
    const deadline = deadlines.begin(() => resolve({ kind: "late" }));
    work.then((value) => {
      deadlines.end(deadline);
      if (stillThere === null) return resolve(done(value));
      stillThere(request, (there) => resolve(there ? done(value) : { kind: "broken" }));
    }, () => {
      deadlines.end(deadline);
      resolve({ kind: "broken" });
    });
  });
}

/** Tries with room for a usual body first, so that not every small one needs room for the largest. */
async function unpack(
  sent: Uint8Array,
  encoding: Encoding,
  maxBytes: number,
  grant: Grant,
): Promise<ReadBody> {
  const usual = Math.min(maxBytes, sent.length * USUAL_RATIO + STEP_BYTES);
  if (!grant.take(usual)) return { kind: "full" };
  let inflated = await inflate(sent, encoding, usual);
  if (inflated.kind === "large" && usual < maxBytes) {
    if (!grant.take(maxBytes - usual)) return { kind: "full" };
    inflated = await inflate(sent, encoding, maxBytes);
  }
  if (inflated.kind === "large") return { kind: "bomb" };
  return inflated.kind === "inflated" ? { kind: "read", bytes: inflated.bytes } : inflated;
}

// ── What is refused before all of it has come. Where the client says that it will send no other request
// (`Connection: close`) a runtime closes the connection behind its answer; one that still sends would see
// a broken pipe and no answer. So the rest is thrown away first, within limits.

const MOST_THROWN_BYTES = 64 * 1024 * 1024;

/** Whether a connection would be closed while its client still sends. */
export function stillSends(request: Request): boolean {
  return saysClose(request) && request.body !== null && !request.bodyUsed &&
    // Nothing comes before an answer.
    !request.headers.has("expect");
}

function saysClose({ headers }: Request): boolean {
  return /\bclose\b/i.test(headers.get("connection") ?? "");
}

/** Resolves when the client has sent all of it, at the latest after `withinMs`. Never rejects. */
export async function throwAwayBody(
  request: Request,
  clock: Clock,
  withinMs: number,
): Promise<void> {
  const reader = request.body?.getReader();
  if (reader === undefined) return;
  await within(clock, withinMs, throwAway(reader), undefined);
  reader.cancel().catch(() => {});
}

/** Never rejects. */
async function throwAway(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  try {
    for (let left = MOST_THROWN_BYTES; left > 0;) {
      const { done, value } = await reader.read();
      if (done) return;
      left -= value.length;
    }
  } catch {
    // The client has gone.
  }
}

// ── Time limits of many bodies with one timer: all are equally long, so the oldest is always the next
// to end. A timer a request would cost more than reading the request's header.

/** One limit that is running. */
export interface Deadline {
  readonly atMs: number;
  readonly late: () => void;
}

export class Deadlines {
  /** Oldest first. */
  readonly #running = new Set<Deadline>();
  readonly #clock: Clock;
  readonly #limitMs: number;
  #armed = false;

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  /** Calls `late` after the limit, unless `end` comes first. */
  begin(late: () => void): Deadline {
    const deadline = { atMs: this.#clock.monotonicMs() + this.#limitMs, late };
    this.#running.add(deadline);
    if (!this.#armed) this.#arm(this.#limitMs);
    return deadline;
  }

  end(deadline: Deadline): void {
    this.#running.delete(deadline);
  }

  /** The timer is left to ring even when nothing runs any more: it costs less than to cancel it. */
  #arm(delayMs: number): void {
    this.#armed = true;
    this.#clock.after(delayMs, () => this.#ring());
  }

  #ring(): void {
    this.#armed = false;
    const nowMs = this.#clock.monotonicMs();
    for (const deadline of this.#running) {
      if (deadline.atMs > nowMs) return this.#arm(deadline.atMs - nowMs);
      this.#running.delete(deadline);
      deadline.late();
    }
  }
}

// ── How bodies may be packed, and what unpacks them: never to more than was allowed. A body that is cut
// short is an error, also where the runtime's own decompressor would return the half that it has.

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
    return await decoded(bytes, encoding, limit);
  } catch (error) {
    const code = (error as { code?: unknown } | null)?.code;
    return { kind: code === "ERR_BUFFER_TOO_LARGE" ? "large" : "corrupt" };
  }
}

/** Throws what the codec throws. */
async function decoded(bytes: Uint8Array, encoding: Encoding, limit: number): Promise<Inflated> {
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
