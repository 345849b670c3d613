/**
 * Time limits of many bodies with one timer: all are equally long, so the oldest is always the next to
 * end. A timer a request would cost more than reading the request's header.
 */

import type { Clock } from "../contracts.ts";

/** One limit that is running. */
export interface Deadline {
  readonly atMs: number;
  readonly late: () => void;
}

export class Deadlines {
  /** Oldest first. */
  readonly #running = new Set<Deadline>();
  readonly #clock: Clock;
  readonly #limitMs: number;
  #armed = false;

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  /** Calls `late` after the limit, unless `end` comes first. */
  begin(late: () => void): Deadline {
    const deadline = { atMs: this.#clock.monotonicMs() + this.#limitMs, late };
    this.#running.add(deadline);
    if (!this.#armed) this.#arm(this.#limitMs);
    return deadline;
  }

  end(deadline: Deadline): void {
    this.#running.delete(deadline);
  }

  /** The timer is left to ring even when nothing runs any more: it costs less than to cancel it. */
  #arm(delayMs: number): void {
    this.#armed = true;
    this.#clock.after(delayMs, () => this.#ring());
  }

  #ring(): void {
    this.#armed = false;
    const nowMs = this.#clock.monotonicMs();
    for (const deadline of this.#running) {
      if (deadline.atMs > nowMs) return this.#arm(deadline.atMs - nowMs);
      this.#running.delete(deadline);
      deadline.late();
    }
  }
}
