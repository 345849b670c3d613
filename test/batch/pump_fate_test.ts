/**
 * What becomes of tickets, of a sink that throws, and what people are told of it.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Fold, type Line } from "../../src/runtime/log.ts";
import { events } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { busy, deadRows, stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { assertBooks, bench } from "./bench.ts";

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

  test("a server that is known to be back is not waited for any longer", async () => {
    const b = bench();
    b.sink.script = () => unanswered();
    b.take(events(10));
    await b.clock.advance(60_000);
    b.sink.script = () => stored;
    b.pump.serverIsBack();
    await settle();
    assert.equal(b.ledger.totals().stored, 10);
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
    const fold = new Fold();
    const told: Line[] = [];
    for (let minute = 0; minute < 60; minute++) {
      const before = b.lines.length;
      await b.clock.advance(60_000);
      for (const line of b.lines.slice(before)) {
        told.push(...fold.take(line, b.clock.monotonicMs()));
      }
    }
    // One a minute says that it is still tried, and how often.
    assert.ok(told.length >= 10 && told.length <= 61, `${told.length} lines`);
    assert.ok(b.sink.attempts.length > 120, "and the attempts go on");
  });
});
