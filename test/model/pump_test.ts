/**
 * The pump against a model that knows nothing of lanes and schedules, only of promises: random
 * commands, and after each of them everything that must be true. The seed is printed; to repeat a
 * run set SHISHI_SEED, and SHISHI_PATH to the path that fast-check names.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import fc from "fast-check";
import type { Delivery, Ticket } from "../../src/contracts.ts";
import { Pump } from "../../src/batch/pump.ts";
import { balance, createLedger } from "../../src/meter/ledger.ts";
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

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const path = process.env.SHISHI_PATH;
const RUNS = 400;
/** Longest `Retry-After` that the sink asks for, and the longest backoff there is. */
const ASKED_MS = 60_000;
const BACKOFF_MS = 30_000;

// ---------------------------------------------------------------- what may happen

interface Config {
  readonly maxRows: number;
  readonly maxBytes: number;
  readonly flushIntervalMs: number;
  readonly idleIntervalMs: number | null;
  readonly backlog: number;
  readonly backlogBytes: number;
  readonly concurrency: number;
  readonly chance: number;
}

type Answer = "stored" | "dead" | "silent" | "silentAsk" | "busy" | "busyAsk" | "table" | "crash";

type Command =
  | {
    readonly do: "take";
    readonly table: number;
    readonly pads: readonly number[];
    readonly fingerprint: number;
    readonly asRows: boolean;
    readonly waitMs: number | null;
  }
  | { readonly do: "advance"; readonly ms: number }
  | { readonly do: "answer"; readonly which: number; readonly with: Answer; readonly more: number }
  | { readonly do: "answerAll"; readonly with: Answer; readonly more: number }
  | { readonly do: "flush"; readonly waitMs: number }
  | { readonly do: "setWall"; readonly byMs: number }
  | { readonly do: "pause" | "resume" | "close" | "abandon" };

const config: fc.Arbitrary<Config> = fc.record({
  maxRows: fc.integer({ min: 1, max: 20 }),
  maxBytes: fc.integer({ min: 40, max: 600 }),
  flushIntervalMs: fc.constantFrom(0, 1, 100, 1000, 5000),
  idleIntervalMs: fc.constantFrom(null, null, 0, 30, 400),
  backlog: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(400)),
  backlogBytes: fc.oneof(fc.integer({ min: 200, max: 4000 }), fc.constant(60_000)),
  concurrency: fc.integer({ min: 1, max: 5 }),
  chance: fc.nat(),
});

