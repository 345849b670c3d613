/** Follows the rows of one request through the batches that hold them. */

import type { Ack, Clock, DeadRow, Ticket } from "../contracts.ts";
import type { Fate, HeldBatch, Span } from "./held.ts";

/** Costs nothing until somebody waits: batches know only those who do. */
export class RequestTicket implements Ticket {
  constructor(
    readonly reached: Ack,
    readonly kept: Ticket["kept"],
    readonly places: readonly Span[],
    readonly clock: Clock,
  ) {}

  settled(waitMs: number): Promise<{ readonly dead: number } | null> {
    return new Promise((resolve) => {
      let open = this.places.length;
      if (open === 0) return resolve({ dead: 0 });
      const cancel = this.clock.after(waitMs, () => resolve(null));
      let dead = 0;
      for (const place of this.places) {
        place.batch.whenSettled((fate) => {
          dead += deadWithin(place, fate);
          if (--open > 0) return;
          cancel();
          resolve(Number.isNaN(dead) ? null : { dead });
        });
      }
    });
  }
}

/** NaN for a batch that was given up: its rows reached nothing beyond what was acknowledged. */
function deadWithin(place: Span, fate: Fate): number {
  if (fate === null) return NaN;
  return placeOf(fate, place.to) - placeOf(fate, place.from);
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
