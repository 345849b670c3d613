/**
 * Questions about the stored events: asked of ClickHouse, a few at a time and each for a bounded time,
 * so that neither a client nor a slow ClickHouse can take from the collector what its writes need. One
 * whose client has gone is ended, here and in the server.
 *
 * Nothing is pasted into the SQL: names and values are bound by ClickHouse itself, so nothing that a
 * client sends can be read as SQL.
 */

import type { Ask, Asked, Clock, Queries, Question, Select } from "../contracts.ts";

/** Where the events are. */
export interface Source {
  readonly database: string;
  readonly table: string;
}

/** A question reads for so long at most, in the server as well. */
const READ_WITHIN_S = 10;
/** What an answer may be, as ClickHouse holds it in memory; its JSON is longer. */
const MOST_RESULT_BYTES = 4 * 1024 * 1024;
const MOST_MEMORY_BYTES = 1024 ** 3;
/** Event types that are counted one by one. */
const MOST_TYPES = 1000;

export interface QueriesOptions {
  readonly ask: Ask;
  /** Where the events are, asked at each question. */
  readonly source: () => Source;
  readonly clock: Clock;
}

/** Under way at a time; further ones are refused at once. */
export const MOST_QUESTIONS = 4;
/** The server gives up after `READ_WITHIN_S` by itself; it has this much longer to say so. */
const SPARE_MS = 1_000;

const MIB = 1024 ** 2;
const SLOW = `ClickHouse could not answer with ${READ_WITHIN_S} s and ${MOST_MEMORY_BYTES / MIB} ` +
  "MiB of memory; a shorter period (from, to) costs less";
const ODD = "clickhouse: what answered is not ClickHouse; look at clickhouse-url";
const LARGE = `the answer is larger than ${MOST_RESULT_BYTES / MIB} MiB; ` +
  "expected a smaller limit, or a shorter period (from, to)";

/** ClickHouse's codes for: too slow, too slow by its own estimate, memory, too many rows or bytes read. */
const SLOW_CODES: ReadonlySet<number> = new Set([159, 160, 241, 158, 307]);
/** Too many rows or bytes of result. */
const LARGE_CODE = 396;
/** No such table, no such database. */
const MISSING_CODES: ReadonlySet<number> = new Set([60, 81]);

export function createQueries(options: QueriesOptions): Queries & {
  /** Ends the questions under way. */
  close(): void;
} {
  const { ask, clock } = options;
  const closing = new AbortController();
  let underWay = 0;

  async function answerTo(
    source: Source,
    select: Select,
    signal: AbortSignal,
    answer: (text: string) => string | null,
  ): Promise<Asked> {
    if (underWay >= MOST_QUESTIONS) {
      const reason = `${MOST_QUESTIONS} questions are being answered, more are not taken at a time`;
      return { kind: "busy", reason };
    }
    underWay++;
    const end = new AbortController();
    const giveUp = () => end.abort();
    let late = false;
    const cancel = clock.after(READ_WITHIN_S * 1000 + SPARE_MS, () => {
      late = true;
      end.abort();
    });
    const ends = [signal, closing.signal];
    for (const other of ends) {
      if (other.aborted) end.abort();
      else other.addEventListener("abort", giveUp, { once: true });
    }
    try {
      const found = await ask(select, end.signal);
      if (found.ok) {
        const json = answer(found.value);
        return json === null ? { kind: "away", reason: ODD } : { kind: "answer", json };
      }
      if (late || SLOW_CODES.has(found.code)) return { kind: "slow", reason: SLOW };
      if (found.code === LARGE_CODE) return { kind: "large", reason: LARGE };
      const reason = closing.signal.aborted
        ? "the collector is stopping"
        : MISSING_CODES.has(found.code)
        ? `there is no table ${source.database}.${source.table}`
        : found.problem;
      return { kind: "away", reason: `clickhouse: ${reason}` };
    } finally {
      underWay--;
      cancel();
      for (const other of ends) other.removeEventListener("abort", giveUp);
    }
  }

  return {
    metrics(question, signal) {
      const source = options.source();
      return answerTo(source, selectMetrics(source, question), signal, (text) => {
        const metrics = metricsOf(text);
        if (metrics === null) return null;
        const { counts, users, more } = metrics;
        return `{"counts":${counts},"users":${users}${more},"period":${periodOf(question)}}\n`;
      });
    },
    events(question, signal) {
      const source = options.source();
      return answerTo(source, selectEvents(source, question), signal, (lines) => {
        // Each line is an event as it is to be shown; whatever it holds, it holds no line end.
        const events = lines.trimEnd();
        if (!/^(?:\{.*\}(?:\n|$))*$/.test(events)) return null;
        return `{"events":[${events.replaceAll("\n", ",\n")}],"period":${periodOf(question)}}\n`;
      });
    },
    close: () => closing.abort(),
  };
}

