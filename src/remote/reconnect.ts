/**
 * Keeps one connection to NATS for as long as the process lives. Whatever NATS does (absent at start,
 * killed, frozen, refusing) stays in here: nothing throws, nothing waits for it, and the next attempt
 * comes after at most 5 s.
 *
 * Every connection is a fresh one on which `setup` subscribes again, so no message is ever delivered
 * to two subscriptions of one collector, and nothing of an old connection is sent late.
 */

import type { Clock, Log } from "../contracts.ts";
import { backoffMs } from "../kernel/backoff.ts";
import { reasonOf } from "../kernel/errors.ts";
import { sleep } from "../kernel/time.ts";
import { dial, type NatsAuth, type OpenSocket, type Wire } from "../kernel/nats.ts";

export type LinkState = "connected" | "disconnected";

export interface LinkOptions {
  /** Tried in turn. */
  readonly servers: readonly string[];
  readonly auth: NatsAuth;
  /** How the server's monitoring shows this client. */
  readonly name: string;
  readonly openSocket?: OpenSocket;
  /** Subscribes; called with each connection. */
  readonly setup: (wire: Wire) => void;
  /** Called at each change, with the server's `host:port`. */
  readonly onState?: (state: LinkState, server: string) => void;
  readonly clock: Clock;
  readonly log: Log;
  /** Opens one connection; tests bring their own. */
  readonly dial?: typeof dial;
}

/** What holds the connection. */
export interface Link {
  /** The live connection, or null while there is none. */
  wire(): Wire | null;
  /** `host:port` once the server has all subscriptions; null without a connection. */
  server(): string | null;
  /** Sends what is on its way (at most `FLUSH_WAIT_MS`) and ends for good. */
  close(): Promise<void>;
}

const DIAL_TIMEOUT_MS = 5_000;
/** Nearly nothing until each server had its turn. */
const BACKOFF = { leastMs: 125, mostMs: 5_000 };
/** A server that stalls is asked again so soon. */
const STALLED_MS = 250;
/** A connection that lived this long was a good one: the next loss starts with a short wait. */
const GOOD_LIFE_MS = 10_000;
const FLUSH_WAIT_MS = 1_000;

/** Returns at once and connects in the background. */
export function connectForever(options: LinkOptions): Link {
  const { servers, setup, clock, log, onState = () => {} } = options;
  const closing = new AbortController();
  const { signal } = closing;
  let current: Wire | null = null;
  let announced: string | null = null;

  void run();
  return {
    wire: () => current,
    server: () => announced,
    async close() {
      if (signal.aborted) return;
      closing.abort();
      const wire = current;
      if (wire === null) return;
      await wire.flush(FLUSH_WAIT_MS);
      await wire.close();
    },
  };

  async function run(): Promise<void> {
    let failures = 0;
    for (let turn = 0; !signal.aborted; turn++) {
      const server = servers[turn % servers.length];
      if (server === undefined) return;
      const startedMs = clock.monotonicMs();
      const lived = await live(server).catch((error: unknown) => {
        // A bug, and still no reason to end a collector or to leave it without control for good.
        log.error("nats: connection failed", { error: reasonOf(error) });
        current = announced = null;
        return false;
      });
      const good = lived && clock.monotonicMs() - startedMs >= GOOD_LIFE_MS;
      failures = good ? 0 : failures + 1;
      const rounds = Math.ceil(failures / servers.length);
      await sleep(clock, backoffMs(rounds, clock.random(), BACKOFF), signal);
    }
  }

  /** One connection from its first byte to its end. @returns whether there was one. */
  async function live(server: string): Promise<boolean> {
    const wire = await open(server);
    if (wire === null) return false;
    if (!signal.aborted) await hold(wire);
    await wire.close();
    return true;
  }

  async function open(server: string): Promise<Wire | null> {
    const { auth, name, openSocket } = options;
    const dialled = await (options.dial ?? dial)(
      {
        server,
        auth,
        name,
        timeoutMs: DIAL_TIMEOUT_MS,
        signal,
        openSocket,
      },
      clock,
      (what) => log.warn("nats: the server complains", { server, error: what }),
    );
    if (dialled.ok) return dialled.value;
    if (!signal.aborted) {
      const error = dialled.problem;
      log.warn("nats: not connected, trying again in the background", { server, error });
    }
    return null;
  }

  /** Until the connection ends. */
  async function hold(wire: Wire): Promise<void> {
    const { server } = wire;
    current = wire;
    const ended = new AbortController();
    void wire.closed.then(() => ended.abort());
    setup(wire);
    while (!ended.signal.aborted && announced === null) {
      if (!await wire.flush(DIAL_TIMEOUT_MS)) {
        // A server that stalls for a while may still take them, unless this is the end.
        await sleep(clock, STALLED_MS, ended.signal);
        continue;
      }
      announced = server;
      log.info("nats: connected", { server });
      onState("connected", server);
    }
    const why = await wire.closed;
    current = null;
    if (announced !== null) onState("disconnected", server);
    announced = null;
    if (!signal.aborted) log.warn("nats: connection lost", { server, error: why });
  }
}
