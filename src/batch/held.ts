/**
 * A batch from its first row to its fate. It is open while chunks gather in it, sealed from then on,
 * and settled when every row's fate is known; the same object throughout, so that a request can hold
 * on to the rows it brought without the batch knowing every request.
 */

import type { Batch, Chunk, DeadRow, Shape } from "../contracts.ts";
import { count } from "./lines.ts";

/** Pieces smaller than this are copied together: many small arrays cost more than the copy. */
const SMALL_BYTES = 4 * 1024;
/** A batch's slabs grow with it: one small row in each of a thousand tables must stay small. */
const FIRST_SLAB_BYTES = 4 * 1024;
const SLAB_BYTES = 64 * 1024;

/** `null`: given up, its rows are lost. */
export type Fate = readonly DeadRow[] | null;

export class HeldBatch implements Batch {
  id = "";
  rows = 0;
  bytes = 0;
  newestMs: number;
  readonly body: Uint8Array[] = [];
  readonly types = new Map<string, number>();
  /** Attempts that an answer, or others' answers, laid at its door; when it may be tried again. */
  failures = 0;
  retryAtMs = 0;
  /** An attempt got no answer. */
  unanswered = false;
  /** Its table did not take it. */
  refused = false;
  #slabUsed = 0;
  #slab: Uint8Array | null = null;
  #fate: Fate | undefined;
  #waiters: ((fate: Fate) => void)[] = [];

  readonly table: string;
  readonly shape: Shape;
  readonly fingerprint: string | null;

  /** An open batch for `first` and what follows it; the chunk itself is not appended yet. */
  constructor(first: Chunk, readonly oldestMs: number) {
    this.table = first.table;
    this.shape = first.shape;
    this.fingerprint = first.fingerprint;
    this.newestMs = oldestMs;
  }

  get sealed(): boolean {
    return this.id !== "";
  }

  /** Appends a whole chunk; the caller has seen to it that it fits. */
  append(chunk: Chunk, nowMs: number): void {
    if (this.sealed) throw new Error("a sealed batch never changes");
    this.#keep(chunk.body);
    this.rows += chunk.rows;
    this.bytes += chunk.body.length;
    this.newestMs = nowMs;
    for (const [type, rows] of chunk.types) count(this.types, type, rows);
  }

  seal(id: string): void {
    this.id = id;
    this.#closeSlab();
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
