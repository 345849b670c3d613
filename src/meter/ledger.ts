/**
 * The ledger: the one place where counts live. Everything that shows a number reads it from here.
 *
 * Promises: received + recovered = rejected + stored + dead + held + lost, in every table and in
 * total, at every moment; the counts by event type add up to the rows. All calls are synchronous,
 * cost a few map look-ups per request and allocate nothing per row.
 *
 * Memory is bounded whatever names arrive, and names are steady: tables and event types beyond their
 * bounds share the account `other`; the first ones keep their own until the process ends, so that a row
 * which was counted under a name when it was accepted is counted under the same name when it is stored.
 *
 * `held` follows from the calls (accepted, settled, lost); `Holdings` measures the same thing where
 * the rows are, and the two must agree.
 */

import { Buffer } from "node:buffer";
import type {
  Ledger,
  LedgerTotals,
  Shape,
  SourceTotals,
  TableChanged,
  TokenTotals,
  TypeTotals,
} from "../contracts.ts";
import { boundedLabel } from "./label.ts";

/** Where everything beyond a bound is counted. */
const OTHER = "other";

const MAX_TABLES = 1000;
const MAX_REASONS = 32;
const MAX_CODES = 200;
const MAX_COMMANDS = 16;
/** As many as may be set; those of earlier settings count along. */
const MAX_TOKENS = 1000;
const MAX_SUBJECTS = 200;
/** Those of earlier settings count along. */
const MAX_SOURCES = 1000;
const RECENT_INSERTS = 1000;

