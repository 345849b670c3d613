/**
 * The program of the embedded ClickHouse: `bun chdb_host.ts LIBCHDB PORT FOLDER [ADDRESS [CONFIG]]`.
 *
 * libchdb is called as `clickhouse local` and told to open its HTTP interface; then a query that
 * never ends keeps it there. The call never returns, which is why it has a process of its own.
 */
import { dlopen, FFIType, ptr } from "bun:ffi";
import process from "node:process";

const [library, port, folder, address = "127.0.0.1", config] = process.argv.slice(2);
const lib = dlopen(library!, {
  chdb_query_cmdline: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.ptr },
});
const args = [
  "clickhouse",
  "--multiquery",
  "--output-format=TabSeparated",
  `--http_port=${port}`,
  `--listen_host=${address}`,
  `--path=${folder}`,
  ...(config === undefined ? [] : [`--config-file=${config}`]),
  "--query=SYSTEM START LISTEN HTTP; SELECT sleepEachRow(3) FROM system.numbers " +
  "SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0, max_threads=1 FORMAT Null",
];
const strings = args.map((arg) => Buffer.from(`${arg}\0`));
const argv = new BigUint64Array(strings.map((string) => BigInt(ptr(string))));
lib.symbols.chdb_query_cmdline(args.length, ptr(argv));
