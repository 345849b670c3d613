/**
 * `shishi serve`: settings → collector → signals → an exit code. The first signal drains, the second
 * ends at once. The last line on stderr is the ledger.
 */

import { readFile } from "node:fs/promises";
import process from "node:process";
import { type Collector, startCollector } from "../collector.ts";
import type { LedgerTotals, Log } from "../contracts.ts";
import { systemClock } from "../kernel/time.ts";
import { createLog, createSwitchLog, type FoldedLog, type SwitchLog } from "../runtime/log.ts";
import { onReloadSignal, onStopSignal, onUpgradeSignal } from "../runtime/host.ts";
import type { Notices } from "../systemd/notify.ts";
import type { Settings } from "../settings/settings.ts";
import { type CliCommand, outside, settingsOrExitCode } from "./cli.ts";
import { messageOf } from "../kernel/errors.ts";
import type { InForce, Reloader } from "../settings/reload.ts";

const ABOUT =
  "Takes JSON events over HTTP, gathers them into batches and writes these to ClickHouse, until it " +
  "is stopped by SIGTERM, SIGINT or shishi stop. Then it refuses new events (503) and delivers what " +
  "it holds, for at most shutdown-timeout; a second signal ends it at once. With drain-delay it " +
  "first takes events for that long while it reports not ready; a second signal then ends only that " +
  "delay. The last line on stderr is the ledger. SIGHUP makes it read its settings file, secrets and " +
  "certificate again.\n" +
  "Exit code 0 when nothing that was acknowledged is lost, 1 when rows were lost or it could not " +
  "start, 2 when the settings are unusable: each problem has a line.";

export const serve: CliCommand = {
  name: "serve",
  summary: "run the collector (the default command)",
  page: { about: ABOUT },
  async run(argv) {
    const hangups = kept(onReloadSignal);
    const upgrades = kept(onUpgradeSignal);
    const loaded = settingsOrExitCode(argv, { command: "serve" });
    if (typeof loaded === "number") return loaded;
    const { settings, warnings } = loaded;
    const log = createSwitchLog(createLog(settings.logLevel, settings.logFormat));
    process.on("exit", () => log.flush());
    for (const warning of warnings) log.warn(warning);
    return await untilStopped(log, async () => {
      const collector = await start(settings, log);
      const { reloader, notices } = await attend(argv, loaded, collector, log);
      let busy: string | null = null;
      upgrades.follow(() => {
        // A signal that comes again gets an answer again.
        log.flush();
        if (busy !== null) return log.warn(`SIGUSR2: ${busy}`);
        busy = "an upgrade is under way already; its outcome will be logged here";
        void reloader.between(async () => {
          const { handOver } = await import("../runtime/handover.ts");
          const { dataDir, sharePort } = settings;
          const onReplaced = (pid: number) => notices?.replacedBy(pid);
          busy = await handOver({ collector, dataDir, sharePort, argv, log, onReplaced });
        });
      });
      hangups.follow(() => void reloader.reload());
      return collector;
    });
  },
};

/** A signal that comes before there is something to do at it is kept, and ends nothing. */
function kept(on: (handler: () => void) => void): { follow(handler: () => void): void } {
  let early = false;
  let handle = (): void => {
    early = true;
  };
  on(() => handle());
  return {
    follow(handler) {
      handle = handler;
      if (early) handler();
    },
  };
}

/** What a plain start does not need is not loaded. */
async function start(settings: Settings, log: Log): Promise<Collector> {
  if (process.env["FOLLOWS_PID"] === undefined) return await startCollector({ settings, log });
  const { follow } = await import("../runtime/handover.ts");
  const { predecessor, port } = await follow(settings.dataDir);
  const listen = settings.listen.map((listen) =>
    "path" in listen ? listen : { ...listen, port: listen.port || port }
  );
  return await startCollector({ settings: { ...settings, listen }, log, predecessor });
}

