/**
 * Positions are compared as the numbers that they are, however long.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { comparePositions, isPosition } from "../../src/kernel/positions.ts";

test("in their order, number by number", () => {
  const ascending = [
    ...["0", "2", "10", "17", "17-0", "17-3", "17-20", "18", "18-0-1", "18-1"],
    ...["9007199254740993", "9007199254740994", "18446744073709551615", "18446744073709551616"],
  ];
  ascending.forEach((one, at) =>
    ascending.forEach((other, to) =>
      assert.equal(Math.sign(comparePositions(one, other)), Math.sign(at - to), `${one} ${other}`)
    )
  );
  assert.equal(comparePositions("007-01", "7-1"), 0);
  assert.equal(comparePositions("000", "0"), 0);
});

test("as BigInt compares them", () => {
  const numbers = fc.array(fc.bigInt({ min: 0n, max: 10n ** 25n }), { minLength: 1, maxLength: 3 });
  fc.assert(fc.property(numbers, numbers, (ones, others) => {
    const at = ones.findIndex((one, at) => one !== others[at]);
    const [one, other] = [ones[at], others[at]];
    const order = one !== undefined && other !== undefined
      ? one < other ? -1 : 1
      : Math.sign(ones.length - others.length);
    assert.equal(Math.sign(comparePositions(ones.join("-"), others.join("-"))), order);
  }));
});

test("nothing else is a position", () => {
  for (const text of ["0", "17", "1764400000000-3", "9".repeat(40)]) assert.ok(isPosition(text));
  for (const text of ["", "-", "1-", "-1", "1.0", " 1", "1\n", "x", "9".repeat(41), 1, null]) {
    assert.ok(!isPosition(text), String(text));
  }
});
