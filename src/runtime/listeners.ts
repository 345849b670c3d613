/**
 * Everywhere a collector listens, as one: several addresses, sockets in the file system, and the two
 * addresses that stand for more than they say. `:8080` is every IPv6 and IPv4 address, by one socket that
 * takes both where the system has IPv6; `localhost` is both loopbacks, since clients try either first.
 *
 * A socket in the file system is made under another name and put in its place when it listens: so no
 * client meets one that does not, and a collector that follows another one takes the name over without a
 * gap. It speaks plain HTTP, whatever the others speak, and is open to the owner and the group of its file.
 */

import { chmodSync, lstatSync, renameSync, unlinkSync } from "node:fs";
import process from "node:process";
import { nodeNet } from "../kernel/builtins.ts";
import { serveCertified } from "./client_certificates.ts";
import { type Listening, serve, type ServeOptions, type Tls } from "./server.ts";

/** Port 0 lets the system choose; hostname `""` is every address. */
export type Listen =
  | { readonly hostname: string; readonly port: number }
  | { readonly path: string };

export interface ListenersOptions extends Omit<ServeOptions, "hostname" | "port" | "path"> {
  /** At least one. */
  readonly listen: readonly Listen[];
  /** A client's certificate is none that is taken. */
  readonly onRefused?: (address: string | null, reason: string) => void;
}

/** All of them at once: a `renew` renews each, a `stop` ends each. */
export interface Listeners extends Listening {
  /** Those with a port, as they are really listened on. */
  readonly addresses: readonly { readonly hostname: string; readonly port: number }[];
}

interface Opened {
  readonly server: Listening;
  readonly at: { readonly hostname: string; readonly port: number } | null;
}

/** Rejects with a sentence that names the address that cannot be listened on; then none is. */
export async function listenOnAll(options: ListenersOptions): Promise<Listeners> {
  const opened: Opened[] = [];
  try {
    for (const listen of options.listen) {
      if ("path" in listen) opened.push(await openPath(options, listen.path));
      else if (listen.hostname === "") opened.push(await openEverywhere(options, listen.port));
      else if (listen.hostname === "localhost") {
        opened.push(...await openLoopbacks(options, listen.port));
      } else opened.push(await openAt(options, listen.hostname, listen.port));
    }
  } catch (error) {
    for (const { server } of opened) void server.kill();
    throw error;
  }
  const addresses = opened.flatMap(({ at }) => at === null ? [] : [at]);
  const withPort = opened.flatMap(({ server, at }) => at === null ? [] : [server]);
  return all(opened.map(({ server }) => server), withPort, addresses);
}

/** Several that listen elsewhere, as one; the first one's port stands for it. */
export function together(...listeners: readonly Listeners[]): Listeners {
  return all(listeners, listeners, listeners.flatMap(({ addresses }) => addresses));
}

function all(
  servers: readonly Listening[],
  withTls: readonly Listening[],
  addresses: Listeners["addresses"],
): Listeners {
  return {
    addresses,
    port: addresses[0]?.port ?? 0,
    lastAnswers: (last) => servers.forEach((server) => server.lastAnswers(last)),
    // One after the other: each that cannot be renewed is left as it was.
    async renew(tls: Tls) {
      for (const server of withTls) await server.renew(tls);
    },
    async alone() {
      for (const server of servers) await server.alone();
    },
    async stop() {
      await Promise.all(servers.map((server) => server.stop()));
    },
    async kill() {
      await Promise.all(servers.map((server) => server.kill()));
    },
  };
}

async function openAt(options: ListenersOptions, hostname: string, port: number): Promise<Opened> {
  const { tls } = options;
  const server = tls?.clients
    ? await serveCertified({ ...options, hostname, port, tls })
    : serve({ ...options, hostname, port });
  return { server, at: { hostname, port: server.port } };
}

/** On a host without IPv6: every IPv4 address. */
async function openEverywhere(options: ListenersOptions, port: number): Promise<Opened> {
  try {
    return await openAt(options, "::", port);
  } catch (error) {
    if (!/no such address/.test(String(error))) throw error;
    return await openAt(options, "0.0.0.0", port);
  }
}

/** One of the two is enough where the host has no other. */
async function openLoopbacks(options: ListenersOptions, port: number): Promise<Opened[]> {
  const four = await openAt(options, "127.0.0.1", port);
  try {
    return [four, await openAt(options, "::1", four.server.port)];
  } catch (error) {
    // A port that the system chose may be another one's there.
    if (/no such address/.test(String(error)) || port === 0) return [four];
    void four.server.kill();
    throw error;
  }
}

async function openPath(options: ListenersOptions, path: string): Promise<Opened> {
  const { tls: _, ...plain } = options;
  if (!options.reusePort && await answers(path)) {
    throw new Error(`cannot listen on unix:${path}: another program listens there already`);
  }
  const made = `${path}.${process.pid}`;
  remove(made);
  const server = serve({ ...plain, hostname: "", port: 0, path: made });
  try {
    chmodSync(made, 0o660);
    renameSync(made, path);
  } catch (error) {
    void server.kill();
    throw new Error(`cannot listen on unix:${path}: ${(error as Error).message}`);
  }
  const { ino, dev } = lstatSync(path);
  /** Unless a collector that follows has put its own there. */
  const leave = () => {
    try {
      const now = lstatSync(path);
      if (now.ino === ino && now.dev === dev) unlinkSync(path);
    } catch {
      // It is gone.
    }
  };
  const ending = (end: () => Promise<void>) => () => {
    leave();
    return end();
  };
  return { server: { ...server, stop: ending(server.stop), kill: ending(server.kill) }, at: null };
}

/** Whether a program listens behind the name; what was left of one that died does not count. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = nodeNet().connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It was not there.
  }
}
