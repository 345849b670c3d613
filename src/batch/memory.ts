/**
 * Where held rows are: in memory, on disk, or both; and how many there may be. Full means no, at once:
 * nothing accepted is ever dropped to make room, so the limits are asked before anything is taken.
 *
 * Rows that come are in their batch at once, or when the spool has made them safe; until then they
 * count for nothing but the budget. Sealed batches leave memory when it gets full, the oldest first, and
 * come back to be sent. What is decided here is about room; what follows for the queues is the pump's.
 */

import type { Chunk, Ledger, Memo, Spool, Vanished } from "../contracts.ts";
import { DONE, failed, type Result } from "../kernel/result.ts";
import type { HeldBatch, Reservation } from "./batch.ts";

export interface MemoryLimits {
  /** Held at most, in memory and on disk. */
  readonly maxRows: number;
  /** In memory at most. */
  readonly maxBytes: number;
  /** Rows are on disk before they count as taken. */
  readonly diskFirst: boolean;
  /** On disk at most; Infinity without a spool. */
  readonly maxSpoolBytes: number;
  /** Of rows and of the disk, what a table in trouble may hold, from 0 to 1; all of it unless given. */
  readonly tableShare?: number;
}

export interface MemoryDeps {
  readonly ledger: Ledger;
  /** Null where there is no disk to use. */
  readonly spool: Spool | null;
}

/** While the disk refuses, one write in this time finds out whether it still does. */
const DISK_PROBE_MS = 500;
/**
 * What waits to be sent may be this part of the memory budget: little, for a runtime lets its heap grow
 * to about twice what is in use. What is being filled or sent is not counted there, or a collector whose
 * ClickHouse keeps up would write large batches to the disk for nothing.
 */
const WAITING = 1 / 8;
/** All together may be this part of it before less may wait. */
const ALL = 1 / 2;
/** With so much more in memory it is looked again for what may leave; with many tables a look is felt. */
const LOOK = 1 / 64;
/** Beyond this part the largest open batch is closed early. */
const SQUEEZE = 0.75;

/** Reservations that the disk answers together. */
interface Round {
  readonly reservations: Reservation[];
  readonly synced: Promise<Result>;
  readonly committed: Promise<Result>;
}

export class Memory {
  #limits: MemoryLimits;
  /** Of all held rows, wherever they are. */
  #heldBytes = 0;
  /** By table: rows, and their bytes wherever they are. */
  readonly #byTable = new Map<string, { rows: number; bytes: number }>();
  #rows = 0;
  #bytes = 0;
  /** Of bodies that are being read, in a budget of their own, or slow uploads would be a way around. */
  #readingBytes = 0;
  /** Room for rows that the disk does not have yet: in the budget, not in the books. */
  #reservedRows = 0;
  #reservedBytes = 0;
  /** Batches with rows in memory, in the order in which they came there. */
  readonly #resident = new Set<HeldBatch>();
  /**
   * Batches that came from disk to be sent. Beyond the budget, or fresh rows would be refused while a
   * backlog drains; there are no more of them than INSERTs in flight.
   */
  readonly #fetched = new Set<HeldBatch>();
  #fetchedBytes = 0;
  /** The last one, until it is answered. */
  #round: Round | null = null;
  /** What was in memory when it was last looked for batches that may leave, or less was since. */
  #lookedAtBytes = 0;
  /** Resolves when the batch is written that is being spilled; null while there is none. */
  #spilling: Promise<unknown> | null = null;
  #diskProbedMs = -Infinity;
  /** Of the rows for which the spool had no room last. */
  #tooMuchBytes = 0;
  readonly #ledger: Ledger;
  readonly #spool: Spool | null;

  constructor(limits: MemoryLimits, { ledger, spool }: MemoryDeps) {
    this.#limits = limits;
    this.#ledger = ledger;
    this.#spool = spool;
  }

  /** From the next row on. @returns whether rows that are in memory only now belong on disk. */
  adopt(limits: MemoryLimits): boolean {
    const toDisk = limits.diskFirst && !this.#limits.diskFirst;
    this.#limits = limits;
    return toDisk;
  }

