/**
 * `shishi try FILE --table T`: what would become of these rows. Asks ClickHouse for the table and, for what
 * it has not got, for types; decodes the rows as a collector would; and changes nothing anywhere.
 * With `--source URL` the file is one message of it, and goes the way of a message.
 */

import { open } from "node:fs/promises";
import process from "node:process";
import { createShared } from "../admit/app.ts";
import { type Decoded, DecodeQueue, type Target } from "../admit/decode.ts";
import { type Encoding, inflate } from "../admit/body.ts";
import { createMessageReader } from "../admit/message_reader.ts";
import {
  type Columns,
  type Log,
  type Message,
  type MetaValue,
  type Remade,
  REST,
  type SourceAddress,
  type TableMaker,
  type TableProposal,
  type Tables,
  type UnknownKeys,
} from "../contracts.ts";
import { createDeliver, type Deliver } from "../deliver/deliver.ts";
import { lineOf } from "../kernel/errors.ts";
import { compileGlobs } from "../kernel/names.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";
import { systemClock } from "../kernel/time.ts";
import { authorities } from "../runtime/authorities.ts";
import { createFetch } from "../runtime/fetch.ts";
import { tableName } from "../settings/kinds.ts";
import type { SettingName, Settings } from "../settings/settings.ts";
import { sourceUrls } from "../settings/source_urls.ts";
import { section, setting } from "../settings/spec.ts";
import { makeRows } from "../sources/message.ts";
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
  "max-body-bytes",
  "max-event-age",
  "max-event-skew",
];

const FLAGS = section("Flags", [
  setting({
    name: "table",
    kind: tableName,
    default: null,
    meaning: "the table that the rows are for; needed, unless source says it",
  }),
  setting({
    name: "source",
    kind: sourceUrls,
    default: null,
    meaning:
      "the file is one message of this source, such as kafka://host/t?table=flights; the broker is " +
      "not asked",
    secret: true,
  }),
]);

const ABOUT =
  "Says what would become of the rows of a file (NDJSON, JSON, CSV or TSV, plain, gzip or zstd; the first 64MiB): the " +
  "columns, their types and some values of each, the statement that would make the table or add columns, and the " +
  "rows that would be refused, with the reason. With --source the file is the body of a message of it, and the " +
  "rows that it would become are printed too, with made-up metadata where meta= asks for it. - is stdin. Changes " +
  "nothing.\n" +
  "Exit code 0 when every row would be taken, 1 otherwise, 2 for unusable flags.";

