/**
 * A port that passes from one listener to another without a gap: to one of another process (an upgrade),
 * or of this one (a renewed certificate). Linux lets several sockets listen on one address when each
 * allows it (`SO_REUSEPORT`), and shares the connections out among them; but a listener that closes
 * resets those that it has not accepted yet. So it is first made to get no more of them: a filter on the
 * sockets of that address names who gets a connection (`SO_ATTACH_REUSEPORT_CBPF`, see socket(7)).
 *
 * Sockets are numbered in the order in which they joined, and when one goes the last takes its number. So
 * where N older ones are there and N newer ones join, number N is a newer one until the last older one has
 * gone, in whatever order they go; then it is nobody, and that is ignored: they share as ever. It holds
 * for more newer ones too, but then number N must be forgotten in the end (`EVERYBODY`); of fewer, one
 * could be an older one. An address has one filter, the last one; it stays with the address, across
 * processes. So it must be known how many older sockets there are, and that nobody else is about to join.
 *
 * The socket is the HTTP server's, which does not give it out: it is found among the open files.
 */

import { readdirSync } from "node:fs";
import { type Libc, openLibc } from "./libc.ts";

export interface SharedPort {
  /**
   * New connections go to the one that joins after the `older` that are there, or has joined; it must be
   * followed by as many as those, itself included. False: they go on being shared out.
   */
  giveWay(older: number): boolean;
  /** Connections to this process that are open. */
  connections(): number;
}

/** To give way to: new connections are shared out among all. */
export const EVERYBODY = 0xffffffff;

const AF_INET = 2;
const AF_INET6 = 10;
const SOL_SOCKET = 1;
const SO_REUSEPORT = 15;
const SO_ACCEPTCONN = 30;
const SO_ATTACH_REUSEPORT_CBPF = 51;
/** `BPF_RET | BPF_K`: the answer is the number beside it. */
const RETURN = 0x06;

/** A listener that was closed is gone soon. */
const GONE_WITHIN_MS = 2_000;
const LOOK_MS = 10;

/**
 * Lets others listen on `port` beside those of this process, as soon as these are `listeners`; null where
 * that cannot be had.
 */
export async function sharePort(port: number, listeners = 1): Promise<SharedPort | null> {
  const libc = await openLibc();
  const fd = libc === null ? null : await someListener(libc, port, listeners);
  if (libc === null || fd === null) return null;
  if (libc.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, number(1), 4) < 0) return null;
  return {
    giveWay(older) {
      const instruction = new Uint8Array(8);
      const view = new DataView(instruction.buffer);
      view.setUint16(0, RETURN, true);
      view.setUint32(4, older, true);
      const program = new Uint8Array(16);
      const header = new DataView(program.buffer);
      header.setUint16(0, 1, true);
      header.setBigUint64(8, libc.address(instruction), true);
      const bytes = program.length;
      return libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program, bytes) === 0;
    },
    connections: () => socketsOn(libc, port).filter(({ listens }) => !listens).length,
  };
}

/** Null where there are less, or more for too long. */
async function someListener(libc: Libc, port: number, count: number): Promise<number | null> {
  for (let left = GONE_WITHIN_MS; left > 0; left -= LOOK_MS) {
    const found = socketsOn(libc, port).filter(({ listens }) => listens);
    const [listener] = found;
    if (listener === undefined || found.length < count) return null;
    if (found.length === count) return listener.fd;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  return null;
}

function socketsOn(libc: Libc, port: number): { fd: number; listens: boolean }[] {
  return readdirSync("/proc/self/fd").flatMap((name) => {
    const fd = Number(name);
    const address = new Uint8Array(128);
    if (libc.getsockname(fd, address, number(address.length)) < 0) return [];
    const view = new DataView(address.buffer);
    const family = view.getUint16(0, true);
    if (family !== AF_INET && family !== AF_INET6 || view.getUint16(2) !== port) return [];
    const listens = number(0);
    libc.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, listens, number(listens.length));
    return [{ fd, listens: listens[0] === 1 }];
  });
}

/** A C `int`. */
function number(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return bytes;
}
