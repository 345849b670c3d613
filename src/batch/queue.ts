/**
 * One table's queue: at most one open batch and the sealed ones before it. Pure: time comes in.
 *
 * A batch is closed when it is full; age and idleness make it *due*, and a due batch is closed when
 * it is its turn to be sent. So while ClickHouse is slow or away batches grow to full size instead of
 * piling up as many small ones, which it would answer with "too many parts".
 *
 * A batch that may be stored already holds up those after it only as far as its table may forget it (`Doubts`).
 */

import type { Chunk, TypeCounts } from "../contracts.ts";
import { count, eventTypeOf, offsetAfter, rowsWithin } from "../kernel/ndjson.ts";
import { HeldBatch, type Reservation } from "./batch.ts";
import { type Failure, RetryState } from "./retry.ts";

export interface FillLimits {
  readonly maxRows: number;
  readonly maxBytes: number;
  readonly flushIntervalMs: number;
  /** Due as soon as nothing has come for this long; null = never. */
  readonly idleIntervalMs: number | null;
}

/** Attempts after which a batch that others wait for is the table's trouble. */
const HOLDS_UP = 2;

export class TableQueue {
  /** Attempts that failed because of this table. */
  readonly retry = new RetryState();
  /** Which of its batches may be stored already. */
  readonly doubts = new Doubts();
  #open: HeldBatch | null = null;
  /** Closed, waiting to be sent, oldest first. */
  readonly #waiting: HeldBatch[] = [];
  readonly #inFlight = new Set<HeldBatch>();
  #unanswered = false;
  #trouble: string | null = null;
  /** Of the batch that was closed last. */
  #lastBytes = 0;
  /** Oldest and newest take turns, so that fresh rows do not wait behind a backlog. */
  #newestNext = false;
  #limits: FillLimits;

  constructor(readonly table: string, limits: FillLimits, readonly mintId: () => string) {
    this.#limits = limits;
  }

  // ------------------------------------------------------------ what is in it

  get open(): HeldBatch | null {
    return this.#open;
  }

  get waiting(): readonly HeldBatch[] {
    return this.#waiting;
  }