const answer: fc.Arbitrary<Answer> = fc.constantFrom(
  ...["stored", "stored", "stored", "dead", "silent", "silent", "silent"] as const,
  ...["silentAsk", "busy", "busyAsk", "table", "table", "crash"] as const,
);

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("take" as const),
      table: fc.nat(3),
      pads: fc.array(fc.oneof({ weight: 9, arbitrary: fc.nat(20) }, fc.constant(400)), {
        minLength: 1,
        maxLength: 30,
      }),
      fingerprint: fc.constantFrom(0, 0, 0, 1, 2),
      asRows: fc.boolean(),
      waitMs: fc.constantFrom(null, null, 0, 700, 300_000),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("advance" as const),
      ms: fc.oneof(fc.nat(50), fc.nat(2000), fc.constant(40_000)),
    }),
  },
  {
    weight: 14,
    arbitrary: fc.record({
      do: fc.constant("answer" as const),
      which: fc.nat(5),
      with: answer,
      more: fc.nat(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("answerAll" as const), with: answer, more: fc.nat() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("flush" as const), waitMs: fc.nat(100_000) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("setWall" as const),
      byMs: fc.integer({ min: -1e8, max: 1e8 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("pause" as const, "resume" as const) }) },
);

const ending: fc.Arbitrary<"run" | "close" | "abandon"> = fc.constantFrom(
  "run",
  "close",
  "abandon",
);

// ---------------------------------------------------------------- the model

interface Row {
  readonly n: number;
  readonly bytes: number;
  readonly table: string;
  readonly kind: string;
  readonly takenMs: number;
  readonly request: number;
  fate: "held" | "stored" | "dead" | "lost";
}

/** A batch as it was when it was handed over first. */
interface Known {
  readonly text: string;
  readonly rows: number[];
  /** Not to be tried before, because it failed itself. */
  notBeforeMs: number;
  silent: boolean;
}

class Run {
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

  constructor(readonly config: Config) {
    this.clock = new ManualClock(config.chance);
    this.sink = new ScriptedSink(
      (attempt) => this.#handed(attempt),
      () => this.clock.monotonicMs(),
    );
    this.pump = new Pump({
      fill: config,
      budget: { maxRows: config.backlog, maxBytes: config.backlogBytes },
      concurrency: config.concurrency,
      reached: "memory",
    }, {
      sink: this.sink,
      ledger: this.ledger,
      clock: this.clock,
      log: memoryLog(),
      bury: (_batch, dead, rows) => {
        assert.equal(dead.length, rows.length);
        this.buried.push(...rows);
      },
    });
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
          this.#answer(under[command.which % under.length]!, command.with, command.more);
        }
        break;
      }
      case "answerAll":
        for (const attempt of this.sink.inFlight) {
          this.#answer(attempt, command.with, command.more);
          await settle();
        }
        break;
      case "flush":
        this.#flush(command.waitMs);
        break;
      case "setWall":
        this.clock.setWall(command.byMs);
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
    this.check();
  }

  // -------------------------------------------------------------- commands

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
    if (waitMs !== null) this.#follow(taken.ticket, request, waitMs);
  }

  #follow(ticket: Ticket, request: number, waitMs: number): void {
    const untilMs = this.clock.monotonicMs() + waitMs;
    this.waiting++;
    ticket.settled(waitMs).then((settled) => {
      this.waiting--;
      const mine = this.rows.filter((row) => row.request === request);
      if (settled === null) {
        const lost = mine.some((row) => row.fate === "lost");
        assert.ok(lost || this.clock.monotonicMs() >= untilMs, "null before the time was over");
        return;
      }
      assert.ok(mine.every((row) => row.fate === "stored" || row.fate === "dead"));
      assert.equal(settled.dead, mine.filter((row) => row.fate === "dead").length);
    }).catch((problem) => this.problem ??= problem);
  }

  #flush(waitMs: number): void {
    const mine = this.heldRows;
    const untilMs = this.clock.monotonicMs() + waitMs;
    this.waiting++;
    this.pump.flush(waitMs).then((flushed) => {
      this.waiting--;
      const open = mine.filter((row) => row.fate === "held" || row.fate === "lost").length;
      if (flushed) assert.equal(open, 0, "flushed, but rows are still held");
      else assert.ok(open > 0 && (this.abandoned || this.clock.monotonicMs() >= untilMs));
    }).catch((problem) => this.problem ??= problem);
  }

  #answer(attempt: Attempt, kind: Answer, more: number): void {
    const { batch } = attempt;
    const known = this.batches.get(batch.id)!;
    const nowMs = this.clock.monotonicMs();
    const askedMs = more % ASKED_MS;
    const leastMs = this.closed ? 100 : 250;
    if (kind !== "stored" && kind !== "dead") this.calm = false;
    let delivery: Delivery;
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
        this.excused = suspected && this.silences === 0 && kind !== "silentAsk";
        this.silences++;
        known.silent = true;
        this.silentTables.add(batch.table);
        delivery = unanswered(kind === "silentAsk" ? askedMs : undefined);
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
  #handed(attempt: Attempt): "hold" {
    try {
      this.#checkAttempt(attempt);
    } catch (problem) {
      this.problem ??= problem;
    }
    return "hold";
  }

  #checkAttempt({ batch, text, startedMs }: Attempt): void {
    const { maxRows, maxBytes, concurrency } = this.config;
    const under = this.sink.inFlight;
    assert.equal(this.abandoned, false, "sent after it was given up");
    assert.ok(under.length <= concurrency, `${under.length} in flight`);
    if (this.silences > 0 && !(this.silences === 1 && this.excused)) {
      assert.equal(under.length, 1, `${under.length} in flight while the server is down`);
    }
    assert.equal(
      under.filter((other) => other.batch.id === batch.id).length,
      1,
      "sent twice at once",
    );
    assert.ok(startedMs >= this.serverNotBeforeMs, "Retry-After of the server was not obeyed");
    assert.ok(
      startedMs >= (this.tableNotBeforeMs.get(batch.table) ?? 0),
      "Retry-After of the table was not obeyed",
    );

    const known = this.batches.get(batch.id);
    if (known !== undefined) {
      assert.equal(text, known.text, "another body under the same id");
      assert.ok(startedMs >= known.notBeforeMs, "sent again without a backoff");
      assert.ok(known.rows.every((n) => this.rows[n]!.fate === "held"), "settled rows sent again");
      return;
    }
    assert.match(batch.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.ok(text.endsWith("\n"));
    const lines = text.slice(0, -1).split("\n").map((line) => JSON.parse(line));
    const rows: number[] = lines.map((line) => line.n);
    assert.equal(batch.rows, lines.length);
    assert.equal(batch.bytes, new TextEncoder().encode(text).length);
    assert.ok(batch.rows <= maxRows && (batch.bytes <= maxBytes || batch.rows === 1));
    assert.ok(rows.every((n, i) => i === 0 || rows[i - 1]! < n), "rows changed places");
    for (const line of lines) {
      assert.equal(line.kind, `${batch.table} ${batch.shape} ${batch.fingerprint}`);
    }
    const types = new Map<string, number>();
    if (batch.shape === "event") {
      for (const { eventType } of lines) types.set(eventType, (types.get(eventType) ?? 0) + 1);
    }
    assert.deepEqual(
      Object.fromEntries([...batch.types].sort()),
      Object.fromEntries([...types].sort()),
    );
    assert.equal(batch.oldestMs, this.clock.startMs + this.rows[rows[0]!]!.takenMs);
    for (const other of this.batches.values()) {
      assert.ok(!other.rows.some((n) => rows.includes(n)), "a row is in two batches");
    }
    this.batches.set(batch.id, { text, rows, notBeforeMs: 0, silent: false });
  }

  /** What must be true after every step. */
  check(): void {
    if (this.problem !== null) throw this.problem;
    const { pump, ledger, config } = this;
    const held = this.heldRows;
    const totals = ledger.totals();
    const fates = (fate: Row["fate"]) => this.rows.filter((row) => row.fate === fate).length;
    assert.equal(balance(totals), 0, "the books do not balance");
    assert.deepEqual(
      [totals.received, totals.held, totals.stored, totals.dead, totals.lost],
      [this.rows.length, held.length, fates("stored"), fates("dead"), fates("lost")],
    );
    assert.equal(pump.rows(), held.length);
    const byTable = [...pump.byTable()].filter(([, rows]) => rows > 0);
    for (const [table, rows] of byTable) {
      assert.equal(rows, held.filter((row) => row.table === table).length);
    }
    assert.equal(byTable.reduce((sum, [, rows]) => sum + rows, 0), held.length);
    assert.equal(pump.memoryBytes(), held.reduce((sum, row) => sum + row.bytes, 0));
    assert.ok(pump.rows() <= config.backlog && pump.memoryBytes() <= config.backlogBytes);

    const nowMs = this.clock.monotonicMs();
    const oldestMs = held.length === 0 ? 0 : nowMs - Math.min(...held.map((row) => row.takenMs));
    // A batch is as old as its oldest row, dead or alive: rows leave with their batch.
    assert.equal(pump.oldestMs(), oldestMs);
    if (this.calm && this.sink.inFlight.length === 0) {
      assert.ok(
        oldestMs <= Math.max(1, config.flushIntervalMs),
        `${oldestMs} ms old, nothing in flight`,
      );
    }
  }

  /** The sink stores whatever comes from here on: everything must go, in bounded time, and the timers. */
  async finish(): Promise<void> {
    await this.obey({ do: "answerAll", with: "stored", more: 0 });
    for (const attempt of this.sink.inFlight) {
      queueMicrotask(() => this.#answer(attempt, "stored", 0));
    }
    this.sink.script = (attempt) => {
      this.#handed(attempt);
      queueMicrotask(() => this.#answer(attempt, "stored", 0));
      return "hold";
    };
    const boundMs = (this.closed ? 0 : ASKED_MS) + BACKOFF_MS + this.config.flushIntervalMs + 1000;
    const drained = this.pump.drained(boundMs);
    await this.clock.advance(boundMs);
    this.check();
    assert.equal(
      this.pump.rows(),
      0,
      `rows are held after ${boundMs} ms with a sink that stores all`,
    );
    assert.equal(await drained, true);
    assert.equal(this.rows.filter((row) => row.fate === "held").length, 0);
    const dead = this.rows.filter((row) => row.fate === "dead").map((row) => row.n);
    const buried = this.buried.map((row) => JSON.parse(row).n as number);
    assert.deepEqual(buried.sort((a, b) => a - b), dead, "each dead row is buried once");
    await this.clock.advance(400_000);
    assert.equal(this.waiting, 0, "somebody waits for ever");
    assert.equal(this.clock.pending, 0, "a timer was left behind");
    if (this.problem !== null) throw this.problem;
  }
}

// ---------------------------------------------------------------- the test

test("whatever happens, the pump keeps its promises", { timeout: 120_000 }, async () => {
  console.log(`pump model: seed ${seed}, ${RUNS} runs`);
  let attempts = 0;
  let taken = 0;
  const property = fc.asyncProperty(
    config,
    fc.array(command, { minLength: 1, maxLength: 90, size: "max" }),
    ending,
    async (configuration, commands, end) => {
      const run = new Run(configuration);
      for (const each of commands) await run.obey(each);
      if (end === "close") await run.obey({ do: "close" });
      if (end === "abandon") {
        await run.obey({ do: "abandon" });
        await run.obey({ do: "answerAll", with: "stored", more: 0 });
        await run.obey({ do: "abandon" });
      }
      attempts += run.sink.attempts.length;
      await run.finish();
      taken += run.rows.length;
    },
  );
  try {
    await fc.assert(property, { numRuns: RUNS, seed, ...(path === undefined ? {} : { path }) });
  } catch (problem) {
    console.log(`pump model: failed with seed ${seed}`);
    throw problem;
  }
  // A model that takes nothing proves nothing.
  if (path === undefined) {
    assert.ok(taken > RUNS * 10 && attempts > RUNS * 5, `${taken}, ${attempts}`);
  }
});
