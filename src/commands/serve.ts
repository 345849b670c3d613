/**
 * `shishi serve`: settings → collector → signals → an exit code. The first signal drains, the second
 * ends at once. The last line on stderr is the ledger.
 */

import process from "node:process";
import { type Collector, startCollector } from "../collector.ts";
import type { LedgerTotals, Log } from "../contracts.ts";
import { nodeFiles } from "../runtime/files.ts";
import { createLog, type FoldedLog } from "../runtime/log.ts";
import { onStopSignal, onUpgradeSignal } from "../runtime/signals.ts";
import type { CliCommand } from "./command.ts";
import { settingsOrExitCode } from "./load.ts";
import type { Settings } from "../settings/settings.ts";
import type { Running } from "./upgrade.ts";

const ABOUT =
  "Takes JSON events over HTTP, gathers them into batches and writes these to ClickHouse, until it " +
  "is stopped by SIGTERM, SIGINT or shishi stop. Then it refuses new events (503) and delivers what " +
  "it holds, for at most shutdown-timeout; a second signal ends it at once. The last line on stderr " +
  "is the ledger.\n" +
  "Exit code 0 when nothing that was acknowledged is lost, 1 when rows were lost or it could not " +
  "start, 2 when the settings are unusable: each problem has a line.";

export const serve: CliCommand = {
  name: "serve",
  summary: "run the collector (the default command)",
  page: { about: ABOUT },
  async run(argv) {
    const loaded = settingsOrExitCode(argv, { command: "serve" });
    if (typeof loaded === "number") return loaded;
    const { settings, warnings } = loaded;
    const log = createLog(settings.logLevel, settings.logFormat);
    process.on("exit", () => log.flush());
    for (const warning of warnings) log.warn(warning);
    const { workers } = settings;
    if (workers > 1 && process.platform !== "linux") {
      log.error(
        `workers: expected 1, for only on Linux processes can share a port; got ${workers}`,
      );
      return 2;
    }
    let running: Running | null = null;
    let upgrading = false;
    onUpgradeSignal(async () => {
      if (running === null || upgrading) return log.warn("SIGUSR2: not at this moment");
      upgrading = true;
      await (await import("./upgrade.ts")).upgrade(running);
      upgrading = running.collector.control.status().state === "draining";
    });
    return await untilStopped(log, async () => {
      const collector = await start(settings, log);
      const notices = process.env["NOTIFY_SOCKET"]
        ? await (await import("./inform.ts")).inform(collector, settings, log)
        : null;
      running = { collector, settings, argv, notices, log };
      return collector;
    });
  },
};

/** What a plain start does not need is not loaded. */
async function start(settings: Settings, log: Log): Promise<Collector> {
  if (process.env["FOLLOWS_PID"] !== undefined) {
    const followed = await (await import("./upgrade.ts")).follow(settings);
    return await startCollector(followed.settings, log, nodeFiles, null, followed.predecessor);
  }
  return settings.workers > 1
    ? await (await import("../supervisor.ts")).startSupervisor(settings, log)
    : await startCollector(settings, log);
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
    log.warn("second signal: ending at once", { signal });
    if (collector === null) process.exit(1);
    void Promise.resolve(collector.abandon()).then((totals) => {
      process.exit(lastLine(totals, log));
    });
  });
  try {
    collector = await start();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.error(`cannot start: ${reason}`);
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
  else log.info(held > 0 ? `stopped; ${held} rows wait on disk` : "stopped", { ...totals });
  return lost > 0 ? 1 : 0;
}
