/**
 * What the servers have taught about INSERTs into each table: how many rows pass at once, and how long they
 * take. Both are forgotten step by step, so that neither a small memory nor a slow hour stays for ever.
 */

import type { Log } from "../contracts.ts";

/** Tables of which something is known; more are forgotten, and learned again. */
const MOST_TABLES = 1000;
/** INSERTs of the size that passes, after which twice as many rows are tried. */
const RAISE_AFTER = 32;
/** No batch has more rows. */
const MOST_ROWS = 1e7;
/** An INSERT gets at most so many times `insert-timeout`. */
export const LONGEST_FACTOR = 32;

function remember<T>(map: Map<string, T>, table: string, value: T): void {
  map.delete(table);
  map.set(table, value);
  for (const oldest of map.keys()) {
    if (map.size <= MOST_TABLES) break;
    map.delete(oldest);
  }
}

/** Rows of one INSERT, where a server has refused more at once. */
export class Sizes {
  readonly #known = new Map<string, { readonly rows: number; stored: number }>();

  /** At most; Infinity where nothing was refused. */
  of(table: string): number {
    return this.#known.get(table)?.rows ?? Infinity;
  }

  refused(table: string, rows: number): void {
    const half = Math.max(1, Math.ceil(rows / 2));
    if (half < this.of(table)) remember(this.#known, table, { rows: half, stored: 0 });
  }

  /** What was refused was the fault of one row. */
  forget(table: string): void {
    this.#known.delete(table);
  }

  stored(table: string, rows: number): void {
    const known = this.#known.get(table);
    if (known === undefined || rows < known.rows || ++known.stored < RAISE_AFTER) return;
    if (known.rows >= MOST_ROWS) this.#known.delete(table);
    else remember(this.#known, table, { rows: known.rows * 2, stored: 0 });
  }
}

/**
 * How long an INSERT may take. One that always takes longer than that would be sent for ever, and what it
 * does there done again and again; so it gets twice the time, then twice that, within a bound.
 */
export class Patience {
  readonly #known = new Map<string, number>();

  /**
   * @param leastMs `insert-timeout`. @param server for the log.
   * @param onChange is told what INSERTs into a table get from now on; null: `leastMs`.
   */
  constructor(
    readonly leastMs: number,
    readonly server: string,
    readonly log: Log | null,
    readonly onChange: (table: string, ms: number | null) => void = () => {},
  ) {}

  ofMs(table: string): number {
    return this.#known.get(table) ?? this.leastMs;
  }

  /** No answer came within this time, from a server that answers otherwise. */
  outlasted(table: string, timeoutMs: number): void {
    const nowMs = this.ofMs(table);
    // Several that were under way together teach the same.
    if (timeoutMs < nowMs) return;
    const nextMs = Math.min(timeoutMs * 2, this.leastMs * LONGEST_FACTOR);
    const fields = { table, server: this.server, insert_timeout_ms: this.leastMs };
    if (nextMs <= nowMs) {
      const tried = { ...fields, tried_ms: nowMs };
      this.log?.error("INSERTs of a table outlast the longest time that they are given", tried);
      return;
    }
    this.log?.warn("INSERTs of a table outlast insert-timeout; they get longer", {
      ...fields,
      now_ms: nextMs,
    });
    remember(this.#known, table, nextMs);
    this.onChange(table, nextMs);
  }

  /** An INSERT was answered after this time. */
  answered(table: string, tookMs: number): void {
    const nowMs = this.#known.get(table);
    if (nowMs === undefined || tookMs > nowMs / 4) return;
    const nextMs = nowMs / 2 > this.leastMs ? nowMs / 2 : null;
    if (nextMs === null) this.#known.delete(table);
    else remember(this.#known, table, nextMs);
    this.onChange(table, nextMs);
  }
}
