/**
 * Rows that ClickHouse refuses for good. There is no dead-letter file: each is written in full to
 * the log, as an error, so that nothing disappears without a trace.
 */

import type { Batch, DeadRow, Log } from "../contracts.ts";

/** @param rows the rows' own bytes as text, in the order of `dead`. */
export function logDead(
  log: Log,
): (batch: Batch, dead: readonly DeadRow[], rows: readonly string[]) => void {
  return (batch, dead, rows) => {
    dead.forEach((letter, at) =>
      log.error("row refused by ClickHouse", {
        table: batch.table,
        batch: batch.id,
        code: letter.code,
        error: letter.message,
        row: rows[at] ?? "",
      })
    );
  };
}

/** Letters of one batch that are told one by one. */
const TOLD = 10;
const SHOWN = 200;

/** Tells of rows that are kept as dead letters, shortened: the letters themselves are whole. */
export function warnOfDead(
  log: Log,
  batch: Pick<Batch, "id" | "table">,
  dead: readonly DeadRow[],
  rows: readonly string[],
): void {
  const { table, id } = batch;
  for (const [at, { code, message }] of dead.slice(0, TOLD).entries()) {
    const [error, row] = [message, rows[at] ?? ""].map(shortened);
    log.warn("row refused by ClickHouse", { table, batch: id, code, error, row });
  }
  if (dead.length > TOLD) {
    log.warn("more rows refused by ClickHouse", { table, batch: id, rows: dead.length - TOLD });
  }
}

function shortened(text: string): string {
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN).toWellFormed()}…`;
}
