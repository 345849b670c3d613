/**
 * Keeps the past hour, and makes what viewers are sent: the hour at first, then each moment. One sample a
 * second costs some microseconds; texts are made only while a viewer waits for them.
 */

import type { Control, Holdings, LedgerTotals, Status } from "../contracts.ts";
import type { PageMoment, PageSource } from "./live.ts";
import { type Problems, sentenceOf } from "./problems.ts";
import {
  createHistory,
  createSampler,
  type PageLedger,
  type SamplerDeps,
  SERIES,
  tidy,
} from "./samples.ts";

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
