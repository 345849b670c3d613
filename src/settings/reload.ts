/**
 * Settings read again while the program runs. Flags and environment are those of the process; the TOML file
 * and the files of secrets and certificates may have changed. What only a restart can take keeps the
 * value that runs, and is reported. Where anything is
 * wrong nothing changes.
 *
 * `reloadSettings` finds what has changed. `Reloader` decides when: at SIGHUP everything is read again; once
 * a minute the certificate is looked at by itself, since a renewal sends no signal. Each problem has a line;
 * one line says what changed, one each what waits for a restart; no secret is in any of them.
 */

import type { Clock, Log } from "../contracts.ts";
import { nodeCrypto, nodeUtil } from "../kernel/builtins.ts";
import { messageOf } from "../kernel/errors.ts";
import { repeat } from "../kernel/time.ts";
import { tlsProblem } from "./checks.ts";
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
  // Clients go on being asked for certificates, or not: their authorities go with that.
  const switchesClients =
    (wanted.values["tls-client-auth"] === "off") !== (running.values["tls-client-auth"] === "off");
  const isKept = ({ name, restart }: SettingSpec) =>
    restart === true || switchesTls && name.startsWith("tls-") ||
    switchesClients && name === "tls-client-ca";
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

/** An address has a form without credentials, and a source a name. */
function shown(name: SettingName, { values, shown }: Snapshot): string {
  const value: unknown = values[name];
  const labels = [value].flat().map((part) => {
    const { name, label } = (part ?? {}) as { readonly name?: string; readonly label?: string };
    return label === undefined ? undefined : name ?? label;
  });
  return typeof labels[0] === "string" ? labels.join(",") : shown.get(name) ?? "";
}

// ── When they are read again.

/** What is run with. */
export interface InForce {
  readonly settings: Settings;
  readonly snapshot: Snapshot;
}

export interface ReloaderOptions {
  readonly first: InForce;
  readonly read: (running: Snapshot) => Reloaded;
  readonly readFile: (path: string) => Promise<string>;
  /** Rejects with a reason where the settings cannot be taken; then nothing has changed. */
  readonly adopt: (settings: Settings) => Promise<void>;
  /** After everything about a reload is logged: the log itself may be another from here on. */
  readonly onLogged?: (settings: Settings) => void;
  /** A reload begins; the process is ready again. */
  readonly onReload?: (what: "begins" | "ended") => void;
  readonly stopping: () => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

const LOOK_MS = 60_000;

/** One reload at a time; one that is asked for meanwhile follows, since files may have changed after they were read. */
export class Reloader {
  readonly #options: ReloaderOptions;
  readonly #endLooks: () => void;
  #inForce: InForce;
  #busy: Promise<void> = Promise.resolve();
  #asked: Promise<void> | null = null;
  /** The last pair that could not be taken: it is logged once. */
  #refused = "";

  constructor(options: ReloaderOptions) {
    this.#options = options;
    this.#inForce = options.first;
    this.#endLooks = repeat(options.clock, LOOK_MS, () => this.between(() => this.#look()));
  }

  /** Resolves when a reload that began after the call has ended. Never rejects. */
  reload(): Promise<void> {
    return this.#asked ??= this.between(() => this.#reload());
  }

  /** Other work that no reload may fall into: those under way end first, those asked for come after. */
  between(work: () => Promise<void>): Promise<void> {
    return this.#busy = this.#busy.then(work).catch((error) => {
      this.#options.log.error("reload: not taken; nothing has changed", {
        problem: messageOf(error),
      });
    });
  }

  /** Ends the looks at the certificate. */
  close(): void {
    this.#endLooks();
  }

  async #reload(): Promise<void> {
    const { stopping, onReload, log } = this.#options;
    this.#asked = null;
    if (stopping()) return log.info("reload: the collector is stopping; nothing is read");
    onReload?.("begins");
    try {
      await this.#readAgain();
    } finally {
      onReload?.("ended");
    }
  }

  async #readAgain(): Promise<void> {
    const { read, adopt, onLogged, log } = this.#options;
    const found = read(this.#inForce.snapshot);
    const problems = found.ok ? [tlsProblem(found.wanted)] : found.problems;
    for (const problem of problems) {
      if (problem !== null) {
        log.error("reload: unusable settings; nothing has changed", { problem });
      }
    }
    if (!found.ok || problems[0] !== null) return;
    const { taken, kept, warnings, files, settings } = found;
    if (taken.length > 0) {
      await adopt(settings);
      for (const warning of warnings) log.warn(warning);
    }
    this.#inForce = found;
    for (const { name, from, to } of kept) {
      log.warn(`reload: ${name} is taken at the next start only`, { running: from, wanted: to });
    }
    if (taken.length > 0) log.info("reloaded", { changed: taken.map(describe).join(", ") });
    else if (kept.length > 0) log.info("reload: nothing else has changed");
    else if (files > 0) log.info("reload: nothing has changed");
    else log.info("reload: no settings come from a file; there is nothing to read again");
    onLogged?.(settings);
  }

  async #look(): Promise<void> {
    const { settings, snapshot } = this.#inForce;
    const { stopping, readFile, adopt, log } = this.#options;
    const { tls } = settings;
    if (tls === null || stopping()) return;
    const { clients } = tls;
    let cert: string;
    let key: string;
    let ca: string | null;
    try {
      [cert, key, ca] = await Promise.all([
        readFile(tls.certFile),
        readFile(tls.keyFile),
        clients === null ? null : readFile(clients.caFile),
      ]);
    } catch (error) {
      return this.#refuse(messageOf(error), messageOf(error));
    }
    const sameAuthorities = clients === null || ca === clients.ca;
    if (cert === tls.cert && key === tls.key && sameAuthorities) {
      this.#refused = "";
      return;
    }
    const next = {
      ...settings,
      tls: { ...tls, cert, key, clients: clients && { ...clients, ca: ca ?? "" } },
    };
    const problem = tlsProblem(next);
    if (problem !== null) return this.#refuse(problem, cert + key + ca);
    await adopt(next);
    const texts = new Map([...snapshot.texts, ["tls-cert", cert], ["tls-key", key]]);
    if (ca !== null) texts.set("tls-client-ca", ca);
    this.#inForce = { settings: next, snapshot: { ...snapshot, texts } };
    this.#refused = "";
    if (!sameAuthorities) {
      log.info("the renewed authorities of clients are taken", { file: clients.caFile });
    }
    if (cert === tls.cert) return;
    const { validTo } = new (nodeCrypto().X509Certificate)(cert);
    log.info("the renewed certificate is served", { file: tls.certFile, valid_to: validTo });
  }

  #refuse(problem: string, what: string): void {
    if (what === this.#refused) return;
    this.#refused = what;
    this.#options.log.warn("the certificate on disk is unusable; the old one is served", {
      problem,
    });
  }
}
