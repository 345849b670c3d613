/**
 * The backoff of INSERTs: after how long a batch is sent again, by the failures in a row of the server, of
 * its table and of itself (the waits of other things are named beside them). A wait that
 * was asked for (`Retry-After`) is kept even if an attempt that was already under way succeeds; a backoff
 * of the collector's own ends with the first success.
 */

import { type BackoffLimits, backoffMs } from "../kernel/backoff.ts";

export const RETRY: BackoffLimits = { leastMs: 250, mostMs: 30_000 };
/** While stopping there is little time: a probe goes out at least every half second. */
export const HURRY: BackoffLimits = { leastMs: 100, mostMs: 500 };

/** A failure, and what the wait after it is made of. */
export interface Failure {
  readonly nowMs: number;
  /** Asked for by the other side, 0 when it was not. */
  readonly retryAfterMs: number;
  readonly limits: BackoffLimits;
  readonly random: () => number;
}

/** The retry state of the server or of a table, where several attempts can be under way at once. */
export class RetryState {
  #failures = 0;
  #counted = 0;
  #backoffUntilMs = 0;
  #askedUntilMs = 0;

  /** In a row; 0 while all is well. Attempts that were under way together count once. */
  get failures(): number {
    return this.#failures;
  }

  /** Failures ever counted. An attempt notes it when it starts, see `failed`. */
  get counted(): number {
    return this.#counted;
  }

  retryAtMs(): number {
    return Math.max(this.#backoffUntilMs, this.#askedUntilMs);
  }

  /**
   * @param seen `counted` at the start of the attempt: when another failure was counted since, and no
   * success, this one says nothing new.
   */
  failed(seen: number, { nowMs, retryAfterMs, limits, random }: Failure): void {
    this.#askedUntilMs = Math.max(this.#askedUntilMs, nowMs + retryAfterMs);
    if (this.#failures > 0 && seen !== this.#counted) return;
    this.#counted++;
    this.#failures++;
    this.#backoffUntilMs = nowMs + backoffMs(this.#failures, random(), limits);
  }

  succeeded(): void {
    this.#failures = 0;
    this.#backoffUntilMs = 0;
  }

  /** As if nothing had been tried yet. */
  forget(): void {
    this.#failures = 0;
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

/** The retry state of one batch: of its own faults, or of its table's. */
export class BatchRetry {
  #failures = 0;
  #atMs = 0;
  #unanswered = false;
  #refused = false;

  /** In a row, by its own fault or its table's. */
  get failures(): number {
    return this.#failures;
  }

  /** When it may be tried again, epoch milliseconds. */
  get atMs(): number {
    return this.#atMs;
  }

  /** An attempt got no answer. */
  get unanswered(): boolean {
    return this.#unanswered;
  }

  /** Its table did not take it. */
  get refused(): boolean {
    return this.#refused;
  }

  silent(): void {
    this.#unanswered = true;
  }

  /** @param refused by its table. */
  failed(refused: boolean, { nowMs, limits, random }: Failure): void {
    this.#failures++;
    this.#atMs = nowMs + backoffMs(this.#failures, random(), limits);
    if (refused) this.#refused = true;
  }

  hurry(): void {
    this.#atMs = 0;
  }

  /** As if nothing had been tried yet. */
  forget(): void {
    this.#failures = 0;
    this.#atMs = 0;
    this.#unanswered = false;
    this.#refused = false;
  }
}
