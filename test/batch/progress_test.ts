/**
 * What the log tells while a backlog drains.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Log, LogFields } from "../../src/contracts.ts";
import { type Backlog, startProgress } from "../../src/batch/progress.ts";
import { ManualClock } from "../kit/manual_clock.ts";

type Line = LogFields & { readonly message: string };

function watched(backlog: Backlog) {
  const clock = new ManualClock();
  const lines: Line[] = [];
  const log: Log = {
    debug() {},
    info: (message, fields) => void lines.push({ message, ...fields }),
    warn: () => assert.fail("nothing is wrong"),
    error: () => assert.fail("nothing is wrong"),
  };
  const state = { backlog, settled: 0 };
  const cancel = startProgress({
    backlog: () => state.backlog,
    settledRows: () => state.settled,
    clock,
    log,
    flushIntervalMs: () => 1000,
  });
  /** Every second so many rows leave. */
  const drain = async (seconds: number, rowsPerS: number) => {
    for (let second = 0; second < seconds; second++) {
      state.settled += rowsPerS;
      state.backlog = { ...state.backlog, rows: state.backlog.rows - rowsPerS };
      await clock.advance(1000);
    }
  };
  return { clock, lines, state, drain, cancel };
}

describe("the log tells how a backlog drains", () => {
  test("when it begins to move, every five seconds, and when it is gone", async () => {
    const { lines, state, drain, cancel } = watched({ rows: 100_000, oldestMs: 20_000 });
    await drain(3, 0);
    assert.deepEqual(lines, [], "nothing moves");
    await drain(11, 2_000);
    assert.deepEqual(lines, [
      { message: "draining the backlog", rows_held: 98_000, rows_per_s: 2_000, oldest_s: 20 },
      { message: "draining the backlog", rows_held: 88_000, rows_per_s: 2_000, oldest_s: 20 },
      { message: "draining the backlog", rows_held: 78_000, rows_per_s: 2_000, oldest_s: 20 },
    ]);
    state.backlog = { rows: 500, oldestMs: 900 };
    await drain(1, 400);
    assert.deepEqual(lines.at(-1), {
      message: "the backlog is drained",
      rows: 22_400,
      rows_per_s: 1_867,
      took_s: 12,
    });
    await drain(60, 5_000);
    assert.equal(lines.length, 4, "everyday work is silent");
    cancel();
  });

  test("one that is gone at once has one line", async () => {
    const { lines, state, drain, cancel } = watched({ rows: 30_000, oldestMs: 20_000 });
    await drain(2, 0);
    state.backlog = { rows: 10_000, oldestMs: 500 };
    await drain(1, 10_000);
    assert.deepEqual(lines.map(({ message, rows }) => [message, rows]), [
      ["the backlog is drained", 10_000],
    ]);
    cancel();
  });

  test("few rows are a backlog when they are old, many when they are late", async () => {
    const cases: [Backlog, number][] = [
      [{ rows: 5, oldestMs: 61_000 }, 1],
      [{ rows: 5, oldestMs: 59_000 }, 0],
      [{ rows: 50_000, oldestMs: 6_000 }, 1],
      [{ rows: 50_000, oldestMs: 2_000 }, 0],
    ];
    for (const [backlog, wanted] of cases) {
      const { lines, drain, cancel } = watched(backlog);
      await drain(1, 1);
      assert.equal(lines.length, wanted, JSON.stringify(backlog));
      cancel();
    }
  });

  test("nothing is left behind when it is cancelled", () => {
    const { clock, cancel } = watched({ rows: 0, oldestMs: 0 });
    assert.equal(clock.pending, 1);
    cancel();
    assert.equal(clock.pending, 0);
  });
});
