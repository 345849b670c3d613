/**
 * One table's queue: at most one open batch and the sealed ones before it. Pure: time comes in.
 *
 * A batch is sealed when it is full; age and idleness make it *due*, and a due batch is sealed when
 * it is its turn to be sent. So while ClickHouse is slow or away batches grow to full size instead of
 * piling up as many small ones, which it would answer with "too many parts".
 */

import type { Chunk } from "../contracts.ts";
import { Circle } from "./circle.ts";
import { HeldBatch } from "./held.ts";
import { cut, rowsWithin } from "./lines.ts";
import type { Portion } from "./ticket.ts";

export interface FillLimits {
  readonly maxRows: number;
  readonly maxBytes: number;
  readonly flushIntervalMs: number;
  /** Due as soon as nothing has come for this long; null = never. */
  readonly idleIntervalMs: number | null;
}

export class Lane {
  open: HeldBatch | null = null;
  /** Sealed, waiting to be sent, oldest first. */
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

  constructor(readonly table: string, readonly limits: FillLimits, readonly mintId: () => string) {}

  /**
   * Adds a chunk, sealing what becomes full on the way and what it may not share a batch with. A chunk
   * that does not fit is cut at a row's edge; a row larger than `maxBytes` gets a batch of its own.
   * @returns where the chunk's rows are.
   */
  add(chunk: Chunk, nowMs: number): Portion[] {
    const portions: Portion[] = [];
    let rest: Chunk | null = chunk.rows > 0 ? chunk : null;
    if (this.open?.fingerprint !== chunk.fingerprint || this.open.shape !== chunk.shape) {
      this.seal();
    }
    while (rest !== null) {
      const batch: HeldBatch = this.open ??= new HeldBatch(chunk, nowMs);
      const rows = this.#fitting(rest, batch);
      if (rows === 0) {
        this.seal();
        continue;
      }
      const [head, tail]: [Chunk, Chunk | null] = rows === rest.rows
        ? [rest, null]
        : cut(rest, rows);
      portions.push({ batch, from: batch.rows, to: batch.rows + head.rows });
      batch.append(head, nowMs);
      if (batch.rows >= this.limits.maxRows || batch.bytes >= this.limits.maxBytes) {
        this.seal();
      }
      rest = tail;
    }
    return portions;
  }

  /** How many of the chunk's rows the open batch can take; at least 1 when it is empty. */
  #fitting(chunk: Chunk, batch: HeldBatch): number {
    const roomRows = this.limits.maxRows - batch.rows;
    const roomBytes = this.limits.maxBytes - batch.bytes;
    const rows = Math.min(chunk.rows, roomRows);
    if (chunk.body.length <= roomBytes) return rows;
    return Math.max(rowsWithin(chunk.body, roomBytes, rows), batch.rows === 0 ? 1 : 0);
  }

  /** Closes the open batch, if there is one, and puts it last in the queue. */
  seal(): void {
    if (this.open === null) return;
    this.open.seal(this.mintId());
    this.waiting.push(this.open);
    this.open = null;
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
    for (const batch of this.waiting) earliestMs = Math.min(earliestMs, batch.retryAtMs);
    return Math.max(earliestMs, this.circle.retryAtMs());
  }

  /**
   * Takes out the batch to send next, or null. A due open batch is sealed when it is that batch, not
   * for another one's sake: a queue must get shorter by each that leaves.
   */
  next(nowMs: number): HeldBatch | null {
    if (this.readyAtMs() > nowMs) return null;
    const allowed = (batch: HeldBatch) => batch.retryAtMs <= nowMs;
    const newest = this.#newestNext || !this.waiting.some(allowed);
    if (newest && this.dueAtMs() <= nowMs) this.seal();
    const at = newest ? this.waiting.findLastIndex(allowed) : this.waiting.findIndex(allowed);
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
    if (this.trouble === null) return;
    const refused = (other: HeldBatch) => other.refused;
    if (![...this.inFlight].some(refused) && !this.waiting.some(refused)) this.trouble = null;
  }

  /** Back into the queue, where its age belongs. */
  putBack(batch: HeldBatch): void {
    this.inFlight.delete(batch);
    const at = this.waiting.findIndex((other) => other.oldestMs > batch.oldestMs);
    this.waiting.splice(at < 0 ? this.waiting.length : at, 0, batch);
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
