/**
 * Where held rows are: in memory, on disk, or both. Fills the places of a chunk (at once with
 * `ack=memory`, when the spool has synced it with `ack=disk`; until then it counts for nothing but the
 * budget), takes sealed batches out of memory when it gets full, and brings them back to be sent.
 */

import type { Chunk, Refused, Spool } from "../contracts.ts";
import { bytesOf, type HeldBatch, type Place } from "./held.ts";
import type { KeeperDeps, KeeperLimits } from "./keeper_deps.ts";
import type { Lane } from "./lane.ts";
import { isTooMuch, laneToClose } from "./relief.ts";
import { DONE, failed, type Result } from "../kernel/result.ts";

/** While the disk refuses, one write in this time finds out whether it still does. */
const DISK_PROBE_MS = 500;

/** Places of one batch that the disk answers together. */
interface Group {
  readonly batch: HeldBatch;
  readonly places: Place[];
  readonly synced: Promise<Result>;
  /** What its tickets say; one promise serves all who wait. */
  readonly kept: Promise<Refused | null>;
}

export class Keeper {
  readonly spool: Spool | null;
  /** Rows with a place that the disk does not have yet: in the budget, not in the books. */
  placedRows = 0;
  #placedBytes = 0;
  /**
   * Of batches that came from disk to be sent. Beyond the budget, or fresh rows would be refused while
   * a backlog drains; there are no more of them than INSERTs in flight.
   */
  sendingBytes = 0;
  readonly #sending = new Set<HeldBatch>();
  readonly #deps: KeeperDeps;
  /** The last group of each batch, until it is answered. */
  readonly #groups = new Map<HeldBatch, Group>();
  #limits: KeeperLimits;
  #diskProbedMs = -Infinity;
  /** Of the rows for which the spool had no room last. */
  #tooMuchBytes = 0;
  /** Batches with rows in memory, in the order in which they came there. */
  readonly #inMemory = new Set<HeldBatch>();
  /** Resolves when the batch is written that is being spilled; null while there is none. */
  #spilling: Promise<void> | null = null;

  constructor(deps: KeeperDeps) {
    this.#deps = deps;
    this.#limits = deps.limits;
    this.spool = deps.spool;
  }

  /** From the next row on. With `diskFirst` those follow that are in memory only. */
  adopt(limits: KeeperLimits): void {
    const toDisk = limits.diskFirst && !this.#limits.diskFirst;
    this.#limits = limits;
    if (toDisk) void this.spillAll();
    this.relieve();
  }

