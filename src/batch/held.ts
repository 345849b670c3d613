/**
 * A batch from its first row to its fate. Chunks are first given a place in it, then appended (at
 * once, or when the disk has them); it is sealed when it takes no further places and all are filled,
 * and settled when every row's fate is known. The same object throughout, so that a request can hold
 * on to the rows it brought without the batch knowing every request.
 */

import type { Batch, Chunk, DeadRow, Shape } from "../contracts.ts";
import { count } from "./lines.ts";
import type { Segment } from "./spool.ts";

/** Pieces smaller than this are copied together: many small arrays cost more than the copy. */
const SMALL_BYTES = 64 * 1024;
/** A batch's slabs grow with it: one small row in each of a thousand tables must stay small. */
const FIRST_SLAB_BYTES = 4 * 1024;
const SLAB_BYTES = 256 * 1024;

/** `null`: given up; its rows are lost, or on disk for the next start. */
export type Fate = readonly DeadRow[] | null;

/** Rows `from` (included) to `to` (excluded) of a batch. */
export interface Span {
  readonly batch: HeldBatch;
  readonly from: number;
  readonly to: number;
}

/** Room in a batch for rows that came with one request; a span once they are appended. */
export interface Place extends Span {
  readonly chunk: Chunk;
  from: number;
  to: number;
}

/** What a batch is made of besides its rows. */
export type Kind = Pick<Chunk, "table" | "shape" | "fingerprint">;

export class HeldBatch implements Batch {
  /** Of the rows that are appended. */
  rows = 0;
  bytes = 0;
  newestMs: number;
  /** Empty while the rows are on disk only, see `inMemory`. */
  body: Uint8Array[] = [];
  inMemory = true;
  /** Where its rows are on disk; null while they are in memory only. */
  segment: Segment | null = null;
  /** Being written to disk whole; not to be sent meanwhile. */
  spilling = false;
  /** Takes no further places. */
  closed = false;
  /** Places that are not filled yet. */
  placedRows = 0;
  placedBytes = 0;
  readonly types = new Map<string, number>();
  /** Attempts that an answer, or others' answers, laid at its door; when it may be tried again. */
  failures = 0;
  retryAtMs = 0;
  /** An attempt got no answer. */
  unanswered = false;
  /** Its table did not take it. */
  refused = false;
  /** Delivered, but its dead rows are not kept yet: only that is still to be done. */
  unburied: readonly DeadRow[] | null = null;
  #slabUsed = 0;
  #slab: Uint8Array | null = null;
  #fate: Fate | undefined;
  #waiters: ((fate: Fate) => void)[] = [];

  readonly table: string;
  readonly shape: Shape;
  readonly fingerprint: string | null;

  /**
   * @param id UUID: the `insert_deduplication_token` and, on disk, the file's name.
   * @param oldestMs when its first row was taken, epoch milliseconds.
   */
  constructor(readonly id: string, kind: Kind, readonly oldestMs: number) {
    this.table = kind.table;
    this.shape = kind.shape;
    this.fingerprint = kind.fingerprint;
    this.newestMs = oldestMs;
  }

  /** It never changes again. */
  get sealed(): boolean {
    return this.closed && this.placedRows === 0;
  }

  /** All of its rows are on disk. */
  get onDisk(): boolean {
    return this.segment !== null && this.segment.bytes > 0 && !this.spilling;
  }

  get settled(): boolean {
    return this.#fate !== undefined;
  }

  /** Keeps room for a chunk; the caller has seen to it that it fits. */
  place(chunk: Chunk, nowMs: number): Place {
    if (this.closed) throw new Error("a closed batch takes no further rows");
    this.placedRows += chunk.rows;
    this.placedBytes += chunk.body.length;
    this.newestMs = nowMs;
    return { batch: this, chunk, from: 0, to: 0 };
  }

  /** Fills a place. */
  append(place: Place): void {
    const { chunk } = place;
    this.forgo(place);
    place.from = this.rows;
    place.to = this.rows += chunk.rows;
    this.bytes += chunk.body.length;
    this.#keep(chunk.body);
    for (const [type, rows] of chunk.types) count(this.types, type, rows);
    if (this.sealed) this.#closeSlab();
  }

  /** Gives a place back unfilled. */
  forgo({ chunk }: Place): void {
    this.placedRows -= chunk.rows;
    this.placedBytes -= chunk.body.length;
    if (this.sealed) this.#closeSlab();
  }

  close(): void {
    this.closed = true;
    if (this.sealed) this.#closeSlab();
  }

  /** Its rows stay on disk only. */
  leaveMemory(): void {
    this.body = [];
    this.inMemory = false;
  }

  returnToMemory(body: Uint8Array[]): void {
    this.body = body;
    this.inMemory = true;
  }

  /** Tells everyone who waits, once. Dead rows ascend by `index`. */
  settle(fate: Fate): void {
    if (this.#fate !== undefined) throw new Error(`the fate of batch ${this.id} was told before`);
    this.#fate = fate;
    for (const waiter of this.#waiters.splice(0)) waiter(fate);
  }

  /** Calls `waiter` when the fate is known, at once if it is. */
  whenSettled(waiter: (fate: Fate) => void): void {
    if (this.#fate !== undefined) waiter(this.#fate);
    else this.#waiters.push(waiter);
  }

  /** As if it had not been tried yet. */
  forgetTrouble(): void {
    this.failures = 0;
    this.retryAtMs = 0;
    this.unanswered = false;
    this.refused = false;
  }

  #keep(bytes: Uint8Array): void {
    if (bytes.length >= SMALL_BYTES) {
      this.#closeSlab();
      this.body.push(bytes);
      return;
    }
    if (this.#slab !== null && this.#slabUsed + bytes.length > this.#slab.length) {
      this.#closeSlab();
    }
    this.#slab ??= new Uint8Array(Math.min(SLAB_BYTES, Math.max(FIRST_SLAB_BYTES, this.bytes)));
    this.#slab.set(bytes, this.#slabUsed);
    this.#slabUsed += bytes.length;
  }

  /** The slab's used part becomes a piece; a copy where most of the slab would be held for nothing. */
  #closeSlab(): void {
    if (this.#slab === null) return;
    const used = this.#slabUsed;
    this.body.push(
      used * 2 < this.#slab.length ? this.#slab.slice(0, used) : this.#slab.subarray(0, used),
    );
    this.#slab = null;
    this.#slabUsed = 0;
  }
}
