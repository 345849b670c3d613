/**
 * The last problems, for the page: every line that is logged as a warning or an error, whatever the
 * log's level. The same again (message, table, code, server) is folded into one, with how often
 * and until when.
 * Bounded in number and in size; rows of data are never kept.
 */

import type { Clock, Log, LogFields } from "../contracts.ts";

/** One line of the log. */
export interface Note {
  readonly level: "warn" | "error";
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
  note(note: Note): void;
  /** The log, and what it is told as a warning or an error is noted. */
  watch(log: Log): Log;
  /** Latest first. */
  list(): readonly Problem[];
}

const MOST_PROBLEMS = 50;
const LONGEST_FIELD = 400;
/** Fields that may hold what users sent. */
const PRIVATE = new Set(["row"]);

export function createProblems(clock: Pick<Clock, "nowMs">): Problems {
  /** In the order of their last occurrence. */
  const problems = new Map<string, Problem>();

  function note({ level, message, fields }: Note): void {
    const { table, code, server } = fields;
    const key = JSON.stringify([level, message, table, code, server]);
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
    note,
    watch: (log) => noted(log, note),
    list: () => [...problems.values()].reverse(),
  };
}

/** A log that tells `note` of its warnings and errors. */
function noted(log: Log, note: (note: Note) => void): Log {
  const at = (level: Note["level"]) => (message: string, fields?: LogFields) => {
    log[level](message, fields);
    note({ level, message, fields: fields ?? {} });
  };
  return {
    debug: (message, fields) => log.debug(message, fields),
    info: (message, fields) => log.info(message, fields),
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
