/**
 * A model of the pump that knows nothing of queues and schedules, only of promises: it obeys commands,
 * and keeps its own books of every row. What must be true is in `pump_promises.ts`.
 */

import assert from "node:assert/strict";
import type { Delivery } from "../../src/contracts.ts";
import { Pump, type PumpOptions } from "../../src/batch/pump.ts";
import { DONE } from "../../src/kernel/result.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { chunkOf, memoryLog } from "../kit/chunks.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import {
  type Attempt,
  busy,
  deadRows,
  ScriptedSink,
  stored,
  tableTrouble,
  unanswered,
} from "../kit/scripted_sink.ts";
import type { Answer, Command, Config } from "./pump_commands.ts";
import { checkAttempt, checkStep } from "./pump_promises.ts";
import { followFlush, followTicket } from "./pump_waits.ts";

/** Longest `Retry-After` that the sink asks for. */
export const ASKED_MS = 60_000;

export interface Row {
  readonly n: number;
  readonly bytes: number;
  readonly table: string;
  readonly kind: string;
  readonly takenMs: number;
  readonly request: number;
  fate: "held" | "stored" | "dead" | "lost";
}

/** A batch as it was when it was handed over first. */
export interface Known {
  readonly text: string;
  readonly rows: number[];
  readonly table: string;
  /** Not to be tried before, because it failed itself. */
  notBeforeMs: number;
  silent: boolean;
  /** It may be stored: no other batch of its table may go out. */
  unknown: boolean;
}

export class Run {
  readonly clock: ManualClock;
  readonly sink: ScriptedSink;
  readonly ledger = createLedger();
  readonly pump: Pump;
  readonly rows: Row[] = [];
  readonly batches = new Map<string, Known>();
  readonly wakes: (() => void)[] = [];
  problem: unknown = null;
  paused = false;
  closed = false;
  abandoned = false;
  calm = true;
  /** In a row, of all tables together. */
  silences = 0;
  /** The last silence may have been its own batch's or table's fault, as others were answered. */
  excused = false;
  serverNotBeforeMs = 0;
  readonly tableNotBeforeMs = new Map<string, number>();
  readonly silentTables = new Set<string>();
  readonly buried: string[] = [];
  requests = 0;
  waiting = 0;

  /** The largest limits that there were: what was sealed or taken under them stays as it is. */
  most: Config;

  constructor(public config: Config) {
    this.most = config;
    this.clock = new ManualClock(config.chance);
    this.sink = new ScriptedSink(
      (attempt) => this.handed(attempt),
      () => this.clock.monotonicMs(),
    );
    this.pump = new Pump(optionsOf(config), {
      sink: this.sink,
      ledger: this.ledger,
      clock: this.clock,
      log: memoryLog(),
      deadLetters: {
        write: (batch, dead, rows) => {
          assert.equal(dead.length, rows.length);
          this.buried.push(...rows);
          if (dead[0]?.message.startsWith("set aside")) this.#given(batch.id, rows);
          return Promise.resolve(DONE);
        },
      },
      spool: null,
    });
  }

  /** What may be set aside at this moment; null: nothing. */
  #order: { readonly table: string; readonly maybeStored: boolean } | null = null;

