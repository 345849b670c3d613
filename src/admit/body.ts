/**
 * Reads a request's body within limits: of bytes as sent and unpacked, of time, and of what the
 * intake grants, so that bodies under way are bounded too. Nothing is left behind by a client that
 * goes away or sends a byte a second.
 */

import type { Clock, Intake } from "../contracts.ts";
import { within } from "../kernel/time.ts";
import { type Encoding, inflate } from "./inflate.ts";

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
