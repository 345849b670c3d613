import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createLedger, type MeteredLedger } from "../../src/meter/ledger.ts";
import type { Chunk, DeadRow, Taken, Ticket } from "../../src/contracts.ts";
import { Pump, type PumpOptions } from "../../src/batch/pump.ts";
import { type ChunkOptions, events, type LogLine, memoryLog, rowOfBytes } from "../kit/chunks.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import {
  busy,
  deadRows,
  type Script,
  ScriptedSink,
  stored,
  tableTrouble,
  unanswered,
} from "../kit/scripted_sink.ts";

interface Bench {
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

interface BenchOptions {
  readonly maxRows?: number;
  readonly maxBytes?: number;
  readonly flushIntervalMs?: number;
  readonly idleIntervalMs?: number | null;
  readonly backlog?: number;
  readonly backlogBytes?: number;
  readonly concurrency?: number;
  readonly script?: Script;
}

function bench(o: BenchOptions = {}): Bench {
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
  };
  const pump = new Pump(options, {
    sink,
    ledger,
    clock,
    log,
    bury: (batch, dead, rows) => void buried.push({ table: batch.table, dead, rows }),
  });
  const take = (chunk: Chunk) => {
    const taken = pump.take(chunk);
    if (taken.kind === "refused") throw new Error(`refused: ${taken.reason}`);
    return taken.ticket;
  };
  return { pump, sink, clock, ledger, buried, lines: log.lines, take };
}

/** The books balance, and what is measured where it is held agrees with what was counted. */
function assertBooks({ pump, ledger }: Bench): void {
  const { received, recovered, rejected, stored, dead, held, lost } = ledger.totals();
  assert.equal(received + recovered, rejected + stored + dead + held + lost);
  assert.equal(pump.rows(), held);
  assert.equal([...pump.byTable().values()].reduce((sum, rows) => sum + rows, 0), held);
  assert.ok(
    (held === 0) === (pump.memoryBytes() === 0),
    `${pump.memoryBytes()} bytes, ${held} rows`,
  );
}

function refused(taken: Taken): { why: string; reason: string; retryAfterS: number } {
  assert.equal(taken.kind, "refused");
  const { why, reason, retryAfterS } = taken as Extract<Taken, { kind: "refused" }>;
  assert.ok(
    Number.isInteger(retryAfterS) && retryAfterS >= 1 && retryAfterS <= 30,
    `${retryAfterS}`,
  );
  return { why, reason, retryAfterS };
}

describe("full means no, at once", () => {
  test("the last row of the backlog is taken, the next one is not", () => {
    const b = bench({ backlog: 20, maxRows: 100 });
    b.take(events(19));
    assert.match(refused(b.pump.take(events(2))).reason, /19 of 20 rows/);
    b.take(events(1));
    const { why, reason } = refused(b.pump.take(events(1)));
    assert.deepEqual([why, reason], ["full", "backlog is full: 20 of 20 rows held"]);
    assert.equal(b.ledger.totals().received, 20);
    assertBooks(b);
  });

  test("bytes count as rows do", () => {
    const b = bench({ backlogBytes: 1000 });
    b.take(rowOfBytes(600));
    assert.match(refused(b.pump.take(rowOfBytes(401))).reason, /600 of 1000 bytes/);
    b.take(rowOfBytes(400));
    assert.equal(b.pump.memoryBytes(), 1000);
  });

  test("what is stored makes room again", async () => {
    const b = bench({ backlog: 10 });
    b.take(events(10));
    refused(b.pump.take(events(1)));
    b.sink.answerAll(stored);
    await settle();
    b.take(events(10));
    assertBooks(b);
  });

  test("rows that failed or were refused by their table still count", async () => {
    const b = bench({ backlog: 10 });
    b.take(events(10));
    b.sink.answerAll(tableTrouble);
    await settle();
    refused(b.pump.take(events(1)));
    assertBooks(b);
  });

  test("Retry-After is not sooner than the next probe", async () => {
    const b = bench({ backlog: 10 });
    b.take(events(10));
    b.sink.answerAll(unanswered(12_000));
    await settle();
    assert.equal(refused(b.pump.take(events(1))).retryAfterS, 12);
  });

  test("bodies under way are bounded by backlog-bytes", () => {
    const { pump } = bench({ backlogBytes: 1000 });
    assert.equal(pump.reserve(1000), true);
    assert.equal(pump.reserve(1), false);
    pump.release(1000);
    assert.equal(pump.reserve(1), true);
  });
});