  /** Why the disk cannot take so many bytes, or null. */
  refusal(bytes: number, nowMs: number): string | null {
    const { spool } = this;
    if (spool === null || !this.#limits.diskFirst) return null;
    const { maxSpoolBytes } = this.#limits;
    // Never to be taken, so no trouble of the disk.
    if (bytes > maxSpoolBytes) {
      return `${bytes} bytes in one request, but spool-max-bytes is ${maxSpoolBytes}`;
    }
    if (this.#usedBytes + bytes > maxSpoolBytes) {
      this.#tooMuchBytes = bytes;
      return this.#spoolIsFull();
    }
    if (spool.trouble() === null) return null;
    if (nowMs - this.#diskProbedMs < DISK_PROBE_MS) return `disk: ${spool.trouble()}`;
    this.#diskProbedMs = nowMs;
    return null;
  }

  /** What keeps the disk from taking rows, for people; null while it does. */
  trouble(): string | null {
    const trouble = this.spool?.trouble() ?? null;
    if (this.spool === null || trouble !== null) return trouble;
    // As long as what was refused would be refused again, and not for its size alone.
    const wanted = this.#usedBytes + this.#tooMuchBytes;
    if (this.#usedBytes > 0 && wanted > this.#limits.maxSpoolBytes) return this.#spoolIsFull();
    this.#tooMuchBytes = 0;
    return null;
  }

  get #usedBytes(): number {
    return (this.spool?.bytes() ?? 0) + this.#placedBytes;
  }

  #spoolIsFull(): string {
    return `spool is full: ${this.#usedBytes} of ${this.#limits.maxSpoolBytes} bytes (spool-max-bytes)`;
  }

  /**
   * Fills the places of a chunk whose rows are in the budget already.
   * @returns null when they are filled, else `Ticket.kept`.
   */
  keep(lane: Lane, chunk: Chunk, places: readonly Place[]): Promise<Refused | null> | null {
    if (this.spool !== null && this.#limits.diskFirst) return this.#keepOnDisk(this.spool, places);
    this.#deps.ledger.accepted(chunk);
    for (const place of places) this.#append(place);
    this.relieve();
    this.#deps.onChange(lane, places.some(({ batch }) => batch.sealed));
    return null;
  }

  /**
   * One group a batch. A chunk that was cut waits for all of its groups; should the disk take one and
   * not the next, the client is refused although the first part stays: the disk has it for good.
   */
  #keepOnDisk(spool: Spool, places: readonly Place[]): Promise<Refused | null> {
    for (const { chunk } of places) this.#placed(chunk, 1);
    if (places.length === 1) return this.#submit(spool, places[0]!);
    return Promise.all(places.map((place) => this.#submit(spool, place)))
      .then((told) => told.find((refused) => refused !== null) ?? null);
  }

  #submit(spool: Spool, place: Place): Promise<Refused | null> {
    const { batch } = place;
    const synced = spool.append(batch, bytesOf(place), place.chunk.rows);
    let group = this.#groups.get(batch);
    if (group?.synced !== synced) {
      const places: Place[] = [];
      const kept = synced.then((result) => this.#synced(batch, places, synced, result));
      group = { batch, places, synced, kept };
      this.#groups.set(batch, group);
    }
    group.places.push(place);
    return group.kept;
  }

  #placed({ rows, body }: Chunk, sign: 1 | -1): void {
    this.placedRows += sign * rows;
    this.#placedBytes += sign * body.length;
  }

  #append(place: Place): void {
    place.batch.append(place);
    this.#inMemory.add(place.batch);
  }

  #synced(
    batch: HeldBatch,
    places: readonly Place[],
    synced: Promise<Result>,
    result: Result,
  ): Refused | null {
    const { ledger, budget, schedule } = this.#deps;
    const problem = result.ok ? null : result.problem;
    if (this.#groups.get(batch)?.synced === synced) this.#groups.delete(batch);
    if (result.ok) batch.onDisk = true;
    const lane = schedule.lane(batch.table);
    for (const place of places) {
      this.#placed(place.chunk, -1);
      if (problem === null) {
        ledger.accepted(place.chunk);
        this.#append(place);
      } else {
        batch.forgo(place);
        budget.free(place.chunk.rows, place.chunk.body.length);
      }
    }
    if (problem !== null) {
      // What follows begins a segment of its own.
      if (lane.open === batch) lane.close();
      if (batch.sealed && batch.rows === 0) {
        lane.forget(batch);
        // Its end may have been told while the disk was still at it.
        if (!batch.settled) batch.settle([]);
      }
    }
    this.relieve();
    this.#deps.onChange(lane, batch.sealed);
    return problem === null ? null : this.#deps.refuse(`disk: ${problem}`);
  }

  /**
   * Takes waiting batches out of memory, oldest first, while there is too much in it; those that are in
   * memory only are written to the spool first, one at a time: the disk is slower than memory fills, and
   * then the answer is 429.
   */
  relieve(): void {
    const { spool } = this;
    const { budget, schedule } = this.#deps;
    if (spool === null || this.#spilling !== null) return;
    const outage = schedule.trouble !== null;
    if (!isTooMuch(budget.bytes, budget, outage)) return;
    const waiting: HeldBatch[] = [];
    let waitingBytes = 0;
    for (const batch of this.#inMemory) {
      if (!batch.sealed || schedule.lane(batch.table).inFlight.has(batch)) continue;
      waiting.push(batch);
      waitingBytes += batch.bytes;
    }
    for (const batch of waiting) {
      if (!isTooMuch(waitingBytes, budget, outage)) return;
      if (batch.onDisk && spool.write(batch) === null) {
        this.#leaveMemory(batch);
        waitingBytes -= batch.bytes;
      } else if (
        spool.trouble() === null && spool.bytes() + batch.bytes <= this.#limits.maxSpoolBytes
      ) {
        this.#spilling = this.#spill(spool, batch);
        return;
      }
    }
    const lane = laneToClose(schedule, budget);
    if (lane === null) return;
    const batch = lane.open;
    lane.close();
    if (!batch?.sealed) return;
    this.relieve();
    this.#deps.onChange(lane, true);
  }

  #leaveMemory(batch: HeldBatch): void {
    batch.leaveMemory();
    this.#inMemory.delete(batch);
    this.#deps.budget.free(0, batch.bytes);
  }

  /** While it is written it is not sent. */
  async #spill(spool: Spool, batch: HeldBatch): Promise<void> {
    batch.spilling = true;
    const written = await spool.write(batch);
    batch.spilling = false;
    if (written?.ok !== false) batch.onDisk = true;
    this.#spilling = null;
    if (batch.onDisk) this.relieve();
    this.#deps.onChange(this.#deps.schedule.lane(batch.table), true);
  }

