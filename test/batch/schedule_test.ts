/**
 * Turns of tables.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Dispatch, type Schedule } from "../../src/batch/schedule.ts";
import { busy, stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { fill, firstAt, scheduleOf, tables, takeAll } from "./schedules.ts";

describe("turns", () => {
  test("newest and oldest of a table alternate", () => {
    const schedule = scheduleOf({ concurrency: 1 });
    fill(schedule, "a", 6);
    const order: number[] = [];
    for (let d = schedule.next(50); d !== null; d = schedule.next(50)) {
      order.push(d.batch.oldestMs);
      schedule.onDelivery(d, stored, 50);
    }
    assert.deepEqual(order, [0, 5, 1, 4, 2, 3]);
  });

  test("50 tables get the same share, whatever stands in their queues", () => {
    const schedule = scheduleOf();
    fill(schedule, "flood", 2000);
    for (let i = 0; i < 49; i++) fill(schedule, `t${i}`, 20);
    const sent = new Map<string, number>();
    for (let i = 0; i < 250; i++) {
      for (const d of takeAll(schedule, 5000)) {
        sent.set(d.queue.table, (sent.get(d.queue.table) ?? 0) + 1);
        schedule.onDelivery(d, stored, 5000);
      }
    }
    assert.equal(sent.size, 50);
    for (const [table, n] of sent) assert.ok(n >= 19 && n <= 21, `${table}: ${n} of 1000`);
  });

  test("one table alone uses every place", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 10);
    assert.equal(takeAll(schedule, 0).length, 4);
  });

  test("no table takes the last place while there are others", () => {
    const schedule = scheduleOf();
    fill(schedule, "quiet", 1);
    fill(schedule, "slow", 10);
    const quiet = takeAll(schedule, 0).find((d) => d.queue.table === "quiet")!;
    schedule.onDelivery(quiet, stored, 1);
    assert.deepEqual(tables(takeAll(schedule, 1)), []);
    fill(schedule, "quiet", 1, 2);
    assert.deepEqual(tables(takeAll(schedule, 2)), ["quiet"]);
  });

  test("never more in flight than allowed", () => {
    for (const concurrency of [1, 2, 4]) {
      const schedule = scheduleOf({ concurrency });
      for (const table of ["a", "b", "c"]) fill(schedule, table, 10);
      const taken = takeAll(schedule, 100);
      assert.equal(taken.length, concurrency);
      schedule.onDelivery(taken[0]!, stored, 101);
      assert.equal(takeAll(schedule, 101).length, 1);
    }
  });

  test("a table that holds rows is never forgotten", () => {
    const schedule = scheduleOf({ maxRows: 2 });
    for (let i = 0; i < 1000; i++) fill(schedule, `t${i}`, 1 + i % 3);
    const batches = [...schedule.held()];
    assert.equal(batches.reduce((sum, batch) => sum + batch.rows, 0), 1 + 333 * 6);
  });

  test("tables that came and went cost nothing", () => {
    const schedule = scheduleOf();
    for (let i = 0; i < 5000; i++) {
      fill(schedule, `t${i}`, 1, i);
      schedule.onDelivery(schedule.next(i)!, stored, i);
    }
    assert.ok(schedule.tables < 1000, `${schedule.tables} queues are remembered`);
  });
});

describe("tables that are due together", () => {
  /** Open batches, one of each table, a few milliseconds apart. */
  const opened = (schedule: Schedule, ...ages: [table: string, atMs: number][]) => {
    for (const [table, atMs] of ages) fill(schedule, table, 1, atMs);
  };
  const roomy = () => scheduleOf({ maxRows: 10, concurrency: 4 });
  /** An INSERT of another table has just taken so long. */
  const took = (schedule: Schedule, ms: number) => {
    fill(schedule, "z", 10, 0);
    schedule.onDelivery(schedule.next(0)!, stored, ms);
  };

  test("with one that is due those are closed that are due within a tenth of the interval", () => {
    const schedule = roomy();
    opened(schedule, ["a", 100], ["b", 130], ["c", 200], ["d", 201]);
    assert.deepEqual(schedule.closeTogether(1099), []);
    const together = schedule.closeTogether(1100);
    assert.deepEqual(together.map(({ table }) => table), ["a", "b", "c"]);
    assert.ok(together.every(({ sealed, ready }) => sealed && ready));
    assert.deepEqual(tables(takeAll(schedule, 1100)), ["a", "b", "c"]);
    assert.equal(schedule.queue("d").open?.sealed, false);
  });

  test("one alone is closed when it is sent", () => {
    const schedule = roomy();
    opened(schedule, ["a", 100], ["b", 500]);
    assert.deepEqual(schedule.closeTogether(1100), []);
    assert.deepEqual(tables(takeAll(schedule, 1100)), ["a"]);
  });

  test("no more than go within half a second: what would wait grows instead", () => {
    const schedule = roomy();
    took(schedule, 500);
    opened(schedule, ...Array.from({ length: 9 }, (_, at) => [`t${at}`, 100] as [string, number]));
    assert.equal(schedule.closeTogether(1100).length, 4);
    const slow = roomy();
    took(slow, 1800);
    opened(slow, ["a", 100], ["b", 100]);
    assert.deepEqual(slow.closeTogether(1100), []);
  });

  test("what is due while they go waits for its own company, until they have gone or half a second is over", () => {
    for (const stuck of [false, true]) {
      const schedule = roomy();
      took(schedule, 10);
      opened(schedule, ["a", 100], ["b", 100], ["c", 100], ["d", 100], ["e", 100], ["f", 100], [
        "g",
        100,
      ]);
      assert.equal(schedule.closeTogether(1100).length, 7);
      opened(schedule, ["x", 110], ["y", 120]);
      const first = takeAll(schedule, 1200);
      assert.deepEqual(tables(first), ["a", "b", "c", "d"]);
      assert.deepEqual(schedule.closeTogether(1210), []);
      if (!stuck) {
        schedule.onDelivery(first[0]!, stored, 1210);
        assert.deepEqual(tables(takeAll(schedule, 1210)), ["e"]);
      }
      const atMs = stuck ? 1600 : 1210;
      assert.deepEqual(schedule.closeTogether(atMs).map(({ table }) => table), ["x", "y"]);
    }
  });

  test("a table in trouble, or one with batches that wait, is left alone", () => {
    const schedule = roomy();
    fill(schedule, "bad", 10, 0);
    schedule.onDelivery(schedule.next(0)!, tableTrouble, 0);
    fill(schedule, "bad", 1, 100);
    fill(schedule, "much", 11, 100);
    opened(schedule, ["a", 100], ["b", 100]);
    const together = schedule.closeTogether(1110);
    assert.deepEqual(together.map(({ table }) => table), ["a", "b"]);
  });

  test("without a server nothing is closed early", () => {
    const schedule = roomy();
    fill(schedule, "z", 10, 0);
    schedule.onDelivery(schedule.next(0)!, unanswered(), 0);
    opened(schedule, ["a", 100], ["b", 100]);
    assert.deepEqual(schedule.closeTogether(1100), []);
  });
});