/** What goes on beside a running collector: reloads, and notices to a service manager, if there is one. */
async function attend(
  argv: readonly string[],
  first: InForce,
  collector: Collector,
  log: SwitchLog,
): Promise<{ readonly reloader: Reloader; readonly notices: Notices | null }> {
  let { settings } = first;
  const notices = process.env["NOTIFY_SOCKET"]
    ? await inform(collector, () => settings, log)
    : null;
  // After the first answer: nothing of it is needed for that.
  const { Reloader, reloadSettings } = await import("../settings/reload.ts");
  let { logLevel, logFormat } = settings;
  const reloader = new Reloader({
    first,
    read: (running) => reloadSettings(outside(argv), running),
    readFile: (path) => readFile(path, "utf8"),
    async adopt(next) {
      await collector.adopt(next);
      settings = next;
    },
    onLogged(settings) {
      if (settings.logLevel === logLevel && settings.logFormat === logFormat) return;
      ({ logLevel, logFormat } = settings);
      log.use(createLog(logLevel, logFormat));
    },
    stopping: () => ["draining", "stopped"].includes(collector.control.status().state),
    clock: systemClock,
    log,
    onReload(what) {
      if (what === "ended") return notices?.reloaded();
      // What is wrong still gets a line again, and is not folded into what was logged before.
      log.flush();
      notices?.reloading();
    },
  });
  void collector.finished.then(() => reloader.close());
  return { reloader, notices };
}

/** Beyond shutdown-timeout: to spill what is left, and to send the last answers. */
const STOP_MORE_MS = 20_000;

/** Introduces a collector that listens to the service manager. @returns null where there is none. */
async function inform(
  collector: Collector,
  settings: () => Settings,
  log: Log,
): Promise<Notices | null> {
  const [{ createNotices, serviceManager }, { openLibc }] = await Promise.all([
    import("../systemd/notify.ts"),
    import("../runtime/libc.ts"),
  ]);
  const manager = await serviceManager(openLibc);
  if (!manager.ok) log.warn(manager.problem);
  if (!manager.ok || manager.value === null) return null;
  const notices = createNotices({
    manager: manager.value,
    status: () => collector.control.status(),
    clock: systemClock,
    stopMs: () => settings().drainDelayMs + settings().shutdownTimeoutMs + STOP_MORE_MS,
  });
  collector.watch(notices.changed);
  notices.ready();
  // A stop may have come while it started.
  notices.changed();
  return notices;
}

/** Listens for signals from before the start: one that comes meanwhile stops what has started then. */
async function untilStopped(log: FoldedLog, start: () => Promise<Collector>): Promise<number> {
  const signals: string[] = [];
  let collector: Collector | null = null;
  const forget = onStopSignal((signal) => {
    signals.push(signal);
    if (signals.length === 1) {
      void collector?.control.stop(signal);
      return;
    }
    if (collector?.control.hurry()) {
      log.warn("second signal: new events are refused from now on", { signal });
      return;
    }
    const which = signals.length === 2 ? "second" : "another";
    log.warn(`${which} signal: ending at once`, { signal });
    if (collector === null) process.exit(1);
    process.exit(lastLine(collector.abandon(), log));
  });
  try {
    collector = await start();
  } catch (error) {
    log.error(`cannot start: ${messageOf(error)}`);
    forget();
    return 1;
  }
  const [early] = signals;
  if (early !== undefined) void collector.control.stop(early);
  const totals = await collector.finished;
  forget();
  return lastLine(totals, log);
}

/** @returns 0 when everything received is stored, dead-lettered or on disk, else 1. */
function lastLine(totals: LedgerTotals, log: FoldedLog): number {
  log.flush();
  const { held, lost } = totals;
  if (lost > 0) log.error(`stopped; ${lost} rows were lost`, { ...totals });
  else log.last(held > 0 ? `stopped; ${held} rows wait on disk` : "stopped", { ...totals });
  return lost > 0 ? 1 : 0;
}