describe("pause and stop", () => {
  test("paused: nothing is taken, what is held goes on; resumed: taken again", async () => {
    const b = bench();
    b.take(events(3));
    b.pump.pause();
    assert.equal(b.pump.closed(), "paused");
    assert.deepEqual(refused(b.pump.take(events(1))).why, "closed");
    await b.clock.advance(1000);
    assert.equal(b.sink.last.batch.rows, 3);
    b.pump.resume();
    assert.equal(b.pump.closed(), null);
    b.take(events(1));
    assertBooks(b);
  });

  test("stopping is for good: neither resume nor pause changes it", () => {
    const { pump } = bench();
    pump.pause();
    pump.close();
    pump.resume();
    pump.pause();
    pump.resume();
    assert.equal(pump.closed(), "stopping");
    assert.match(refused(pump.take(events(1))).reason, /stopping/);
  });

  test("close sends open batches at once, of all tables", async () => {
    const b = bench();
    for (const table of ["a", "b", "c"]) b.take(events(1, { table }));
    b.pump.close();
    await settle();
    assert.deepEqual(b.sink.attempts.map((a) => a.batch.table).sort(), ["a", "b", "c"]);
  });

  test("close waits out neither a backoff nor a Retry-After, also of failures yet to come", async () => {
    const b = bench();
    b.take(events(10, { table: "a" }));
    b.take(events(10, { table: "b" }));
    b.sink.attempts[0]!.answer(unanswered(25_000));
    await settle();
    b.pump.close();
    b.sink.attempts[1]!.answer(busy(252, 25_000));
    await b.clock.advance(1100);
    for (const table of ["a", "b"]) {
      assert.ok(b.sink.attempts.filter((a) => a.batch.table === table).length >= 2, table);
    }
  });

  test("drained: true when nothing is held, false in time, and no timer stays", async () => {
    const b = bench();
    assert.equal(await b.pump.drained(1000), true);
    b.take(events(10));
    const late = b.pump.drained(500);
    await b.clock.advance(500);
    assert.equal(await late, false);
    const drained = b.pump.drained(10_000);
    b.sink.answerAll(stored);
    assert.equal(await drained, true);
    assert.equal(b.clock.pending, 0);
    assertBooks(b);
  });

  test("abandon counts every held row as lost, exactly once, and nothing afterwards", async () => {
    const b = bench({ maxRows: 5, concurrency: 1 });
    b.take(events(12, { table: "a" }));
    b.take(events(3, { table: "b" }));
    b.sink.last.answer(deadRows(0));
    await settle();
    const under = b.sink.last;
    b.pump.abandon();
    assert.equal(under.signal.aborted, true, "what is under way is cut off");
    under.answer(stored);
    b.pump.abandon();
    await b.clock.advance(60_000);
    const totals = b.ledger.totals();
    assert.deepEqual([totals.stored, totals.dead, totals.lost, totals.held], [4, 1, 10, 0]);
    assertBooks(b);
    assert.equal(b.pump.oldestMs(), 0);
    assert.equal(b.sink.attempts.length, 2, "nothing is sent any more");
    assert.equal(b.clock.pending, 0);
  });

  test("after abandon nothing is taken that could never be sent", () => {
    const b = bench();
    b.pump.abandon();
    refused(b.pump.take(events(1)));
    assertBooks(b);
  });

  test("abandon ends every wait", async () => {
    const b = bench();
    const ticket = b.take(events(10));
    const waits = [ticket.settled(60_000), b.pump.flush(60_000), b.pump.drained(60_000)];
    b.pump.abandon();
    assert.deepEqual((await Promise.all(waits)).slice(0, 2), [null, false]);
    assert.equal(b.clock.pending, 0);
  });
});

