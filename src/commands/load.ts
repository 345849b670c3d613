/** Settings for a command, or the answer to give where they are unusable. */

import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import {
  type Loaded,
  loadSettings,
  type SettingName,
  type SettingSpec,
} from "../settings/settings.ts";
import { tlsProblem } from "./tls.ts";

type Usable<E extends readonly SettingSpec[]> = Extract<Loaded<E>, { ok: true }>;

/**
 * Reads the settings; says every problem on stderr and answers exit code 2 where there are any.
 * `command` is the one whose `--help` tells more.
 */
export function settingsOrExitCode<const E extends readonly SettingSpec[] = readonly []>(
  argv: readonly string[],
  { command = "", ...limits }: {
    readonly command?: string;
    readonly only?: readonly SettingName[];
    readonly extra?: E;
  } = {},
): Usable<E> | 2 {
  const loaded = loadSettings<E>({
    argv,
    env: process.env,
    readFile: (path) => readFileSync(path, "utf8"),
    list,
    ...limits,
  });
  const tls = loaded.ok ? tlsProblem(loaded.settings) : null;
  if (loaded.ok && tls === null) return loaded;
  for (const problem of loaded.ok ? [tls] : loaded.problems) console.error(`shishi: ${problem}`);
  console.error(`shishi: see ${["shishi", command, "--help"].filter(Boolean).join(" ")}`);
  return 2;
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
