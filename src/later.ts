/**
 * What a collector answers besides taking rows: metrics, questions about stored events, dead letters.
 * The first answer needs none of it, so each is loaded when it is wanted first: their libraries cost
 * time and memory at every start. Wires rooms, as `collector.ts` does.
 */

import type { DeadDeskOptions } from "./dead/dead_desk.ts";
import type { Ask, Clock, DeadLetters, Holdings, Log, Queries } from "./contracts.ts";
import type { MeteredLedger } from "./meter/ledger.ts";
import { nodeFiles } from "./runtime/files.ts";
import { runtimeName } from "./runtime/host.ts";
import type { Settings } from "./settings/settings.ts";
import { VERSION } from "./version.ts";

export interface LaterDeps {
  readonly ledger: MeteredLedger;
  readonly holdings: Holdings;
  readonly clock: Clock;
  readonly log: Log;
  readonly rssBytes: () => number;
  readonly ask: Ask;
  /** Asked for at each question. */
  readonly settings: () => Pick<Settings, "clickhouse" | "table">;
  /** The folder that `dead/` lies in. */
  readonly deadDir: string;
  /** Takes rows again. */
  readonly write: DeadDeskOptions["write"];
}

export interface Later {
  /** Prometheus' text format. */
  metrics(): Promise<string>;
  queries(): Promise<Queries>;
  deadLetters(): Promise<DeadLetters>;
  /** Ends what is under way. */
  close(): Promise<void>;
}

export function createLater(deps: LaterDeps): Later {
  const { log, clock } = deps;
  const prometheus = once(async () =>
    (await import("./meter/prometheus.ts")).createPrometheus({
      ...deps,
      version: VERSION,
      runtime: runtimeName,
      rssBytes: deps.rssBytes,
    })
  );
  const desk = once(async () =>
    (await import("./dead/dead_desk.ts")).createDeadDesk({
      files: nodeFiles,
      dataDir: deps.deadDir,
      clock,
      log,
      write: deps.write,
    })
  );
  const queries = once(async () =>
    (await import("./deliver/questions.ts")).createQueries({
      ask: deps.ask,
      clock,
      source() {
        const { clickhouse, table } = deps.settings();
        return { database: clickhouse[0]!.database, table };
      },
    })
  );
  return {
    metrics: async () => await (await prometheus.get()).text(),
    queries: queries.get,
    deadLetters: desk.get,
    async close() {
      (await queries.made())?.close();
      (await desk.made())?.close();
    },
  };
}

/** Makes something when it is wanted first. */
function once<T>(make: () => Promise<T>) {
  let made: Promise<T> | null = null;
  return { get: () => made ??= make(), made: () => made };
}
