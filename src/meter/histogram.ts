/**
 * Distributions that cost an array increment per observation: no label objects, no allocation.
 * prom-client's own histogram hashes labels on every call; this one is only rendered through it.
 */

/** Fixed buckets, as Prometheus wants them. */
export class Histogram {
  /** Observations per bucket, not cumulative; the last one counts what is above every bound. */
  readonly counts: Float64Array;
  sum = 0;
  count = 0;

  /** @param bounds upper bounds, inclusive, ascending. */
  constructor(readonly bounds: readonly number[]) {
    this.counts = new Float64Array(bounds.length + 1);
  }

  /** Anything but a finite number is left out: it would spoil the sum for ever. */
  observe(value: number): void {
    if (!Number.isFinite(value)) return;
    let at = 0;
    while (at < this.bounds.length && value > this.bounds[at]!) at++;
    this.counts[at]!++;
    this.sum += value;
    this.count++;
  }
}

/** The last `size` values, for quantiles of what happened recently. */
export class Recent {
  private readonly ring: Float64Array;
  private seen = 0;

  constructor(size: number) {
    this.ring = new Float64Array(size);
  }

  add(value: number): void {
    if (!Number.isFinite(value)) return;
    this.ring[this.seen % this.ring.length] = value;
    this.seen++;
  }

  /** Nearest-rank quantiles of what is remembered, in the order asked; zeros while there is none. */
  quantiles(...wanted: readonly number[]): number[] {
    const sorted = this.ring.slice(0, Math.min(this.seen, this.ring.length)).sort();
    return wanted.map((q) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? 0);
  }
}
