/** What may happen to batches in memory, and the books of every row and of everybody who reads one. */

import assert from "node:assert/strict";
import fc from "fast-check";
import type { PumpOptions } from "../../src/batch/pump.ts";
import type { Batch } from "../../src/contracts.ts";
import { balance } from "../../src/meter/ledger.ts";
import { chunkOf } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import * as sink from "../kit/scripted_sink.ts";
import { DATA, type PumpKit, pumpKit } from "../batch/spool_kit.ts";
import { deadOn } from "./disk_life.ts";
import { checkSteps } from "./steps.ts";

type Answer = "stored" | "dead" | "silent" | "busy" | "table" | "crash";

const ack = fc.constantFrom("disk" as const, "memory" as const);
const concurrency = fc.integer({ min: 1, max: 4 });

export const config = fc.record({
  ack,
  concurrency,
  maxRows: fc.integer({ min: 1, max: 12 }),
  backlogBytes: fc.integer({ min: 100_000, max: 600_000 }),
});
type Config = typeof config extends fc.Arbitrary<infer T> ? T : never;

export const ending = fc.constantFrom("finish", "finish", "abandon");

export const command = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({
      do: fc.constant("take" as const),
      table: fc.nat(2),
      pads: fc.array(fc.nat(3000), { minLength: 1, maxLength: 8 }),
      // Pieces of 64 KiB are not copied, unless they are lent.
      more: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 25_000),
      lent: fc.boolean(),
    }),
  },
  {
    weight: 16,
    arbitrary: fc.record({
      do: fc.constant("answer" as const),
      which: fc.nat(3),
      with: fc.constantFrom<Answer>("stored", "stored", "dead", "silent", "busy", "table", "crash"),
    }),
  },
  { weight: 8, arbitrary: fc.record({ do: fc.constant("advance" as const), ms: fc.nat(40_000) }) },
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("release" as const),
      which: fc.array(fc.nat(5), { minLength: 1, maxLength: 12 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("fault" as const),
      on: fc.constantFrom("write", "sync", "syncFolder", "create", "append", "read", "remove"),
      times: fc.constantFrom(1, 2, 1000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("vanish" as const), table: fc.option(fc.nat(2)) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("adopt" as const), ack, elsewhere: fc.boolean() }),
  },
  {
    weight: 14,
    arbitrary: fc.record({
      do: fc.constantFrom(
        ...["shut", "open", "open", "heal", "probe", "probe", "spill", "flush"] as const,
      ),
    }),
  },
);
export type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;

export class Run {
  /** As they were offered, by number, and whether that was acknowledged. */
  readonly rows: { readonly line: string; kept: boolean }[] = [];
  /** How often each has been stored. */
  readonly arrived = new Map<number, number>();
  /** Pieces of batches that are stored whose memory is free. */
  freed = 0;
  problem: unknown = null;
  /** What each batch was when it was sent first. */
  readonly #texts = new Map<string, string>();
  /** What an attempt was handed that is under way or has failed. */
  readonly #read = new Map<sink.Attempt, Pick<Batch, "body">>();

  private constructor(readonly config: Config, readonly kit: PumpKit) {
    kit.sink.script = (attempt) => {
      const { batch, text } = attempt;
      this.#read.set(attempt, { body: batch.body });
      const first = this.#texts.get(batch.id) ?? text;
      this.#texts.set(batch.id, text);
      if (first !== text) this.problem ??= new Error("another body under one id");
      if (text.split("\n").length - 1 !== batch.rows) {
        this.problem ??= new Error("rows are missing");
      }
      return "hold";
    };
  }

  static async start(config: Config): Promise<Run> {
    return new Run(config, await pumpKit(config));
  }

  async obey(command: Command): Promise<void> {
    const { gate, files, clock, pump } = this.kit;
    const { inFlight } = this.kit.sink;
    switch (command.do) {
      case "take":
        this.#take(command);
        break;
      case "answer":
        if (inFlight.length > 0) this.#answer(inFlight[command.which % inFlight.length]!, command);
        break;
      case "advance":
        await clock.advance(command.ms);
        break;
      case "release":
        for (const which of command.which) {
          gate.release(which);
          await settle();
        }
        break;
      case "fault":
        files.fail({ on: command.on as "write", code: "EIO", times: command.times });
        break;
      case "vanish":
        this.#vanish(command.table);
        break;
      case "adopt":
        pump.adopt(this.#options(command.ack), command.elsewhere);
        break;
      case "shut":
        gate.shut = true;
        break;
      case "open":
        gate.open();
        break;
      case "heal":
        files.heal();
        break;
      case "probe":
        void pump.probeDisk();
        break;
      case "spill":
        void pump.spill();
        break;
      case "flush":
        void pump.flush(1000);
        break;
    }
    await settle();
    this.#check();
  }

  #take({ table, pads, more, lent }: Command & { do: "take" }): void {
    const lines = pads.map((pad, at) => ({
      eventType: `type${pad % 3}`,
      n: this.rows.length + at,
      pad: String.fromCharCode(97 + pad % 26).repeat(pad + more),
    }));
    const chunk = { ...chunkOf(lines, { table: `t${table}` }), lent };
    const rows = lines.map((line) => ({ line: JSON.stringify(line), kept: false }));
    this.rows.push(...rows);
    const taken = this.kit.pump.take(chunk);
    if (lent) chunk.body.fill(0);
    if (taken.kind === "refused") return;
    const kept = () => rows.forEach((row) => row.kept = true);
    if (taken.ticket.kept === null) kept();
    else void taken.ticket.kept.then((refused) => refused === null && kept());
  }

