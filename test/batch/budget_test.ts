import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Budget } from "../../src/batch/budget.ts";

const budget = () => new Budget({ maxRows: 10, maxBytes: 1000 });

describe("budget of held rows", () => {
  test("takes exactly the limit and not one row or byte more", () => {
    const full = budget();
    full.hold(9, 900);
    assert.equal(full.refusal(1, 100), null);
    assert.match(full.refusal(2, 100) ?? "", /9 of 10 rows/);
    assert.match(full.refusal(1, 101) ?? "", /900 of 1000 bytes \(backlog-bytes\)/);
  });

  test("what is freed can be held again", () => {
    const full = budget();
    full.hold(10, 1000);
    assert.notEqual(full.refusal(1, 1), null);
    full.free(10, 1000);
    assert.equal(full.refusal(10, 1000), null);
    assert.deepEqual([full.rows, full.bytes], [0, 0]);
  });

  test("a request that never fits is told so, with what was found and what was wanted", () => {
    assert.match(budget().refusal(11, 1) ?? "", /11 rows.*backlog is 10/);
    assert.match(budget().refusal(1, 1001) ?? "", /1001 bytes.*backlog-bytes is 1000/);
  });
});

describe("what is foreseen of a body", () => {
  test("refused as its rows would be, but for one that may be mostly blanks", () => {
    const held = budget();
    held.hold(3, 900);
    assert.equal(held.foreseen(100), null);
    assert.match(held.foreseen(101) ?? "", /900 of 1000 bytes/);
    assert.equal(held.foreseen(1001), null);
    held.hold(7, 0);
    assert.match(held.foreseen(1) ?? "", /10 of 10 rows/);
  });
});

describe("budget of bodies under way", () => {
  test("is bounded, and what is released is free again", () => {
    const reading = budget();
    assert.equal(reading.reserve(600), true);
    assert.equal(reading.reserve(400), true);
    assert.equal(reading.reserve(1), false);
    reading.release(600);
    assert.equal(reading.reserve(600), true);
    assert.equal(reading.reserve(1), false);
  });

  test("one body always gets through, however large; a second one beside it does not", () => {
    const reading = budget();
    assert.equal(reading.reserve(5000), true);
    assert.equal(reading.reserve(1), false);
    reading.release(5000);
    assert.equal(reading.reserve(1), true);
  });

  test("a refused reservation takes nothing", () => {
    const reading = budget();
    reading.reserve(900);
    for (let i = 0; i < 100; i++) assert.equal(reading.reserve(200), false);
    assert.equal(reading.reserve(100), true);
  });
});
