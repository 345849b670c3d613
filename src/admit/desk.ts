/**
 * Where bodies are decoded. A small one at once, without a promise in between. A large one a slice at
 * a time, others having their turn between slices: ten megabytes of tiny rows may take a second, and
 * nobody else shall wait for it. Large ones come one after the other, so that only one of them holds
 * memory to write in.
 */

import { decode, type Decoded, Decoding } from "./decode.ts";
import { type Kind, Tools } from "./tools.ts";

/** A body up to here is decoded at once. */
const AT_ONCE_BYTES = 256 * 1024;
/** Of a larger one, work for about ten milliseconds: see the efforts in `decode.ts`. */
const SLICE_EFFORT = 2 * 1024 * 1024;

export class Desk {
  /** Made when they are needed first. */
  #atOnce: Tools | null = null;
  #inSlices: Tools | null = null;
  /** Resolves when the large body that came last is decoded. */
  #last: Promise<unknown> = Promise.resolve();
  readonly #yield: () => Promise<void>;

  /** @param yieldTurn resolves when everybody else has had a turn. */
  constructor(yieldTurn: () => Promise<void> = nextTurn) {
    this.#yield = yieldTurn;
  }

  /** @param nowMs epoch milliseconds, for rows without a time. */
  decode(bytes: Uint8Array, kind: Kind, nowMs: number): Decoded | Promise<Decoded> {
    if (bytes.length > AT_ONCE_BYTES) {
      const decoded = this.#last.then(() => this.#slices(bytes, kind, nowMs));
      this.#last = decoded.catch(() => {});
      return decoded;
    }
    return decode(bytes, kind, this.#atOnce ??= new Tools(), nowMs);
  }

  async #slices(bytes: Uint8Array, kind: Kind, nowMs: number): Promise<Decoded> {
    const decoding = new Decoding(bytes, kind, this.#inSlices ??= new Tools(), nowMs);
    // Also before the first: to begin with a document of one piece may have taken long.
    do await this.#yield(); while (!decoding.go(SLICE_EFFORT));
    return kept(decoding.end());
  }
}

/** Whoever waits for a promise may come too late for what is lent. */
function kept(decoded: Decoded): Decoded {
  if (decoded.kind === "refused" || !decoded.lent) return decoded;
  return { ...decoded, body: decoded.body.slice(), lent: false };
}

/**
 * A timer and no immediate: a runtime that always has something to do at once looks at its sockets
 * only every 61st time, and others wait for as many slices.
 */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
