/** Time and chance. */

/** Time and chance, so that tests can own both. */
export interface Clock {
  /** Wall clock, epoch milliseconds. */
  nowMs(): number;
  /** Never goes back; for durations. Milliseconds, fractional. */
  monotonicMs(): number;
  /** Calls `task` once after `delayMs`; the answer cancels it. */
  after(delayMs: number, task: () => void): () => void;
  /** Uniform in [0, 1). */
  random(): number;
}
