/**
 * A profile may turn any setting. Each of these is turned, a few at a time, while two answers are lost: rows,
 * view, dead letters and the answers of the API are what they are without it.
 * Runs once: what a profile does is the affair of ClickHouse alone.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Batch } from "../../src/contracts.ts";
import { createQueries } from "../../src/deliver/questions.ts";
import { oneClickHouse } from "../kit/one_clickhouse.ts";
import { adding, batchOf, deliverTo, losing, never, realClock } from "./kit.ts";

/** As a query string; several at once are one case. */
const TURNED = `
  deduplicate_insert=disable deduplicate_insert=backward_compatible_choice
  deduplicate_insert_select=disable deduplicate_insert_select=force_enable
  deduplicate_insert_select=enable_when_possible insert_deduplicate=0
  deduplicate_blocks_in_dependent_materialized_views=0 materialized_views_ignore_errors=1
  ignore_materialized_views_with_dropped_target_table=1 parallel_view_processing=1
  use_strict_insert_block_limits=1 max_insert_block_size=7 max_insert_block_size_rows=7
  max_insert_block_size_bytes=100 min_insert_block_size_rows=5 min_insert_block_size_bytes=100
  min_insert_block_size_rows_for_materialized_views=3 min_insert_block_size_bytes_for_materialized_views=3
  max_insert_threads=4 max_threads=1 max_block_size=1 max_block_size=3 preferred_block_size_bytes=1
  async_insert=1 wait_for_async_insert=0 async_insert_deduplicate=0 insert_distributed_sync=0
  insert_null_as_default=0 insert_allow_materialized_columns=1 optimize_on_insert=0
  throw_on_max_partitions_per_insert_block=0 insert_shard_id=1 input_format_parallel_parsing=0
  min_chunk_bytes_for_parallel_parsing=1 input_format_allow_errors_num=10 input_format_allow_errors_ratio=0.5
  input_format_skip_unknown_fields=1 input_format_null_as_default=0
  input_format_column_name_matching_mode=ignore_case input_format_column_name_matching_mode=auto
  input_format_defaults_for_omitted_fields=0 input_format_force_null_for_omitted_fields=1
  input_format_connection_handling=1 input_format_max_block_wait_ms=1 input_format_with_names_use_header=0
  input_format_import_nested_json=1 input_format_json_named_tuples_as_objects=0
  input_format_json_defaults_for_missing_elements_in_named_tuple=0
  input_format_json_ignore_unknown_keys_in_named_tuple=1 input_format_json_empty_as_default=1
  input_format_json_map_as_array_of_tuples=1 input_format_json_read_numbers_as_strings=0
  input_format_json_read_bools_as_strings=0 input_format_json_read_bools_as_numbers=0
  input_format_json_read_objects_as_strings=0 input_format_json_read_arrays_as_strings=0
  input_format_json_ignore_unnecessary_fields=0 input_format_json_throw_on_bad_escape_sequence=0
  input_format_json_max_depth=1 input_format_json_try_infer_numbers_from_strings=1
  input_format_json_use_string_type_for_ambiguous_paths_in_named_tuples_inference_from_objects=1
  input_format_json_infer_incomplete_types_as_strings=0 input_format_json_validate_types_from_metadata=0
  input_format_json_compact_allow_variable_number_of_columns=1 input_format_try_infer_dates=0
  input_format_read_datetime_number_as_raw_value=0 date_time_input_format=basic
  date_time_input_format=best_effort_us date_time_output_format=unix_timestamp
  date_time_overflow_behavior=throw session_timezone=Asia/Tokyo cast_keep_nullable=1
  cast_ipv4_ipv6_default_on_conversion_error=1 data_type_default_nullable=1 default_table_engine=Memory
  allow_suspicious_low_cardinality_types=0 transform_null_in=1 join_use_nulls=1 aggregate_functions_null_for_empty=1
  limit=5 limit=1 offset=5 offset=1 additional_result_filter=0 additional_table_filters={'t':'id<3'}
  use_query_cache=1 query_cache_ttl=600 implicit_transaction=1 make_distributed_plan=1
  inject_random_order_for_select_without_order_by=1 max_parser_depth=1 max_parser_backtracks=1
  timeout_overflow_mode=break&max_execution_time=60 read_overflow_mode=break&max_rows_to_read=1000
  result_overflow_mode=break&max_result_rows=1000 group_by_overflow_mode=any&max_rows_to_group_by=1000
  set_overflow_mode=break distinct_overflow_mode=break join_overflow_mode=break sort_overflow_mode=break
  transfer_overflow_mode=break http_write_exception_in_output_format=1 send_progress_in_http_headers=1
  enable_http_compression=1 extremes=1 final=1 prefer_column_name_to_alias=1 enable_positional_arguments=0
  output_format_json_array_of_rows=1 output_format_json_map_as_array_of_tuples=1
  output_format_json_named_tuples_as_objects=0 output_format_json_escape_forward_slashes=0
  output_format_json_quote_64bit_integers=0 output_format_json_quote_decimals=1
  output_format_json_validate_utf8=1 output_format_json_skip_null_value_in_named_tuples=1
  output_format_write_statistics=0 format_display_secrets_in_show_and_select=1 totals_mode=before_having
  enable_analyzer=0 enable_optimize_predicate_expression=0 optimize_read_in_order=0 enable_lazy_columns_replication=1
  compile_expressions=0 short_circuit_function_evaluation=disable allow_experimental_json_type=0
  low_cardinality_allow_in_native_format=0 union_default_mode=DISTINCT compatibility=21.8
  compatibility=22.8 compatibility=23.8 compatibility=24.8 compatibility=25.3 compatibility=25.8`
  .trim().split(/\s+/);

