/**
 * One write to InfluxDB, and what its answer means. The only file that knows the `influx` library.
 *
 * The library renders lines and statements. Its transport is replaced by the kernel's exchange (ended by
 * a timer of its own, body included, and a bounded answer), because with it a promise never settles
 * when an answer stalls or is cut in its body, an answer is read without bound (640 MB in 3 s from an
 * endless error), a host is disabled for seconds after one failure, any 2xx passes for a write, and
 * root:root is sent where there is no user. Here only InfluxDB's own 204 means written. Credentials
 * travel in a header, never in the URL, and in no error.
 *
 * InfluxDB 2 and 3 are met at their `/write` of version 1. They differ in how they let one in, and take
 * no `precision=n`: nanoseconds are what all of them expect unasked.
 */

import { Buffer } from "node:buffer";
import { FieldType, InfluxDB, type ISchemaOptions } from "influx";
import type { Clock, Endpoint } from "../contracts.ts";
import { messageOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { createPost, type Fetch, type Post } from "../kernel/http.ts";
import { DONE, done, failed, type Result } from "../kernel/result.ts";

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
  /**
   * At least one point is not to its liking; others of the same write may be stored. `outlived`: it is
   * older than what the database keeps, and will be however often it is sent.
   */
  | { readonly kind: "refused"; readonly message: string; readonly outlived: boolean }
  /** Says nothing about the points, which may or may not be stored. */
  | { readonly kind: "away"; readonly message: string };

/** Never throws. */
export interface InfluxClient {
  write(points: readonly Point[]): Promise<Written>;
  /** Makes the database where it is not there. */
  createDatabase(): Promise<Result>;
}

/** One server, and how it is spoken to. */
export interface InfluxServer {
  readonly endpoint: Endpoint;
  readonly post: Post;
  /** Of one exchange, body included. */
  readonly timeoutMs: number;
  /** Ends what is under way and refuses what comes later. */
  readonly signal?: AbortSignal;
}

export interface InfluxRequest {
  readonly method: string;
  /** Below the endpoint's. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly body: string | null;
}

export interface InfluxAnswer {
  readonly status: number;
  /** Its beginning. */
  readonly body: string;
  /** Of the server, where it tells it. */
  readonly version: string | null;
}

const MAX_MESSAGE_CHARS = 500;
/** Of an answer that is looked at; the rest is not read. */
const MAX_ANSWER_BYTES = 16_384;

/** An answer that is no success. */
class AnswerError extends Error {
  constructor(readonly status: number, readonly body: string) {
    super(`HTTP ${status} ${body.trim()}`);
  }
}

export function createInflux(
  server: InfluxServer,
  measurements: readonly Measurement[],
): InfluxClient {
  const { database } = server.endpoint;
  const influx = new InfluxDB({
    database,
    schema: measurements.map((measurement) => schemaOf(measurement, database)),
  });
  (influx as unknown as { _pool: Transport })._pool = transport(server);

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
        return DONE;
      } catch (problem) {
        return failed(wordsOf(problem));
      }
    },
  };
}

/** One exchange with InfluxDB. Never rejects. */
async function askInflux(
  { endpoint, post, timeoutMs, signal }: InfluxServer,
  { method, path, query, body }: InfluxRequest,
): Promise<Result<InfluxAnswer>> {
  const credentials = authorization(endpoint);
  if (!credentials.ok) return credentials;
  const base = new URL(endpoint.url);
  const below = base.pathname.replace(/\/+$/, "");
  const answered = await post({
    method,
    url: `${base.origin}${below}${path}?${new URLSearchParams(query)}`,
    headers: { "content-type": "text/plain; charset=utf-8", ...credentials.value },
    body,
    timeoutMs,
    maxAnswerBytes: MAX_ANSWER_BYTES,
    signal,
  });
  if (!answered.ok) return answered;
  const { status, headers, body: bytes } = answered.value;
  return done({
    status,
    body: new TextDecoder().decode(bytes),
    version: headers["x-influxdb-version"] ?? null,
  });
}

/**
 * A user and a password are those of InfluxDB 1. A password alone is a token, in the one scheme that
 * both InfluxDB 2 and InfluxDB 3 take at `/write`.
 */
