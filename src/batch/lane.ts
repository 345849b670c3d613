/**
 * One table's queue: at most one open batch and the sealed ones before it. Pure: time comes in.
 *
 * A batch is closed when it is full; age and idleness make it *due*, and a due batch is closed when
 * it is its turn to be sent. So while ClickHouse is slow or away batches grow to full size instead of
 * piling up as many small ones, which it would answer with "too many parts".
 */

import type { Chunk } from "../contracts.ts";
import { Circle } from "./circle.ts";
import { HeldBatch, type Place } from "./held.ts";
import { cut, rowsWithin } from "./lines.ts";

export interface FillLimits {
  readonly maxRows: number;
  readonly maxBytes: number;
  readonly flushIntervalMs: number;
  /** Due as soon as nothing has come for this long; null = never. */
  readonly idleIntervalMs: number | null;
}

export class Lane {
  open: HeldBatch | null = null;
  /** A batch was closed, and nobody has looked yet whether it can be sent. */
  justClosed = false;
  /** Closed, waiting to be sent, oldest first. */
  readonly waiting: HeldBatch[] = [];
  readonly inFlight = new Set<HeldBatch>();
  /** Attempts that failed because of this table. */
  readonly circle = new Circle();
  /** An attempt got no answer, and none was settled since. */
  unanswered = false;
  /** What is wrong with the table, for people; null once no batch of it is refused. */
  trouble: string | null = null;
  /** Oldest and newest take turns, so that fresh rows do not wait behind a backlog. */
  #newestNext = false;

  constructor(readonly table: string, public limits: FillLimits, readonly mintId: () => string) {}

  /**
   * Finds places for a chunk's rows, closing what becomes full on the way and what it may not share a
   * batch with. A chunk is cut, at a row's edge, only where it is larger than a batch: else the disk
   * could take one part of a request and refuse the other. A row larger than `maxBytes` gets a batch of
   * its own. The places are still to be filled.
   */
  place(chunk: Chunk, nowMs: number): Place[] {
    const places: Place[] = [];
    let rest: Chunk | null = chunk.rows > 0 ? chunk : null;
    if (this.open?.fingerprint !== chunk.fingerprint || this.open.shape !== chunk.shape) {
      this.close();
    }
    while (rest !== null) {
      const batch: HeldBatch = this.open ??= new HeldBatch(this.mintId(), chunk, nowMs);
      const rows = this.#fitting(rest, batch);
      const whole = rest.rows <= this.limits.maxRows && rest.body.length <= this.limits.maxBytes;
      if (rows === 0 || whole && rows < rest.rows) {
        this.close();
        continue;
      }
      // The counts of a tail are nobody else's.
      const types = rest === chunk ? undefined : rest.types as Map<string, number>;
      const [head, tail]: [Chunk, Chunk | null] = rows === rest.rows
        ? [rest, null]
        : cut(rest, rows, types);
      places.push(batch.place(head, nowMs));
      const { maxRows, maxBytes } = this.limits;
      if (batch.rows + batch.placedRows >= maxRows || batch.bytes + batch.placedBytes >= maxBytes) {
        this.close();
      }
      rest = tail;
    }
    return places;
  }

  /** A place in a batch of its own, with an id that was decided elsewhere. */
  placeAlone(chunk: Chunk, id: string, nowMs: number): Place[] {
    this.close();
    this.open = new HeldBatch(id, chunk, nowMs);
    const place = this.open.place(chunk, nowMs);
    this.close();
    return [place];
  }