describe("age", () => {
  test("a batch is sent when its oldest row is as old as the flush interval", async () => {
    const b = bench();
    b.take(events(1));
    await b.clock.advance(600);
    b.take(events(1));
    await b.clock.advance(399);
    assert.equal(b.sink.attempts.length, 0);
    await b.clock.advance(1);
    assert.equal(b.sink.last.batch.rows, 2);
  });

  test("idle: sent as soon as nothing has come for so long", async () => {
    const b = bench({ idleIntervalMs: 20 });
    for (let i = 0; i < 5; i++) {
      b.take(events(1));
      await b.clock.advance(15);
    }
    assert.equal(b.sink.attempts.length, 0);
    await b.clock.advance(5);
    assert.equal(b.sink.last.batch.rows, 5);
  });

  for (const byMs of [-3_600_000, 3_600_000]) {
    test(`holds although somebody sets the wall clock by ${byMs} ms`, async () => {
      const b = bench();
      b.take(events(1, { table: "a" }));
      b.clock.setWall(byMs);
      b.take(events(1, { table: "b" }));
      await b.clock.advance(999);
      assert.equal(b.sink.attempts.length, 0);
      await b.clock.advance(1);
      assert.equal(b.sink.attempts.length, 2);
      b.sink.answerAll(unanswered());
      await b.clock.advance(1000);
      assert.ok(b.sink.attempts.length > 2, "a backoff ends in time, too");
      const oldestMs = b.pump.oldestMs();
      assert.ok(oldestMs >= 1900 && oldestMs <= 2100, `oldest ${oldestMs} ms`);
    });
  }

  test("oldestMs is the age of the oldest row, also of one in flight; 0 with none", async () => {
    const b = bench();
    assert.equal(b.pump.oldestMs(), 0);
    b.take(events(10));
    await b.clock.advance(300);
    b.take(events(1));
    assert.equal(b.pump.oldestMs(), 300);
    b.sink.answerAll(stored);
    await settle();
    assert.equal(b.pump.oldestMs(), 0);
  });

  test("a chunk costs no timer of its own, also while nothing can be sent", async () => {
    const b = bench({ backlog: 100_000, maxRows: 100_000, concurrency: 1 });
    b.take(events(1));
    b.pump.flush(10 ** 9).catch(() => {});
    await b.clock.advance(5000);
    for (const state of ["the sink is busy", "the server is down"]) {
      const before = b.clock.timersSet;
      for (let i = 0; i < 2000; i++) {
        b.take(events(1));
        await b.clock.advance(1);
      }
      assert.ok(b.clock.timersSet - before < 50, `${state}: ${b.clock.timersSet - before} timers`);
      b.sink.answerAll(unanswered(30_000));
      await b.clock.advance(2000);
    }
  });
});

describe("flush", () => {
  test("sends what is open and is true once all that was held is settled", async () => {
    const b = bench();
    b.take(events(3));
    const flushed = b.pump.flush(5000);
    await settle();
    assert.equal(b.sink.last.batch.rows, 3);
    b.take(events(2));
    b.sink.answerAll(deadRows(1));
    assert.equal(await flushed, true, "rows that came later and dead rows do not matter");
    assert.equal(b.pump.rows(), 2);
  });

  test("with nothing held is true at once", async () => {
    const b = bench();
    assert.equal(await b.pump.flush(1000), true);
    assert.equal(b.clock.pending, 0);
  });

  test("is false when the time is over, and the rows are still held", async () => {
    const b = bench();
    b.take(events(3));
    const flushed = b.pump.flush(5000);
    await b.clock.advance(5000);
    assert.equal(await flushed, false);
    assert.equal(b.pump.rows(), 3);
    assertBooks(b);
  });

  test("waits for batches that failed before, too", async () => {
    const b = bench();
    b.take(events(10));
    b.sink.answerAll(unanswered());
    await settle();
    const flushed = b.pump.flush(5000);
    b.sink.script = () => stored;
    await b.clock.advance(1000);
    assert.equal(await flushed, true);
  });
});

