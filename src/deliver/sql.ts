/**
 * The SQL that is sent, as pure functions. Names and texts are quoted, so that no path of a request can
 * become SQL.
 */

import type { Column, EventTypes, Shape } from "../contracts.ts";
import { isTableName, placeOf } from "../kernel/names.ts";

/** `db`.`table`, quoted; `database` where the name tells none. What is no table's name is a bug of the caller. */
export function qualified(database: string, table: string): string {
  if (!isTableName(table)) throw new Error(`no name of a table: ${JSON.stringify(table)}`);
  const place = placeOf(table);
  return `${quoteName(place.database ?? database)}.${quoteName(place.table)}`;
}

/** Any text as an SQL string literal; column names are free text, so they need it. */
export function quoteString(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}

/** A table, a column or a database in backticks. */
export function quoteName(name: string): string {
  return `\`${name.replace(/[\\`]/g, "\\$&")}\``;
}

/** The fields of an event by their public names, and the types as which they are read as usual. */
const EVENT_FIELDS: EventTypes = new Map([
  ["id", "UUID"],
  ["timestamp", "DateTime64(3, 'UTC')"],
  ["eventType", "String"],
  ["userId", "String"],
  ["properties", "Map(String, String)"],
]);

/** The structure that an event's line is read with. @param types of fields that are read as other ones. */
export function eventStructure(types: EventTypes | null = null): string {
  return [...EVENT_FIELDS].map(([field, usual]) => `${field} ${types?.get(field) ?? usual}`)
    .join(", ");
}

/**
 * The INSERT of one shape. For events ClickHouse itself renames the fields and makes strings of the
 * properties' values: every digit is kept and no row has to be rebuilt here.
 * @param columns of rows: what the INSERT names; null: nothing, so that it is about all that have a place.
 * @param types of events, as of `eventStructure`.
 */
export function insertStatement(
  shape: Shape,
  database: string,
  table: string,
  columns: readonly string[] | null = null,
  types: EventTypes | null = null,
): string {
  const target = qualified(database, table);
  if (shape === "row") {
    const named = columns === null ? "" : ` (${columns.map(quoteName).join(", ")})`;
    return `INSERT INTO ${target}${named} FORMAT JSONEachRow`;
  }
  return `INSERT INTO ${target} (id, timestamp, event_type, user_id, properties)` +
    ` SELECT id, timestamp, eventType, userId, properties FROM input(${
      quoteString(eventStructure(types))
    }) FORMAT JSONEachRow`;
}

/**
 * The table of events. The deduplication window makes a resent batch harmless: a plain MergeTree
 * remembers no token by default. 1000 batches outlive any retry of one that is under way. It syncs what it
 * answers for: by default a power cut on its host can take rows that are let go here at that answer.
 * @param synced false for a server that has no such settings.
 */
export function createEventsTable(database: string, table: string, synced = true): string {
  return `CREATE TABLE IF NOT EXISTS ${qualified(database, table)} (
  id UUID,
  timestamp DateTime64(3, 'UTC'),
  event_type LowCardinality(String),
  user_id String,
  properties Map(LowCardinality(String), String)
) ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (event_type, timestamp)
SETTINGS non_replicated_deduplication_window = 1000${synced ? `, ${SYNCED}` : ""}`;
}

/** Settings of a table whose rows survive a power cut once they are stored. */
export const SYNCED = "fsync_after_insert = 1, fsync_part_directory = 1";

/** ` ON CLUSTER`, where a cluster is named. */
function onCluster(cluster: string | null): string {
  return cluster === null ? "" : ` ON CLUSTER ${quoteName(cluster)}`;
}

