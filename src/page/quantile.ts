/** Quantiles of what fell into buckets lately. */

/** Fixed buckets: `counts` has one more than `bounds`, for what is above all of them. */
export interface Buckets {
  /** Upper bounds, inclusive, ascending. */
  readonly bounds: readonly number[];
  /** Not cumulative. */
  readonly counts: ArrayLike<number>;
}

/**
 * Taken to be spread evenly within its bucket, as Prometheus' `histogram_quantile` does; what is above
 * every bound counts as the highest of them. Not a number where nothing was observed.
 */
export function quantile({ bounds, counts }: Buckets, q: number): number {
  let total = 0;
  for (let at = 0; at < counts.length; at++) total += counts[at]!;
  if (total <= 0) return NaN;
  const rank = q * total;
  let below = 0;
  for (const [at, upper] of bounds.entries()) {
    const here = counts[at]!;
    if (here > 0 && below + here >= rank) {
      const lower = at === 0 ? 0 : bounds[at - 1]!;
      return lower + (upper - lower) * Math.max(0, rank - below) / here;
    }
    below += here;
  }
  return bounds.at(-1) ?? NaN;
}

/** The observations of the last calls: differences of counts that only grow. */
export interface Window {
  /** @param counts as they stand; @returns what came within the window. */
  slide(counts: ArrayLike<number>): Float64Array;
}

/** @param calls how many of them the window holds. */
export function createWindow(calls: number): Window {
  const earlier: Float64Array[] = [];
  return {
    slide(counts) {
      const current = Float64Array.from(counts);
      earlier.push(current);
      if (earlier.length > calls + 1) earlier.shift();
      const first = earlier[0]!;
      return current.map((count, at) => Math.max(0, count - first[at]!));
    },
  };
}
