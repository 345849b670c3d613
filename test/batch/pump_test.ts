/**
 * What a full pump refuses, and how it pauses and stops.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { events, rowOfBytes } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { busy, deadRows, stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { assertBooks, bench, refused } from "./bench.ts";

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
