/**
 * The settings that travel with every INSERT and every question, and what one server makes of them.
 *
 * A profile, another version's default or a proxy can turn nearly all that a row's fate hangs on: how a
 * value is read, whether a retry is stored twice, whether a view's failure is told. So whatever is relied on
 * is pinned. Before its first INSERT a server is asked which of these settings it knows (18.16: few) and
 * with what value they arrive; one that a profile keeps at another value, or that a proxy drops, makes
 * that server trouble instead of storing something else without a word.
 */

import type { Clock, Endpoint, Trouble } from "../contracts.ts";
import type { Post } from "../kernel/http.ts";
import { exceptionOf, isClickHouse, messageOf, settingOf } from "./verdict.ts";

export type Settings = Readonly<Record<string, string>>;

export const TOKEN = "insert_deduplication_token";

/** Whatever is asked or told: nothing is cut, filtered, remembered or done as a part of something else. */
const EVERY_STATEMENT: Settings = {
  // First: it sets others, and those that are named after it stay as they are named.
  compatibility: "",
  limit: "0",
  offset: "0",
  additional_result_filter: "",
  additional_table_filters: "{}",
  use_query_cache: "0",
  implicit_transaction: "0",
  // A limit of the profile ends a statement with an error, never with a part of it.
  timeout_overflow_mode: "throw",
  read_overflow_mode: "throw",
  result_overflow_mode: "throw",
  group_by_overflow_mode: "throw",
  sort_overflow_mode: "throw",
  set_overflow_mode: "throw",
  transfer_overflow_mode: "throw",
  // Depth of SQL, and of nested types.
  max_parser_depth: "1000",
  max_parser_backtracks: "1000000",
  // Events have their zone in their type; what brings none is meant in the column's or the server's.
  session_timezone: "",
  // A type is what it says.
  data_type_default_nullable: "0",
  make_distributed_plan: "0",
  inject_random_order_for_select_without_order_by: "0",
  http_write_exception_in_output_format: "0",
};

/** How rows are read. An INSERT and the sieve must agree on these, or the sieve would lie. */
export const READ_SETTINGS: Settings = {
  ...EVERY_STATEMENT,
  // ISO 8601 with zone and fraction, and epoch numbers, wherever a column is a time.
  date_time_input_format: "best_effort",
  // 26.8 reads a bare number for a DateTime64 as seconds; before it, as ticks of the column.
  input_format_read_datetime_number_as_raw_value: "1",
  // A key that is no column is an error of its row instead of data that vanishes.
  input_format_skip_unknown_fields: "0",
  input_format_json_ignore_unknown_keys_in_named_tuple: "0",
  input_format_json_ignore_unnecessary_fields: "1",
  input_format_column_name_matching_mode: "match_case",
  input_format_import_nested_json: "0",
  // A value of another JSON type becomes the text of itself in a String column.
  input_format_json_read_numbers_as_strings: "1",
  input_format_json_read_bools_as_strings: "1",
  input_format_json_read_bools_as_numbers: "1",
  input_format_json_read_objects_as_strings: "1",
  input_format_json_read_arrays_as_strings: "1",
  // A Map and a named Tuple are JSON objects; keys that a Tuple lacks are its defaults.
  input_format_json_map_as_array_of_tuples: "0",
  input_format_json_named_tuples_as_objects: "1",
  input_format_json_defaults_for_missing_elements_in_named_tuple: "1",
  input_format_json_throw_on_bad_escape_sequence: "1",
  input_format_json_max_depth: "1000",
  // null and an absent key mean the column's default; an empty text is an empty text.
  input_format_null_as_default: "1",
  input_format_defaults_for_omitted_fields: "1",
  input_format_force_null_for_omitted_fields: "0",
  input_format_json_empty_as_default: "0",
};

