/**
 * Limits of many bodies: each is told once, at its time, and never after its end.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Deadlines } from "../../src/admit/body.ts";
import { ManualClock } from "../kit/manual_clock.ts";

test("who is late is told, once and in order", async () => {
  const clock = new ManualClock();
  const deadlines = new Deadlines(clock, 1000);
  const told: string[] = [];
  deadlines.begin(() => told.push("a"));
  await clock.advance(400);
  const b = deadlines.begin(() => told.push("b"));
  await clock.advance(100);
  deadlines.begin(() => told.push("c"));
  await clock.advance(499);
  assert.deepEqual(told, []);
  await clock.advance(1);
  assert.deepEqual(told, ["a"]);
  deadlines.end(b);
  await clock.advance(500);
  assert.deepEqual(told, ["a", "c"]);
  await clock.advance(10_000);
  assert.deepEqual(told, ["a", "c"]);
  assert.equal(clock.pending, 0);
});

test("a thousand bodies share one timer, and the next ones get another", async () => {
  const clock = new ManualClock();
  const deadlines = new Deadlines(clock, 1000);
  let late = 0;
  for (let n = 0; n < 1000; n++) {
    const deadline = deadlines.begin(() => late++);
    assert.equal(clock.pending, 1);
    deadlines.end(deadline);
  }
  await clock.advance(1000);
  assert.deepEqual([late, clock.pending], [0, 0]);
  deadlines.begin(() => late++);
  await clock.advance(1000);
  assert.deepEqual([late, clock.pending], [1, 0]);
});

test("any order of beginnings and ends", async () => {
  const steps = fc.array(
    fc.record({ waitMs: fc.nat({ max: 700 }), lastsMs: fc.nat({ max: 2000 }) }),
    { maxLength: 30 },
  );
  await fc.assert(fc.asyncProperty(steps, async (bodies) => {
    const clock = new ManualClock();
    const deadlines = new Deadlines(clock, 1000);
    const late: number[] = [];
    for (const [n, { waitMs, lastsMs }] of bodies.entries()) {
      await clock.advance(waitMs);
      const deadline = deadlines.begin(() => late.push(n));
      clock.after(lastsMs, () => deadlines.end(deadline));
    }
    await clock.advance(5000);
    // At exactly the limit either may come first.
    const sure = (n: number) => bodies[n]!.lastsMs !== 1000;
    const wanted = bodies.flatMap(({ lastsMs }, n) => lastsMs > 1000 ? [n] : []);
    assert.deepEqual(late.filter(sure), wanted);
    assert.equal(clock.pending, 0);
  }));
});
