/**
 * The SQL of the questions. Nothing is pasted into it: names and values are bound by ClickHouse itself,
 * so nothing that a client sends can be read as SQL. Pure.
 */

import type { Question, Select } from "../contracts.ts";

/** Where the events are. */
export interface Source {
  readonly database: string;
  readonly table: string;
}

/** A question reads for so long at most, in the server as well. */
export const READ_WITHIN_S = 10;
/** What an answer may be, as ClickHouse holds it in memory; its JSON is longer. */
export const MOST_RESULT_BYTES = 4 * 1024 * 1024;
export const MOST_MEMORY_BYTES = 1024 ** 3;
/** Event types that are counted one by one. */
export const MOST_TYPES = 1000;

/** What every question relies on, whatever the profile on the server says. */
const SETTINGS: Select["settings"] = {
  // Also lets the server end the query when we close the connection.
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
export function selectMetrics(source: Source, question: Question): Select {
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
