/** What this process hands to the files of brokers (`sources/`): its clock, files, sockets and databases. */

import { readFile, stat } from "node:fs/promises";
import { hostname } from "node:os";
import process from "node:process";
import type { BrokerDeps, Heap, Log } from "../contracts.ts";
import { authorities } from "./authorities.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { systemClock } from "../kernel/time.ts";
import { bun } from "./host.ts";
import { createOpenSocket } from "./socket.ts";
import { openSqlite } from "./sqlite.ts";

/**
 * @param own the text of `ca-file`, or null; asked at each connection that needs it.
 * @param folder as of `BrokerDeps`, for what reads.
 */
export function forBrokers(
  { group, id, log, own, folder }: {
    readonly group: string;
    readonly id: string;
    readonly log: Log;
    readonly own: () => string | null;
    readonly folder?: string;
  },
): BrokerDeps {
  const certificates = () => authorities(own());
  return {
    clock: systemClock,
    log,
    member: `${group}.${id}`,
    ...(folder === undefined ? {} : { folder }),
    readFile: (path) => readFile(path, "utf8"),
    authorities: certificates,
    openSocket: createOpenSocket(certificates),
    openSqlite,
  };
}

/** Null where garbage cannot be looked for at will; nor need it be on V8, which does so among the old in time. */
export async function ownHeap(): Promise<Heap | null> {
  if (bun === undefined) return null;
  const name = "bun:jsc";
  const { fullGC }: { fullGC(): void } = await import(name);
  // `Bun.gc(false)` leaves it to the engine which objects it looks at, `Bun.gc(true)` takes ten times as long.
  return { bytes: () => process.memoryUsage().heapUsed, collect: fullGC };
}

/** What stands for a data folder that is there; a few letters. Rejects with the disk's error. */
export async function standFor(dataDir: string): Promise<string> {
  const { dev, ino, birthtimeMs } = await stat(dataDir);
  const place = [hostname(), dev, ino, birthtimeMs].join(" ");
  return nodeCrypto().createHash("sha256").update(place).digest("hex").slice(0, 8);
}

/** Of a command, which says itself what has gone wrong. */
export const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };
