/** A connection to NATS for one command: the servers in turn, each failure in words. */

import { dial } from "../remote/nats.ts";
import type { Wire } from "../remote/wire.ts";
import type { RemoteIo } from "./remote.ts";

const DIAL_TIMEOUT_MS = 5_000;

/** The first server that answers; says on `err` why none did. */
export async function reach(io: RemoteIo): Promise<Wire | null> {
  if (io.servers.length === 0) {
    io.err("nats-url: expected ws://host:port or wss://host:port, got nothing");
    return null;
  }
  const deadlineMs = io.clock.monotonicMs() + io.timeoutMs;
  for (const server of io.servers) {
    const leftMs = Math.max(100, Math.round(deadlineMs - io.clock.monotonicMs()));
    const dialled = await (io.dialer ?? dial)(
      {
        server,
        auth: io.auth,
        name: "shishi command",
        timeoutMs: Math.min(DIAL_TIMEOUT_MS, leftMs),
        ...(io.openSocket === undefined ? {} : { openSocket: io.openSocket }),
        ...(io.signal === undefined ? {} : { signal: io.signal }),
      },
      io.clock,
      (what) => io.err(`NATS: ${what}`),
    );
    if (dialled.kind === "connected") return dialled.wire;
    if (io.signal?.aborted) return null;
    io.err(`cannot reach NATS: ${dialled.why}`);
  }
  return null;
}
