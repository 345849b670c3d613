/**
 * Keeps a service manager informed: ready, reloading, stopping, a line of status, and beats for its
 * watchdog. The beats come from the same loop of events that answers requests: who is blocked does
 * not beat, and is started again by the manager.
 */

import type { Clock, Status } from "../contracts.ts";

/** Fulfilled by `runtime/notify.ts`. */
export interface Manager {
  tell(state: Readonly<Record<string, string | number>>): boolean;
  /** `WATCHDOG=1` is wanted this often; null = not at all. */
  readonly watchdogMs: number | null;
  monotonicUsec(): bigint;
}

export interface NoticesDeps {
  readonly manager: Manager;
  readonly status: () => Status;
  readonly clock: Clock;
  /** How long a stop may take once it has begun. */
  readonly stopMs: () => number;
}

export interface Notices {
  /** It listens. Beats and status lines begin. */
  ready(): void;
  /** To be called after a change of the state: a stop is told at once. */
  changed(): void;
  /** Settings are read again; to be followed by `reloaded`, whatever came of it. */
  reloading(): void;
  reloaded(): void;
  /** From now on the process `pid` is the service, and this one says nothing any more. */
  replacedBy(pid: number): void;
}

/** The line of status is looked at this often, and told when it has changed. */
const STATUS_MS = 5_000;
/** While it stops it asks for this much at least, again and again. */
const EXTEND_MS = 30_000;

export function createNotices({ manager, status, clock, stopMs }: NoticesDeps): Notices {
  const everyMs = Math.min(STATUS_MS, manager.watchdogMs ?? STATUS_MS);
  let cancel = () => {};
  let silent = false;
  let stopping = false;
  let told = "";

  function tell(state: Record<string, string | number>): void {
    if (!silent) manager.tell(state);
  }

  /** What has changed of the status, and a beat where one is wanted. */
  function beat(): void {
    const line = statusLine(status());
    const state = {
      ...(manager.watchdogMs === null ? {} : { WATCHDOG: 1 }),
      ...(line === told ? {} : { STATUS: line }),
      ...(stopping ? { EXTEND_TIMEOUT_USEC: EXTEND_MS * 1000 } : {}),
    };
    told = line;
    if (Object.keys(state).length > 0) tell(state);
    cancel = clock.after(everyMs, beat);
  }

  return {
    ready() {
      tell({ READY: 1 });
      beat();
    },
    changed() {
      if (stopping || status().state !== "draining") return;
      stopping = true;
      told = statusLine(status());
      const extendMs = Math.max(EXTEND_MS, stopMs());
      tell({ STOPPING: 1, STATUS: told, EXTEND_TIMEOUT_USEC: extendMs * 1000 });
    },
    reloading() {
      tell({ RELOADING: 1, MONOTONIC_USEC: String(manager.monotonicUsec()) });
    },
    reloaded: () => tell({ READY: 1 }),
    replacedBy(pid) {
      tell({ MAINPID: pid });
      silent = true;
      cancel();
    },
  };
}

/** One line for `systemctl status`. */
export function statusLine({ state, ledger, oldest_s, tables }: Status): string {
  const troubled = Object.values(tables).filter((table) => table.state === "trouble").length;
  const parts = [
    `${ledger.held} rows held`,
    ...(ledger.held > 0 ? [`oldest ${Math.round(oldest_s)} s`] : []),
    `${ledger.stored} stored`,
    ...(ledger.dead > 0 ? [`${ledger.dead} dead letters`] : []),
    ...(ledger.lost > 0 ? [`${ledger.lost} lost`] : []),
    ...(troubled > 0 ? [`${troubled} ${troubled === 1 ? "table" : "tables"} in trouble`] : []),
  ];
  return `${state}: ${parts.join(", ")}`;
}
