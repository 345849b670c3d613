/** Lines that repeat are folded; none is lost in it, none misleads, and the memory for it is bounded. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { LogFields } from "../../src/contracts.ts";
import { Fold, type Line, type LogLevel } from "../../src/runtime/log.ts";

const line = (level: LogLevel, message: string, fields: LogFields = {}): Line => ({
  level,
  message,
  fields,
});
const retry = (attempt: number, table = "t", code = 60) =>
  line("warn", "insert failed; will retry", { table, code, attempt });

/** Gives lines to a fold at their times; what it writes, as short texts. */
function written(lines: readonly (readonly [atMs: number, line: Line])[], endMs: number): string[] {
  const fold = new Fold();
  const out: Line[] = [];
  for (const [atMs, each] of lines) out.push(...fold.take(each, atMs));
  out.push(...fold.due(endMs));
  return out.map(text);
}

function text({ message, fields, repeated }: Line): string {
  const times = repeated === undefined ? "" : ` ×${repeated.times} in ${repeated.overMs}`;
  return `${message} ${Object.values(fields).join()}${times}`;
}

describe("fold", () => {
  test("the first is told at once, then one line a minute with how many and the last one's fields", () => {
    const lines = Array.from({ length: 413 }, (_, n) => [n * 100, retry(n)] as const);
    assert.deepEqual(written(lines, 60_000), [
      "insert failed; will retry t,60,0",
      "insert failed; will retry t,60,412 ×412 in 60000",
    ]);
  });

  test("it goes on for as long as more come, and begins anew after a quiet minute", () => {
    const at = [0, 59_999, 60_000, 70_000, 90_000, 300_000];
    assert.deepEqual(
      written(at.map((ms, n) => [ms, retry(n)] as const), 400_000),
      [
        "insert failed; will retry t,60,0",
        "insert failed; will retry t,60,1",
        "insert failed; will retry t,60,4 ×3 in 240000",
        "insert failed; will retry t,60,5",
      ],
    );
  });

  test("another table, another code, another message: told by themselves", () => {
    const lines = [retry(1), retry(1, "u"), retry(1, "t", 81), line("error", "x", { table: "t" })];
    assert.equal(written(lines.map((each) => [0, each] as const), 0).length, 4);
  });

  test("another source, another exit channel: told by themselves", () => {
    const away = (field: string, name: string) => line("warn", "is away", { [field]: name });
    const lines = [["source", "a"], ["source", "b"], ["source", "a"], ["exit", "a"], ["exit", "b"]]
      .map(([field, name]) => [0, away(field!, name!)] as const);
    assert.deepEqual(written(lines, 0), ["is away a", "is away b", "is away a", "is away b"]);
  });

  test("errors are alike only when every field is: a batch that is lost is always told", () => {
    const lost = (batch: number) => line("error", "rows are lost", { table: "t", batch });
    const lines = [lost(1), lost(2), lost(2), lost(3)].map((each) => [0, each] as const);
    assert.deepEqual(written(lines, 0), [
      "rows are lost t,1",
      "rows are lost t,2",
      "rows are lost t,3",
    ]);
  });

  test("info says that something has changed: the count before it, and everything anew after it", () => {
    const away = line("warn", "away");
    const there = line("info", "there");
    const lines = [away, away, away, there, away, there].map((each) => [0, each] as const);
    assert.deepEqual(written(lines, 0).map((each) => each.trim()), [
      "away",
      "away  ×2 in 0",
      "there",
      "away",
      "there",
    ]);
  });

  test("debug and info are never folded", () => {
    for (const level of ["debug", "info"] as const) {
      const lines = [0, 1, 2].map((ms) => [ms, line(level, "x")] as const);
      assert.equal(written(lines, 3).length, 3);
    }
  });

  test("whatever comes, whenever: every line is told or counted, and few kinds are remembered", () => {
    const anyLine = fc.record({
      level: fc.constantFrom<LogLevel>("debug", "info", "warn", "warn", "warn", "error"),
      kind: fc.nat(400),
      afterMs: fc.constantFrom(0, 10, 30_000, 70_000),
    });
    fc.assert(fc.property(fc.array(anyLine, { maxLength: 600 }), (given) => {
      const fold = new Fold();
      let nowMs = 0;
      let told = 0;
      const count = (lines: readonly Line[]) => {
        for (const { repeated } of lines) told += repeated?.times ?? 1;
      };
      for (const { level, kind, afterMs } of given) {
        nowMs += afterMs;
        count(fold.take(line(level, `m${kind}`), nowMs));
      }
      const rest = fold.flush(nowMs);
      assert.ok(rest.length <= 200);
      count(rest);
      assert.equal(told, given.length);
      assert.equal(fold.nextMs(), null);
    }));
  });
});
