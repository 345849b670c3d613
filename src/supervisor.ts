/**
 * `--workers N`: one collector that is several processes.
 *
 * **Who does what.** The process that was started, the supervisor, takes no request. It holds the data
 * folder and its dead letters, the one ledger, the mirror and NATS, and it starts N workers: the same
 * program again (`shishi worker`), spoken to over its stdin and stdout, one JSON line a message;
 * settings go that way too, so that no secret is an argument. A worker is a whole collector with a
 * spool of its own, `worker-K` in the data folder, without mirror and NATS. The workers listen on one
 * port (SO_REUSEPORT: the system shares out the connections); before they do, the supervisor has
 * listened there alone for a moment, so that a port that is another program's is not shared unnoticed.
 * Concurrency and backlogs are divided, so N workers together keep the limits that are set.
 *
 * **One ledger.** Workers report their counts once a second, whenever somebody asks, and as they end;
 * what came since a worker's last report is added to the supervisor's ledger, which everything reads
 * as if it were the only one (`meter/joint.ts`). A worker that gets a GET asks the supervisor, who
 * asks all of them: every answer is for all, and contains what was acknowledged before.
 *
 * **Death.** A worker that dies is started again with a backoff and recovers its own spool; its
 * counts stay, short of what it did since its last report. A supervisor that dies takes its workers
 * with it: their stdin ends. The next start finds all spools. Where N has changed, those without a
 * worker are moved to worker 1, or to the folder itself (`batch/gather.ts`); dead letters lie in the
 * folder itself, whatever N is.
 *
 * **Upgrade.** Whoever follows another collector (`commands/upgrade.ts`) starts its workers in folders
 * that nobody has, on the same port. When that one has gone, all that it left in any spool is gathered
 * in the folder itself, and worker 1 delivers it; dead letters wait until then.
 *
 * **Stop.** Signals reach the workers too and are ignored there; the supervisor tells all to drain,
 * waits, writes the last counts, and says the ledger of all as the last line.
 */

import process from "node:process";
import { openDisk } from "./spool/disk.ts";
import type { Letters } from "./dead/letters.ts";
import { type Collector, sayListening, SPOOL_IS_READ, urlOf } from "./collector.ts";
import type { Control, DeadRow, Log, Order, Report, WorkerProcess } from "./contracts.ts";
import { createCrew } from "./crew/crew.ts";
import { holdingsOf, stateOf, tablesOf, unreadyOf } from "./crew/sum.ts";
import { createJoint } from "./meter/joint.ts";
import { createLedger, type MeteredLedger } from "./meter/ledger.ts";
import { cpuSeconds } from "./meter/process.ts";
import { createPrometheus } from "./meter/prometheus.ts";
import { createOutposts } from "./outposts.ts";
import { createProblems, type Note } from "./page/problems.ts";
import { createRecorder } from "./page/recorder.ts";
import type { Predecessor } from "./predecessor.ts";
import { systemClock } from "./runtime/clock.ts";
import type { Door } from "./runtime/door.ts";
import { nodeFiles } from "./runtime/files.ts";
import { freePort } from "./runtime/free_port.ts";
import { runtimeName } from "./runtime/host.ts";
import { spawnSelf } from "./runtime/self.ts";
import type { Settings } from "./settings/settings.ts";
import { workerSettings } from "./shares.ts";
import { VERSION } from "./version.ts";

/** A worker may take this long to do something with its port. */
const DOOR_WITHIN_MS = 20_000;
/** Beyond shutdown-timeout: to spill what is left, and to send the last answers. */
const STOP_MORE_MS = 15_000;

interface ToBury {
  readonly batch: Parameters<Letters["bury"]>[0];
  readonly dead: readonly DeadRow[];
  readonly rows: readonly string[];
}

