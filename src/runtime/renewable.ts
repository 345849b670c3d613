/**
 * A server with TLS whose certificate can be renewed: a second server with the new one listens on the
 * same port, all new connections go to it (`shared_port.ts`), and the first one retires. While it does,
 * its answers ask clients to come on a connection of their own choice next time, so nobody finds a
 * connection closed that he was about to use; after that it stops as ever.
 *
 * So the port must be one that can be shared. That another program listens there is noticed all the
 * same: the port is listened on alone for a moment first.
 */

import type { Listening, ServeOptions, Server, Tls } from "./serve.ts";

/** Whoever uses his connection at all does so in this time. */
const RETIRE_MS = 5_000;
/** Where the next one is there already: who has just connected has sent his request. */
const RETIRE_LEAST_MS = 1_000;

interface Retiring {
  /** It listens no more; resolves when its last request is answered. */
  end(): Promise<void>;
  readonly sinceMs: number;
}

/** What a runtime can do. */
export interface Runtime {
  start(options: ServeOptions): Server;
  /** Listens for a moment, alone; the port. */
  tryAlone(options: ServeOptions): number;
  /** Whether it can share a port. */
  readonly shares: boolean;
}

/** Throws where it cannot be listened. */
export function renewable(
  options: ServeOptions & { readonly tls: Tls },
  { start, tryAlone, shares }: Runtime,
): Listening {
  const open = (tls: Tls, port: number) => start({ ...options, tls, port, reusePort: shares });

  const triesAlone = options.reusePort !== true && options.shared !== true && shares;
  let current = open(options.tls, triesAlone ? tryAlone(options) : options.port);
  let retiring: Retiring | null = null;
  /** That answer their last requests, the retiring one with them. */
  const older = new Set<Server>();

  function retire(server: Server, withinMs: number): void {
    server.lastAnswers(true);
    older.add(server);
    const timer = setTimeout(() => void end(), withinMs);
    const mine: Retiring = { end, sinceMs: performance.now() };
    async function end() {
      clearTimeout(timer);
      if (retiring === mine) retiring = null;
      await server.stop();
      older.delete(server);
    }
    retiring = mine;
  }

  /** With three on one port nobody would know which is the newer one. */
  async function alone(): Promise<void> {
    if (retiring === null) return;
    await pause(retiring.sinceMs + RETIRE_LEAST_MS - performance.now());
    void retiring?.end();
  }

  return {
    port: current.port,
    lastAnswers: (last) => current.lastAnswers(last),
    alone,
    async renew(tls) {
      if (!shares) throw new Error("this runtime cannot listen twice on one port");
      await alone();
      // What would steer connections to the new one would take those of the others as well.
      const retires = options.shared === true || await giveWay(current.port);
      const old = current;
      current = open(tls, old.port);
      retire(old, retires ? RETIRE_MS : 0);
    },
    async stop() {
      void retiring?.end();
      await Promise.all([...older, current].map((server) => server.stop()));
    },
    async kill() {
      await Promise.all([...older, current].map((server) => server.kill()));
    },
  };
}

async function giveWay(port: number): Promise<boolean> {
  const { sharePort } = await import("./shared_port.ts");
  return (await sharePort(port))?.giveWay() ?? false;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