function periodOf({ fromMs, toMs }: { fromMs: number | null; toMs: number | null }): string {
  const [from, to] = [fromMs, toMs].map((ms) => ms === null ? null : new Date(ms).toISOString());
  return JSON.stringify({ from, to });
}

/** One line of counts; 64 bits come as strings, so that no digit is lost. */
interface Counted {
  readonly event_type: string;
  readonly events: string;
  readonly users: string;
}

/** Pieces of JSON, numbers as ClickHouse wrote them; null where it was not ClickHouse. */
function metricsOf(text: string): { counts: string; users: string; more: string } | null {
  let answer: { readonly data?: readonly Counted[]; readonly totals?: Counted };
  try {
    answer = JSON.parse(text) ?? {};
  } catch {
    return null;
  }
  const { data, totals } = answer;
  if (!Array.isArray(data)) return null;
  const counts = data.map(({ event_type, events }) => `${JSON.stringify(event_type)}:${events}`);
  const listed = data.reduce((sum, { events }) => sum + BigInt(events), 0n);
  const more = BigInt(totals?.events ?? 0) - listed;
  return {
    counts: `{${counts.join(",")}}`,
    users: totals?.users ?? "0",
    more: more > 0n ? `,"others":${more}` : "",
  };
}

/** What every question relies on, whatever the profile on the server says. */
const SETTINGS: Select["settings"] = {
  // Also lets the server end the query when the collector closes the connection.
  readonly: "1",
  cancel_http_readonly_queries_on_client_close: 1,
  max_execution_time: READ_WITHIN_S,
  timeout_overflow_mode: "throw",
  max_memory_usage: String(MOST_MEMORY_BYTES),
  max_result_bytes: String(MOST_RESULT_BYTES),
  result_overflow_mode: "throw",
  // The status is sent after the work: an error cannot follow a 200.
  wait_end_of_query: 1,
  output_format_json_quote_64bit_integers: 1,
  date_time_output_format: "iso",
};

/** How many events of which type and of how many users; in `totals` those of all types together. */
function selectMetrics(source: Source, question: Question): Select {
  const { where, params } = conditions(question);
  return {
    sql: `SELECT event_type, count() AS events, uniqExactIf(user_id, user_id != '') AS users
FROM {database:Identifier}.{table:Identifier}${where}
GROUP BY event_type WITH TOTALS
ORDER BY events DESC, event_type
LIMIT {limit:UInt32}`,
    format: "JSON",
    params: { ...source, ...params, limit: MOST_TYPES },
    settings: SETTINGS,
  };
}

/** One line of JSON an event, the newest first. */
export function selectEvents(
  source: Source,
  { limit, ...question }: Question & { readonly limit: number },
): Select {
  const { where, params } = conditions(question);
  return {
    sql: `SELECT id, timestamp, event_type AS eventType, user_id AS userId, properties
FROM {database:Identifier}.{table:Identifier}${where}
ORDER BY timestamp DESC, id DESC
LIMIT {limit:UInt32}`,
    format: "JSONEachRow",
    params: { ...source, ...params, limit },
    settings: SETTINGS,
  };
}

function conditions({ eventType, id, fromMs, toMs }: Question) {
  const params: Record<string, string | number> = {};
  const all: string[] = [];
  const add = (name: string, value: string | number | null, condition: string) => {
    if (value === null) return;
    params[name] = value;
    all.push(condition);
  };
  add("from", fromMs, "timestamp >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')");
  add("to", toMs, "timestamp < fromUnixTimestamp64Milli({to:Int64}, 'UTC')");
  add("eventType", eventType, "event_type = {eventType:String}");
  add("id", id, "id = {id:UUID}");
  return { where: all.length === 0 ? "" : `\nWHERE ${all.join(" AND ")}`, params };
}
