/**
 * Which batch goes out next. Pure: time and chance come in, decisions go out; the pump acts.
 *
 * Two retry states. *The server's*: no answer, or none from ClickHouse itself. Then one probe goes
 * out, for all tables together, each time another table's. *A table's*: ClickHouse answered, but will
 * not take this table's rows. Then one probe for that table; the others flow. A batch that fails
 * because of its table also waits on its own, so that fresh rows pass it by.
 *
 * Silence can also be one table's fault, or one batch's: an INSERT that always runs into the timeout,
 * rows that a proxy will not let through. When others were answered between two timeouts of the same
 * table or batch, the second one counts against that table or batch, and the server stays up for the
 * others.
 */

import type { Delivery } from "../contracts.ts";
import type { HeldBatch } from "./batch.ts";
import type { Backlog } from "./progress.ts";
import { type FillLimits, TableQueue } from "./queue.ts";
import { HURRY, RETRY, RetryState } from "./retry.ts";

export interface ScheduleLimits extends FillLimits {
  /** INSERTs in flight, all tables together. */
  readonly concurrency: number;
}

export interface ScheduleOptions extends ScheduleLimits {
  readonly random: () => number;
  readonly mintId: () => string;
}

/** One batch on its way. */
export interface Dispatch {
  readonly queue: TableQueue;
  readonly batch: HeldBatch;
  /** When it left. */
  readonly sentMs: number;
  /** Failures that were counted when it left, of the server and of the table. */
  readonly serverSeen: number;
  readonly tableSeen: number;
}

/** Empty queues are remembered up to this many tables in all. */
const MAX_REMEMBERED = 256;
/** Batches are closed together that are due within this part of the flush interval, or so soon. */
const EARLY_SHARE = 0.1;
const EARLY_MS = 100;
/** As many as can be sent within this time: what waits longer would better grow. */
const TOGETHER_MS = 500;
/** And no more than these: they are what waits in memory, and the next ones go at another time. */
const MOST_TOGETHER = 32;

export class Schedule {
  /** Attempts that no server answered. */
  readonly server = new RetryState();
  readonly #queues = new Map<string, TableQueue>();
  #trouble: string | null = null;
  /** There was an answer since the last silence. */
  #answeredSince = false;
  #inFlight = 0;
  /** How long the last INSERT took. */
  #tookMs = TOGETHER_MS;
  /** Closed together last, and when they should have gone. */
  #together: readonly HeldBatch[] = [];
  #togetherUntilMs = 0;
  #hurry = false;
  #options: ScheduleOptions;

  constructor(options: ScheduleOptions) {
    this.#options = options;
  }

