/**
 * When batches leave: by age, when idle, at a flush.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type ChunkOptions, events } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { busy, deadRows, stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { assertBooks, bench } from "./bench.ts";

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
