/**
 * The only file that knows all rooms: it wires them, runs them and stops them in order. Settings go
 * in; out comes something that listens, can be controlled, and ends with a ledger.
 */

import process from "node:process";
import { takeLock } from "./spool/lock.ts";
import { openDisk } from "./spool/open.ts";
import { startProgress } from "./batch/progress.ts";
import { nodeUtil } from "./kernel/builtins.ts";
import type { Control, Files, LedgerTotals, Log, Order } from "./contracts.ts";
import { createControl } from "./lifecycle.ts";
import { createLater } from "./later.ts";
import { createLedger } from "./meter/ledger.ts";
import { createOutposts } from "./outposts.ts";
import { createPage } from "./page/page.ts";
import { createProblems } from "./page/problems.ts";
import { systemClock } from "./runtime/clock.ts";
import type { Predecessor } from "./predecessor.ts";
import type { Door } from "./runtime/door.ts";
import { createFetch } from "./runtime/fetch.ts";
import { openFlock } from "./runtime/libc.ts";
import { nodeFiles } from "./runtime/files.ts";
import { runtimeName } from "./runtime/host.ts";
import { type Listening, serve, stopListening } from "./runtime/serve.ts";
import { isLoopback } from "./settings/checks.ts";
import { writeAddress } from "./settings/kinds.ts";
import type { Settings } from "./settings/settings.ts";
import { deliverSettings, pumpOptions } from "./shares.ts";
import { VERSION } from "./version.ts";

export interface Collector {
  /** Where it listens, e.g. `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly control: Control;
  /** Its port, for another one that follows it there. */
  door(): Promise<Door>;
  /** See `CollectorControl`. */
  watch(listener: (asked?: Order) => void): () => void;
  /** Why no other one can follow it at this moment, a sentence; null where nothing is in the way. */
  unsettled(): string | null;
  /** Resolves after `control.stop`, when everything has ended; with the last counts. */
  readonly finished: Promise<LedgerTotals>;
  /** Gives up what is held, at once; the counts as they are then. */
  abandon(): LedgerTotals;
  /**
   * Goes on with other settings: what is decided from now on follows them, what is under way ends as
   * it began. Rejects with a reason where they cannot be taken; then nothing has changed. Not to be
   * called again before it has ended.
   */
  adopt(settings: Settings): Promise<void>;
}

/** Why a collector cannot be followed while it is so. */
export const SPOOL_IS_READ = "the spool of the one before is still being read";
/** A client may take this long to send its body. */
const BODY_TIMEOUT_MS = 30_000;

/**
 * Throws when the address cannot be listened on or the data folder not be used.
 * @param predecessor null where there is none.
 */