// deno-fmt-ignore
const REQUEST_SECONDS =
  [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const INSERT_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const INSERT_ROWS = [1, 10, 100, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000];

/** The ledger with what only metrics read. Counts are since the process started. */
export interface MeteredLedger extends Ledger {
  /** Accepted events by event type, all tables of shape `event` together. */
  eventTotals(): ReadonlyMap<string, number>;
  /** The name under which a table's rows are counted. */
  tableLabel(table: string): string;
  rejections(): Iterable<{ table: string; reason: string; rows: number }>;
  /** `code` is `other` beyond the bound. */
  insertErrors(): Iterable<{ table: string; code: string; count: number }>;
  /** Of tables whose INSERTs get longer than insert-timeout. */
  insertTimeouts(): Iterable<{ table: string; ms: number }>;
  /** `status` is `other` for what is no HTTP status. */
  httpStatuses(): Iterable<{ status: string; count: number }>;
  controls(): Iterable<{ command: string; ok: boolean; count: number }>;
  mirrorErrors(): number;
  readonly requestSeconds: Histogram;
  readonly insertSeconds: Histogram;
  readonly insertRows: Histogram;
}

/** 0 when the books balance, else by how many rows the left side is too large. */
export function balance(totals: LedgerTotals): number {
  const { received, recovered, rejected, stored, dead, held, lost } = totals;
  return received + recovered - (rejected + stored + dead + held + lost);
}

/** @param options.maxEventTypes event types with a name of their own, all tables together. */
export function createLedger(
  { maxEventTypes = 1000 }: { readonly maxEventTypes?: number } = {},
): MeteredLedger {
  const books = createBooks(maxEventTypes);
  /** By status, so that the usual one costs no text; those that are none at 0. */
  const statuses = new Float64Array(600);
  const commands = new Map<string, { ok: number; failed: number }>();
  const tokens = new Map<string, TokenAccount>();
  const changes: Record<TableChanged, number> = { created: 0, columns: 0, widened: 0 };
  const tokenAccount = (label: string): TokenAccount => {
    const known = tokens.get(label);
    if (known !== undefined) return known;
    const name = tokens.size < MAX_TOKENS ? label : OTHER;
    const account = tokens.get(name) ?? { rows: 0, bytes: 0, refused: { right: 0, quota: 0 } };
    tokens.set(name, account);
    return account;
  };
  const subjects = new Map<string, number>();
  const sources = new Map<string, SourceTotals>();
  const requestSeconds = new Histogram(REQUEST_SECONDS);
  const insertSeconds = new Histogram(INSERT_SECONDS);
  const insertRows = new Histogram(INSERT_ROWS);
  const recentMs = new Recent(RECENT_INSERTS);
  let mirrorErrors = 0;
  const work = { inserts: 0, retries: 0 };

  return {
    // Rows have no types of their own: for them `types` is empty.
    accepted({ table: name, shape, rows, types }) {
      const table = books.table(name);
      table.received += rows;
      table.held += rows;
      if (shape === "row") books.type(table, shape, "").accepted += rows;
      types.forEach((count, type) => books.type(table, shape, type).accepted += count);
    },

    recovered(name, rows) {
      const table = books.table(name);
      table.recovered += rows;
      table.held += rows;
    },

    rejected(name, reason, rows) {
      const table = books.table(name);
      table.received += rows;
      table.rejected += rows;
      bump(table.reasons, reason, rows, MAX_REASONS);
    },

    died(name, messages) {
      const table = books.table(name);
      table.received += messages;
      table.dead += messages;
    },

    source(name) {
      const own = sources.has(name) || sources.size < MAX_SOURCES ? name : OTHER;
      const totals = sources.get(own) ??
        { messages: 0, empty: 0, dead: 0, repeated: 0, dropped: 0, rows: 0, reconnects: 0 };
      sources.set(own, totals);
      return totals;
    },

    sourceTotals: () => sources,

    settled({ table: name, shape, rows, types }, dead, deadTypes) {
      const table = books.table(name);
      table.held -= rows;
      table.stored += rows - dead;
      table.dead += dead;
      if (shape === "row") books.type(table, shape, "").stored += rows - dead;
      types.forEach((count, type) => {
        books.type(table, shape, type).stored += count - (deadTypes.get(type) ?? 0);
      });
    },

    lost({ table: name, rows }) {
      const table = books.table(name);
      table.held -= rows;
      table.lost += rows;
    },

    insert(_table, rows, durationMs) {
      work.inserts++;
      insertRows.observe(rows);
      insertSeconds.observe(durationMs / 1000);
      recentMs.add(durationMs);
    },

    insertError(table, code) {
      work.retries++;
      bump(books.table(table).codes, String(code), 1, MAX_CODES);
    },

    insertTimeout(table, ms) {
      books.table(table).insertTimeoutMs = ms;
    },

    acknowledged(durationMs) {
      requestSeconds.observe(durationMs / 1000);
    },

    http(status) {
      const valid = Number.isInteger(status) && status >= 100 && status <= 599;
      statuses[valid ? status : 0]!++;
    },

    mirrorError() {
      mirrorErrors++;
    },

    control(command, ok) {
      const name = commands.has(command) || commands.size < MAX_COMMANDS ? command : OTHER;
      const count = commands.get(name) ?? { ok: 0, failed: 0 };
      if (ok) count.ok++;
      else count.failed++;
      commands.set(name, count);
    },

    certified: (subject) => bump(subjects, subject, 1, MAX_SUBJECTS),
    subjects: () => subjects,

    tokenTook(label, rows, bytes) {
      const account = tokenAccount(label);
      account.rows += rows;
      account.bytes += bytes;
    },

    tokenRefused(label, why) {
      tokenAccount(label).refused[why]++;
    },

    tokenTotals: () => tokens,

    tableChanged(what) {
      changes[what]++;
    },

    tableChanges: () => changes,

    totals: () => totalsOf(books.all()),

    tableTotals() {
      return new Map([...books.all()].map((table) => [table.name, totalsOf([table])]));
    },

    *typeTotals(): Generator<TypeTotals> {
      for (const table of books.all()) {
        for (const { name, accepted, stored } of table.types.values()) {
          yield { table: table.name, eventType: name, accepted, stored };
        }
      }
    },

    work() {
      const [insertMsP50 = 0, insertMsP99 = 0] = recentMs.quantiles(0.5, 0.99);
      return { ...work, insertMsP50, insertMsP99 };
    },

    eventTotals() {
      const events = new Map<string, number>();
      for (const { types } of books.all()) {
        for (const { name, shape, accepted } of types.values()) {
          if (shape === "event") events.set(name, (events.get(name) ?? 0) + accepted);
        }
      }
      return events;
    },

    tableLabel: books.label,

    *rejections() {
      for (const { name, reasons } of books.all()) {
        for (const [reason, rows] of reasons) yield { table: name, reason, rows };
      }
    },

    *insertErrors() {
      for (const { name, codes } of books.all()) {
        for (const [code, count] of codes) yield { table: name, code, count };
      }
    },

    *insertTimeouts() {
      for (const { name, insertTimeoutMs } of books.all()) {
        if (insertTimeoutMs !== null) yield { table: name, ms: insertTimeoutMs };
      }
    },

    *httpStatuses() {
      for (const [status, count] of statuses.entries()) {
        if (count > 0) yield { status: status === 0 ? OTHER : String(status), count };
      }
    },

    *controls() {
      for (const [command, { ok, failed }] of commands) {
        if (ok > 0) yield { command, ok: true, count: ok };
        if (failed > 0) yield { command, ok: false, count: failed };
      }
    },

    mirrorErrors: () => mirrorErrors,
    requestSeconds,
    insertSeconds,
    insertRows,
  };
}

interface TokenAccount extends TokenTotals {
  rows: number;
  bytes: number;
  readonly refused: { right: number; quota: number };
}

function bump(counts: Map<string, number>, name: string, by: number, bound: number): void {
  const key = counts.has(name) || counts.size < bound ? name : OTHER;
  counts.set(key, (counts.get(key) ?? 0) + by);
}

// ── The accounts: one per table, one per event type in it. A known name is one map look-up.

/** Of one event type in one table; `name` is `""` for rows that have no event type. */
interface TypeAccount {
  readonly name: string;
  readonly shape: Shape;
  accepted: number;
  stored: number;
}

interface TableAccount {
  readonly name: string;
  received: number;
  recovered: number;
  rejected: number;
  stored: number;
  dead: number;
  held: number;
  lost: number;
  readonly types: Map<string, TypeAccount>;
  /** Rejected rows by reason. */
  readonly reasons: Map<string, number>;
  /** Failed inserts by code. */
  readonly codes: Map<string, number>;
  insertTimeoutMs: number | null;
}

interface Books {
  /** The account that rows of this table are counted in; made when it is missing. */
  table(name: string): TableAccount;
  type(table: TableAccount, shape: Shape, name: string): TypeAccount;
  /** The name of the account that `table` would give, without making one. */
  label(name: string): string;
  all(): Iterable<TableAccount>;
}

/** @param maxEventTypes event types with an account of their own, all tables together. */
function createBooks(maxEventTypes: number): Books {
  const tables = new Map<string, TableAccount>();
  let ownTypes = 0;

  function label(name: string): string {
    const bounded = boundedLabel(name);
    return tables.has(bounded) || tables.size < MAX_TABLES ? bounded : OTHER;
  }

  return {
    label,
    all: () => tables.values(),

    table(name) {
      const known = tables.get(name) ?? tables.get(label(name));
      if (known !== undefined) return known;
      const made = newTable(copyOf(label(name)));
      tables.set(made.name, made);
      return made;
    },

    type(table, shape, name) {
      const known = table.types.get(name);
      if (known !== undefined) return known;
      let own = boundedLabel(name);
      if (shape === "event" && !table.types.has(own)) {
        if (ownTypes < maxEventTypes) ownTypes++;
        else own = OTHER;
      }
      const shared = table.types.get(own);
      if (shared !== undefined) return shared;
      const made = { name: copyOf(own), shape, accepted: 0, stored: 0 };
      table.types.set(made.name, made);
      return made;
    },
  };
}

/** The seven numbers of some accounts together. */
function totalsOf(accounts: Iterable<TableAccount>): LedgerTotals {
  const sum = { received: 0, recovered: 0, rejected: 0, stored: 0, dead: 0, held: 0, lost: 0 };
  for (const account of accounts) {
    sum.received += account.received;
    sum.recovered += account.recovered;
    sum.rejected += account.rejected;
    sum.stored += account.stored;
    sum.dead += account.dead;
    sum.held += account.held;
    sum.lost += account.lost;
  }
  return sum;
}

function newTable(name: string): TableAccount {
  return {
    name,
    received: 0,
    recovered: 0,
    rejected: 0,
    stored: 0,
    dead: 0,
    held: 0,
    lost: 0,
    types: new Map(),
    reasons: new Map(),
    codes: new Map(),
    insertTimeoutMs: null,
  };
}

/** A string of its own: one cut out of a request's body may keep the whole body alive. */
function copyOf(text: string): string {
  return Buffer.from(text).toString();
}

// ── Distributions that cost an array increment per observation: no label objects, no allocation.
// prom-client's own histogram hashes labels on every call; this one is only rendered through it.

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
class Recent {
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