/** What every INSERT relies on, whatever the server's or the user's profile says. */
export const INSERT_SETTINGS: Settings = {
  ...READ_SETTINGS,
  // On by default since 26.3; it would answer for a queue whose batches are merged with others'.
  async_insert: "0",
  wait_for_async_insert: "1",
  // A retry stores nothing twice, neither in the table nor in its views; events go through a SELECT.
  insert_deduplicate: "1",
  deduplicate_insert: "enable",
  deduplicate_insert_select: "enable_even_for_bad_queries",
  deduplicate_blocks_in_dependent_materialized_views: "1",
  // What a view cannot digest is told, not dropped; views come one after the other.
  materialized_views_ignore_errors: "0",
  ignore_materialized_views_with_dropped_target_table: "0",
  parallel_view_processing: "0",
  // An answer means that the shards have the rows. The second is the name before 23.
  distributed_foreground_insert: "1",
  insert_distributed_sync: "1",
  // A bad row must cost an INSERT as a whole; isolation depends on it.
  input_format_allow_errors_num: "0",
  input_format_allow_errors_ratio: "0",
  min_chunk_bytes_for_parallel_parsing: "10485760",
  input_format_connection_handling: "0",
  input_format_max_block_wait_ms: "0",
  // One block an INSERT, so that it is stored as a whole or not at all, and "row N" counts from its
  // first row. 0 bytes = rows alone decide.
  min_insert_block_size_rows: "1000000000",
  min_insert_block_size_bytes: "0",
  use_strict_insert_block_limits: "0",
  max_insert_threads: "1",
  insert_null_as_default: "1",
};

/** What a question relies on. */
export const ASK_SETTINGS: Settings = {
  ...EVERY_STATEMENT,
  output_format_json_array_of_rows: "0",
  output_format_json_map_as_array_of_tuples: "0",
  output_format_json_named_tuples_as_objects: "1",
  output_format_json_escape_forward_slashes: "0",
  extremes: "0",
  final: "0",
};

/** Parameters of the HTTP interface, which no list of settings names. */
const HTTP_PARAMETERS: Settings = { wait_end_of_query: "1" };

const TIMEOUT_MS = 5_000;
const MOST_BYTES = 4 * 1024 * 1024;
/** After so long a server is looked at again: its profile, or what stands before it, may have changed. */
const VALID_MS = 60_000;
/** A server that could not be asked is asked again after this. */
const UNKNOWN_MS = 5_000;
/** A question that meets a setting which the server does not know is asked again without it. */
const MOST_TRIES = 32;

/** What one server makes of the pinned settings. */
export interface Pins {
  /** Of what is pinned, what this server does not know. */
  readonly unknown: ReadonlySet<string>;
  /** Puts the settings that this server knows into a request's address. */
  write(url: URL, settings: Settings): void;
  /** What keeps an INSERT's settings from arriving; null: nothing, or it cannot be found out now. */
  check(signal?: AbortSignal): Promise<Trouble | null> | null;
  /** The server refused a setting (115, 452): it is left out, and all are looked at again. */
  refused(code: number, setting: string): void;
}

