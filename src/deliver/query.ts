/**
 * Questions to one server (SELECT, DDL, ping) through @clickhouse/client-web. Its `fetch` is the
 * collector's own, so that the timeout covers the body, redirects are refused and an error has a code
 * (also on 18.16). Credentials travel in headers only, because URLs end up in access logs, errors and
 * process lists.
 */

import { createClient } from "@clickhouse/client-web";
import type { Answered, Ask, Clock, Endpoint } from "../contracts.ts";
import type { Exchanged, Post } from "../kernel/http.ts";
import { done, failed } from "../kernel/result.ts";
import { ASK_SETTINGS } from "../kernel/pinned.ts";
import { carries, credentials, type Pins } from "./pins.ts";
import {
  exceptionOf,
  isClickHouse,
  messageOf,
  NO_CLICKHOUSE,
  settingOf,
  verdictOf,
} from "./verdict.ts";

export type Row = Readonly<Record<string, unknown>>;

/** Never rejects. */
export interface Query {
  /** The rows of a SELECT. */
  rows(sql: string, signal?: AbortSignal): Promise<Answered<readonly Row[]>>;
  /** The answer to a statement that takes no FORMAT. */
  word(sql: string, signal?: AbortSignal): Promise<Answered<string>>;
  /** A statement without an answer. */
  command(sql: string, signal?: AbortSignal): Promise<Answered<null>>;
  ping(signal?: AbortSignal): Promise<boolean>;
}

/** Of an answer; far more than the columns of the widest table. */
const MAX_ROWS_BYTES = 16 * 1024 * 1024;

/** Carries an answer that is no success through client-web. */
class Refused extends Error {
  constructor(readonly code: number, problem: string) {
    super(problem);
  }
}

export function createQuery(
  tools: {
    readonly endpoint: Endpoint;
    readonly post: Post;
    readonly clock: Clock;
    readonly timeoutMs: number;
    /** Shared by all that speak to this server. */
    readonly pins: Pins;
  },
): Query & {
  /** A SELECT with bound values; its answer as it came. */
  readonly ask: Ask;
} {
  const { endpoint, post, clock, timeoutMs, pins } = tools;

  // client-web does not pass on a caller's signal reliably, so each question gets a client whose
  // `fetch` holds it; a client is a plain object and keeps no connection of its own.
  const client = (signal: AbortSignal | undefined) =>
    createClient({
      // The path is put in below: it would be taken for a database here.
      url: new URL(endpoint.url).origin,
      username: endpoint.user || "default",
      password: endpoint.password,
      request_timeout: timeoutMs + 1000,
      fetch: async (input, init) => {
        const headers: Record<string, string> = {};
        new Headers(init?.headers).forEach((value, name) => {
          if (name !== "authorization") headers[name] = value;
        });
        const { searchParams } = new URL(String(input instanceof Request ? input.url : input));
        // Qualified names are used throughout; a `database` that does not exist yet would refuse
        // the statement that could tell so.
        searchParams.delete("database");
        const asked = Object.fromEntries(searchParams);
        const body = init?.body;
        while (true) {
          const url = pins.address(ASK_SETTINGS, asked);
          const answered = await post({
            method: init?.method ?? "GET",
            url,
            headers: { ...headers, ...credentials(endpoint) },
            body: typeof body === "string" ? body : null,
            timeoutMs,
            maxAnswerBytes: MAX_ROWS_BYTES,
            signal,
          });
          const refused = answered.ok ? exceptionOf(answered.value) : null;
          const setting = refused?.code === 115 ? settingOf(refused) : null;
          // Another question may have met it meanwhile: what counts is whether this one carried it.
          if (setting === null || Object.hasOwn(asked, setting) || !carries(url, setting)) {
            return responseOf(answered, clock.nowMs());
          }
          pins.refused(115, setting);
        }
      },
    });

  async function attempt<T>(work: () => Promise<T>): Promise<Answered<T>> {
    try {
      return done(await work());
    } catch (error) {
      for (let at: unknown = error; at instanceof Error; at = at.cause) {
        if (at instanceof Refused) return { ...failed(at.message), code: at.code };
      }
      return { ...failed(String(error).slice(0, 300)), code: 0 };
    }
  }

  return {
    ask: ({ sql, format, params, settings }, signal) =>
      attempt(async () => {
        const answer = await client(signal).query({
          query: sql,
          format,
          query_params: { ...params },
          // What is too long for an address travels as a form.
          use_multipart_params_auto: true,
          clickhouse_settings: settings,
        });
        return await answer.text();
      }),
    rows: (query, signal) =>
      attempt(async () => {
        const answer = await client(signal).query({ query, format: "JSONEachRow" });
        return await answer.json<Row>();
      }),
    word: (query, signal) =>
      attempt(async () => {
        const { stream } = await client(signal).exec({ query });
        return (await new Response(stream).text()).trim();
      }),
    command: (query, signal) =>
      attempt(async () => {
        await client(signal).command({ query });
        return null;
      }),
    async ping(signal) {
      const ask = async (path: string, wanted: string, sql: string | null) => {
        const answer = await post({
          method: sql === null ? "GET" : "POST",
          url: path,
          headers: credentials(endpoint),
          body: sql,
          timeoutMs,
          signal,
        });
        if (!answer.ok) return null;
        return answer.value.status === 200 &&
          new TextDecoder().decode(answer.value.body).trim() === wanted;
      };
      const pong = await ask(`${endpoint.url.replace(/\/$/, "")}/ping`, "Ok.", null);
      // A proxy may let nothing through but queries.
      return pong === true || pong === false && await ask(endpoint.url, "1", "SELECT 1") === true;
    },
  };
}

/** An answer as client-web wants it. Throws `Refused` for what is no success. */
function responseOf(answered: Exchanged, nowMs: number): Response {
  if (!answered.ok) throw new Refused(0, answered.problem);
  const answer = answered.value;
  const exception = exceptionOf(answer);
  if (exception !== null) throw new Refused(exception.code, messageOf(exception.text));
  if (answer.status !== 200) {
    const verdict = verdictOf(answered, nowMs);
    throw new Refused(0, "message" in verdict ? verdict.message : "");
  }
  // An empty one would say that there is no such table.
  if (!isClickHouse(answer)) throw new Refused(0, NO_CLICKHOUSE);
  // As ClickHouse says it where its own bound is lower.
  if (answer.cut) throw new Refused(396, "the answer is too long");
  const headers = new Headers(answer.headers);
  headers.delete("content-encoding");
  headers.delete("content-length");
  return new Response(answer.body as BodyInit, { status: 200, headers });
}

/** The sentence for a server that cannot hold events, with its version where it tells it. */
export async function tooOld(query: Query, table: string, signal?: AbortSignal): Promise<string> {
  const answer = await query.rows("SELECT version() AS version", signal);
  const version = answer.ok ? answer.value[0]?.["version"] : undefined;
  return `${table} needs ClickHouse 21.8 or newer for Map columns; this server ${
    typeof version === "string" ? `is ${version}` : "is older"
  }; POST /events/TABLE works`;
}
