/** What this process hands to the files of brokers (`sources/`): its clock, files, sockets and databases. */

import { readFile, stat } from "node:fs/promises";
import { hostname } from "node:os";
import type { BrokerDeps, Log } from "../contracts.ts";
import { authorities } from "./authorities.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { systemClock } from "../kernel/time.ts";
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

/** What stands for a data folder that is there; a few letters. Rejects with the disk's error. */
export async function standFor(dataDir: string): Promise<string> {
  const { dev, ino, birthtimeMs } = await stat(dataDir);
  const place = [hostname(), dev, ino, birthtimeMs].join(" ");
  return nodeCrypto().createHash("sha256").update(place).digest("hex").slice(0, 8);
}

/** Of a command, which says itself what has gone wrong. */
export const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };
