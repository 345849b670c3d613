/**
 * The only file that knows all rooms: it wires them, runs them and stops them in order. Settings go
 * in; out comes something that listens, can be controlled, and ends with a ledger.
 */

import process from "node:process";
import { openDisk } from "./batch/disk.ts";
import type { Files } from "./batch/files.ts";
import type { Letters } from "./batch/letters.ts";
import { startProgress } from "./batch/progress.ts";
import type { Control, LedgerTotals, Log, PageSource, Report, Status } from "./contracts.ts";
import { createControl } from "./control.ts";
import { createLater } from "./later.ts";
import { createLedger } from "./meter/ledger.ts";
import { cpuSeconds } from "./meter/process.ts";
import { createPage } from "./page/page.ts";
import { createProblems } from "./page/problems.ts";
import { systemClock } from "./runtime/clock.ts";
import { createFetch } from "./runtime/fetch.ts";
import { nodeFiles } from "./runtime/files.ts";
import { runtimeName } from "./runtime/host.ts";
import { type Listening, serve, stopListening } from "./runtime/serve.ts";
import { isLoopback } from "./settings/checks.ts";
import type { Settings } from "./settings/settings.ts";
import { VERSION } from "./version.ts";

export interface Collector {
  /** Where it listens, e.g. `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly control: Control;
  /** Its port; null where that is several processes'. */
  readonly listening: Listening | null;
  /** @param listener is called after each change of the state that somebody made. */
  watch(listener: () => void): void;
  /** Resolves after `control.stop`, when everything has ended; with the last counts. */
  readonly finished: Promise<LedgerTotals>;
  /** Gives up what is held, at once; the counts as they are then. */
  abandon(): LedgerTotals | Promise<LedgerTotals>;
}

/** One process of several (`supervisor.ts`): what concerns them all is asked of the supervisor. */
export interface Part {
  readonly bury: Letters["bury"];
  metrics(): Promise<string>;
  status(): Promise<Status>;
  unready(): Promise<readonly string[]>;
  /** The folder that all dead letters lie in. */
  readonly deadDir: string;
  readonly page: PageSource;
}

/** A collector that can be one of several. */
export interface LocalCollector extends Collector {
  /** This process alone, at this moment. */
  report(): Report;
  abandon(): LedgerTotals;
}

/** A collector that is at work, and that this one is to follow on its port and in its folder. */
export interface Predecessor {
  /** Tells it that this one listens; resolves when it takes no more connections. */
  listening(): Promise<void>;
  /** Its process has ended. */
  readonly gone: Promise<void>;
}

/** A client may take this long to send its body. */
const BODY_TIMEOUT_MS = 30_000;
/** How long a `flush` over NATS may take before it is answered as failed. */
export const FLUSH_TIMEOUT_MS = 60_000;
/** After the drain: for the last write to InfluxDB. */
export const LAST_WRITE_MS = 2_000;

/**
 * Throws when the address cannot be listened on or the data folder not be used.
 * @param part null where this is the only process. @param predecessor null where there is none.
 */
