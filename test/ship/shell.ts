/** A shell that somebody sits at: one command after the other, each with what it prints. */

import { spawn } from "node:child_process";
import { eventually } from "../kit/wait.ts";
import { cleanEnv } from "./exec.ts";

export interface Typed {
  readonly code: number;
  readonly stdout: string;
}

export interface Shell {
  /** Types a line and waits for its end; throws what it said on stderr when that takes too long. */
  type(line: string): Promise<Typed>;
  /** All that went to stderr, also by what runs in the background. */
  stderr(): string;
  close(): void;
}

const DONE = "--- done:";
const WITHIN_MS = 60_000;

/** @param command what starts `sh` there. */
export function openShell(command: readonly string[]): Shell {
  const [program = "", ...args] = command;
  const child = spawn(program, args, { env: cleanEnv({ HOME: "/root" }) });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  return {
    stderr: () => stderr,
    close: () => void child.kill("SIGKILL"),
    async type(line) {
      const from = stdout.length;
      child.stdin.write(`${line}\necho "${DONE} $?"\n`);
      return await eventually(() => {
        const typed = stdout.slice(from);
        const end = typed.lastIndexOf(DONE);
        if (!typed.endsWith("\n") || end < 0) throw new Error(`${line}: no end\n${stderr}`);
        return { stdout: typed.slice(0, end), code: Number(typed.slice(end + DONE.length)) };
      }, { withinMs: WITHIN_MS });
    },
  };
}
