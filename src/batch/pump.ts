/**
 * The one loop: takes chunks, sends batches, settles what became of them. Which batch goes and when is
 * decided in `schedule.ts` and `queue.ts`, what there is room for in `memory.ts`; here are the effects,
 * in the order that keeps the books balanced: a row is held before it is acknowledged and let go only
 * when its fate is known. The pump asks memory and gets a promise back; what follows from the answer
 * for the queues happens here and nowhere else.
 *
 * Its time is the wall clock's at the start and goes on as the monotonic clock does: a clock that is set
 * must neither hold up a batch nor hurry a retry.
 */

import {
  type Ack,
  type Batch,
  type Chunk,
  type Clock,
  type DeadLetterWriter,
  type DeadRow,
  type Delivery,
  type Holdings,
  type Intake,
  type Ledger,
  type LeftBatch,
  type Log,
  type Mark,
  type Memo,
  type Named,
  OWN_WORD,
  type Refused,
  type SetAside,
  type SetAsideWanted,
  type Sink,
  type Spool,
  type Taken,
  type TakenMark,
  type Ticket,
  type TypeCounts,
  UNAVAILABLE_RETRY_S,
} from "../contracts.ts";
import { messageOf } from "../kernel/errors.ts";
import { uuid7 } from "../kernel/names.ts";
import { count, eventTypeOf, rowsAt } from "../kernel/ndjson.ts";
import { DONE, failed, type Result } from "../kernel/result.ts";
import { within } from "../kernel/time.ts";
import { allSettled, type Fate, HeldBatch, RequestTicket, type Reservation } from "./batch.ts";
import { Earlier, Keys, NameBudget, Replays } from "./keys.ts";
import { Memory, type MemoryLimits } from "./memory.ts";
import { KnownMessages } from "./messages.ts";
import type { Backlog } from "./progress.ts";
import type { FillLimits, TableQueue } from "./queue.ts";
import { type Dispatch, Schedule } from "./schedule.ts";

export interface PumpOptions {
  readonly fill: FillLimits;
  /** Held at most. */
  readonly budget: Pick<MemoryLimits, "maxRows" | "maxBytes" | "tableShare">;
  /** INSERTs in flight, all tables together. */
  readonly concurrency: number;
  /** What a taken chunk has reached once its ticket's `kept` says so; `disk` needs a spool. */
  readonly reached: Exclude<Ack, "clickhouse">;
  /** On disk at most; Infinity without a spool. */
  readonly maxSpoolBytes: number;
  /** How long a key is remembered. */
  readonly keyWindowMs: number;
}

export interface PumpDeps {
  readonly sink: Sink;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly log: Log;
  /** Null where there is no disk to use. */
  readonly spool: Spool | null;
  /** For rows that ClickHouse refuses for good. Until it has them their batch waits. */
  readonly deadLetters: DeadLetterWriter;
}

/** What keeps rows from flowing, for people; null or empty = nothing. */
export interface Troubles {
  readonly server: string | null;
  readonly disk: string | null;
  readonly tables: ReadonlyMap<string, string>;
}

/** A batch with rows of a round of the disk. */
interface Filled {
  readonly queue: TableQueue;
  readonly batch: HeldBatch;
}

/** What the disk answers together. */
interface Round {
  /** Batches may stand there more than once. */
  readonly filled: Filled[];
  /** As memory says it, */
  readonly committed: Promise<Result>;
  /** and as tickets do. */
  readonly kept: Promise<Refused | null>;
}

/** A disk that takes longer to read holds up no fresh rows. */
const MOST_READING_MS = 10_000;
/** An order to set batches aside is answered in time. */
const LONGEST_ORDER_MS = 20_000;
/** Batches in that answer. */
const MOST_REASONS = 100;
/** A client that comes back later than this may find the trouble long over. */
const LONGEST_RETRY_S = 30;

