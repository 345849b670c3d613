/** May we insert into a table that is there, and does a retry store a batch twice? */

import { quoteString } from "../../deliver/sql.ts";
import { about, type Finding } from "./finding.ts";
import { grant, named, remedy, type Server } from "./server.ts";

const TWICE = "a retry can store a batch twice";
const WINDOW = 1000;

/** One line for what works, one for each thing that does not. */
export async function insertable(
  server: Server,
  table: string,
  shape: "event" | "row",
): Promise<Finding[]> {
  const { endpoint } = server;
  const is = about(`table ${table} on ${endpoint.label}`);
  const verdict = await server.tryInsert(table, shape);
  if (verdict.kind !== "stored") {
    const todo = verdict.code === 497 && /INSERT/.test(verdict.message)
      ? grant(server, "INSERT", table)
      : remedy(verdict.code, endpoint);
    return [is.wrong(`an INSERT is refused: ${verdict.message}`, todo)];
  }
  const takes = shape === "event" ? "takes events" : "takes rows";
  const { rows, trouble, todo } = await windowOf(server, table);
  return trouble === undefined
    ? [is.ok(`${takes}; deduplication window ${rows}`)]
    : [is.ok(takes), is.warning(`${trouble}: ${TWICE}`, todo)];
}

interface Window {
  readonly rows: number;
  readonly trouble?: string;
  readonly todo?: string;
}

/** How many INSERTs the table remembers. */
async function windowOf(server: Server, table: string): Promise<Window> {
  const { query, endpoint } = server;
  const about = await query.rows(
    `SELECT * FROM system.tables WHERE database = ${quoteString(endpoint.database)} AND name = ${
      quoteString(table)
    }`,
  );
  if (!about.ok) return { rows: 0, trouble: `it cannot be seen (${about.problem})` };
  const { engine = "", engine_full = "" } = about.value[0] ?? {};
  if (!String(engine).endsWith("MergeTree")) {
    return { rows: 0, trouble: `engine ${engine} has no deduplication window of its own` };
  }
  const replicated = /^(?:Replicated|Shared)/.test(String(engine));
  const setting = `${replicated ? "" : "non_"}replicated_deduplication_window`;
  const own = new RegExp(`\\b(?<!non_)${setting} = '?(\\d+)`).exec(String(engine_full))?.[1];
  const rows = own === undefined ? await defaultOf(server, setting) : Number(own);
  if (rows === null) {
    // Servers from before that setting remember INSERTs into replicated tables, and of those alone.
    return replicated ? { rows: 100 } : {
      rows: 0,
      trouble: "this server remembers no INSERTs into a table that is not replicated",
    };
  }
  if (rows > 0) return { rows };
  return {
    rows,
    trouble: `${setting} is 0`,
    todo: `ALTER TABLE ${named(server, table)} MODIFY SETTING ${setting} = ${WINDOW}`,
  };
}

/** Null: this server has no such setting. */
async function defaultOf({ query }: Server, setting: string): Promise<number | null> {
  const answer = await query.rows(
    `SELECT value FROM system.merge_tree_settings WHERE name = ${quoteString(setting)}`,
  );
  const value = answer.ok ? answer.value[0]?.["value"] : undefined;
  return value === undefined ? null : Number(value);
}
