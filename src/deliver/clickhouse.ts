/**
 * One attempt of one INSERT at one server, and the question which rows that server can parse.
 * Never throws, never retries; a setting that the server does not know is dropped for it and
 * remembered, since the INSERT was refused before it began; one that it forbids to set is its trouble.
 */

import type {
  Clock,
  Endpoint,
  Inserter,
  InsertRequest,
  InsertSetting,
  Log,
  Verdict,
} from "../contracts.ts";
import type { Post } from "../kernel/http.ts";
import { compileGlobs, isTableName } from "../kernel/names.ts";
import { INSERT_SETTINGS, type Settings, TOKEN } from "../kernel/pinned.ts";
import { within } from "../kernel/time.ts";
import { Patience } from "./limits.ts";
import { carries, credentials, type Pins } from "./pins.ts";
import { type Query, tooOld } from "./query.ts";
import { createSieve } from "./sieve.ts";
import { insertStatement } from "./sql.ts";
import { isTooOld, verdictOf } from "./verdict.ts";

/** When an INSERT has had this part of its time, its server is asked whether it answers at all. */
const ASKED_AT = 3 / 4;
/** For that answer, where it has not come by then. */
const LATE_PONG_MS = 250;

/** `insertTimeoutMs`: of one attempt, body and answer included; more where a table's INSERTs need it. */
export function createInserter(
  tools: {
    readonly endpoint: Endpoint;
    readonly post: Post;
    readonly query: Query;
    readonly pins: Pins;
    readonly clock: Clock;
    /** Learn what INSERTs need more time than that. */
    readonly log?: Log;
    readonly onTimeout?: (table: string, ms: number | null) => void;
    readonly insertTimeoutMs: number;
    readonly compress: "auto" | "gzip" | "none";
    readonly insertSettings: readonly InsertSetting[];
  },
): Inserter {
  const { endpoint, post, pins, clock, insertTimeoutMs, compress } = tools;
  const more = moreSettings(tools.insertSettings);
  const headers = credentials(endpoint);
  const local = isOnThisHost(endpoint.url);
  const patience = new Patience(
    insertTimeoutMs,
    endpoint.label,
    tools.log ?? null,
    tools.onTimeout,
  );
  // A server from before tokens takes a plain body that is broken off behind a row for a whole one, and
  // the next attempt would store those rows again. A gzip that is cut short it refuses.
  const gzip = () =>
    compress === "gzip" || compress === "auto" && (!local || pins.unknown.has(TOKEN));
  const { sieve, judgeOf } = createSieve({
    endpoint,
    post,
    query: tools.query,
    timeoutMs: insertTimeoutMs,
    pins,
    more: (table) => more(table).others,
  });

  async function insert(request: InsertRequest, signal: AbortSignal): Promise<Verdict> {
    if (!isTableName(request.table)) {
      return {
        kind: "table",
        code: 0,
        message: `not a table name: ${request.table.slice(0, 100)}`,
      };
    }
    const { others, all } = more(request.table);
    const trouble = await pins.check(signal);
    if (trouble !== null) return { kind: "table", ...trouble };
    while (true) {
      const { shape, table, columns, types, token } = request;
      const query = insertStatement(shape, endpoint.database, table, columns, types);
      const own = pins.unknown.has(TOKEN) ? { query } : { [TOKEN]: token, query };
      const url = pins.address(all, own);
      const timeoutMs = patience.ofMs(request.table);
      const startedMs = clock.monotonicMs();
      let pong: Promise<boolean> | null = null;
      const cancel = clock.after(timeoutMs * ASKED_AT, () => pong = tools.query.ping(signal));
      const answer = await post({
        method: "POST",
        url,
        headers,
        body: request.body,
        timeoutMs,
        gzip: gzip(),
        signal,
      });
      cancel();
      if (answer.ok) patience.answered(request.table, clock.monotonicMs() - startedMs);
      const verdict = verdictOf(answer, clock.nowMs());
      if (!answer.ok && answer.late === true && verdict.kind === "transient") {
        const alive = pong !== null && await within(clock, LATE_PONG_MS, pong, false);
        if (!alive) return verdict;
        patience.outlasted(request.table, timeoutMs);
        return { ...verdict, outlasted: true };
      }
      if (verdict.kind === "unknown-setting") {
        // Wanted by a person: to leave it out would be another INSERT than the one that was meant.
        if (Object.hasOwn(others, verdict.setting)) {
          return {
            kind: "table",
            code: verdict.code,
            message: `insert-settings: ${verdict.message}`,
          };
        }
        if (carries(url, verdict.setting)) {
          pins.refused(verdict.code, verdict.setting);
          if (verdict.code === 115) continue;
          // The profile keeps it at something else: what that is decides.
          const forbidden = await pins.check(signal);
          if (forbidden !== null) return { kind: "table", ...forbidden };
        }
        // Not a setting that the collector sent: the user's profile on the server is broken.
        return { kind: "table", code: verdict.code, message: verdict.message };
      }
      if (verdict.kind === "table" && request.shape === "event" && isTooOld(verdict.code)) {
        return { ...verdict, message: await tooOld(tools.query, request.table, signal) };
      }
      return verdict;
    }
  }

  return { insert, sieve, judgeOf };
}

/** What a table's INSERTs carry besides what they rely on, and all of it together. */
interface Carried {
  readonly others: Settings;
  readonly all: Settings;
}

/** Tables with settings of their own that are remembered. */
const MOST_SPECIAL = 1000;

/** What is meant for all tables, and over it what is meant for one; the same object each time. */
function moreSettings(wanted: readonly InsertSetting[]): (table: string) => Carried {
  const valuesOf = (some: readonly InsertSetting[]) =>
    Object.fromEntries(some.map(({ name, value }) => [name, value]));
  const carried = (others: Settings): Carried => ({
    others,
    all: { ...others, ...INSERT_SETTINGS },
  });
  const general = valuesOf(wanted.filter(({ table }) => table === null));
  const usual = carried(general);
  const special = wanted.filter(({ table }) => table !== null)
    .map((setting) => ({ ...setting, means: compileGlobs([setting.table!]) }));
  if (special.length === 0) return () => usual;
  const known = new Map<string, Carried>();
  return (table) => {
    let found = known.get(table);
    if (found === undefined) {
      if (known.size >= MOST_SPECIAL) known.clear();
      const its = valuesOf(special.filter(({ means }) => means(table)));
      known.set(table, found = carried({ ...general, ...its }));
    }
    return found;
  };
}

/** There compressing would only cost. */
function isOnThisHost(url: string): boolean {
  return /^(localhost|127\.[\d.]+|\[::1\])$/.test(new URL(url).hostname);
}
