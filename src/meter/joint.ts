/**
 * One ledger for several processes: each reports its counts since it started, and what has come since
 * its last report goes into the ledger.
 *
 * Promises: the books balance at every moment, and no count but `held` ever goes down, whoever dies.
 * What a process held that died stays `held`, owed by its successor: the rows that this one finds in
 * the spool are the same, so they are not `recovered` once more (those beyond are: they were taken
 * after the last report). Once it has read all of the spool, what is still owed is gone from there:
 * stored in the moment between the last report and the death where rows are on disk before they are
 * acknowledged, else lost.
 */

import type { Counts } from "../contracts.ts";
import { type RowCount, rowsKey } from "./counts.ts";
import type { MeteredLedger } from "./ledger.ts";

export interface Joint {
  /** @param counts of process number `process` since it started. */
  took(process: number, counts: Counts): void;
  /** It has died, having reported what it could; the next report is its successor's. */
  died(process: number): void;
  /** Nothing that it owes is to be found any more. */
  settle(process: number, fate: "stored" | "lost"): void;
  /** Held rows, by table, of those that have died and were not found yet. */
  owed(): ReadonlyMap<string, number>;
}

interface Account {
  reported: Counts;
  /** By table. */
  readonly owed: Map<string, number>;
}

export function createJoint(ledger: Pick<MeteredLedger, "add">): Joint {
  const accounts = new Map<number, Account>();
  const accountOf = (process: number): Account => {
    const known = accounts.get(process) ?? { reported: {}, owed: new Map() };
    accounts.set(process, known);
    return known;
  };
  const move = (table: string, count: RowCount, rows: number) =>
    ledger.add(rowsKey(table, count), rows);

  function found(owed: Map<string, number>, table: string, rows: number): void {
    const same = Math.min(rows, owed.get(table) ?? 0);
    owed.set(table, (owed.get(table) ?? 0) - same);
    move(table, "recovered", rows - same);
    move(table, "held", -same);
  }

  return {
    took(process, counts) {
      const account = accountOf(process);
      const { reported, owed } = account;
      account.reported = counts;
      // What is zero is left out of a report.
      for (const key of new Set([...Object.keys(reported), ...Object.keys(counts)])) {
        const by = (counts[key] ?? 0) - (reported[key] ?? 0);
        if (by === 0) continue;
        const [kind, table = "", count] = owed.size > 0 ? JSON.parse(key) : [];
        if (kind === "rows" && count === "recovered") found(owed, table, by);
        else ledger.add(key, by);
      }
    },

    died(process) {
      const account = accountOf(process);
      for (const [key, rows] of Object.entries(account.reported)) {
        const [kind, table, count] = JSON.parse(key);
        if (kind !== "rows" || count !== "held") continue;
        account.owed.set(table, (account.owed.get(table) ?? 0) + rows);
      }
      account.reported = {};
    },

    settle(process, fate) {
      const { owed } = accountOf(process);
      for (const [table, rows] of owed) {
        move(table, "held", -rows);
        move(table, fate, rows);
      }
      owed.clear();
    },

    owed() {
      const all = new Map<string, number>();
      for (const { owed } of accounts.values()) {
        for (const [table, rows] of owed) all.set(table, (all.get(table) ?? 0) + rows);
      }
      return all;
    },
  };
}
