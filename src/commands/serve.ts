/**
 * `shishi serve`: settings → collector → signals → an exit code. The first signal drains, the second
 * ends at once. The last line on stderr is the ledger.
 */

import process from "node:process";
import { type Collector, startCollector } from "../collector.ts";
import type { LedgerTotals, Log } from "../contracts.ts";
import { createLog } from "../runtime/log.ts";
import { onStopSignal } from "../runtime/signals.ts";
import { helpText } from "../settings/help.ts";
import type { CliCommand } from "./command.ts";
import { settingsOrExitCode } from "./load.ts";

export const serve: CliCommand = {
  name: "serve",
  summary: "run the collector (the default command)",
  help: () => helpText("serve"),
  async run(argv) {
    const loaded = settingsOrExitCode(argv);
    if (typeof loaded === "number") return loaded;
    const { settings, warnings } = loaded;
    const log = createLog(settings.logLevel, settings.logFormat);
    for (const warning of warnings) log.warn(warning);
    let collector: Collector;
    try {
      collector = await startCollector(settings, log);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log.error(`cannot start: ${reason}`);
      return 1;
    }
    return await untilStopped(collector, log);
  },
};

async function untilStopped(collector: Collector, log: Log): Promise<number> {
  let signals = 0;
  const forget = onStopSignal((signal) => {
    signals++;
    if (signals === 1) {
      void collector.control.stop(signal);
      return;
    }
    log.warn("second signal: ending at once", { signal });
    process.exit(lastLine(collector.abandon(), log));
  });
  const totals = await collector.finished;
  forget();
  return lastLine(totals, log);
}

/** @returns 0 when everything received is accounted for outside this process, else 1. */
function lastLine(totals: LedgerTotals, log: Log): number {
  const say = totals.lost > 0 ? log.error : log.info;
  say(totals.lost > 0 ? `stopped; ${totals.lost} rows were lost` : "stopped", { ...totals });
  return totals.lost > 0 ? 1 : 0;
}
