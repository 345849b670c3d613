/** A server whose processes are stopped where they stand, and killed, together with those that it has started. */
import { readFileSync } from "node:fs";
import process from "node:process";
import type { Server } from "./process.ts";

export interface Family {
  /** SIGSTOP: connections stay, nothing is answered. */
  freeze(): void;
  thaw(): void;
}

/** As the server, with `kill` for its children too: they would keep it from starting again. */
export function withFamily(server: Server): Server & Family {
  const signal = (pids: readonly number[], name: "SIGSTOP" | "SIGCONT" | "SIGKILL") => {
    for (const pid of pids) {
      try {
        process.kill(pid, name);
      } catch {
        // It has ended meanwhile.
      }
    }
  };
  const all = () => server.pid === 0 ? [] : [server.pid, ...childrenOf(server.pid)];
  const kill = async () => {
    const children = server.pid === 0 ? [] : childrenOf(server.pid);
    await server.kill();
    signal(children, "SIGKILL");
  };
  const own = {
    freeze: () => signal(all(), "SIGSTOP"),
    thaw: () => signal(all(), "SIGCONT"),
    kill,
    close: async () => {
      await kill();
      await server.close();
    },
  };
  return Object.defineProperties(own as unknown as Server & Family, {
    ...Object.getOwnPropertyDescriptors(server),
    ...Object.getOwnPropertyDescriptors(own),
  });
}

function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    return text.trim().split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
