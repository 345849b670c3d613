/** Settings for a command, or the answer to give where they are unusable. */

import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { unshareable } from "../runtime/host.ts";
import {
  type Loaded,
  loadSettings,
  type SettingName,
  type Settings,
  type SettingSpec,
} from "../settings/settings.ts";
import { tlsProblem } from "../settings/checks.ts";

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
