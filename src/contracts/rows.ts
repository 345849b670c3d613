/**
 * Rows on their way. A request's good rows travel as one `Chunk`; chunks gather in a `Batch`; both
 * hold the rows as the INSERT sends them, so that a row is written once and only pointed at after.
 */

/** `event`: the five documented fields, mapped by the INSERT. `row`: keys are the table's columns. */
export type Shape = "event" | "row";

/** Event types longer than this (UTF-8) are stored as they are, but counted as `OTHER_TYPE`. */
export const LONGEST_TYPE_BYTES = 256;
export const OTHER_TYPE = "other";

/** Row counts by event type; empty for tables of shape `row`. */
export type TypeCounts = ReadonlyMap<string, number>;

/**
 * The good rows of one request. `body` is NDJSON, each row one line that ends in `\n`; it is never
 * changed, so it may be shared and cut without a copy.
 */
export interface Chunk {
  readonly table: string;
  readonly shape: Shape;
  readonly rows: number;
  readonly body: Uint8Array;
  /** `body` changes once the intake has answered: what is kept of it is copied. */
  readonly lent?: boolean;
  readonly types: TypeCounts;
  /** The columns that the rows were checked against (`Columns.fingerprint`), null while unknown. */
  readonly fingerprint: string | null;
  /** Dead letters that are sent again: a batch of their own with this id, taken once. */
  readonly replay?: string;
}

/** A sealed batch: it never changes again. `id` (UUIDv7) is the `insert_deduplication_token`. */
export interface Batch {
  readonly id: string;
  readonly table: string;
  readonly shape: Shape;
  readonly rows: number;
  /** Of `body`. */
  readonly bytes: number;
  readonly types: TypeCounts;
  /** When its oldest row was taken, epoch milliseconds. */
  readonly oldestMs: number;
  /** NDJSON, the very rows of the INSERT; pieces in order, to be joined. */
  readonly body: readonly Uint8Array[];
  /** Of its chunks; a chunk with another one begins a batch of its own. */
  readonly fingerprint: string | null;
}