export async function startCollector(
  settings: Settings,
  outerLog: Log,
  files: Files = nodeFiles,
  part: Part | null = null,
  predecessor: Predecessor | null = null,
): Promise<LocalCollector> {
  const clock = systemClock;
  const problems = createProblems(clock);
  const log = problems.watch(outerLog);
  const rssBytes = () => process.memoryUsage.rss();
  const ledger = createLedger();
  const opening = openDisk({
    place: { files, dataDir: settings.dataDir, log },
    clock,
    maxDeadBytes: settings.deadMaxBytes,
    ...(predecessor === null ? {} : { predecessor: predecessor.gone }),
    onLost() {
      log.error("another collector has taken the data folder; ending", {
        folder: settings.dataDir,
      });
      process.exit(1);
    },
  });
  // Loaded while the disk syncs, which takes as long.
  const [disk, { Pump }, { createDeliver }, { createApp }] = await Promise.all([
    opening,
    import("./batch/pump.ts"),
    import("./deliver/deliver.ts"),
    import("./admit/app.ts"),
  ]);
  if ("problem" in disk) throw new Error(disk.problem);
  const { spool, letters, close: closeDisk } = disk;
  const deliver = createDeliver(
    {
      endpoints: settings.clickhouse,
      eventsTable: settings.table,
      createTable: settings.createTable,
      insertTimeoutMs: settings.insertTimeoutMs,
      compress: settings.compress,
    },
    { fetch: createFetch({ pooled: false }), clock, log, ledger },
  );
  const pump = new Pump(
    {
      fill: {
        maxRows: settings.maxBlockSize,
        maxBytes: settings.maxBlockBytes,
        flushIntervalMs: settings.flushIntervalMs,
        idleIntervalMs: settings.idleIntervalMs,
      },
      budget: { maxRows: settings.backlog, maxBytes: settings.backlogBytes },
      concurrency: settings.concurrency,
      reached: settings.ack === "memory" ? "memory" : "disk",
      maxSpoolBytes: settings.spoolMaxBytes,
    },
    {
      sink: deliver.sink,
      ledger,
      clock,
      log,
      spool,
      async bury(batch, dead, rows) {
        const buried = await (part ?? letters).bury(batch, dead, rows);
        return buried === "kept" ? null : buried.problem;
      },
    },
  );
  let recovering = true;
  const control = createControl({
    ...settings,
    version: VERSION,
    runtime: runtimeName,
    clickhouse: settings.clickhouse.map(({ label }) => label).join(","),
    pump,
    ledger,
    clock,
    log,
    recovering: () => recovering,
    ping: () => deliver.query.ping(),
  });
  const tools = { ledger, holdings: pump, clock, log, rssBytes };
  const about = { ...settings, version: VERSION, runtime: runtimeName };
  const page = createPage(part?.page ?? { ...tools, control, problems, about }, clock);
  const later = createLater({
    ...tools,
    ask: deliver.ask,
    settings,
    deadDir: part?.deadDir ?? settings.dataDir,
    write: (...rows) => app.again(...rows),
  });
  const loopback = isLoopback(settings.listen) && settings.tls === null;
  const app = createApp({
    intake: pump,
    tables: deliver.tables,
    ledger,
    control: part ?? control,
    page,
    clock,
    log,
    ...later,
    metrics: part?.metrics ?? later.metrics,
    version: VERSION,
    settings: { ...settings, bodyTimeoutMs: BODY_TIMEOUT_MS, loopback },
  });
  let listening: Listening;
  try {
    listening = serve({
      ...settings.listen,
      ...(settings.tls === null ? {} : { tls: settings.tls }),
      reusePort: part !== null || predecessor !== null,
      handler: app.fetch,
      onError: (error) => log.error("a request failed", { error: String(error) }),
    });
  } catch (error) {
    await page.close();
    control.close();
    await deliver.close();
    await closeDisk();
    throw error;
  }
  const url = urlOf(settings, listening.port);
  if (part === null) sayListening(settings, url, log);

  void disk.recoverInto(pump).then(() => recovering = false);
  void deliver.prepare();
  // Loaded late, and only where they are wanted: their libraries cost the first answer 10 of 45 ms.
  const mirror = settings.influx === null
    ? null
    : (await import("./meter/mirror.ts")).createMirror({
      endpoint: settings.influx,
      intervalMs: settings.influxIntervalMs,
      ...tools,
      group: settings.group,
      id: settings.id,
      fetch: createFetch({ pooled: true }),
    });
  const stopProgress = startProgress({
    backlog: () => pump.backlog(),
    settledRows: () => ledger.totals().stored + ledger.totals().dead,
    clock,
    log,
    flushIntervalMs: settings.flushIntervalMs,
  });
  let remote: { close(): Promise<void> } | null = null;
  const appear = async () => {
    mirror?.start();
    remote = settings.nats === null ? null : (await import("./remote/service.ts")).startRemote({
      ...settings.nats,
      ...tools,
      group: settings.group,
      id: settings.id,
      control,
      watch: control.watch,
      flushTimeoutMs: FLUSH_TIMEOUT_MS,
    });
  };
  if (predecessor === null) await appear();
  else {
    await predecessor.listening();
    // Two of one name cannot be told apart, neither in InfluxDB nor on NATS.
    void predecessor.gone.then(() => {
      if (control.status().state !== "stopped") return appear();
    });
  }

  /** In this order: rows first, then their counts, then those who still wait for an answer. */
  async function end(): Promise<LedgerTotals> {
    await control.drained;
    await later.close();
    stopProgress();
    await mirror?.writeLast(LAST_WRITE_MS);
    await page.close();
    await stopListening(listening);
    control.stopped();
    await remote?.close();
    control.close();
    await deliver.close();
    await closeDisk();
    return ledger.totals();
  }

  return {
    url,
    control,
    listening: page.leaving(listening),
    watch: control.watch,
    finished: end(),
    abandon() {
      pump.abandon();
      return ledger.totals();
    },
    report() {
      const { insertMsP50, insertMsP99 } = ledger.work();
      return {
        status: control.status(),
        unready: control.unready(),
        counts: ledger.counts(),
        held: {
          rows: pump.rows(),
          memoryBytes: pump.memoryBytes(),
          spoolBytes: pump.spoolBytes(),
          oldestMs: pump.oldestMs(),
          byTable: Object.fromEntries(pump.byTable()),
        },
        rssBytes: rssBytes(),
        cpuSeconds: cpuSeconds(),
        insertMsP50,
        insertMsP99,
      };
    },
  };
}

export function urlOf({ listen: { hostname }, tls }: Settings, port: number): string {
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  return `${tls === null ? "http" : "https"}://${host}:${port}`;
}

export function sayListening({ group, id }: Settings, url: string, log: Log): void {
  log.info("listening", { url, group, id, version: VERSION });
}
