/** What the tests of this room share: `loadSettings` with everything around it made up. */

import assert from "node:assert/strict";
import type { SettingSpec } from "../../src/settings/spec.ts";
import { loadSettings, type SettingName, type Settings } from "../../src/settings/settings.ts";

export interface Around {
  readonly argv?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Path → text; any other path cannot be read. */
  readonly files?: Readonly<Record<string, string>>;
  readonly only?: readonly SettingName[];
}

export function load<const E extends readonly SettingSpec[] = readonly []>(
  around: Around,
  extra?: E,
) {
  const { argv = [], env = {}, files = {}, only } = around;
  return loadSettings<E>({
    argv,
    env,
    hostname: () => "edge-7.example.com",
    readFile(path) {
      const text = files[path];
      if (text === undefined) {
        throw new Error(`ENOENT: no such file or directory, open '${path}'`);
      }
      return text;
    },
    list: (folder) =>
      Object.keys(files).filter((path) => path.startsWith(`${folder}/`))
        .map((path) => path.slice(folder.length + 1)),
    ...(only ? { only } : {}),
    ...(extra ? { extra } : {}),
  });
}

/** The settings; fails the test when there are problems. */
export function settingsOf(around: Around): Settings {
  const loaded = load(around);
  assert.ok(loaded.ok, loaded.ok ? "" : loaded.problems.join("\n"));
  return loaded.settings;
}

/** The problems; fails the test when there are none. */
export function problemsOf(around: Around): readonly string[] {
  const loaded = load(around);
  assert.ok(!loaded.ok, "expected problems, got settings");
  return loaded.problems;
}

/** What reached neither settings nor problems is in here: every line that a person would see. */
export function linesOf(around: Around): readonly string[] {
  const loaded = load(around);
  return loaded.ok ? loaded.warnings : loaded.problems;
}

export const CERT = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
export const KEY = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
export const CREDS = "-----BEGIN NATS USER JWT-----\neyJ\n------END NATS USER JWT------\n";
export const SEED = `SU${"A2".repeat(28)}`;

/** An `Endpoint` without a password. */
export const endpoint = (host: string, user: string, database: string) => ({
  url: `http://${host}`,
  user,
  password: "",
  database,
  label: `http://${host}/${database}`,
});
