/** What kind of row is read, as `decode.ts` sees it. One reader serves one request at a time. */

/**
 * A row goes one of two ways. The scanner steps over its bytes; if it knows every one of them, it passes
 * them on as they came. Otherwise `closer` looks at the row as text. For every row that the scanner
 * passes, `closer` would have said yes too, and with the same meaning.
 */
export interface RowReader {
  /** No good row is shorter. */
  readonly leastBytes: number;
  /** Starts a request at `nowMs` (epoch milliseconds): the scanner is told what rows there are. */
  begin(nowMs: number): void;
  /** Takes a row of valid JSON, mended and without blanks around it, or says what is wrong with it. */
  closer(text: string): string | null;
}
