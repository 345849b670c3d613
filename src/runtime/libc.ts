/**
 * The few calls of the C library that neither runtime offers: datagrams to a unix socket, options of a
 * socket that the HTTP server opened, and locks of files. Nothing here blocks. A call that fails answers
 * with a negative number, as in C.
 *
 * To be loaded when it is needed: all of it costs a start a few milliseconds, one call less than one.
 */

import process from "node:process";
import { bun, deno } from "./host.ts";

export interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  close(fd: number): number;
  sendto(
    fd: number,
    message: Uint8Array,
    bytes: number,
    flags: number,
    address: Uint8Array,
    addressBytes: number,
  ): number;
  getsockname(fd: number, address: Uint8Array, addressBytes: Uint8Array): number;
  getsockopt(
    fd: number,
    level: number,
    name: number,
    value: Uint8Array,
    valueBytes: Uint8Array,
  ): number;
  setsockopt(
    fd: number,
    level: number,
    name: number,
    value: Uint8Array,
    valueBytes: number,
  ): number;
  clock_gettime(clock: number, seconds: Uint8Array): number;
  /** Where `bytes` lie in memory, for as long as they are referred to. */
  address(bytes: Uint8Array): bigint;
}

type Call = Exclude<keyof Libc, "address">;

/** What they take; each answers with an `i32`, which is all that is read of a longer number. */
const TAKES: Readonly<Record<Call, readonly string[]>> = {
  socket: ["i32", "i32", "i32"],
  close: ["i32"],
  sendto: ["i32", "buffer", "usize", "i32", "buffer", "u32"],
  getsockname: ["i32", "buffer", "buffer"],
  getsockopt: ["i32", "i32", "i32", "buffer", "buffer"],
  setsockopt: ["i32", "i32", "i32", "buffer", "u32"],
  clock_gettime: ["i32", "buffer"],
};

/** `libc.so.6` is glibc's name; musl answers to it as well. */
const LIBRARIES: Readonly<Record<string, string>> = {
  linux: "libc.so.6",
  darwin: "libSystem.B.dylib",
};

interface BunFfi {
  dlopen(name: string, symbols: unknown): { symbols: unknown };
  ptr(bytes: Uint8Array): number;
}

let loading: Promise<Libc | null> | null = null;

/** Null where there is none that can be called; Linux only, for its numbers are what callers know. */
export function openLibc(): Promise<Libc | null> {
  return loading ??= process.platform === "linux"
    ? load<Pick<Libc, Call>>(TAKES).catch(() => null)
    : Promise.resolve(null);
}

const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Locks an open file for this process alone, without waiting; false when that cannot be. The lock goes
 * with the last descriptor of that opening. Null where the system has no `flock`.
 */
export async function openFlock(): Promise<((fd: number) => boolean) | null> {
  type Calls = { flock(fd: number, operation: number): number };
  const libc = await load<Calls>({ flock: ["i32", "i32"] }).catch(() => null);
  return libc && ((fd) => libc.flock(fd, LOCK_EX | LOCK_NB) === 0);
}

async function load<T>(
  takes: Readonly<Record<string, readonly string[]>>,
): Promise<T & Pick<Libc, "address"> | null> {
  const library = LIBRARIES[process.platform];
  if (library === undefined) return null;
  const calls = Object.entries(takes);
  if (bun !== undefined) {
    // A name that the other runtime's compiler does not know.
    const ffi = "bun:ffi";
    const { dlopen, ptr } = await import(ffi) as BunFfi;
    const symbols = calls.map(([name, args]) => [name, { args, returns: "i32" }]);
    return {
      ...dlopen(library, Object.fromEntries(symbols)).symbols as T,
      address: (bytes) => BigInt(ptr(bytes)),
    };
  }
  if (deno?.dlopen === undefined) return null;
  const { UnsafePointer } = deno;
  const symbols = calls.map(([name, parameters]) => [name, { parameters, result: "i32" }]);
  return {
    ...deno.dlopen(library, Object.fromEntries(symbols)).symbols as T,
    address: (bytes) => UnsafePointer.value(UnsafePointer.of(bytes)),
  };
}
