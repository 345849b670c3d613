/**
 * What the page shows of this moment, beside the sample: state, books, tables, event types. Only made
 * while somebody looks. Bounded: the 20 busiest event types, and of the tables those in trouble before
 * the busiest; the first reasons of a state; and how many more there are.
 */

import type { Control, Holdings, LedgerTotals, Status } from "../contracts.ts";
import type { PageLedger } from "./sampler.ts";

export interface MomentDeps {
  readonly ledger: PageLedger;
  readonly holdings: Holdings;
  readonly control: Pick<Control, "status" | "unready">;
}

const MOST = 20;
const MOST_REASONS = 5;

/** What the page is told of this moment. */
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
