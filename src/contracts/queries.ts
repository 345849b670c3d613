/** Questions about stored events, which only ClickHouse can answer. */

import type { Trouble } from "./delivery.ts";

/** Which events are meant. */
export interface Question {
  /** null: of every type. */
  readonly eventType: string | null;
  /** null: any. */
  readonly id: string | null;
  /** From here on, epoch milliseconds; null: since ever. */
  readonly fromMs: number | null;
  /** Before this, epoch milliseconds; null: for ever. */
  readonly toMs: number | null;
}

/** A SELECT that has its values bound: `{name:Type}` in `sql` is `params.name`. */
export interface Select {
  readonly sql: string;
  readonly format: "JSON" | "JSONEachRow";
  readonly params: Readonly<Record<string, string | number>>;
  readonly settings: Readonly<Record<string, string | number>>;
}

/**
 * Asks ClickHouse; the answer as it came. Never rejects, and says nothing of a server's health to those
 * who write. `code` 0: nobody who speaks for ClickHouse answered.
 */
export type Ask = (
  select: Select,
  signal: AbortSignal,
) => Promise<
  { readonly kind: "ok"; readonly value: string } | Trouble & { readonly kind: "failed" }
>;

/** What came of a question about events. */
export type Asked =
  /** JSON; numbers have every digit that ClickHouse has. */
  | { readonly kind: "answer"; readonly json: string }
  /** `busy`: too many questions at once. `large`: the answer would be. `slow`: too much to read. */
  | { readonly kind: "busy" | "large" | "slow" | "away"; readonly reason: string };

/** Reads events. Never rejects; `signal`: nobody waits for the answer any more. */
export interface Queries {
  /** How many of which type, and of how many users. */
  metrics(question: Question, signal: AbortSignal): Promise<Asked>;
  /** The newest of them. */
  events(question: Question & { readonly limit: number }, signal: AbortSignal): Promise<Asked>;
}
