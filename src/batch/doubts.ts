/**
 * What one table remembers of its INSERTs, and the batches that this matters for. Pure.
 *
 * A batch whose INSERT went out and got no answer may be stored. Only the same INSERT under the same token
 * tells, and only while the table remembers that token: a deduplication window counts blocks, one for each
 * partition that an INSERT touches, and a retry does not renew a token (measured on 26.7). So fresh
 * batches pass one in doubt while they add no more than half of the window; then its fate comes first. A
 * table without a window remembers nothing: there it comes first in any case.
 *
 * What is under way may come to be in doubt, so it counts as well, though an INSERT as one block: most
 * touch one partition, and a guess of a hundred would leave partitioned tables one INSERT at a time.
 */

import type { HeldBatch } from "./batch.ts";

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
