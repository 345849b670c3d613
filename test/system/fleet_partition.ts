/**
 * A nats-server behind a network that can be cut so that packets vanish: in a network namespace of its
 * own, joined by a pair of virtual devices of which one is taken down. Nobody is told of it, neither
 * by an error nor by the end of a connection. Where a namespace cannot be made (no root, no `ip`) a
 * proxy takes its place that holds every byte back.
 */

import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { freePort } from "../kit/free_port.ts";
import { startNats } from "../kit/servers.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { tempDir } from "../kit/temp.ts";
import { startServer } from "../servers/process.ts";

export interface Island {
  readonly url: string;
  /** How it is cut, for the test's output. */
  readonly by: "network namespace" | "proxy";
  /** From here nothing gets through. */
  cut(): void;
  join(): void;
  close(): Promise<void>;
}

export async function startIsland(): Promise<Island> {
  const net = makeNamespace();
  return net === null ? await behindProxy() : await inNamespace(net);
}

interface Namespace {
  readonly name: string;
  /** Of its end of the pair. */
  readonly device: string;
  readonly address: string;
}

const IP = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].find((path) => existsSync(path)) ?? "ip";

function ip(...args: string[]): boolean {
  return spawnSync(IP, args, { stdio: "ignore", timeout: 10_000 }).status === 0;
}

function makeNamespace(): Namespace | null {
  // Two runners at once must not meet.
  const id = process.pid % 65_536;
  const name = `shishi-${id}`;
  const [outer, device] = [`sho${id}`, `shi${id}`];
  const subnet = `10.${200 + (id >> 14)}.${(id >> 6) & 255}`;
  const first = (id & 63) * 4;
  const address = `${subnet}.${first + 2}`;
  const steps = [
    ["netns", "add", name],
    ["link", "add", outer, "type", "veth", "peer", "name", device],
    ["link", "set", device, "netns", name],
    ["addr", "add", `${subnet}.${first + 1}/30`, "dev", outer],
    ["link", "set", outer, "up"],
    ["-n", name, "addr", "add", `${address}/30`, "dev", device],
    ["-n", name, "link", "set", device, "up"],
    ["netns", "exec", name, "true"],
  ];
  if (steps.every((step) => ip(...step))) return { name, device, address };
  ip("link", "del", outer);
  ip("netns", "del", name);
  return null;
}

async function inNamespace({ name, device, address }: Namespace): Promise<Island> {
  const dir = tempDir("island");
  const port = await freePort();
  const file = join(dir, "nats.conf");
  writeFileSync(
    file,
    `listen: "${address}:-1"\nwebsocket { listen: "${address}:${port}", no_tls: true }\n`,
  );
  const url = `ws://${address}:${port}`;
  const args = ["netns", "exec", name, "nats-server", "-c", file];
  const env = { PATH: `${process.env.PATH}:/usr/sbin` };
  const probe = () => reach(address, port);
  // Its end of the pair goes with the namespace, and so does ours.
  const forget = () => void ip("netns", "del", name);
  try {
    const server = await startServer({
      ...{ name: "nats-server", command: IP, args, dir, url, port, env, probe },
    });
    return {
      url,
      by: "network namespace",
      cut: () => void ip("-n", name, "link", "set", device, "down"),
      join: () => void ip("-n", name, "link", "set", device, "up"),
      close: async () => {
        await server.close();
        forget();
      },
    };
  } catch (problem) {
    forget();
    throw problem;
  }
}

async function behindProxy(): Promise<Island> {
  const nats = await startNats();
  const proxy = await startTcpProxy(nats.port);
  return {
    url: `ws://127.0.0.1:${proxy.port}`,
    by: "proxy",
    cut: proxy.hang,
    join: proxy.resume,
    close: async () => {
      await proxy.close();
      await nats.close();
    },
  };
}

function reach(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, host);
    socket.setTimeout(1_000, () => socket.destroy(new Error("no answer")));
    socket.once("connect", () => {
      socket.destroy();
      resolve();
    });
    socket.once("error", reject);
  });
}
