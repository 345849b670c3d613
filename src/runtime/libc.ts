/**
 * The few calls of the C library that neither runtime offers: datagrams to a unix socket, and options
 * of a socket that somebody else opened. Linux only; `libc.so.6` is glibc's name, and musl answers to
 * it as well. Nothing here blocks. A call that fails answers with a negative number, as in C.
 *
 * To be loaded when it is needed: it costs a start a few milliseconds.
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
  /** Where `bytes` lie in memory, for as long as somebody holds them. */
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
const NAME = "libc.so.6";

interface BunFfi {
  dlopen(name: string, symbols: unknown): { symbols: Record<Call, never> };
  ptr(bytes: Uint8Array): number;
}

let loading: Promise<Libc | null> | null = null;

/** Null where there is none that can be called. */
export function openLibc(): Promise<Libc | null> {
  return loading ??= open().catch(() => null);
}

async function open(): Promise<Libc | null> {
  if (process.platform !== "linux") return null;
  const calls = Object.entries(TAKES);
  if (bun !== undefined) {
    // A name that the other runtime's compiler does not know.
    const ffi = "bun:ffi";
    const { dlopen, ptr } = await import(ffi) as BunFfi;
    const symbols = calls.map(([name, args]) => [name, { args, returns: "i32" }]);
    return {
      ...dlopen(NAME, Object.fromEntries(symbols)).symbols,
      address: (bytes) => BigInt(ptr(bytes)),
    };
  }
  if (deno?.dlopen === undefined) return null;
  const { UnsafePointer } = deno;
  const symbols = calls.map(([name, parameters]) => [name, { parameters, result: "i32" }]);
  return {
    ...deno.dlopen(NAME, Object.fromEntries(symbols)).symbols as Record<Call, never>,
    address: (bytes) => UnsafePointer.value(UnsafePointer.of(bytes)),
  };
}
