/**
 * The one loop: takes chunks, sends batches, tells what became of them. Every decision is made in
 * `Schedule`, `Lane` and `Budget`; here are only the effects, in the order that keeps the books
 * balanced: a row is held before it is acknowledged and let go only when its fate is known.
 *
 * Its time is the wall clock's at the start and goes on as the monotonic clock does: somebody who
 * sets the clock must neither hold up a batch nor hurry a retry.
 */

import type { Chunk, Delivery, Holdings, Intake, Refused, Taken, Ticket } from "../contracts.ts";
import { Alarm } from "./alarm.ts";
import { Budget } from "./budget.ts";
import { type Fate, HeldBatch } from "./held.ts";
import { Emptiness } from "./emptiness.ts";
import { Keeper } from "./keeper.ts";
import type { Lane } from "./lane.ts";
import { deadOf } from "./lines.ts";
import { backlogOf, oldestTakenMs, rowsByTable, type Troubles, troublesOf } from "./holdings.ts";
import { keeperLimits, type PumpDeps, type PumpOptions, scheduleLimits } from "./pump_deps.ts";
import { Replays } from "./replays.ts";
import type { Backlog } from "./progress.ts";
import { report } from "./report.ts";
import { type Dispatch, Schedule } from "./schedule.ts";
import { allSettled, RequestTicket } from "./ticket.ts";
import { DONE } from "../kernel/result.ts";
import { uuid7 } from "../kernel/names.ts";

export class Pump implements Intake, Holdings {
  readonly #schedule: Schedule;
  readonly #budget: Budget;
  readonly #keeper: Keeper;
  readonly #replays: Replays;
  readonly #abort = new AbortController();
  /** By how much the wall clock was ahead of the monotonic one at the start. */
  readonly #wallAheadMs: number;
  #closed: "stopping" | "paused" | null = null;
  readonly #alarm: Alarm;
  readonly #emptiness: Emptiness;
  /** Nothing is sent any more: what is held now is given up. */
  #ended = false;

