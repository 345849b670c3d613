/**
 * What is behind HTTP: the app, and the rooms that only some requests want. These are loaded when the
 * first such request comes, so that a start costs neither the time nor the memory: metrics, questions
 * about stored events, dead letters, the page.
 */

import { type App, createApp } from "./admit/app.ts";
import type { Pump } from "./batch/pump.ts";
import type { Part } from "./collector.ts";
import type { Clock, Log } from "./contracts.ts";
import type { CollectorControl } from "./control.ts";
import type { Deliver } from "./deliver/deliver.ts";
import type { MeteredLedger } from "./meter/ledger.ts";
import { createPage } from "./page/page.ts";
import type { Problems } from "./page/problems.ts";
import { nodeFiles } from "./runtime/files.ts";
import { runtimeName } from "./runtime/host.ts";
import type { Settings } from "./settings/settings.ts";
import { VERSION } from "./version.ts";

export interface FrontDeps {
  readonly settings: Settings;
  /** Null where this is the only process. */
  readonly part: Part | null;
  readonly ledger: MeteredLedger;
  readonly pump: Pump;
  readonly deliver: Deliver;
  readonly control: CollectorControl;
  readonly problems: Problems;
  readonly clock: Clock;
  readonly log: Log;
  readonly rssBytes: () => number;
}

export interface Front {
  readonly fetch: App["fetch"];
  /** Answers that still wait for ClickHouse, or replay dead letters, end. */
  endQuestions(): Promise<void>;
  /** While it is true, viewers of the page are sent away, to come again on another connection. */
  letGo(go: boolean): void;
  /** Answers that would never end by themselves end. */
  close(): Promise<void>;
}

/** A client may take this long to send its body. */
const BODY_TIMEOUT_MS = 30_000;

export function createFront(deps: FrontDeps): Front {
  const { settings, part, ledger, pump, deliver, control, problems, clock, log, rssBytes } = deps;
  const who = { version: VERSION, runtime: runtimeName };
  const about = { ...settings, ...who };
  const metrics = once(async () => {
    const { createPrometheus } = await import("./meter/prometheus.ts");
    return createPrometheus({ ledger, holdings: pump, log, ...who, process: { rssBytes } });
  });
  const deadDesk = once(async () =>
    (await import("./batch/dead_desk.ts")).createDeadDesk({
      files: nodeFiles,
      dataDir: part?.deadDir ?? settings.dataDir,
      clock,
      log,
      write: (...rows) => app.again(...rows),
    })
  );
  const queries = once(async () =>
    (await import("./query/queries.ts")).createQueries({
      ask: deliver.ask,
      database: settings.clickhouse[0]!.database,
      table: settings.table,
      clock,
    })
  );
  const page = createPage(
    part?.page ?? { ledger, holdings: pump, control, clock, problems, about },
    clock,
  );
  const app = createApp({
    intake: pump,
    tables: deliver.tables,
    ledger,
    control: part ?? control,
    page,
    clock,
    log,
    metrics: part?.metrics ?? (async () => await (await metrics.get()).text()),
    version: VERSION,
    queries: queries.get,
    deadLetters: deadDesk.get,
    settings: { ...settings, bodyTimeoutMs: BODY_TIMEOUT_MS },
  });
  return {
    fetch: app.fetch,
    async endQuestions() {
      (await queries.made())?.close();
      (await deadDesk.made())?.close();
    },
    letGo: page.letGo,
    close: () => page.close(),
  };
}

/** Made when it is wanted first, and then kept. */
function once<T>(make: () => Promise<T>) {
  let made: Promise<T> | null = null;
  return { get: () => made ??= make(), made: () => made };
}