  #answer(attempt: sink.Attempt, { with: kind }: { readonly with: Answer }): void {
    this.#check();
    if (kind === "crash") return attempt.crash(new Error("a bug in the sink"));
    if (kind === "silent") return attempt.answer(sink.unanswered());
    if (kind === "busy") return attempt.answer(sink.busy());
    if (kind === "table") return attempt.answer(sink.tableTrouble);
    this.#read.delete(attempt);
    const lines = attempt.text.split("\n").slice(0, -1);
    const isDead = (at: number) => kind === "dead" && at % 3 === 1;
    for (const [at, line] of lines.entries()) {
      const { n } = JSON.parse(line) as { n: number };
      assert.ok(this.rows[n]?.line === line, `row ${n} arrives changed`);
      if (!isDead(at)) this.arrived.set(n, (this.arrived.get(n) ?? 0) + 1);
    }
    const dead = [...lines.keys()].filter(isDead);
    attempt.answer(dead.length === 0 ? sink.stored : sink.deadRows(...dead));
  }

  #vanish(table: number | null): void {
    const folder = `${DATA}/spool${table === null ? "" : `/t${table}`}`;
    if (this.kit.files.paths().some((path) => path.startsWith(`${folder}/`))) {
      this.kit.files.deleteTree(folder);
    }
  }

  #options(reached: PumpOptions["reached"]): PumpOptions {
    const { maxRows, backlogBytes, concurrency } = this.config;
    return {
      fill: { maxRows, maxBytes: 1e6, flushIntervalMs: 1000, idleIntervalMs: null },
      budget: { maxRows: 1e6, maxBytes: backlogBytes },
      concurrency,
      reached,
      maxSpoolBytes: 1e9,
      keyWindowMs: 3_600_000,
    };
  }

  #check(): void {
    checkSteps();
    if (this.problem !== null) throw this.problem;
    for (const [{ text, batch }, handed] of this.#read) {
      assert.ok(sink.textOf(handed) === text, `${batch.id} changed while it may still be read`);
    }
    const totals = this.kit.ledger.totals();
    assert.equal(balance(totals), 0, "the books do not balance");
    assert.equal(totals.held, this.kit.pump.rows());
    assert.ok(this.kit.pump.memoryBytes() >= 0);
  }

  /** Everything flows again: what was acknowledged is somewhere, once, or was told as lost. */
  async finish(): Promise<void> {
    const { gate, files, clock, pump, ledger } = this.kit;
    gate.open();
    files.heal();
    for (let round = 0; round < 40 && (round === 0 || pump.rows() > 0); round++) {
      void pump.probeDisk();
      await clock.advance(40_000);
      while (this.kit.sink.inFlight.length > 0) {
        const attempt = this.kit.sink.inFlight[0]!;
        const { body } = attempt.batch;
        this.#answer(attempt, { with: "stored" });
        await settle();
        this.freed += body.filter(({ length }) => length === 0).length;
      }
    }
    assert.equal(pump.rows(), 0, "rows are held although everything flows");
    assert.equal(pump.memoryBytes(), 0, "bytes in memory, but no rows");
    assert.equal(pump.spoolBytes(), 0, "bytes on disk, but no rows");
    const dead = new Set(deadOn(files));
    let missing = 0;
    for (const [n, { kept }] of this.rows.entries()) {
      const times = this.arrived.get(n) ?? 0;
      assert.ok(times <= 1, `row ${n} arrived ${times} times`);
      if (kept && times === 0 && !dead.has(n)) missing++;
    }
    const { lost } = ledger.totals();
    assert.ok(missing <= lost, `${missing} rows are missing, ${lost} told as lost`);
    await clock.advance(400_000);
  }

  /** Given up in the middle; what comes afterwards finds what it was handed. */
  async abandon(): Promise<void> {
    const { gate, clock, pump, ledger } = this.kit;
    pump.abandon();
    await settle();
    this.#check();
    for (const [at, attempt] of this.kit.sink.inFlight.entries()) {
      this.#answer(attempt, { with: at % 2 === 0 ? "dead" : "silent" });
    }
    gate.open();
    await clock.advance(400_000);
    this.#check();
    assert.equal(ledger.totals().held, pump.rows());
  }
}
