/**
 * One process of a collector with `workers` > 1: `shishi worker`, started by the supervisor and told
 * everything over its stdin. Signals are for the supervisor, who decides; when that is gone, nobody
 * would ever tell this one to end, so it ends by itself, at once: what was acknowledged is on disk, or
 * goes there.
 */

import process from "node:process";
import { folderOfAll } from "../spool/gather.ts";
import type { Buried } from "../dead/letters.ts";
import { type LocalCollector, startCollector } from "../collector.ts";
import type { Log, LogFields, Report } from "../contracts.ts";
import type { Door } from "../runtime/door.ts";
import { nodeFiles } from "../runtime/files.ts";
import { noted } from "../page/problems.ts";
import { createLog, createSwitchLog } from "../runtime/log.ts";
import type { parent } from "../runtime/self.ts";
import { onReloadSignal, onStopSignal, onUpgradeSignal } from "../runtime/signals.ts";
import type { Settings } from "../settings/settings.ts";
import type { CliCommand } from "./cli.ts";
import { messageOf } from "../kernel/errors.ts";

/** How long the supervisor may take to gather what the others have to say. */
const ASK_WITHIN_MS = 5_000;
const ALONE = "shishi: worker: is started by shishi serve --workers N, not by hand";

interface Start {
  readonly settings: Settings;
  readonly number: number;
  readonly listeners: number;
  readonly paused: boolean;
}

interface ToDoor {
  readonly act: Exclude<keyof Door, "port" | "listeners">;
  readonly given?: number;
}

export const worker: CliCommand = {
  name: "worker",
  summary: "one process of several; started by serve",
  page: { usage: "shishi worker", about: ALONE, only: [] },
  async run() {
    if (process.stdin.isTTY) {
      console.error(ALONE);
      return 2;
    }
    onStopSignal(() => {});
    onReloadSignal(() => {});
    onUpgradeSignal(() => {});
    // Not above, or every command would wait for what is loaded with it.
    const { parent } = await import("../runtime/self.ts");
    return await new Promise<number>((end) => work(parent, end));
  },
};

function work(callParent: typeof parent, end: (code: number) => void): void {
  let collector: LocalCollector | null = null;
  let memoryOnly = false;
  let started: Promise<unknown> = Promise.resolve();
  const running = (): LocalCollector => {
    if (collector === null) throw new Error("the worker has not been started");
    return collector;
  };
  const whole = createSwitchLog(createLog("info", "auto"));
  process.on("exit", () => whole.flush());
  const supervisor = callParent({
    start: (given: Start) => started = start(given),
    /** @returns why not, or null. */
    async adopt(settings: Settings): Promise<string | null> {
      await started;
      try {
        await collector?.adopt(settings);
      } catch (error) {
        return messageOf(error);
      }
      memoryOnly = settings.ack === "memory";
      whole.use(createLog(settings.logLevel, settings.logFormat));
      return null;
    },
    /** @returns what `share` does. */
    async door({ act, given }: ToDoor) {
      const door = await running().door();
      return await (door[act] as (given?: number) => unknown)(given);
    },
    report: () => running().report(),
    flush: (waitMs: number) => running().control.flush(waitMs),
    pause: () => running().control.pause(),
    resume: () => running().control.resume(),
    stop: ({ why, withinMs }: { why: string; withinMs?: number }) =>
      void running().control.stop(why, withinMs),
    abandon(): Report {
      running().abandon();
      return running().report();
    },
  });

  async function start({ settings, number, listeners, paused }: Start) {
    memoryOnly = settings.ack === "memory";
    whole.use(createLog(settings.logLevel, settings.logFormat));
    // The page shows the problems of all.
    const log = noted(
      numbered(whole, number),
      (note) => supervisor.call("note", note).catch(() => {}),
    );
    try {
      collector = await startCollector(settings, log, nodeFiles, {
        deadDir: folderOfAll(settings.dataDir),
        listeners,
        paused,
        rest: supervisor.call<string | null>("rest", number).catch(() => null),
        metrics: () => supervisor.call("metrics", null, ASK_WITHIN_MS),
        status: () => supervisor.call("status", null, ASK_WITHIN_MS),
        page: {
          first: () => supervisor.call("pageFirst", null, ASK_WITHIN_MS),
          next: () => supervisor.call("pageNext", null, ASK_WITHIN_MS),
        },
        unready: () =>
          supervisor.call<string[]>("unready", null, ASK_WITHIN_MS)
            .catch((error) => [`supervisor: ${messageOf(error)}`]),
        bury: ({ id, table, shape }, dead, rows) =>
          supervisor.call<Buried>("bury", { batch: { id, table, shape }, dead, rows })
            .catch((error) => ({ problem: `supervisor: ${messageOf(error)}` })),
      });
    } catch (error) {
      return { problem: messageOf(error) };
    }
    void collector.finished.then(ended);
    return { report: collector.report() };
  }

  async function ended(): Promise<void> {
    // Nobody to be told: then nobody counts either.
    await supervisor.call("ended", running().report(), ASK_WITHIN_MS).catch(() => {});
    end(0);
  }

  void supervisor.gone.then(() => {
    if (collector === null || !memoryOnly) end(1);
    else void collector.control.stop("the supervisor is gone", 0);
  });
}

/** Each line says which worker it is from. */
function numbered(log: Log, worker: number): Log {
  const at = (level: keyof Log) => (message: string, fields?: LogFields) =>
    log[level](message, { ...fields, worker });
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}
