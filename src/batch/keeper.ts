/**
 * Where held rows are: in memory, on disk, or both. Fills the places of a chunk (at once with
 * `ack=memory`, when the spool has synced it with `ack=disk`; until then it counts for nothing but the
 * budget), takes sealed batches out of memory when it gets full, and brings them back to be sent.
 */

import type { Chunk, Ledger, Refused } from "../contracts.ts";
import type { Budget } from "./budget.ts";
import type { HeldBatch, Place } from "./held.ts";
import type { Lane } from "./lane.ts";
import type { Schedule } from "./schedule.ts";
import type { Group, Spool } from "./spool.ts";

export interface KeeperDeps {
  readonly schedule: Schedule;
  readonly budget: Budget;
  readonly ledger: Ledger;
  /** Null where there is no disk to use. */
  readonly spool: ((onSynced: (group: Group, problem: string | null) => void) => Spool) | null;
  /** Rows are on disk before they count as taken. */
  readonly diskFirst: boolean;
  /** On disk at most. */
  readonly maxSpoolBytes: number;
  /** Rows came, or went unfilled. `ready`: a batch may be sent that could not be before. */
  readonly onChange: (lane: Lane, ready: boolean) => void;
  readonly refuse: (reason: string) => Refused;
}

/** While the disk refuses, one write in this time finds out whether it still does. */
const DISK_PROBE_MS = 500;
/** Beyond this part of the memory budget sealed batches leave memory. */
const RELIEF = 0.5;

export class Keeper {
  readonly spool: Spool | null;
  /** Rows with a place that the disk does not have yet: in the budget, not in the books. */
  placedRows = 0;
  readonly #deps: KeeperDeps;
  #diskProbedMs = -Infinity;
  #spilling = false;

  constructor(deps: KeeperDeps) {
    this.#deps = deps;
    this.spool = deps.spool?.((group, problem) => this.#synced(group, problem)) ?? null;
  }

  /** Why the disk cannot take so many bytes, or null. */
  refusal(bytes: number, nowMs: number): string | null {
    const { spool } = this;
    if (spool === null || !this.#deps.diskFirst) return null;
    const limit = this.#deps.maxSpoolBytes;
    if (spool.bytes + bytes > limit) {
      return `spool is full: ${spool.bytes} of ${limit} bytes (spool-max-bytes)`;
    }
    if (spool.trouble === null) return null;
    if (nowMs - this.#diskProbedMs < DISK_PROBE_MS) return `disk: ${spool.trouble}`;
    this.#diskProbedMs = nowMs;
    return null;
  }

  /**
   * Fills the places of a chunk whose rows are in the budget already.
   * @returns null when they are filled, else `Ticket.kept`.
   */
  keep(lane: Lane, chunk: Chunk, places: readonly Place[]): Promise<Refused | null> | null {
    if (this.spool !== null && this.#deps.diskFirst) return this.#keepOnDisk(this.spool, places);
    this.#deps.ledger.accepted(chunk);
    for (const place of places) place.batch.append(place);
    const ready = places.some(({ batch }) => batch.sealed);
    if (ready) this.#relieve();
    this.#deps.onChange(lane, ready);
    return null;
  }

  /**
   * One group a batch. A chunk that was cut waits for all of its groups; should the disk take one and
   * not the next, the client is refused although the first part stays: the disk has it for good.
   */
  #keepOnDisk(spool: Spool, places: readonly Place[]): Promise<Refused | null> {
    for (const place of places) this.placedRows += place.chunk.rows;
    const synced = places.length === 1
      ? spool.submit(places[0]!)
      : Promise.all(places.map((place) => spool.submit(place)))
        .then((problems) => problems.find((problem) => problem !== null) ?? null);
    return synced.then((problem) =>
      problem === null ? null : this.#deps.refuse(`disk: ${problem}`)
    );
  }

  #synced({ batch, places }: Group, problem: string | null): void {
    const { ledger, budget, schedule } = this.#deps;
    const lane = schedule.lane(batch.table);
    for (const place of places) {
      this.placedRows -= place.chunk.rows;
      if (problem === null) {
        ledger.accepted(place.chunk);
        batch.append(place);
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
        batch.settle([]);
        void this.spool?.remove(batch);
      }
    }
    if (batch.sealed) this.#relieve();
    this.#deps.onChange(lane, batch.sealed);
  }

  /**
   * Takes sealed batches out of memory, oldest first, while more than half of the budget is used;
   * those that are in memory only are written to the spool first, one at a time: the disk is slower
   * than memory fills, and then the answer is 429.
   */
  #relieve(): void {
    const { budget, schedule } = this.#deps;
    const limit = budget.limits.maxBytes * RELIEF;
    if (this.spool === null || budget.bytes <= limit) return;
    for (const lane of schedule.lanes.values()) {
      for (const batch of lane.waiting) {
        if (!batch.sealed || !batch.inMemory || batch.spilling) continue;
        if (batch.onDisk) this.#leaveMemory(batch);
        else if (!this.#spilling) void this.#spillOne(this.spool, lane, batch);
        if (budget.bytes <= limit) return;
      }
    }
  }

  #leaveMemory(batch: HeldBatch): void {
    batch.leaveMemory();
    this.#deps.budget.free(0, batch.bytes);
  }

  async #spillOne(spool: Spool, lane: Lane, batch: HeldBatch): Promise<void> {
    if (spool.bytes + batch.bytes > this.#deps.maxSpoolBytes) return;
    this.#spilling = true;
    const problem = await this.#spill(spool, batch);
    this.#spilling = false;
    if (problem === null && !batch.settled) {
      this.#leaveMemory(batch);
      this.#relieve();
    }
    this.#deps.onChange(lane, true);
  }

  /** While it is written it is not sent. */
  async #spill(spool: Spool, batch: HeldBatch): Promise<string | null> {
    batch.spilling = true;
    const problem = await spool.spill(batch);
    batch.spilling = false;
    if (batch.settled) await spool.remove(batch);
    return problem;
  }

  /** Writes all that is in memory only to the spool. What the disk does not take stays as it is. */
  async spillAll(): Promise<void> {
    if (this.spool === null) return;
    for (const batch of [...this.#deps.schedule.held()]) {
      if (batch.sealed && !batch.onDisk && !batch.spilling && !batch.settled) {
        await this.#spill(this.spool, batch);
      }
    }
  }

  /** Reads a batch's rows into memory again; false where the disk does not give them back. */
  async bringBack(batch: HeldBatch): Promise<boolean> {
    const body = await this.spool?.load(batch) ?? null;
    if (body === null) return false;
    batch.returnToMemory(body);
    this.#deps.budget.hold(0, batch.bytes);
    return true;
  }

  /** Its rows have left. */
  letGo(batch: HeldBatch): void {
    this.#deps.budget.free(batch.rows, batch.inMemory ? batch.bytes : 0);
    if (!batch.spilling) void this.spool?.remove(batch);
  }
}