  async #setAside({ table: number, maybeStored }: Command & { do: "setAside" }): Promise<void> {
    const table = `t${number}`;
    const inTrouble = this.pump.troubles().tables.has(table);
    this.#order = inTrouble && !this.abandoned ? { table, maybeStored } : null;
    const done = await this.pump.setAside({ table, batch: null, maybeStored });
    this.#order = null;
    if (!done.ok) return;
    assert.ok(inTrouble, "set aside though it is in no trouble");
    if (this.abandoned) return;
    const left = done.value.reasons.map(({ batch }) => batch);
    const held = this.heldRows.filter((row) => row.table === table).map(({ n }) => n);
    for (const n of held) {
      const id = [...this.batches].find(([, { rows }]) => rows.includes(n))?.[0];
      assert.ok(id !== undefined && left.includes(id), `row ${n} stays, and is not named`);
    }
  }

  /** Rows are set aside. */
  #given(id: string, lines: readonly string[]): void {
    try {
      const known = this.batches.get(id);
      const rows = lines.map((line): Row => this.rows[JSON.parse(line).n]!);
      assert.ok(!this.sink.inFlight.some(({ batch }) => batch.id === id), "it is under way");
      assert.ok(known?.unknown !== true || this.#order?.maybeStored === true, "it may be stored");
      for (const row of rows) {
        assert.equal(row.fate, "held");
        assert.equal(row.table, this.#order?.table, "nobody has asked for it");
        row.fate = "dead";
      }
      if (known !== undefined) {
        assert.equal(known.rows.length, rows.length, "a part of it");
        known.unknown = false;
      }
    } catch (problem) {
      this.problem ??= problem;
    }
  }

  get heldRows(): Row[] {
    return this.rows.filter((row) => row.fate === "held");
  }

  async obey(command: Command): Promise<void> {
    switch (command.do) {
      case "take":
        this.#take(command);
        break;
      case "advance":
        await this.clock.advance(command.ms);
        break;
      case "answer": {
        const under = this.sink.inFlight;
        if (under.length > 0) {
          this.answer(under[command.which % under.length]!, command.with, command.more);
        }
        break;
      }
      case "answerAll":
        for (const attempt of this.sink.inFlight) {
          this.answer(attempt, command.with, command.more);
          await settle();
        }
        break;
      case "flush":
        followFlush(this, command.waitMs);
        break;
      case "setWall":
        this.clock.setWall(command.byMs);
        break;
      case "adopt":
        this.#adopt(command);
        break;
      case "setAside":
        await this.#setAside(command);
        break;
      case "pause":
        this.pump.pause();
        this.paused = true;
        break;
      case "resume":
        this.pump.resume();
        this.paused = false;
        break;
      case "close":
        this.closed = true;
        this.serverNotBeforeMs = 0;
        this.tableNotBeforeMs.clear();
        for (const known of this.batches.values()) known.notBeforeMs = 0;
        this.pump.close();
        break;
      case "abandon":
        this.pump.abandon();
        this.abandoned = true;
        for (const row of this.heldRows) row.fate = "lost";
        break;
    }
    await settle();
    checkStep(this);
  }

  // -------------------------------------------------------------- commands

  #adopt({ config, elsewhere }: Command & { do: "adopt" }): void {
    const larger = (name: "maxRows" | "maxBytes" | "backlog" | "backlogBytes") =>
      Math.max(this.most[name], config[name]);
    this.most = {
      ...config,
      maxRows: larger("maxRows"),
      maxBytes: larger("maxBytes"),
      backlog: larger("backlog"),
      backlogBytes: larger("backlogBytes"),
    };
    this.config = config;
    if (elsewhere) {
      this.silences = 0;
      this.excused = false;
      this.silentTables.clear();
      this.serverNotBeforeMs = 0;
      this.tableNotBeforeMs.clear();
      for (const known of this.batches.values()) {
        known.notBeforeMs = 0;
        known.silent = false;
      }
    }
    this.pump.adopt(optionsOf(config), elsewhere);
  }

  #take({ table: number, pads, fingerprint, asRows, waitMs }: Command & { do: "take" }): void {
    const table = `t${number}`;
    const shape = number === 0 ? "event" : number === 1 || asRows ? "row" : "event";
    const columns = fingerprint === 0 ? null : `f${fingerprint}`;
    const kind = `${table} ${shape} ${columns}`;
    const first = this.rows.length;
    const lines = pads.map((pad, i) => ({
      eventType: shape === "row" ? undefined : `type${pad % 3}`,
      n: first + i,
      kind,
      pad: "ü".repeat(pad),
    }));
    const chunk = chunkOf(lines, { table, shape, fingerprint: columns });
    const heldRows = this.heldRows;
    const heldBytes = heldRows.reduce((sum, row) => sum + row.bytes, 0);
    const fits = heldRows.length + chunk.rows <= this.config.backlog &&
      heldBytes + chunk.body.length <= this.config.backlogBytes;
    const request = this.requests++;
    // Known beforehand: a batch that is full goes out before `take` returns.
    for (const line of lines) {
      this.rows.push({
        n: line.n,
        bytes: new TextEncoder().encode(JSON.stringify(line) + "\n").length,
        table,
        kind,
        takenMs: this.clock.monotonicMs(),
        request,
        fate: "held",
      });
    }
    const taken = this.pump.take(chunk);
    if (taken.kind === "refused") this.rows.length = first;
    if (this.closed || this.paused || this.abandoned) {
      assert.equal(taken.kind === "refused" && taken.why, "closed");
      return;
    }
    if (taken.kind === "refused") {
      assert.equal(taken.why, "full");
      assert.equal(fits, false, `refused although there is room: ${taken.reason}`);
      assert.ok(taken.retryAfterS >= 1 && taken.retryAfterS <= 30);
      return;
    }
    assert.equal(fits, true, "taken although there is no room");
    if (waitMs !== null) followTicket(this, taken.ticket, request, waitMs);
  }

  answer(attempt: Attempt, kind: Answer, more: number): void {
    const { batch } = attempt;
    const known = this.batches.get(batch.id)!;
    const nowMs = this.clock.monotonicMs();
    const askedMs = more % ASKED_MS;
    const leastMs = this.closed ? 100 : 250;
    if (kind !== "stored" && kind !== "dead") this.calm = false;
    let delivery: Delivery;
    known.unknown = false;
    switch (kind) {
      case "stored":
      case "dead": {
        // Some rows, in no order; the bits of `more` choose.
        const indexes = known.rows.map((_, at) => at)
          .filter((at) => kind === "dead" && (more >> (at % 16)) & 1);
        delivery = kind === "dead" ? deadRows(...indexes.reverse()) : stored;
        if (!this.abandoned) {
          for (const n of known.rows) this.rows[n]!.fate = "stored";
          for (const at of indexes) this.rows[known.rows[at]!]!.fate = "dead";
        }
        this.#answered();
        this.silentTables.delete(batch.table);
        break;
      }
      case "silent":
      case "silentAsk":
      case "crash": {
        const suspected = known.silent || this.silentTables.has(batch.table);
        // `Retry-After: 0` asks for nothing.
        const asked = kind === "silentAsk" && askedMs > 0;
        this.excused = suspected && this.silences === 0 && !asked;
        this.silences++;
        known.silent = true;
        this.silentTables.add(batch.table);
        // A sink that throws may have sent it.
        known.unknown = kind === "crash" || more % 2 === 1;
        delivery = {
          ...unanswered(kind === "silentAsk" ? askedMs : undefined),
          unknown: known.unknown,
        } as Delivery;
        if (kind === "silentAsk" && !this.closed) {
          this.serverNotBeforeMs = Math.max(this.serverNotBeforeMs, nowMs + askedMs);
        }
        break;
      }
      case "busy":
      case "busyAsk": {
        delivery = busy(252, kind === "busyAsk" ? askedMs : undefined);
        if (kind === "busyAsk" && !this.closed) {
          const before = this.tableNotBeforeMs.get(batch.table) ?? 0;
          this.tableNotBeforeMs.set(batch.table, Math.max(before, nowMs + askedMs));
        }
        known.notBeforeMs = nowMs + leastMs;
        this.#answered();
        break;
      }
      case "table":
        delivery = tableTrouble;
        known.notBeforeMs = nowMs + leastMs;
        this.#answered();
        break;
    }
    if (kind === "crash") attempt.crash(new Error("a bug in the sink"));
    else attempt.answer(delivery);
  }

  #answered(): void {
    this.silences = 0;
    this.excused = false;
  }

  // -------------------------------------------------------------- promises

  /** What must be true of every attempt at the moment it goes out. */
  handed(attempt: Attempt): "hold" {
    try {
      checkAttempt(this, attempt);
    } catch (problem) {
      this.problem ??= problem;
    }
    return "hold";
  }
}

function optionsOf(config: Config): PumpOptions {
  return {
    fill: config,
    budget: { maxRows: config.backlog, maxBytes: config.backlogBytes },
    concurrency: config.concurrency,
    reached: "memory",
    maxSpoolBytes: Infinity,
    keyWindowMs: 3_600_000,
  };
}
