/**
 * How long to wait after the n-th failure in a row: exponential, with jitter over the
 * whole range above a floor, so that two hundred collectors do not come back in step ("Exponential
 * Backoff And Jitter", AWS Architecture Blog).
 */

import type { Clock } from "./time.ts";

export interface BackoffLimits {
  readonly leastMs: number;
  readonly mostMs: number;
}

/**
 * @param failures in a row, 1 after the first; 0 and less count as 1.
 * @param random uniform in [0, 1).
 * @returns milliseconds between `leastMs` and `leastMs * 2^failures`, at most `mostMs`.
 */
export function backoffMs(failures: number, random: number, limits: BackoffLimits): number {
  const doublings = Math.min(Math.max(failures, 1), 30);
  const ceiling = Math.min(limits.mostMs, limits.leastMs * 2 ** doublings);
  return limits.leastMs + random * Math.max(0, ceiling - limits.leastMs);
}

/** The failures in a row of one thing that is tried again. */
export class Backoff {
  /** 0 while all is well. */
  failures = 0;

  constructor(readonly clock: Pick<Clock, "random">, readonly limits: BackoffLimits) {}

  /** Counts a failure. @returns how long to wait before the next attempt, milliseconds. */
  failed(limits: BackoffLimits = this.limits): number {
    return backoffMs(++this.failures, this.clock.random(), limits);
  }

  succeeded(): void {
    this.failures = 0;
  }
}
