/** admit → batch: how rows are given to the pipe, and what is said of them at once and later. */

import type { Chunk } from "./rows.ts";

/** How far a write got before it is answered, weakest first. */
export type Ack = "memory" | "disk" | "clickhouse";

/** What the intake says at once. `refused`: nothing of the chunk was taken. */
export type Taken = { readonly kind: "taken"; readonly ticket: Ticket } | Refused;

export interface Refused {
  readonly kind: "refused";
  /** `full`: 429. `closed`: 503, stopping or paused. */
  readonly why: "full" | "closed";
  readonly reason: string;
  readonly retryAfterS: number;
}

/** Follows a taken chunk. One per request, never one per row. */
export interface Ticket {
  /** What is true once `kept` has said so. */
  readonly reached: Ack;
  /**
   * Null: it is true already. Else it resolves when the disk has the rows, with null, or with why it
   * would not take them: then the chunk is refused after all. One promise serves many requests.
   */
  readonly kept: Promise<Refused | null> | null;
  /**
   * Resolves once every row's fate is known, with how many ended as dead letters; `null` when
   * `waitMs` passed first, or the rows were given up.
   */
  settled(waitMs: number): Promise<{ readonly dead: number } | null>;
}

/** The mouth of the pipe: admit gives chunks to it. */
export interface Intake {
  take(chunk: Chunk): Taken;
  /**
   * Why the rows of a plain body of so many bytes would be refused, as far as that is known before it is
   * read: to read and parse what cannot be taken would cost as much as to take it.
   */
  refusal(bytes: number): Refused | null;
  /** Room for a body that is about to be read, to be given back with `release`; false: answer 429. */
  reserve(bytes: number): boolean;
  release(bytes: number): void;
  /** The ticket of a replay that was taken before; null where it is not known. */
  replayed(table: string, id: string): Ticket | null;
  /** Why writes are refused before their body is read, or null when they are taken. */
  closed(): "stopping" | "paused" | null;
}
