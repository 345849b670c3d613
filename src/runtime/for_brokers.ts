/** What this process hands to the files of brokers (`sources/`): its clock, files, sockets and databases. */

import { readFile } from "node:fs/promises";
import type { BrokerDeps, Log } from "../contracts.ts";
import { authorities } from "./authorities.ts";
import { systemClock } from "./clock.ts";
import { createOpenSocket } from "./socket.ts";
import { openSqlite } from "./sqlite.ts";

/** @param own the text of `ca-file`, or null; asked at each connection that needs it. */
export function forBrokers(
  { group, id, log, own }: {
    readonly group: string;
    readonly id: string;
    readonly log: Log;
    readonly own: () => string | null;
  },
): BrokerDeps {
  const certificates = () => authorities(own());
  return {
    clock: systemClock,
    log,
    member: `${group}.${id}`,
    readFile: (path) => readFile(path, "utf8"),
    authorities: certificates,
    openSocket: createOpenSocket(certificates),
    openSqlite,
  };
}

/** Of a command, which says itself what has gone wrong. */
export const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };
