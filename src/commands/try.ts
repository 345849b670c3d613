/**
 * `shishi try FILE --table T`: what would become of these rows. Asks ClickHouse for the table and, for what
 * it has not got, for types; decodes the rows as a collector would; and changes nothing anywhere.
 */

import { open } from "node:fs/promises";
import { type Decoded, DecodeQueue, type Target } from "../admit/decode.ts";
import {
  type Columns,
  type Log,
  REST,
  type TableProposal,
  type UnknownKeys,
} from "../contracts.ts";
import { createDeliver, type Deliver } from "../deliver/deliver.ts";
import { nodeZlib } from "../kernel/builtins.ts";
import { lineOf } from "../kernel/errors.ts";
import { compileGlobs } from "../kernel/names.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";
import { systemClock } from "../runtime/clock.ts";
import { authorities } from "../runtime/authorities.ts";
import { createFetch } from "../runtime/fetch.ts";
import { tableName } from "../settings/kinds.ts";
import type { SettingName, Settings } from "../settings/settings.ts";
import { section, setting } from "../settings/spec.ts";
import { type CliCommand, operandOf, settingsOrExitCode, tellProblems } from "./cli.ts";
import { formatOf } from "./rows_file.ts";

const SETTINGS: readonly SettingName[] = [
  "clickhouse-url",
  "clickhouse-headers",
  "ca-file",
  "create-tables",
  "unknown-keys",
  "max-new-columns",
  "cluster",
  "type-check",
];

const FLAGS = section("Flags", [
  setting({
    name: "table",
    kind: tableName,
    default: null,
    meaning: "the table that the rows are for; needed",
  }),
]);

const ABOUT =
  "Says what would become of the rows of a file (NDJSON, JSON, CSV or TSV, plain or gzip; the first 64MiB): the " +
  "columns, their types and some values of each, the statement that would make the table or add columns, and the " +
  "rows that would be refused, with the reason. Changes nothing.\n" +
  "Exit code 0 when every row would be taken, 1 otherwise, 2 for unusable flags.";

export const tryRows: CliCommand = {
  name: "try",
  summary: "what would become of the rows of a file; changes nothing",
  page: { usage: "shishi try FILE --table TABLE", about: ABOUT, only: SETTINGS, extra: FLAGS },
  async run(argv) {
    const { operand: path, rest } = operandOf(argv, FLAGS);
    const loaded = settingsOrExitCode(rest, { command: "try", only: SETTINGS, extra: FLAGS });
    if (typeof loaded === "number") return loaded;
    const { settings, extra: { table } } = loaded;
    if (path === null || table === null) {
      const problem = path === null
        ? "expected a file"
        : "--table is needed, the table of the rows";
      tellProblems([`try: ${problem}`], "try");
      return 2;
    }
    const read = await bytesOf(path);
    if (!read.ok) return fail(`${path}: ${read.problem}`);
    const deliver = connect(settings);
    try {
      return await new Trial(deliver, settings, table, path).run(read.value);
    } finally {
      await deliver.close();
    }
  },
};

const MOST_BYTES = 64 * 1024 * 1024;
const LOOK_UP_MS = 10_000;
const VALUES = 3;
/** Rows that are looked through for values. */
const VALUES_OF_BYTES = 1024 * 1024;

function fail(problem: string): number {
  console.error(`shishi: ${problem}`);
  return 1;
}

/** The beginning of a file, unpacked. */
async function bytesOf(path: string): Promise<Result<Uint8Array>> {
  try {
    const file = await open(path);
    try {
      const room = new Uint8Array(Math.min((await file.stat()).size, MOST_BYTES));
      let at = 0;
      for (let read = 1; read > 0 && at < room.length; at += read) {
        ({ bytesRead: read } = await file.read(room, at, room.length - at));
      }
      const bytes = room.subarray(0, at);
      const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
      return done(packed ? nodeZlib().gunzipSync(bytes, { maxOutputLength: MOST_BYTES }) : bytes);
    } finally {
      await file.close();
    }
  } catch (error) {
    return failed(lineOf(error));
  }
}

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };

function connect(settings: Settings): Deliver {
  const { clickhouse, insertTimeoutMs, createTables, unknownKeys, maxNewColumns, cluster } =
    settings;
  return createDeliver({
    endpoints: clickhouse,
    eventsTable: "",
    createTable: false,
    insertTimeoutMs,
    compress: "none",
    insertSettings: [],
    createTables,
    unknownKeys,
    maxNewColumns,
    cluster,
  }, {
    fetch: createFetch({ pooled: false, certificates: () => authorities(settings.authorities) }),
    clock: systemClock,
    log: silent,
  });
}

class Trial {
  readonly #deliver: Deliver;
  readonly #settings: Settings;
  readonly #table: string;
  readonly #csv: Target["csv"];
  readonly #queue = new DecodeQueue(async () => (await import("../admit/csv.ts")).decodeCsv);

  constructor(deliver: Deliver, settings: Settings, table: string, path: string) {
    this.#deliver = deliver;
    this.#settings = settings;
    this.#table = table;
    const format = formatOf(path);
    this.#csv = format === "ndjson"
      ? undefined
      : { delimiter: format === "csv" ? "," : "\t", maxBytes: 8 * MOST_BYTES };
  }

