/**
 * One attempt of one INSERT at one server, and the question which rows that server can parse.
 * Never throws, never retries; a setting that the server does not know is dropped for it and
 * remembered, since the INSERT was refused before it began.
 */

import type { Clock, Endpoint, Inserter, InsertRequest, Verdict } from "../contracts.ts";
import type { Post } from "../kernel/http.ts";
import { isTableName } from "../kernel/names.ts";
import { credentials, type Query, tooOld } from "./query.ts";
import { createSieve } from "./sieve.ts";
import { INSERT_SETTINGS, insertStatement } from "./sql.ts";
import { isTooOld, verdictOf } from "./verdict.ts";

const TOKEN = "insert_deduplication_token";

/** `insertTimeoutMs`: of one attempt, body and answer included. */
export function createInserter(
  tools: {
    readonly endpoint: Endpoint;
    readonly post: Post;
    readonly query: Query;
    readonly clock: Clock;
    readonly insertTimeoutMs: number;
    readonly compress: "auto" | "gzip" | "none";
  },
): Inserter {
  const { endpoint, post, query, clock, insertTimeoutMs, compress } = tools;
  const unknownSettings = new Set<string>();
  const local = isOnThisHost(endpoint.url);
  // A server from before tokens takes a plain body that is broken off behind a row for a whole one, and
  // the next attempt would store those rows again. A gzip that is cut short it refuses.
  const gzip = () =>
    compress === "gzip" || compress === "auto" && (!local || unknownSettings.has(TOKEN));
  const sieve = createSieve({ endpoint, post, query, timeoutMs: insertTimeoutMs, unknownSettings });

  async function insert(request: InsertRequest, signal: AbortSignal): Promise<Verdict> {
    if (!isTableName(request.table)) {
      return {
        kind: "table",
        code: 0,
        message: `not a table name: ${request.table.slice(0, 100)}`,
      };
    }
    const settings = { ...INSERT_SETTINGS, [TOKEN]: request.token };
    while (true) {
      const url = new URL(endpoint.url);
      for (const [name, value] of Object.entries(settings)) {
        if (!unknownSettings.has(name)) url.searchParams.set(name, value);
      }
      url.searchParams.set(
        "query",
        insertStatement(request.shape, endpoint.database, request.table),
      );
      const answer = await post({
        method: "POST",
        url: url.href,
        headers: credentials(endpoint),
        body: request.body,
        timeoutMs: insertTimeoutMs,
        gzip: gzip(),
        signal,
      });
      const verdict = verdictOf(answer, clock.nowMs());
      if (verdict.kind === "unknown-setting") {
        if (url.searchParams.has(verdict.setting)) {
          unknownSettings.add(verdict.setting);
          continue;
        }
        // Not one of ours: the user's profile on the server is broken.
        return { kind: "table", code: verdict.code, message: verdict.message };
      }
      if (verdict.kind === "table" && request.shape === "event" && isTooOld(verdict.code)) {
        return { ...verdict, message: await tooOld(query, request.table, signal) };
      }
      return verdict;
    }
  }

  return { insert, sieve };
}

/** There compressing would only cost. */
function isOnThisHost(url: string): boolean {
  return /^(localhost|127\.[\d.]+|\[::1\])$/.test(new URL(url).hostname);
}
