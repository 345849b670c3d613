/** The table of an outbox as SQL, for each database: what `shishi outbox ddl` prints. */

import type { OutboxSource } from "../contracts.ts";
import { channelOf, quoted } from "./outbox_session.ts";

export const OUTBOX_KINDS = ["postgres", "mysql", "sqlite"] as const;

/** What of an outbox has a name. */
export type OutboxNames = Pick<OutboxSource, "outbox" | "id" | "payload" | "tableColumn" | "done">;

/**
 * Statements, each ending in a semicolon and a line break.
 * @param notify Postgres: with the trigger that makes new rows known at once.
 */
export function ddlOf(
  kind: OutboxSource["kind"],
  names: OutboxNames & { readonly notify: boolean },
): string {
  return WRITE[kind](names, names.notify);
}

const WRITE: Readonly<
  Record<OutboxSource["kind"], (names: OutboxNames, notify: boolean) => string>
> = { postgres, mysql, sqlite };

/** `json` keeps the text as it was written. */
function postgres(
  { outbox, id, payload, tableColumn, done }: OutboxNames,
  notify: boolean,
): string {
  const q = (name: string) => quoted(name, '"');
  const columns = [
    `${q(id)} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY`,
    ...(tableColumn === null ? [] : [`${q(tableColumn)} text NOT NULL`]),
    `${q(payload)} json NOT NULL`,
    ...(done === null ? [] : [`${q(done)} timestamptz`]),
  ];
  const trigger = channelOf(outbox);
  const inSchema = outbox.includes(".") ? `${outbox.split(".")[0]}.${trigger}` : trigger;
  return [
    `CREATE TABLE ${q(outbox)} (\n  ${columns.join(",\n  ")}\n);\n`,
    ...(done === null ? [] : [
      `CREATE INDEX ${q(indexOf(outbox))} ON ${q(outbox)} (${q(id)}) WHERE ${q(done)} IS NULL;\n`,
    ]),
    ...(notify
      ? [
        `CREATE FUNCTION ${q(inSchema)}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('${trigger}', '');
  RETURN NULL;
END $$;\n`,
        `CREATE TRIGGER ${q(trigger)} AFTER INSERT ON ${q(outbox)}
  FOR EACH STATEMENT EXECUTE FUNCTION ${q(inSchema)}();\n`,
      ]
      : []),
  ].join("");
}

/** MySQL's own JSON makes doubles of long numbers. */
function mysql({ outbox, id, payload, tableColumn, done }: OutboxNames): string {
  const q = (name: string) => quoted(name, "`");
  const columns = [
    `${q(id)} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY`,
    ...(tableColumn === null ? [] : [`${q(tableColumn)} varchar(64) NOT NULL`]),
    `${q(payload)} longtext CHARACTER SET utf8mb4 NOT NULL`,
    ...(done === null ? [] : [`${q(done)} datetime NULL`]),
    ...(done === null ? [] : [`KEY ${q(indexOf(outbox))} (${q(done)})`]),
  ];
  return `CREATE TABLE ${q(outbox)} (\n  ${columns.join(",\n  ")}\n) ENGINE = InnoDB;\n`;
}

/** Without AUTOINCREMENT the number of a deleted row is given again. */
function sqlite({ outbox, id, payload, tableColumn, done }: OutboxNames): string {
  const [table = "", schema] = outbox.split(".").reverse();
  const index = schema === undefined ? indexOf(table) : `${schema}.${indexOf(table)}`;
  const q = (name: string) => quoted(name, '"');
  const columns = [
    `${q(id)} INTEGER PRIMARY KEY AUTOINCREMENT`,
    ...(tableColumn === null ? [] : [`${q(tableColumn)} TEXT NOT NULL`]),
    `${q(payload)} TEXT NOT NULL`,
    ...(done === null ? [] : [`${q(done)} TEXT`]),
  ];
  return [
    `CREATE TABLE ${q(outbox)} (\n  ${columns.join(",\n  ")}\n);\n`,
    ...(done === null ? [] : [
      `CREATE INDEX ${q(index)} ON ${q(table)} (${q(id)}) WHERE ${q(done)} IS NULL;\n`,
    ]),
  ].join("");
}

function indexOf(outbox: string): string {
  return `${outbox.split(".").at(-1)}_waiting`.slice(0, 63);
}
