/** What the log says of rows that ClickHouse refuses for good. The letters themselves are whole. */

import type { Batch, DeadRow, Log } from "../contracts.ts";

/** Letters of one batch that are told one by one. */
const TOLD = 10;
const SHOWN = 200;

/** Tells of rows that are kept as dead letters, shortened. */
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
