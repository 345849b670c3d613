/**
 * A port that passes from one listener to another without a gap: to one of another process (an upgrade),
 * or of this one (a renewed certificate). Linux lets several sockets listen on one address when each
 * allows it (`SO_REUSEPORT`), and shares the connections out among them; but a listener that closes
 * resets those that it has not accepted yet. So it is first made to get no more of them: a filter on the
 * sockets of that address names the one that gets a connection (`SO_ATTACH_REUSEPORT_CBPF`, see socket(7)).
 *
 * Sockets are numbered in the order in which they joined, from 0, and when one goes the last takes its
 * number. So where one older socket is there and one newer joins, number 1 is the newer one until the older
 * one has gone; then it is none, and that is ignored. An address has one filter, the last one; it stays
 * with the address, across processes. So there must be one older socket, and none else may be about to
 * join: where several collectors stay on one port (share-port) none of this is done.
 *
 * The socket is the HTTP server's, which does not give it out: it is found among the open files.
 */

import { readdirSync } from "node:fs";
import { parseAddress } from "../kernel/address.ts";
import { sleep, systemClock } from "../kernel/time.ts";
import { type Libc, openLibc } from "./libc.ts";

export interface SharedPort {
  /**
   * New connections go to the socket that joins after the one that is there, or has joined. False: they go
   * on being shared out.
   */
  giveWay(): boolean;
  /** Connections to this process that are open. */
  connections(): number;
}

const AF_INET = 2;
const AF_INET6 = 10;
const SOL_SOCKET = 1;
const SO_REUSEPORT = 15;
const SO_ACCEPTCONN = 30;
const SO_ATTACH_REUSEPORT_CBPF = 51;
/** `BPF_RET | BPF_K`: the answer is the number beside it. */
const RETURN = 0x06;
/** The number of the second socket on an address. */
const NEWER = 1;

/** A listener that was closed is gone soon. */
const GONE_WITHIN_MS = 2_000;
const LOOK_MS = 10;

/**
 * Lets another socket listen on `port` beside the one of this process, as soon as that is the only one;
 * null where that cannot be had.
 * @param hostname the address, where this process may listen on the port of another one as well.
 */
export async function sharedPort(port: number, hostname: string): Promise<SharedPort | null> {
  const libc = await openLibc();
  const fd = libc === null ? null : await onlyListener(libc, port, hostname);
  if (libc === null || fd === null) return null;
  if (libc.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, number(1), 4) < 0) return null;
  return {
    giveWay() {
      const instruction = new Uint8Array(8);
      const view = new DataView(instruction.buffer);
      view.setUint16(0, RETURN, true);
      view.setUint32(4, NEWER, true);
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

/** Null where there is none, or more than one for too long. */
async function onlyListener(
  libc: Libc,
  port: number,
  hostname: string,
): Promise<number | null> {
  // A name is not looked up: then any address will do.
  const wanted = parseAddress(hostname)?.join();
  for (let left = GONE_WITHIN_MS; left > 0; left -= LOOK_MS) {
    const found = socketsOn(libc, port).filter(({ listens, address }) =>
      listens && (wanted === undefined || address === wanted)
    );
    const [listener] = found;
    if (listener === undefined) return null;
    if (found.length === 1) return listener.fd;
    await sleep(systemClock, LOOK_MS);
  }
  return null;
}

/** `address`: its 16 bytes as an IPv6 one. */
function socketsOn(
  libc: Libc,
  port: number,
): { fd: number; listens: boolean; address: string }[] {
  return readdirSync("/proc/self/fd").flatMap((name) => {
    const fd = Number(name);
    const address = new Uint8Array(128);
    if (libc.getsockname(fd, address, number(address.length)) < 0) return [];
    const view = new DataView(address.buffer);
    const family = view.getUint16(0, true);
    if (family !== AF_INET && family !== AF_INET6 || view.getUint16(2) !== port) return [];
    const listens = number(0);
    libc.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, listens, number(listens.length));
    const bytes = family === AF_INET
      ? parseAddress([...address.subarray(4, 8)].join("."))
      : [...address.subarray(8, 24)];
    return [{ fd, listens: listens[0] === 1, address: String(bytes) }];
  });
}

/** A C `int`. */
function number(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return bytes;
}
