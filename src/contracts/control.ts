/** The collector as HTTP, NATS and the page see it, and what they may ask of it. */

import type { LedgerTotals } from "./ledger.ts";

export type State = "running" | "paused" | "draining" | "degraded" | "stopped";
export type Command = "status" | "flush" | "pause" | "resume" | "stop";
/** Commands that decide what becomes of a collector. */
export type Order = "pause" | "resume" | "stop";

/** `GET /api/status` and the answer to `status` over NATS. */
export interface Status {
  readonly group: string;
  readonly id: string;
  readonly state: State;
  readonly version: string;
  readonly runtime: string;
  readonly uptime_s: number;
  readonly ledger: LedgerTotals;
  readonly oldest_s: number;
  readonly memory_bytes: number;
  readonly spool_bytes: number;
  /** What an earlier process left in the spool is still being read; `held` goes on growing. */
  readonly recovering: boolean;
  readonly tables: Readonly<
    Record<string, LedgerTotals & { readonly state: "ok" | "trouble"; readonly trouble?: string }>
  >;
}

/** What remote control and HTTP may ask of the running collector. */
export interface Control {
  status(): Status;
  /** Empty = ready. */
  unready(): readonly string[];
  pause(): void;
  resume(): void;
  /** Seals what is open and waits until all that was held at the call is settled; false at `waitMs`. */
  flush(waitMs: number): Promise<boolean>;
  /**
   * Begins to stop; resolves when everything is drained or given up, for which it takes at most
   * `withinMs`, shutdown-timeout unless given. Idempotent.
   */
  stop(why: string, withinMs?: number): Promise<void>;
}
