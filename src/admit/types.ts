/** How many rows of each event type a request has. Most rows have the type of the row before. */

import type { TypeCounts } from "../contracts.ts";

export class Types {
  #counts = new Map<string, number>();

  add(type: string, rows: number): void {
    this.#counts.set(type, (this.#counts.get(type) ?? 0) + rows);
  }

  /** All since the last time; they are forgotten. */
  take(): TypeCounts {
    const counts = this.#counts;
    if (counts.size > 0) this.#counts = new Map();
    return counts;
  }
}