  /** Attempts under way. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  get empty(): boolean {
    return this.#open === null && this.#waiting.length === 0 && this.#inFlight.size === 0;
  }

  /** Everything that is held here, in no particular order. */
  *held(): Iterable<HeldBatch> {
    yield* this.#inFlight;
    yield* this.#waiting;
    if (this.#open !== null) yield this.#open;
  }

  /** One that is held here. */
  find(id: string): HeldBatch | null {
    for (const batch of this.held()) if (batch.id === id) return batch;
    return null;
  }

  // ------------------------------------------------------------ rows come

  /** From the next row on. */
  adopt(limits: FillLimits): void {
    this.close();
    this.#limits = limits;
  }

  /**
   * Finds room for a chunk's rows, closing what becomes full on the way and what it may not share a
   * batch with. A chunk is cut, at a row's edge, only where it is larger than a batch: else the disk
   * could take one part of a request and refuse the other. One that may come again is never cut: torn by a
   * crash, a part of it would come back, and then all of it again from its sender. A row larger than `maxBytes`
   * gets a batch of its own.
   */
  reserve(chunk: Chunk, nowMs: number): Reservation[] {
    const reservations: Reservation[] = [];
    const { maxRows, maxBytes } = this.#limits;
    let rest: Chunk | null = chunk.rows > 0 ? chunk : null;
    if (this.#open?.fingerprint !== chunk.fingerprint || this.#open.shape !== chunk.shape) {
      this.close();
    }
    while (rest !== null) {
      const batch = this.#open ??= new HeldBatch(this.mintId(), chunk, nowMs, this.#lastBytes);
      const alone = isWhole(chunk) && batch.takenRows === 0;
      const rows = alone ? rest.rows : this.#fitting(rest, batch);
      const whole = isWhole(chunk) ||
        rest.rows <= maxRows && rest.body.length <= maxBytes;
      if (rows === 0 || whole && rows < rest.rows) {
        this.close();
        continue;
      }
      // The counts of a tail are made for it, so that they can be taken from.
      const types = rest === chunk ? undefined : rest.types as Map<string, number>;
      const [head, tail]: [Chunk, Chunk | null] = rows === rest.rows
        ? [rest, null]
        : cut(rest, rows, types);
      reservations.push(batch.reserve(head, nowMs));
      if (batch.takenRows >= maxRows || batch.takenBytes >= maxBytes) this.close();
      rest = tail;
    }
    return reservations;
  }

  /** Room in a batch of its own, with an id that was decided elsewhere. */
  reserveAlone(chunk: Chunk, id: string, nowMs: number): Reservation[] {
    this.close();
    this.#open = new HeldBatch(id, chunk, nowMs);
    const reservation = this.#open.reserve(chunk, nowMs);
    this.close();
    return [reservation];
  }

  /** How many of the chunk's rows the open batch can take; at least 1 when it is empty. */
  #fitting(chunk: Chunk, batch: HeldBatch): number {
    const roomBytes = this.#limits.maxBytes - batch.takenBytes;
    const rows = Math.min(chunk.rows, this.#limits.maxRows - batch.takenRows);
    if (chunk.body.length <= roomBytes) return rows;
    return Math.max(rowsWithin(chunk.body, roomBytes, rows), batch.takenRows === 0 ? 1 : 0);
  }

  /** Closes the open batch, if there is one, and puts it last in the queue. */
  close(): void {
    if (this.#open === null) return;
    this.#lastBytes = this.#open.takenBytes;
    this.#open.close();
    this.#waiting.push(this.#open);
    this.#open = null;
  }

  // ------------------------------------------------------------ batches go

  /** When the open batch is due, epoch milliseconds; Infinity without one. */
  dueAtMs(): number {
    if (this.#open === null) return Infinity;
    const { flushIntervalMs, idleIntervalMs } = this.#limits;
    const idleAtMs = idleIntervalMs === null ? Infinity : this.#open.newestMs + idleIntervalMs;
    return Math.min(this.#open.oldestMs + flushIntervalMs, idleAtMs);
  }

  /**
   * Closes the open batch if it is due by its age at `atMs` and nothing but that keeps it.
   * @returns it, if it may be sent at once.
   */
  closeIfDue(atMs: number): HeldBatch | null {
    const open = this.#open;
    if (open === null || open.oldestMs + this.#limits.flushIntervalMs > atMs) return null;
    const troubled = this.retry.failures > 0 || this.#unanswered || this.doubts.closed;
    if (troubled || this.#waiting.length > 0 || this.#inFlight.size > 0) return null;
    this.close();
    return open.ready ? open : null;
  }

  /** When something of this table may be sent, were there room; Infinity for nothing. */
  readyAtMs(): number {
    const { closed } = this.doubts;
    let earliestMs = closed ? Infinity : this.dueAtMs();
    for (const batch of closed ? this.doubts.all : this.#waiting) {
      if (!batch.ready) continue;
      earliestMs = Math.min(earliestMs, batch.retry.atMs);
      // Most have not failed themselves; there may be a hundred thousand.
      if (earliestMs <= 0) break;
    }
    return Math.max(earliestMs, this.retry.retryAtMs());
  }

  /**
   * Takes out the batch to send next, or null; its attempt begins. The turn of the oldest is that of one
   * that may be stored, where there is one. A due open batch is closed when it is the one to send, not for another one's sake: a queue must
   * get shorter by each that leaves.
   * @param mayClose whether an open batch may be.
   */
  next(nowMs: number, mayClose = true): HeldBatch | null {
    if (this.readyAtMs() > nowMs) return null;
    const allowed = (batch: HeldBatch) => batch.ready && batch.retry.atMs <= nowMs;
    const { closed } = this.doubts;
    const newest = !closed && (this.#newestNext || !this.#waiting.some(allowed));
    if (newest && mayClose && this.dueAtMs() <= nowMs) this.close();
    const doubtful = newest ? undefined : this.#inDoubt(allowed);
    const at = doubtful !== undefined
      ? this.#waiting.indexOf(doubtful)
      : closed
      ? -1
      : newest
      ? this.#waiting.findLastIndex(allowed)
      : this.#waiting.findIndex(allowed);
    // The batch that was due waits for the disk.
    if (at < 0) return null;
    this.#newestNext = !this.#newestNext;
    const batch = this.#waiting.splice(at, 1)[0]!;
    batch.begin();
    this.#inFlight.add(batch);
    return batch;
  }

  /** Takes out one that waits, whatever its turn; its attempt begins. */
  take(batch: HeldBatch): void {
    this.#waiting.splice(this.#waiting.indexOf(batch), 1);
    batch.begin();
    this.#inFlight.add(batch);
  }

  /** The one that is longest in doubt. */
  #inDoubt(allowed: (batch: HeldBatch) => boolean): HeldBatch | undefined {
    for (const batch of this.doubts.all) if (allowed(batch)) return batch;
    return undefined;
  }

  /** An attempt has failed: the batch waits again. */
  putBack(batch: HeldBatch): void {
    this.#inFlight.delete(batch);
    batch.putBack();
    this.insert(batch);
  }

  /** One that was recovered from disk. */
  recovered(batch: HeldBatch): void {
    if (batch.trail.length > 0) this.doubts.recovered(batch);
    this.insert(batch);
  }

  /** Where its age belongs. */
  insert(batch: HeldBatch): void {
    // By halving: a hundred thousand of them may be recovered.
    let at = 0;
    for (let end = this.#waiting.length; at < end;) {
      const middle = (at + end) >> 1;
      if (this.#waiting[middle]!.oldestMs <= batch.oldestMs) at = middle + 1;
      else end = middle;
    }
    this.#waiting.splice(at, 0, batch);
  }

  /** A batch's rows have left. */
  left(batch: HeldBatch): void {
    this.#inFlight.delete(batch);
    this.doubts.forget(batch);
    this.retry.succeeded();
    this.#unanswered = false;
    this.#easeTrouble();
  }

  /** Takes a batch out, wherever it is. */
  forget(batch: HeldBatch): void {
    if (this.#open === batch) this.#open = null;
    this.#inFlight.delete(batch);
    this.doubts.forget(batch);
    const at = this.#waiting.indexOf(batch);
    if (at >= 0) this.#waiting.splice(at, 1);
    this.#easeTrouble();
  }

  // ------------------------------------------------------------ trouble

  /** An attempt got no answer, and none was settled since. */
  get unanswered(): boolean {
    return this.#unanswered;
  }

  /** What is wrong with the table, for people; null once no batch of it is refused or holds up others. */
  get trouble(): string | null {
    return this.#trouble ?? this.#heldUp();
  }

  /** A batch in doubt lets no other pass, and has failed more than once. */
  #heldUp(): string | null {
    for (const { id, rows, retry } of this.doubts.all) {
      if (retry.failures < HOLDS_UP || !this.doubts.closed) continue;
      return `batch ${id} (${rows} rows) may be stored, and is sent again until that is known; others wait`;
    }
    return null;
  }

  /** An attempt got no answer. */
  silent(batch: HeldBatch): void {
    this.#unanswered = true;
    batch.retry.silent();
  }

  /**
   * An attempt failed because of this table, or of the batch.
   * @param seen `retry.counted` at its start. @param trouble the table does not take it, and why.
   */
  failed(batch: HeldBatch, seen: number, trouble: string | null, failure: Failure): void {
    this.retry.failed(seen, failure);
    batch.retry.failed(trouble !== null, failure);
    if (trouble !== null) this.#trouble = trouble;
  }

  /** As if nothing had been tried yet. */
  forgetTrouble(): void {
    this.retry.forget();
    this.#unanswered = false;
    this.#trouble = null;
    for (const batch of this.held()) batch.retry.forget();
  }

  hurry(): void {
    this.retry.hurry();
    for (const batch of this.#waiting) batch.retry.hurry();
  }

  #easeTrouble(): void {
    if (this.#trouble === null) return;
    const refused = ({ retry }: HeldBatch) => retry.refused;
    if (![...this.#inFlight].some(refused) && !this.#waiting.some(refused)) this.#trouble = null;
  }
}

/** It may come again, and is recognized then: the disk has it with all of its rows, or not at all. */
function isWhole({ key, messages }: Chunk): boolean {
  return key !== undefined || messages !== undefined;
}

// ── Doubts: what one table remembers of its INSERTs, and the batches that this matters for. Pure.
//
// A batch whose INSERT went out and got no answer may be stored. Only the same INSERT under the same token
// tells, and only while the table remembers that token: a deduplication window counts blocks, one for each
// partition that an INSERT touches, and a retry does not renew a token (measured on 26.7). So fresh
// batches pass one in doubt while they add no more than half of the window; then its fate comes first. A
// table without a window remembers nothing: there it comes first in any case.
//
// What is under way may come to be in doubt, so it counts as well, though an INSERT as one block: most
// touch one partition, and a guess of a hundred would leave partitioned tables one INSERT at a time.

/** What had gone out when a batch did. */
interface Sent {
  readonly inserts: number;
  readonly blocks: number;
}

/** Before everything that is counted here: an earlier process sent it. */
const LONG_AGO: Sent = { inserts: -Infinity, blocks: -Infinity };

export class Doubts {
  /** Since the queue was made, never too few. */
  #inserts = 0;
  #blocks = 0;
  /** As the last INSERT said. */
  #window = 0;
  /** Blocks of the INSERT that was asked about last. */
  #usual = 1;
  readonly #sent = new Map<HeldBatch, Sent>();
  readonly #unknown = new Set<HeldBatch>();

  /** As `Attempt.begin`. */
  begin(batch: HeldBatch, blocks: number, window: number): boolean {
    this.#window = window;
    if (blocks === 0) {
      if (!this.#sent.has(batch)) this.#sent.set(batch, this.#now);
      return true;
    }
    this.#usual = blocks;
    if (!this.#mayPass(batch, blocks)) return false;
    this.#inserts++;
    this.#blocks += blocks;
    // What it sent before is known: another INSERT follows only then.
    this.#unknown.delete(batch);
    this.#sent.set(batch, this.#now);
    return true;
  }

  /** An earlier process may have sent it. */
  recovered(batch: HeldBatch): void {
    this.#sent.set(batch, LONG_AGO);
    this.#unknown.add(batch);
  }

  /** An attempt is over. @param unknown it may be stored. */
  ended(batch: HeldBatch, unknown: boolean): void {
    if (!unknown) return this.forget(batch);
    if (!this.#sent.has(batch)) this.#sent.set(batch, this.#now);
    this.#unknown.add(batch);
  }

  forget(batch: HeldBatch): void {
    this.#sent.delete(batch);
    this.#unknown.delete(batch);
  }

  has(batch: HeldBatch): boolean {
    return this.#unknown.has(batch);
  }

  /** Those that may be stored; the longest in doubt first. */
  get all(): Iterable<HeldBatch> {
    return this.#unknown;
  }

  /** Fresh batches have to wait for one in doubt, or under way. */
  get closed(): boolean {
    return this.#sent.size > 0 && !this.#mayPass(null, this.#usual);
  }

  get #now(): Sent {
    return { inserts: this.#inserts, blocks: this.#blocks };
  }

  #mayPass(batch: HeldBatch | null, blocks: number): boolean {
    const most = this.#window / 2;
    for (const [other, sent] of this.#sent) {
      if (other === batch) continue;
      if (this.#unknown.has(other)) {
        if (this.#blocks + blocks - sent.blocks > most) return false;
      } else if (this.#window > 0 && this.#inserts + 1 - sent.inserts > most) return false;
    }
    return true;
  }
}

// ── A chunk cut in two.

/**
 * The first `rows` rows of a chunk and the rest. The bytes are shared, not copied. The counts by type
 * are read from the shorter side's rows, so a cut costs at most half a parse.
 * @param types the chunk's own counts, which are taken from: a copy made once, and then those of the
 *   tail, for a chunk of a hundred thousand types is cut into many batches.
 */
export function cut(
  chunk: Chunk,
  rows: number,
  types: Map<string, number> = new Map(chunk.types),
): [head: Chunk, tail: Chunk] {
  const at = offsetAfter(chunk.body, rows);
  const head = chunk.body.subarray(0, at);
  const tail = chunk.body.subarray(at);
  const headShorter = rows * 2 <= chunk.rows;
  const counted = chunk.shape === "event" ? countTypes(headShorter ? head : tail) : new Map();
  for (const [type, rows] of counted) count(types, type, -rows);
  return [
    { ...chunk, rows, body: head, types: headShorter ? counted : types },
    { ...chunk, rows: chunk.rows - rows, body: tail, types: headShorter ? types : counted },
  ];
}

function countTypes(body: Uint8Array): TypeCounts {
  const counts = new Map<string, number>();
  for (const row of new TextDecoder().decode(body).split("\n")) {
    if (row !== "") count(counts, eventTypeOf(row), 1);
  }
  return counts;
}
