/** What several processes hold, are and lack, taken together. */

import type { Holdings, Ledger, LedgerTotals, Report, State, Status } from "../contracts.ts";

type RowsByTable = ReadonlyMap<string, number>;

/** @param owed rows, by table, that lie on disk and that no process has found yet. */
export function holdingsOf(reports: () => readonly Report[], owed: () => RowsByTable): Holdings {
  const sum = (of: (held: Report["held"]) => number) =>
    reports().reduce((total, { held }) => total + of(held), 0);
  return {
    rows: () => sum(({ rows }) => rows) + [...owed().values()].reduce((all, rows) => all + rows, 0),
    memoryBytes: () => sum(({ memoryBytes }) => memoryBytes),
    spoolBytes: () => sum(({ spoolBytes }) => spoolBytes),
    oldestMs: () => Math.max(0, ...reports().map(({ held }) => held.oldestMs)),
    byTable() {
      const rows = new Map(owed());
      for (const { held } of reports()) {
        for (const [table, count] of Object.entries(held.byTable)) {
          rows.set(table, (rows.get(table) ?? 0) + count);
        }
      }
      return rows;
    },
  };
}

/** Each reason once. */
export function unreadyOf(reports: readonly Report[], more: readonly string[]): string[] {
  return [...new Set([...more, ...reports.flatMap(({ unready }) => unready)])];
}

/** @param own what concerns all; null where the processes know better. */
export function stateOf(
  reports: readonly Report[],
  own: "stopped" | "draining" | "paused" | null,
  down: readonly string[],
): State {
  if (own !== null) return own;
  const degraded = down.length > 0 || reports.some(({ status }) => status.state === "degraded");
  return degraded ? "degraded" : "running";
}

/** The tables of the ledger, with the first trouble that a process has with each. */
export function tablesOf(reports: readonly Report[], ledger: Ledger): Status["tables"] {
  const troubles = new Map<string, string>();
  for (const { status } of reports) {
    for (const [table, { trouble }] of Object.entries(status.tables)) {
      if (trouble !== undefined && !troubles.has(table)) troubles.set(table, trouble);
    }
  }
  const described = (table: string, totals: LedgerTotals) => {
    const trouble = troubles.get(table);
    return trouble === undefined
      ? { ...totals, state: "ok" as const }
      : { ...totals, state: "trouble" as const, trouble };
  };
  return Object.fromEntries(
    [...ledger.tableTotals()].map(([table, totals]) => [table, described(table, totals)]),
  );
}
