/**
 * What a service manager is told: the sd_notify protocol, one datagram a message to the unix socket
 * that `NOTIFY_SOCKET` names. Neither runtime has such sockets, hence the C library. A manager that
 * cannot be reached costs nothing but its knowledge of us: nothing here throws or waits.
 */

import process from "node:process";
import { type Libc, openLibc } from "./libc.ts";

export interface Manager {
  /** One message: `READY=1`, `STATUS=…`; values are kept to one line. False: it did not get it. */
  tell(state: Readonly<Record<string, string | number>>): boolean;
  /** How often it wants to hear `WATCHDOG=1` at least; null = it does not ask. */
  readonly watchdogMs: number | null;
  /** CLOCK_MONOTONIC in microseconds, as it wants it beside `RELOADING=1`. */
  monotonicUsec(): bigint;
}

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const CLOCK_MONOTONIC = 1;
/** Of a `sockaddr_un`, the family before it. */
const LONGEST_PATH_BYTES = 108;

/** @returns null where nobody is to be told, else how to tell, or why that cannot be done. */
export async function serviceManager(
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Manager | { readonly problem: string } | null> {
  const name = env["NOTIFY_SOCKET"] ?? "";
  if (name === "") return null;
  const address = unixAddress(name);
  if (address === null) {
    return { problem: `NOTIFY_SOCKET: expected a path or @name of at most 107 bytes, got ${name}` };
  }
  const libc = await openLibc();
  const socket = libc?.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) ?? -1;
  if (libc === null || socket < 0) return { problem: "NOTIFY_SOCKET: no datagram can be sent" };
  return {
    tell(state) {
      const lines = Object.entries(state).map(([name, value]) => `${name}=${oneLine(value)}\n`);
      const message = new TextEncoder().encode(lines.join(""));
      const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
      const sent = libc.sendto(socket, message, message.length, flags, address, address.length);
      return sent === message.length;
    },
    watchdogMs: watchdogOf(env),
    monotonicUsec: () => monotonicUsec(libc),
  };
}

/** A `sockaddr_un`; null for what is no such name. `@` stands for the byte 0 of abstract names. */
export function unixAddress(name: string): Uint8Array | null {
  if (!/^[/@]./.test(name)) return null;
  const path = new TextEncoder().encode(name);
  if (path.length >= LONGEST_PATH_BYTES) return null;
  const abstract = name.startsWith("@");
  if (abstract) path[0] = 0;
  // A path ends with a byte 0; of an abstract name it would be a part.
  const address = new Uint8Array(2 + path.length + (abstract ? 0 : 1));
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(path, 2);
  return address;
}

/** Half of what it asks for, as sd_watchdog_enabled(3) advises. */
function watchdogOf(env: Readonly<Record<string, string | undefined>>): number | null {
  const usec = Number(env["WATCHDOG_USEC"] ?? "");
  const pid = env["WATCHDOG_PID"] ?? "";
  if (!Number.isSafeInteger(usec) || usec <= 0) return null;
  return pid === "" || Number(pid) === process.pid ? usec / 2000 : null;
}

function monotonicUsec(libc: Libc): bigint {
  const time = new Uint8Array(16);
  libc.clock_gettime(CLOCK_MONOTONIC, time);
  const view = new DataView(time.buffer);
  return view.getBigInt64(0, true) * 1_000_000n + view.getBigInt64(8, true) / 1000n;
}

function oneLine(value: string | number): string {
  return String(value).replace(/\p{Cc}+/gu, " ");
}
