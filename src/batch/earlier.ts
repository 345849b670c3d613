/**
 * What earlier processes left, as far as this one knows it by now: first what they remembered, when their
 * journals are read, then their batches, when all of them are held. Until then it is not known whether rows
 * are new that may come again, and a question waits.
 */

import type { Ack, Clock, Memo, Ticket } from "../contracts.ts";
import { within } from "../kernel/time.ts";
import type { HeldBatch } from "./batch.ts";
import { RequestTicket } from "./ticket.ts";

export interface EarlierDeps {
  readonly clock: Clock;
  /** A batch that is held; null for one that has left, or is not held yet. */
  readonly heldBatch: (table: string, id: string) => HeldBatch | null;
}

export class Earlier {
  #isRead: boolean;
  readonly #read = Promise.withResolvers<void>();
  readonly #recovered = Promise.withResolvers<void>();

  /** @param unread an earlier process may have left something. */
  constructor(readonly deps: EarlierDeps, unread: boolean) {
    this.#isRead = !unread;
    if (!unread) this.#read.resolve();
  }

  /** What they remembered is known. */
  get isRead(): boolean {
    return this.#isRead;
  }

  /** Resolves when it is. */
  get whenRead(): Promise<void> {
    return this.#read.promise;
  }

  read(): void {
    this.#isRead = true;
    this.#read.resolve();
  }

  /** All is held that they left. */
  recovered(): void {
    this.read();
    this.#recovered.resolve();
  }

  /** Null for a batch that has left, or is not held yet. */
  held(table: string, id: string): HeldBatch | null {
    return this.deps.heldBatch(table, id);
  }

  /**
   * Of rows that are in batches which earlier processes left, and in some of this one. How many of them are
   * dead outlives no process.
   */
  ticketOf(
    of: readonly Pick<Memo, "table" | "batches">[],
    reached: Ack = "disk",
    own: readonly HeldBatch[] = [],
  ): Ticket {
    const { clock } = this.deps;
    const ticketOf = (batches: readonly HeldBatch[]) => {
      const spans = batches.map((batch) => ({ batch, from: 0, to: 0 }));
      return new RequestTicket(reached, null, spans, clock);
    };
    if (of.every(({ batches }) => batches.length === 0)) return ticketOf(own);
    const settled = async (waitMs: number) => {
      const untilMs = clock.monotonicMs() + waitMs;
      if (!await within(clock, waitMs, this.#recovered.promise.then(() => true), false)) {
        return null;
      }
      const found = of.flatMap(({ table, batches }) => batches.map((id) => this.held(table, id)));
      const held = found.filter((batch) => batch !== null);
      return await ticketOf([...held, ...own])
        .settled(Math.max(0, untilMs - clock.monotonicMs()));
    };
    return { reached, kept: null, settled };
  }
}
