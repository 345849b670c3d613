/** Whether every row that was accepted is in the sink, and what else was wrong with a run. */
import type { Settled } from "./subjects.ts";

export interface Counted {
  /** Rows of requests that were answered with 2xx. */
  readonly acceptedRows: number;
  /** Rows that may have been accepted although nobody waited for the answer any more. */
  readonly unansweredRows: number;
  /** Rows that the sink holds. */
  readonly sinkRows: number;
  readonly settled: Settled;
}

/** Sentences; none = the run was sound. */
export function problemsOf({ acceptedRows, unansweredRows, sinkRows, settled }: Counted): string[] {
  const { received, rejected, stored, dead, held, lost } = settled.ledger;
  const problems: string[] = [];
  if (acceptedRows === 0) problems.push("no row was accepted");
  if (sinkRows < acceptedRows) {
    problems.push(`${acceptedRows - sinkRows} of ${acceptedRows} accepted rows are missing`);
  }
  if (sinkRows > acceptedRows + unansweredRows) {
    problems.push(
      `${sinkRows} rows arrived of ${acceptedRows} to ${acceptedRows + unansweredRows}`,
    );
  }
  if (stored !== sinkRows) problems.push(`${stored} rows count as stored, ${sinkRows} are there`);
  if (received !== rejected + stored + dead + held + lost) {
    problems.push("the books do not balance");
  }
  for (const [what, rows] of Object.entries({ rejected, dead, held, lost })) {
    if (rows > 0) problems.push(`${rows} rows are ${what}`);
  }
  for (const [status, times] of settled.statuses) {
    if (times > 0 && !["200", "202", "429"].includes(status)) {
      problems.push(`${times} requests were answered with ${status}`);
    }
  }
  return problems;
}
