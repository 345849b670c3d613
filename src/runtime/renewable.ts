/**
 * A server with TLS whose certificate can be renewed: a second server with the new one listens on the
 * same port, all new connections go to it (`steer.ts`), and the first one retires. While it does, its
 * answers ask clients to come on a connection of their own choice next time (`Connection: close`), so
 * nobody finds a connection closed that he was about to use; after that it stops as ever.
 *
 * So the port must be one that can be shared. That another program listens there is noticed all the
 * same: the port is listened on alone for a moment first.
 */

import type { Listening, ServeOptions, Server, Tls } from "./serve.ts";
import { steerToNewer } from "./steer.ts";

/** Whoever uses his connection at all does so in this time. */
const RETIRE_MS = 5_000;
/** Where the next one is there already: who has just connected has sent his request. */
const RETIRE_LEAST_MS = 1_000;
/** Other processes end theirs some moments later. */
const OTHERS_MS = 1_000;

interface Generation extends Server {
  /** Every answer from now on is the last one of its connection. */
  sayGoodbye(): void;
}

interface Retiring {
  readonly server: Generation;
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
  const { processes = 1 } = options;
  const open = (tls: Tls, port: number): Generation => {
    let goodbye = false;
    const server = start({
      ...options,
      tls,
      port,
      reusePort: shares,
      handler: (request) => {
        const answer = options.handler(request);
        if (!goodbye) return answer;
        return answer instanceof Promise ? answer.then(lastOne) : lastOne(answer);
      },
    });
    return { ...server, sayGoodbye: () => goodbye = true };
  };

  const triesAlone = options.reusePort !== true && shares;
  let current = open(options.tls, triesAlone ? tryAlone(options) : options.port);
  let retiring: Retiring | null = null;

  function retire(server: Generation, withinMs: number): void {
    server.sayGoodbye();
    const timer = setTimeout(() => void end(), withinMs);
    const end = () => {
      clearTimeout(timer);
      if (retiring?.server === server) retiring = null;
      return server.stop();
    };
    retiring = { server, end, sinceMs: performance.now() };
  }

  return {
    port: current.port,
    async renew(tls) {
      if (!shares) throw new Error("this runtime cannot listen twice on one port");
      // With three on one port nobody would know which is the newer one.
      if (retiring !== null) {
        const leastMs = processes > 1 ? RETIRE_MS + OTHERS_MS : RETIRE_LEAST_MS;
        await pause(retiring.sinceMs + leastMs - performance.now());
        void retiring?.end();
      }
      const steered = await steerToNewer(current.port, processes);
      const old = current;
      current = open(tls, old.port);
      retire(old, steered ? RETIRE_MS : 0);
    },
    async stop() {
      await Promise.all([retiring?.end(), current.stop()]);
    },
    async kill() {
      await Promise.all([retiring?.server.kill(), current.kill()]);
    },
  };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}

function lastOne(answer: Response): Response {
  answer.headers.set("connection", "close");
  return answer;
}
