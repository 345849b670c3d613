/** What the system tests ask of a running collector, and a client that is cruder than `fetch`. */

import assert from "node:assert/strict";
import { connect } from "node:net";
import type { Shishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";

/** So many events, each of another user. */
export function events(count: number): { eventType: string; userId: string }[] {
  return Array.from({ length: count }, (_, n) => ({ eventType: "click", userId: `u${n}` }));
}

/** Resolves once `/readyz` says 200. */
export function ready(shishi: Shishi): Promise<void> {
  return eventually(async () => {
    const answer = await shishi.get("/readyz");
    assert.equal(answer.status, 200, answer.text);
  }, { withinMs: 10_000 });
}

/** Resolves once the collector holds exactly `rows`. */
export function holds(shishi: Shishi, rows: number): Promise<void> {
  return eventually(async () => {
    assert.equal((await shishi.status()).ledger.held, rows);
  }, { withinMs: 10_000 });
}

/** Resolves once a line of the log has this message. */
export function says(shishi: Shishi, message: string, withinMs = 20_000): Promise<void> {
  return eventually(() => {
    assert.ok(shishi.lines().some((line) => line["message"] === message), shishi.stderr());
  }, { withinMs });
}

/** The very last line on stderr, parsed: it must be the ledger. */
export function ledgerAtEnd(shishi: Shishi): Record<string, unknown> {
  const line = shishi.stderr().trimEnd().split("\n").at(-1) ?? "";
  const last = JSON.parse(line) as Record<string, unknown>;
  const { received, recovered, rejected, stored, dead, held, lost } = last as Record<
    string,
    number
  >;
  assert.equal(
    received! + recovered!,
    rejected! + stored! + dead! + held! + lost!,
    `the books do not balance: ${line}`,
  );
  return last;
}

/** Sends `signal` and waits for the end. */
export async function stopBy(
  shishi: Shishi,
  signal: NodeJS.Signals = "SIGTERM",
): Promise<{ code: number | null; tookMs: number }> {
  const startedMs = performance.now();
  shishi.signal(signal);
  const { code } = await shishi.exited;
  return { code, tookMs: performance.now() - startedMs };
}

export interface RawClient {
  /** Sends these bytes as they are. */
  send(text: string): void;
  /** All that has come back so far. */
  received(): string;
  /** Resolves when the other side has ended the connection, or broken it. */
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

/** A connection whose every byte the test decides. */
export async function rawClient(url: string): Promise<RawClient> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let received = "";
  socket.setEncoding("utf8").on("data", (text: string) => received += text);
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", () => resolve());
    socket.once("error", reject);
  });
  return {
    send: (text) => void socket.write(text),
    received: () => received,
    closed,
    close: () => {
      socket.destroy();
      return closed;
    },
  };
}
