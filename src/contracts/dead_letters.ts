/** The dead letters as HTTP shows them and gives them to the collector again. */

import type { Shape } from "./rows.ts";

/** A dead letter as others see it. */
export interface DeadLetter {
  readonly table: string;
  readonly id: string;
  /** When it was written, ISO 8601. */
  readonly time: string;
  /** ClickHouse's exception code. */
  readonly code: number;
  readonly message: string;
  /** The beginning of a long row. */
  readonly row: string;
  /** Characters of the whole row. */
  readonly rowLength: number;
  readonly shape: Shape;
  /** The batch that brought the row, and its 0-based place there. */
  readonly batch: string;
  readonly index: number;
}

/** What a replay has done. */
export interface Replaying {
  /** Rows that are in ClickHouse. */
  readonly stored: number;
  /** Rows that are letters still, or again. */
  readonly dead: number;
  /** Letters that were not sent, or whose rows are on their way: another replay goes on with them. */
  readonly left: number;
  /** Why rows are dead, the most frequent reasons. */
  readonly reasons: readonly { readonly reason: string; readonly letters: number }[];
  /** Why letters are left. */
  readonly problems: readonly string[];
}

/** The dead letters of a running collector. Rejects with the disk's error. */
export interface DeadLetters {
  /** The newest first. @param table null: of all tables. `total`: how many there are. */
  newest(
    table: string | null,
    limit: number,
  ): Promise<{ readonly letters: readonly DeadLetter[]; readonly total: number }>;
  /**
   * Gives letters to the collector again, for a bounded time. `busy`: somebody else works on them.
   * @param ids null: all of them.
   */
  replay(
    wanted: { readonly table: string | null; readonly ids: readonly string[] | null },
    signal: AbortSignal,
  ): Promise<Replaying | { readonly busy: string }>;
}
