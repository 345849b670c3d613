/**
 * This very program as another process: the same binary, or the same source on the same runtime. It
 * is spoken to over its stdin and stdout; its stderr is ours. What it needs to know, secrets too, goes
 * over the pipe.
 */

import { spawn } from "node:child_process";
import process from "node:process";
import { bun, deno } from "./host.ts";
import { createPeer, type Methods, type Peer } from "./peer.ts";

export interface Child extends Peer {
  readonly pid: number;
  /** SIGKILL. */
  kill(): void;
  /** Resolves with how it ended, for people: `exit code 1`, `SIGKILL`. Never rejects. */
  readonly exited: Promise<string>;
}

/** Where a compiled binary of Bun keeps its entry. */
const COMPILED = /^(?:\/\$bunfs\/|[A-Z]:[\\/]~BUN[\\/])/;

/**
 * What is to be run, by `process.execPath`, in front of the words of a command. Deno knows
 * `reusePort` only by that flag; a binary that it compiles has to be compiled with it.
 */
function ownArguments(): string[] {
  const [, entry = ""] = process.argv;
  if (bun !== undefined) return COMPILED.test(bun.main) ? [] : [entry];
  if (deno?.build.standalone) return [];
  return deno === undefined ? [entry] : ["run", "-A", "-q", "--unstable-net", entry];
}

/** Linux says this of a program in whose place another one lies by now: that one is meant. */
const REPLACED = / \(deleted\)$/;

/** The command that runs this program, in front of the words of a command. */
export function ownCommand(): readonly string[] {
  return [process.execPath.replace(REPLACED, ""), ...ownArguments()];
}

/** @param words a command. @param env of the process; ours unless given. */
export function spawnSelf(
  words: readonly string[],
  methods: Methods,
  env: NodeJS.ProcessEnv = process.env,
): Child {
  const [program = "", ...before] = ownCommand();
  const child = spawn(program, [...before, ...words], {
    stdio: ["pipe", "pipe", "inherit"],
    env,
  });
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  return {
    ...createPeer(child.stdout, child.stdin, methods),
    pid: child.pid ?? 0,
    kill: () => void child.kill("SIGKILL"),
    exited,
  };
}

/** The process that started this one with `spawnSelf`. */
export function parent(methods: Methods): Peer {
  return createPeer(process.stdin, process.stdout, methods);
}
