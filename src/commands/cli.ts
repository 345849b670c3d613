/**
 * What a command of the command line is, and what several of them need besides their settings: the word
 * that is no flag, a question to the terminal, and the address of the collector on this host.
 */

import process from "node:process";
import type { HelpPage } from "../settings/help.ts";
import { isBooleanText, writeAddress } from "../settings/kinds.ts";
import type { Settings } from "../settings/settings.ts";
import type { SettingSpec } from "../settings/spec.ts";

export interface CliCommand {
  readonly name: string;
  /** One line for the overview. */
  readonly summary: string;
  /** What `--help`, the manual and completions say. */
  readonly page: HelpPage;
  /** @returns the exit code: 0 done, 1 failed, 2 unusable flags or settings. */
  run(argv: readonly string[]): Promise<number>;
}

/**
 * Takes the first word that is neither a flag nor a flag's value out of a command line, such as the
 * table in `shishi dead show t --json`; what else is wrong with the line is the flags' parser to say.
 * @param specs flags of the command; any other flag is taken to have a value.
 */
export function operandOf(
  argv: readonly string[],
  specs: readonly SettingSpec[],
): { readonly operand: string | null; readonly rest: readonly string[] } {
  const switches = new Set(
    specs.filter(({ kind }) => kind.file === "boolean").flatMap((
      { name },
    ) => [`--${name}`, `--no-${name}`]),
  );
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at]!;
    if (!word.startsWith("-") || word === "-") {
      return { operand: word, rest: argv.toSpliced(at, 1) };
    }
    if (word.includes("=")) continue;
    const next = argv[at + 1] ?? "";
    if (!switches.has(word) || isBooleanText(next)) at++;
  }
  return { operand: null, rest: argv };
}

/**
 * What asks the person at the terminal and takes `y` or `yes` for a yes; an abort means no.
 * @returns null unless both input and errors are a terminal: then there is nothing to ask with.
 */
export function confirmOnTerminal(
  signal?: AbortSignal,
): ((question: string) => Promise<boolean>) | null {
  if (process.stdin.isTTY !== true || process.stderr.isTTY !== true) return null;
  return async (question) => {
    const { createInterface } = await import("node:readline/promises");
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    try {
      const answered = terminal.question(question).catch(() => "");
      const ended = new Promise<string>((resolve) => {
        terminal.once("close", () => resolve(""));
        terminal.once("SIGINT", () => resolve(""));
        signal?.addEventListener("abort", () => resolve(""), { once: true });
        if (signal?.aborted) resolve("");
      });
      return /^y(es)?$/i.test((await Promise.race([answered, ended])).trim());
    } finally {
      terminal.close();
    }
  };
}

/** Where the collector on this host is spoken to; one that listens on every address, on loopback. */
export function urlHere({ listen, tls }: Settings): string {
  const everywhere: Record<string, string> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
  const hostname = everywhere[listen.hostname] ?? listen.hostname;
  return `${tls === null ? "http" : "https"}://${writeAddress({ ...listen, hostname })}`;
}
