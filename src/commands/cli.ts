/**
 * What a command of the command line is, and what several of them need: their settings, the word that is
 * no flag, a question to the terminal, and the address of the collector on this host.
 */

import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { authorities } from "../runtime/authorities.ts";
import { unshareable } from "../runtime/host.ts";
import { tlsProblem } from "../settings/checks.ts";
import type { HelpPage } from "../settings/help.ts";
import { isBooleanText, type ListenAddress, writeAddress } from "../settings/kinds.ts";
import {
  type Loaded,
  loadSettings,
  type SettingName,
  type Settings,
  type SettingSpec,
} from "../settings/settings.ts";

export interface CliCommand {
  readonly name: string;
  /** One line for the overview. */
  readonly summary: string;
  /** What `--help`, the manual and completions say. */
  readonly page: HelpPage;
  /** @returns the exit code: 0 done, 1 failed, 2 unusable flags or settings. */
  run(argv: readonly string[]): Promise<number>;
}

/** What this process was given, for `loadSettings` and for reading it again later. */
export function outside(argv: readonly string[]) {
  return { argv, env: process.env, readFile: (path: string) => readFileSync(path, "utf8"), list };
}

type Usable<E extends readonly SettingSpec[]> = Extract<Loaded<E>, { ok: true }>;

interface Limits<E extends readonly SettingSpec[]> {
  readonly only?: readonly SettingName[];
  readonly extra?: E;
}

/** Reads the settings from flags, this process's environment and file. */
export function settingsOrProblems<const E extends readonly SettingSpec[] = readonly []>(
  argv: readonly string[],
  limits: Limits<E> = {},
): Loaded<E> {
  const loaded = loadSettings<E>({
    ...outside(argv),
    ...limits,
  });
  const problem = loaded.ok ? shareProblem(loaded.settings) ?? tlsProblem(loaded.settings) : null;
  return problem === null ? loaded : { ok: false, problems: [problem] };
}

function shareProblem({ sharePort }: Settings): string | null {
  const problem = sharePort ? unshareable() : null;
  return problem === null ? null : `share-port: ${problem}`;
}

/** On stderr; `command` is the one whose `--help` tells more. */
export function tellProblems(problems: readonly string[], command: string): void {
  for (const problem of problems) console.error(`shishi: ${problem}`);
  console.error(`shishi: see ${["shishi", command, "--help"].filter(Boolean).join(" ")}`);
}

/** As `settingsOrProblems`; says every problem on stderr and answers exit code 2 where there are any. */
export function settingsOrExitCode<const E extends readonly SettingSpec[] = readonly []>(
  argv: readonly string[],
  { command = "", ...limits }: Limits<E> & { readonly command?: string } = {},
): Usable<E> | 2 {
  const loaded = settingsOrProblems<E>(argv, limits);
  if (loaded.ok) return loaded;
  tellProblems(loaded.problems, command);
  return 2;
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
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

/**
 * Where the collector on this host takes events; one that listens on every address, on loopback. `unix:/path`
 * where it has sockets in the file system alone.
 */
export function urlHere({ listen, tls }: Settings): string {
  return urlOf(listen, tls);
}

/** PEM certificates that a collector may show: its own here, and those of authorities on this host. */
export function trustedBy({ authorities: own, tls }: Settings): readonly string[] {
  return [...tls === null ? [] : [tls.cert], ...authorities(own)];
}

/** Where it is asked about itself: the admin port, where it has one. */
export function adminUrlHere({ listen, adminListen, tls }: Settings): string {
  return urlOf(adminListen.length > 0 ? adminListen : listen, tls);
}

function urlOf(listen: Settings["listen"], tls: Settings["tls"]): string {
  // A certificate that clients have to show is none of a command's; through a socket in the file system
  // none is asked for.
  const sign = tls?.clients?.required ? -1 : 1;
  const [first] = listen.toSorted((a, b) => sign * (Number("path" in a) - Number("path" in b)));
  if ("path" in first!) return writeAddress(first);
  return `${tls === null ? "http" : "https"}://${writeAddress(reachable(first!))}`;
}

/** An address that stands for several, as one that a client can connect to. */
export function reachable({ hostname, port }: ListenAddress): ListenAddress {
  const everywhere: Record<string, string> = {
    "": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",
    "::": "::1",
    localhost: "127.0.0.1",
  };
  return { hostname: everywhere[hostname] ?? hostname, port };
}

/** A URL of `urlHere` with this path, as `node:http` takes it. */
export function targetOf(
  url: string,
  path: string,
): { readonly target: URL; readonly socketPath?: string } {
  return url.startsWith("unix:")
    ? { target: new URL(path, "http://localhost"), socketPath: url.slice("unix:".length) }
    : { target: new URL(path, url) };
}
