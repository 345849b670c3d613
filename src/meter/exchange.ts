/**
 * One HTTP exchange with InfluxDB: a request that ends, and a bounded answer.
 *
 * Promises: it is over within `timeoutMs`, body included, or at once when `signal` says so; at most
 * `MAX_ANSWER_BYTES` of an answer are read; no redirect is followed, since a POST would come out of
 * it as a GET. Credentials travel in a header, never in the URL, and in no error.
 */

import { Buffer } from "node:buffer";
import type { Clock, Endpoint } from "../contracts.ts";

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface ExchangeDeps {
  readonly endpoint: Endpoint;
  readonly clock: Clock;
  readonly fetch: Fetch;
  /** Of one exchange, body included. */
  readonly timeoutMs: number;
  /** Ends what is under way and refuses what comes later. */
  readonly signal: AbortSignal;
}

export interface Request {
  readonly method: string;
  /** Below the endpoint's. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly body: string | null;
}

export interface Answer {
  readonly status: number;
  /** Its beginning. */
  readonly body: string;
  /** Of the server, where it tells it. */
  readonly version: string | null;
}

/** Of an answer that is looked at; the rest is not read. */
const MAX_ANSWER_BYTES = 16_384;

/** Throws when there was no complete answer in time. */
export async function exchange(deps: ExchangeDeps, request: Request): Promise<Answer> {
  const { clock, timeoutMs, signal } = deps;
  const abort = new AbortController();
  const ended = new Promise<never>((_, reject) => {
    abort.signal.addEventListener("abort", () => reject(abort.signal.reason), { once: true });
  });
  const stop = () => abort.abort(new Error("given up: the mirror is stopping"));
  const cancelTimer = clock.after(timeoutMs, () => {
    abort.abort(new Error(`no complete answer within ${timeoutMs} ms`));
  });
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    // Raced, since not every fetch notices an abort while it waits for a body.
    const asked = ask(deps, request, abort.signal);
    asked.catch(() => {});
    return await Promise.race([asked, ended]);
  } finally {
    cancelTimer();
    signal.removeEventListener("abort", stop);
  }
}

async function ask(
  { endpoint, fetch }: ExchangeDeps,
  { method, path, query, body }: Request,
  signal: AbortSignal,
): Promise<Answer> {
  const base = new URL(endpoint.url);
  const url = `${base.origin}${base.pathname.replace(/\/+$/, "")}${path}?${new URLSearchParams(
    query,
  )}`;
  const headers = new Headers({ "content-type": "text/plain; charset=utf-8" });
  const credentials = authorization(endpoint);
  if (credentials !== null) headers.set("authorization", credentials);
  const response = await fetch(url, {
    method,
    headers,
    redirect: "manual",
    signal,
    ...(body !== null && { body }),
  });
  return {
    status: response.status,
    body: await readSome(response),
    version: response.headers.get("x-influxdb-version"),
  };
}

/**
 * A user and a password are those of InfluxDB 1. A password alone is a token, in the one scheme that
 * both InfluxDB 2 and InfluxDB 3 take at `/write`.
 */
function authorization({ user, password }: Endpoint): string | null {
  if (user !== "") return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
  if (password === "") return null;
  // Said here, because the error of a header that is refused repeats its value.
  if (!/^[\x21-\x7e]+$/.test(password)) {
    throw new Error("the token holds characters that no header can carry");
  }
  return `Token ${password}`;
}

/** The beginning of the body. An answer whose body is cut short throws. */
async function readSome(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  if (reader === undefined) return "";
  const parts: Uint8Array[] = [];
  let bytes = 0;
  while (bytes < MAX_ANSWER_BYTES) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    bytes += value.length;
  }
  if (bytes >= MAX_ANSWER_BYTES) await reader.cancel();
  return Buffer.concat(parts).subarray(0, MAX_ANSWER_BYTES).toString();
}
