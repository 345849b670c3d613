/**
 * Says in the log how a backlog drains. After an outage that can take minutes, and an operator wants
 * to know three things: that it moves, how fast, and how much is left. A line when it begins to move,
 * one every few seconds, one when it is gone; silence while nothing moves and in everyday work.
 */

import type { Clock, Log } from "../contracts.ts";
import { repeat } from "../kernel/time.ts";

/** Rows that could leave; those of a table in trouble wait for something else. */
export interface Backlog {
  readonly rows: number;
  /** Age of the oldest of them, milliseconds; 0 while there is none. */
  readonly oldestMs: number;
}

export interface ProgressDeps {
  readonly backlog: () => Backlog;
  /** Rows whose fate is known since the start. */
  readonly settledRows: () => number;
  readonly clock: Clock;
  readonly log: Log;
  /** A batch may be this old in everyday work. */
  readonly flushIntervalMs: () => number;
}

const LOOK_MS = 1_000;
/** Between two lines. */
const TELL_MS = 5_000;
/** A backlog is what is older than this, or has so many rows that are older than they should be. */
const OLD_MS = 60_000;
const MANY_ROWS = 10_000;
const LATE_LEAST_MS = 5_000;
const LATE_FLUSHES = 5;

/** Where a drain has got to. */
interface Drain {
  readonly sinceMs: number;
  readonly settledBefore: number;
  toldMs: number;
  toldSettled: number;
}

/** Looks once a second. @returns what ends it. */
export function startProgress(deps: ProgressDeps): () => void {
  const { clock, log } = deps;
  let drain: Drain | null = null;
  let wasBehind = false;
  let settled = deps.settledRows();
  let settledMs = clock.monotonicMs();

  function look(): void {
    const nowMs = clock.monotonicMs();
    const lateMs = Math.max(LATE_LEAST_MS, LATE_FLUSHES * deps.flushIntervalMs());
    const { rows, oldestMs } = deps.backlog();
    const before = settled;
    const beforeMs = settledMs;
    settled = deps.settledRows();
    settledMs = nowMs;
    const behind = oldestMs >= OLD_MS || rows >= MANY_ROWS && oldestMs >= lateMs;
    // What was behind at the last look may be all but gone at this one.
    const began = drain === null && (behind || wasBehind) && settled > before;
    wasBehind = behind;
    if (drain === null) {
      if (!began) return;
      drain = { sinceMs: beforeMs, settledBefore: before, toldMs: beforeMs, toldSettled: before };
    }
    if (oldestMs < lateMs) {
      log.info("the backlog is drained", {
        rows: settled - drain.settledBefore,
        rows_per_s: perSecond(settled - drain.settledBefore, nowMs - drain.sinceMs),
        took_s: seconds(nowMs - drain.sinceMs),
      });
      drain = null;
      return;
    }
    if (!began && (nowMs - drain.toldMs < TELL_MS || settled === drain.toldSettled)) return;
    log.info("draining the backlog", {
      rows_held: rows,
      rows_per_s: perSecond(settled - drain.toldSettled, nowMs - drain.toldMs),
      oldest_s: seconds(oldestMs),
    });
    drain.toldMs = nowMs;
    drain.toldSettled = settled;
  }

  return repeat(clock, LOOK_MS, look);
}

function perSecond(rows: number, ms: number): number {
  return Math.round(rows / Math.max(1, ms) * 1000);
}

function seconds(ms: number): number {
  return Math.round(ms / 100) / 10;
}