describe("hurry", () => {
  test("nothing waits out a backoff or a Retry-After, and a new one is short", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    fill(schedule, "c", 1);
    const answers = new Map([["a", tableTrouble], ["b", busy(252, 60_000)], [
      "c",
      unanswered(60_000),
    ]]);
    for (const d of takeAll(schedule, 0)) schedule.onDelivery(d, answers.get(d.queue.table)!, 1);
    schedule.hurry();
    const sent = new Set<string>();
    for (let nowMs = 2; nowMs < 3000; nowMs++) {
      for (const d of takeAll(schedule, nowMs)) {
        sent.add(d.queue.table);
        schedule.onDelivery(d, answers.get(d.queue.table)!, nowMs);
      }
    }
    assert.deepEqual([...sent].sort(), ["a", "b", "c"]);
  });

  test("also a batch that its table refused goes at once", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    let nowMs = 0;
    for (let i = 0; i < 6; i++) {
      const { atMs, dispatch } = firstAt(schedule, nowMs);
      nowMs = atMs;
      schedule.onDelivery(dispatch, tableTrouble, nowMs);
    }
    assert.equal(schedule.next(nowMs + 1000), null);
    schedule.hurry();
    assert.notEqual(schedule.next(nowMs + 1000), null);
  });

  test("does not spin: attempts that fail at once are still a tenth of a second apart", () => {
    const schedule = scheduleOf({ random: () => 0 });
    fill(schedule, "a", 4);
    for (const d of takeAll(schedule, 0)) schedule.onDelivery(d, unanswered(), 0);
    schedule.hurry();
    let attempts = 0;
    for (let nowMs = 0; nowMs < 10_000; nowMs++) {
      for (let d = schedule.next(nowMs); d !== null; d = schedule.next(nowMs)) {
        schedule.onDelivery(d, unanswered(), nowMs);
        assert.ok(++attempts < 200, "attempts without end");
      }
    }
    assert.ok(attempts >= 50 && attempts <= 102, `${attempts} in 10 s`);
  });
});

test("asked when it said, the schedule always has something to send", () => {
  const schedule = scheduleOf({ maxRows: 3 });
  let seed = 7;
  const dice = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const under: Dispatch[] = [];
  let nowMs = 0;
  for (let step = 0; step < 4000; step++) {
    if (dice() < 0.4) fill(schedule, `t${Math.floor(dice() * 5)}`, 1, nowMs);
    if (under.length > 0 && dice() < 0.5) {
      const answers = [stored, stored, busy(), tableTrouble, unanswered()];
      const [d] = under.splice(Math.floor(dice() * under.length), 1);
      schedule.onDelivery(d!, answers[Math.floor(dice() * answers.length)]!, nowMs);
    }
    under.push(...takeAll(schedule, nowMs));
    const wakeMs = schedule.wakeAtMs();
    assert.ok(wakeMs > nowMs, "all that may go has gone");
    if (Number.isFinite(wakeMs)) {
      assert.equal(schedule.next(Math.ceil(wakeMs) - 1), null, "nothing goes before");
      if (dice() < 0.3) {
        nowMs = Math.ceil(wakeMs);
        const d = schedule.next(nowMs);
        assert.notEqual(d, null, "and something goes then");
        under.push(d!);
      }
    } else if (under.length === 0) assert.equal([...schedule.held()].length, 0);
    nowMs += Math.floor(dice() * 3);
  }
});
