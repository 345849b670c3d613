/**
 * Ids for events that bring none: UUIDv7, written as ASCII straight into a row. Time first, so that
 * ids of one moment lie together and compress well; 74 random bits from a pool, because asking the
 * system for sixteen bytes a row costs more than parsing the row.
 */

/** Bytes of a written UUID. */
export const ID_BYTES = 36;

const POOL_BYTES = 8000;
/** Random bytes of one id. */
const RANDOM_BYTES = 10;
const HEX = new TextEncoder().encode("0123456789abcdef");
const DASH = 45;

export class Ids {
  readonly #fill: (bytes: Uint8Array<ArrayBuffer>) => void;
  readonly #pool = new Uint8Array(POOL_BYTES);
  #used = POOL_BYTES;

  /** @param fill fills the whole array with random bytes; the system's source unless told otherwise. */
  constructor(fill: (bytes: Uint8Array<ArrayBuffer>) => void = systemRandom) {
    this.#fill = fill;
  }

  /** Writes a new id for `nowMs` (epoch milliseconds) into `target`, `ID_BYTES` from `at` on. */
  write(target: Uint8Array, at: number, nowMs: number): void {
    const high = Math.floor(nowMs / 0x10000);
    put(target, at, (high >>> 24) & 255);
    put(target, at + 2, (high >>> 16) & 255);
    put(target, at + 4, (high >>> 8) & 255);
    put(target, at + 6, high & 255);
    target[at + 8] = DASH;
    put(target, at + 9, (nowMs >>> 8) & 255);
    put(target, at + 11, nowMs & 255);
    target[at + 13] = target[at + 18] = target[at + 23] = DASH;
    this.renew(target, at);
  }

  /** Makes another id of the same moment out of one that `write` wrote. */
  renew(target: Uint8Array, at: number): void {
    const pool = this.#pool;
    if (this.#used + RANDOM_BYTES > POOL_BYTES) {
      this.#fill(pool);
      this.#used = 0;
    }
    let from = this.#used;
    this.#used += RANDOM_BYTES;
    put(target, at + 14, 0x70 | (pool[from++]! & 15));
    put(target, at + 16, pool[from++]!);
    put(target, at + 19, 0x80 | (pool[from++]! & 63));
    put(target, at + 21, pool[from++]!);
    for (let i = at + 24; i < at + ID_BYTES; i += 2) put(target, i, pool[from++]!);
  }
}

function put(target: Uint8Array, at: number, byte: number): void {
  target[at] = HEX[byte >>> 4]!;
  target[at + 1] = HEX[byte & 15]!;
}

function systemRandom(bytes: Uint8Array<ArrayBuffer>): void {
  crypto.getRandomValues(bytes);
}
