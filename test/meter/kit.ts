/** What the tests of the meter room share: rows without bytes, and a model of who holds them. */

import type { Batch, Chunk, Holdings, Shape, TypeCounts } from "../../src/contracts.ts";

/** A chunk or batch as far as the ledger looks at it. */
export function rows(table: string, shape: Shape, count: number, types: TypeCounts = new Map()) {
  return { table, shape, rows: count, types } as Chunk & Batch;
}

/** Events with these counts by type. */
export function events(types: Readonly<Record<string, number>>, table = "analytics_events") {
  const counts = new Map(Object.entries(types));
  return rows(table, "event", [...counts.values()].reduce((sum, count) => sum + count, 0), counts);
}

/** Holdings that a test fills by hand. */
export function fixedHoldings(byTable: ReadonlyMap<string, number> = new Map()): Holdings {
  return {
    rows: () => [...byTable.values()].reduce((sum, count) => sum + count, 0),
    memoryBytes: () => 4096,
    spoolBytes: () => 8192,
    oldestMs: () => 1500,
    byTable: () => byTable,
  };
}