  /** Writes those of some batches to the spool that are in memory only, as far as the disk takes it. */
  async #spillEach(spool: Spool, batches: readonly HeldBatch[]): Promise<void> {
    for (const batch of batches) {
      while (this.#spilling !== null) await this.#spilling;
      if (!batch.sealed || batch.onDisk || batch.settled) continue;
      this.#spilling = this.#spill(spool, batch);
    }
    while (this.#spilling !== null) await this.#spilling;
  }

  /** Writes all that is in memory only to the spool. What the disk does not take stays as it is. */
  async spillAll(): Promise<void> {
    if (this.spool === null) return;
    await this.probe();
    await this.#spillEach(this.spool, [...this.#inMemory]);
  }

  /**
   * Finds out whether a disk in trouble still is. Where somebody has removed files, what is in memory
   * of their rows is written again: it must not be taken for safe. What is not is lost, and counted.
   */
  async probe(): Promise<void> {
    const { spool } = this;
    const { schedule } = this.#deps;
    if (spool === null) return;
    const vanished = new Map((await spool.probe()).map(({ id, file }) => [id, file]));
    if (vanished.size === 0) return;
    for (const lane of schedule.lanes.values()) lane.close();
    const again: HeldBatch[] = [];
    for (const batch of [...schedule.held()]) {
      const file = vanished.get(batch.id);
      if (file === undefined || batch.settled) continue;
      // What is being read, or sent, is not lost before that fails.
      const { inFlight } = schedule.lane(batch.table);
      if (!this.#inMemory.has(batch) && inFlight.has(batch)) continue;
      batch.onDisk = false;
      if (batch.inMemory) again.push(batch);
      else this.#lose(batch, file);
    }
    await this.#spillEach(spool, again);
  }

  #lose(batch: HeldBatch, file: string): void {
    const { schedule, ledger, onChange, log } = this.#deps;
    const { table, id, rows } = batch;
    log.error("rows are lost: somebody has removed their file", { table, batch: id, rows, file });
    const lane = schedule.lane(batch.table);
    ledger.lost(batch);
    lane.forget(batch);
    this.letGo(batch);
    batch.settle(null);
    onChange(lane, false);
  }

  /** Reads a batch's rows into memory again. */
  async bringBack(batch: HeldBatch): Promise<Result> {
    const read = await this.spool?.read(batch) ?? failed("there is no disk");
    if (!read.ok) return read;
    batch.returnToMemory(read.value);
    this.#sending.add(batch);
    this.sendingBytes += batch.bytes;
    return DONE;
  }

  /** The attempt is over and its rows have not left: those that came from the disk go again. */
  putAway(batch: HeldBatch): void {
    if (this.#notSending(batch)) batch.leaveMemory();
    this.relieve();
  }

  #notSending(batch: HeldBatch): boolean {
    if (!this.#sending.delete(batch)) return false;
    this.sendingBytes -= batch.bytes;
    return true;
  }

  /** Its rows have left. */
  letGo(batch: HeldBatch): void {
    const fromDisk = this.#notSending(batch);
    this.#deps.budget.free(batch.rows, batch.inMemory && !fromDisk ? batch.bytes : 0);
    batch.leaveMemory();
    this.#inMemory.delete(batch);
    if (batch.onDisk || batch.spilling) this.spool?.remove(batch.id);
  }
}
