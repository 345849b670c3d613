/** Waiting for what cannot be awaited: the state of another process. */

/**
 * Calls `fn` until it returns without throwing and gives its answer; after `withinMs` throws what
 * `fn` threw last, so that a test fails with the reason and not with "timed out".
 */
export async function eventually<T>(
  fn: () => T | Promise<T>,
  { withinMs, everyMs = 25 }: { withinMs: number; everyMs?: number },
): Promise<T> {
  const deadline = performance.now() + withinMs;
  while (true) {
    try {
      return await fn();
    } catch (problem) {
      if (performance.now() + everyMs > deadline) throw problem;
    }
    await pause(everyMs);
  }
}

/** Resolves after `ms`. Only for the inside of a helper that polls or plays a slow client. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
