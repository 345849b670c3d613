/**
 * How much may come in a period: rows or bytes a second, minute, hour or day. Unlike a `Rate`, which fills
 * up steadily, a quota is new at once when a period begins, and never is more of it used in one than it
 * has. Periods are those of the clock on the wall, in UTC: a day begins at midnight, and so it does for
 * every collector and after every restart.
 */

import type { Clock } from "./time.ts";

export interface Quota {
  readonly what: "rows" | "bytes";
  readonly most: number;
  readonly periodMs: number;
  /** As it was written: `1000/s`, `5GiB/d`. */
  readonly text: string;
}

/** What refuses an amount. */
export interface Exceeded {
  readonly quota: Quota;
  /** Until the next period; null: the amount is more than a whole quota, and never fits. */
  readonly retryAfterS: number | null;
  /** The first refusal of this period. */
  readonly first: boolean;
}

/** What was used of one quota in the period that runs. */
export class QuotaUse {
  quota: Quota;
  readonly #clock: Pick<Clock, "nowMs">;
  #period = -1;
  #used = 0;
  #refused = false;

  constructor(quota: Quota, clock: Pick<Clock, "nowMs">) {
    this.quota = quota;
    this.#clock = clock;
  }

  /** Null: the amount fits. Nothing is counted either way. */
  refusal(amount: number): Exceeded | null {
    const { most, periodMs } = this.quota;
    const nowMs = this.#look();
    if (amount > most) return { quota: this.quota, retryAfterS: null, first: false };
    if (this.#used + amount <= most) return null;
    const first = !this.#refused;
    this.#refused = true;
    return { quota: this.quota, retryAfterS: (periodMs - nowMs % periodMs) / 1000, first };
  }

  use(amount: number): void {
    this.#look();
    this.#used += amount;
  }

  /** What was used at that time, where its period still runs. */
  giveBack(amount: number, usedMs: number): void {
    this.#look();
    if (Math.floor(usedMs / this.quota.periodMs) === this.#period) this.#used -= amount;
  }

  #look(): number {
    const nowMs = this.#clock.nowMs();
    const period = Math.floor(nowMs / this.quota.periodMs);
    if (period !== this.#period) {
      this.#period = period;
      this.#used = 0;
      this.#refused = false;
    }
    return nowMs;
  }
}
