/**
 * Which batch goes out next. Pure: time and chance come in, decisions go out; the pump acts.
 *
 * Two circles of trouble. *Server*: no answer, or none from ClickHouse itself. Then one probe goes
 * out, for all tables together, each time another table's. *Lane*: ClickHouse answered, but will not
 * take this table's rows. Then one probe for that table; the others flow. A batch that its table
 * refuses also waits on its own, so that fresh rows that fit pass it by.
 */

import type { Delivery } from "../contracts.ts";
import { backoffMs, HURRY, RETRY } from "./backoff.ts";
import type { HeldBatch } from "./held.ts";
import { type FillLimits, Lane } from "./lane.ts";

export interface ScheduleOptions extends FillLimits {
  /** INSERTs in flight, all tables together. */
  readonly concurrency: number;
  readonly random: () => number;
  readonly mintId: () => string;
}

/** One batch on its way. */
export interface Dispatch {
  readonly lane: Lane;
  readonly batch: HeldBatch;
  readonly startedMs: number;
}

export class Schedule {
  readonly lanes = new Map<string, Lane>();
  /** Attempts in a row that no server answered. */
  failures = 0;
  /** Why, for people; null while the server answers. */
  trouble: string | null = null;
  #retryAtMs = 0;
  #failedAtMs = 0;
  #inFlight = 0;
  #hurry = false;

  constructor(readonly options: ScheduleOptions) {}

  lane(table: string): Lane {
    const known = this.lanes.get(table);
    if (known !== undefined) return known;
    const lane = new Lane(table, this.options, this.options.mintId);
    this.lanes.set(table, lane);
    return lane;
  }

  /** The next batch to send, or null when nothing may go now. */
  next(nowMs: number): Dispatch | null {
    if (this.#inFlight >= this.#room() || this.#retryAtMs > nowMs) return null;
    for (const lane of this.lanes.values()) {
      if (lane.inFlight.size >= this.#laneRoom(lane)) continue;
      const batch = lane.next(nowMs);
      if (batch === null) continue;
      this.#toTheBack(lane);
      this.#inFlight++;
      return { lane, batch, startedMs: nowMs };
    }
    return null;
  }

  /** When `next` should be asked again if nothing else happens; Infinity = not before something does. */
  wakeAtMs(): number {
    if (this.#inFlight >= this.#room()) return Infinity;
    let earliestMs = Infinity;
    for (const lane of this.lanes.values()) {
      if (lane.inFlight.size < this.#laneRoom(lane)) {
        earliestMs = Math.min(earliestMs, lane.readyAtMs());
      }
    }
    return Math.max(earliestMs, this.#retryAtMs);
  }

  /** What came of a dispatch. A batch that is not settled is back in its queue afterwards. */
  told(dispatch: Dispatch, delivery: Delivery, nowMs: number): void {
    const { lane, batch } = dispatch;
    this.#inFlight--;
    if (delivery.kind === "settled") {
      lane.inFlight.delete(batch);
      lane.failures = 0;
      lane.retryAtMs = 0;
      lane.trouble = null;
      this.#answered();
      return;
    }
    lane.putBack(batch);
    lane.failures++;
    if (delivery.kind === "transient" && delivery.code === 0) {
      this.#unanswered(dispatch.startedMs, nowMs, delivery.retryAfterMs ?? 0, delivery.message);
      return;
    }
    this.#answered();
    const limits = this.#hurry ? HURRY : RETRY;
    const waitMs = backoffMs(lane.failures, this.options.random(), limits);
    if (delivery.kind === "transient") {
      lane.retryAtMs = nowMs + Math.max(waitMs, delivery.retryAfterMs ?? 0);
      return;
    }
    lane.retryAtMs = nowMs + waitMs;
    lane.trouble = delivery.message;
    batch.failures++;
    batch.retryAtMs = nowMs + backoffMs(batch.failures, this.options.random(), limits);
  }

  /** Stopping: nothing waits out a backoff, and a new one is short. */
  hurry(): void {
    this.#hurry = true;
    this.#retryAtMs = 0;
    for (const lane of this.lanes.values()) {
      lane.retryAtMs = 0;
      for (const batch of lane.waiting) batch.retryAtMs = 0;
    }
  }

  /** Seals every open batch. */
  sealAll(): void {
    for (const lane of this.lanes.values()) lane.seal();
  }

  *held(): Iterable<HeldBatch> {
    for (const lane of this.lanes.values()) yield* lane.held();
  }

  #room(): number {
    return this.failures > 0 ? 1 : this.options.concurrency;
  }

  /** A table in trouble probes with one; none may take the last place while there are others. */
  #laneRoom(lane: Lane): number {
    if (lane.failures > 0) return 1;
    const { concurrency } = this.options;
    return this.lanes.size > 1 ? Math.max(1, concurrency - 1) : concurrency;
  }

  /** Round robin: the map's order is the order of turns. */
  #toTheBack(lane: Lane): void {
    if (this.lanes.size === 1) return;
    this.lanes.delete(lane.table);
    this.lanes.set(lane.table, lane);
  }

  #answered(): void {
    this.failures = 0;
    this.trouble = null;
    this.#retryAtMs = 0;
  }

  /** Attempts that were under way together when the server went count as one failure. */
  #unanswered(startedMs: number, nowMs: number, retryAfterMs: number, message: string): void {
    this.trouble = message;
    if (this.failures > 0 && startedMs < this.#failedAtMs) return;
    this.failures++;
    this.#failedAtMs = nowMs;
    const limits = this.#hurry ? HURRY : RETRY;
    const waitMs = backoffMs(this.failures, this.options.random(), limits);
    this.#retryAtMs = nowMs + (this.#hurry ? waitMs : Math.max(waitMs, retryAfterMs));
  }
}
