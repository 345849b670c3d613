/** What a crew is made with. */

import type { Clock, Counts, Log, Report, WorkerProcess } from "../contracts.ts";

export interface CrewDeps {
  readonly size: number;
  /** `ended` is to be called with the last report of a worker that has drained. */
  readonly spawn: (number: number, ended: (report: Report) => void) => WorkerProcess;
  /** What worker `number` is to be started with. */
  readonly settings: (number: number) => unknown;
  readonly joint: {
    took(worker: number, counts: Counts): void;
    died(worker: number): void;
    settle(worker: number, fate: "stored" | "lost"): void;
    owed(): ReadonlyMap<string, number>;
  };
  /** Of rows that were acknowledged, and that nobody finds after a death. */
  readonly fate: () => "stored" | "lost";
  /** Told after each round of reports, about once a second. */
  readonly polled: () => void;
  /** How long a worker may take to stop before it is killed. */
  readonly stopMs: () => number;
  readonly clock: Clock;
  readonly log: Log;
}
