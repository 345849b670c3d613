/** The real clock. Tests bring their own `Clock`. */

import type { Clock } from "../contracts.ts";

/** Longest delay that timers take; beyond it they would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, Math.min(Math.max(delayMs, 0), MAX_TIMER_MS));
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};
