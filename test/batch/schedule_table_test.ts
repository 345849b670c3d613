/**
 * Whose turn it is while a table is in trouble.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { busy, stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { fill, firstAt, scheduleOf, takeAll } from "./schedules.ts";

describe("a table in trouble", () => {
  for (const answer of [tableTrouble, busy()]) {
    test(`(${answer.kind}) is probed by one batch at a time; the others flow`, () => {
      const schedule = scheduleOf();
      fill(schedule, "bad", 50);
      fill(schedule, "good", 500);
      let most = 0;
      let good = 0;
      let bad = 0;
      for (let nowMs = 0; nowMs < 20_000; nowMs += 50) {
        const taken = takeAll(schedule, nowMs);
        const here = taken.filter((d) => d.queue.table === "bad").length;
        bad += here;
        if (nowMs > 0) most = Math.max(most, here);
        good += taken.length - here;
        assert.equal(
          nowMs === 0 || good >= Math.min(500, 3 * nowMs / 50),
          true,
          `${nowMs}: ${good}`,
        );
        for (const d of taken) {
          schedule.onDelivery(d, d.queue.table === "bad" ? answer : stored, nowMs);
        }
      }
      assert.equal(good, 500);
      assert.equal(most, 1);
      assert.ok(bad < 15, `${bad} attempts in 20 s`);
    });
  }

  test("says what is wrong until no batch of it is refused any more", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    schedule.onDelivery(schedule.next(0)!, tableTrouble, 0);
    assert.equal(
      schedule.queue("a").trouble,
      tableTrouble.kind === "table" && tableTrouble.message,
    );
    fill(schedule, "a", 1, 1);
    const fresh = firstAt(schedule, 500).dispatch;
    if (fresh.batch.oldestMs === 1) {
      schedule.onDelivery(fresh, stored, 500);
      assert.notEqual(schedule.queue("a").trouble, null, "one batch is still refused");
    }
    for (let nowMs = 600; schedule.queue("a").trouble !== null; nowMs += 100) {
      assert.ok(nowMs < 60_000);
      for (const d of takeAll(schedule, nowMs)) schedule.onDelivery(d, stored, nowMs);
    }
    assert.equal([...schedule.held()].length, 0);
  });

  test("a batch that its table refuses waits on its own, ever longer; fresh ones pass it", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    const first = schedule.next(0)!;
    const old = first.batch;
    schedule.onDelivery(first, tableTrouble, 0);
    let probes = 0;
    let freshSent = 0;
    for (let nowMs = 10; nowMs < 120_000; nowMs += 10) {
      if (nowMs % 1000 === 0) fill(schedule, "a", 1, nowMs);
      for (const d of takeAll(schedule, nowMs)) {
        if (d.batch === old) probes++;
        else freshSent++;
        schedule.onDelivery(d, d.batch === old ? tableTrouble : stored, nowMs);
      }
    }
    assert.ok(freshSent >= 118, `${freshSent} of 119 fresh batches`);
    assert.ok(probes >= 4 && probes <= 12, `${probes} probes in 120 s`);
  });

  test("a batch that only ever fails by itself backs off by itself", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    const [poison] = schedule.held();
    let attempts = 0;
    for (let nowMs = 0; nowMs < 120_000; nowMs += 10) {
      if (nowMs % 500 === 0) fill(schedule, "a", 1, nowMs);
      for (const d of takeAll(schedule, nowMs)) {
        if (d.batch === poison) attempts++;
        schedule.onDelivery(d, d.batch === poison ? busy(241) : stored, nowMs);
      }
    }
    assert.ok(attempts <= 15, `${attempts} attempts in 120 s`);
  });
});

describe("one table's silence is not another table's trouble", () => {
  test("a batch that is never answered while others are does not slow the others", () => {
    const schedule = scheduleOf();
    fill(schedule, "poison", 1);
    fill(schedule, "good", 1);
    let good = 0;
    let attempts = 0;
    for (let nowMs = 0; nowMs < 120_000; nowMs += 10) {
      if (nowMs % 100 === 0) fill(schedule, "good", 1, nowMs);
      for (const d of takeAll(schedule, nowMs)) {
        if (d.queue.table === "good") good++;
        else attempts++;
        schedule.onDelivery(d, d.queue.table === "good" ? stored : unanswered(), nowMs);
      }
      if (nowMs >= 60_000) {
        const late = [...schedule.held()].filter((b) =>
          b.table === "good" && nowMs - b.oldestMs > 50
        );
        assert.equal(late.length, 0, `at ${nowMs} ms ${late.length} good batches wait`);
      }
    }
    assert.ok(good >= 1190);
    assert.ok(attempts <= 20, `${attempts} attempts in 120 s`);
  });

  test("a poisonous batch of the same table does not hold up its table or others", () => {
    const schedule = scheduleOf();
    fill(schedule, "a", 1);
    const [poison] = schedule.held();
    let attempts = 0;
    let sent = 0;
    for (let nowMs = 0; nowMs < 120_000; nowMs += 10) {
      if (nowMs % 100 === 0) fill(schedule, nowMs % 200 === 0 ? "a" : "b", 1, nowMs);
      for (const d of takeAll(schedule, nowMs)) {
        if (d.batch === poison) attempts++;
        else sent++;
        schedule.onDelivery(d, d.batch === poison ? unanswered() : stored, nowMs);
      }
    }
    assert.ok(sent >= 1190, `${sent} sent`);
    assert.ok(attempts <= 20, `${attempts} attempts in 120 s`);
  });

  test("but a server that dies again is found out, whatever failed before", () => {
    const schedule = scheduleOf();
    for (let i = 0; i < 24; i++) fill(schedule, `t${i}`, 50);
    let nowMs = 0;
    // All tables have failed before; then one answer; then nobody answers any more.
    for (let round = 0; round < 60; round++) {
      const { atMs, dispatch } = firstAt(schedule, nowMs);
      nowMs = atMs;
      schedule.onDelivery(dispatch, unanswered(), nowMs);
    }
    const { atMs, dispatch } = firstAt(schedule, nowMs);
    schedule.onDelivery(dispatch, stored, atMs);
    let attempts = 0;
    for (nowMs = atMs; nowMs < atMs + 60_000; nowMs += 10) {
      const taken = takeAll(schedule, nowMs);
      attempts += taken.length;
      if (nowMs > atMs) assert.ok(taken.length <= 1, `${taken.length} at once`);
      for (const d of taken) schedule.onDelivery(d, unanswered(), nowMs);
    }
    assert.ok(attempts <= 15, `${attempts} attempts in 60 s`);
  });
});