describe("tickets", () => {
  const across: [string, number][] = [["within one batch", 100], ["cut over four batches", 4]];
  for (const [name, maxRows] of across) {
    test(`dead rows are told to the request that brought them, ${name}`, async () => {
      const b = bench({ maxRows, concurrency: 10 });
      const sizes = [3, 1, 6, 4, 1];
      const bad = new Set([1, 3, 4, 7, 9, 13]);
      let serial = 0;
      const tickets = sizes.map((rows) => {
        const first = serial;
        serial += rows;
        const lines = Array.from({ length: rows }, (_, i) => ({ eventType: "t", n: first + i }));
        return b.take({
          ...events(rows),
          body: new TextEncoder().encode(lines.map((l) => JSON.stringify(l) + "\n").join("")),
          types: new Map([["t", rows]]),
        });
      });
      const answers = Promise.all(tickets.map((ticket) => ticket.settled(5000)));
      const flushed = b.pump.flush(5000);
      await settle();
      for (const attempt of b.sink.inFlight) {
        const numbers = attempt.text.split("\n").slice(0, -1).map((line) => JSON.parse(line).n);
        const dead = numbers.flatMap((n, at) => bad.has(n) ? [at] : []);
        attempt.answer(deadRows(...dead.reverse()));
      }
      assert.equal(await flushed, true);
      assert.deepEqual(await answers, [{ dead: 1 }, { dead: 1 }, { dead: 3 }, { dead: 1 }, {
        dead: 0,
      }]);
      const buried = b.buried.flatMap((x) => x.rows.map((row) => JSON.parse(row).n));
      assert.deepEqual(buried.sort((x, y) => x - y), [...bad]);
      for (const { dead, rows } of b.buried) {
        assert.equal(dead.length, rows.length);
        assert.ok(dead.every((d, i) => i === 0 || dead[i - 1]!.index < d.index));
      }
      const totals = b.ledger.totals();
      assert.deepEqual([totals.received, totals.stored, totals.dead], [15, 9, 6]);
      assert.deepEqual([...b.ledger.typeTotals()], [
        { table: "events", eventType: "t", accepted: 15, stored: 9 },
      ]);
      assertBooks(b);
    });
  }

  test("null when the time is over first; the answer is still there afterwards", async () => {
    const b = bench();
    const ticket = b.take(events(10));
    assert.equal(ticket.reached, "memory");
    const early = ticket.settled(200);
    await b.clock.advance(200);
    assert.equal(await early, null);
    b.sink.answerAll(deadRows(0, 9));
    await settle();
    assert.deepEqual(await ticket.settled(0), { dead: 2 });
    assert.equal(b.clock.pending, 0);
  });

  test("a chunk over two batches waits for both", async () => {
    const b = bench({ maxRows: 5 });
    const ticket = b.take(events(10));
    let answer: unknown = "waiting";
    const wait = ticket.settled(10_000).then((a) => answer = a);
    b.sink.attempts[1]!.answer(stored);
    await settle();
    assert.equal(answer, "waiting");
    b.sink.attempts[0]!.answer(busy());
    await b.clock.advance(600);
    assert.equal(answer, "waiting");
    b.sink.answerAll(deadRows(2));
    await wait;
    assert.deepEqual(answer, { dead: 1 });
  });

  test("a chunk without rows is settled, and costs nothing", async () => {
    const b = bench();
    const none = { ...events(1), rows: 0, body: new Uint8Array(), types: new Map() };
    assert.deepEqual(await b.take(none).settled(1000), { dead: 0 });
    assertBooks(b);
  });
});

describe("the same batch again", () => {
  test("after each kind of failure it has the same id and the same bytes", async () => {
    const b = bench({ concurrency: 1 });
    b.take(events(10));
    for (const answer of [unanswered(), busy(), tableTrouble, unanswered(), busy()]) {
      b.sink.last.answer(answer);
      await settle();
      b.take(events(1));
      const attempts = b.sink.attempts.length;
      const first = b.sink.attempts[0]!;
      for (let i = 0; i < 400 && b.sink.attempts.length === attempts; i++) {
        await b.clock.advance(250);
        for (const other of b.sink.inFlight) {
          if (other.batch.id !== first.batch.id) other.answer(stored);
        }
      }
      await b.clock.advance(60_000);
      const again = b.sink.attempts.filter((a) => a.batch.id === first.batch.id);
      assert.ok(again.every((a) => a.text === first.text && a.batch.rows === 10));
      b.sink.answerAll(busy());
      await b.clock.advance(60_000);
    }
    assert.ok(
      b.sink.attempts.filter((a) => a.batch.id === b.sink.attempts[0]!.batch.id).length > 3,
    );
    assertBooks(b);
  });

  test("every batch has an id of its own", async () => {
    const b = bench({ maxRows: 1, backlog: 1000, script: () => stored });
    b.take(events(500));
    assert.equal(await b.pump.drained(1000), true);
    assert.equal(new Set(b.sink.attempts.map((a) => a.batch.id)).size, 500);
  });
});

