/**
 * The collector of a host as its service manager runs it, where there is no systemd: as the user of the
 * package, with the command of the unit, its state below /var/lib.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { eventually } from "../kit/wait.ts";
import { cleanEnv } from "./exec.ts";
import type { Root } from "./root.ts";

export interface Service {
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
  /** All that it has written to stderr. */
  log(): string;
}

/** The words of `ExecStart` in the unit that is installed there. */
export function commandOf(root: Root): string[] {
  const unit = root.read("usr/lib/systemd/system/shishi.service");
  const [, command = ""] = /^ExecStart=(.+)$/m.exec(unit) ?? [];
  return command.split(" ");
}

/** Resolves when it answers at `url`. */
export async function startService(root: Root, url: string): Promise<Service> {
  const as = ["setpriv", "--reuid=shishi", "--regid=shishi", "--clear-groups", "--"];
  const [program = "", ...args] = root.inside([...as, ...commandOf(root)]);
  const child: ChildProcess = spawn(program, args, {
    env: cleanEnv({ STATE_DIRECTORY: "/var/lib/shishi" }),
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr!.setEncoding("utf8").on("data", (text: string) => log += text);
  const gone = new Promise<number | null>((resolve) => child.once("close", resolve));
  await eventually(async () => {
    if (child.exitCode !== null) throw new Error(log);
    const { status } = await fetch(`${url}/healthz`);
    if (status !== 200) throw new Error(`${status}: ${log}`);
  }, { withinMs: 20_000 });
  return {
    log: () => log,
    stop() {
      child.kill("SIGTERM");
      return gone;
    },
  };
}