  constructor(options: PumpOptions, readonly deps: PumpDeps) {
    this.#wallAheadMs = deps.clock.nowMs() - deps.clock.monotonicMs();
    this.#budget = new Budget(options.budget);
    this.#emptiness = new Emptiness(deps.clock, () => this.#budget.rows === 0);
    this.#schedule = new Schedule({
      ...scheduleLimits(options),
      random: () => deps.clock.random(),
      mintId: () => uuid7(deps.clock.nowMs()),
    });
    this.#replays = new Replays(options.reached, deps.clock);
    this.#alarm = new Alarm(deps.clock, () => this.#turn());
    this.#keeper = new Keeper({
      schedule: this.#schedule,
      budget: this.#budget,
      ledger: deps.ledger,
      log: deps.log,
      spool: deps.spool,
      limits: keeperLimits(options),
      onChange: (lane, ready) => this.#changed(lane, ready),
      refuse: (reason) => this.#full(reason),
    });
  }

  closed(): "stopping" | "paused" | null {
    return this.#closed;
  }

  refusal(bytes: number): Refused | null {
    const reason = this.#budget.foreseen(bytes);
    return reason === null ? null : this.#full(reason);
  }

  reserve(bytes: number): boolean {
    return this.#budget.reserve(bytes);
  }

  release(bytes: number): void {
    this.#budget.release(bytes);
  }

  replayed(table: string, id: string): Ticket | null {
    return this.#replays.find(this.#schedule.lane(table), id);
  }

  take(chunk: Chunk): Taken {
    if (this.#closed !== null) {
      return { kind: "refused", why: "closed", reason: this.#closed, retryAfterS: 5 };
    }
    const known = chunk.replay === undefined ? null : this.replayed(chunk.table, chunk.replay);
    if (known !== null) return { kind: "taken", ticket: known };
    const nowMs = this.#nowMs();
    const refusal = this.#budget.refusal(chunk.rows, chunk.body.length) ??
      this.#keeper.refusal(chunk.body.length, nowMs);
    if (refusal !== null) return this.#full(refusal);
    const lane = this.#schedule.lane(chunk.table);
    this.#budget.hold(chunk.rows, chunk.body.length);
    const places = chunk.replay === undefined
      ? lane.place(chunk, nowMs)
      : lane.placeAlone(chunk, chunk.replay, nowMs);
    const kept = this.#keeper.keep(lane, chunk, places);
    // A batch that was closed to make room for these rows need not wait until the disk has them.
    if (lane.justClosed) this.#changed(lane, true);
    if (chunk.replay !== undefined) this.#replays.taken(places[0]!.batch, kept);
    const ticket = new RequestTicket(this.#replays.reached, kept, places, this.deps.clock);
    return { kind: "taken", ticket };
  }

  /** Holds what earlier processes left on disk. Resolves when all is held, or nothing is any more. */
  async recover(): Promise<void> {
    for await (const found of this.deps.spool?.recover() ?? []) {
      // It stays there.
      if (this.#ended) return;
      const batch = HeldBatch.recovered(found);
      this.#budget.hold(batch.rows, 0);
      this.deps.ledger.recovered(batch.table, batch.rows);
      this.#schedule.lane(batch.table).putBack(batch);
      this.#turn();
    }
  }

  #full(reason: string): Refused {
    // A client that comes back sooner than the next probe would only be refused again.
    const waitMs = this.#schedule.wakeAtMs() - this.#nowMs();
    const waitS = Number.isFinite(waitMs) ? Math.ceil(waitMs / 1000) : 1;
    return { kind: "refused", why: "full", reason, retryAfterS: Math.min(30, Math.max(1, waitS)) };
  }

  rows(): number {
    return this.#budget.rows - this.#keeper.placedRows;
  }

  memoryBytes(): number {
    return this.#budget.bytes + this.#keeper.sendingBytes;
  }

  spoolBytes(): number {
    return this.deps.spool?.bytes() ?? 0;
  }

  oldestMs(): number {
    return Math.max(0, this.#nowMs() - oldestTakenMs(this.#schedule, this.#nowMs()));
  }

  byTable(): ReadonlyMap<string, number> {
    return rowsByTable(this.#schedule);
  }

  /** What could leave and has not yet. */
  backlog(): Backlog {
    return backlogOf(this.#schedule, this.#nowMs());
  }

  /** What keeps rows from flowing, for people: of the server, of the disk, and by table. */
  troubles(): Troubles {
    return troublesOf(this.#schedule, this.#keeper.trouble());
  }

  pause(): void {
    this.#closed ??= "paused";
  }

  resume(): void {
    if (this.#closed === "paused") this.#closed = null;
  }

  /** Seals what is open; true once all that was held at the call is settled, false at `waitMs`. */
  flush(waitMs: number): Promise<boolean> {
    this.#schedule.closeAll();
    const held = [...this.#schedule.held()];
    this.#turn();
    return allSettled(held, waitMs, this.deps.clock);
  }

  /** From the next decision on. @param elsewhere the servers are others: what failed is forgotten. */
  adopt(options: PumpOptions, elsewhere: boolean): void {
    this.#schedule.adopt(scheduleLimits(options), elsewhere);
    this.#budget.limits = options.budget;
    this.#replays.reached = options.reached;
    this.#keeper.adopt(keeperLimits(options));
    this.#turn();
  }

  /** ClickHouse was asked and answered: its next probe need not wait out the backoff. */
  serverIsBack(): void {
    this.#schedule.server.cutShort();
    this.#turn();
  }

  /** Finds out whether a disk that was in trouble still is. */
  async probeDisk(): Promise<void> {
    await this.#keeper.probe();
  }

  /** Refuses new rows from now on; what is held is sent at once, without waiting out a backoff. */
  close(): void {
    this.#closed = "stopping";
    this.#schedule.hurry();
    this.#schedule.closeAll();
    this.#turn();
  }

  /** Resolves when nothing is held, or at `waitMs`. True when nothing is held. */
  drained(waitMs: number): Promise<boolean> {
    return this.#emptiness.within(waitMs);
  }

  /** Writes what is in memory only to the spool, as far as the disk takes it. */
  spill(): Promise<void> {
    return this.#keeper.spillAll();
  }

  /**
   * Cuts off what is under way and gives up what is held. Rows that are on disk stay held, for the
   * next start; those in memory only are counted as lost, once.
   */
  abandon(): void {
    this.#ended = true;
    this.#closed = "stopping";
    this.#alarm.cancel();
    for (const batch of [...this.#schedule.held()]) {
      if (batch.settled) continue;
      if (!batch.onDisk && batch.rows > 0) {
        this.deps.ledger.lost(batch);
        this.#schedule.lane(batch.table).forget(batch);
        this.#release(batch, null);
      } else batch.settle(null);
    }
    this.#abort.abort();
  }

  #nowMs(): number {
    return Math.floor(this.#wallAheadMs + this.deps.clock.monotonicMs());
  }

  #changed(lane: Lane, ready: boolean): void {
    if (ready || lane.justClosed) {
      lane.justClosed = false;
      this.#turn();
    }
    this.#alarm.setFor(this.#schedule.openWakeAtMs(lane), this.#nowMs());
    this.#emptiness.tell();
  }

  #turn(): void {
    if (this.#ended) return;
    const nowMs = this.#nowMs();
    for (let next = this.#schedule.next(nowMs); next !== null; next = this.#schedule.next(nowMs)) {
      void this.#send(next);
    }
    this.#alarm.setFor(this.#schedule.wakeAtMs(), nowMs);
  }

  async #send(dispatch: Dispatch): Promise<void> {
    const { batch } = dispatch;
    let delivery = await this.#attempt(batch);
    const dead = deadOf(batch, delivery.kind === "settled" ? delivery.dead : []);
    if (!this.#ended && dead.letters.length > 0) {
      // Kept before the batch is let go.
      const problem = await this.deps.bury(batch, dead.letters, dead.rows);
      batch.unburied = problem === null ? null : dead.letters;
      if (problem !== null) delivery = { kind: "table", code: 0, message: problem };
    }
    if (this.#ended) return;
    const inTrouble = () => (this.#schedule.trouble ?? dispatch.lane.trouble) !== null;
    const before = inTrouble();
    if (delivery.kind === "settled") {
      this.deps.ledger.settled(batch, dead.rows.length, dead.types);
      this.#replays.settled(batch, dead.rows.length);
      this.#release(batch, dead.letters);
    }
    this.#schedule.told(dispatch, delivery, this.#nowMs());
    if (!batch.settled) this.#keeper.putAway(batch);
    const failures = Math.max(dispatch.lane.circle.failures, this.#schedule.server.failures);
    report(this.deps.log, dispatch, delivery, failures, before && !inTrouble());
    this.#turn();
  }

  /** A batch whose rows are on disk only is read for the attempt. */
  async #attempt(batch: HeldBatch): Promise<Delivery> {
    const back = batch.inMemory ? DONE : await this.#keeper.bringBack(batch);
    if (!back.ok) return { kind: "table", code: 0, message: back.problem };
    if (this.#ended) return { kind: "transient", code: 0, message: "given up by us" };
    if (batch.unburied !== null) return { kind: "settled", dead: batch.unburied, inserts: 0 };
    try {
      batch.readers++;
      const delivery = await this.deps.sink.deliver(batch, this.#abort.signal);
      if (delivery.kind === "settled") batch.readers--;
      return delivery;
    } catch (error) {
      // A sink never throws; if it does all the same, the batch is not lost to the bug.
      const message = error instanceof Error ? error.message : String(error);
      this.deps.log.error("sink failed", { table: batch.table, batch: batch.id, error: message });
      return { kind: "transient", code: 0, message: `internal error: ${message}` };
    }
  }

  #release(batch: HeldBatch, fate: Fate): void {
    this.#keeper.letGo(batch);
    batch.settle(fate);
    this.#emptiness.tell();
  }
}
