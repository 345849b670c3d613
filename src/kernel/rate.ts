/**
 * How often something may happen, for each of many keys (a key, a command, or `""` where there is only
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