/** Throws as `startCollector` does. @param predecessor null where there is none. */
export async function startSupervisor(
  first: Settings,
  outerLog: Log,
  predecessor: Predecessor | null = null,
): Promise<Collector> {
  const clock = systemClock;
  const problems = createProblems(clock);
  const log = problems.watch(outerLog);
  let settings = first;
  const { group, id, dataDir, workers } = first;
  const startedMs = clock.monotonicMs();
  const disk = await openDisk({
    place: { files: nodeFiles, dataDir, log },
    clock,
    maxDeadBytes: () => settings.deadMaxBytes,
    workers,
    ...(predecessor === null ? {} : { predecessor: predecessor.gone }),
    onLost() {
      log.error("another collector has taken the data folder; ending", { folder: dataDir });
      process.exit(1);
    },
  });
  if ("problem" in disk) throw new Error(disk.problem);

  const ownLedger = createLedger();
  const joint = createJoint(ownLedger);
  let stopWhy: string | null = null;
  let ended = false;
  let paused = false;
  const watchers = new Set<(asked?: Order) => void>();
  const changed = (asked?: Order) => watchers.forEach((watcher) => watcher(asked));

  const methods = {
    metrics: () => crew.refresh().then(() => prometheus.text()),
    status: () => crew.refresh().then(() => control.status()),
    unready: () => crew.refresh().then(() => control.unready()),
    pageFirst: () => recorder.first(),
    pageNext: () => recorder.next(),
    note: (note: Note) => problems.note(note),
    bury: ({ batch, dead, rows }: ToBury) => disk.letters.bury(batch, dead, rows),
    rest: (worker: number) => worker === 1 ? disk.rest : null,
  };
  const port = predecessor !== null
    ? settings.listen.port
    : await freePort(settings.listen).catch(async (error) => {
      await disk.close();
      throw error;
    });
  const listeners = Math.ceil((predecessor?.listeners ?? 1) / workers);
  const crew = createCrew({
    size: workers,
    spawn: (_number, ended): WorkerProcess => spawnSelf(["worker"], { ...methods, ended }),
    settings: (number) => workerSettings(settings, disk.folders[number - 1]!, port),
    listeners,
    joint,
    fate: () => settings.ack === "memory" ? "lost" : "stored",
    polled: () => recorder.sample(),
    stopMs: () => settings.shutdownTimeoutMs + STOP_MORE_MS,
    clock,
    log,
  });
  const holdings = holdingsOf(crew.reports, joint.owed);
  const most = (of: (report: Report) => number) => Math.max(0, ...crew.reports().map(of));
  const ledger: MeteredLedger = {
    ...ownLedger,
    work: () => ({
      ...ownLedger.work(),
      // Quantiles do not add up: those of the slowest worker.
      insertMsP50: most(({ insertMsP50 }) => insertMsP50),
      insertMsP99: most(({ insertMsP99 }) => insertMsP99),
    }),
  };
  const rssBytes = () =>
    crew.reports().reduce((sum, report) => sum + report.rssBytes, process.memoryUsage.rss());
  const prometheus = createPrometheus({
    ledger,
    holdings,
    log,
    version: VERSION,
    runtime: runtimeName,
    process: { rssBytes, cpuSeconds: () => cpuSeconds() + crew.cpuSeconds() },
  });

  let tellStopped = () => {};
  const stopped = new Promise<void>((resolve) => tellStopped = resolve);
  let tellStopping = (_withinMs?: number) => {};
  const stopping = new Promise<number | undefined>((resolve) => tellStopping = resolve);
  const control: Control = {
    status() {
      const own = ended ? "stopped" : stopWhy !== null ? "draining" : paused ? "paused" : null;
      const reports = crew.reports();
      return {
        group,
        id,
        state: stateOf(reports, own, crew.down()),
        version: VERSION,
        runtime: runtimeName,
        uptime_s: Math.floor((clock.monotonicMs() - startedMs) / 1000),
        ledger: ledger.totals(),
        oldest_s: Math.round(holdings.oldestMs()) / 1000,
        memory_bytes: holdings.memoryBytes(),
        spool_bytes: holdings.spoolBytes(),
        recovering: reports.length < workers || reports.some(({ status }) => status.recovering),
        tables: tablesOf(reports, ledger),
      };
    },
    unready() {
      const own = [...(stopWhy === null ? [] : ["draining"]), ...(paused ? ["paused"] : [])];
      return unreadyOf(crew.reports(), [...own, ...crew.down()]);
    },
    pause() {
      paused = true;
      crew.pause();
      changed("pause");
    },
    resume() {
      paused = false;
      crew.resume();
      changed("resume");
    },
    flush: (waitMs) => crew.flush(waitMs),
    stop(why, withinMs) {
      if (stopWhy === null) {
        stopWhy = why;
        tellStopping(withinMs);
      }
      changed("stop");
      return stopped;
    },
  };

  const allDo = (act: string, given?: number) => crew.door(act, given, DOOR_WITHIN_MS);
  const door: Door = {
    port,
    listeners: workers * listeners,
    share: () => allDo("share"),
    leave: (older = workers * listeners) => allDo("leave", older),
    stay: () => allDo("stay"),
    close: () => allDo("close"),
    even: () => allDo("even"),
  };

  predecessor?.heed(control);

  const about = () => ({ ...settings, version: VERSION, runtime: runtimeName });
  const recorder = createRecorder({ ledger, holdings, control, clock, problems, about });

  const problem = await crew.start();
  if (problem !== null) {
    await disk.close();
    throw new Error(problem);
  }
  const url = urlOf(settings, port);
  sayListening(settings, url, log);
  const watch: Collector["watch"] = (listener) => {
    watchers.add(listener);
    return () => void watchers.delete(listener);
  };
  const other = predecessor?.gone ?? null;
  const outposts = createOutposts({
    control,
    watch,
    ledger,
    holdings,
    clock,
    log,
    rssBytes,
    other,
  });
  await outposts.adopt(settings);
  if (predecessor !== null) {
    await predecessor.listening();
    await door.even();
  }

  const closeDisk = disk.close;
  async function end() {
    const withinMs = await stopping;
    await crew.stop(stopWhy ?? "", withinMs);
    await outposts.writeLast(settings);
    ended = true;
    changed();
    tellStopped();
    await outposts.close();
    await closeDisk();
    return ledger.totals();
  }

  return {
    url,
    control,
    door: () => Promise.resolve(door),
    watch,
    unsettled: () => crew.down()[0] ?? (control.status().recovering ? SPOOL_IS_READ : null),
    finished: end(),
    async adopt(next) {
      const before = settings;
      settings = next;
      const problem = await crew.adopt();
      if (problem !== null) {
        settings = before;
        await crew.adopt();
        throw new Error(problem);
      }
      await outposts.adopt(next);
    },
    async abandon() {
      await crew.abandon();
      return ledger.totals();
    },
  };
}
