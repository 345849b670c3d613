/** A ClickHouse to be asked, and what its refusals call for. */

import type { Endpoint, Verdict } from "../../contracts.ts";
import { createInserter } from "../../deliver/clickhouse.ts";
import { createPost } from "../../kernel/http.ts";
import { createQuery, credentials, type Query } from "../../deliver/query.ts";
import { quoteName, quoteString } from "../../deliver/sql.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createFetch } from "../../runtime/fetch.ts";

/** Of one question. */
const TIMEOUT_MS = 5_000;

export interface Server {
  readonly endpoint: Endpoint;
  readonly query: Query;
  /** Sends the very INSERT that the collector sends, without a row: what it needs is tried, nothing stored. */
  tryInsert(table: string, shape: "event" | "row"): Promise<Verdict>;
  /** The answer to a statement that takes no FORMAT, or null where there is none. */
  word(sql: string): Promise<string | null>;
}

export function connect(endpoint: Endpoint): Server {
  const clock = systemClock;
  const post = createPost({ fetch: createFetch({ pooled: false }), clock });
  const query = createQuery({ endpoint, post, clock, timeoutMs: TIMEOUT_MS });
  const inserter = createInserter({
    endpoint,
    post,
    query,
    clock,
    insertTimeoutMs: TIMEOUT_MS,
    compress: "none",
  });
  return {
    endpoint,
    query,
    tryInsert: (table, shape) =>
      inserter.insert(
        { table, shape, body: [], rows: 0, token: `check-${crypto.randomUUID()}` },
        new AbortController().signal,
      ),
    async word(sql) {
      const answer = await post({
        method: "POST",
        url: endpoint.url,
        headers: credentials(endpoint),
        body: sql,
        timeoutMs: TIMEOUT_MS,
      });
      const fine = answer.ok && answer.value.status === 200;
      return fine ? new TextDecoder().decode(answer.value.body).trim() : null;
    },
  };
}

export async function databaseIsThere({ query, endpoint }: Server): Promise<boolean> {
  const name = quoteString(endpoint.database);
  const found = await query.rows(`SELECT count() AS n FROM system.databases WHERE name = ${name}`);
  return !found.ok || Number(found.value[0]?.["n"]) > 0;
}

/** `db`.`table` for a statement that somebody is told to run; quoted only where it must be. */
export function named({ endpoint }: Server, table: string): string {
  return `${plainOrQuoted(endpoint.database)}.${plainOrQuoted(table)}`;
}

function plainOrQuoted(name: string): string {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : quoteName(name);
}

/** Whether this user may do it; null where the server does not tell. */
export async function mayI(server: Server, right: string, table: string): Promise<boolean | null> {
  const answer = await server.word(`CHECK GRANT ${right} ON ${named(server, table)}`);
  return answer === "1" ? true : answer === "0" ? false : null;
}

/** The statement that gives the right. */
export function grant(server: Server, right: string, table: string): string {
  const user = plainOrQuoted(server.endpoint.user || "default");
  return `GRANT ${right} ON ${named(server, table)} TO ${user}`;
}

/** What to do about a refusal that has nothing to do with a table; undefined where its words say it. */
export function remedy(code: number, { user }: Endpoint): string | undefined {
  if ([192, 193, 194, 516].includes(code)) {
    return `correct user (${user || "default"}) and password in clickhouse-url`;
  }
  if (code === 164) return "give this user a profile that may write (readonly = 0)";
  if (code === 0) return "start it, or correct clickhouse-url (the HTTP port, 8123 or 8443)";
  return undefined;
}
