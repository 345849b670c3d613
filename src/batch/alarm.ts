/** One timer that only ever moves to an earlier time: the next moment at which there is work. */

import type { Clock } from "../contracts.ts";

export class Alarm {
  #atMs = Infinity;
  #cancel: () => void = () => {};

  constructor(readonly clock: Clock, readonly ring: () => void) {}

  /** Rings at `atMs` at the latest; Infinity asks for nothing. Both on the same clock. */
  setFor(atMs: number, nowMs: number): void {
    if (atMs >= this.#atMs) return;
    this.#cancel();
    this.#atMs = atMs;
    this.#cancel = this.clock.after(Math.max(1, atMs - nowMs), () => {
      this.#atMs = Infinity;
      this.ring();
    });
  }

  cancel(): void {
    this.#cancel();
    this.#atMs = Infinity;
  }
}
