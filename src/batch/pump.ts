/**
 * The one loop: takes chunks, sends batches, tells what became of them. Every decision is made in
 * `Schedule`, `Lane` and `Budget`; here are only the effects, in the order that keeps the books
 * balanced: a row is held before it is acknowledged and let go only when its fate is known.
 *
 * Its time is the wall clock's at the start and goes on as the monotonic clock does: somebody who
 * sets the clock must neither hold up a batch nor hurry a retry.
 */

import type {
  Ack,
  Chunk,
  Clock,
  DeadRow,
  Delivery,
  Holdings,
  Intake,
  Ledger,
  Log,
  Sink,
  Taken,
} from "../contracts.ts";
import { Budget, type BudgetLimits } from "./budget.ts";
import type { Fate, HeldBatch } from "./held.ts";
import type { FillLimits } from "./lane.ts";
import { count, eventTypeOf, rowsAt } from "./lines.ts";
import { report } from "./report.ts";
import { type Dispatch, Schedule } from "./schedule.ts";
import { RequestTicket } from "./ticket.ts";
import { uuid7 } from "./uuid7.ts";

export interface PumpOptions {
  readonly fill: FillLimits;
  readonly budget: BudgetLimits;
  readonly concurrency: number;
  /** What a taken chunk has reached when `take` returns. */
  readonly reached: Ack;
}

export interface PumpDeps {
  readonly sink: Sink;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly log: Log;
  /** Keeps a row that ClickHouse refuses for good. */
  readonly bury: (batch: HeldBatch, dead: readonly DeadRow[], rows: readonly string[]) => void;
}

export class Pump implements Intake, Holdings {
  readonly #schedule: Schedule;
  readonly #budget: Budget;
  readonly #abort = new AbortController();
  /** By how much the wall clock was ahead of the monotonic one at the start. */
  readonly #wallAheadMs: number;
  #closed: "stopping" | "paused" | null = null;
  #cancelWake: () => void = () => {};
  #wakeAtMs = Infinity;
  #emptyWaiters: (() => void)[] = [];
  /** Nothing is sent any more: what is held now is given up. */
  #ended = false;