function authorization({ user, password }: Endpoint): Result<Record<string, string>> {
  if (user !== "") {
    return done({
      authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`,
    });
  }
  if (password === "") return done({});
  // Said here, because the error of a header that is refused repeats its value.
  return /^[\x21-\x7e]+$/.test(password)
    ? done({ authorization: `Token ${password}` })
    : failed("the token holds characters that no header can carry");
}

/** What the library hands to its transport; credentials and precision are not taken from it. */
interface Ask {
  readonly method: string;
  readonly path: string;
  readonly query?: { readonly db?: string; readonly q?: string };
  readonly body?: string;
}

/** What the library calls. */
interface Transport {
  discard(ask: Ask): Promise<void>;
  json(ask: Ask): Promise<unknown>;
}

function transport(server: InfluxServer): Transport {
  async function send({ method, path, query = {}, body }: Ask, wanted: number): Promise<string> {
    const { db, q } = query;
    const answer = await askInflux(server, {
      method,
      path,
      query: { ...(db !== undefined && { db }), ...(q !== undefined && { q }) },
      body: body ?? null,
    });
    if (!answer.ok) throw new Error(answer.problem);
    if (answer.value.status !== wanted) {
      throw new AnswerError(answer.value.status, answer.value.body);
    }
    return answer.value.body;
  }
  return {
    discard: async (ask) => void await send(ask, 204),
    json: async (ask) => JSON.parse(await send(ask, 200)),
  };
}

function meaning(problem: unknown): Written {
  const message = wordsOf(problem);
  if (!(problem instanceof AnswerError)) return { kind: "away", message };
  const { status, body } = problem;
  if (status === 404 && /database not found/i.test(body)) return { kind: "no-database" };
  if (status === 413) return { kind: "too-large", message };
  if (status === 400 || status === 422) {
    return { kind: "refused", message, outlived: outlived(body) };
  }
  // InfluxDB 2 calls it an error of its own that a point is too old, and stays with it.
  if (status === 500 && outlived(body)) return { kind: "refused", message, outlived: true };
  return { kind: "away", message };
}

/** A point is older than the database keeps: "points beyond retention policy". */
function outlived(body: string): boolean {
  return /retention policy/i.test(body);
}

function wordsOf(problem: unknown): string {
  return messageOf(problem).slice(0, MAX_MESSAGE_CHARS);
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

// ── What `shishi check` asks: is it there, does it let the collector in and write? What is written is
// nothing at all.

const TIMEOUT_MS = 5_000;

/** Never rejects. */
export async function inspectInflux(
  endpoint: Endpoint,
  tools: { readonly fetch: Fetch; readonly clock: Clock },
): Promise<Finding[]> {
  const is = about(`influxdb ${endpoint.label}`);
  const { database, user, password } = endpoint;
  const post = createPost(tools);
  const server = { endpoint, post, timeoutMs: TIMEOUT_MS };
  const ask = (path: string, query: Record<string, string>) =>
    askInflux(server, { method: "POST", path, query, body: "" });
  const quoted = (name: string) => `"${name.replace(/["\\]/g, "\\$&")}"`;
  const hasToken = user === "" && password !== "";
  const unanswered = (problem: string) => is.wrong(problem, "start it, or correct influx-url");
  const answered = await ask("/write", { db: database });
  if (!answered.ok) return [unanswered(answered.problem)];
  const { status, body } = answered.value;
  const version = answered.value.version?.slice(0, 40) ?? "of an unknown version";
  // 400: it would like at least one point, and has let the client in to say so.
  if (status === 204 || status === 200 || status === 400) {
    return [is.ok(`${version}, takes counts`)];
  }
  const said = `${version}, HTTP ${status} ${body.trim().slice(0, 300)}`.trim();
  if (status === 401) {
    return [is.wrong(said, `correct ${hasToken ? "token" : "user and password"} in influx-url`)];
  }
  if (status === 403) {
    const todo = hasToken
      ? `give the token the right to write to ${database}`
      : `GRANT WRITE ON ${quoted(database)} TO ${quoted(user)}`;
    return [is.wrong(said, todo)];
  }
  if (status !== 404) return [is.wrong(said)];
  if (hasToken) {
    const todo = `create the bucket ${database} and map the database to it (influx v1 dbrp create)`;
    return [is.wrong(`${version}, database ${database} is not there`, todo)];
  }
  // A user that may list the users may create a database, and no other.
  const listed = await ask("/query", { q: "SHOW USERS" });
  if (!listed.ok) return [unanswered(listed.problem)];
  return listed.value.status === 200
    ? [is.ok(`${version}, database ${database} is not there; will be created`)]
    : [is.wrong(
      `${version}, database ${database} is not there, and this user may not create it`,
      `CREATE DATABASE ${quoted(database)}; GRANT WRITE ON ${quoted(database)} TO ${quoted(user)}`,
    )];
}
