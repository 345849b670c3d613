/**
 * Durations, sizes and counts: what is read, what is refused, and that writing undoes reading.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  formatBytes,
  formatCount,
  formatDuration,
  parseBytes,
  parseCount,
  parseDurationMs,
} from "../../src/settings/kinds.ts";

const DURATIONS: [string, number | null][] = [
  ["0s", 0],
  ["1ms", 1],
  ["500ms", 500],
  ["1s", 1000],
  ["1.5s", 1500],
  ["1.005s", 1005],
  ["5m", 300_000],
  ["1m30s", 90_000],
  ["1h", 3_600_000],
  ["30d", 2_592_000_000],
  ["1d12h", 129_600_000],
  ["1h1ms", 3_600_001],
  ["", null],
  ["1", null],
  ["s", null],
  ["-1s", null],
  ["1 s", null],
  ["1s1h", null],
  ["1.0001ms", null],
  ["1D", null],
  ["1S", null],
  ["fast", null],
  ["off", null],
  ["1e3ms", null],
  ["Infinityms", null],
  ["99999999999999999999h", null],
];

const SIZES: [string, number | null][] = [
  ["0", 0],
  ["1", 1],
  ["512B", 512],
  ["1_048_576", 1_048_576],
  ["64KiB", 65_536],
  ["10MiB", 10_485_760],
  ["1.5MiB", 1_572_864],
  ["1GiB", 1_073_741_824],
  ["2TiB", 2_199_023_255_552],
  ["64KB", 64_000],
  ["10MB", 10_000_000],
  ["1GB", 1_000_000_000],
  ["10 MiB", 10_485_760],
  ["10mib", 10_485_760],
  ["", null],
  ["MiB", null],
  ["-1", null],
  ["10M", null],
  ["0.3B", null],
  ["1e6", null],
  ["ten", null],
  ["99999999TiB", null],
];

const COUNTS: [string, number | null][] = [
  ["0", 0],
  ["1000000", 1_000_000],
  ["1_000_000", 1_000_000],
  ["007", 7],
  ["", null],
  ["_1", null],
  ["1_", null],
  ["1__0", null],
  ["-1", null],
  ["1.5", null],
  ["1e6", null],
  ["1,000", null],
  ["9007199254740993", null],
];

describe("units", () => {
  for (const [text, ms] of DURATIONS) {
    test(`duration ${JSON.stringify(text)}`, () => assert.equal(parseDurationMs(text), ms));
  }
  for (const [text, bytes] of SIZES) {
    test(`size ${JSON.stringify(text)}`, () => assert.equal(parseBytes(text), bytes));
  }
  for (const [text, count] of COUNTS) {
    test(`count ${JSON.stringify(text)}`, () => assert.equal(parseCount(text), count));
  }

  test("what is written is read back", () => {
    fc.assert(fc.property(fc.nat({ max: 10 ** 12 }), (n) => {
      assert.equal(parseDurationMs(formatDuration(n)), n);
      assert.equal(parseBytes(formatBytes(n)), n);
      assert.equal(parseCount(formatCount(n)), n);
    }));
  });

  test("the largest unit that fits is written", () => {
    assert.deepEqual([0, 250, 1000, 90_000, 7_200_000].map(formatDuration), [
      "0s",
      "250ms",
      "1s",
      "90s",
      "2h",
    ]);
    assert.deepEqual([0, 1000, 65_536, 10_485_760].map(formatBytes), [
      "0",
      "1000",
      "64KiB",
      "10MiB",
    ]);
  });
});
