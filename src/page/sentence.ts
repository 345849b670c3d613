/**
 * A line of the log as a sentence for somebody who does not know the program: what happened, and what
 * becomes of the rows. A line that is not in the table is told in its own words.
 */

import type { LogFields } from "../contracts.ts";
import type { Note } from "./problems.ts";

type Say = (fields: LogFields) => string;

const SENTENCES: Readonly<Record<string, Say>> = {
  "insert failed; will retry": (f) =>
    `ClickHouse did not take ${rows(f)}${ofTable(f)}${because(f)}. They are kept and sent again.`,
  "table in trouble; its batches wait": (f) =>
    `The table ${f.table} takes no rows${because(f)}. Its rows are kept; other tables flow.`,
  "row refused by ClickHouse": (f) =>
    `ClickHouse refused a row${ofTable(f)} for good${because(f)}. It is a dead letter, see below.`,
  "more rows refused by ClickHouse": (f) =>
    `ClickHouse refused ${rows(f)}${ofTable(f)} more for good. They are dead letters, see below.`,
  "ClickHouse is away": (f) =>
    `ClickHouse does not answer${at(f.server)}. Rows are kept and sent once it is back.`,
  "ClickHouse is passed over": (f) =>
    `One of the ClickHouse servers${at(f.server)} is passed over${
      because(f)
    }. The others are used.`,
  "the disk does not take rows": (f) =>
    `The disk takes no rows${because(f)}. Writes are refused until it does; what is there is sent.`,
  "rows are lost: somebody has removed their file": (f) =>
    `${rows(f)}${ofTable(f)} are lost: somebody has removed their file from the spool.`,
  "a request failed": (f) => `A request could not be answered${because(f)}.`,
  "the books do not balance": (f) =>
    `The books do not balance: they differ by ${f.difference} rows. That is a bug; please report it.`,
  "InfluxDB does not take the counts; they are kept": (f) =>
    `InfluxDB does not take the counts${because(f)}. They are kept; events are not concerned.`,
  "nats: connection lost": (f) =>
    `The connection to NATS is lost${because(f)}. Events are not concerned; it is tried again.`,
  "spool file moved to quarantine": (f) =>
    `A damaged spool file${ofTable(f)} was put into quarantine${because({ error: f.reason })}.`,
};

/** One sentence or two, that end in a full stop. */
export function sentenceOf({ message, fields }: Pick<Note, "message" | "fields">): string {
  const say = Object.hasOwn(SENTENCES, message) ? SENTENCES[message] : undefined;
  if (say !== undefined) return say(fields);
  const where = typeof fields.table === "string" && !message.includes(fields.table)
    ? ` (table ${fields.table})`
    : "";
  const told = `${message}${where}${because(fields)}`;
  return told.charAt(0).toUpperCase() + told.slice(1) + (/[.!?…]$/.test(told) ? "" : ".");
}

function rows({ rows }: LogFields): string {
  if (typeof rows !== "number") return "rows";
  return rows === 1 ? "1 row" : `${rows.toLocaleString("en")} rows`;
}

function ofTable({ table }: LogFields): string {
  return table === undefined ? "" : ` of ${table}`;
}

function at(where: LogFields[string]): string {
  return where === undefined ? "" : ` at ${where}`;
}

/** Why, without the full stop that some servers end with. */
function because({ error, code }: LogFields): string {
  const reason = String(error ?? "").trim().replace(/[.\s]+$/, "");
  const number = typeof code === "number" && code !== 0 ? `code ${code}` : "";
  const both = [number, reason].filter((text) => text !== "").join(", ");
  return both === "" ? "" : ` (${both})`;
}
