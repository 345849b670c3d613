/**
 * The life of a collector, as HTTP, NATS and signals see it: what state it is in, whether it is ready, and
 * the one path by which it stops.
 */

import type {
  Clock,
  Control,
  Holdings,
  Ledger,
  Log,
  Order,
  SourceStatus,
  State,
  Status,
} from "./contracts.ts";
import { within } from "./kernel/time.ts";

/** `leaving`: a stop was ordered, but events are still taken until balancers look away (drain-delay). */
type Phase = "starting" | "running" | "paused" | "leaving" | "draining" | "stopped";

/** The phases that may follow each. An order for another one changes nothing, and is no error. */
const NEXT: Readonly<Record<Phase, readonly Phase[]>> = {
  // Paused or stopping already, where it follows a collector that is.
  starting: ["running", "paused", "leaving", "draining", "stopped"],
  running: ["paused", "leaving", "draining"],
  paused: ["running", "draining"],
  leaving: ["draining"],
  draining: ["stopped"],
  stopped: [],
};

/** Not ready any more, for good. */
const STOPPING: ReadonlySet<Phase> = new Set(["leaving", "draining", "stopped"]);

/** What stopping and pausing need of the room where rows are held. */
export interface HeldRows extends Holdings {
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
export interface Limits {
  /** ClickHouse's addresses, safe to log. */
  readonly clickhouse: string;
  readonly flushIntervalMs: number;
  readonly shutdownTimeoutMs: number;
  /** At a stop: how long events are still taken while `/readyz` says no. */
  readonly drainDelayMs: number;
}

export interface LifecycleOptions {
  readonly group: string;
  readonly id: string;
  readonly version: string;
  readonly runtime: string;
  readonly limits: () => Limits;
  readonly pump: HeldRows;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly log: Log;
  readonly recovering: () => boolean;
  /** Absent: there are none. */
  readonly sources?: () => readonly SourceStatus[];
  /** Is ClickHouse there? Never rejects. */
  readonly ping: () => Promise<boolean>;
}

/** ClickHouse is asked this often whether it is there; INSERTs tell sooner. */
const PING_MS = 2_000;
/** A row that waits longer than this many flush intervals, and this long, makes `/readyz` say no. */
const LATE_FLUSHES = 10;
const LATE_LEAST_MS = 60_000;
/** A disk that hangs at the end must not hold up the end. */
const SPILL_MS = 5_000;

export class Lifecycle implements Control {
  readonly #options: LifecycleOptions;
  readonly #startedMs: number;
  readonly #listeners = new Set<(asked?: Order) => void>();
  readonly #drained = Promise.withResolvers<void>();
  readonly #stopped = Promise.withResolvers<void>();
  #phase: Phase = "starting";
  #reachable = false;
  #cancelPing = () => {};
  #endLeaving: (() => void) | null = null;

  constructor(options: LifecycleOptions) {
    this.#options = options;
    this.#startedMs = options.clock.monotonicMs();
    void this.#ping();
  }

  /** Resolves when, after `stop`, nothing is held any more: stored, or given up. */
  get drained(): Promise<void> {
    return this.#drained.promise;
  }

