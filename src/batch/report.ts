/** What the log says of a delivery. */

import type { Delivery, Log } from "../contracts.ts";
import type { Dispatch } from "./schedule.ts";

/**
 * @param failures in a row, this one included.
 * @param recovered a trouble has ended with this delivery.
 */
export function report(
  log: Log,
  { batch }: Dispatch,
  delivery: Delivery,
  failures: number,
  recovered: boolean,
): void {
  const fields = { table: batch.table, batch: batch.id, rows: batch.rows };
  if (delivery.kind === "settled") {
    log.debug("batch stored", { ...fields, dead: delivery.dead.length });
    if (recovered) log.info("delivery goes on", fields);
    return;
  }
  const what = delivery.kind === "table"
    ? "table in trouble; its batches wait"
    : "insert failed; will retry";
  log.warn(what, {
    ...fields,
    code: delivery.code,
    error: delivery.message,
    attempt: failures,
  });
}
