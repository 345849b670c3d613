/** What is held, read off the lanes: how old, how much of each table, and what keeps it there. */

import type { Backlog } from "./progress.ts";
import type { Schedule } from "./schedule.ts";

/** What keeps rows from flowing, for people; null or empty = nothing. */
export interface Troubles {
  readonly server: string | null;
  readonly disk: string | null;
  readonly tables: ReadonlyMap<string, string>;
}

/** When the oldest held row was taken, epoch milliseconds; `otherwiseMs` while there is none. */
export function oldestTakenMs(schedule: Schedule, otherwiseMs: number): number {
  let oldestMs = otherwiseMs;
  for (const batch of schedule.held()) {
    if (batch.rows > 0) oldestMs = Math.min(oldestMs, batch.oldestMs);
  }
  return oldestMs;
}

/** Rows that could leave: those of tables in trouble wait for something else. */
export function backlogOf(schedule: Schedule, nowMs: number): Backlog {
  let rows = 0;
  let oldestMs = nowMs;
  for (const lane of schedule.lanes.values()) {
    if (lane.trouble !== null) continue;
    for (const batch of lane.held()) {
      if (batch.rows === 0) continue;
      rows += batch.rows;
      oldestMs = Math.min(oldestMs, batch.oldestMs);
    }
  }
  return { rows, oldestMs: nowMs - oldestMs };
}

export function rowsByTable(schedule: Schedule): ReadonlyMap<string, number> {
  const rows = new Map<string, number>();
  for (const batch of schedule.held()) {
    rows.set(batch.table, (rows.get(batch.table) ?? 0) + batch.rows);
  }
  return rows;
}

export function troublesOf(schedule: Schedule, disk: string | null): Troubles {
  const tables = new Map<string, string>();
  for (const lane of schedule.lanes.values()) {
    if (lane.trouble !== null) tables.set(lane.table, lane.trouble);
  }
  return { server: schedule.trouble, disk, tables };
}