  async run(bytes: Uint8Array): Promise<number> {
    const table = this.#table;
    const known = await this.#deliver.tables.lookUp(table, LOOK_UP_MS);
    if (known === "unknown") return fail("ClickHouse cannot be asked: see shishi check");
    const columns = known === "missing" ? null : known;
    const loose = await this.#decode(bytes, { columns: null, makes: true });
    if (loose.kind === "refused") return fail(loose.error);
    const rows = loose.body.slice();
    const policy = this.#deliver.maker.unknownKeys(table);
    const lacking = columns === null ? null : lackingOf(columns, rows, policy);
    const asks = lacking === null || lacking.size > 0;
    const proposed = asks ? await this.#deliver.maker.propose(table, lacking, rows) : null;
    if (columns === null && !proposed!.ok) return fail(proposed!.problem);
    const proposal = proposed?.ok === true ? proposed.value : null;
    console.log(this.#head(columns, proposal));
    showColumns(columns, proposal, rows);
    if (proposal !== null) console.log(`\n${proposal.ddl}`);
    if (proposed?.ok === false) console.log(`\n${proposed.problem}`);
    return await this.#tell(bytes, columnsWith(columns, proposal), policy);
  }

  #head(columns: Columns | null, proposal: TableProposal | null): string {
    const table = this.#table;
    if (columns !== null) {
      const count = proposal?.columns.length ?? 0;
      const more = count === 0
        ? ""
        : `, and would get ${count} ${count === 1 ? "column" : "columns"}`;
      return `${table} is there${more}`;
    }
    return compileGlobs(this.#settings.createTables)(table)
      ? `${table} is not there; its first rows would make it`
      : `${table} is not there, and create-tables does not name it; with it, its first rows would make it`;
  }

  async #tell(
    bytes: Uint8Array,
    columns: Columns,
    policy: NonNullable<Target["unknownKeys"]>["policy"],
  ): Promise<number> {
    const typeCheck = this.#settings.typeCheck === "strict";
    const unknownKeys = { policy: policy === "column" ? "error" as const : policy };
    const decoded = await this.#decode(bytes, { columns, typeCheck, unknownKeys });
    if (decoded.kind === "refused") return fail(decoded.error);
    const { rows, rejected, errors } = decoded;
    console.log(`\n${rows} rows would be taken, ${rejected} refused${rejected > 0 ? ":" : ""}`);
    for (const { index, error } of errors) console.log(`row ${index + 1}: ${error}`);
    if (rejected > errors.length) console.log(`and ${rejected - errors.length} more`);
    return rejected === 0 ? 0 : 1;
  }

  async #decode(bytes: Uint8Array, target: Partial<Target>): Promise<Decoded> {
    const csv = this.#csv === undefined ? {} : { csv: this.#csv };
    const whole: Target = { table: this.#table, shape: "row", columns: null, ...csv, ...target };
    return await this.#queue.decode(bytes, whole, systemClock.nowMs());
  }
}

function linesOf(rows: Uint8Array): Record<string, unknown>[] {
  const end = rows.lastIndexOf(10, VALUES_OF_BYTES) + 1;
  const text = new TextDecoder().decode(rows.subarray(0, end > 0 ? end : rows.length));
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
}

function keysOf(rows: Uint8Array): Set<string> {
  return new Set(linesOf(rows).flatMap((row) => Object.keys(row)));
}

/** The columns that the table lacks and would be given. */
function lackingOf(columns: Columns, rows: Uint8Array, policy: UnknownKeys): Set<string> {
  const unknown = [...keysOf(rows)].filter((key) =>
    !columns.names.has(key) && !columns.closed.has(key)
  );
  if (policy === "column") return new Set(unknown);
  return new Set(policy === "keep" && unknown.length > 0 && !columns.names.has(REST) ? [REST] : []);
}

function columnsWith(known: Columns | null, proposal: TableProposal | null): Columns {
  const added = (proposal?.columns ?? []).map(({ name, type }) => ({
    name,
    type,
    defaultKind: name === proposal?.time ? "DEFAULT" as const : "" as const,
  }));
  const columns = [...known?.columns ?? [], ...added];
  const names = new Set([...known?.names ?? [], ...added.map(({ name }) => name)]);
  const none = { closed: new Map(), takesNone: null };
  return { ...(known ?? none), columns, names, fingerprint: "" };
}

/** A column a line: its type, and the first values of it. */
function showColumns(
  known: Columns | null,
  proposal: TableProposal | null,
  rows: Uint8Array,
): void {
  const lines = linesOf(rows);
  const types = new Map((known?.columns ?? []).map(({ name, type }) => [name, type]));
  for (const { name, type } of proposal?.columns ?? []) {
    types.set(name, known === null ? type : `${type}, new`);
  }
  const table = [...new Set([...keysOf(rows), ...types.keys()])].map((name) => {
    const values = new Set<string>();
    for (const row of lines) {
      if (values.size >= VALUES) break;
      if (Object.hasOwn(row, name) && row[name] !== null) {
        values.add(excerpt(JSON.stringify(row[name])));
      }
    }
    return [printed(name), types.get(name) ?? "no column", [...values].join(", ")];
  });
  const widths = [0, 1].map((at) => Math.min(40, Math.max(...table.map((row) => row[at]!.length))));
  for (const [name, type, values] of table) {
    console.log(`  ${name!.padEnd(widths[0]!)}  ${type!.padEnd(widths[1]!)}  ${values}`.trimEnd());
  }
}

/** For a terminal: a key may be anything. */
function printed(name: string): string {
  return excerpt(name).replace(/\p{Cc}/gu, "?");
}
