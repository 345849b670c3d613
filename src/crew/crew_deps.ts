/** What a crew is made with, and what it can be told. */

import type { Clock, Counts, Log, Report, WorkerProcess } from "../contracts.ts";

export interface CrewDeps {
  readonly size: number;
  /** `ended` is to be called with the last report of a worker that has drained. */
  readonly spawn: (number: number, ended: (report: Report) => void) => WorkerProcess;
  /** What worker `number` is to be started with. */
  readonly settings: (number: number) => unknown;
  /** How many sockets each is to listen with. */
  readonly listeners: number;
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

export interface Crew {
  /** Resolves when all listen, else with why one cannot; then none is left. */
  start(): Promise<string | null>;
  /** Asks every worker for a report; takes 2 s at most. */
  refresh(): Promise<void>;
  reports(): readonly Report[];
  /** Workers that are not there at the moment, for people. */
  down(): readonly string[];
  cpuSeconds(): number;
  pause(): void;
  resume(): void;
  flush(waitMs: number): Promise<boolean>;
  /**
   * Gives every worker the settings that `CrewDeps.settings` has for it by then. Resolves with why one
   * does not take them, or null; who is not there gets them at its next start.
   */
  adopt(): Promise<string | null>;
  /** Has every worker that is there do this with its port. Resolves with why one cannot, or null. */
  door(act: string, given: unknown, withinMs: number): Promise<string | null>;
  /** Resolves when all have ended. */
  stop(why: string, withinMs?: number): Promise<void>;
  /** Has all give up what they hold, and ends them; takes about a second at most. */
  abandon(): Promise<void>;
}
