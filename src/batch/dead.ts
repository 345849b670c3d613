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
