/**
 * A port that passes from this process to another one without a gap. Linux lets several sockets listen
 * on one address when each allows it (`SO_REUSEPORT`), and shares the connections out among them; but a
 * listener that closes resets those that it has not accepted yet. So it is first made to get no more of
 * them: a filter on the sockets of that address names who gets a connection, the one that joined second.
 * When the first has closed the second is the only one, the filter names nobody, and that is ignored.
 *
 * The socket is the HTTP server's, which does not give it out: it is found among the open files.
 */

import { readdirSync } from "node:fs";
import { type Libc, openLibc } from "./libc.ts";

export interface SharedPort {
  /** New connections go to the process that listens there too. False: they go on being shared out. */
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
const SECOND = 1;

/** Lets another process listen on `port` beside this one; null where that cannot be had. */
export async function sharePort(port: number): Promise<SharedPort | null> {
  const libc = await openLibc();
  const listener = libc === null ? undefined : socketsOn(libc, port).find(({ listens }) => listens);
  if (libc === null || listener === undefined) return null;
  const { fd } = listener;
  if (libc.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, number(1), 4) < 0) return null;
  return {
    giveWay() {
      const instruction = new Uint8Array(8);
      const view = new DataView(instruction.buffer);
      view.setUint16(0, RETURN, true);
      view.setUint32(4, SECOND, true);
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
