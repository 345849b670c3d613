/**
 * Two network namespaces joined by a cable (veth), each with its loopback. They have no names: they are
 * gone with the processes in them.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { eventually } from "../kit/wait.ts";
import { ok } from "./exec.ts";

export interface Place {
  /** Where the other one finds it. */
  readonly address: string;
  /** A process in it. */
  readonly pid: number;
  /** How to start `command` in it. */
  inside(command: readonly string[]): string[];
}

export interface Cable {
  readonly near: Place;
  readonly far: Place;
  close(): void;
}

const IP = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].find((path) => existsSync(path)) ?? "ip";
const NEAR = "10.83.0.1";
const FAR = "10.83.0.2";

export async function layCable(): Promise<Cable> {
  const [near, far] = [await newNamespace(), await newNamespace()];
  const enter = (holder: ChildProcess, command: readonly string[]) => [
    ...["nsenter", `--net=/proc/${holder.pid}/ns/net`, "--"],
    ...command,
  ];
  const ip = (holder: ChildProcess, ...args: string[]) => ok(enter(holder, [IP, ...args]));
  // Born in one of them: the host's own network never sees it.
  const cable = ["link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns"];
  await ip(near, ...cable, String(far.pid));
  for (const [holder, address] of [[near, NEAR], [far, FAR]] as const) {
    await ip(holder, "addr", "add", `${address}/30`, "dev", "cable");
    await ip(holder, "link", "set", "cable", "up");
    await ip(holder, "link", "set", "lo", "up");
  }
  return {
    near: { address: NEAR, pid: near.pid!, inside: (command) => enter(near, command) },
    far: { address: FAR, pid: far.pid!, inside: (command) => enter(far, command) },
    close() {
      near.kill("SIGKILL");
      far.kill("SIGKILL");
    },
  };
}

/** A process that does nothing but hold a namespace, until its stdin ends. */
async function newNamespace(): Promise<ChildProcess> {
  const holder = spawn("unshare", ["--net", "cat"], { stdio: ["pipe", "ignore", "ignore"] });
  await eventually(async () => {
    const [ours, theirs] = await Promise.all(
      ["self", String(holder.pid)].map((pid) => ok(["readlink", `/proc/${pid}/ns/net`])),
    );
    if (ours === theirs) throw new Error("unshare --net: still in the network of the host");
  }, { withinMs: 10_000 });
  return holder;
}