  /** It listens. */
  started(): void {
    if (this.#phase === "starting") this.#step("running");
  }

  /**
   * @param listener is called after each change of the state by an order, until the answer is; with the
   * order whenever one comes, also where it changes nothing.
   */
  watch(listener: (asked?: Order) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  pause(): void {
    if (this.#step("paused")) {
      this.#options.log.info("paused: new events are refused");
      this.#options.pump.pause();
    }
    this.#changed("pause");
  }

  resume(): void {
    if (this.#phase === "paused" && this.#step("running")) {
      this.#options.log.info("resumed");
      this.#options.pump.resume();
    }
    this.#changed("resume");
  }

  flush(waitMs: number): Promise<boolean> {
    return this.#options.pump.flush(waitMs);
  }

  stop(why: string, withinMs = this.#options.limits().shutdownTimeoutMs): Promise<void> {
    const { drainDelayMs } = this.#options.limits();
    if (drainDelayMs > 0 && this.#step("leaving")) this.#leave(why, withinMs, drainDelayMs);
    else if (this.#phase !== "leaving" && this.#step("draining")) void this.#drain(why, withinMs);
    this.#changed("stop");
    return this.#stopped.promise;
  }

  hurry(): boolean {
    if (this.#endLeaving === null) return false;
    this.#endLeaving();
    return true;
  }

  /** Everything has ended but the answers to commands that wait for the stop. */
  ended(): void {
    this.#step("stopped");
    this.#cancelPing();
    this.#changed();
    this.#stopped.resolve();
  }

  status(): Status {
    const { group, id, version, runtime, pump, ledger, clock, recovering } = this.#options;
    const troubles = pump.troubles().tables;
    const tokens = ledger.tokenTotals();
    const changes = ledger.tableChanges();
    const subjects = ledger.subjects();
    const sources = this.#sources();
    return {
      group,
      id,
      state: this.#state(),
      version,
      runtime,
      uptime_s: Math.floor((clock.monotonicMs() - this.#startedMs) / 1000),
      ledger: ledger.totals(),
      oldest_s: Math.round(pump.oldestMs()) / 1000,
      memory_bytes: pump.memoryBytes(),
      spool_bytes: pump.spoolBytes(),
      recovering: recovering(),
      ...(subjects.size > 0 ? { certificates: Object.fromEntries(subjects) } : {}),
      ...(Object.values(changes).some((count) => count > 0)
        ? { table_changes: { ...changes } }
        : {}),
      ...(tokens.size > 0 ? { tokens: Object.fromEntries(tokens) } : {}),
      ...(sources.length > 0 ? { sources } : {}),
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

  unready(): string[] {
    const { pump, limits } = this.#options;
    const { server, disk, tables } = pump.troubles();
    const reasons: string[] = [];
    if (STOPPING.has(this.#phase)) reasons.push("draining");
    if (this.#phase === "paused") reasons.push("paused");
    if (server !== null || !this.#reachable) {
      reasons.push(`clickhouse: ${server ?? "does not answer"}`);
    }
    if (disk !== null) reasons.push(`spool: ${disk}`);
    for (const [table, trouble] of tables) reasons.push(`table ${table}: ${trouble}`);
    const lateMs = Math.max(LATE_LEAST_MS, LATE_FLUSHES * limits().flushIntervalMs);
    if (pump.oldestMs() > lateMs) {
      reasons.push(`oldest undelivered row older than ${lateMs / 1000} s`);
    }
    return reasons;
  }

  /** @returns whether the phase may follow the one before, and so has. */
  #step(phase: Phase): boolean {
    if (!NEXT[this.#phase].includes(phase)) return false;
    this.#phase = phase;
    return true;
  }

  #changed(asked?: Order): void {
    for (const listener of [...this.#listeners]) listener(asked);
  }

  #state(): State {
    if (this.#phase === "running" || this.#phase === "starting") {
      const { server, disk, tables } = this.#options.pump.troubles();
      const troubled = server !== null || disk !== null || tables.size > 0 ||
        this.#sources().some(isAway);
      return troubled ? "degraded" : "running";
    }
    return this.#phase === "leaving" ? "draining" : this.#phase;
  }

  #sources(): readonly SourceStatus[] {
    return this.#options.sources?.() ?? [];
  }

  async #ping(): Promise<void> {
    const { pump, ping, limits, log, clock } = this.#options;
    void pump.probeDisk();
    const answered = await ping();
    if (this.#phase === "stopped") return;
    if (answered && !this.#reachable) {
      log.info("ClickHouse is there", { server: limits().clickhouse });
      pump.serverIsBack();
    } else if (!answered && this.#reachable) {
      log.warn("ClickHouse is away", { server: limits().clickhouse });
    }
    this.#reachable = answered;
    this.#cancelPing = clock.after(PING_MS, () => void this.#ping());
  }

  /** Balancers learn of a stop only when they ask next; until then what they send is taken. */
  #leave(why: string, withinMs: number, delayMs: number): void {
    const { log, clock } = this.#options;
    log.info("stopping: not ready any more; events are taken for a while", {
      reason: why,
      drain_delay_ms: delayMs,
    });
    const end = () => {
      cancel();
      this.#endLeaving = null;
      if (this.#step("draining")) void this.#drain(why, withinMs);
    };
    const cancel = clock.after(delayMs, end);
    this.#endLeaving = end;
  }

  async #drain(why: string, withinMs: number): Promise<void> {
    const { log, pump } = this.#options;
    log.info("draining", { reason: why, held: pump.rows() });
    this.#cancelPing();
    pump.close();
    if (!await pump.drained(withinMs)) await this.#giveUp();
    // What of the spool is not read yet is for the next start.
    else pump.abandon();
    this.#drained.resolve();
  }

  /** The time is up: what can be kept goes to disk, the rest is lost. */
  async #giveUp(): Promise<void> {
    const { pump, ledger, log, limits, clock } = this.#options;
    const fields = { shutdown_timeout_ms: limits().shutdownTimeoutMs };
    await within(clock, SPILL_MS, pump.spill(), undefined);
    pump.abandon();
    const { held, lost } = ledger.totals();
    if (held > 0) log.warn(`${held} rows wait on disk for the next start`, fields);
    if (lost > 0) log.error(`${lost} rows could not be stored in time`, fields);
  }
}

/** It reads nothing, for a reason of its own. */
function isAway({ state, why }: SourceStatus): boolean {
  return state === "waiting" || state === "stopped" || state === "connecting" && why !== null;
}
