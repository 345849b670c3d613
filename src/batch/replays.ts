/**
 * Dead letters that are sent again. A replay is a batch of its own whose id its letters decide, so the
 * same replay is known when it comes twice: while it is held, for some time after it was settled, and
 * to ClickHouse by its token.
 */

import type { Ack, Clock, Refused, Ticket } from "../contracts.ts";
import type { HeldBatch } from "./held.ts";
import type { Lane } from "./lane.ts";
import { RequestTicket } from "./ticket.ts";

/** Settled replays that are remembered. */
const REMEMBERED = 1000;

/** Replays have ids of version 8, batches of fresh rows of version 7. */
function isReplay(id: string): boolean {
  return id[14] === "8";
}

export class Replays {
  /** Dead rows of settled replays, oldest first. */
  readonly #settled = new Map<string, number>();
  /** Whether the disk has them, as their first tickets say. */
  readonly #kept = new WeakMap<HeldBatch, Promise<Refused | null>>();

  constructor(public reached: Ack, readonly clock: Clock) {}

  /** The ticket of a replay that was taken before, or null. */
  find(lane: Lane, id: string): Ticket | null {
    for (const batch of lane.held()) {
      if (batch.id !== id) continue;
      // Its rows may not be in it yet.
      const all = { batch, from: 0, to: Infinity };
      return new RequestTicket(this.reached, this.#kept.get(batch) ?? null, [all], this.clock);
    }
    const dead = this.#settled.get(`${lane.table}/${id}`);
    if (dead === undefined) return null;
    return { reached: "clickhouse", kept: null, settled: () => Promise.resolve({ dead }) };
  }

  /** Its rows are on their way to the disk. */
  taken(batch: HeldBatch, kept: Promise<Refused | null> | null): void {
    if (kept !== null && isReplay(batch.id)) this.#kept.set(batch, kept);
  }

  /** Its rows have left. */
  settled({ id, table }: HeldBatch, dead: number): void {
    if (!isReplay(id)) return;
    this.#settled.set(`${table}/${id}`, dead);
    if (this.#settled.size <= REMEMBERED) return;
    for (const oldest of this.#settled.keys()) {
      this.#settled.delete(oldest);
      break;
    }
  }
}
