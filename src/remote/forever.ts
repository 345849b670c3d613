/**
 * Keeps one connection to NATS for as long as the process lives. Whatever NATS does (absent at start,
 * killed, frozen, refusing) stays in here: nothing throws, nothing waits for it, and the next attempt
 * comes after at most `MAX_BACKOFF_MS`.
 *
 * Every connection is a fresh one on which `setup` subscribes again, so no message is ever delivered
 * to two subscriptions of one collector, and nothing of an old connection is sent late.
 */

import type { Clock, Log } from "../contracts.ts";
import { dial } from "./nats.ts";
import type { Dialled, DialOptions, NatsAuth, OpenSocket, Wire } from "./wire.ts";

export interface ForeverOptions {
  /** `ws://` or `wss://`; tried in turn. */
  readonly servers: readonly string[];
  readonly auth: NatsAuth;
  /** How the server's monitoring shows this client. */
  readonly name: string;
  readonly openSocket?: OpenSocket;
}

export type LinkState = "connected" | "disconnected";

/** What holds the connection. */
export interface Link {
  /** The live connection, or null while there is none. */
  wire(): Wire | null;
  /** `host:port` once the server has all subscriptions; null without a connection. */
  server(): string | null;
  /** Sends what is on its way (at most `FLUSH_WAIT_MS`) and ends for good. */
  close(): Promise<void>;
}

type Dial = (
  options: DialOptions,
  clock: Clock,
  onTrouble: (what: string) => void,
) => Promise<Dialled>;

const DIAL_TIMEOUT_MS = 5_000;
const MIN_BACKOFF_MS = 250;
const MAX_BACKOFF_MS = 5_000;
/** A connection that lived this long was a good one: the next loss starts with a short wait. */
const GOOD_LIFE_MS = 10_000;
const FLUSH_WAIT_MS = 1_000;

/**
 * Returns at once and connects in the background.
 * @param setup subscribes; called with each connection.
 * @param onState is told each change, with `host:port`.
 * @param dialer opens one connection; tests bring their own.
 */
export function connectForever(
  options: ForeverOptions,
  setup: (wire: Wire) => void,
  log: Log,
  clock: Clock,
  onState: (state: LinkState, server: string) => void = () => {},
  dialer: Dial = dial,
): Link {
  const gaveUp = new AbortController();
  let current: Wire | null = null;
  let announced: string | null = null;
  let wake = () => {};

  void run();
  return {
    wire: () => current,
    server: () => announced,
    async close() {
      if (gaveUp.signal.aborted) return;
      gaveUp.abort();
      wake();
      const wire = current;
      if (wire === null) return;
      await wire.flush(FLUSH_WAIT_MS);
      await wire.close();
    },
  };

  async function run(): Promise<void> {
    let failures = 0;
    for (let turn = 0; !gaveUp.signal.aborted; turn++) {
      const server = options.servers[turn % options.servers.length];
      if (server === undefined) return;
      const startedMs = clock.monotonicMs();
      const end = await live(server).catch((error: unknown) => {
        // A bug, and still no reason to end a collector or to leave it without control for good.
        log.error("nats: connection failed", { error: String(error) });
        current = announced = null;
        return "failed" as const;
      });
      if (gaveUp.signal.aborted) return;
      const good = end === "ended" && clock.monotonicMs() - startedMs >= GOOD_LIFE_MS;
      failures = good ? 0 : failures + 1;
      await pause(backoffMs(failures, options.servers.length, clock.random()));
    }
  }

  /** One connection from its first byte to its end. */
  async function live(server: string): Promise<"failed" | "ended"> {
    const { auth, name, openSocket } = options;
    const dialled = await dialer(
      {
        server,
        auth,
        name,
        timeoutMs: DIAL_TIMEOUT_MS,
        signal: gaveUp.signal,
        ...(openSocket === undefined ? {} : { openSocket }),
      },
      clock,
      (what) => log.warn("nats: the server complains", { server, error: what }),
    );
    if (dialled.kind === "failed") {
      if (!gaveUp.signal.aborted) {
        log.warn("nats: not connected, trying again in the background", {
          server,
          error: dialled.why,
        });
      }
      return "failed";
    }
    const { wire } = dialled;
    if (gaveUp.signal.aborted) {
      await wire.close();
      return "ended";
    }
    current = wire;
    let open = true;
    const closed = wire.closed.then((why) => {
      open = false;
      return why;
    });
    setup(wire);
    while (open && announced === null) {
      if (!await wire.flush(DIAL_TIMEOUT_MS)) {
        // A server that stalls for a while may still take them, unless this is the end.
        await Promise.race([closed, pause(MIN_BACKOFF_MS)]);
        continue;
      }
      announced = wire.server;
      log.info("nats: connected", { server: wire.server });
      onState("connected", wire.server);
    }
    const why = await closed;
    current = null;
    if (announced !== null) onState("disconnected", wire.server);
    announced = null;
    if (!gaveUp.signal.aborted) {
      log.warn("nats: connection lost", { server: wire.server, error: why });
    }
    await wire.close();
    return "ended";
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = clock.after(ms, resolve);
      wake = () => {
        cancel();
        resolve();
      };
    });
  }
}

/**
 * How long to wait after so many failures in a row: nearly nothing until each server had its turn, then
 * doubling, with jitter so that a fleet does not come back in one moment.
 * @param chance uniform in [0, 1).
 */
export function backoffMs(failures: number, servers: number, chance: number): number {
  const rounds = Math.floor((failures - 1) / Math.max(1, servers));
  const top = Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** Math.max(0, rounds));
  return top * (0.5 + chance / 2);
}