  /** From the next decision on. @param forgetful as if nothing had been tried yet. */
  adopt(limits: ScheduleLimits, forgetful: boolean): void {
    this.#options = { ...this.#options, ...limits };
    for (const queue of this.#queues.values()) {
      queue.adopt(this.#options);
      if (forgetful) queue.forgetTrouble();
    }
    if (!forgetful) return;
    this.#trouble = null;
    this.server.forget();
  }

  queue(table: string): TableQueue {
    const known = this.#queues.get(table);
    if (known !== undefined) return known;
    if (this.#queues.size >= MAX_REMEMBERED) this.#forgetEmpty();
    const queue = new TableQueue(table, this.#options, this.#options.mintId);
    this.#queues.set(table, queue);
    return queue;
  }

  // ------------------------------------------------------------ what goes, and when

  /**
   * Where a table's batch is due, closes those of other tables that are due soon: they go one after the other
   * then, and what is asked in front of an INSERT is asked for all of them at once. Tables that are written
   * all the time are soon due at the same moment.
   * @returns what may be sent at once, if there are several.
   */
  closeTogether(nowMs: number): readonly HeldBatch[] {
    const { concurrency, flushIntervalMs } = this.#options;
    const inTime = concurrency * TOGETHER_MS / Math.max(1, this.#tookMs) - this.#inFlight;
    const most = Math.min(MOST_TOGETHER, inTime);
    if (most < 2 || this.#queues.size < 2 || this.server.failures > 0) return [];
    if (this.#goTogether(nowMs) || !this.#anyIsDue(nowMs)) return [];
    const atMs = nowMs + Math.min(EARLY_MS, flushIntervalMs * EARLY_SHARE);
    const closed: HeldBatch[] = [];
    for (const queue of this.#queues.values()) {
      if (closed.length >= most) break;
      const batch = queue.closeIfDue(atMs);
      if (batch !== null) closed.push(batch);
    }
    this.#together = closed;
    this.#togetherUntilMs = nowMs + TOGETHER_MS;
    return closed.length > 1 ? closed : [];
  }

  #anyIsDue(nowMs: number): boolean {
    for (const queue of this.#queues.values()) if (queue.dueAtMs() <= nowMs) return true;
    return false;
  }

  /** Of what was closed together there is enough left to fill every place for a while. */
  #goTogether(nowMs: number): boolean {
    if (this.#together.length === 0) return false;
    const left = this.together(nowMs);
    this.#together = left.length > this.#room() / 2 ? left : [];
    return this.#together.length > 0;
  }

  /** What was closed together and is about to be sent. */
  together(nowMs: number): readonly HeldBatch[] {
    return nowMs < this.#togetherUntilMs && this.server.failures === 0
      ? this.#together.filter(({ state }) => state === "waiting")
      : [];
  }

  /** The next batch to send, or null when nothing may go now. */
  next(nowMs: number): Dispatch | null {
    if (this.#inFlight >= this.#room() || this.server.retryAtMs() > nowMs) return null;
    // Others that are due meanwhile are the next to go together.
    const together = this.#goTogether(nowMs);
    const next = this.#next(nowMs, !together);
    if (next !== null || !together) return next;
    this.#together = [];
    return this.#next(nowMs, true);
  }

  #next(nowMs: number, mayClose: boolean): Dispatch | null {
    for (const queue of this.#queues.values()) {
      if (queue.inFlight >= this.#roomOf(queue)) continue;
      const batch = queue.next(nowMs, mayClose);
      if (batch === null) continue;
      this.#toTheBack(queue);
      this.#inFlight++;
      return this.#dispatch(queue, batch, nowMs);
    }
    return null;
  }

  #dispatch(queue: TableQueue, batch: HeldBatch, sentMs: number): Dispatch {
    const seen = { serverSeen: this.server.counted, tableSeen: queue.retry.counted };
    return { queue, batch, sentMs, ...seen };
  }

  /** When `next` should be asked again if nothing else happens; Infinity = not before something does. */
  wakeAtMs(): number {
    if (this.#inFlight >= this.#room()) return Infinity;
    let earliestMs = Infinity;
    for (const queue of this.#queues.values()) {
      if (queue.inFlight < this.#roomOf(queue)) {
        earliestMs = Math.min(earliestMs, queue.readyAtMs());
      }
    }
    return Math.max(earliestMs, this.server.retryAtMs());
  }

  /** When this table's open batch may be sent; Infinity = not before something else happens. */
  openWakeAtMs(queue: TableQueue): number {
    if (this.#inFlight >= this.#room() || queue.inFlight >= this.#roomOf(queue)) return Infinity;
    const atMs = queue.doubts.closed ? queue.readyAtMs() : queue.dueAtMs();
    return Math.max(atMs, queue.retry.retryAtMs(), this.server.retryAtMs());
  }

  /** What came of a dispatch. A batch that is not settled is back in its queue afterwards. */
  onDelivery(dispatch: Dispatch, delivery: Delivery, nowMs: number): void {
    const { queue, batch } = dispatch;
    this.#inFlight--;
    if (delivery.kind === "settled") {
      this.#tookMs = nowMs - dispatch.sentMs;
      queue.left(batch);
      this.#answered();
      return;
    }
    queue.putBack(batch);
    if (delivery.kind === "behind") return queue.doubts.ended(batch, false);
    queue.doubts.ended(batch, delivery.unknown === true);
    const askedMs = (delivery.kind === "transient" && delivery.retryAfterMs) || 0;
    const failure = {
      nowMs,
      retryAfterMs: this.#hurry ? 0 : askedMs,
      limits: this.#hurry ? HURRY : RETRY,
      random: this.#options.random,
    };
    // The server answers, if not this.
    const outlasted = delivery.kind === "transient" && delivery.outlasted === true;
    if (delivery.kind === "transient" && delivery.code === 0 && !outlasted) {
      const known = queue.unanswered || batch.retry.unanswered;
      const itsOwnFault = known && this.#answeredSince && askedMs === 0;
      queue.silent(batch);
      this.#answeredSince = false;
      if (!itsOwnFault) {
        this.#trouble = delivery.message;
        this.server.failed(dispatch.serverSeen, failure);
        return;
      }
    } else this.#answered();
    const trouble = delivery.kind === "table" ? delivery.message : null;
    queue.failed(batch, dispatch.tableSeen, trouble, failure);
  }

  /** One that waits is taken out by order, whatever its turn; there is no server in what becomes of it. */
  take(queue: TableQueue, batch: HeldBatch, nowMs: number): Dispatch {
    queue.take(batch);
    this.#inFlight++;
    return this.#dispatch(queue, batch, nowMs);
  }

  /** What came of that. @param problem it could not be done, and why; null: it has left. */
  onTaken({ queue, batch, tableSeen }: Dispatch, problem: string | null, nowMs: number): void {
    this.#inFlight--;
    if (problem === null) {
      queue.forget(batch);
      if (queue.trouble === null) queue.retry.succeeded();
      return;
    }
    queue.putBack(batch);
    const limits = this.#hurry ? HURRY : RETRY;
    const failure = { nowMs, retryAfterMs: 0, limits, random: this.#options.random };
    queue.failed(batch, tableSeen, problem, failure);
  }

  /** Stopping: nothing waits out a backoff, and a new one is short. */
  hurry(): void {
    this.#hurry = true;
    this.server.hurry();
    for (const queue of this.#queues.values()) queue.hurry();
  }

  /** Closes every open batch. @returns those that may be sent at once. */
  closeAll(): readonly HeldBatch[] {
    const closed: HeldBatch[] = [];
    for (const queue of this.#queues.values()) {
      const { open } = queue;
      queue.close();
      if (open?.ready) closed.push(open);
    }
    return closed;
  }

  #room(): number {
    return this.server.failures > 0 ? 1 : this.#options.concurrency;
  }

  /** A table in trouble probes with one; none may take the last place while there are others. */
  #roomOf(queue: TableQueue): number {
    if (queue.retry.failures > 0 || queue.unanswered) return 1;
    const { concurrency } = this.#options;
    return this.#queues.size > 1 ? Math.max(1, concurrency - 1) : concurrency;
  }

  /** Round robin: the map's order is the order of turns. */
  #toTheBack(queue: TableQueue): void {
    if (this.#queues.size === 1) return;
    this.#queues.delete(queue.table);
    this.#queues.set(queue.table, queue);
  }

  #answered(): void {
    this.server.succeeded();
    this.#trouble = null;
    this.#answeredSince = true;
  }

  #forgetEmpty(): void {
    for (const queue of this.#queues.values()) {
      if (queue.empty) this.#queues.delete(queue.table);
    }
  }

  // ------------------------------------------------------------ what is held

  /** Null: nothing is remembered of the table. */
  find(table: string): TableQueue | null {
    return this.#queues.get(table) ?? null;
  }

  /** Tables that are remembered; those that hold nothing are forgotten in time. */
  get tables(): number {
    return this.#queues.size;
  }

  *held(): Iterable<HeldBatch> {
    for (const queue of this.#queues.values()) yield* queue.held();
  }

  /** The queue whose open batch has the most bytes, and the bytes of all open batches. */
  largestOpen(): { readonly queue: TableQueue | null; readonly openBytes: number } {
    let largest: TableQueue | null = null;
    let openBytes = 0;
    for (const queue of this.#queues.values()) {
      const bytes = queue.open?.bytes ?? 0;
      openBytes += bytes;
      if (bytes > (largest?.open?.bytes ?? 0)) largest = queue;
    }
    return { queue: largest, openBytes };
  }

  /** When the oldest held row was taken, epoch milliseconds; `otherwiseMs` while there is none. */
  oldestTakenMs(otherwiseMs: number): number {
    let oldestMs = otherwiseMs;
    for (const batch of this.held()) {
      if (batch.rows > 0) oldestMs = Math.min(oldestMs, batch.oldestMs);
    }
    return oldestMs;
  }

  /** Rows that could leave: those of tables in trouble wait for something else. */
  backlog(nowMs: number): Backlog {
    let rows = 0;
    let oldestMs = nowMs;
    for (const queue of this.#queues.values()) {
      if (queue.trouble !== null) continue;
      for (const batch of queue.held()) {
        if (batch.rows === 0) continue;
        rows += batch.rows;
        oldestMs = Math.min(oldestMs, batch.oldestMs);
      }
    }
    return { rows, oldestMs: nowMs - oldestMs };
  }

  rowsByTable(): ReadonlyMap<string, number> {
    const rows = new Map<string, number>();
    for (const batch of this.held()) {
      rows.set(batch.table, (rows.get(batch.table) ?? 0) + batch.rows);
    }
    return rows;
  }

  /** Why no server answers, for people; null while one does. */
  get trouble(): string | null {
    return this.#trouble;
  }

  /** What is wrong with tables, for people. */
  tableTroubles(): ReadonlyMap<string, string> {
    const tables = new Map<string, string>();
    for (const { table, trouble } of this.#queues.values()) {
      if (trouble !== null) tables.set(table, trouble);
    }
    return tables;
  }
}
