/**
 * One sample: what the ledger and the holdings say, as a rate where it is a count. They are the very
 * counts behind `/metrics`; nothing is counted here.
 */

import type { Clock, Holdings, Ledger } from "../contracts.ts";
import type { Values } from "./history.ts";
import { type Buckets, createWindow, quantile } from "./quantile.ts";

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