  // ------------------------------------------------------------ what is held

  /** Held rows; not those that are still on their way to the disk. */
  rows(): number {
    return this.#rows - this.#reservedRows;
  }

  bytes(): number {
    return this.#bytes + this.#fetchedBytes;
  }

  spoolBytes(): number {
    return this.#spool?.bytes() ?? 0;
  }

  /** Nothing is held, nor on its way. */
  get empty(): boolean {
    return this.#rows === 0;
  }

  /** What keeps the disk from taking rows, for people; null while it does. */
  trouble(): string | null {
    const trouble = this.#spool?.trouble() ?? null;
    if (this.#spool === null || trouble !== null) return trouble;
    // As long as what was refused would be refused again, and not for its size alone.
    const wanted = this.#usedSpoolBytes + this.#tooMuchBytes;
    if (this.#usedSpoolBytes > 0 && wanted > this.#limits.maxSpoolBytes) return this.#spoolIsFull();
    this.#tooMuchBytes = 0;
    return null;
  }

  /** Adds a line to a batch's trail, on disk too where the batch is. */
  async note(batch: HeldBatch, line: string): Promise<void> {
    batch.trail.push(line);
    // What is in memory alone takes its trail along when it is written.
    if (batch.where !== "memory") await this.#spool?.note(batch);
  }

  // ------------------------------------------------------------ is there room

  /**
   * Why there is no room for these rows, or null when there is.
   * @param troubled tables in trouble. What they took beyond their share, before that was known, is not
   * the others' loss.
   */
  refusal(
    rows: number,
    bytes: number,
    nowMs: number,
    troubled: () => Iterable<string> = () => [],
  ): string | null {
    return this.#budgetRefusal(rows, bytes, troubled) ?? this.#diskRefusal(bytes, nowMs);
  }

  /**
   * Why the rows of a body of so many bytes will find no room, as far as that is known before it is
   * read; null where it may. A body that is larger than everything may be mostly blanks.
   */
  foreseen(bytes: number, troubled: () => Iterable<string> = () => []): string | null {
    return bytes > this.#limits.maxBytes ? null : this.#budgetRefusal(1, bytes, troubled);
  }

  /** Rows that tables hold together beyond the share. */
  #beyondShare(tables: Iterable<string>): number {
    const { maxRows, tableShare = 1 } = this.#limits;
    return Math.max(0, this.#heldBy(tables).rows - maxRows * tableShare);
  }

  #heldBy(tables: Iterable<string>): { readonly rows: number; readonly bytes: number } {
    let rows = 0;
    let bytes = 0;
    for (const table of tables) {
      rows += this.#byTable.get(table)?.rows ?? 0;
      bytes += this.#byTable.get(table)?.bytes ?? 0;
    }
    return { rows, bytes };
  }

  /**
   * Why a table that is in trouble may not hold these rows too, or null when it may. Tables in trouble share
   * one share, so that many leave as much to the others as one does. One that comes when it is used up gets
   * a part of it all the same, half of an even one: it was not its trouble that used it up.
   * @param troubled all of them, this one too.
   */
  shareRefusal(
    table: string,
    rows: number,
    bytes: number,
    troubled: Iterable<string> = [table],
  ): string | null {
    const { maxRows, maxSpoolBytes, tableShare = 1 } = this.#limits;
    const tables = [...troubled];
    const own = this.#heldBy([table]);
    const all = this.#heldBy(tables);
    const percent = `${Math.round(tableShare * 100)}%`;
    const beside = tables.length > 1 ? ` and ${tables.length - 1} more` : "";
    const [is, holds, them] = beside === "" ? ["is", "holds", "it"] : ["are", "hold", "them"];
    const fits = (held: number, others: number, more: number, most: number) =>
      held + others + more <= most || held + more <= most / (2 * tables.length);
    const ofRows = maxRows * tableShare;
    if (!fits(own.rows, all.rows - own.rows, rows, ofRows)) {
      return `${table}${beside} ${is} in trouble and ${holds} ${all.rows} rows: more than ${percent} of ` +
        `backlog (table-share) is not for ${them}`;
    }
    if (this.#spool === null || !this.#limits.diskFirst) return null;
    // What the disk needs beside the rows is shared out by them.
    const onDisk = (bytes: number) =>
      bytes === 0 ? 0 : Math.round(this.#usedSpoolBytes * bytes / this.#heldBytes);
    const others = onDisk(all.bytes - own.bytes);
    if (!fits(onDisk(own.bytes), others, bytes, maxSpoolBytes * tableShare)) {
      return `${table}${beside} ${is} in trouble and ${holds} ${
        onDisk(all.bytes)
      } bytes of the disk: ` +
        `more than ${percent} of spool-max-bytes (table-share) is not for ${them}`;
    }
    return null;
  }

  #budgetRefusal(
    rows: number,
    bytes: number,
    troubled: () => Iterable<string>,
  ): string | null {
    const { maxRows, maxBytes } = this.#limits;
    if (rows > maxRows) return `${rows} rows in one request, but backlog is ${maxRows}`;
    if (bytes > maxBytes) return `${bytes} bytes in one request, but backlog-bytes is ${maxBytes}`;
    if (
      this.#rows + rows > maxRows && this.#rows + rows - this.#beyondShare(troubled()) > maxRows
    ) {
      return `backlog is full: ${this.#rows} of ${maxRows} rows held`;
    }
    if (this.#bytes + bytes > maxBytes) {
      return `backlog is full: ${this.#bytes} of ${maxBytes} bytes (backlog-bytes) held in memory`;
    }
    return null;
  }

  #diskRefusal(bytes: number, nowMs: number): string | null {
    if (this.#spool === null || !this.#limits.diskFirst) return null;
    const { maxSpoolBytes } = this.#limits;
    // Never to be taken, so no trouble of the disk.
    if (bytes > maxSpoolBytes) {
      return `${bytes} bytes in one request, but spool-max-bytes is ${maxSpoolBytes}`;
    }
    if (this.#usedSpoolBytes + bytes > maxSpoolBytes) {
      this.#tooMuchBytes = bytes;
      return this.#spoolIsFull();
    }
    const trouble = this.#spool.trouble();
    if (trouble === null) return null;
    if (nowMs - this.#diskProbedMs < DISK_PROBE_MS) return `disk: ${trouble}`;
    this.#diskProbedMs = nowMs;
    return null;
  }

  get #usedSpoolBytes(): number {
    return this.spoolBytes() + this.#reservedBytes;
  }

  #spoolIsFull(): string {
    const { maxSpoolBytes } = this.#limits;
    return `spool is full: ${this.#usedSpoolBytes} of ${maxSpoolBytes} bytes (spool-max-bytes)`;
  }

  /** Room for a body that is being read. One always gets through, or a large one never could. */
  reserveBody(bytes: number): boolean {
    if (this.#readingBytes > 0 && this.#readingBytes + bytes > this.#limits.maxBytes) return false;
    this.#readingBytes += bytes;
    return true;
  }

  releaseBody(bytes: number): void {
    this.#readingBytes -= bytes;
  }

  // ------------------------------------------------------------ rows come

  /** There is room for these rows, and they take it. */
  hold({ table, rows, body }: Chunk): void {
    this.#rows += rows;
    this.#bytes += body.length;
    this.#count(table, rows, body.length);
  }

  /** A batch that an earlier process left on disk. */
  recovered(batch: HeldBatch): void {
    this.#rows += batch.rows;
    this.#count(batch.table, batch.rows, batch.bytes);
    this.#ledger.recovered(batch.table, batch.rows);
  }

  /**
   * Fills the room that a batch has for rows which are held already. What is in memory only has its memos
   * there.
   * @returns null when they are in it, else whether the disk took them, after they are in the batch, or
   * their room is given back; one promise for all that the disk answers together.
   */
  keep(reservation: Reservation, memos?: readonly Memo[]): Promise<Result> | null {
    if (this.#spool !== null && this.#limits.diskFirst) {
      return this.#keepOnDisk(this.#spool, reservation, memos);
    }
    this.#commit(reservation);
    return null;
  }

  #keepOnDisk(spool: Spool, reservation: Reservation, memos?: readonly Memo[]): Promise<Result> {
    const { batch, chunk } = reservation;
    this.#reservedRows += chunk.rows;
    this.#reservedBytes += chunk.body.length;
    const synced = spool.append(batch, reservation.body, chunk.rows, memos);
    if (this.#round?.synced !== synced) {
      const reservations: Reservation[] = [];
      const committed = synced.then((result) => {
        if (this.#round?.synced === synced) this.#round = null;
        return this.#onSynced(reservations, result);
      });
      this.#round = { reservations, synced, committed };
    }
    this.#round.reservations.push(reservation);
    return this.#round.committed;
  }

  #onSynced(reservations: readonly Reservation[], result: Result): Result {
    for (const reservation of reservations) {
      const { batch, chunk: { rows, body } } = reservation;
      this.#reservedRows -= rows;
      this.#reservedBytes -= body.length;
      if (result.ok) {
        batch.synced();
        this.#commit(reservation);
      } else {
        batch.release(reservation);
        this.#free(rows, body.length);
        this.#count(batch.table, -rows, -body.length);
      }
    }
    return result;
  }

  #commit(reservation: Reservation): void {
    this.#ledger.accepted(reservation.chunk);
    reservation.batch.commit(reservation);
    this.#resident.add(reservation.batch);
  }

