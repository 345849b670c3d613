/** A pump with a clock, a sink and a ledger that the test owns. */

import assert from "node:assert/strict";
import type { Chunk, DeadRow, Taken, Ticket } from "../../src/contracts.ts";
import { Pump, type PumpOptions } from "../../src/batch/pump.ts";
import { DONE } from "../../src/kernel/result.ts";
import { createLedger, type MeteredLedger } from "../../src/meter/ledger.ts";
import { type LogLine, memoryLog } from "../kit/chunks.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { type Script, ScriptedSink } from "../kit/scripted_sink.ts";

export interface Bench {
  readonly pump: Pump;
  readonly sink: ScriptedSink;
  readonly clock: ManualClock;
  readonly ledger: MeteredLedger;
  readonly buried: {
    readonly table: string;
    readonly dead: readonly DeadRow[];
    readonly rows: readonly string[];
  }[];
  readonly lines: LogLine[];
  /** Takes, and fails the test when it is refused. */
  take(chunk: Chunk): Ticket;
}

export interface BenchOptions {
  readonly maxRows?: number;
  readonly maxBytes?: number;
  readonly flushIntervalMs?: number;
  readonly idleIntervalMs?: number | null;
  readonly backlog?: number;
  readonly backlogBytes?: number;
  readonly concurrency?: number;
  readonly script?: Script;
}

export function bench(o: BenchOptions = {}): Bench {
  const clock = new ManualClock();
  const sink = new ScriptedSink(o.script, () => clock.monotonicMs());
  const ledger = createLedger();
  const log = memoryLog();
  const buried: { table: string; dead: readonly DeadRow[]; rows: readonly string[] }[] = [];
  const options: PumpOptions = {
    fill: {
      maxRows: o.maxRows ?? 10,
      maxBytes: o.maxBytes ?? 1_000_000,
      flushIntervalMs: o.flushIntervalMs ?? 1000,
      idleIntervalMs: o.idleIntervalMs ?? null,
    },
    budget: { maxRows: o.backlog ?? 1000, maxBytes: o.backlogBytes ?? 1_000_000 },
    concurrency: o.concurrency ?? 4,
    reached: "memory",
    maxSpoolBytes: Infinity,
    keyWindowMs: 3_600_000,
  };
  const pump = new Pump(options, {
    sink,
    ledger,
    clock,
    log,
    deadLetters: {
      write: (batch, dead, rows) => {
        buried.push({ table: batch.table, dead, rows });
        return Promise.resolve(DONE);
      },
    },
    spool: null,
  });
  const take = (chunk: Chunk) => {
    const taken = pump.take(chunk);
    if (taken.kind === "refused") throw new Error(`refused: ${taken.reason}`);
    return taken.ticket;
  };
  return { pump, sink, clock, ledger, buried, lines: log.lines, take };
}

/** The books balance, and what is measured where it is held agrees with what was counted. */
export function assertBooks({ pump, ledger }: Bench): void {
  const { received, recovered, rejected, stored, dead, held, lost } = ledger.totals();
  assert.equal(received + recovered, rejected + stored + dead + held + lost);
  assert.equal(pump.rows(), held);
  assert.equal([...pump.byTable().values()].reduce((sum, rows) => sum + rows, 0), held);
  assert.ok(
    (held === 0) === (pump.memoryBytes() === 0),
    `${pump.memoryBytes()} bytes, ${held} rows`,
  );
}

export function refused(taken: Taken): { why: string; reason: string; retryAfterS: number } {
  assert.equal(taken.kind, "refused");
  const { why, reason, retryAfterS } = taken as Extract<Taken, { kind: "refused" }>;
  assert.ok(
    Number.isInteger(retryAfterS) && retryAfterS >= 1 && retryAfterS <= 30,
    `${retryAfterS}`,
  );
  return { why, reason, retryAfterS };
}
