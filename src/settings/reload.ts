/**
 * Settings read again while the program runs, and what has changed in them. Flags and environment are
 * those of the process; the TOML file and the files of secrets and certificates may be others by now.
 * What only a restart can take keeps the value that runs, and is told; nothing else than that and the
 * new value is possible. Where anything is wrong nothing changes.
 */

import { nodeUtil } from "../kernel/builtins.ts";
import {
  type LoadOptions,
  loadSettings,
  type Settings,
  settingsOf,
  type Snapshot,
} from "./settings.ts";
import type { SettingSpec } from "./spec.ts";
import { type SettingName, TABLE } from "./table.ts";

/** One setting with another value than the running one. */
export interface Change {
  readonly name: SettingName;
  /** For people, without secrets; alike where only a secret or the content of a file changed. */
  readonly from: string;
  readonly to: string;
}

export type Reloaded =
  | {
    readonly ok: true;
    readonly settings: Settings;
    readonly snapshot: Snapshot;
    /** What a restart would run with. */
    readonly wanted: Settings;
    /** In `settings`. */
    readonly taken: readonly Change[];
    /** Not in `settings`: they need a restart. */
    readonly kept: readonly Change[];
    /** How many files were read. */
    readonly files: number;
    readonly warnings: readonly string[];
  }
  | { readonly ok: false; readonly problems: readonly string[] };

/** @param running what the program runs with. */
export function reloadSettings(options: LoadOptions, running: Snapshot): Reloaded {
  let files = 0;
  const readFile = (path: string) => {
    files++;
    return options.readFile(path);
  };
  const loaded = loadSettings({ ...options, readFile });
  if (!loaded.ok) return loaded;
  const wanted = loaded.snapshot;
  const changes = TABLE.filter(({ name }) => differs(name, running, wanted));
  // With or without TLS is another address: https:// or http://.
  const switchesTls =
    (wanted.values["tls-cert"] === null) !== (running.values["tls-cert"] === null);
  const isKept = ({ name, restart }: SettingSpec) =>
    restart === true || switchesTls && name.startsWith("tls-");
  const kept = changes.filter(isKept);
  const snapshot = keep(kept.map(({ name }) => name), running, wanted);
  const change = ({ name }: { readonly name: SettingName }): Change => ({
    name,
    from: shown(name, running),
    to: shown(name, wanted),
  });
  return {
    ok: true,
    settings: settingsOf(snapshot),
    snapshot,
    wanted: loaded.settings,
    taken: changes.filter((spec) => !isKept(spec)).map(change),
    kept: kept.map(change),
    files,
    warnings: loaded.warnings,
  };
}

/** `flush-interval 1s -> 2s`; a name alone where there is no more to be shown. */
export function describe({ name, from, to }: Change): string {
  return from === to ? name : `${name} ${from} -> ${to}`;
}

function differs(name: SettingName, one: Snapshot, other: Snapshot): boolean {
  return one.texts.get(name) !== other.texts.get(name) ||
    !nodeUtil().isDeepStrictEqual(one.values[name], other.values[name]);
}

function keep(names: readonly SettingName[], running: Snapshot, wanted: Snapshot): Snapshot {
  const values: Record<string, unknown> = { ...wanted.values };
  const shown = new Map(wanted.shown);
  const texts = new Map(wanted.texts);
  for (const name of names) {
    values[name] = running.values[name];
    shown.set(name, running.shown.get(name) ?? "");
    texts.delete(name);
    const text = running.texts.get(name);
    if (text !== undefined) texts.set(name, text);
  }
  return { values: values as Snapshot["values"], shown, texts };
}

/** An address has a form without credentials. */
function shown(name: SettingName, { values, shown }: Snapshot): string {
  const value: unknown = values[name];
  const labels = [value].flat().map((part) => (part as { label?: string } | null)?.label);
  return typeof labels[0] === "string" ? labels.join(",") : shown.get(name) ?? "";
}
