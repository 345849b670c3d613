/**
 * A batch from its first row to its fate. Chunks are first given a place in it, then appended (at
 * once, or when the disk has them); it is sealed when it takes no further places and all are filled,
 * and settled when every row's fate is known. The same object throughout, so that a request can hold
 * on to the rows it brought without the batch knowing every request.
 */

import type { Batch, Chunk, DeadRow, RecoveredBatch, Shape } from "../contracts.ts";
import { count } from "./lines.ts";
import { Pieces } from "./pieces.ts";

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
  /** Its bytes lie here, from `at` on, in the batch's own memory. */
  readonly piece: Uint8Array;
  readonly at: number;
  from: number;
  to: number;
}

export function bytesOf({ piece, at, chunk }: Place): Uint8Array {
  return piece.subarray(at, at + chunk.body.length);
}

/** What a batch is made of besides its rows. */
export type Kind = Pick<Chunk, "table" | "shape" | "fingerprint">;

export class HeldBatch implements Batch {
  /** Of the rows that are appended. */
  rows = 0;
  bytes = 0;
  newestMs: number;
  /** Once it is sealed; empty while the rows are on disk only, see `inMemory`. */
  body: Uint8Array[] = [];
  inMemory = true;
  /** All of its rows are on disk. */
  onDisk = false;
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
  /** Attempts that may still have the body before them: under way, or failed. */
  readers = 0;
  /** Delivered, but its dead rows are not kept yet: only that is still to be done. */
  unburied: readonly DeadRow[] | null = null;
  #pieces: Pieces | null = new Pieces();
  /** What of the body's memory is nobody else's. */
  #own: readonly ArrayBuffer[] = [];
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

  /** A sealed batch whose rows are on disk only. */
  static recovered(found: RecoveredBatch): HeldBatch {
    const batch = new HeldBatch(found.id, found, found.oldestMs);
    batch.rows = found.rows;
    batch.bytes = found.bytes;
    for (const [type, rows] of found.types) batch.types.set(type, rows);
    batch.onDisk = true;
    batch.close();
    batch.leaveMemory();
    return batch;
  }

  /** It never changes again. */
  get sealed(): boolean {
    return this.closed && this.placedRows === 0;
  }

  get settled(): boolean {
    return this.#fate !== undefined;
  }

  /** Copies a chunk's bytes; the caller has seen to it that it fits. */
  place(chunk: Chunk, nowMs: number): Place {
    if (this.closed || this.#pieces === null) {
      throw new Error("a closed batch takes no further rows");
    }
    this.placedRows += chunk.rows;
    this.placedBytes += chunk.body.length;
    this.newestMs = nowMs;
    this.#pieces.add(chunk.body, chunk.lent === true);
    const { piece, at } = this.#pieces;
    return { batch: this, chunk, piece, at, from: 0, to: 0 };
  }

  /** Fills a place; in the order of the places. */
  append(place: Place): void {
    const { chunk } = place;
    place.from = this.rows;
    place.to = this.rows += chunk.rows;
    this.bytes += chunk.body.length;
    for (const [type, rows] of chunk.types) count(this.types, type, rows);
    this.forgo(place);
  }

  /** Gives a place back unfilled, and with it all that come after it. */
  forgo({ chunk }: Place): void {
    this.placedRows -= chunk.rows;
    this.placedBytes -= chunk.body.length;
    this.#seal();
  }

  close(): void {
    this.closed = true;
    this.#seal();
  }

  /**
   * Its rows stay on disk only, or have left. Their memory is freed at once: a runtime that has to find
   * out by itself lets its heap double before it looks, and what is freed soon is still in the cache
   * for the rows that come next.
   */
  leaveMemory(): void {
    if (this.readers === 0 && !this.spilling) {
      for (const buffer of this.#own) buffer.transfer(0);
    }
    this.#own = [];
    this.body = [];
    this.inMemory = false;
  }

  /** @param body read from disk, and nobody else's. */
  returnToMemory(body: Uint8Array[]): void {
    this.body = body;
    this.readers = 0;
    this.#own = [...new Set(body.map(({ buffer }) => buffer as ArrayBuffer))];
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

  #seal(): void {
    if (!this.sealed || this.#pieces === null) return;
    this.body = this.#pieces.finish(this.bytes);
    this.#own = this.#pieces.own;
    this.#pieces = null;
  }
}
