/**
 * A ledger as plain numbers that add up, and back: how the counts of several processes become one
 * ledger. What only the process that talks to InfluxDB and NATS counts is left out.
 */

import type { Counts, Shape } from "../contracts.ts";
import type { Books, TableAccount } from "./books.ts";
import type { Histogram } from "./histogram.ts";

/** What a ledger counts in. */
export interface Inside {
  readonly books: Books;
  /** By status. */
  readonly statuses: Float64Array;
  readonly work: { inserts: number; retries: number };
  readonly histograms: Readonly<Record<string, Histogram>>;
  /** Counts under `other` beyond the bound. */
  readonly reason: (table: TableAccount, name: string, by: number) => void;
  readonly code: (table: TableAccount, name: string, by: number) => void;
}

const ROWS = ["received", "recovered", "rejected", "stored", "dead", "held", "lost"] as const;
export type RowCount = typeof ROWS[number];

/** Where the rows of a table stand. */
export const rowsKey = (table: string, count: RowCount): string =>
  JSON.stringify(["rows", table, count]);

export function countsOf({ books, statuses, work, histograms }: Inside): Counts {
  const counts: Record<string, number> = {};
  const put = (count: number, ...path: (string | number)[]) => {
    if (count !== 0) counts[JSON.stringify(path)] = count;
  };
  for (const table of books.all()) {
    for (const count of ROWS) put(table[count], "rows", table.name, count);
    for (const { name, shape, accepted, stored } of table.types.values()) {
      put(accepted, "type", table.name, shape, name, "accepted");
      put(stored, "type", table.name, shape, name, "stored");
    }
    for (const [reason, rows] of table.reasons) put(rows, "reason", table.name, reason);
    for (const [code, times] of table.codes) put(times, "code", table.name, code);
  }
  statuses.forEach((count, status) => put(count, "http", status));
  put(work.inserts, "work", "inserts");
  put(work.retries, "work", "retries");
  for (const [name, { counts, sum }] of Object.entries(histograms)) {
    counts.forEach((count, at) => put(count, "histogram", name, at));
    put(sum, "histogram", name, "sum");
  }
  return counts;
}

/** Throws for a path that `countsOf` does not make: both ends are the same program. */
export function addCount({ books, ...inside }: Inside, key: string, by: number): void {
  const [kind, ...path] = JSON.parse(key) as [string, ...string[]];
  const [name = "", second = "", third = "", fourth = ""] = path;
  switch (kind) {
    case "rows":
      books.table(name)[second as RowCount] += by;
      break;
    case "type":
      books.type(books.table(name), second as Shape, third)[fourth as "accepted" | "stored"] += by;
      break;
    case "reason":
      inside.reason(books.table(name), second, by);
      break;
    case "code":
      inside.code(books.table(name), second, by);
      break;
    case "http":
      inside.statuses[Number(name)]! += by;
      break;
    case "work":
      inside.work[name as "inserts" | "retries"] += by;
      break;
    case "histogram":
      inside.histograms[name]!.add(second === "sum" ? second : Number(second), by);
      break;
    default:
      throw new Error(`no count is called ${key}`);
  }
}
