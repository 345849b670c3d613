/**
 * Where new connections go while two servers of this process listen on one port: to the newer one.
 *
 * Neither runtime can give a server that listens another certificate, so a second one takes its place
 * (`serve.ts`). Linux shares out connections among all sockets of a port, and those that wait at a
 * socket which is closed are reset: one in 500 under load. A filter on the port's group of sockets
 * (SO_ATTACH_REUSEPORT_CBPF, see socket(7)) sends all to the newer sockets instead, so that nothing
 * waits at the older one when it is closed. Nothing in `node:` can set it, hence the call into libc.
 */

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import process from "node:process";
import { bun, deno } from "./host.ts";

const SOL_SOCKET = 1;
const SO_ATTACH_REUSEPORT_CBPF = 51;
const LIBC = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"];
/** The state of a socket that listens, in /proc/net/tcp. */
const LISTENS = "0A";

const GONE_WITHIN_MS = 2_000;
const LOOK_MS = 10;

type SetOption = (fd: number, name: number, value: Uint8Array<ArrayBuffer>) => number;

/**
 * From the `processes` older sockets that listen on `port` (each process has one) to the first of as
 * many newer ones, until the older ones are gone; before and after connections are shared out as ever.
 * @returns false where that cannot be done.
 */
export async function steerToNewer(port: number, processes: number): Promise<boolean> {
  if (process.platform !== "linux") return false;
  try {
    const fd = await onlyListener(port);
    const [setOption, addressOf] = await libc();
    const filter = filterOf(processes);
    const program = new BigUint64Array([1n, addressOf(filter)]);
    const value = new Uint8Array(program.buffer);
    return fd !== null && setOption(fd, SO_ATTACH_REUSEPORT_CBPF, value) === 0;
  } catch {
    return false;
  }
}

/**
 * One instruction: the socket with this index. They are numbered in the order in which they came, and
 * when one goes the last takes its number; so this one is newer as long as an older one is there, and
 * it is nobody, which means any of them, when only the newer ones are left.
 */
function filterOf(index: number): Uint8Array<ArrayBuffer> {
  const RETURN = 0x06;
  const filter = new DataView(new ArrayBuffer(8));
  filter.setUint16(0, RETURN, true);
  filter.setUint32(4, index, true);
  return new Uint8Array(filter.buffer);
}

/** The socket of this process that listens there, once one that was closed is gone; null: too late. */
async function onlyListener(port: number): Promise<number | null> {
  for (let left = GONE_WITHIN_MS; left > 0; left -= LOOK_MS) {
    const [fd, ...others] = listeners(port);
    if (fd !== undefined && others.length === 0) return fd;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  return null;
}

function listeners(port: number): number[] {
  const end = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const inodes = ["/proc/net/tcp", "/proc/net/tcp6"]
    .flatMap((path) => readFileSync(path, "utf8").split("\n"))
    .map((line) => line.trim().split(/\s+/))
    .filter(([, address = "", , state]) => address.endsWith(end) && state === LISTENS)
    .map((fields) => `socket:[${fields[9]}]`);
  return readdirSync("/proc/self/fd").filter((fd) => inodes.includes(targetOf(fd))).map(Number);
}

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return "";
  }
}

async function libc(): Promise<[SetOption, (bytes: Uint8Array<ArrayBuffer>) => bigint]> {
  if (deno !== undefined) {
    const { dlopen, UnsafePointer } = deno;
    const types = { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" };
    const { setsockopt } = open((name) => dlopen(name, { setsockopt: types }));
    return [
      (fd, name, value) => setsockopt(fd, SOL_SOCKET, name, value, value.length),
      (bytes) => UnsafePointer.value(UnsafePointer.of(bytes)),
    ];
  }
  // By a name that no bundler looks up.
  const module: string = bun === undefined ? "" : "bun:ffi";
  const { dlopen, ptr } = await import(module);
  const types = { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" };
  const { setsockopt } = open((name) => dlopen(name, { setsockopt: types }));
  return [
    (fd, name, value) => setsockopt(fd, SOL_SOCKET, name, ptr(value), value.length),
    (bytes) => BigInt(ptr(bytes)),
  ];
}

interface Library {
  readonly symbols: { readonly setsockopt: (...args: unknown[]) => number };
}

function open(load: (name: string) => Library): Library["symbols"] {
  for (const name of LIBC) {
    try {
      return load(name).symbols;
    } catch {
      // The next name may be the one of this system.
    }
  }
  throw new Error("there is no libc to call");
}
