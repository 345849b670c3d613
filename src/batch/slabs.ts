/**
 * The bytes of a batch, in few pieces: what is small, or only lent, is copied behind what came before.
 * This is the one copy that a row's bytes get on their way from the request's chunk to the INSERT; the
 * disk is given the copy.
 */

/** Pieces smaller than this are copied together: many small arrays cost more than the copy. */
const SMALL_BYTES = 64 * 1024;
/** Slabs grow with the batch: one small row in each of a thousand tables must stay small. */
const FIRST_SLAB_BYTES = 4 * 1024;
const SLAB_BYTES = 256 * 1024;

export class Slabs {
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
      this.piece = new Uint8Array(
        Math.min(SLAB_BYTES, Math.max(FIRST_SLAB_BYTES, this.#bytes)),
      );
      this.#slab = true;
    }
    this.piece.set(bytes, this.at = this.#used);
    this.#used += bytes.length;
  }

  /** The first `bytes` of what was added; nothing may be added any more. */
  finish(bytes: number): Uint8Array[] {
    this.#close();
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