describe("a sink that throws", () => {
  for (const error of [new Error("bug"), "bug", undefined]) {
    test(`(${String(error)}) loses nothing and is tried again`, async () => {
      const b = bench();
      const ticket = b.take(events(10));
      b.sink.last.crash(error);
      await settle();
      assertBooks(b);
      assert.ok(b.lines.some((line) => line.level === "error" && line.fields.batch !== undefined));
      b.sink.script = () => stored;
      await b.clock.advance(1000);
      assert.deepEqual(await ticket.settled(0), { dead: 0 });
      assertBooks(b);
    });
  }

  test("also when it throws before it promises anything", async () => {
    let calls = 0;
    const b = bench({
      script: () => {
        if (calls++ === 0) throw new Error("bug");
        return stored;
      },
    });
    b.take(events(10));
    await b.clock.advance(1000);
    assert.equal(b.ledger.totals().stored, 10);
  });
});

describe("what people are told", () => {
  test("a server that is away, and that it is back", async () => {
    const b = bench();
    b.take(events(10));
    b.sink.answerAll(unanswered());
    await settle();
    assert.equal(b.pump.troubles().server, "connection refused");
    b.sink.script = () => stored;
    await b.clock.advance(1000);
    assert.equal(b.pump.troubles().server, null);
    assert.equal(b.lines.filter((line) => line.message === "delivery goes on").length, 1);
  });

  test("a table in trouble is named until all of it flows again", async () => {
    const b = bench();
    b.take(events(10, { table: "bad" }));
    b.take(events(10, { table: "good" }));
    b.sink.script = (attempt) => attempt.batch.rows === 10 ? tableTrouble : stored;
    b.sink.attempts.forEach((a) => a.answer(a.batch.table === "bad" ? tableTrouble : stored));
    await settle();
    assert.deepEqual([...b.pump.troubles().tables], [["bad", "no such table"]]);
    for (let i = 0; i < 20; i++) {
      b.take(events(1, { table: "bad" }));
      await b.clock.advance(5000);
      assert.equal(b.pump.troubles().tables.has("bad"), true, "ten rows are still refused");
    }
    assert.equal(b.lines.filter((line) => line.message === "delivery goes on").length, 0);
    b.sink.script = () => stored;
    await b.clock.advance(60_000);
    assert.equal(b.pump.troubles().tables.size, 0);
    assert.equal(b.lines.filter((line) => line.message === "delivery goes on").length, 1);
    assertBooks(b);
  });

  test("an hour of outage does not fill the log", async () => {
    const b = bench({ script: () => unanswered() });
    for (let i = 0; i < 10; i++) b.take(events(10));
    await b.clock.advance(3_600_000);
    const loud = b.lines.filter((line) => line.level !== "debug");
    assert.ok(loud.length >= 1 && loud.length <= 10, `${loud.length} lines`);
    assert.ok(b.sink.attempts.length > 120, "and the attempts go on");
  });
});

const MIXED: ChunkOptions[] = [
  { table: "a", fingerprint: "x" },
  { table: "a", fingerprint: "y" },
  { table: "a", shape: "row" },
  { table: "b" },
];

test("rows of other columns, shapes and tables never share a batch", async () => {
  const b = bench({ maxRows: 1000, script: () => stored });
  for (let i = 0; i < 40; i++) b.take(events(1, MIXED[i * 7 % 4]!));
  assert.equal(await b.pump.flush(1000), true);
  assert.equal(b.ledger.totals().stored, 40);
  assert.equal(
    b.sink.attempts.every((a) => a.batch.shape === "event" ? true : a.batch.types.size === 0),
    true,
  );
});
