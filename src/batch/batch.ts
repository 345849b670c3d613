/**
 * A batch from its first row to its fate, and the steps that it may take. Rows are first given room in
 * it, then are in it (at once, or when the disk has them); it is sealed when it takes no further rows
 * and all are in it, and settled when every row's fate is known. The same object throughout, so that a
 * request can hold on to the rows it brought without the batch knowing every request.
 *
 * Below: where its bytes lie, and the tickets that follow its rows.
 */

import type {
  Ack,
  Batch,
  BatchHead,
  Chunk,
  Clock,
  DeadRow,
  GrowingBatch,
  RecoveredBatch,
  Shape,
  Ticket,
  TypeCounts,
} from "../contracts.ts";
import { count } from "../kernel/ndjson.ts";
import { BatchRetry } from "./retry.ts";

/** How far a batch has got. */
export type BatchState =
  /** Takes rows. */
  | "open"
  /** Takes no further rows; those that it has room for are still on their way to the disk. */
  | "closed"
  /** Sealed: it never changes again. Stands in its table's queue. */
  | "waiting"
  /** An attempt to deliver it is under way. */
  | "sending"
  /** Delivered; its dead rows are being written as dead letters. */
  | "dead-lettering"
  /** Delivered, but its dead rows are no dead letters yet. Stands in its table's queue for that alone. */
  | "delivered"
  /** Every row's fate is known; or it is given up, and what the disk has is for the next start. */
  | "settled";

/** Where a batch's rows are. */
export type Where =
  | "memory"
  /** In memory; they are being written to the disk whole, and not sent meanwhile. */
  | "spilling"
  /** In memory and on disk. */
  | "both"
  | "disk"
  /** Nowhere any more: they have left. */
  | "gone";

/** Every step that is legal; all others are bugs, and throw. */
export const STEPS: Readonly<Record<BatchState, ReadonlySet<BatchState>>> = {
  // Each state may be the last one: at the end what is held is given up.
  open: new Set(["closed", "settled"]),
  closed: new Set(["waiting", "settled"]),
  waiting: new Set(["sending", "settled"]),
  sending: new Set(["waiting", "dead-lettering", "settled"]),
  "dead-lettering": new Set(["delivered", "settled"]),
  delivered: new Set(["dead-lettering", "settled"]),
  settled: new Set(),
};

/** And every way that rows may go. */
export const MOVES: Readonly<Record<Where, ReadonlySet<Where>>> = {
  memory: new Set(["both", "spilling", "gone"]),
  // Back to where they were when the disk does not take them.
  spilling: new Set(["both", "memory", "gone"]),
  // To memory alone when the disk has lost what it had.
  both: new Set(["disk", "spilling", "memory", "gone"]),
  // Read for an attempt, they are in both places.
  disk: new Set(["both", "gone"]),
  gone: new Set(),
};

/** `null`: given up; its rows are lost, or on disk for the next start. */
export type Fate = readonly DeadRow[] | null;

/** Rows `from` (included) to `to` (excluded) of a batch. */
export interface Span {
  readonly batch: HeldBatch;
  readonly from: number;
  readonly to: number;
}

/** Room in a batch for rows that came with one request; a span once they are in it. */
export class Reservation implements Span {
  #from = 0;

  /** @param piece the batch's own memory, where the chunk's bytes lie from `at` on. */
  constructor(
    readonly batch: HeldBatch,
    readonly chunk: Chunk,
    readonly piece: Uint8Array,
    readonly at: number,
  ) {}

  get from(): number {
    return this.#from;
  }

  get to(): number {
    return this.#from + this.chunk.rows;
  }

  /** The rows, in memory that stays as it is. */
  get body(): Uint8Array {
    return this.piece.subarray(this.at, this.at + this.chunk.body.length);
  }

  /** They are in the batch, behind so many others. */
  filled(from: number): void {
    this.#from = from;
  }
}

export class HeldBatch implements Batch, GrowingBatch {
  readonly table: string;
  readonly shape: Shape;
  readonly fingerprint: string | null;
  readonly retry = new BatchRetry();
  /** What was tried of it, as the sink noted it. */
  readonly trail: string[] = [];
  #state: BatchState = "open";
  #where: Where = "memory";
  /** The disk has all rows that are in it, also while it is being written whole. */
  #safe = false;
  #rows = 0;
  #bytes = 0;
  #reservedRows = 0;
  #reservedBytes = 0;
  #newestMs: number;
  readonly #types = new Map<string, number>();
  #keys: ReadonlySet<string> | null = NO_KEYS;
  /** Null once it is sealed. */
  #slabs: Slabs | null;
  #body: Uint8Array[] = [];
  /** What of the body's memory is the batch's own, to be freed. */
  #own: readonly ArrayBuffer[] = [];
  /** Attempts that may still have the body before them: under way, or failed. */
  #readers = 0;
  #dead: readonly DeadRow[] | null = null;
  #fate: Fate | undefined;
  #waiters: ((fate: Fate) => void)[] = [];