/** Turned at a time, from all over the list, so that no two are of one kind. */
const TOGETHER = 8;
const DATABASES_AT_ONCE = 8;
const id = (n: number) => `0192f0c1-0000-7000-8000-${String(n).padStart(12, "0")}`;

const KINDS = [
  "",
  ',"n":null,"d":null,"s":null',
  ',"s":{"a":[1,2]},"m":{"k":"v","l":"w"}',
  ',"s":true',
  ',"s":12345678901234567890',
  ',"tup":{"x":1,"y":"q"},"a":[1,null,3]',
  ',"ts":"2025-11-29T07:06:40.123Z","dt":"2025-11-29T07:06:40Z","f":1.5',
  ',"n":"-7","lc":"x"',
  ',"s":[1,"a",{"b":2}]',
  ',"s":"","lc":"","m":{},"a":[]',
  ',"ts":"2025-11-29 07:06:40.123","dt":"2025-11-29 07:06:40","s":"\\u00e9","z":"2025-11-29 07:06:40"',
  ',"tup":{"y":"q"},"f":0.1',
];
const ROWS = [
  ...Array.from({ length: 24 }, (_, row) => `{"id":${row}${KINDS[row % KINDS.length]}}`),
  '{"id":24,"n":"x"}',
  '{"id":25,"unknown":1}',
  '{"id":26,"tup":{"x":1,"unknown":1}}',
];
const EVENTS = Array.from(
  { length: 20 },
  (_, row) =>
    `{"id":"${row === 9 ? "none" : id(row)}","timestamp":"2025-11-29T07:06:4${
      row % 10
    }.123Z","eventType":"${row % 2 ? "a" : "b"}","userId":"u${
      row % 3
    }","properties":{"n":${row},"o":{"x":[1]},"b":true,"z":null}}`,
);

