/**
 * The SQL that is sent, as pure functions. Names and texts are quoted, so that no path of a request can
 * become SQL.
 */

import type { Column, Shape } from "../contracts.ts";
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

/** The structure that an event's line is read with; its keys are the public names of the fields. */
export const EVENT_STRUCTURE =
  "id UUID, timestamp DateTime64(3, 'UTC'), eventType String, userId String, properties Map(String, String)";

/**
 * The INSERT of one shape. For events ClickHouse itself renames the fields and makes strings of the
 * properties' values: every digit is kept and no row has to be rebuilt here.
 * @param columns of rows: what the INSERT names; null: nothing, so that it is about all that have a place.
 */
export function insertStatement(
  shape: Shape,
  database: string,
  table: string,
  columns: readonly string[] | null = null,
): string {
  const target = qualified(database, table);
  if (shape === "row") {
    const named = columns === null ? "" : ` (${columns.map(quoteName).join(", ")})`;
    return `INSERT INTO ${target}${named} FORMAT JSONEachRow`;
  }
  return `INSERT INTO ${target} (id, timestamp, event_type, user_id, properties)` +
    ` SELECT id, timestamp, eventType, userId, properties FROM input(${
      quoteString(EVENT_STRUCTURE)
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

/** Columns of a table with types; empty where there is no such table (or no right to see it). */
export function describeColumns(database: string, table: string): string {
  return `SELECT name, type, default_kind${fromColumns(database, table)}`;
}

/**
 * As `describeColumns`, and with each of them the table's engine, and whether the user's profile lets
 * nothing be written.
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
    ...["name", "type", "default_kind", of("engine"), of("engine_full")],
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
    }));
}

function kindOf(kind: unknown): Column["defaultKind"] {
  return kind === "DEFAULT" || kind === "EPHEMERAL" ? kind : "";
}
