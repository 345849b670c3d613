/** Several processes that are one collector: what each of them tells, and how it is spoken to. */

import type { Status } from "./control.ts";
import type { Counts } from "./ledger.ts";

/** What one process of several tells of itself: one moment of it. */
export interface Report {
  readonly status: Status;
  readonly unready: readonly string[];
  /** Since it started. */
  readonly counts: Counts;
  readonly held: {
    readonly rows: number;
    readonly memoryBytes: number;
    readonly spoolBytes: number;
    readonly oldestMs: number;
    readonly byTable: Readonly<Record<string, number>>;
  };
  readonly rssBytes: number;
  readonly cpuSeconds: number;
  readonly insertMsP50: number;
  readonly insertMsP99: number;
}

/** A worker's process; it answers `start adopt report flush pause resume stop abandon door`. */
export interface WorkerProcess {
  readonly pid: number;
  call<T>(method: string, given?: unknown, withinMs?: number): Promise<T>;
  kill(): void;
  readonly exited: Promise<string>;
}

/** What a worker answers to `start`. */
export type Started = { readonly report: Report } | { readonly problem: string };
