/**
 * Which batch goes out next. Pure: time and chance come in, decisions go out; the pump acts.
 *
 * Two circles of trouble. *Server*: no answer, or none from ClickHouse itself. Then one probe goes
 * out, for all tables together, each time another table's. *Lane*: ClickHouse answered, but will not
 * take this table's rows. Then one probe for that table; the others flow. A batch that fails in its
 * lane also waits on its own, so that fresh rows pass it by.
 *
 * Silence can also be one table's fault, or one batch's: an INSERT that always runs into the timeout,
 * rows that a proxy will not let through. When others were answered between two silences of the same
 * table or batch, the second one is laid at its door, and the server stays up for the others.
 */

import type { Delivery } from "../contracts.ts";
import { type BackoffLimits, backoffMs } from "../kernel/backoff.ts";
import { Circle } from "./circle.ts";
import type { HeldBatch } from "./held.ts";
import { type FillLimits, Lane } from "./lane.ts";

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
  readonly lane: Lane;
  readonly batch: HeldBatch;
  /** Failures that were counted when it left, of the server and of the lane. */
  readonly serverSeen: number;
  readonly laneSeen: number;
}

export const RETRY: BackoffLimits = { leastMs: 250, mostMs: 30_000 };
/** While stopping there is little time: a probe goes out at least every half second. */
export const HURRY: BackoffLimits = { leastMs: 100, mostMs: 500 };
/** Empty lanes are remembered up to this many tables in all. */
const MAX_REMEMBERED = 256;

export class Schedule {
  readonly lanes = new Map<string, Lane>();
  /** Attempts that no server answered. */
  readonly server = new Circle();
  /** Why, for people; null while the server answers. */
  trouble: string | null = null;
  /** Somebody was answered since the last silence. */
  #answeredSince = false;
  #inFlight = 0;
  #hurry = false;

  constructor(public options: ScheduleOptions) {}

  /** From the next decision on. @param forgetful as if nothing had been tried yet. */
  adopt(limits: ScheduleLimits, forgetful: boolean): void {
    this.options = { ...this.options, ...limits };
    for (const lane of this.lanes.values()) {
      lane.close();
      lane.limits = this.options;
      if (forgetful) lane.forgetTrouble();
    }
    if (!forgetful) return;
    this.trouble = null;
    this.server.forget();
  }

  lane(table: string): Lane {
    const known = this.lanes.get(table);
    if (known !== undefined) return known;
    if (this.lanes.size >= MAX_REMEMBERED) this.#forgetEmpty();
    const lane = new Lane(table, this.options, this.options.mintId);
    this.lanes.set(table, lane);
    return lane;
  }

  /** The next batch to send, or null when nothing may go now. */
  next(nowMs: number): Dispatch | null {
    if (this.#inFlight >= this.#room() || this.server.retryAtMs() > nowMs) return null;
    for (const lane of this.lanes.values()) {
      if (lane.inFlight.size >= this.#laneRoom(lane)) continue;
      const batch = lane.next(nowMs);
      if (batch === null) continue;
      this.#toTheBack(lane);
      this.#inFlight++;
      return { lane, batch, serverSeen: this.server.counted, laneSeen: lane.circle.counted };
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
    return Math.max(earliestMs, this.server.retryAtMs());
  }

  /** When this lane's open batch may be sent; Infinity = not before something else happens. */
  openWakeAtMs(lane: Lane): number {
    const full = this.#inFlight >= this.#room() || lane.inFlight.size >= this.#laneRoom(lane);
    if (full) return Infinity;
    return Math.max(lane.dueAtMs(), lane.circle.retryAtMs(), this.server.retryAtMs());
  }

  /** What came of a dispatch. A batch that is not settled is back in its queue afterwards. */
  told(dispatch: Dispatch, delivery: Delivery, nowMs: number): void {
    const { lane, batch } = dispatch;
    const { random } = this.options;
    const limits = this.#hurry ? HURRY : RETRY;
    this.#inFlight--;
    if (delivery.kind === "settled") {
      lane.settled(batch);
      this.#answered();
      return;
    }
    lane.putBack(batch);
    const askedMs = (delivery.kind === "transient" && delivery.retryAfterMs) || 0;
    const retryAfterMs = this.#hurry ? 0 : askedMs;
    if (delivery.kind === "transient" && delivery.code === 0) {
      const known = lane.unanswered || batch.unanswered;
      const itsOwnFault = known && this.#answeredSince && askedMs === 0;
      lane.unanswered = true;
      batch.unanswered = true;
      this.#answeredSince = false;
      if (!itsOwnFault) {
        this.trouble = delivery.message;
        this.server.failed(dispatch.serverSeen, nowMs, retryAfterMs, limits, random);
        return;
      }
    } else this.#answered();
    lane.circle.failed(dispatch.laneSeen, nowMs, retryAfterMs, limits, random);
    batch.failures++;
    batch.retryAtMs = nowMs + backoffMs(batch.failures, random(), limits);
    if (delivery.kind !== "table") return;
    lane.trouble = delivery.message;
    batch.refused = true;
  }

  /** Stopping: nothing waits out a backoff, and a new one is short. */
  hurry(): void {
    this.#hurry = true;
    this.server.hurry();
    for (const lane of this.lanes.values()) {
      lane.circle.hurry();
      for (const batch of lane.waiting) batch.retryAtMs = 0;
    }
  }

  /** Closes every open batch. */
  closeAll(): void {
    for (const lane of this.lanes.values()) lane.close();
  }

  *held(): Iterable<HeldBatch> {
    for (const lane of this.lanes.values()) yield* lane.held();
  }

  #room(): number {
    return this.server.failures > 0 ? 1 : this.options.concurrency;
  }

  /** A table in trouble probes with one; none may take the last place while there are others. */
  #laneRoom(lane: Lane): number {
    if (lane.circle.failures > 0 || lane.unanswered) return 1;
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
    this.server.succeeded();
    this.trouble = null;
    this.#answeredSince = true;
  }

  #forgetEmpty(): void {
    for (const lane of this.lanes.values()) {
      if (lane.empty) this.lanes.delete(lane.table);
    }
  }
}