  /** More rows of a table are held, or fewer. */
  #count(table: string, rows: number, bytes: number): void {
    const held = this.#byTable.get(table) ?? { rows: 0, bytes: 0 };
    held.rows += rows;
    held.bytes += bytes;
    this.#heldBytes += bytes;
    if (held.rows === 0) this.#byTable.delete(table);
    else this.#byTable.set(table, held);
  }

  #free(rows: number, bytes: number): void {
    this.#rows -= rows;
    this.#bytes -= bytes;
    this.#lookedAtBytes = Math.min(this.#lookedAtBytes, this.#bytes);
  }

  // ------------------------------------------------------------ batches leave memory

  /**
   * Takes waiting batches out of memory, oldest first, while there is too much in it.
   * @param outage no server answers: what is filled will wait as well, and counts.
   * @param changed there may be more batches that wait than before.
   * @param soon those that are about to be sent: they stay, as if they were.
   * @returns null, or a write that had to be begun before more can leave: whether it went well.
   */
  relieve(
    outage: boolean,
    changed = true,
    soon: () => readonly HeldBatch[] = () => [],
  ): Promise<boolean> | null {
    const spool = this.#spool;
    if (spool === null || this.#spilling !== null || !this.#isTooMuch(this.#bytes, outage)) {
      return null;
    }
    const moreBytes = this.#bytes - this.#lookedAtBytes;
    if (!changed && moreBytes < this.#limits.maxBytes * LOOK) return null;
    this.#lookedAtBytes = this.#bytes;
    const waiting: HeldBatch[] = [];
    let waitingBytes = 0;
    const staying = new Set(soon());
    for (const batch of this.#resident) {
      if (!batch.ready || staying.has(batch)) continue;
      waiting.push(batch);
      waitingBytes += batch.bytes;
    }
    for (const batch of waiting) {
      if (!this.#isTooMuch(waitingBytes, outage)) return null;
      const room = this.#diskHasRoom(spool, batch.bytes);
      if (!batch.onDisk && !room) continue;
      // What the disk has somewhere may leave in any case.
      const written = room ? this.#write(spool, batch) : null;
      if (written !== null) return written;
      batch.leaveMemory();
      this.#resident.delete(batch);
      this.#free(0, batch.bytes);
      waitingBytes -= batch.bytes;
    }
    return null;
  }

  #isTooMuch(waitingBytes: number, outage: boolean): boolean {
    const { maxBytes } = this.#limits;
    return waitingBytes > maxBytes * WAITING || this.#bytes > maxBytes * (outage ? WAITING : ALL);
  }

  #diskHasRoom(spool: Spool, bytes: number): boolean {
    return spool.trouble() === null && spool.bytes() + bytes <= this.#limits.maxSpoolBytes;
  }

  /**
   * What is not sealed cannot leave memory, and while nothing can be sent nothing seals it: there is so
   * much that the largest open batch should be closed for that, if it eases anything.
   */
  get squeezed(): boolean {
    return this.#spool !== null && this.#spilling === null &&
      this.#bytes > this.#limits.maxBytes * SQUEEZE;
  }

  /** Otherwise it is what is being sent that fills memory, and many small batches would not help. */
  eases(openBytes: number): boolean {
    return openBytes >= this.#limits.maxBytes * (1 - SQUEEZE);
  }

  /** Batches that the disk has nothing of. */
  memoryOnly(): HeldBatch[] {
    return [...this.#resident].filter(({ where }) => where === "memory");
  }

  /**
   * Writes a batch to the disk that is in memory only, after the one that is being written: the disk is
   * slower than memory fills. Else nothing happens.
   * @returns whether it was written.
   */
  async spill(batch: HeldBatch): Promise<boolean> {
    while (this.#spilling !== null) await this.#spilling;
    const idle = !batch.sealed || batch.settled || batch.where !== "memory";
    if (this.#spool === null || idle) return false;
    return await (this.#write(this.#spool, batch) ?? true);
  }

  /** While it is written it is not sent. @returns null: the disk has it already. */
  #write(spool: Spool, batch: HeldBatch): Promise<boolean> | null {
    const written = spool.write(batch);
    if (written === null) {
      batch.synced();
      return null;
    }
    batch.spill();
    const over = written.then(({ ok }) => {
      this.#spilling = null;
      // Its rows may have left meanwhile.
      if (batch.where === "spilling") batch.spilled(ok);
      return ok;
    });
    this.#spilling = over;
    return over;
  }

  /** Resolves when nothing is being spilled. */
  async spilled(): Promise<void> {
    while (this.#spilling !== null) await this.#spilling;
  }

  // ------------------------------------------------------------ and come back

  /** Reads a batch's rows into memory again, to be sent. */
  async fetch(batch: HeldBatch): Promise<Result> {
    const read = await this.#spool?.read(batch) ?? failed("there is no disk");
    if (!read.ok) return read;
    // Given up meanwhile: it stays on disk.
    if (batch.settled) return failed("given up");
    batch.returnToMemory(read.value);
    this.#fetched.add(batch);
    this.#fetchedBytes += batch.bytes;
    return DONE;
  }

  /** The attempt is over and its rows have not left: those that came from the disk go again. */
  putAway(batch: HeldBatch): void {
    if (this.#returned(batch)) batch.leaveMemory();
  }

  #returned(batch: HeldBatch): boolean {
    if (!this.#fetched.delete(batch)) return false;
    this.#fetchedBytes -= batch.bytes;
    return true;
  }

  /** A batch's rows are stored, dead letters, or lost: frees their room, in memory and on disk. */
  letGo(batch: HeldBatch): void {
    this.#count(batch.table, -batch.rows, -batch.bytes);
    const outside = this.#returned(batch) || !batch.inMemory;
    this.#free(batch.rows, outside ? 0 : batch.bytes);
    const { where } = batch;
    this.#resident.delete(batch);
    batch.drop();
    if (where !== "memory") this.#spool?.remove(batch.id);
  }

  // ------------------------------------------------------------ the disk loses something

  /** What has vanished from the disk, if a look finds the disk well. */
  async probe(): Promise<readonly Vanished[]> {
    return await this.#spool?.probe() ?? [];
  }

  /**
   * The disk has lost a batch. @returns `again`: memory has its rows, they are to be written again.
   * `lost`: they were nowhere else. `later`: they are being sent, and not lost before that fails.
   */
  vanished(batch: HeldBatch): "again" | "lost" | "later" {
    if (this.#resident.has(batch)) {
      if (batch.where === "both") batch.vanish();
      return "again";
    }
    return batch.state === "sending" || batch.state === "dead-lettering" ? "later" : "lost";
  }
}