export const tryRows: CliCommand = {
  name: "try",
  summary: "what would become of the rows of a file; changes nothing",
  page: {
    usage: "shishi try FILE|- --table TABLE | --source URL",
    about: ABOUT,
    only: SETTINGS,
    extra: FLAGS,
    files: true,
  },
  async run(argv) {
    const { operand: path, rest } = operandOf(argv, FLAGS);
    const loaded = settingsOrExitCode(rest, { command: "try", only: SETTINGS, extra: FLAGS });
    if (typeof loaded === "number") return loaded;
    const { settings, extra: { table, source } } = loaded;
    const [address = null, ...more] = source ?? [];
    const problem = path === null
      ? "expected a file, or - for stdin"
      : more.length > 0
      ? `--source: expected one, got ${more.length + 1}`
      : table === null && address === null
      ? "--table is needed, the table of the rows, or --source"
      : null;
    if (problem !== null) {
      tellProblems([`try: ${problem}`], "try");
      return 2;
    }
    const read = await bytesOf(path!);
    if (!read.ok) return fail(`${path}: ${read.problem}`);
    const deliver = connect(settings);
    try {
      return address === null
        ? await new Trial(deliver, settings, table!, path!).run(read.value)
        : await tryMessage(deliver, settings, {
          ...address,
          table: table ?? address.table,
        }, read.value);
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
    const bytes = path === "-" ? await bytesOfStdin() : await bytesOfFile(path);
    const encoding = MAGIC.find(([, magic]) => magic.every((byte, at) => bytes[at] === byte))?.[0];
    if (encoding === undefined) return done(bytes);
    const inflated = await inflate(bytes, encoding, MOST_BYTES);
    if (inflated.kind === "inflated") return done(inflated.bytes);
    return failed(`cannot be unpacked (${encoding})`);
  } catch (error) {
    return failed(lineOf(error));
  }
}

/** What packed files begin with. */
const MAGIC: readonly (readonly [Encoding, readonly number[]])[] = [
  ["gzip", [0x1f, 0x8b]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
];

async function bytesOfFile(path: string): Promise<Uint8Array> {
  const file = await open(path);
  try {
    const room = new Uint8Array(Math.min((await file.stat()).size, MOST_BYTES));
    let at = 0;
    for (let read = 1; read > 0 && at < room.length; at += read) {
      ({ bytesRead: read } = await file.read(room, at, room.length - at));
    }
    return room.subarray(0, at);
  } finally {
    await file.close();
  }
}

async function bytesOfStdin(): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of process.stdin) {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes >= MOST_BYTES) break;
  }
  return new Uint8Array(await new Blob(pieces as BlobPart[]).arrayBuffer()).subarray(0, MOST_BYTES);
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
    console.log(headOf(table, columns, proposal, this.#settings));
    showColumns(columns, proposal, rows);
    if (proposal !== null) console.log(`\n${proposal.ddl}`);
    if (proposed?.ok === false) console.log(`\n${proposed.problem}`);
    return await this.#tell(bytes, columnsWith(columns, proposal), policy);
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
    console.log(`\n${outcomeOf(rows, rejected)}`);
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

/** What of the table is there, and what would be made. */
function headOf(
  table: string,
  columns: Columns | null,
  proposal: Pick<TableProposal, "columns"> | null,
  { createTables }: Pick<Settings, "createTables">,
): string {
  if (columns !== null) {
    const count = proposal?.columns.length ?? 0;
    const more = count === 0
      ? ""
      : `, and would get ${count} ${count === 1 ? "column" : "columns"}`;
    return `${table} is there${more}`;
  }
  return compileGlobs(createTables)(table)
    ? `${table} is not there; its first rows would make it`
    : `${table} is not there, and create-tables does not name it; with it, its first rows would make it`;
}

// ── A message of a source.

/** Rows that are printed. */
const MOST_ROWS = 100;

/** Reads bytes as the body of a message, and prints what they become. */
async function tryMessage(
  deliver: Deliver,
  settings: Settings,
  address: SourceAddress,
  body: Uint8Array,
): Promise<number> {
  const { meta, name } = address;
  const table = address.table === settings.table ? null : address.table;
  const known = table === null ? "missing" : await deliver.tables.lookUp(table, LOOK_UP_MS);
  if (known === "unknown") return fail("ClickHouse cannot be asked: see shishi check");
  const rehearsal = new Rehearsal(deliver.maker, known);
  const reader = createMessageReader(
    () => ({ tables: rehearsal, maker: rehearsal, clock: systemClock, settings }),
    createShared(systemClock),
  );
  const message: Message = {
    body,
    partition: "",
    address: name,
    meta: (name) => exampleOf(address, name),
  };
  const made = await makeRows([message], { reader, table, meta, stops: false });
  if (made.kind === "wait") return fail(`${name}: the message would wait: ${made.why}`);
  const { chunk, poison, empty } = made;
  const rows = chunk?.body ?? new Uint8Array();
  if (table === null) console.log("events, as of POST /events");
  else {
    const columns = known === "missing" ? null : known;
    const proposal = rehearsal.proposal;
    console.log(headOf(table, columns, proposal, settings));
    if (rows.length > 0) showColumns(columns, proposal, rows);
    for (const ddl of rehearsal.statements) console.log(`\n${ddl}`);
  }
  if (empty > 0) console.log("\nno rows in it: the message would be acknowledged");
  else showRows(rows, chunk?.rows ?? 0, poison.length);
  for (const { index, error } of poison) {
    console.log(printed(index === null ? error : `row ${index + 1}: ${error}`));
  }
  if (poison.length > 0) {
    console.log(
      address.onError === "stop"
        ? "the source would stop here (on-error=stop)"
        : "what is refused would become a dead letter",
    );
  }
  return poison.length === 0 ? 0 : 1;
}

function showRows(rows: Uint8Array, count: number, refused: number): void {
  console.log();
  const lines = new TextDecoder().decode(rows).split("\n").slice(0, -1);
  for (const line of lines.slice(0, MOST_ROWS)) console.log(line.replace(/\p{Cc}/gu, "?"));
  if (lines.length > MOST_ROWS) console.log(`and ${lines.length - MOST_ROWS} more`);
  console.log(outcomeOf(count, refused));
}

function outcomeOf(taken: number, refused: number): string {
  const rows = taken === 1 ? "1 row" : `${taken} rows`;
  return `${rows} would be taken, ${refused} refused${refused > 0 ? ":" : ""}`;
}

/** A table as it would become: what would change it is noted, and nothing is changed. */
class Rehearsal implements TableMaker, Tables {
  readonly statements: string[] = [];
  readonly widens = false;
  readonly #maker: TableMaker;
  readonly #proposals: TableProposal[] = [];
  #known: Columns | "missing";

  constructor(maker: TableMaker, known: Columns | "missing") {
    this.#maker = maker;
    this.#known = known;
  }

  /** All that would be made; null: nothing. */
  get proposal(): TableProposal | null {
    const [first] = this.#proposals;
    if (first === undefined) return null;
    return { ...first, columns: this.#proposals.flatMap(({ columns }) => columns) };
  }

  columns(): Columns | "missing" {
    return this.#known;
  }

  lookUp(): Promise<Columns | "missing"> {
    return Promise.resolve(this.#known);
  }

  refresh(): Promise<Columns | "missing"> {
    return Promise.resolve(this.#known);
  }

  doubt(): void {}

  makes(): boolean {
    return true;
  }

  unknownKeys(table: string): UnknownKeys {
    return this.#maker.unknownKeys(table);
  }

  async make(table: string, rows: Uint8Array): Promise<Remade> {
    return await this.#change(table, null, rows);
  }

  async extend(
    table: string,
    keys: ReadonlySet<string> | null,
    rows: Uint8Array,
  ): Promise<Remade> {
    return await this.#change(table, keys, rows);
  }

  propose(table: string, keys: ReadonlySet<string> | null, rows: Uint8Array) {
    return this.#maker.propose(table, keys, rows);
  }

  widen(): Promise<Remade> {
    return Promise.resolve({ ...failed("widen is not tried"), why: "kind" });
  }

  async #change(
    table: string,
    keys: ReadonlySet<string> | null,
    rows: Uint8Array,
  ): Promise<Remade> {
    const proposed = await this.propose(table, keys, rows);
    if (!proposed.ok) return { ...proposed, why: "rows" };
    const created = this.#known === "missing";
    const columns = columnsWith(this.#known === "missing" ? null : this.#known, proposed.value);
    this.#proposals.push(proposed.value);
    this.statements.push(proposed.value.ddl);
    this.#known = columns;
    const added = proposed.value.columns.map(({ name, type }) => `${name} ${type}`);
    return { ok: true, columns, created, added };
  }
}

/** What a message of a source might say of itself: numbers, times and records where brokers have those. */
function exampleOf({ broker, name }: SourceAddress, wanted: string): MetaValue {
  switch (wanted) {
    case "_headers":
      return {};
    case "_timestamp":
      return broker === "kafka" ? systemClock.nowMs() : new Date(systemClock.nowMs()).toISOString();
    case "_partition":
    case "_offset":
    case "_redelivered":
    case "_sequence":
      return 0;
    case "_id":
      return broker === "redis" ? "0-1" : 1;
    default:
      return name;
  }
}

// ── Columns and values, for people.

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