export async function startCollector(
  first: Settings,
  outerLog: Log,
  files: Files = nodeFiles,
  predecessor: Predecessor | null = null,
): Promise<Collector> {
  let settings = first;
  const clock = systemClock;
  const problems = createProblems(clock);
  const log = problems.watch(outerLog);
  const rssBytes = () => process.memoryUsage.rss();
  const ledger = createLedger();
  const opening = openDisk({
    place: { files, dataDir: settings.dataDir, log },
    clock,
    maxDeadBytes: () => settings.deadMaxBytes,
    ...(predecessor === null ? {} : { predecessor: predecessor.gone }),
    lock: (folder, options) => takeLock(folder, { ...options, flock: openFlock }),
    onLost() {
      log.error("another collector has taken the data folder; ending", {
        folder: settings.dataDir,
      });
      process.exit(1);
    },
  });
  // Loaded while the disk syncs, which takes as long.
  const [disk, { Pump }, { createDeliver }, { createApp, createKept }] = await Promise.all([
    opening,
    import("./batch/pump.ts"),
    import("./deliver/deliver.ts"),
    import("./admit/app.ts"),
  ]);
  if ("problem" in disk) throw new Error(disk.problem);
  const { spool, letters, close: closeDisk } = disk;
  const deliver = createDeliver(
    deliverSettings(settings),
    { fetch: createFetch({ pooled: false }), clock, log, ledger },
  );
  const pump = new Pump(
    pumpOptions(settings),
    {
      sink: deliver.sink,
      ledger,
      clock,
      log,
      spool,
      async bury(batch, dead, rows) {
        const buried = await letters.bury(batch, dead, rows);
        return buried === "kept" ? null : buried.problem;
      },
    },
  );
  let recovering = true;
  const control = createControl({
    ...settings,
    version: VERSION,
    runtime: runtimeName,
    limits: () => ({
      ...settings,
      clickhouse: settings.clickhouse.map(({ label }) => label).join(","),
    }),
    pump,
    ledger,
    clock,
    log,
    recovering: () => recovering,
    ping: () => deliver.query.ping(),
  });
  predecessor?.heed(control);
  const tools = { ledger, holdings: pump, clock, log, rssBytes };
  const about = () => ({ ...settings, version: VERSION, runtime: runtimeName });
  const page = createPage({ ...tools, control, problems, about }, clock);
  const later = createLater({
    ...tools,
    ask: deliver.ask,
    settings: () => settings,
    deadDir: settings.dataDir,
    write: (...rows) => app.again(...rows),
  });
  const loopback = isLoopback(settings.listen) && settings.tls === null;
  const kept = createKept(clock);
  const appFor = (settings: Settings) =>
    createApp({
      intake: pump,
      tables: deliver.tables,
      ledger,
      control,
      page,
      clock,
      log,
      ...later,
      version: VERSION,
      settings: { ...settings, bodyTimeoutMs: BODY_TIMEOUT_MS, loopback },
    }, kept);
  let app = appFor(settings);
  let listening: Listening;
  try {
    listening = serve({
      ...settings.listen,
      ...(settings.tls === null ? {} : { tls: settings.tls }),
      reusePort: predecessor !== null,
      shared: settings.sharePort,
      handler: (request, addressOf) => app.fetch(request, addressOf),
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
  // Who waited for the port gets an answer first: what follows takes longer than that.
  await new Promise<void>((resolve) => void clock.after(0, resolve));
  sayListening(settings, url, log);

  void pump.recover().then(() => recovering = false);
  void deliver.prepare();
  const stopProgress = startProgress({
    backlog: () => pump.backlog(),
    settledRows: () => ledger.totals().stored + ledger.totals().dead,
    clock,
    log,
    flushIntervalMs: () => settings.flushIntervalMs,
  });
  const other = predecessor?.gone ?? null;
  const outposts = createOutposts({ ...tools, control, watch: control.watch, other });
  await outposts.adopt(settings);
  await predecessor?.listening();

  /** In this order: rows first, then their counts, then those who still wait for an answer. */
  async function end(): Promise<LedgerTotals> {
    await control.drained;
    await later.close();
    stopProgress();
    await outposts.writeLast(settings);
    await page.close();
    await stopListening(listening);
    control.stopped();
    await outposts.close();
    control.close();
    await deliver.close();
    await closeDisk();
    return ledger.totals();
  }

  return {
    url,
    control,
    door: async () => (await import("./runtime/door.ts")).createDoor(page.leaving(listening), log),
    watch: control.watch,
    unsettled: () => recovering ? SPOOL_IS_READ : null,
    finished: end(),
    async adopt(next) {
      // What can fail comes first.
      if (next.tls !== null && !nodeUtil().isDeepStrictEqual(next.tls, settings.tls)) {
        await listening.renew(next.tls);
      }
      const same = nodeUtil().isDeepStrictEqual({ ...next, tls: null }, { ...settings, tls: null });
      settings = next;
      if (same) return;
      const elsewhere = deliver.adopt(deliverSettings(next));
      pump.adopt(pumpOptions(next), elsewhere);
      app = appFor(next);
      page.adopted();
      await outposts.adopt(next);
    },
    abandon() {
      pump.abandon();
      return ledger.totals();
    },
  };
}

function urlOf({ listen: { hostname }, tls }: Settings, port: number): string {
  return `${tls === null ? "http" : "https"}://${writeAddress({ hostname, port })}`;
}

function sayListening({ group, id }: Settings, url: string, log: Log): void {
  log.info("listening", { url, group, id, version: VERSION });
}
