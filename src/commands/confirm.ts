/** Asks whoever sits at the terminal; where nobody does there is nothing to ask with. */

import process from "node:process";
import { createInterface } from "node:readline/promises";

/** @returns null unless both input and errors are a terminal. An abort means no. */
export function confirmOnTerminal(
  signal?: AbortSignal,
): ((question: string) => Promise<boolean>) | null {
  if (process.stdin.isTTY !== true || process.stderr.isTTY !== true) return null;
  return async (question) => {
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    try {
      const answered = terminal.question(question).catch(() => "");
      const ended = new Promise<string>((resolve) => {
        terminal.once("close", () => resolve(""));
        terminal.once("SIGINT", () => resolve(""));
        signal?.addEventListener("abort", () => resolve(""), { once: true });
      });
      return /^y(es)?$/i.test((await Promise.race([answered, ended])).trim());
    } finally {
      terminal.close();
    }
  };
}
