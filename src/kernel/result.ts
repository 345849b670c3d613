/**
 * One way to say that something could not be done. What a caller can act on is a value, never an
 * exception; the word for what went wrong is always `problem`, a sentence for people. Outcomes with
 * more than two ends (a `Delivery`, a `Verdict`) have kinds of their own.
 */

/** It could not be done, and why. */
export interface Failed {
  readonly ok: false;
  /** A sentence for people; names the thing, and what to do where that is known. */
  readonly problem: string;
}

/** What was asked for, or why not. */
export type Result<T = void> = { readonly ok: true; readonly value: T } | Failed;

/** It was done. */
export const DONE: { readonly ok: true; readonly value: void } = { ok: true, value: undefined };

export function done<T>(value: T): { readonly ok: true; readonly value: T } {
  return { ok: true, value };
}

export function failed(problem: string): Failed {
  return { ok: false, problem };
}
