/**
 * What a service manager learns: the sd_notify protocol, one datagram a message to the unix socket that
 * `NOTIFY_SOCKET` names. Ready, reloading, stopping, a line of status, and beats for its watchdog. The beats
 * come from the same loop of events that answers requests: a process that is blocked does not beat, and is
 * started again by the manager.
 *
 * Neither runtime has such sockets, hence the C library. A manager that cannot be reached costs nothing but
 * its knowledge of the collector: nothing here throws or waits.
 */

import process from "node:process";
import type { Clock, Status } from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";

/** The calls of the C library that are needed; `runtime/libc.ts` has them. */
export interface Sockets {
  socket(domain: number, type: number, protocol: number): number;
  sendto(
    fd: number,
    message: Uint8Array,
    bytes: number,
    flags: number,
    address: Uint8Array,
    addressBytes: number,
  ): number;
  clock_gettime(clock: number, seconds: Uint8Array): number;
}

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

/**
 * @param open loads the C library; null where there is none.
 * @returns how to tell it, null where there is no manager, or why it cannot be told.
 */
export async function serviceManager(
  open: () => Promise<Sockets | null>,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Result<Manager | null>> {
  const name = env["NOTIFY_SOCKET"] ?? "";
  if (name === "") return done(null);
  const address = unixAddress(name);
  if (address === null) {
    return failed(
      `NOTIFY_SOCKET: expected a path or @name of at most 107 bytes, got ${name}`,
    );
  }
  const libc = await open();
  const socket = libc?.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) ?? -1;
  if (libc === null || socket < 0) return failed("NOTIFY_SOCKET: no datagram can be sent");
  return done({
    tell(state) {
      const lines = Object.entries(state).map(([name, value]) => `${name}=${oneLine(value)}\n`);
      const message = new TextEncoder().encode(lines.join(""));
      const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
      const sent = libc.sendto(socket, message, message.length, flags, address, address.length);
      return sent === message.length;
    },
    watchdogMs: watchdogOf(env),
    monotonicUsec: () => monotonicUsec(libc),
  });
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

function monotonicUsec(libc: Sockets): bigint {
  const time = new Uint8Array(16);
  libc.clock_gettime(CLOCK_MONOTONIC, time);
  const view = new DataView(time.buffer);
  return view.getBigInt64(0, true) * 1_000_000n + view.getBigInt64(8, true) / 1000n;
}

function oneLine(value: string | number): string {
  return String(value).replace(/\p{Cc}+/gu, " ");
}

export interface NoticesDeps {
  readonly manager: Manager;
  readonly status: () => Status;
  readonly clock: Clock;
  /** How long a stop may take once it has begun. */
  readonly stopMs: () => number;
}

export interface Notices {
  /** It listens. Beats and status lines begin. */
  ready(): void;
  /** To be called after a change of the state: a stop is sent at once. */
  changed(): void;
  /** Settings are read again; to be followed by `reloaded`, whatever came of it. */
  reloading(): void;
  reloaded(): void;
  /** From now on the process `pid` is the service, and this one says nothing any more. */
  replacedBy(pid: number): void;
}

/** The line of status is looked at this often, and sent when it has changed. */
const STATUS_MS = 5_000;
/** While it stops it asks for this much at least, again and again. */
const EXTEND_MS = 30_000;

export function createNotices({ manager, status, clock, stopMs }: NoticesDeps): Notices {
  const everyMs = Math.min(STATUS_MS, manager.watchdogMs ?? STATUS_MS);
  let cancel = () => {};
  let silent = false;
  let stopping = false;
  let told = "";

  function tell(state: Record<string, string | number>): void {
    if (!silent) manager.tell(state);
  }

  /** What has changed of the status, and a beat where one is wanted. */
  function beat(): void {
    const line = statusLine(status());
    const state = {
      ...(manager.watchdogMs === null ? {} : { WATCHDOG: 1 }),
      ...(line === told ? {} : { STATUS: line }),
      ...(stopping ? { EXTEND_TIMEOUT_USEC: EXTEND_MS * 1000 } : {}),
    };
    told = line;
    if (Object.keys(state).length > 0) tell(state);
    cancel = clock.after(everyMs, beat);
  }

  return {
    ready() {
      tell({ READY: 1 });
      beat();
    },
    changed() {
      if (stopping || status().state !== "draining") return;
      stopping = true;
      told = statusLine(status());
      const extendMs = Math.max(EXTEND_MS, stopMs());
      tell({ STOPPING: 1, STATUS: told, EXTEND_TIMEOUT_USEC: extendMs * 1000 });
    },
    reloading() {
      tell({ RELOADING: 1, MONOTONIC_USEC: String(manager.monotonicUsec()) });
    },
    reloaded: () => tell({ READY: 1 }),
    replacedBy(pid) {
      tell({ MAINPID: pid });
      silent = true;
      cancel();
    },
  };
}

/** One line for `systemctl status`. */
export function statusLine({ state, ledger, oldest_s, tables }: Status): string {
  const troubled = Object.values(tables).filter((table) => table.state === "trouble").length;
  const parts = [
    `${ledger.held} rows held`,
    ...(ledger.held > 0 ? [`oldest ${Math.round(oldest_s)} s`] : []),
    `${ledger.stored} stored`,
    ...(ledger.dead > 0 ? [`${ledger.dead} dead letters`] : []),
    ...(ledger.lost > 0 ? [`${ledger.lost} lost`] : []),
    ...(troubled > 0 ? [`${troubled} ${troubled === 1 ? "table" : "tables"} in trouble`] : []),
  ];
  return `${state}: ${parts.join(", ")}`;
}
