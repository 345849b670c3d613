/**
 * What may be held. Full means no, at once: nothing accepted is ever dropped to make room, so the
 * limit is asked before anything is taken. Bodies that are being read count too, in a budget of
 * their own, or a thousand slow uploads would be a way around it.
 */

export interface BudgetLimits {
  readonly maxRows: number;
  readonly maxBytes: number;
}

export class Budget {
  rows = 0;
  bytes = 0;
  #reading = 0;

  constructor(public limits: BudgetLimits) {}

  /** Why there is no room for these rows, or null when there is. */
  refusal(rows: number, bytes: number): string | null {
    const { maxRows, maxBytes } = this.limits;
    if (rows > maxRows) return `${rows} rows in one request, but backlog is ${maxRows}`;
    if (bytes > maxBytes) return `${bytes} bytes in one request, but backlog-bytes is ${maxBytes}`;
    if (this.rows + rows > maxRows) return `backlog is full: ${this.rows} of ${maxRows} rows held`;
    if (this.bytes + bytes > maxBytes) {
      return `backlog is full: ${this.bytes} of ${maxBytes} bytes (backlog-bytes) held in memory`;
    }
    return null;
  }

  /**
   * Why the rows of a body of so many bytes will find no room, as far as that can be told before it is
   * read; null where it may. A body that is larger than everything may be mostly blanks.
   */
  foreseen(bytes: number): string | null {
    return bytes > this.limits.maxBytes ? null : this.refusal(1, bytes);
  }

  hold(rows: number, bytes: number): void {
    this.rows += rows;
    this.bytes += bytes;
  }

  free(rows: number, bytes: number): void {
    this.rows -= rows;
    this.bytes -= bytes;
  }

  /** One body always gets through, or a body larger than the budget never could. */
  reserve(bytes: number): boolean {
    if (this.#reading > 0 && this.#reading + bytes > this.limits.maxBytes) return false;
    this.#reading += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#reading -= bytes;
  }
}
