/**
 * Rates and, below, quotas. A rate is how often something may happen, for each of many keys (a key, a command, or `""` where there is only
 * one). A bucket that holds one period's uses and fills up steadily, kept as one number a key: when it
 * will be full again (GCRA, ITU-T I.371). Memory is bounded: beyond `MOST_KEYS` the key that was quiet
 * longest is forgotten, which lets it in and never another out.
 */

import type { Clock } from "./time.ts";

/** So many uses in a period. */
export interface Rate {
  readonly count: number;
  readonly periodMs: number;
}

export const MOST_KEYS = 10_000;

export class RateLimiter {
  /** When the bucket of a key is full again, monotonic; least recently seen first. */
  readonly #fullAtMs = new Map<string, number>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** 0: the key may be used, and it is counted. Else after how many milliseconds it may. */
  waitMs(key: string, { count, periodMs }: Rate): number {
    const nowMs = this.#clock.monotonicMs();
    // No bucket is more than empty, also where its period was a longer one before.
    const knownMs = Math.min(this.#fullAtMs.get(key) ?? 0, nowMs + periodMs);
    const fullAtMs = Math.max(knownMs, nowMs) + periodMs / count;
    const waitMs = fullAtMs - nowMs - periodMs;
    // Sums of fractions: a millionth of a millisecond is nothing to wait for.
    const allowed = waitMs <= 1e-6;
    this.#fullAtMs.delete(key);
    this.#fullAtMs.set(key, allowed ? fullAtMs : knownMs);
    if (this.#fullAtMs.size > MOST_KEYS) this.#forgetOne();
    return allowed ? 0 : waitMs;
  }

  #forgetOne(): void {
    for (const key of this.#fullAtMs.keys()) {
      this.#fullAtMs.delete(key);
      return;
    }
  }
}

// ── How much may come in a period: rows or bytes a second, minute, hour or day. Unlike a `Rate`, which fills
// up steadily, a quota is new at once when a period begins, and never is more of it used in one than it
// has. Periods are those of the clock on the wall, in UTC: a day begins at midnight, and so it does for
// every collector and after every restart.

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
