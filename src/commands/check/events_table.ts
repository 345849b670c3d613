/**
 * The table behind POST /events: is it there or can be made, and does it hold the columns of an event?
 * Types other than those of the table that the collector makes are tried: the server converts a sample.
 */

import { tooOld } from "../../deliver/query.ts";
import { describeTable, quoteString } from "../../deliver/sql.ts";
import { isTableName } from "../../kernel/names.ts";
import type { Settings } from "../../settings/settings.ts";
import { about, type Finding } from "./finding.ts";
import { insertable } from "./insertable.ts";
import { grant, mayI, named, remedy, type Server } from "./server.ts";

interface Column {
  readonly name: string;
  /** As in the table that the collector makes. */
  readonly type: string;
  /** Of the same use; nothing is lost. */
  readonly alike: RegExp;
  /** A value as an INSERT sends it. */
  readonly sample: string;
}

const STRING = /^(?:LowCardinality\()?(?:Nullable\()?(?:String|FixedString\(\d+\))\)*$/;

const COLUMNS: readonly Column[] = [
  {
    name: "id",
    type: "UUID",
    alike: /^(?:Nullable\()?UUID\)?$|String/,
    sample: "toUUID('0192f0c1-0000-7000-8000-000000000000')",
  },
  {
    name: "timestamp",
    type: "DateTime64(3, 'UTC')",
    alike: /^(?:Nullable\()?DateTime64\([3-9]\b/,
    sample: "toDateTime64('2026-01-01 00:00:00.123', 3, 'UTC')",
  },
  { name: "event_type", type: "LowCardinality(String)", alike: STRING, sample: "'click'" },
  { name: "user_id", type: "String", alike: STRING, sample: "'u1'" },
  {
    name: "properties",
    type: "Map(LowCardinality(String), String)",
    alike: /^Map\((?:LowCardinality\(String\)|String), (?:LowCardinality\(String\)|String)\)$/,
    sample: "map('key', 'value')",
  },
];

export async function lookAtEventsTable(
  server: Server,
  { table, createTable }: Settings,
): Promise<Finding[]> {
  const { query, endpoint } = server;
  const is = about(`table ${table} on ${endpoint.label}`);
  if (!isTableName(table)) return [is.wrong("no name for a table")];
  const described = await query.rows(describeTable(endpoint.database, table));
  if (!described.ok) {
    return [is.wrong(described.problem, remedy(described.code, endpoint))];
  }
  const maps = await query.rows(
    "SELECT count() AS n FROM system.data_type_families WHERE name = 'Map'",
  );
  if (maps.ok && Number(maps.value[0]?.["n"]) === 0) {
    return [is.wrong(await tooOld(query, table), "upgrade it, or set tables and post to those")];
  }
  if (described.value.length === 0) return [await missing(server, table, createTable)];

  const columns = new Map(described.value.map((row) => [String(row["name"]), row]));
  const lacking = COLUMNS.filter(({ name }) => !columns.has(name));
  if (lacking.length > 0) {
    const add = lacking.map(({ name, type }) => `ADD COLUMN ${name} ${type}`).join(", ");
    const names = lacking.map(({ name }) => name).join(", ");
    return [is.wrong(`lacks ${names}`, `ALTER TABLE ${named(server, table)} ${add}`)];
  }
  const unfit = await Promise.all(COLUMNS.map((column) => {
    const row = columns.get(column.name)!;
    return judge(server, table, column, String(row["type"]), String(row["default_kind"]));
  }));
  return [...unfit.flat(), ...await insertable(server, table, "event")];
}

async function missing(server: Server, table: string, create: boolean): Promise<Finding> {
  const is = about(`table ${table} on ${server.endpoint.label}`);
  if (!create) return is.wrong("not there", "create it, or set create-table");
  const rights = ["CREATE TABLE", "INSERT"];
  const may = await Promise.all(rights.map((right) => mayI(server, right, table)));
  const none = rights.filter((_, at) => may[at] === false);
  if (none.length > 0) {
    return is.wrong(
      `not there, and this user has no right to ${none.join(" and ")}`,
      grant(server, none.join(", "), table),
    );
  }
  return is.ok(
    `not there; will be created${may.includes(null) ? ", if this user has the right to" : ""}`,
  );
}

/** What is wrong with a column that is there; nothing where it takes what is sent. */
async function judge(
  server: Server,
  table: string,
  { name, type, alike, sample }: Column,
  found: string,
  kind: string,
): Promise<Finding[]> {
  const is = about(`table ${table} on ${server.endpoint.label}`);
  const modify = `ALTER TABLE ${named(server, table)} MODIFY COLUMN ${name} ${type}`;
  if (kind === "MATERIALIZED" || kind === "ALIAS") {
    return [is.wrong(`${name} is ${kind}: no INSERT may give it`, modify)];
  }
  if (alike.test(found)) return [];
  const cast = await server.query.rows(
    `SELECT toString(CAST(${sample}, ${quoteString(found)})) AS kept`,
  );
  const what = `${name} is ${found}, not ${type}`;
  if (!cast.ok) {
    // A text may fit all the same: a number for a number, a known word for an Enum.
    return sample.startsWith("'")
      ? [is.warning(`${what}: rows whose text does not fit become dead letters`, modify)]
      : [is.wrong(`${what}: ${cast.problem}`, modify)];
  }
  return name === "timestamp" && !String(cast.value[0]?.["kept"]).includes(".123")
    ? [is.warning(`${what}: milliseconds are lost`, modify)]
    : [];
}
