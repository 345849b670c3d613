/**
 * How long to wait after the n-th failure in a row: exponential with full jitter, so that many
 * collectors do not come back in step ("Exponential Backoff And Jitter", AWS Architecture Blog).
 */

export interface BackoffLimits {
  readonly leastMs: number;
  readonly mostMs: number;
}

export const RETRY: BackoffLimits = { leastMs: 250, mostMs: 30_000 };
/** While stopping there is little time: a probe goes out at least every half second. */
export const HURRY: BackoffLimits = { leastMs: 100, mostMs: 500 };

/**
 * @param failures in a row, 1 after the first.
 * @param random uniform in [0, 1).
 * @returns milliseconds between `leastMs` and `leastMs * 2^failures`, at most `mostMs`.
 */
export function backoffMs(failures: number, random: number, limits: BackoffLimits): number {
  const ceiling = Math.min(limits.mostMs, limits.leastMs * 2 ** Math.min(failures, 30));
  return limits.leastMs + random * Math.max(0, ceiling - limits.leastMs);
}
