/**
 * The running collector as HTTP, NATS and signals see it: what state it is in, whether it is ready,
 * and the one path by which it stops.
 */

import type {
  Clock,
  Control,
  Holdings,
  Intake,
  Ledger,
  Log,
  Order,
  State,
  Status,
} from "./contracts.ts";

/** What stopping and pausing need of the room where rows are held. */
export interface HeldRows extends Holdings, Pick<Intake, "closed"> {
  pause(): void;
  resume(): void;
  flush(waitMs: number): Promise<boolean>;
  close(): void;
  drained(waitMs: number): Promise<boolean>;
  spill(): Promise<void>;
  abandon(): void;
  serverIsBack(): void;
  probeDisk(): Promise<void>;
  /** What keeps rows from flowing, for people: of the server, of the disk, and by table. */
  troubles(): {
    readonly server: string | null;
    readonly disk: string | null;
    readonly tables: ReadonlyMap<string, string>;
  };
}

/** Asked for at each decision. */
export interface ControlLimits {
  /** ClickHouse's addresses, safe to log. */
  readonly clickhouse: string;
  readonly flushIntervalMs: number;
  readonly shutdownTimeoutMs: number;
}

export interface ControlDeps {
  readonly group: string;
  readonly id: string;
  readonly version: string;
  readonly runtime: string;
  readonly limits: () => ControlLimits;
  readonly pump: HeldRows;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly log: Log;
  readonly recovering: () => boolean;
  /** Is ClickHouse there? Never rejects. */
  readonly ping: () => Promise<boolean>;
}

export interface CollectorControl extends Control {
  /** Resolves when, after `stop`, nothing is held any more: stored, or given up. */
  readonly drained: Promise<void>;
  /**
   * @param listener is called after each change of the state that somebody made, until the answer is;
   * with what was asked for whenever somebody asks, also where that changes nothing.
   */
  watch(listener: (asked?: Order) => void): () => void;
  /** Everything has ended but the answers to those who wait for the stop. */
  stopped(): void;
  /** Ends the pings. */
  close(): void;
}

/** ClickHouse is asked this often whether it is there; INSERTs tell sooner. */
const PING_MS = 2_000;
/** A row that waits longer than this many flush intervals, and this long, is told by `/readyz`. */
const LATE_FLUSHES = 10;
const LATE_LEAST_MS = 60_000;
/** A disk that hangs at the end must not hold up the end. */
const SPILL_MS = 5_000;

export function createControl(deps: ControlDeps): CollectorControl {
  const { pump, ledger, clock, log } = deps;
  const startedMs = clock.monotonicMs();
  let draining = false;
  let ended = false;
  let reachable = false;
  let cancelPing = () => {};
  const listeners = new Set<(asked?: Order) => void>();
  const changed = (asked?: Order) => listeners.forEach((listener) => listener(asked));
  let tellDrained = () => {};
  let tellStopped = () => {};
  const drained = new Promise<void>((resolve) => tellDrained = resolve);
  const stopped = new Promise<void>((resolve) => tellStopped = resolve);

  const ping = async () => {
    void pump.probeDisk();
    const answered = await deps.ping();
    if (ended) return;
    if (answered !== reachable) {
      if (answered) {
        log.info("ClickHouse is there", { server: deps.limits().clickhouse });
        pump.serverIsBack();
      } else log.warn("ClickHouse is away", { server: deps.limits().clickhouse });
    }
    reachable = answered;
    cancelPing = clock.after(PING_MS, () => void ping());
  };
  void ping();

  function state(): State {
    if (ended) return "stopped";
    if (draining) return "draining";
    if (pump.closed() === "paused") return "paused";
    const { server, disk, tables } = pump.troubles();
    return server !== null || disk !== null || tables.size > 0 ? "degraded" : "running";
  }

  function status(): Status {
    const troubles = pump.troubles().tables;
    return {
      group: deps.group,
      id: deps.id,
      state: state(),
      version: deps.version,
      runtime: deps.runtime,
      uptime_s: Math.floor((clock.monotonicMs() - startedMs) / 1000),
      ledger: ledger.totals(),
      oldest_s: Math.round(pump.oldestMs()) / 1000,
      memory_bytes: pump.memoryBytes(),
      spool_bytes: pump.spoolBytes(),
      recovering: deps.recovering(),
      tables: Object.fromEntries(
        [...ledger.tableTotals()].map(([table, totals]) => {
          const trouble = troubles.get(table);
          return [
            table,
            trouble === undefined
              ? { ...totals, state: "ok" as const }
              : { ...totals, state: "trouble" as const, trouble },
          ];
        }),
      ),
    };
  }

  function unready(): string[] {
    const { server, disk, tables } = pump.troubles();
    const reasons: string[] = [];
    if (draining) reasons.push("draining");
    if (pump.closed() === "paused") reasons.push("paused");
    if (server !== null || !reachable) {
      reasons.push(`clickhouse: ${server ?? "does not answer"}`);
    }
    if (disk !== null) reasons.push(`spool: ${disk}`);
    for (const [table, trouble] of tables) reasons.push(`table ${table}: ${trouble}`);
    const lateMs = Math.max(LATE_LEAST_MS, LATE_FLUSHES * deps.limits().flushIntervalMs);
    if (pump.oldestMs() > lateMs) {
      reasons.push(`oldest undelivered row older than ${lateMs / 1000} s`);
    }
    return reasons;
  }

  /** The time is up: what can be kept goes to disk, the rest is lost. */
  async function giveUp(): Promise<void> {
    const fields = { shutdown_timeout_ms: deps.limits().shutdownTimeoutMs };
    let cancel = () => {};
    const late = new Promise<void>((resolve) => cancel = clock.after(SPILL_MS, resolve));
    await Promise.race([pump.spill(), late]);
    cancel();
    pump.abandon();
    const { held, lost } = ledger.totals();
    if (held > 0) log.warn(`${held} rows wait on disk for the next start`, fields);
    if (lost > 0) log.error(`${lost} rows could not be stored in time`, fields);
  }

  async function drain(why: string, withinMs: number): Promise<void> {
    log.info("draining", { reason: why, held: pump.rows() });
    cancelPing();
    pump.close();
    if (!await pump.drained(withinMs)) await giveUp();
    // What of the spool is not read yet is for the next start.
    else pump.abandon();
    tellDrained();
    await stopped;
  }

  return {
    status,
    unready,
    drained,
    watch(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    pause() {
      log.info("paused: new events are refused");
      pump.pause();
      changed("pause");
    },
    resume() {
      log.info("resumed");
      pump.resume();
      changed("resume");
    },
    flush: (waitMs) => pump.flush(waitMs),
    stop(why, withinMs = deps.limits().shutdownTimeoutMs) {
      if (!draining) {
        draining = true;
        void drain(why, withinMs);
      }
      changed("stop");
      return stopped;
    },
    stopped() {
      ended = true;
      changed();
      tellStopped();
    },
    close() {
      ended = true;
      cancelPing();
    },
  };
}
