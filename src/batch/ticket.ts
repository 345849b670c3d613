/**
 * What becomes of the rows of one request, through the batches that hold them; and of a replay, whose
 * ticket is found again when the same rows are sent twice.
 */

import type { Ack, Clock, DeadRow, Refused, Ticket } from "../contracts.ts";
import type { Fate, HeldBatch, Span } from "./batch.ts";
import type { TableQueue } from "./queue.ts";

/** Costs nothing until it is waited for: batches know only the tickets that wait. */
export class RequestTicket implements Ticket {
  constructor(
    readonly reached: Ack,
    readonly kept: Ticket["kept"],
    readonly spans: readonly Span[],
    readonly clock: Clock,
  ) {}

  settled(waitMs: number): Promise<{ readonly dead: number } | null> {
    return new Promise((resolve) => {
      let open = this.spans.length;
      if (open === 0) return resolve({ dead: 0 });
      const cancel = this.clock.after(waitMs, () => resolve(null));
      let dead = 0;
      for (const span of this.spans) {
        span.batch.whenSettled((fate) => {
          dead += deadWithin(span, fate);
          if (--open > 0) return;
          cancel();
          resolve(Number.isNaN(dead) ? null : { dead });
        });
      }
    });
  }
}

/** NaN for a batch that was given up: its rows reached nothing beyond what was acknowledged. */
function deadWithin(span: Span, fate: Fate): number {
  if (fate === null) return NaN;
  return placeOf(fate, span.to) - placeOf(fate, span.from);
}

/**
 * How many dead rows come before row `index`. By halving: ten thousand requests that share a batch of
 * bad rows must not each look at all of them.
 */
function placeOf(dead: readonly DeadRow[], index: number): number {
  let low = 0;
  let high = dead.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (dead[middle]!.index < index) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** True once every batch is settled, false when one was given up or `waitMs` passed first. */
export function allSettled(
  batches: readonly HeldBatch[],
  waitMs: number,
  clock: Clock,
): Promise<boolean> {
  return new Promise((resolve) => {
    let open = batches.length;
    if (open === 0) return resolve(true);
    const cancel = clock.after(waitMs, () => resolve(false));
    let kept = true;
    for (const batch of batches) {
      batch.whenSettled((fate) => {
        kept &&= fate !== null;
        if (--open > 0) return;
        cancel();
        resolve(kept);
      });
    }
  });
}

/** Settled replays that are remembered. */
const REMEMBERED = 1000;

/** Replays have ids of version 8, batches of fresh rows of version 7. */
function isReplay(id: string): boolean {
  return id[14] === "8";
}

/**
 * Dead letters that are sent again. A replay is a batch of its own whose id its letters decide, so the
 * same replay is known when it comes twice: while it is held, for some time after it was settled, and
 * to ClickHouse by its token.
 */
export class Replays {
  /** Dead rows of settled replays, oldest first. */
  readonly #settled = new Map<string, number>();
  /** Whether the disk has them, as their first tickets say. */
  readonly #kept = new WeakMap<HeldBatch, Promise<Refused | null>>();

  constructor(readonly clock: Clock) {}

  /** The ticket of a replay that was taken before, or null. @param reached once it is kept. */
  find(queue: TableQueue, id: string, reached: Ack): Ticket | null {
    const batch = this.held(queue, id);
    if (batch !== null) {
      // Its rows may not be in it yet.
      const all = { batch, from: 0, to: Infinity };
      return new RequestTicket(reached, this.#kept.get(batch) ?? null, [all], this.clock);
    }
    const dead = this.#settled.get(`${queue.table}/${id}`);
    if (dead === undefined) return null;
    return { reached: "clickhouse", kept: null, settled: () => Promise.resolve({ dead }) };
  }

  /** The replay, while it is held. */
  held(queue: TableQueue, id: string): HeldBatch | null {
    if (!isReplay(id)) return null;
    return queue.find(id);
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
