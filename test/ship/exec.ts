/** Programs of the host, run to their end while everything else goes on. */

import { spawn } from "node:child_process";
import process from "node:process";
import { patient } from "../kit/wait.ts";

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface How {
  readonly cwd?: string;
  /** Added to PATH and a few more; nothing else of the caller's environment is passed on. */
  readonly env?: Readonly<Record<string, string>>;
  readonly withinMs?: number;
}

const KEPT = ["HOME", "TMPDIR", "http_proxy", "https_proxy", "no_proxy"];
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** A plain environment; what a user's own has in it decides nothing. */
export function cleanEnv(more: Readonly<Record<string, string>> = {}): Record<string, string> {
  const kept = KEPT.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value]];
  });
  return { PATH, LC_ALL: "C.UTF-8", ...Object.fromEntries(kept), ...more };
}

/** Whatever the exit code is; -1 where it was killed or is not there. */
export function run(command: readonly string[], how: How = {}): Promise<Ended> {
  const { cwd, env, withinMs = 100_000 } = how;
  const [program = "", ...args] = command;
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      ...(cwd === undefined ? {} : { cwd }),
      env: cleanEnv(env),
      stdio: ["ignore", "pipe", "pipe"],
    });
    const limit = setTimeout(() => child.kill("SIGKILL"), patient(withinMs));
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
    child.once("error", (error) => stderr += error.message);
    child.once("close", (code) => {
      clearTimeout(limit);
      resolve({ code: code ?? -1, stdout, stderr });
    });
  });
}

/** What it wrote to stdout; throws all that it wrote when its exit code is not 0. */
export async function ok(command: readonly string[], how: How = {}): Promise<string> {
  const { code, stdout, stderr } = await run(command, how);
  if (code !== 0) throw new Error(`${command.join(" ")}: exit code ${code}\n${stdout}${stderr}`);
  return stdout;
}