  /**
   * @param id UUID: the `insert_deduplication_token`.
   * @param oldestMs when its first row was taken, epoch milliseconds.
   * @param likelyBytes of rows that it will have, as far as that can be guessed.
   */
  constructor(
    readonly id: string,
    head: Pick<BatchHead, "table" | "shape" | "fingerprint">,
    readonly oldestMs: number,
    likelyBytes = 0,
  ) {
    this.#slabs = new Slabs(likelyBytes);
    this.table = head.table;
    this.shape = head.shape;
    this.fingerprint = head.fingerprint;
    this.#newestMs = oldestMs;
  }

  /** A sealed batch whose rows are on disk only. */
  static recovered(found: RecoveredBatch): HeldBatch {
    const batch = new HeldBatch(found.id, found, found.oldestMs);
    batch.#rows = found.rows;
    batch.#bytes = found.bytes;
    batch.#keys = null;
    for (const [type, rows] of found.types) batch.#types.set(type, rows);
    batch.trail.push(...found.trail);
    batch.close();
    batch.synced();
    batch.leaveMemory();
    return batch;
  }

  // ------------------------------------------------------------ what it is

  get state(): BatchState {
    return this.#state;
  }

  get where(): Where {
    return this.#where;
  }

  /** Of the rows that are in it. */
  get rows(): number {
    return this.#rows;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Rows that are in it or have room in it. */
  get takenRows(): number {
    return this.#rows + this.#reservedRows;
  }

  get takenBytes(): number {
    return this.#bytes + this.#reservedBytes;
  }

  get types(): TypeCounts {
    return this.#types;
  }

  get keys(): ReadonlySet<string> | null {
    return this.#keys;
  }

  /** When the last row was taken. */
  get newestMs(): number {
    return this.#newestMs;
  }

  /** Once it is sealed; empty while the rows are not in memory. */
  get body(): readonly Uint8Array[] {
    return this.#body;
  }

  /** It never changes again. */
  get sealed(): boolean {
    return this.#slabs === null;
  }

  get settled(): boolean {
    return this.#state === "settled";
  }

  /** It stands in the queue and an attempt may begin, as far as the batch itself is concerned. */
  get ready(): boolean {
    return (this.#state === "waiting" || this.#state === "delivered") && this.#where !== "spilling";
  }

  get inMemory(): boolean {
    return this.#where !== "disk" && this.#where !== "gone";
  }

  /** All of its rows are on disk. */
  get onDisk(): boolean {
    return this.#safe;
  }

  /** Delivered, and to become dead letters; null before. */
  get dead(): readonly DeadRow[] | null {
    return this.#dead;
  }

  // ------------------------------------------------------------ it is filled

  /** Copies a chunk's bytes; the caller has seen to it that they fit. */
  reserve(chunk: Chunk, nowMs: number): Reservation {
    if (this.#state !== "open" || this.#slabs === null) {
      throw new Error(`batch ${this.id} is ${this.#state}: it takes no further rows`);
    }
    this.#reservedRows += chunk.rows;
    this.#reservedBytes += chunk.body.length;
    this.#newestMs = nowMs;
    this.#slabs.add(chunk.body, chunk.lent === true);
    return new Reservation(this, chunk, this.#slabs.piece, this.#slabs.at);
  }

  /** The rows are in it; in the order of the reservations. */
  commit(reservation: Reservation): void {
    if (this.sealed) throw new Error(`batch ${this.id} is sealed: no rows are missing`);
    const { chunk } = reservation;
    reservation.filled(this.#rows);
    this.#rows += chunk.rows;
    this.#bytes += chunk.body.length;
    for (const [type, rows] of chunk.types) count(this.#types, type, rows);
    this.#keys = both(this.#keys, chunk.keys ?? null);
    this.release(reservation);
  }

  /** Gives room back unfilled, and with it all that comes after it. */
  release({ chunk }: Reservation): void {
    this.#reservedRows -= chunk.rows;
    this.#reservedBytes -= chunk.body.length;
    this.#seal();
  }

  /** Takes no further rows. What is given up already stays as it is. */
  close(): void {
    if (this.settled) return;
    this.#step("closed");
    this.#seal();
  }

  #seal(): void {
    if (this.#state === "open" || this.#reservedRows > 0 || this.#slabs === null) return;
    // One that no rows are in has nothing to wait for.
    if (this.#state === "closed" && this.#rows > 0) this.#step("waiting");
    this.#body = this.#slabs.finish(this.#bytes);
    this.#own = this.#slabs.own;
    this.#slabs = null;
  }

  // ------------------------------------------------------------ it is sent

  /** An attempt begins: to deliver it, or only to write its dead letters. */
  begin(): void {
    this.#step(this.#state === "delivered" ? "dead-lettering" : "sending");
  }

  /** The body is read from now on by others: until `answered`, or for good. */
  lend(): void {
    this.#readers++;
  }

  /** Every row's fate is known, and the body given back. @param dead ascending by `index`. */
  answered(dead: readonly DeadRow[]): void {
    if (this.#state === "dead-lettering") return;
    this.#readers--;
    if (dead.length === 0) return;
    this.#step("dead-lettering");
    this.#dead = dead;
  }

  /** The attempt has failed: it stands in the queue again. */
  putBack(): void {
    this.#step(this.#state === "dead-lettering" ? "delivered" : "waiting");
  }

  /** Every row's fate is known, once and for all. Dead rows ascend by `index`. */
  settle(fate: Fate): void {
    this.#step("settled");
    this.#fate = fate;
    for (const waiter of this.#waiters.splice(0)) waiter(fate);
  }

  /** Calls `waiter` when the fate is known, at once if it is. */
  whenSettled(waiter: (fate: Fate) => void): void {
    if (this.#fate !== undefined) waiter(this.#fate);
    else this.#waiters.push(waiter);
  }

  // ------------------------------------------------------------ its rows move

  /** The disk has all rows that are in it, and those that are now. */
  synced(): void {
    if (this.#where !== "both") this.#move("both");
    this.#safe = true;
  }

  /** It is being written whole. */
  spill(): void {
    this.#move("spilling");
  }

  /** The write is over. @param ok false: the rows are where they were before. */
  spilled(ok: boolean): void {
    this.#safe ||= ok;
    this.#move(this.#safe ? "both" : "memory");
  }

  /** The disk has lost what it had. */
  vanish(): void {
    this.#move("memory");
    this.#safe = false;
  }

  /** Its rows stay on disk only. */
  leaveMemory(): void {
    this.#move("disk");
    this.#free();
  }

  /** @param body read from disk, in memory of its own. */
  returnToMemory(body: Uint8Array[]): void {
    this.#move("both");
    this.#body = body;
    this.#readers = 0;
    this.#own = [...new Set(body.map(({ buffer }) => buffer as ArrayBuffer))];
  }

  /** Frees the batch's memory: its rows are stored, dead letters, or lost. */
  drop(): void {
    // The disk still reads it.
    if (this.#where === "spilling") this.#readers++;
    this.#move("gone");
    this.#free();
  }

  /**
   * Memory is freed at once: a runtime that has to find out by itself lets its heap double before it
   * looks, and what is freed soon is still in the cache for the rows that come next.
   */
  #free(): void {
    if (this.#readers === 0) {
      for (const buffer of this.#own) buffer.transfer(0);
    }
    this.#own = [];
    this.#body = [];
  }

  // ------------------------------------------------------------ steps

  #step(to: BatchState): void {
    if (!STEPS[this.#state].has(to)) this.#illegal(this.#state, to);
    this.#state = to;
  }

  #move(to: Where): void {
    if (!MOVES[this.#where].has(to)) this.#illegal(this.#where, to);
    this.#where = to;
  }

  #illegal(from: string, to: string): never {
    throw new Error(`batch ${this.id}: from ${from} to ${to} is no legal step`);
  }
}

const NO_KEYS: ReadonlySet<string> = new Set();

/** One of the two where it has all of them, as it mostly does; null where one is not known. */
function both(
  one: ReadonlySet<string> | null,
  other: ReadonlySet<string> | null,
): ReadonlySet<string> | null {
  if (one === other || one === null || other === null) return one === null ? null : other;
  if (other.isSubsetOf(one)) return one;
  return one.isSubsetOf(other) ? other : one.union(other);
}

// ── The bytes of a batch, in few pieces: what is small, or only lent, is copied behind what came before.
// This is the one copy that a row's bytes get on their way from the request's chunk to the INSERT; the
// disk is given the copy.

/** Pieces smaller than this are copied together: many small arrays cost more than the copy. */
const SMALL_BYTES = 64 * 1024;
/** Slabs grow with the batch: one small row in each of a thousand tables must stay small. */
const FIRST_SLAB_BYTES = 4 * 1024;
const SLAB_BYTES = 256 * 1024;
/** Of what is likely, so that a batch of a steady table is few pieces, and little of the last one is for nothing. */
const FIRST_SHARE = 1 / 4;

class Slabs {
  /** The array that holds what was added last, */
  piece: Uint8Array = new Uint8Array(0);
  /** and where it begins there. */
  at = 0;
  /** Memory that was made here, and that holds nothing but these bytes. */
  readonly own: ArrayBuffer[] = [];
  readonly #closed: Uint8Array[] = [];
  #bytes = 0;
  /** Of `piece`, while it is a slab. */
  #used = 0;
  #slab = false;
  readonly #firstBytes: number;

  constructor(likelyBytes: number) {
    this.#firstBytes = Math.max(FIRST_SLAB_BYTES, Math.ceil(likelyBytes * FIRST_SHARE));
  }

  /** @param lent they change later. */
  add(bytes: Uint8Array, lent: boolean): void {
    this.#bytes += bytes.length;
    if (bytes.length >= SMALL_BYTES) {
      this.#close();
      this.#closed.push(this.piece = lent ? this.#copy(bytes) : bytes);
      this.at = 0;
      return;
    }
    if (!this.#slab || this.#used + bytes.length > this.piece.length) {
      this.#close();
      const growth = Math.max(this.#firstBytes, Math.ceil(this.#bytes / 2), bytes.length);
      this.piece = new Uint8Array(Math.min(SLAB_BYTES, growth));
      this.#slab = true;
    }
    this.piece.set(bytes, this.at = this.#used);
    this.#used += bytes.length;
  }

  /** The first `bytes` of what was added; nothing may be added any more, and `piece` is read no more. */
  finish(bytes: number): Uint8Array[] {
    const slab = this.#slab ? this.piece : null;
    this.#close();
    // It has lived so long that a runtime would look at it last.
    if (slab !== null && !this.own.includes(slab.buffer as ArrayBuffer)) {
      (slab.buffer as ArrayBuffer).transfer(0);
    }
    const pieces: Uint8Array[] = [];
    for (const piece of this.#closed) {
      if (bytes === 0) break;
      pieces.push(piece.subarray(0, bytes));
      bytes -= Math.min(bytes, piece.length);
    }
    return pieces;
  }

  /** A copy of the slab's used part where most of it would be held for nothing. */
  #close(): void {
    if (!this.#slab) return;
    const used = this.#used, slab = this.piece;
    if (used * 2 < slab.length) this.#closed.push(this.#copy(slab.subarray(0, used)));
    else {
      this.#closed.push(slab.subarray(0, used));
      this.own.push(slab.buffer as ArrayBuffer);
    }
    this.#slab = false;
    this.#used = 0;
  }

  #copy(bytes: Uint8Array): Uint8Array {
    const copy = bytes.slice();
    this.own.push(copy.buffer as ArrayBuffer);
    return copy;
  }
}

// ── Tickets: what becomes of the rows of one request, through the batches that hold them.

/** Costs nothing until it is waited for: batches know only the tickets that wait. */
export class RequestTicket implements Ticket {
  constructor(
    readonly reached: Ack,
    readonly kept: Ticket["kept"],
    readonly spans: readonly Span[],
    readonly clock: Clock,
  ) {}

  settled(waitMs: number): Promise<{ readonly dead: number } | null> {
    return new Promise((resolve) => {
      let open = this.spans.length;
      if (open === 0) return resolve({ dead: 0 });
      const cancel = this.clock.after(waitMs, () => resolve(null));
      let dead = 0;
      for (const span of this.spans) {
        span.batch.whenSettled((fate) => {
          dead += deadWithin(span, fate);
          if (--open > 0) return;
          cancel();
          resolve(Number.isNaN(dead) ? null : { dead });
        });
      }
    });
  }
}

/** NaN for a batch that was given up: its rows reached nothing beyond what was acknowledged. */
function deadWithin(span: Span, fate: Fate): number {
  if (fate === null) return NaN;
  return placeOf(fate, span.to) - placeOf(fate, span.from);
}

/**
 * How many dead rows come before row `index`. By halving: ten thousand requests that share a batch of
 * bad rows must not each look at all of them.
 */
function placeOf(dead: readonly DeadRow[], index: number): number {
  let low = 0;
  let high = dead.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (dead[middle]!.index < index) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** True once every batch is settled, false when one was given up or `waitMs` passed first. */
export function allSettled(
  batches: readonly HeldBatch[],
  waitMs: number,
  clock: Clock,
): Promise<boolean> {
  return new Promise((resolve) => {
    let open = batches.length;
    if (open === 0) return resolve(true);
    const cancel = clock.after(waitMs, () => resolve(false));
    let kept = true;
    for (const batch of batches) {
      batch.whenSettled((fate) => {
        kept &&= fate !== null;
        if (--open > 0) return;
        cancel();
        resolve(kept);
      });
    }
  });
}