  constructor(readonly options: PumpOptions, readonly deps: PumpDeps) {
    this.#wallAheadMs = deps.clock.nowMs() - deps.clock.monotonicMs();
    this.#budget = new Budget(options.budget);
    this.#schedule = new Schedule({
      ...options.fill,
      concurrency: options.concurrency,
      random: () => deps.clock.random(),
      mintId: () => uuid7(deps.clock.nowMs()),
    });
  }

  // ------------------------------------------------------------ Intake

  closed(): "stopping" | "paused" | null {
    return this.#closed;
  }

  reserve(bytes: number): boolean {
    return this.#budget.reserve(bytes);
  }

  release(bytes: number): void {
    this.#budget.release(bytes);
  }

  take(chunk: Chunk): Taken {
    if (this.#closed !== null) {
      return { kind: "refused", why: "closed", reason: this.#closed, retryAfterS: 5 };
    }
    const refusal = this.#budget.refusal(chunk.rows, chunk.body.length);
    if (refusal !== null) {
      return { kind: "refused", why: "full", reason: refusal, retryAfterS: this.#retryAfterS() };
    }
    const nowMs = this.#nowMs();
    const lane = this.#schedule.lane(chunk.table);
    const sealedBefore = lane.waiting.length;
    this.#budget.hold(chunk.rows, chunk.body.length);
    this.deps.ledger.accepted(chunk);
    const portions = lane.add(chunk, nowMs);
    if (lane.waiting.length !== sealedBefore) this.#turn();
    else this.#wakeBy(this.#schedule.openWakeAtMs(lane), nowMs);
    const ticket = new RequestTicket(this.options.reached, portions, this.deps.clock);
    return { kind: "taken", ticket };
  }

  /** A client that comes back sooner than the next probe would only be refused again. */
  #retryAfterS(): number {
    const waitMs = this.#schedule.wakeAtMs() - this.#nowMs();
    return Math.min(30, Math.max(1, Number.isFinite(waitMs) ? Math.ceil(waitMs / 1000) : 1));
  }

  // ------------------------------------------------------------ Holdings

  rows(): number {
    return this.#budget.rows;
  }

  memoryBytes(): number {
    return this.#budget.bytes;
  }

  spoolBytes(): number {
    return 0;
  }

  oldestMs(): number {
    let oldestMs = Infinity;
    for (const batch of this.#schedule.held()) oldestMs = Math.min(oldestMs, batch.oldestMs);
    return oldestMs === Infinity ? 0 : Math.max(0, this.#nowMs() - oldestMs);
  }

  byTable(): ReadonlyMap<string, number> {
    const rows = new Map<string, number>();
    for (const batch of this.#schedule.held()) {
      rows.set(batch.table, (rows.get(batch.table) ?? 0) + batch.rows);
    }
    return rows;
  }

  /** What keeps rows from flowing, for people: of the server, and by table. */
  troubles(): { readonly server: string | null; readonly tables: ReadonlyMap<string, string> } {
    const tables = new Map<string, string>();
    for (const lane of this.#schedule.lanes.values()) {
      if (lane.trouble !== null) tables.set(lane.table, lane.trouble);
    }
    return { server: this.#schedule.trouble, tables };
  }

  // ------------------------------------------------------------ control

  pause(): void {
    this.#closed ??= "paused";
  }

  resume(): void {
    if (this.#closed === "paused") this.#closed = null;
  }

  /** Seals what is open; true once all that was held at the call is settled, false at `waitMs`. */
  flush(waitMs: number): Promise<boolean> {
    this.#schedule.sealAll();
    const held = [...this.#schedule.held()];
    this.#turn();
    return new Promise((resolve) => {
      let open = held.length;
      if (open === 0) return resolve(true);
      const cancel = this.deps.clock.after(waitMs, () => resolve(false));
      let kept = true;
      for (const batch of held) {
        batch.whenSettled((fate) => {
          kept &&= fate !== null;
          if (--open > 0) return;
          cancel();
          resolve(kept);
        });
      }
    });
  }

  /** Refuses new rows from now on; what is held is sent at once, without waiting out a backoff. */
  close(): void {
    this.#closed = "stopping";
    this.#schedule.hurry();
    this.#schedule.sealAll();
    this.#turn();
  }

  /** Resolves when nothing is held, or at `waitMs`. True when nothing is held. */
  async drained(waitMs: number): Promise<boolean> {
    if (this.rows() > 0) {
      await new Promise<void>((resolve) => {
        const cancel = this.deps.clock.after(waitMs, resolve);
        this.#emptyWaiters.push(() => {
          cancel();
          resolve();
        });
      });
    }
    return this.rows() === 0;
  }

  /** Cuts off what is under way and gives up what is held. The rows are counted as lost, once. */
  abandon(): void {
    this.#ended = true;
    this.#closed = "stopping";
    this.#cancelWake();
    for (const batch of this.#schedule.giveUp()) {
      this.deps.ledger.lost(batch);
      this.#release(batch, null);
    }
    this.#abort.abort();
  }

  // ------------------------------------------------------------ the loop

  #nowMs(): number {
    return Math.floor(this.#wallAheadMs + this.deps.clock.monotonicMs());
  }

  #turn(): void {
    if (this.#ended) return;
    const nowMs = this.#nowMs();
    for (let next = this.#schedule.next(nowMs); next !== null; next = this.#schedule.next(nowMs)) {
      void this.#send(next);
    }
    this.#wakeBy(this.#schedule.wakeAtMs(), nowMs);
  }

  /** Makes sure that there is a turn at `atMs` at the latest. */
  #wakeBy(atMs: number, nowMs: number): void {
    if (atMs >= this.#wakeAtMs) return;
    this.#cancelWake();
    this.#wakeAtMs = atMs;
    this.#cancelWake = this.deps.clock.after(Math.max(1, atMs - nowMs), () => {
      this.#wakeAtMs = Infinity;
      this.#turn();
    });
  }

  async #send(dispatch: Dispatch): Promise<void> {
    const delivery = await this.#deliver(dispatch.batch);
    if (this.#ended) return;
    const inTrouble = () => (this.#schedule.trouble ?? dispatch.lane.trouble) !== null;
    const before = inTrouble();
    if (delivery.kind === "settled") this.#settle(dispatch.batch, delivery.dead);
    this.#schedule.told(dispatch, delivery, this.#nowMs());
    const failures = Math.max(dispatch.lane.circle.failures, this.#schedule.server.failures);
    report(this.deps.log, dispatch, delivery, failures, before && !inTrouble());
    this.#turn();
  }

  /** A sink never throws; if it does all the same, the batch is not lost to the bug. */
  async #deliver(batch: HeldBatch): Promise<Delivery> {
    try {
      return await this.deps.sink.deliver(batch, this.#abort.signal);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.deps.log.error("sink failed", { table: batch.table, batch: batch.id, error: message });
      return { kind: "transient", code: 0, message: `internal error: ${message}` };
    }
  }

  #settle(batch: HeldBatch, dead: readonly DeadRow[]): void {
    const deadTypes = new Map<string, number>();
    const ascending = [...dead].sort((a, b) => a.index - b.index);
    if (dead.length > 0) {
      const rows = rowsAt(batch.body, ascending.map((row) => row.index));
      if (batch.shape === "event") {
        for (const row of rows) count(deadTypes, eventTypeOf(row), 1);
      }
      this.deps.bury(batch, ascending, rows);
    }
    this.deps.ledger.settled(batch, dead.length, deadTypes);
    this.#release(batch, ascending);
  }

  #release(batch: HeldBatch, fate: Fate): void {
    this.#budget.free(batch.rows, batch.bytes);
    batch.settle(fate);
    if (this.#budget.rows === 0) { for (const waiter of this.#emptyWaiters.splice(0)) waiter(); }
  }
}