  /** How many of the chunk's rows the open batch can take; at least 1 when it is empty. */
  #fitting(chunk: Chunk, batch: HeldBatch): number {
    const taken = batch.rows + batch.placedRows;
    const roomRows = this.limits.maxRows - taken;
    const roomBytes = this.limits.maxBytes - batch.bytes - batch.placedBytes;
    const rows = Math.min(chunk.rows, roomRows);
    if (chunk.body.length <= roomBytes) return rows;
    return Math.max(rowsWithin(chunk.body, roomBytes, rows), taken === 0 ? 1 : 0);
  }

  /** Closes the open batch, if there is one, and puts it last in the queue. */
  close(): void {
    if (this.open === null) return;
    this.open.close();
    this.waiting.push(this.open);
    this.open = null;
    this.justClosed = true;
  }

  /** When the open batch is due, epoch milliseconds; Infinity without one. */
  dueAtMs(): number {
    if (this.open === null) return Infinity;
    const { flushIntervalMs, idleIntervalMs } = this.limits;
    const idleAtMs = idleIntervalMs === null ? Infinity : this.open.newestMs + idleIntervalMs;
    return Math.min(this.open.oldestMs + flushIntervalMs, idleAtMs);
  }

  /** When something of this lane may be sent, were there room; Infinity for nothing. */
  readyAtMs(): number {
    let earliestMs = this.dueAtMs();
    for (const batch of this.waiting) {
      if (!batch.sealed || batch.spilling) continue;
      earliestMs = Math.min(earliestMs, batch.retryAtMs);
      // Most have not failed themselves; there may be a hundred thousand.
      if (earliestMs <= 0) break;
    }
    return Math.max(earliestMs, this.circle.retryAtMs());
  }

  /**
   * Takes out the batch to send next, or null. A due open batch is closed when it is that batch, not
   * for another one's sake: a queue must get shorter by each that leaves.
   */
  next(nowMs: number): HeldBatch | null {
    if (this.readyAtMs() > nowMs) return null;
    const allowed = (batch: HeldBatch) =>
      batch.sealed && !batch.spilling && batch.retryAtMs <= nowMs;
    const newest = this.#newestNext || !this.waiting.some(allowed);
    if (newest && this.dueAtMs() <= nowMs) this.close();
    const at = newest ? this.waiting.findLastIndex(allowed) : this.waiting.findIndex(allowed);
    // The batch that was due waits for the disk.
    if (at < 0) return null;
    this.#newestNext = !this.#newestNext;
    const batch = this.waiting.splice(at, 1)[0]!;
    this.inFlight.add(batch);
    return batch;
  }

  /** A batch's rows have left. */
  settled(batch: HeldBatch): void {
    this.inFlight.delete(batch);
    this.circle.succeeded();
    this.unanswered = false;
    this.#easeTrouble();
  }

  /** As if nothing had been tried yet. */
  forgetTrouble(): void {
    this.circle.forget();
    this.unanswered = false;
    this.trouble = null;
    for (const batch of this.held()) batch.forgetTrouble();
  }

  #easeTrouble(): void {
    if (this.trouble === null) return;
    const refused = (other: HeldBatch) => other.refused;
    if (![...this.inFlight].some(refused) && !this.waiting.some(refused)) this.trouble = null;
  }

  /** Takes a batch out, wherever it is. */
  forget(batch: HeldBatch): void {
    if (this.open === batch) this.open = null;
    this.inFlight.delete(batch);
    const at = this.waiting.indexOf(batch);
    if (at >= 0) this.waiting.splice(at, 1);
    this.#easeTrouble();
  }

  /** Into the queue, where its age belongs; also one that was recovered from disk. */
  putBack(batch: HeldBatch): void {
    this.inFlight.delete(batch);
    // By halving: a hundred thousand of them may be recovered.
    let at = 0;
    for (let end = this.waiting.length; at < end;) {
      const middle = (at + end) >> 1;
      if (this.waiting[middle]!.oldestMs <= batch.oldestMs) at = middle + 1;
      else end = middle;
    }
    this.waiting.splice(at, 0, batch);
  }

  get empty(): boolean {
    return this.open === null && this.waiting.length === 0 && this.inFlight.size === 0;
  }

  /** Everything that is held here, in no particular order. */
  *held(): Iterable<HeldBatch> {
    yield* this.inFlight;
    yield* this.waiting;
    if (this.open !== null) yield this.open;
  }
}
