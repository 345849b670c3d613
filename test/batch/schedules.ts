/** A schedule whose times are exact, and ways to fill and empty it. */

import { type Dispatch, Schedule, type ScheduleOptions } from "../../src/batch/schedule.ts";
import { events, fill as fillQueue } from "../kit/chunks.ts";

const ALMOST_1 = 1 - 2 ** -53;

/** One row makes a batch, chance gives the longest waits, so that times are exact. */
export function scheduleOf(options: Partial<ScheduleOptions> = {}): Schedule {
  let id = 0;
  return new Schedule({
    maxRows: 1,
    maxBytes: 1_000_000,
    flushIntervalMs: 1000,
    idleIntervalMs: null,
    concurrency: 4,
    random: () => ALMOST_1,
    mintId: () => `id-${++id}`,
    ...options,
  });
}

/** `batches` sealed batches of a table, a millisecond apart. */
export function fill(schedule: Schedule, table: string, batches: number, fromMs = 0): void {
  for (let i = 0; i < batches; i++) {
    fillQueue(schedule.queue(table), events(1, { table }), fromMs + i);
  }
}

/** Everything that may go now. */
export function takeAll(schedule: Schedule, nowMs: number): Dispatch[] {
  const taken: Dispatch[] = [];
  for (let d = schedule.next(nowMs); d !== null; d = schedule.next(nowMs)) taken.push(d);
  return taken;
}

/** The first millisecond from `fromMs` on at which something may go. */
export function firstAt(schedule: Schedule, fromMs: number): { atMs: number; dispatch: Dispatch } {
  for (let atMs = Math.floor(fromMs); atMs < fromMs + 200_000; atMs++) {
    const dispatch = schedule.next(atMs);
    if (dispatch !== null) return { atMs, dispatch };
  }
  throw new Error("nothing ever goes");
}

export const tables = (dispatches: Dispatch[]) => dispatches.map((d) => d.queue.table);