/** What types of new columns are made of; nothing else is sent as one. */
const NEW_TYPE = /^[A-Za-z][A-Za-z0-9]*(?:\([A-Za-z0-9(), ']*\))?$/;

function columnOf(name: string, type: string): string {
  if (!NEW_TYPE.test(type)) throw new Error(`no type of a new column: ${JSON.stringify(type)}`);
  return `${quoteName(name)} ${type}`;
}

/**
 * A table for rows of these columns, kept as that of events is. A row without its time is as old as its
 * INSERT.
 * @param cluster where it is made on every host, and replicated; null: on the one server.
 */
export function createRowsTable(
  database: string,
  table: string,
  { columns, time }: {
    readonly columns: readonly { readonly name: string; readonly type: string }[];
    readonly time: string | null;
  },
  cluster: string | null,
  synced = true,
): string {
  const lines = columns.map(({ name, type }) => {
    const usual = name !== time ? "" : type.startsWith("DateTime64") ? "now64()" : "today()";
    return `  ${columnOf(name, type)}${usual === "" ? "" : ` DEFAULT ${usual}`}`;
  });
  // Without a cluster the answer has to tell who of many has made it.
  const head = cluster === null ? "CREATE TABLE" : "CREATE TABLE IF NOT EXISTS";
  const [engine, window] = cluster === null
    ? ["MergeTree", "non_replicated_deduplication_window"]
    : ["ReplicatedMergeTree", "replicated_deduplication_window"];
  return `${head} ${qualified(database, table)}${onCluster(cluster)} (
${lines.join(",\n")}
) ENGINE = ${engine}${time === null ? "" : `\nPARTITION BY toYYYYMM(${quoteName(time)})`}
ORDER BY ${time === null ? "tuple()" : quoteName(time)}
SETTINGS ${window} = 1000${synced ? `, ${SYNCED}` : ""}`;
}

/** By this comment the columns that rows have asked for are counted, whichever collector added them. */
const ADDED = "added by shishi";

/** Columns that are there already stay as they are. */
export function addColumns(
  database: string,
  table: string,
  columns: readonly { readonly name: string; readonly type: string }[],
  cluster: string | null,
): string {
  const parts = columns.map(({ name, type }) =>
    `ADD COLUMN IF NOT EXISTS ${columnOf(name, type)} COMMENT ${quoteString(ADDED)}`
  );
  return `ALTER TABLE ${qualified(database, table)}${onCluster(cluster)} ${parts.join(", ")}`;
}

/**
 * Widens a column, if it still has the type that was seen: the constraint, which always holds, can be added
 * once, so of two that widen it at the same moment the second one does not make it narrower again. It is
 * done when what is stored from now on has the type; parts that are there are converted afterwards.
 */
export function widenColumn(
  database: string,
  table: string,
  column: { readonly name: string; readonly from: string; readonly type: string },
  cluster: string | null,
): string {
  const { name, from, type } = column;
  return `ALTER TABLE ${qualified(database, table)}${onCluster(cluster)} ` +
    `ADD CONSTRAINT ${quoteName(`${name} was ${from}`)} CHECK 1, ` +
    `MODIFY COLUMN ${columnOf(name, type)} SETTINGS alter_sync = 0, mutations_sync = 0`;
}

/** Of a table, the text from which `behindDistributed` reads. */
export function engineOf(database: string, table: string): string {
  const place = placeOf(table);
  return `SELECT engine_full FROM system.tables WHERE database = ${
    quoteString(place.database ?? database)
  } AND name = ${quoteString(place.table)}`;
}

/** The table that a Distributed one speaks for, as `db.table`; null where its text does not tell. */
export function behindDistributed(engineFull: string): string | null {
  const name = "'?((?:[^'\\\\,]|\\\\.)+)'?";
  const found = new RegExp(`^Distributed\\(${name}, ${name}, ${name}[,)]`).exec(engineFull);
  const behind = found === null ? "" : `${found[2]}.${found[3]}`.replace(/\\(.)/g, "$1");
  return isTableName(behind) ? behind : null;
}

/** How many numbers of a column a Float64 could not hold, as `n`. */
export function countInexact(database: string, table: string, column: string): string {
  const name = quoteName(column);
  return `SELECT countIf(${name} > 9007199254740992 OR ${name} < -9007199254740992) AS n` +
    ` FROM ${qualified(database, table)}`;
}

/** How many columns of a table rows have asked for, as `n`. */
export function countAdded(database: string, table: string): string {
  return `SELECT count() AS n${fromColumns(database, table)} AND comment = ${quoteString(ADDED)}`;
}

/** Columns of a table with types; empty where there is no such table (or no right to see it). */
export function describeColumns(database: string, table: string): string {
  return `SELECT name, type, default_kind, default_expression${fromColumns(database, table)}`;
}

/** As `describeColumns`, of several tables of one database, with the name of each: `table`. */
export function describeColumnsOfAll(database: string, tables: readonly string[]): string {
  const places = tables.map(placeOf);
  const names = places.map(({ table }) => quoteString(table)).join(", ");
  return "SELECT table, name, type, default_kind, default_expression FROM system.columns WHERE database = " +
    `${quoteString(places[0]?.database ?? database)} AND table IN (${names})`;
}

/**
 * As `describeColumns`, and with each of them the server's version, the table's engine, and whether the user's
 * profile lets nothing be written.
 * @param usual also how many INSERTs tables of its kind remember where it does not say; many users have
 *   no right to that.
 */
export function describeTable(database: string, table: string, usual = true): string {
  const place = placeOf(table);
  const [inDatabase, name] = [quoteString(place.database ?? database), quoteString(place.table)];
  const of = (what: string) =>
    `(SELECT any(${what}) FROM system.tables WHERE database = ${inDatabase} AND name = ${name}) AS ${what}`;
  const setting = (table: string, setting: string) =>
    `(SELECT any(value) FROM system.${table} WHERE name = '${setting}') AS ${setting}`;
  const all = [
    ...["name", "type", "default_kind", "default_expression", "version() AS version"],
    ...[of("engine"), of("engine_full")],
    ...[of("partition_key"), of("dependencies_table")],
    setting("settings", "readonly"),
    ...(usual
      ? [
        setting("merge_tree_settings", "replicated_deduplication_window"),
        setting("merge_tree_settings", "non_replicated_deduplication_window"),
      ]
      : []),
  ];
  return `SELECT ${all.join(", ")}${fromColumns(database, table)}`;
}

function fromColumns(database: string, table: string): string {
  const place = placeOf(table);
  return ` FROM system.columns WHERE database = ${
    quoteString(place.database ?? database)
  } AND table = ${quoteString(place.table)}`;
}

/** Asks whether the user may insert into a table, or into some of its columns: `1` or `0`. */
export function checkGrant(
  database: string,
  table: string,
  columns: readonly string[] = [],
): string {
  const some = columns.length === 0 ? "" : `(${columns.map(quoteName).join(", ")})`;
  return `CHECK GRANT INSERT${some} ON ${qualified(database, table)}`;
}

/** The SELECT of a view. */
export function describeView(database: string, view: string): string {
  return `SELECT as_select FROM system.tables WHERE database = ${
    quoteString(database)
  } AND name = ${quoteString(view)}`;
}

/** Of what `describeColumns` is answered, the columns that an INSERT may give. */
export function insertableColumns(
  rows: readonly Readonly<Record<string, unknown>>[],
): readonly Column[] {
  return rows
    .filter((row) => row["default_kind"] !== "MATERIALIZED" && row["default_kind"] !== "ALIAS")
    .map((row) => ({
      name: String(row["name"]),
      type: String(row["type"]),
      defaultKind: kindOf(row["default_kind"]),
      defaultText: String(row["default_expression"] ?? ""),
    }));
}

function kindOf(kind: unknown): Column["defaultKind"] {
  return kind === "DEFAULT" || kind === "EPHEMERAL" ? kind : "";
}
