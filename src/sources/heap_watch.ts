/**
 * Has the runtime look for garbage among all of its objects while sources read fast; on its own because all
 * sources share it. The runtime does so by itself only when its heap is three times as large as what lived the
 * last time, and what was read lives until its rows are safe: long enough to pass for old, and to lie there. A
 * flood of small messages filled 150 MB with what nothing held any more.
 */

import type { Heap } from "../contracts.ts";

/** Looked at each time that so much was read, which takes 12 µs. */
const LOOK_BYTES = 1024 * 1024;
/** What a message costs beside its bytes until it is garbage, about. */
const MESSAGE_BYTES = 500;
/**
 * More than when there was least. Nothing else goes on while garbage is looked for: 106 to 146 ms were seen on a
 * busy machine.
 */
const GROWN_BYTES = 40 * 1024 * 1024;

export class HeapWatch {
  readonly #heap: Heap;
  #sinceLook = 0;
  #least = Infinity;

  constructor(heap: Heap) {
    this.#heap = heap;
  }

  /** So many messages were read. @param bytes of them all. */
  read(messages: number, bytes: number): void {
    this.#sinceLook += bytes + messages * MESSAGE_BYTES;
    if (this.#sinceLook < LOOK_BYTES) return;
    this.#sinceLook = 0;
    const now = this.#heap.bytes();
    this.#least = Math.min(this.#least, now);
    if (now - this.#least < GROWN_BYTES) return;
    this.#heap.collect();
    // How little it is then is seen later; what is really held is not looked for again.
    this.#least = now;
  }
}
