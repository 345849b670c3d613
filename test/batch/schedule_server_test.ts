/**
 * Whose turn it is while the server is down.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { busy, stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { fill, firstAt, scheduleOf, tables, takeAll } from "./schedules.ts";

describe("while the server is down", () => {
  test("one probe goes out, of all tables together, and tables take turns", () => {
    const schedule = scheduleOf();
    for (const table of ["a", "b", "c"]) fill(schedule, table, 5);
    let nowMs = 100;
    for (const dispatch of takeAll(schedule, nowMs)) {
      schedule.onDelivery(dispatch, unanswered(), nowMs + 5);
    }
    const probed: string[] = [];
    for (let i = 0; i < 6; i++) {
      const { atMs, dispatch } = firstAt(schedule, nowMs + 5);
      assert.equal(schedule.next(atMs + 100_000), null, "a second one beside the probe");
      probed.push(dispatch.queue.table);
      nowMs = atMs;
      schedule.onDelivery(dispatch, unanswered(), nowMs + 5);
    }
    assert.deepEqual([...probed.slice(0, 3)].sort(), ["a", "b", "c"]);
    assert.deepEqual(probed.slice(3), probed.slice(0, 3));
  });

  test("the wait doubles from 250 ms to 30 s and there is no last attempt", () => {
    const schedule = scheduleOf({ concurrency: 1 });
    fill(schedule, "a", 1);
    const waits: number[] = [];
    let { atMs, dispatch } = firstAt(schedule, 10);
    for (let i = 0; i < 40; i++) {
      schedule.onDelivery(dispatch, unanswered(), atMs);
      const failedAtMs = atMs;
      ({ atMs, dispatch } = firstAt(schedule, atMs));
      waits.push(atMs - failedAtMs);
    }
    assert.deepEqual(waits.slice(0, 8), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    assert.equal(waits.at(-1), 30_000);
  });

  const together: [string, number[]][] = [
    ["within one millisecond", [100, 100, 100, 100]],
    ["one after the other", [110, 120, 300, 30_000]],
  ];
  for (const [name, times] of together) {
    test(`four attempts that fail together count once: ${name}`, () => {
      const schedule = scheduleOf();
      for (const table of ["a", "b", "c", "d"]) fill(schedule, table, 1);
      const taken = takeAll(schedule, 100);
      assert.equal(taken.length, 4);
      taken.forEach((dispatch, i) => schedule.onDelivery(dispatch, unanswered(), times[i]!));
      const lastMs = times.at(-1)!;
      const { atMs, dispatch } = firstAt(schedule, lastMs);
      assert.ok(atMs <= Math.max(lastMs, times[0]! + 500), `the first probe goes out at ${atMs}`);
      schedule.onDelivery(dispatch, unanswered(), atMs);
      assert.equal(firstAt(schedule, atMs).atMs - atMs, 1000, "the second wait");
    });
  }

  test("four attempts of one table that fail together do not lengthen that table's next backoff", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 4);
    for (const dispatch of takeAll(schedule, 100)) schedule.onDelivery(dispatch, busy(), 100);
    assert.equal(firstAt(schedule, 100).atMs, 600);
  });

  test("an outage does not count against the tables once the server is back", () => {
    const schedule = scheduleOf({ concurrency: 1 });
    fill(schedule, "a", 2);
    let { atMs, dispatch } = firstAt(schedule, 10);
    for (let i = 0; i < 20; i++) {
      schedule.onDelivery(dispatch, unanswered(), atMs);
      ({ atMs, dispatch } = firstAt(schedule, atMs));
    }
    schedule.onDelivery(dispatch, busy(), atMs);
    assert.equal(firstAt(schedule, atMs).atMs - atMs, 500, "the first backoff of the table itself");
  });

  test("any answer of ClickHouse ends it: everything goes at once", () => {
    for (const answer of [stored, tableTrouble, busy()]) {
      const schedule = scheduleOf();
      for (const table of ["a", "b", "c", "d", "e"]) fill(schedule, table, 2);
      for (const dispatch of takeAll(schedule, 100)) {
        schedule.onDelivery(dispatch, unanswered(), 105);
      }
      assert.notEqual(schedule.trouble, null);
      const { atMs, dispatch } = firstAt(schedule, 105);
      schedule.onDelivery(dispatch, answer, atMs);
      assert.equal(schedule.trouble, null);
      assert.equal(takeAll(schedule, atMs).length, 4);
    }
  });

  test("an answer to an attempt that was under way ends the backoff of another one", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    const [first, second] = takeAll(schedule, 0);
    fill(schedule, "c", 1);
    schedule.onDelivery(first!, unanswered(), 10);
    assert.equal(schedule.next(11), null);
    schedule.onDelivery(second!, stored, 12);
    assert.notEqual(schedule.next(12), null);
  });

  test("a failure after such an answer counts, however early its attempt began", () => {
    const schedule = scheduleOf({ concurrency: 3 });
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    fill(schedule, "c", 1);
    const [first, second, third] = takeAll(schedule, 0);
    schedule.onDelivery(first!, unanswered(), 10);
    schedule.onDelivery(second!, stored, 11);
    schedule.onDelivery(third!, unanswered(), 12);
    assert.notEqual(schedule.trouble, null);
    assert.equal(firstAt(schedule, 12).atMs, 512);
  });

  test("a table that came meanwhile is not sent beside the probe", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 4);
    for (const dispatch of takeAll(schedule, 100)) schedule.onDelivery(dispatch, unanswered(), 105);
    firstAt(schedule, 105);
    fill(schedule, "new", 1, 700);
    assert.equal(schedule.next(800), null);
  });
});

describe("Retry-After", () => {
  test("of a server or proxy is obeyed by all tables", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    const [first, second] = takeAll(schedule, 0);
    schedule.onDelivery(first!, unanswered(7000), 10);
    schedule.onDelivery(second!, unanswered(), 11);
    assert.equal(firstAt(schedule, 11).atMs, 7010);
  });

  test("of an attempt that fails beside others is obeyed, too", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    fill(schedule, "b", 1);
    const [first, second] = takeAll(schedule, 0);
    schedule.onDelivery(first!, unanswered(), 10);
    schedule.onDelivery(second!, unanswered(9000), 11);
    assert.equal(firstAt(schedule, 11).atMs, 9011);
  });

  test("is obeyed although an attempt that was under way succeeds afterwards", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 5);
    const [first, second] = takeAll(schedule, 0);
    schedule.onDelivery(first!, unanswered(9000), 10);
    schedule.onDelivery(second!, stored, 11);
    assert.equal(firstAt(schedule, 11).atMs, 9010);
  });

  test("of a table holds that table only, also when others of it fail without one", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 3);
    fill(schedule, "b", 2);
    const [a1, b1, a2] = takeAll(schedule, 0);
    assert.deepEqual(tables([a1!, b1!, a2!]), ["a", "b", "a"]);
    schedule.onDelivery(a1!, busy(252, 9000), 10);
    schedule.onDelivery(a2!, busy(252), 11);
    schedule.onDelivery(b1!, stored, 12);
    for (let d = schedule.next(13); d !== null; d = schedule.next(13)) {
      assert.equal(d.queue.table, "b");
      schedule.onDelivery(d, stored, 13);
    }
    assert.equal(firstAt(schedule, 13).atMs, 9010);
  });

  test("shorter than the backoff does not shorten it", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    schedule.onDelivery(schedule.next(0)!, unanswered(1), 0);
    assert.equal(firstAt(schedule, 0).atMs, 500);
  });
});
