/**
 * Changing settings without a restart. At SIGHUP everything that can have changed is read again: the
 * TOML file, the files of secrets, the certificate. Once a minute the certificate is looked at by
 * itself, since who renews it does not always tell.
 *
 * Promises: what is wrong changes nothing, and each problem has a line; one line says what changed,
 * one each what waits for a restart; no secret is in any of them. One reload at a time; one that is
 * asked for meanwhile follows, since files may have changed after they were read.
 */

import { X509Certificate } from "node:crypto";
import type { Clock, Log } from "../contracts.ts";
import { describe, type Reloaded } from "../settings/reload.ts";
import type { Settings, Snapshot } from "../settings/settings.ts";
import { messageOf } from "../kernel/errors.ts";
import { tlsProblem } from "../settings/checks.ts";

/** What is run with. */
export interface Running {
  readonly settings: Settings;
  readonly snapshot: Snapshot;
}

export interface ReloaderDeps {
  readonly first: Running;
  readonly read: (running: Snapshot) => Reloaded;
  readonly readFile: (path: string) => Promise<string>;
  /** Rejects with a reason where the settings cannot be taken; then nothing has changed. */
  readonly adopt: (settings: Settings) => Promise<void>;
  /** After all is told: the log itself may be another from here on. */
  readonly relog?: (settings: Settings) => void;
  readonly stopping: () => boolean;
  readonly clock: Clock;
  readonly log: Log;
  /** For whoever started this process: a reload begins, the process is ready again. */
  readonly tell?: (what: "reloading" | "ready") => void;
}

export interface Reloader {
  /** Resolves when a reload that began after the call has ended. Never rejects. */
  reload(): Promise<void>;
  /** Other work that no reload may fall into: those under way end first, those asked for come after. */
  between(work: () => Promise<void>): Promise<void>;
  /** Ends the looks at the certificate. */
  close(): void;
}

const LOOK_MS = 60_000;

export function createReloader(deps: ReloaderDeps): Reloader {
  const { adopt, clock, log } = deps;
  let running = deps.first;
  let busy: Promise<void> = Promise.resolve();
  let asked: Promise<void> | null = null;
  /** The last pair that could not be taken: it is told once. */
  let refused = "";
  let cancelLook = () => {};

  function afterOthers(work: () => void | Promise<void>): Promise<void> {
    return busy = busy.then(work).catch((error) => {
      log.error("reload: not taken; nothing has changed", { problem: messageOf(error) });
    });
  }

  async function reload(): Promise<void> {
    asked = null;
    if (deps.stopping()) return log.info("reload: the collector is stopping; nothing is read");
    deps.tell?.("reloading");
    try {
      await readAgain();
    } finally {
      deps.tell?.("ready");
    }
  }

  async function readAgain(): Promise<void> {
    const read = deps.read(running.snapshot);
    const problems = read.ok ? [tlsProblem(read.wanted)] : read.problems;
    for (const problem of problems) {
      if (problem !== null) {
        log.error("reload: unusable settings; nothing has changed", { problem });
      }
    }
    if (!read.ok || problems[0] !== null) return;
    const { taken, kept, warnings, files, settings } = read;
    if (taken.length > 0) {
      await adopt(settings);
      for (const warning of warnings) log.warn(warning);
    }
    running = read;
    for (const { name, from, to } of kept) {
      log.warn(`reload: ${name} is taken at the next start only`, { running: from, wanted: to });
    }
    if (taken.length > 0) log.info("reloaded", { changed: taken.map(describe).join(", ") });
    else if (kept.length > 0) log.info("reload: nothing else has changed");
    else if (files > 0) log.info("reload: nothing has changed");
    else log.info("reload: no settings come from a file; there is nothing to read again");
    deps.relog?.(settings);
  }

  async function look(): Promise<void> {
    const { settings, snapshot } = running;
    const { tls } = settings;
    if (tls === null || deps.stopping()) return;
    let cert: string;
    let key: string;
    try {
      [cert, key] = await Promise.all([deps.readFile(tls.certFile), deps.readFile(tls.keyFile)]);
    } catch (error) {
      return refuse(messageOf(error), messageOf(error));
    }
    if (cert === tls.cert && key === tls.key) {
      refused = "";
      return;
    }
    const next = { ...settings, tls: { ...tls, cert, key } };
    const problem = tlsProblem(next);
    if (problem !== null) return refuse(problem, cert + key);
    await adopt(next);
    const texts = new Map([...snapshot.texts, ["tls-cert", cert], ["tls-key", key]]);
    running = { settings: next, snapshot: { ...snapshot, texts } };
    refused = "";
    const { validTo } = new X509Certificate(cert);
    log.info("the renewed certificate is served", { file: tls.certFile, valid_to: validTo });
  }

  function refuse(problem: string, what: string): void {
    if (what === refused) return;
    refused = what;
    log.warn("the certificate on disk is unusable; the old one is served", { problem });
  }

  function lookLater(): void {
    cancelLook = clock.after(LOOK_MS, () => void afterOthers(look).then(lookLater));
  }

  lookLater();
  return {
    reload: () => asked ??= afterOthers(reload),
    between: (work) => afterOthers(work),
    close: () => cancelLook(),
  };
}
