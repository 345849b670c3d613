/**
 * One write to InfluxDB, and what its answer means. The only file that knows the `influx` library.
 *
 * The library renders lines and statements. Its transport is replaced, because with it a promise
 * never settles when an answer stalls or is cut in its body, an answer is read without bound (640 MB
 * in 3 s from an endless error), a host is disabled for seconds after one failure, and any 2xx
 * passes for a write. Here every exchange ends within `timeoutMs`, reads a bounded answer, follows
 * no redirect, and only InfluxDB's own 204 means written. Without a user nothing is sent as
 * credentials; the library would send root:root.
 */

import { Buffer } from "node:buffer";
import { FieldType, InfluxDB, type ISchemaOptions } from "influx";
import type { Clock, Endpoint } from "../contracts.ts";

/** `tags` are values that the line protocol can carry (`tagValue`). */
export interface Point {
  readonly measurement: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly fields: Readonly<Record<string, number>>;
  /** Epoch nanoseconds, decimal: more digits than a number holds. */
  readonly timestampNs: string;
}

/** The shape of a measurement: which fields are integers, which are floats. */
export interface Measurement {
  readonly name: string;
  readonly tags: readonly string[];
  readonly integers: readonly string[];
  readonly floats: readonly string[];
}

/** What one write came to. Only `written` says that the points are there. */
export type Written =
  | { readonly kind: "written" }
  | { readonly kind: "no-database" }
  /** More bytes than the server takes at once. */
  | { readonly kind: "too-large"; readonly message: string }
  /** At least one point is not to its liking; others of the same write may be stored. */
  | { readonly kind: "refused"; readonly message: string }
  /** Says nothing about the points, which may or may not be stored. */
  | { readonly kind: "away"; readonly message: string };

/** Never throws. */
export interface InfluxClient {
  write(points: readonly Point[]): Promise<Written>;
  /** Null when the database is there, else why it could not be made. */
  createDatabase(): Promise<string | null>;
  /** Null when the server answers and lets us in, else what is wrong. Changes nothing. */
  reach(): Promise<string | null>;
}

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface InfluxDeps {
  readonly endpoint: Endpoint;
  readonly measurements: readonly Measurement[];
  readonly clock: Clock;
  readonly fetch: Fetch;
  /** Of one exchange, body included. */
  readonly timeoutMs: number;
  /** Ends what is under way and refuses what comes later. */
  readonly signal: AbortSignal;
}

/** Of an answer that is looked at; the rest is not read. */
const MAX_ANSWER_BYTES = 16_384;
const MAX_MESSAGE_CHARS = 500;

/** What the library hands to its transport. */
interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly body?: string;
  readonly auth?: string | undefined;
}

/** An answer that is no success. */
class AnswerError extends Error {
  constructor(readonly status: number, readonly body: string) {
    super(`HTTP ${status} ${body.trim()}`);
  }
}

export function createInflux(deps: InfluxDeps): InfluxClient {
  const { endpoint } = deps;
  const { database } = endpoint;
  const base = new URL(endpoint.url);
  const influx = new InfluxDB({
    database,
    host: base.hostname,
    // An absent user is null: undefined means root to the library.
    username: (endpoint.user || null) as string,
    password: endpoint.password,
    schema: deps.measurements.map((measurement) => schemaOf(measurement, database)),
  });
  const transport = {
    discard: async (exchange: Exchange) => {
      const { status, body } = await send(deps, base, exchange);
      if (status !== 204) throw new AnswerError(status, body);
    },
    json: async (exchange: Exchange) => {
      const { status, body } = await send(deps, base, exchange);
      if (status !== 200) throw new AnswerError(status, body);
      return JSON.parse(body) as unknown;
    },
  };
  (influx as unknown as { _pool: typeof transport })._pool = transport;

  return {
    async write(points) {
      try {
        await influx.writePoints(points.map(({ timestampNs, ...point }) => ({
          ...point,
          timestamp: timestampNs,
        })));
        return { kind: "written" };
      } catch (problem) {
        return meaning(problem);
      }
    },

    async createDatabase() {
      try {
        await influx.createDatabase(database);
        return null;
      } catch (problem) {
        return messageOf(problem);
      }
    },

    async reach() {
      try {
        await influx.getDatabaseNames();
        return null;
      } catch (problem) {
        return messageOf(problem);
      }
    },
  };
}

function meaning(problem: unknown): Written {
  const message = messageOf(problem);
  if (!(problem instanceof AnswerError)) return { kind: "away", message };
  if (problem.status === 404 && /database not found/i.test(problem.body)) {
    return { kind: "no-database" };
  }
  if (problem.status === 413) return { kind: "too-large", message };
  if (problem.status === 400 || problem.status === 422) return { kind: "refused", message };
  return { kind: "away", message };
}

function messageOf(problem: unknown): string {
  const text = problem instanceof Error ? problem.message : String(problem);
  return text.slice(0, MAX_MESSAGE_CHARS);
}

function schemaOf(measurement: Measurement, database: string): ISchemaOptions {
  const { name, tags, integers, floats } = measurement;
  return {
    database,
    measurement: name,
    tags: [...tags],
    fields: {
      ...Object.fromEntries(integers.map((field) => [field, FieldType.INTEGER])),
      ...Object.fromEntries(floats.map((field) => [field, FieldType.FLOAT])),
    },
  };
}

/** One exchange. Throws when it was not completed in time. */
async function send(
  { clock, fetch, timeoutMs, signal }: InfluxDeps,
  base: URL,
  exchange: Exchange,
): Promise<{ status: number; body: string }> {
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
    const request = ask(fetch, base, exchange, abort.signal);
    request.catch(() => {});
    return await Promise.race([request, ended]);
  } finally {
    cancelTimer();
    signal.removeEventListener("abort", stop);
  }
}

async function ask(fetch: Fetch, base: URL, exchange: Exchange, signal: AbortSignal) {
  const { method, path, query = {}, body, auth } = exchange;
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  const url = `${base.origin}${base.pathname.replace(/\/+$/, "")}${path}?${search}`;
  const headers = new Headers({ "content-type": "text/plain; charset=utf-8" });
  if (auth !== undefined) {
    headers.set("authorization", `Basic ${Buffer.from(auth).toString("base64")}`);
  }
  const response = await fetch(url, {
    method,
    headers,
    redirect: "manual",
    signal,
    ...(body !== undefined && { body }),
  });
  return { status: response.status, body: await readSome(response) };
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
