/**
 * Keeps the past hour in samples, and makes what viewers are sent: the hour at first, then each moment. One sample a
 * second costs some microseconds; texts are made only while a viewer waits for them.
 */

import type { Clock, Control, Holdings, Ledger, LedgerTotals, Status } from "../contracts.ts";
import type { PageMoment, PageSource } from "./live.ts";
import { type Problems, sentenceOf } from "./problems.ts";

export interface RecorderDeps extends MomentDeps, SamplerDeps {
  readonly problems: Problems;
  /** Read for each page that is opened. */
  readonly about: () => About;
}

/** Of the settings, what the page shows. */
export interface About {
  readonly group: string;
  readonly id: string;
  readonly version: string;
  readonly runtime: string;
  /** The table behind `POST /events`. */
  readonly table: string;
  /** Names and globs behind `POST /events/TABLE`. */
  readonly tables: readonly string[];
  readonly backlog: number;
  readonly backlogBytes: number;
  readonly spoolMaxBytes: number;
  /** Where the page is served; false: on an admin port. */
  readonly takesEvents: boolean;
}

export interface Recorder extends PageSource {
  /** Takes a sample. To be called about once a second. */
  sample(): void;
}

export function createRecorder(deps: RecorderDeps): Recorder {
  const { clock, problems } = deps;
  const history = createHistory();
  const take = createSampler(deps);
  let last: (number | null)[] = [clock.nowMs() / 1000, ...SERIES.map(() => null)];
  let tellNext = (_moment: PageMoment) => {};
  let next: Promise<PageMoment> | null = null;

  const moment = (): PageMoment => ({
    now: JSON.stringify(momentOf(deps, last)),
    problems: JSON.stringify(
      problems.list().map(({ fields, message, ...problem }) => ({
        ...problem,
        ...(typeof fields.table === "string" ? { table: fields.table } : {}),
        ...(typeof fields.batch === "string" ? { batch: fields.batch } : {}),
        text: sentenceOf({ message, fields }),
      })),
    ),
  });

  return {
    sample() {
      const nowMs = clock.nowMs();
      const values = take();
      history.add(nowMs, values);
      last = [Math.round(nowMs) / 1000, ...SERIES.map((name) => tidy(values[name]))];
      if (next === null) return;
      next = null;
      tellNext(moment());
    },

    // deno-lint-ignore require-await
    async first() {
      return {
        about: JSON.stringify(shown(deps.about())),
        past: JSON.stringify({ series: SERIES, columns: history.columns() }),
        ...moment(),
      };
    },

    next() {
      return next ??= new Promise((resolve) => tellNext = resolve);
    },
  };
}

/** These and no others: there are secrets among the settings. */
function shown(about: About): About {
  const { group, id, version, runtime, table, tables } = about;
  const { backlog, backlogBytes, spoolMaxBytes, takesEvents } = about;
  return {
    group,
    id,
    version,
    runtime,
    table,
    tables,
    backlog,
    backlogBytes,
    spoolMaxBytes,
    takesEvents,
  };
}

// ── What the page shows of this moment, beside the sample: state, books, tables, event types. Only made
// while it is looked at. Bounded: the 20 busiest event types, of the tables those in trouble before the
// busiest, of the sources those that do not read before the others; the first reasons of a state; and how many more there are.

export interface MomentDeps {
  readonly ledger: PageLedger;
  readonly holdings: Holdings;
  readonly control: Pick<Control, "status" | "unready">;
}

const MOST = 20;
const MOST_REASONS = 5;

/** What the page is sent of this moment. */
export type Moment = ReturnType<typeof momentOf>;

/** @param sample `[at, …SERIES]`. */
export function momentOf(
  { ledger, holdings, control }: MomentDeps,
  sample: readonly (number | null)[],
) {
  const status = control.status();
  const { state, uptime_s, recovering } = status;
  const { inserts, retries } = ledger.work();
  // Measured where the rows are, so that the equation can fail.
  const books = { ...status.ledger, held: holdings.rows() };
  return {
    sample,
    state,
    reasons: bounded(control.unready()),
    uptime_s,
    recovering,
    books,
    difference: differenceOf(books),
    inserts,
    retries,
    tables: top(tablesOf(status), urgency),
    types: top(typesOf(ledger), ({ accepted }) => accepted),
    sources: top(status.sources ?? [], ({ state }) => state === "running" ? 0 : 1),
  };
}

/** Every table in trouble is a reason. */
function bounded(reasons: readonly string[]): readonly string[] {
  const more = reasons.length - MOST_REASONS;
  return more <= 0 ? reasons : [...reasons.slice(0, MOST_REASONS), `and ${more} more`];
}

/** 0 when the books balance, else by how many rows the left side is too large. */
export function differenceOf(books: LedgerTotals): number {
  const { received, recovered, rejected, stored, dead, held, lost } = books;
  return received + recovered - (rejected + stored + dead + held + lost);
}

/** The first in a list that may be long, and how many are left out. */
export function top<T>(all: readonly T[], of: (one: T) => number, most: number = MOST) {
  const first = [...all].sort((a, b) => of(b) - of(a)).slice(0, most);
  return { first, more: all.length - first.length };
}

function tablesOf({ tables }: Status) {
  return Object.entries(tables).map(([table, totals]) => ({ table, ...totals }));
}

/** Rows that were found at the start keep a table busy as others do. */
function urgency({ state, received, recovered }: ReturnType<typeof tablesOf>[number]): number {
  return state === "trouble" ? Number.MAX_VALUE : received + recovered;
}

/** Rows of other shape have no event type. */
function typesOf(ledger: PageLedger) {
  return [...ledger.typeTotals()].filter(({ eventType }) => eventType !== "");
}

// ── The hour that has passed, one sample a second: what the ledger and the holdings say, as a rate where it
// is a count. They are the very counts behind `/metrics`; nothing is counted here. The samples lie in
// memory that is taken once, a ring for each series.
//
// Promises: samples come out in the order of their time, at most `size` of them. Where the wall clock
// is set back, what lies ahead of it is forgotten: a chart has no use for two pasts.

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
function tidy(value: number): number | null {
  if (!Number.isFinite(value)) return null;
  return Math.abs(value) >= 1e6 ? Math.round(value) : Math.round(value * 1000) / 1000;
}

// ── One sample.

/** The part of the ledger that the page reads. */
interface PageLedger extends Pick<Ledger, "totals" | "tableTotals" | "typeTotals" | "work"> {
  /** Of successful INSERTs, seconds. */
  readonly insertSeconds: Buckets;
}

interface SamplerDeps {
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
