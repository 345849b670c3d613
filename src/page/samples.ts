/**
 * The hour that has passed, one sample a second: what the ledger and the holdings say, as a rate where it
 * is a count. They are the very counts behind `/metrics`; nothing is counted here. The samples lie in
 * memory that is taken once, a ring for each series.
 *
 * Promises: samples come out in the order of their time, at most `size` of them. Where the wall clock
 * is set back, what lies ahead of it is forgotten: a chart has no use for two pasts.
 */

import type { Clock, Holdings, Ledger } from "../contracts.ts";

/** What a sample says; the page is sent them in this order. Counts of a second are per second. */
export const SERIES = [
  "received",
  "stored",
  "held",
  "memoryBytes",
  "spoolBytes",
  "oldestS",
  "p50Ms",
  "p99Ms",
  "retries",
  "dead",
] as const;

/** Not a number where there is nothing to tell, as of INSERTs that were not sent. */
export type Values = Readonly<Record<typeof SERIES[number], number>>;

export interface History {
  /** @param atMs wall clock, epoch milliseconds. */
  add(atMs: number, values: Values): void;
  /** `[at, …SERIES]`, oldest first; seconds since the epoch, and null for what is not a number. */
  columns(): (number | null)[][];
  size(): number;
}

const SAMPLES_AN_HOUR = 3600;

export function createHistory(size: number = SAMPLES_AN_HOUR): History {
  const rings = [null, ...SERIES].map(() => new Float64Array(size));
  let added = 0;
  let kept = 0;

  return {
    add(atMs, values) {
      const atS = Math.round(atMs) / 1000;
      for (; kept > 0 && rings[0]![(added - 1) % size]! >= atS; kept--) added--;
      const at = added++ % size;
      rings[0]![at] = atS;
      for (const [index, name] of SERIES.entries()) rings[index + 1]![at] = values[name];
      kept = Math.min(kept + 1, size);
    },

    columns() {
      const order = Array.from({ length: kept }, (_, at) => (added - kept + at) % size);
      return rings.map((ring, index) =>
        order.map((at) => index === 0 ? ring[at]! : tidy(ring[at]!))
      );
    },

    size: () => kept,
  };
}

/** As many digits as are shown: the hour is sent to every new viewer. */
export function tidy(value: number): number | null {
  if (!Number.isFinite(value)) return null;
  return Math.abs(value) >= 1e6 ? Math.round(value) : Math.round(value * 1000) / 1000;
}

// ── One sample.

/** The part of the ledger that the page reads. */
export interface PageLedger extends Pick<Ledger, "totals" | "tableTotals" | "typeTotals" | "work"> {
  /** Of successful INSERTs, seconds. */
  readonly insertSeconds: Buckets;
}

export interface SamplerDeps {
  readonly ledger: PageLedger;
  readonly holdings: Holdings;
  readonly clock: Clock;
}

/** Rates are over so many samples: batches go out about once a second, and are seen in no steady beat. */
const RATE_SAMPLES = 5;
/** Quantiles are of the INSERTs of so many. */
const INSERT_SAMPLES = 10;

/** @returns what takes the next sample. */
export function createSampler({ ledger, holdings, clock }: SamplerDeps): () => Values {
  const inserts = createWindow(INSERT_SAMPLES);
  const counts = () => {
    const { received, stored, dead } = ledger.totals();
    return { atMs: clock.monotonicMs(), received, stored, dead, retries: ledger.work().retries };
  };
  const earlier = [counts()];
  inserts.slide(ledger.insertSeconds.counts);

  return () => {
    const now = counts();
    earlier.push(now);
    if (earlier.length > RATE_SAMPLES + 1) earlier.shift();
    const before = earlier[0]!;
    const passedS = Math.max(0.001, (now.atMs - before.atMs) / 1000);
    const rate = (name: keyof typeof now) => Math.max(0, now[name] - before[name]) / passedS;
    const { bounds } = ledger.insertSeconds;
    const recent = { bounds, counts: inserts.slide(ledger.insertSeconds.counts) };
    return {
      received: rate("received"),
      stored: rate("stored"),
      held: holdings.rows(),
      memoryBytes: holdings.memoryBytes(),
      spoolBytes: holdings.spoolBytes(),
      oldestS: holdings.oldestMs() / 1000,
      p50Ms: quantile(recent, 0.5) * 1000,
      p99Ms: quantile(recent, 0.99) * 1000,
      retries: rate("retries"),
      dead: rate("dead"),
    };
  };
}

// ── Quantiles of what fell into buckets lately.

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
interface Window {
  /** @param counts as they stand; @returns what came within the window. */
  slide(counts: ArrayLike<number>): Float64Array;
}

/** @param calls how many of them the window holds. */
function createWindow(calls: number): Window {
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
