/**
 * How long the pauses between attempts are.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { HURRY, RETRY } from "../../src/batch/retry.ts";
import { backoffMs } from "../../src/kernel/backoff.ts";

const ALMOST_1 = 1 - 2 ** -53;

describe("backoff", () => {
  test("is never below 250 ms and never above 30 s, however many failures", () => {
    for (const failures of [1, 2, 3, 7, 8, 30, 31, 1000, 1e9]) {
      for (const random of [0, 0.5, ALMOST_1]) {
        const waitMs = backoffMs(failures, random, RETRY);
        assert.ok(waitMs >= 250 && waitMs <= 30_000, `${failures} failures, ${random}: ${waitMs}`);
      }
    }
  });

  test("its ceiling doubles with each failure until 30 s", () => {
    const ceilings = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => Math.round(backoffMs(n, ALMOST_1, RETRY)));
    assert.deepEqual(ceilings, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  });

  test("jitter is full: chance covers the whole range evenly", () => {
    for (const failures of [1, 4, 20]) {
      const most = backoffMs(failures, ALMOST_1, RETRY);
      assert.equal(backoffMs(failures, 0, RETRY), 250);
      const buckets = new Array(10).fill(0);
      for (let i = 0; i < 1000; i++) {
        const share = (backoffMs(failures, i / 1000, RETRY) - 250) / (most - 250);
        buckets[Math.min(9, Math.floor(share * 10))]++;
      }
      for (const n of buckets) assert.ok(n >= 95 && n <= 105, `${failures}: ${buckets}`);
    }
  });

  test("while stopping a probe goes out at least every half second", () => {
    for (const failures of [1, 2, 10, 1000]) {
      assert.ok(backoffMs(failures, 0, HURRY) >= 100);
      assert.ok(backoffMs(failures, ALMOST_1, HURRY) <= 500);
    }
  });
});
