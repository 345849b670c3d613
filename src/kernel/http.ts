/**
 * One HTTP exchange, as a plain value in and a plain value out, bounded in time and in bytes. The one
 * place that knows the traps of `fetch`:
 * - the timeout covers the whole exchange; `fetch` alone may hang for ever in a body that stalls;
 * - redirects are refused: a 302 would be followed as a GET, answer 200, and the rows would be gone;
 * - the answer is read up to a bound and the rest is cancelled;
 * - whatever `fetch` throws (its shape differs between runtimes) is one line: the network.
 */

import process from "node:process";
import { lineOf } from "./errors.ts";
import { done, type Failed, failed } from "./result.ts";
import type { Clock } from "./time.ts";

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface Exchange {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Pieces are sent one after the other, without being joined: see `streamed`. */
  readonly body: readonly Uint8Array[] | string | null;
  /** Of everything but compressing: connecting, sending, waiting, reading. Milliseconds. */
  readonly timeoutMs: number;
  /** Compress the body (large ones only). */
  readonly gzip?: boolean;
  /** How much of the answer is read; `ANSWER_BYTES` where not given. */
  readonly maxAnswerBytes?: number;
  readonly signal?: AbortSignal | undefined;
}

/** A server's answer. Header names are lower case. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** The answer was longer than what was read. */
  readonly cut: boolean;
}

/**
 * No complete answer came. `aborted`: because the caller's signal said so. `late`: the time was over.
 * `unsent`: the server has nothing of the request.
 */
export interface NoAnswer extends Failed {
  readonly aborted: boolean;
  readonly late?: boolean;
  readonly unsent?: boolean;
}

/** What came of an exchange. */
export type Exchanged = { readonly ok: true; readonly value: Answer } | NoAnswer;

/** Never rejects. */
export type Post = (exchange: Exchange) => Promise<Exchanged>;

export const ANSWER_BYTES = 64 * 1024;

const GIVEN_UP: NoAnswer = { ...failed("given up"), aborted: true };
const NEVER_SENT: NoAnswer = { ...GIVEN_UP, unsent: true };

/** No connection was made. */
const UNSENT = /^(?:connection refused|host not found)$/;

/** Below this, compressing costs more than it saves. */
const PLAIN_BYTES = 1024;

/**
 * Shorter pieces of a body are sent together, as many as fit: each that is sent by itself costs 15 µs
 * (Linux), most of it in the system, and 64 KiB are copied in 5.
 */
const TOGETHER_BYTES = 64 * 1024;

export function createPost(tools: { readonly fetch: Fetch; readonly clock: Clock }): Post {
  return async (asked) => {
    if (asked.signal?.aborted) return NEVER_SENT;
    // Not interrupted: once an attempt has ended, its caller may free the memory that is read here.
    const exchange = await packed(asked).catch(lineOf);
    if (typeof exchange === "string") return { ...noAnswer(exchange), unsent: true };
    if (exchange.signal?.aborted) return NEVER_SENT;
    const controller = new AbortController();
    let stopped: NoAnswer | null = null;
    let wake: (answer: NoAnswer) => void = () => {};
    // Raced against the exchange: an abort alone is not enough where a body stalls.
    const stop = new Promise<NoAnswer>((resolve) => wake = resolve);
    const end = (answer: NoAnswer) => {
      stopped ??= answer;
      controller.abort();
      wake(stopped);
    };
    const onAbort = () => end(GIVEN_UP);
    const cancel = tools.clock.after(
      exchange.timeoutMs,
      () => end({ ...noAnswer(`no answer within ${exchange.timeoutMs} ms`), late: true }),
    );
    exchange.signal?.addEventListener("abort", onAbort, { once: true });
    const body = typeof exchange.body === "string" || exchange.body === null
      ? exchange.body
      : new Streamed(exchange.body, controller.signal);
    try {
      const work = send(tools.fetch, exchange, body, controller.signal);
      // When `stop` wins, the loser ends later and must not be an unhandled rejection.
      work.catch(() => {});
      return await Promise.race([work.then(done), stop]);
    } catch (error) {
      return stopped ?? noAnswer(lineOf(error));
    } finally {
      cancel();
      exchange.signal?.removeEventListener("abort", onAbort);
      // An answer may come before all is sent.
      if (body instanceof Streamed && !body.ended) controller.abort();
    }
  };
}

function noAnswer(problem: string): NoAnswer {
  const answer = { ...failed(problem), aborted: false };
  return UNSENT.test(problem) ? { ...answer, unsent: true } : answer;
}

