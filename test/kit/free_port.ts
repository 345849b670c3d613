/**
 * Free ports on 127.0.0.1.
 *
 * They are drawn below the range from which the system takes ports for outgoing connections: a
 * server that is killed and started again must find its port free, whatever was connected meanwhile.
 */
import { createServer } from "node:net";

const LOWEST = 15_000;
const HIGHEST = 32_000;
const given = new Set<number>();

/** A port that nobody listens on, never the same twice in one process. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (!given.has(port) && await isFree(port)) {
      given.add(port);
      return port;
    }
  }
  throw new Error(`no free port between ${LOWEST} and ${HIGHEST}`);
}

/** Whether a server may listen on `port` of 127.0.0.1 at this moment. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen({ port, host: "127.0.0.1", exclusive: true }, () => {
      probe.close(() => resolve(true));
    });
  });
}
