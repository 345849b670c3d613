/**
 * The last problems, for the page: every line that is logged as a warning or an error, whatever the
 * log's level, and what was done to tables. The same again (message, table, code, server) is folded into one, with how often
 * and until when.
 * Bounded in number and in size; rows of data are never kept.
 *
 * The page shows them as sentences for readers who do not know the program: what happened, and what
 * becomes of the rows. A line that has no sentence here is shown as it is.
 */

import type { Clock, Log, LogFields } from "../contracts.ts";

/** One line of the log. */
export interface Note {
  readonly level: "info" | "warn" | "error";
  readonly message: string;
  readonly fields: LogFields;
}

/** Notes that say the same. */
export interface Problem extends Note {
  readonly firstMs: number;
  readonly lastMs: number;
  readonly times: number;
}

export interface Problems {
  /** The same log, whose warnings and errors, and some other lines, are noted. */
  watch(log: Log): Log;
  /** Latest first. */
  list(): readonly Problem[];
}

/** Lines that are no problems and shown all the same: who reads them may not have meant it. */
const CHANGES: ReadonlySet<string> = new Set([
  "made a table",
  "added columns to a table",
  "widened a column",
]);

const MOST_PROBLEMS = 50;
const LONGEST_FIELD = 400;
/** Fields that may hold what users sent. */
const PRIVATE = new Set(["row"]);

export function createProblems(clock: Pick<Clock, "nowMs">): Problems {
  /** In the order of their last occurrence. */
  const problems = new Map<string, Problem>();

  function note({ level, message, fields }: Note): void {
    const { table, code, server, ddl, token } = fields;
    const key = JSON.stringify([level, message, table, code, server, ddl, token]);
    const nowMs = clock.nowMs();
    const known = problems.get(key);
    problems.delete(key);
    problems.set(key, {
      level,
      message: short(message),
      fields: shortened(fields),
      firstMs: known?.firstMs ?? nowMs,
      lastMs: nowMs,
      times: (known?.times ?? 0) + 1,
    });
    const [oldest] = problems.keys();
    if (problems.size > MOST_PROBLEMS && oldest !== undefined) problems.delete(oldest);
  }

  return {
    watch: (log) => noted(log, note),
    list: () => [...problems.values()].reverse(),
  };
}

/** A log whose warnings and errors go to `note` too. */
function noted(log: Log, note: (note: Note) => void): Log {
  const at = (level: Note["level"]) => (message: string, fields?: LogFields) => {
    log[level](message, fields);
    note({ level, message, fields: fields ?? {} });
  };
  return {
    debug: (message, fields) => log.debug(message, fields),
    info(message, fields) {
      log.info(message, fields);
      if (CHANGES.has(message)) note({ level: "info", message, fields: fields ?? {} });
    },
    warn: at("warn"),
    error: at("error"),
  };
}

function shortened(fields: LogFields): LogFields {
  return Object.fromEntries(
    Object.entries(fields).filter(([name]) => !PRIVATE.has(name)).map(([name, value]) => [
      name,
      typeof value === "string" ? short(value) : value,
    ]),
  );
}

function short(text: string): string {
  return text.length <= LONGEST_FIELD ? text : `${text.slice(0, LONGEST_FIELD).toWellFormed()}…`;
}

type Say = (fields: LogFields) => string;

/** By the line of the log, word for word. */
export const SENTENCES: Readonly<Record<string, Say>> = {
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
  "made a table": (f) => `The table ${f.table} was made of its first rows: ${f.ddl}.`,
  "added columns to a table": (f) => `The table ${f.table} got columns for new keys: ${f.ddl}.`,
  "widened a column": (f) => `A column of the table ${f.table} became wider: ${f.ddl}.`,
  "the disk does not take rows": (f) =>
    `The disk takes no rows${because(f)}. Writes are refused until it does; what is there is sent.`,
  "rows are lost: their spool file was deleted": (f) =>
    `${rows(f)}${ofTable(f)} are lost: their spool file was deleted.`,
  "a write token has used up a quota": (f) =>
    `The write token ${f.token} has a quota of ${f.quota} and sends more. What is beyond it is refused until the next period.`,
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
  const text = `${message}${where}${because(fields)}`;
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
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
