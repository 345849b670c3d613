/** What the pump is made with: its limits, and the rooms and tools that it works with. */

import type { Ack, Clock, DeadRow, Ledger, Log, Sink, Spool } from "../contracts.ts";
import type { BudgetLimits } from "./budget.ts";
import type { HeldBatch } from "./held.ts";
import type { FillLimits } from "./lane.ts";
import type { KeeperLimits } from "./keeper_deps.ts";
import type { ScheduleLimits } from "./schedule.ts";

export interface PumpOptions {
  readonly fill: FillLimits;
  readonly budget: BudgetLimits;
  readonly concurrency: number;
  /** What a taken chunk has reached once its ticket's `kept` says so; `disk` needs a spool. */
  readonly reached: Exclude<Ack, "clickhouse">;
  /** On disk at most; Infinity without a spool. */
  readonly maxSpoolBytes: number;
}

export function scheduleLimits({ fill, concurrency }: PumpOptions): ScheduleLimits {
  return { ...fill, concurrency };
}

export function keeperLimits({ reached, maxSpoolBytes }: PumpOptions): KeeperLimits {
  return { diskFirst: reached === "disk", maxSpoolBytes };
}

export interface PumpDeps {
  readonly sink: Sink;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly log: Log;
  /** Null where there is no disk to use. */
  readonly spool: Spool | null;
  /** Keeps rows that ClickHouse refuses for good. Null = kept, else why not: the batch then waits. */
  readonly bury: (
    batch: HeldBatch,
    dead: readonly DeadRow[],
    rows: readonly string[],
  ) => Promise<string | null>;
}
