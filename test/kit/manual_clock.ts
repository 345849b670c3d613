/**
 * Time and chance that a test owns. Nothing passes until the test says so; timers run in the order of
 * their times, and what they started settles before the next one runs. Chance is a seeded generator,
 * so a failing run can be repeated.
 */

import { setImmediate } from "node:timers";
import type { Clock } from "../../src/contracts.ts";

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly task: () => void;
}

export class ManualClock implements Clock {
  /** How many timers were ever set: the price of an operation in timers. */
  timersSet = 0;
  #monotonicMs = 0;
  #wallOffsetMs: number;
  #state: number;
  readonly #timers = new Set<Timer>();

  constructor(seed = 1, readonly startMs = Date.UTC(2024, 0, 1)) {
    this.#wallOffsetMs = startMs;
    this.#state = seed | 0;
  }

  nowMs(): number {
    return this.#monotonicMs + this.#wallOffsetMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  after(delayMs: number, task: () => void): () => void {
    if (Number.isNaN(delayMs)) throw new Error("a timer for NaN milliseconds");
    const timer = {
      atMs: this.#monotonicMs + Math.max(0, delayMs),
      order: this.timersSet++,
      task,
    };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  /** mulberry32. */
  random(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** Timers that are set and have not run. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Somebody sets the wall clock; no time passes. */
  setWall(byMs: number): void {
    this.#wallOffsetMs += byMs;
  }

  /** Lets `ms` pass: every timer that falls due runs at its own time, also those set on the way. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#monotonicMs + ms;
    await settle();
    for (let run = 0;; run++) {
      const timer = this.#first();
      if (timer === null || timer.atMs > untilMs) break;
      if (run > 1_000_000) throw new Error("timers without end");
      this.#timers.delete(timer);
      this.#monotonicMs = Math.max(this.#monotonicMs, timer.atMs);
      timer.task();
      await settle();
    }
    this.#monotonicMs = untilMs;
  }

  #first(): Timer | null {
    let first: Timer | null = null;
    for (const timer of this.#timers) {
      if (
        first === null || timer.atMs < first.atMs ||
        (timer.atMs === first.atMs && timer.order < first.order)
      ) first = timer;
    }
    return first;
  }
}

/** Lets everything run that waits for nothing but settled promises, however many. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
