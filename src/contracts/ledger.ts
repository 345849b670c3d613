/** The books: what has happened to rows so far, and what is held at this moment. */

import type { Batch, Chunk, TypeCounts } from "./rows.ts";

/** The seven numbers of the books: received + recovered = rejected + stored + dead + held + lost. */
export interface LedgerTotals {
  readonly received: number;
  readonly recovered: number;
  readonly rejected: number;
  readonly stored: number;
  readonly dead: number;
  readonly held: number;
  readonly lost: number;
}

/** Cumulative counts of one event type in one table. */
export interface TypeTotals {
  readonly table: string;
  /** `""` for tables of shape `row`; `other` beyond the bound. */
  readonly eventType: string;
  readonly accepted: number;
  readonly stored: number;
}

/** The one place where counts live; everything that shows a number reads it from here. */
export interface Ledger {
  /** Good rows that the intake took: received, held. */
  accepted(chunk: Chunk): void;
  /** Rows that were found on disk at the start; they are held. */
  recovered(table: string, rows: number): void;
  /** Rows that were received and refused for their content. `reason` from a small fixed set. */
  rejected(table: string, reason: string, rows: number): void;
  /** A batch's rows left: some stored, some dead. `deadTypes` counts the dead ones by event type. */
  settled(batch: Batch, dead: number, deadTypes: TypeCounts): void;
  /** Held rows that are given up at the end. */
  lost(batch: Batch): void;
  /** One INSERT that was stored. */
  insert(table: string, rows: number, durationMs: number): void;
  /** One INSERT that came back without having stored its rows; `code` 0: no answer of ClickHouse. */
  insertError(table: string, code: number): void;
  /** One request from its first byte to its acknowledgement. */
  acknowledged(durationMs: number): void;
  http(status: number): void;
  mirrorError(): void;
  control(command: string, ok: boolean): void;
  totals(): LedgerTotals;
  tableTotals(): ReadonlyMap<string, LedgerTotals>;
  typeTotals(): Iterable<TypeTotals>;
  /** Since the process started; for the mirror. `retries`: INSERTs that had to be sent again. */
  work(): {
    readonly inserts: number;
    readonly retries: number;
    /** Quantiles of recent INSERT durations in milliseconds; 0 while there were none. */
    readonly insertMsP50: number;
    readonly insertMsP99: number;
  };
}

/** A whole ledger as plain numbers that add up, by path: `["rows","clicks","stored"]`. */
export type Counts = Readonly<Record<string, number>>;

/** What is held right now, measured where it is held (not computed from the counts). */
export interface Holdings {
  rows(): number;
  memoryBytes(): number;
  spoolBytes(): number;
  /** Age of the oldest row that is not yet delivered, milliseconds; 0 while there is none. */
  oldestMs(): number;
  /** Held rows by table. */
  byTable(): ReadonlyMap<string, number>;
}
