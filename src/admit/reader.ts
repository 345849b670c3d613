/** What kind of row is read, as `decode.ts` sees it. One reader serves one request at a time. */

import type { TypeCounts } from "../contracts.ts";

/**
 * A row goes one of two ways. `plain` steps over its bytes; if it knows every one of them, `forward`
 * passes them on as they came. Otherwise `closer` looks at the row as text. For every row that
 * `plain` passes, `closer` would have said yes too, and with the same meaning.
 */
export interface RowReader {
  /** No good row is shorter. */
  readonly leastBytes: number;
  /** Starts a request at `nowMs` (epoch milliseconds). */
  begin(nowMs: number): void;
  /** The place after the row that begins at `at`, or -1: look closer. Changes nothing that is kept. */
  plain(bytes: Uint8Array, at: number, end: number): number;
  /** Takes the row that `plain` has just passed, [at, to). */
  forward(bytes: Uint8Array, at: number, to: number): void;
  /** Takes a row of valid JSON, mended and without blanks around it, or says what is wrong with it. */
  closer(text: string): string | null;
  /** Rows taken since `begin`, by event type; the reader forgets them. */
  types(): TypeCounts;
}
