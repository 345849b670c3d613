/** Settings for a command, or the answer to give where they are unusable. */

import { readFileSync } from "node:fs";
import process from "node:process";
import {
  type Loaded,
  loadSettings,
  type SettingName,
  type SettingSpec,
} from "../settings/settings.ts";

type Usable<E extends readonly SettingSpec[]> = Extract<Loaded<E>, { ok: true }>;

/** Reads the settings; says every problem on stderr and answers exit code 2 where there are any. */
export function settingsOrExitCode<const E extends readonly SettingSpec[] = readonly []>(
  argv: readonly string[],
  limits: { readonly only?: readonly SettingName[]; readonly extra?: E } = {},
): Usable<E> | 2 {
  const loaded = loadSettings<E>({
    argv,
    env: process.env,
    readFile: (path) => readFileSync(path, "utf8"),
    ...limits,
  });
  if (loaded.ok) return loaded;
  for (const problem of loaded.problems) console.error(`shishi: ${problem}`);
  console.error("shishi: see shishi --help");
  return 2;
}
