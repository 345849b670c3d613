/** What clients were told, over several loads, and what ClickHouse has of it in the end. */
import assert from "node:assert/strict";
import { type Books, compare, storedIds } from "../kit/load.ts";
import type { ClickHouse } from "../kit/servers.ts";

export class Told implements Books {
  readonly acknowledged = new Set<string>();
  readonly refused = new Set<string>();
  readonly unanswered = new Set<string>();
  readonly statuses = new Map<number, number>();

  /** Waits for a load to end and adds what it was told. */
  async add(loading: Promise<Books>): Promise<void> {
    const books = await loading;
    for (const id of books.acknowledged) this.acknowledged.add(id);
    for (const id of books.refused) this.refused.add(id);
    for (const id of books.unanswered) this.unanswered.add(id);
    for (const [status, times] of books.statuses) {
      this.statuses.set(status, (this.statuses.get(status) ?? 0) + times);
    }
  }

  /** How many requests got this status. */
  times(status: number): number {
    return this.statuses.get(status) ?? 0;
  }

  /**
   * Every acknowledged event is there, once; nothing that was refused is; nothing else but what got no
   * answer. @returns the number of rows in the table.
   */
  async assertOnce(clickhouse: ClickHouse, table?: string): Promise<number> {
    const stored = await storedIds(clickhouse, table);
    assert.deepEqual(compare(this, stored), { missing: 0, doubled: 0, uninvited: 0 });
    for (const id of stored.keys()) {
      assert.ok(this.acknowledged.has(id) || this.unanswered.has(id), `nobody sent ${id}`);
    }
    return stored.size;
  }
}
