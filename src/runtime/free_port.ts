/**
 * A port for several processes, taken by nobody else: who shares a port does not notice that another
 * program has it, so it is listened on alone for a moment.
 */

import { systemClock } from "./clock.ts";
import { serve, type ServeOptions } from "./serve.ts";

/** Processes of one that was killed may take so long to let go of the port. */
const WITHIN_MS = 2_000;
const AGAIN_MS = 100;

/** The port that is set, or one that the system chooses; throws as `serve` does. */
export async function freePort(listen: Pick<ServeOptions, "hostname" | "port">): Promise<number> {
  const untilMs = systemClock.monotonicMs() + WITHIN_MS;
  while (true) {
    try {
      const alone = serve({
        ...listen,
        handler: () => new Response(null, { status: 503 }),
        onError: () => {},
      });
      await alone.kill();
      return alone.port;
    } catch (error) {
      if (systemClock.monotonicMs() >= untilMs) throw error;
    }
    await new Promise<void>((resolve) => void systemClock.after(AGAIN_MS, resolve));
  }
}
