/** Who waits until nothing is held any more. */

import type { Clock } from "../contracts.ts";

export class Emptiness {
  #waiters: (() => void)[] = [];

  constructor(readonly clock: Clock, readonly isEmpty: () => boolean) {}

  /** Resolves when nothing is held, or at `waitMs`; true when nothing is held. */
  async within(waitMs: number): Promise<boolean> {
    if (this.isEmpty()) return true;
    await new Promise<void>((resolve) => {
      const cancel = this.clock.after(waitMs, resolve);
      this.#waiters.push(() => {
        cancel();
        resolve();
      });
    });
    return this.isEmpty();
  }

  /** To be called whenever something has left. */
  tell(): void {
    if (this.#waiters.length === 0 || !this.isEmpty()) return;
    for (const waiter of this.#waiters.splice(0)) waiter();
  }
}
