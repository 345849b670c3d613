/** What the keeper is made with: its limits, and what it works with. */

import type { Ledger, Log, Refused, Spool } from "../contracts.ts";
import type { Budget } from "./budget.ts";
import type { Lane } from "./lane.ts";
import type { Schedule } from "./schedule.ts";

export interface KeeperLimits {
  /** Rows are on disk before they count as taken. */
  readonly diskFirst: boolean;
  /** On disk at most. */
  readonly maxSpoolBytes: number;
}

export interface KeeperDeps {
  readonly schedule: Schedule;
  readonly budget: Budget;
  readonly ledger: Ledger;
  readonly log: Log;
  /** Null where there is no disk to use. */
  readonly spool: Spool | null;
  readonly limits: KeeperLimits;
  /** Rows came, or went unfilled. `ready`: a batch may be sent that could not be before. */
  readonly onChange: (lane: Lane, ready: boolean) => void;
  readonly refuse: (reason: string) => Refused;
}
