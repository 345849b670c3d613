/** Follows the rows of one request through the batches that hold them. */

import type { Ack, Clock, DeadRow, Ticket } from "../contracts.ts";
import type { Fate, HeldBatch } from "./held.ts";

/** Rows `from` (included) to `to` (excluded) of a batch. */
export interface Portion {
  readonly batch: HeldBatch;
  readonly from: number;
  readonly to: number;
}

/** Costs nothing until somebody waits: batches know only those who do. */
export class RequestTicket implements Ticket {
  constructor(
    readonly reached: Ack,
    readonly portions: readonly Portion[],
    readonly clock: Clock,
  ) {}

  settled(waitMs: number): Promise<{ readonly dead: number } | null> {
    return new Promise((resolve) => {
      let open = this.portions.length;
      if (open === 0) return resolve({ dead: 0 });
      const cancel = this.clock.after(waitMs, () => resolve(null));
      let dead = 0;
      for (const portion of this.portions) {
        portion.batch.whenSettled((fate) => {
          dead += deadWithin(portion, fate);
          if (--open > 0) return;
          cancel();
          resolve(Number.isNaN(dead) ? null : { dead });
        });
      }
    });
  }
}

/** NaN for a batch that was given up: its rows reached nothing beyond what was acknowledged. */
function deadWithin(portion: Portion, fate: Fate): number {
  if (fate === null) return NaN;
  return placeOf(fate, portion.to) - placeOf(fate, portion.from);
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
