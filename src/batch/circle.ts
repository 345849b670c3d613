/**
 * Failures in a row of one thing that is tried again: the server, or a table. Says when the next
 * attempt may go. A wait that was asked for (`Retry-After`) is kept even if an attempt that was
 * already under way succeeds; a backoff of our own ends with the first success.
 */

import { type BackoffLimits, backoffMs } from "../kernel/backoff.ts";

export class Circle {
  /** In a row; 0 while all is well. Attempts that were under way together count once. */
  failures = 0;
  /** Failures ever counted. An attempt notes it when it starts, see `failed`. */
  counted = 0;
  #backoffUntilMs = 0;
  #askedUntilMs = 0;

  retryAtMs(): number {
    return Math.max(this.#backoffUntilMs, this.#askedUntilMs);
  }

  /**
   * @param seen `counted` at the start of the attempt: when another failure was counted since, and no
   * success, this one tells nothing more.
   * @param retryAfterMs asked for by the other side, 0 when it was not.
   */
  failed(
    seen: number,
    nowMs: number,
    retryAfterMs: number,
    limits: BackoffLimits,
    random: () => number,
  ): void {
    this.#askedUntilMs = Math.max(this.#askedUntilMs, nowMs + retryAfterMs);
    if (this.failures > 0 && seen !== this.counted) return;
    this.counted++;
    this.failures++;
    this.#backoffUntilMs = nowMs + backoffMs(this.failures, random(), limits);
  }

  succeeded(): void {
    this.failures = 0;
    this.#backoffUntilMs = 0;
  }

  /** As if nothing had been tried yet. */
  forget(): void {
    this.failures = 0;
    this.hurry();
  }

  /** The backoff is over, though not what was asked for; the failures are not forgotten. */
  cutShort(): void {
    this.#backoffUntilMs = 0;
  }

  /** Nothing is waited out: neither a backoff nor what was asked for. */
  hurry(): void {
    this.#backoffUntilMs = 0;
    this.#askedUntilMs = 0;
  }
}
