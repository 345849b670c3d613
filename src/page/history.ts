/**
 * The hour that has passed, one sample a second, in memory that is taken once: a ring for each series.
 *
 * Promises: samples come out in the order of their time, at most `size` of them. Where the wall clock
 * is set back, what lies ahead of it is forgotten: a chart has no use for two pasts.
 */

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

/** As many digits as anybody sees: the hour is sent to every new viewer. */
export function tidy(value: number): number | null {
  if (!Number.isFinite(value)) return null;
  return Math.abs(value) >= 1e6 ? Math.round(value) : Math.round(value * 1000) / 1000;
}
