/** Waiting for what cannot be awaited: the state of another process. */
import { readFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";

/**
 * A bound of time that a quiet machine keeps; a machine with more to do than it has cores gets as much more
 * time, so that its load fails no test.
 */
export function patient(ms: number): number {
  const share = Math.max(loadavg()[0] ?? 0, runnable()) / availableParallelism();
  return ms * Math.max(1, 2 * share - 1);
}

/** Processes that compute or want to at this moment, beside this one; 0 where the system does not say. */
function runnable(): number {
  try {
    return Number(/ (\d+)\/\d+ /.exec(readFileSync("/proc/loadavg", "latin1"))?.[1] ?? 1) - 1;
  } catch {
    return 0;
  }
}

/** Between two looks at what is awaited: a twentieth of the time that it has taken, but never less or more than this. */
const LOOKS_MS = { least: 25, most: 100 };

/**
 * Calls `fn` until it returns without throwing and gives its answer; after `withinMs` (see `patient`)
 * throws what `fn` threw last, so that a test fails with the reason and not with "timed out".
 * @param options.everyMs between two calls; unless given ever longer (`LOOKS_MS`), for what takes long is not worth
 * the processor's time of looking often.
 */
export async function eventually<T>(
  fn: () => T | Promise<T>,
  { withinMs, everyMs }: { withinMs: number; everyMs?: number },
): Promise<T> {
  const beganMs = performance.now();
  while (true) {
    try {
      return await fn();
    } catch (problem) {
      const sinceMs = performance.now() - beganMs;
      const waitMs = everyMs ??
        Math.min(LOOKS_MS.most, Math.max(LOOKS_MS.least, sinceMs / 20));
      const tookMs = sinceMs + waitMs;
      if (tookMs > withinMs && tookMs > patient(withinMs)) throw problem;
      await pause(waitMs);
    }
  }
}

/** Resolves after `ms`. Only for the inside of a helper that polls or plays a slow client. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