/** The exchange with its body compressed, where that is wanted and worth it. */
async function packed(exchange: Exchange): Promise<Exchange> {
  const { body, gzip = false, headers } = exchange;
  if (!gzip || body === null || typeof body === "string" || bytesOf(body) < PLAIN_BYTES) {
    return exchange;
  }
  return {
    ...exchange,
    body: await gzipped(body),
    headers: { ...headers, "Content-Encoding": "gzip" },
  };
}

async function send(
  fetch: Fetch,
  exchange: Exchange,
  sent: Streamed | string | null,
  signal: AbortSignal,
): Promise<Answer> {
  const ask = (body: BodyInit | null) =>
    fetch(exchange.url, {
      method: exchange.method,
      headers: exchange.headers,
      body,
      ...(body instanceof ReadableStream ? { duplex: "half" } : {}),
      redirect: "manual",
      // ClickHouse closes idle connections after 3 to 10 s; an INSERT that meets such a closing is an
      // error without need, and a connection costs far less than a batch.
      keepalive: false,
      signal,
    });
  let response = await ask(sent instanceof Streamed ? sent.stream : sent);
  // A proxy that wants to know the length first.
  if (response.status === 411 && sent instanceof Streamed) {
    response.body?.cancel().catch(() => {});
    response = await ask(joined(sent.pieces));
  }
  const { bytes, cut } = await readUpTo(response, exchange.maxAnswerBytes ?? ANSWER_BYTES);
  const answered: Record<string, string> = {};
  response.headers.forEach((value, name) => answered[name.toLowerCase()] = value);
  return { status: response.status, headers: answered, body: bytes, cut };
}

/**
 * A body in pieces. Joined, a batch would be copied twice (`fetch` takes a copy too) in one go: 8 MiB
 * hold up every request for 10 to 20 ms on both runtimes, pieces for less than one each.
 *
 * With `signal` it breaks off, never ends: an end would make the part that was sent a whole INSERT. One
 * of the runtimes otherwise holds all of it for as long as a server that has answered reads no further.
 */
class Streamed {
  readonly stream: ReadableStream<Uint8Array>;
  #left: readonly Uint8Array[];
  #next = 0;
  #ended = false;

  constructor(readonly pieces: readonly Uint8Array[], signal: AbortSignal) {
    this.#left = pieces;
    this.stream = new ReadableStream({
      start: (controller) => {
        signal.addEventListener("abort", () => {
          controller.error(signal.reason);
          this.#left = [];
        }, { once: true });
      },
      pull: (controller) => {
        if (this.#next < this.#left.length) return controller.enqueue(this.#pulled());
        this.#ended = true;
        controller.close();
      },
    }, { highWaterMark: 0 });
  }

  /** All of it has been read. */
  get ended(): boolean {
    return this.#ended;
  }

  /** The next piece, and those behind it where all are short. */
  #pulled(): Uint8Array {
    const from = this.#next;
    let bytes = this.#left[this.#next++]!.length;
    while (this.#next < this.#left.length) {
      bytes += this.#left[this.#next]!.length;
      if (bytes > TOGETHER_BYTES) break;
      this.#next++;
    }
    return this.#next === from + 1 ? this.#left[from]! : joined(this.#left.slice(from, this.#next));
  }
}

function bytesOf(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}

/** Compressed off the event loop. */
function gzipped(pieces: readonly Uint8Array[]): Promise<Uint8Array[]> {
  return new Promise((resolve, reject) => {
    const packed: Uint8Array[] = [];
    // Loaded when it is needed: it brings streams with it, 3 of the 40 ms until the first answer.
    const gzip = process.getBuiltinModule("node:zlib").createGzip({
      level: 1,
      chunkSize: 256 * 1024,
    });
    gzip.on("data", (part: Uint8Array) => packed.push(part));
    gzip.once("end", () => resolve(packed));
    gzip.once("error", reject);
    for (const piece of pieces) gzip.write(piece);
    gzip.end();
  });
}

async function readUpTo(
  response: Response,
  maxBytes: number,
): Promise<{ bytes: Uint8Array; cut: boolean }> {
  const reader = response.body?.getReader();
  const parts: Uint8Array[] = [];
  let length = 0;
  let cut = false;
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;
    const room = maxBytes - length;
    if (value.length > room) {
      parts.push(value.subarray(0, room));
      length = maxBytes;
      cut = true;
      reader.cancel().catch(() => {});
      break;
    }
    parts.push(value);
    length += value.length;
  }
  return { bytes: parts.length === 1 ? parts[0]! : joined(parts), cut };
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(bytesOf(parts));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
