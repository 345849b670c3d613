/**
 * Settings of ClickHouse that the collector's own work relies on, and the values that they travel with: data
 * of its statements, and names that are not to be set otherwise. What one server makes of them: `deliver/pins.ts`.
 */

export type Settings = Readonly<Record<string, string>>;

/** Its value is the batch's id, or made of it. */
export const TOKEN = "insert_deduplication_token";

/** Whatever is asked or told: nothing is cut, filtered, remembered or done as a part of something else. */
export const EVERY_STATEMENT: Settings = {
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
export const HTTP_PARAMETERS: Settings = { wait_end_of_query: "1" };

/** Other parameters of a request, and settings that set others. */
const OF_REQUESTS =
  /^(?:query|database|user|password|quota_key|role|profile|compress|decompress|default_format|session_id|session_timeout|session_check|query_id|stacktrace|buffer_size|param_.*)$/;

/** Whether a setting is the collector's own, for an INSERT. */
export function isPinned(name: string): boolean {
  return name === TOKEN || name in INSERT_SETTINGS || name in HTTP_PARAMETERS ||
    OF_REQUESTS.test(name);
}
