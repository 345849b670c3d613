/** What each part of a collector gets of the settings. Wires rooms, as `collector.ts` does. */

import type { PumpOptions } from "./batch/pump_deps.ts";
import type { DeliverSettings } from "./deliver/deliver.ts";
import type { Settings } from "./settings/settings.ts";

export function deliverSettings(settings: Settings): DeliverSettings {
  const { clickhouse, table, createTable, insertTimeoutMs, compress } = settings;
  return { endpoints: clickhouse, eventsTable: table, createTable, insertTimeoutMs, compress };
}

export function pumpOptions(settings: Settings): PumpOptions {
  const { flushIntervalMs, idleIntervalMs } = settings;
  return {
    fill: {
      maxRows: settings.maxBlockSize,
      maxBytes: settings.maxBlockBytes,
      flushIntervalMs,
      idleIntervalMs,
    },
    budget: { maxRows: settings.backlog, maxBytes: settings.backlogBytes },
    concurrency: settings.concurrency,
    reached: settings.ack === "memory" ? "memory" : "disk",
    maxSpoolBytes: settings.spoolMaxBytes,
  };
}