describe("settings of a profile", () => {
  const server = oneClickHouse();
  let databases = 0;

  /** All that there is to see afterwards. */
  async function deliverUnder(settings: Readonly<Record<string, string>>) {
    const db = `sweep${databases++}`;
    const make = (sql: string) => server.query(sql.replaceAll("DB", db));
    const window =
      "ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000";
    await make("CREATE DATABASE DB");
    await make(
      "CREATE TABLE DB.t (id UInt32, n Nullable(Int32), d UInt32 DEFAULT id + 1, s String, m Map(String, String)," +
        " tup Tuple(x UInt8, y String), a Array(Nullable(UInt32)), lc LowCardinality(String)," +
        ` ts DateTime64(3, 'UTC'), dt DateTime('UTC'), z DateTime, f Float64) ${window}`,
    );
    await make(`CREATE TABLE DB.copy (id UInt32, s String) ${window}`);
    await make("CREATE MATERIALIZED VIEW DB.v TO DB.copy AS SELECT id, s FROM DB.t");
    const network = () => ({ fetch: losing(2, adding(settings)), compress: "none" as const });
    const rooms = [
      deliverTo([`${server.url}/${db}`], network()),
      deliverTo([`${server.url}/${db}`], network()),
    ];
    const dead: unknown[] = [];
    const deliver = async (room: number, batch: Batch) => {
      for (let time = 0; time < 6; time++) {
        const delivery = await rooms[room]!.sink.deliver(batch, never);
        if (delivery.kind === "transient") continue;
        return dead.push(
          delivery.kind === "settled" ? delivery.dead.map(({ index }) => index) : delivery,
        );
      }
      dead.push("never");
    };
    await deliver(0, batchOf(ROWS, { table: "t", id: id(1) }));
    const events = { table: "analytics_events", shape: "event" as const, id: id(2) };
    await rooms[1]!.prepare();
    await deliver(1, batchOf(EVENTS, events));
    const questions = createQueries({
      ask: rooms[1]!.ask,
      source: () => ({ database: db, table: "analytics_events" }),
      clock: realClock,
    });
    const asked = { eventType: null, id: null, fromMs: null, toMs: null };
    const fromMs = Date.parse("2025-11-29T07:06:41.123Z");
    const columns = await rooms[0]!.tables.refresh("t");
    const seen = {
      dead,
      metrics: await questions.metrics(asked, never),
      events: await questions.events({ ...asked, eventType: "a", fromMs, limit: 3 }, never),
      columns: typeof columns === "string" ? columns : [...columns.names],
      rows: await make("SELECT * FROM DB.t ORDER BY id FORMAT JSONEachRow"),
      view: await make("SELECT * FROM DB.copy ORDER BY id FORMAT JSONEachRow"),
      stored: await make("SELECT * FROM DB.analytics_events ORDER BY id FORMAT JSONEachRow"),
    };
    await Promise.all(rooms.map((room) => room.close()));
    await make("DROP DATABASE DB");
    return seen;
  }

  test(`${TURNED.length} of them change nothing`, { timeout: 170_000 }, async () => {
    const plain = await deliverUnder({});
    assert.deepEqual(plain.dead, [[24, 25, 26], [9]]);
    const known = new Set((await server.query("SELECT name FROM system.settings")).split("\n"));
    const all = TURNED.map((turned) => Object.fromEntries(new URLSearchParams(turned)))
      .filter((turned) => Object.keys(turned).every((name) => known.has(name)));
    assert.ok(all.length > 120, `this ClickHouse knows ${all.length} of them`);
    const step = Math.ceil(all.length / TOGETHER);
    const groups = all.slice(0, step).map((_, at) => all.filter((_, n) => n % step === at));
    for (const group of groups) {
      const names = group.flatMap(Object.keys);
      assert.equal(new Set(names).size, names.length, `one of ${names} twice: they are one value`);
    }
    const changed: string[] = [];
    const worker = async () => {
      for (let group = groups.shift(); group !== undefined; group = groups.shift()) {
        const turned = Object.assign({}, ...group);
        try {
          assert.deepEqual(await deliverUnder(turned), plain);
        } catch (error) {
          const named = new URLSearchParams(turned);
          changed.push(`${named}: ${(error as Error).message.slice(0, 600)}`);
        }
      }
    };
    await Promise.all(Array.from({ length: DATABASES_AT_ONCE }, worker));
    assert.deepEqual(changed, []);
  });
});
