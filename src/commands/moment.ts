/**
 * When a collector can be followed by another process: not while it takes over a spool, nor while one of
 * its workers is missing, which would come to the port when that is changing hands. Both pass, so whoever
 * asks at such a moment is made to wait, for a while.
 */

import type { Clock, Log } from "../contracts.ts";

/** What the one before it may take to end, and a worker that dies again and again to come back. */
const WITHIN_MS = 30_000;
const LOOK_MS = 50;

export interface MomentDeps {
  /** What is in the way, a sentence, or null. */
  readonly unsettled: () => string | null;
  readonly stopping: () => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

/** Waits for a good moment. @returns why none has come and what to do, a sentence, or null. Never rejects. */
export async function goodMoment(deps: MomentDeps): Promise<string | null> {
  const { unsettled, stopping, clock, log } = deps;
  const untilMs = clock.monotonicMs() + WITHIN_MS;
  for (let told = false;; told = true) {
    if (stopping()) return "this process is stopping; start it again when it has ended";
    const reason = unsettled();
    if (reason === null) return null;
    if (clock.monotonicMs() >= untilMs) {
      return `${reason}, for ${
        WITHIN_MS / 1000
      } s; send SIGUSR2 again when that is over, or restart`;
    }
    if (!told) {
      log.info("SIGUSR2: waiting until this process can be followed", {
        reason,
        at_most_s: WITHIN_MS / 1000,
      });
    }
    await new Promise<void>((resolve) => void clock.after(LOOK_MS, resolve));
  }
}