export function createPins(
  tools: { readonly endpoint: Endpoint; readonly post: Post; readonly clock: Clock },
): Pins {
  const { endpoint, post, clock } = tools;
  const unknown = new Set<string>();
  let trouble: Trouble | null = null;
  let validMs = -Infinity;
  let checking: Promise<Trouble | null> | null = null;

  /** At once: an address is written anew for each name that its own `searchParams` get, up to 7 ms for all. */
  const write = (url: URL, settings: Settings) => {
    const parameters = new Map(url.searchParams);
    for (const [name, value] of Object.entries(settings)) {
      if (!unknown.has(name)) parameters.set(name, value);
    }
    let text = "";
    for (const [name, value] of parameters) {
      text += `&${encodeURIComponent(name)}=${encodeURIComponent(value)}`;
    }
    url.search = text.slice(1);
  };

  /** Names and values of settings as a statement with `settings` meets them; why not, or null. */
  async function ask(
    settings: Settings,
    signal?: AbortSignal,
  ): Promise<ReadonlyMap<string, string> | Trouble | null> {
    for (let left = MOST_TRIES; left > 0; left--) {
      const url = new URL(endpoint.url);
      write(url, settings);
      const answered = await post({
        method: "POST",
        url: url.href,
        headers: credentials(endpoint),
        body: "SELECT name, value FROM system.settings FORMAT TabSeparated",
        timeoutMs: TIMEOUT_MS,
        maxAnswerBytes: MOST_BYTES,
        signal,
      });
      if (!answered.ok || answered.value.cut) return null;
      const exception = exceptionOf(answered.value);
      if (exception !== null) {
        const setting = settingOf(exception);
        if (exception.code === 452 && setting !== null) {
          return { code: 452, message: messageOf(exception.text) };
        }
        const carried = setting !== null && url.searchParams.has(setting);
        if (exception.code !== 115 || !carried) return null;
        unknown.add(setting);
        continue;
      }
      if (answered.value.status !== 200 || !isClickHouse(answered.value)) return null;
      const text = new TextDecoder().decode(answered.value.body);
      const found = new Map<string, string>();
      for (const line of text.split("\n")) {
        const tab = line.indexOf("\t");
        if (tab > 0) found.set(line.slice(0, tab), line.slice(tab + 1));
      }
      return found;
    }
    return null;
  }

  async function look(signal?: AbortSignal): Promise<Trouble | null> {
    validMs = clock.monotonicMs() + UNKNOWN_MS;
    const before = await ask(EVERY_STATEMENT, signal);
    if (before === null || !(before instanceof Map)) return asTrouble(before);
    // A list that is cut says nothing of what is not in it.
    if (!before.has("max_threads")) return null;
    for (const name of [...Object.keys(INSERT_SETTINGS), ...Object.keys(ASK_SETTINGS), TOKEN]) {
      if (before.has(name)) unknown.delete(name);
      else unknown.add(name);
    }
    const sent = { ...INSERT_SETTINGS, [TOKEN]: "shishi-check" };
    const after = await ask(sent, signal);
    if (after === null || !(after instanceof Map)) return asTrouble(after);
    validMs = clock.monotonicMs() + VALID_MS;
    const lost = Object.entries(sent).filter(([name, value]) =>
      !unknown.has(name) && after.get(name) !== value
    );
    if (lost.length === 0) return null;
    const [name, value] = lost[0]!;
    const more = lost.length > 1 ? ` (and ${lost.length - 1} more)` : "";
    return {
      code: 0,
      message:
        `settings do not arrive: ${name} is ${
          JSON.stringify(after.get(name) ?? "")
        } there, sent as ${
          JSON.stringify(value)
        }${more}; a proxy before ClickHouse must pass on all ` +
        "parameters of a request",
    };
  }

  function asTrouble(found: unknown): Trouble | null {
    if (found === null || typeof found !== "object" || !("code" in found)) return null;
    const { message } = found as Trouble;
    return {
      code: 452,
      message: `the profile of this user forbids a setting that rows rely on: ${message}`,
    };
  }

  return {
    unknown,
    write: (url, settings) => write(url, { ...settings, ...HTTP_PARAMETERS }),
    check(signal) {
      if (trouble === null && clock.monotonicMs() < validMs) return null;
      const known = trouble === null && validMs !== -Infinity;
      checking ??= look(signal).then((found) => trouble = found).finally(() => checking = null);
      // Beside what goes on well: no INSERT waits for a look that is taken once more.
      return known ? null : checking;
    },
    refused(code, setting) {
      if (code === 115) unknown.add(setting);
      validMs = -Infinity;
    },
  };
}

/** What every request to this endpoint carries; nothing where no user is named. */
export function credentials(endpoint: Endpoint): Record<string, string> {
  if (endpoint.user === "" && endpoint.password === "") return {};
  return {
    "X-ClickHouse-User": headerSafe(endpoint.user || "default"),
    "X-ClickHouse-Key": headerSafe(endpoint.password),
  };
}

/** Header values are bytes: the UTF-8 of a secret is sent as it is, one byte a character. */
function headerSafe(value: string): string {
  let bytes = "";
  for (const byte of new TextEncoder().encode(value)) bytes += String.fromCharCode(byte);
  return bytes;
}