export class Pump implements Intake, Holdings {
  readonly #schedule: Schedule;
  readonly #memory: Memory;
  readonly #replays: Replays;
  readonly #earlier: Earlier;
  readonly #keys: Keys;
  readonly #messages: KnownMessages;
  #keyWindowMs: number;
  readonly #alarm: Alarm;
  readonly #abort = new AbortController();
  /** By how much the wall clock was ahead of the monotonic one at the start. */
  readonly #wallAheadMs: number;
  #reached: PumpOptions["reached"];
  #closed: "stopping" | "paused" | null = null;
  /** Nothing is sent any more: what is held now is given up. */
  #ended = false;
  /** False while it is not known yet what an earlier process may have sent. */
  #sending = true;
  /** Wait until nothing is held. */
  #drains: (() => void)[] = [];
  /** The last one, until it is answered. */
  #round: Round | null = null;

  constructor(options: PumpOptions, readonly deps: PumpDeps) {
    const { clock } = deps;
    this.#wallAheadMs = clock.nowMs() - clock.monotonicMs();
    this.#reached = options.reached;
    this.#memory = new Memory(memoryLimits(options), deps);
    this.#schedule = new Schedule({
      ...options.fill,
      concurrency: options.concurrency,
      random: () => clock.random(),
      mintId: () => uuid7(clock.nowMs()),
    });
    this.#replays = new Replays(clock);
    this.#keyWindowMs = options.keyWindowMs;
    const heldBatch = (table: string, id: string) => this.#schedule.queue(table).find(id);
    this.#earlier = new Earlier({ clock, heldBatch }, deps.spool !== null);
    const known = {
      clock,
      windowMs: () => this.#keyWindowMs,
      nowMs: () => this.#nowMs(),
      earlier: this.#earlier,
      budget: new NameBudget(),
      reached: (source: string, mark: Mark) => deps.spool?.reached(source, mark),
    };
    this.#keys = new Keys(known);
    this.#messages = new KnownMessages(known);
    this.#alarm = new Alarm(clock, () => this.#turn());
  }

  // ------------------------------------------------------------ rows come

  closed(): "stopping" | "paused" | null {
    return this.#closed;
  }

  refusal(bytes: number): Refused | null {
    const reason = this.#memory.foreseen(bytes, this.#troubled);
    return reason === null ? null : this.#full(reason);
  }

  reserve(bytes: number): boolean {
    return this.#memory.reserveBody(bytes);
  }

  release(bytes: number): void {
    this.#memory.releaseBody(bytes);
  }

  replayed(table: string, id: string): Ticket | null {
    return this.#replays.find(this.#schedule.queue(table), id, this.#reached);
  }

  known(table: string, named: Named): Taken | null | Promise<Taken | null> {
    return this.#keys.knownSoon(table, named);
  }

  marks(source: string): Promise<ReadonlyMap<string, TakenMark>> {
    return this.#messages.marks(source);
  }

  taken(source: string, ids: readonly string[]): Promise<ReadonlyMap<string, Ticket>> {
    return this.#messages.taken(source, ids);
  }

  committed(source: string, mark: Mark): void {
    this.#messages.committed(source, mark);
  }

  take(chunk: Chunk): Taken {
    if (this.#closed !== null) {
      const reason = this.#closed;
      return { kind: "refused", why: "closed", reason, retryAfterS: UNAVAILABLE_RETRY_S };
    }
    const known = chunk.replay === undefined ? null : this.replayed(chunk.table, chunk.replay);
    if (known !== null) return { kind: "taken", ticket: known };
    const before = chunk.key === undefined ? null : this.#keys.known(chunk.table, chunk.key);
    if (before !== null) return before;
    const nowMs = this.#nowMs();
    const queue = this.#schedule.queue(chunk.table);
    const { table, rows, body } = chunk;
    const refusal = queue.trouble === null
      ? this.#memory.refusal(rows, body.length, nowMs, this.#troubled)
      : this.#memory.shareRefusal(table, rows, body.length, this.#troubled()) ??
        this.#memory.refusal(rows, body.length, nowMs, this.#troubled);
    if (refusal !== null) return this.#full(refusal);
    this.#memory.hold(chunk);
    const open = queue.open;
    const reservations = chunk.replay === undefined
      ? queue.reserve(chunk, nowMs)
      : queue.reserveAlone(chunk, chunk.replay, nowMs);
    const keyed = chunk.key === undefined
      ? null
      : this.#keys.begin(chunk.table, chunk.rows, chunk.key);
    const sent = chunk.messages === undefined
      ? null
      : this.#messages.begin(chunk.table, chunk.messages);
    const kept = this.#keep(queue, reservations, memosOf(keyed?.record, sent?.memos));
    // A batch that was closed to make room for these rows need not wait until the disk has them.
    const closed = open !== null && queue.open !== open;
    if (kept === null) {
      const ready = closed || reservations.some(({ batch }) => batch.sealed);
      this.#relieve(ready);
      this.#changed(queue, ready);
    } else if (closed) this.#changed(queue, true);
    if (chunk.replay !== undefined) this.#replays.taken(reservations[0]!.batch, kept);
    keyed?.taken(this.#reached, kept, reservations);
    sent?.taken(this.#reached, kept, reservations);
    const ticket = new RequestTicket(this.#reached, kept, reservations, this.deps.clock);
    return { kind: "taken", ticket };
  }

  /** @returns null when the rows are in their batches, else `Ticket.kept`. */
  #keep(
    queue: TableQueue,
    reservations: readonly Reservation[],
    memos?: readonly Memo[],
  ): Promise<Refused | null> | null {
    if (reservations.length === 1) return this.#keepOne(queue, reservations[0]!, memos);
    const kept = reservations.map((reservation) => this.#keepOne(queue, reservation, memos));
    if (kept.every((each) => each === null)) return null;
    // The parts share a round; only one whose batch the disk has just refused is refused by itself, and then the
    // chunk is, although the disk has the others for good.
    return Promise.all(kept).then((answers) => answers.find((refused) => refused !== null) ?? null);
  }

  #keepOne(
    queue: TableQueue,
    reservation: Reservation,
    memos?: readonly Memo[],
  ): Promise<Refused | null> | null {
    const committed = this.#memory.keep(reservation, memos);
    if (committed === null) return null;
    if (this.#round?.committed !== committed) {
      const filled: Filled[] = [];
      const kept = committed.then((result) => {
        if (this.#round?.committed === committed) this.#round = null;
        return this.#onCommitted(filled, result);
      });
      this.#round = { filled, committed, kept };
    }
    const { batch } = reservation;
    const { filled, kept } = this.#round;
    if (filled.at(-1)?.batch !== batch) filled.push({ queue, batch });
    return kept;
  }

  /** The disk has answered a round. */
  #onCommitted(filled: readonly Filled[], result: Result): Refused | null {
    const nowMs = this.#nowMs();
    let ready = !result.ok;
    for (const { queue, batch } of filled) {
      if (!result.ok) this.#onRefused(queue, batch);
      ready ||= batch.sealed;
      this.#alarm.setFor(this.#schedule.openWakeAtMs(queue), nowMs);
    }
    this.#relieve(ready);
    if (ready) this.#turn();
    this.#tellDrained();
    return result.ok ? null : this.#full(`disk: ${result.problem}`);
  }

  #onRefused(queue: TableQueue, batch: HeldBatch): void {
    // It stands there more than once.
    if (batch.where === "gone") return;
    // What follows begins a batch of its own.
    if (queue.open === batch) queue.close();
    if (batch.sealed && batch.rows === 0) this.#discard(queue, batch);
    // The disk has lost what was there before.
    else if (batch.sealed && batch.where === "memory") void this.#spillEach([batch]);
  }

  /** A batch that no rows are in. It may have been given up while the disk was still at it. */
  #discard(queue: TableQueue, batch: HeldBatch): void {
    queue.forget(batch);
    batch.drop();
    if (!batch.settled) batch.settle([]);
  }

  readonly #troubled = () => this.#schedule.tableTroubles().keys();

  #full(reason: string): Refused {
    // A client that comes back sooner than the next probe would only be refused again.
    const waitMs = this.#schedule.wakeAtMs() - this.#nowMs();
    const waitS = Number.isFinite(waitMs) ? Math.ceil(waitMs / 1000) : 1;
    const retryAfterS = Math.min(LONGEST_RETRY_S, Math.max(1, waitS));
    return { kind: "refused", why: "full", reason, retryAfterS };
  }

  /** Holds what earlier processes left on disk. Resolves when all is held, or nothing is any more. */
  async recover(): Promise<void> {
    const { spool, clock } = this.deps;
    const onMemos: Parameters<Spool["recover"]>[0] = (memos, all) => {
      this.#keys.recover(memos.filter((memo) => "key" in memo));
      this.#messages.recover(memos.filter((memo) => "source" in memo));
      if (all) this.#earlier.read();
      // The rest comes when another collector has gone; until then it sends what is in doubt.
      if (!all) this.#sends();
    };
    this.#sending = spool === null;
    const cancel = clock.after(MOST_READING_MS, () => this.#sends());
    for await (const found of spool?.recover(onMemos) ?? []) {
      // It stays there.
      if (this.#ended) return cancel();
      const queue = this.#schedule.queue(found.table);
      // The same rows came again meanwhile.
      if (this.#replays.held(queue, found.id) !== null) continue;
      const batch = HeldBatch.recovered(found);
      this.#memory.recovered(batch);
      queue.recovered(batch);
      if (found.trail.length === 0) this.#sends();
      this.#turn();
    }
    cancel();
    this.#sends();
    this.#earlier.recovered();
    this.#messages.recovered();
  }

  /** All that may be stored already is held: what is fresh may go. */
  #sends(): void {
    if (this.#sending) return;
    this.#sending = true;
    this.#turn();
  }

  // ------------------------------------------------------------ what is held

  rows(): number {
    return this.#memory.rows();
  }

  memoryBytes(): number {
    return this.#memory.bytes();
  }

  spoolBytes(): number {
    return this.#memory.spoolBytes();
  }

  oldestMs(): number {
    const nowMs = this.#nowMs();
    return Math.max(0, nowMs - this.#schedule.oldestTakenMs(nowMs));
  }

  byTable(): ReadonlyMap<string, number> {
    return this.#schedule.rowsByTable();
  }

  /** What could leave and has not yet. */
  backlog(): Backlog {
    return this.#schedule.backlog(this.#nowMs());
  }

  /** What keeps rows from flowing, for people: of the server, of the disk, and by table. */
  troubles(): Troubles {
    return {
      server: this.#schedule.trouble,
      disk: this.#memory.trouble(),
      tables: this.#schedule.tableTroubles(),
    };
  }

  // ------------------------------------------------------------ what is asked of it

  pause(): void {
    this.#closed ??= "paused";
  }

  resume(): void {
    if (this.#closed === "paused") this.#closed = null;
  }

  /** Seals what is open; true once all that was held at the call is settled, false at `waitMs`. */
  flush(waitMs: number): Promise<boolean> {
    this.#sendAll();
    const held = [...this.#schedule.held()];
    return allSettled(held, waitMs, this.deps.clock);
  }

  /** From the next decision on. @param elsewhere the servers are others: what failed is forgotten. */
  adopt(options: PumpOptions, elsewhere: boolean): void {
    this.#schedule.adopt({ ...options.fill, concurrency: options.concurrency }, elsewhere);
    this.#reached = options.reached;
    this.#keyWindowMs = options.keyWindowMs;
    if (this.#memory.adopt(memoryLimits(options))) void this.spill();
    this.#relieve();
    this.#turn();
  }

  /** ClickHouse was asked and answered: its next probe need not wait out the backoff. */
  serverIsBack(): void {
    this.#schedule.server.cutShort();
    this.#turn();
  }

  /**
   * Finds out whether a disk that was in trouble still is. Where it has lost files, what is in memory of
   * their rows is written again: it must not be taken for safe. What is not is lost, and counted.
   */
  async probeDisk(): Promise<void> {
    this.#keys.expire();
    this.#messages.expire();
    const vanished = new Map((await this.#memory.probe()).map(({ id, file }) => [id, file]));
    if (vanished.size === 0) return;
    this.#schedule.closeAll();
    const again: HeldBatch[] = [];
    const lost = new Set<string>();
    for (const batch of [...this.#schedule.held()]) {
      const file = vanished.get(batch.id);
      if (file === undefined || batch.settled) continue;
      const fate = this.#memory.vanished(batch);
      if (fate === "again") again.push(batch);
      else if (fate === "lost") {
        lost.add(batch.id);
        this.#lose(batch, file);
      }
    }
    this.#keys.lost(lost);
    this.#messages.lost(lost);
    this.#turn();
    await this.#spillEach(again);
  }

  #lose(batch: HeldBatch, file: string): void {
    const { table, id, rows } = batch;
    const fields = { table, batch: id, rows, file };
    this.deps.log.error("rows are lost: their spool file was deleted", fields);
    this.deps.ledger.lost(batch);
    this.#schedule.queue(table).forget(batch);
    this.#release(batch, null);
  }

  /**
   * What a table in trouble holds becomes dead letters: no other table's, nothing that is under way, and
   * what may be stored only where that is said. One batch at a time, as each may have to be read.
   */
  async setAside({ table, batch: id, maybeStored }: SetAsideWanted): Promise<Result<SetAside>> {
    const queue = this.#schedule.find(table);
    const why = queue?.trouble ?? null;
    if (queue === null || why === null) {
      return failed(`${table} is in no trouble: what is held of it is on its way`);
    }
    if (id === null) queue.close();
    const held = [...queue.held()].filter((batch) => id === null || batch.id === id)
      .sort((a, b) => a.oldestMs - b.oldestMs);
    if (id !== null && held.length === 0) return failed(`no batch ${id} of ${table} is held`);
    const untilMs = this.deps.clock.monotonicMs() + LONGEST_ORDER_MS;
    const done = { batches: 0, letters: 0, stored: 0, left: 0, leftRows: 0 };
    const reasons: LeftBatch[] = [];
    let more = false;
    for (const batch of held) {
      more = this.deps.clock.monotonicMs() >= untilMs;
      if (more) break;
      const stays = this.#whyKept(queue, batch, maybeStored);
      const given = stays === null ? await this.#giveUp(queue, batch, why) : failed(stays);
      if (given.ok) {
        done.batches++;
        done.letters += given.value;
        done.stored += batch.rows - given.value;
      } else if (!batch.settled && batch.rows > 0) {
        done.left++;
        done.leftRows += batch.rows;
        const { rows } = batch;
        if (reasons.length < MOST_REASONS) {
          reasons.push({ batch: batch.id, rows, why: given.problem });
        }
      }
    }
    this.deps.log.warn("rows were set aside by order", { table, ...done });
    this.#turn();
    return { ok: true, value: { ...done, reasons, more } };
  }

  /** Null: it may be set aside. */
  #whyKept(queue: TableQueue, batch: HeldBatch, maybeStored: boolean): string | null {
    if (this.#ended) return "the collector has stopped";
    if (batch.state === "delivered") {
      return "its fate is known; its dead letters cannot be written yet";
    }
    if (!queue.waiting.includes(batch) || !batch.ready) return "it is under way";
    return queue.doubts.has(batch) && !maybeStored
      ? "it was sent, and may be stored already"
      : null;
  }

  /** Its rows that are not stored become dead letters. Returns how many. */
  async #giveUp(queue: TableQueue, batch: HeldBatch, why: string): Promise<Result<number>> {
    const dispatch = this.#schedule.take(queue, batch, this.#nowMs());
    const message = `set aside by order, while its table was in trouble: ${why}`;
    const back = batch.inMemory ? DONE : await this.#memory.fetch(batch);
    let written: Result = back;
    let letters = 0;
    if (back.ok && !this.#ended) {
      batch.lend();
      const dead = this.deps.sink.giveUp?.(batch, batch.trail, message) ??
        Array.from({ length: batch.rows }, (_, index) => ({ index, code: OWN_WORD, message }));
      letters = dead.length;
      written = await this.#settle(batch, dead);
    }
    if (this.#ended) return failed("the collector has stopped");
    this.#schedule.onTaken(dispatch, written.ok ? null : written.problem, this.#nowMs());
    if (!batch.settled) this.#memory.putAway(batch);
    this.#relieve();
    return written.ok ? { ok: true, value: letters } : written;
  }

  // ------------------------------------------------------------ the end

  /** Refuses new rows from now on; what is held is sent at once, without waiting out a backoff. */
  close(): void {
    this.#closed = "stopping";
    this.#schedule.hurry();
    this.#sendAll();
  }

  /** What is open too, as soon as may be. */
  #sendAll(): void {
    const together = this.#schedule.closeAll();
    if (this.#sending && !this.#ended) this.deps.sink.expect?.(together);
    this.#turn();
  }

  /** Resolves when nothing is held, or at `waitMs`. True when nothing is held. */
  async drained(waitMs: number): Promise<boolean> {
    if (!this.#memory.empty) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#drains.push(resolve);
      await within(this.deps.clock, waitMs, promise, null);
    }
    return this.#memory.empty;
  }

  /** Writes what is in memory only to the disk, as far as that takes it. */
  async spill(): Promise<void> {
    await this.probeDisk();
    await this.#spillEach(this.#memory.memoryOnly());
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
        this.#schedule.queue(batch.table).forget(batch);
        this.#release(batch, null);
      } else batch.settle(null);
    }
    this.#abort.abort();
  }

  // ------------------------------------------------------------ the loop

  #nowMs(): number {
    return Math.floor(this.#wallAheadMs + this.deps.clock.monotonicMs());
  }

  /** Rows came to a table, or went unfilled. @param ready a batch may be sent that could not be before. */
  #changed(queue: TableQueue, ready: boolean): void {
    if (ready) this.#turn();
    this.#alarm.setFor(this.#schedule.openWakeAtMs(queue), this.#nowMs());
    this.#tellDrained();
  }

  #turn(): void {
    if (this.#ended || !this.#sending) return;
    const nowMs = this.#nowMs();
    const together = this.#schedule.closeTogether(nowMs);
    if (together.length > 0) this.deps.sink.expect?.(together);
    for (let next = this.#schedule.next(nowMs); next !== null; next = this.#schedule.next(nowMs)) {
      void this.#send(next);
    }
    this.#alarm.setFor(this.#schedule.wakeAtMs(), nowMs);
  }

  async #send(dispatch: Dispatch): Promise<void> {
    const { batch, queue } = dispatch;
    let delivery = await this.#attempt(dispatch);
    if (this.#ended) return;
    if (delivery.kind === "settled") {
      const written = await this.#settle(batch, delivery.dead);
      if (this.#ended) return;
      if (!written.ok) delivery = { kind: "table", code: 0, message: written.problem };
    }
    const before = this.#inTrouble(queue);
    this.#schedule.onDelivery(dispatch, delivery, this.#nowMs());
    if (!batch.settled) {
      this.#memory.putAway(batch);
      this.#relieve();
    }
    this.#report(dispatch, delivery, before && !this.#inTrouble(queue));
    this.#turn();
  }

  /** Every row's fate is known: dead rows are kept before their batch is let go. */
  async #settle(batch: HeldBatch, deadRows: readonly DeadRow[]): Promise<Result> {
    const { letters, rows, types } = deadOf(batch, deadRows);
    batch.answered(letters);
    const written = letters.length === 0
      ? DONE
      : await this.deps.deadLetters.write(batch, letters, rows);
    if (this.#ended || !written.ok) return written;
    this.deps.ledger.settled(batch, rows.length, types);
    this.#replays.settled(batch, rows.length);
    this.#release(batch, letters);
    return written;
  }

  /** A batch whose rows are on disk only is read for the attempt. */
  async #attempt({ batch, queue }: Dispatch): Promise<Delivery> {
    const unknown = queue.doubts.has(batch);
    const back = batch.inMemory ? DONE : await this.#memory.fetch(batch);
    if (!back.ok) return { kind: "table", code: 0, message: back.problem, unknown };
    if (this.#ended) return { kind: "transient", code: 0, message: "given up", unknown };
    if (batch.dead !== null) return { kind: "settled", dead: batch.dead, inserts: 0 };
    try {
      batch.lend();
      return await this.deps.sink.deliver(batch, this.#abort.signal, {
        trail: batch.trail,
        note: (line) => this.#memory.note(batch, line),
        begin: (blocks, window) => queue.doubts.begin(batch, blocks, window),
      });
    } catch (error) {
      // A sink never throws; if it does all the same, the batch is not lost to the bug.
      const message = messageOf(error);
      this.deps.log.error("sink failed", { table: batch.table, batch: batch.id, error: message });
      return { kind: "transient", code: 0, message: `internal error: ${message}`, unknown: true };
    }
  }

  #release(batch: HeldBatch, fate: Fate): void {
    this.#memory.letGo(batch);
    batch.settle(fate);
    this.#tellDrained();
  }

  #tellDrained(): void {
    if (this.#drains.length === 0 || !this.#memory.empty) return;
    for (const drained of this.#drains.splice(0)) drained();
  }

  // ------------------------------------------------------------ memory is full

  /**
   * Batches leave memory while there is too much in it, those that must be written one at a time.
   * @param changed there may be more batches that wait than before.
   */
  #relieve(changed = true): void {
    const soon = () => this.#schedule.together(this.#nowMs());
    const written = this.#memory.relieve(this.#schedule.trouble !== null, changed, soon);
    if (written !== null) return void this.#afterSpill(written);
    if (!this.#memory.squeezed) return;
    const { queue, openBytes } = this.#schedule.largestOpen();
    const batch = queue?.open ?? null;
    if (queue === null || batch === null || !this.#memory.eases(openBytes)) return;
    queue.close();
    if (!batch.sealed) return;
    this.#relieve();
    this.#turn();
  }

  async #afterSpill(written: Promise<boolean>): Promise<void> {
    if (await written) this.#relieve();
    this.#turn();
  }

  async #spillEach(batches: readonly HeldBatch[]): Promise<void> {
    for (const batch of batches) await this.#afterSpill(this.#memory.spill(batch));
    await this.#memory.spilled();
  }

  // ------------------------------------------------------------ what the log says

  #inTrouble(queue: TableQueue): boolean {
    return (this.#schedule.trouble ?? queue.trouble) !== null;
  }

  /** @param recovered a trouble has ended with this delivery. */
  #report({ batch, queue }: Dispatch, delivery: Delivery, recovered: boolean): void {
    const { log } = this.deps;
    const fields = { table: batch.table, batch: batch.id, rows: batch.rows };
    if (delivery.kind === "settled") {
      log.debug("batch stored", { ...fields, dead: delivery.dead.length });
      if (recovered) log.info("delivery goes on", fields);
      return;
    }
    if (delivery.kind === "behind") {
      log.debug("batch waits for another whose fate is unknown", fields);
      return;
    }
    const { code, message: error } = delivery;
    const attempt = Math.max(queue.retry.failures, this.#schedule.server.failures);
    const what = delivery.kind === "table"
      ? "table in trouble; its batches wait"
      : "insert failed; will retry";
    log.warn(what, { ...fields, code, error, attempt });
  }
}

/** Of most chunks there are none. */
function memosOf(
  key: Memo | undefined,
  messages: readonly Memo[] | undefined,
): readonly Memo[] | undefined {
  const some = messages?.length === 0 ? undefined : messages;
  if (key === undefined) return some;
  return some === undefined ? [key] : [key, ...some];
}

function memoryLimits({ budget, reached, maxSpoolBytes }: PumpOptions): MemoryLimits {
  return { ...budget, diskFirst: reached === "disk", maxSpoolBytes };
}

/** One timer that only ever moves to an earlier time: the next moment at which there is work. */
class Alarm {
  #atMs = Infinity;
  #cancel: () => void = () => {};

  constructor(readonly clock: Clock, readonly ring: () => void) {}

  /** Rings at `atMs` at the latest; Infinity asks for nothing. Both on the same clock. */
  setFor(atMs: number, nowMs: number): void {
    if (atMs >= this.#atMs) return;
    this.#cancel();
    this.#atMs = atMs;
    this.#cancel = this.clock.after(Math.max(1, atMs - nowMs), () => {
      this.#atMs = Infinity;
      this.ring();
    });
  }

  cancel(): void {
    this.#cancel();
    this.#atMs = Infinity;
  }
}

// ── The dead rows of a batch.

/** The dead rows of a batch, and what is known of them. */
export interface DeadOf {
  /** Ascending by index. */
  readonly letters: readonly DeadRow[];
  /** The rows themselves, in the same order. */
  readonly rows: readonly string[];
  readonly types: TypeCounts;
}

function deadOf(batch: Pick<Batch, "shape" | "body">, dead: readonly DeadRow[]): DeadOf {
  const letters = [...dead].sort((a, b) => a.index - b.index);
  const rows = letters.length === 0 ? [] : rowsAt(batch.body, letters.map(({ index }) => index));
  const types = new Map<string, number>();
  if (batch.shape === "event") { for (const row of rows) count(types, eventTypeOf(row), 1); }
  return { letters, rows, types };
}
