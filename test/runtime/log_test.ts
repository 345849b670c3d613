/** The log as it is written: text and JSON, nothing of a value escapes its line, nothing is untold. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { createLog, type LogFormat, type LogLevel } from "../../src/runtime/log.ts";
import { ManualClock } from "../kit/manual_clock.ts";

function logTo(format: LogFormat, level: LogLevel = "info", color = false) {
  const lines: string[] = [];
  const clock = new ManualClock(1, Date.UTC(2026, 0, 31, 12));
  const log = createLog(level, format, { write: (each) => void lines.push(each), clock, color });
  return { log, lines, clock };
}

describe("log", () => {
  test("text: time, level, message, fields, aligned; no colour unless it is wanted", () => {
    const { log, lines } = logTo("text");
    log.warn("insert failed; will retry", { table: "t", code: 60, error: "no table" });
    log.info("listening", { url: "http://h:1" });
    log.error("a bug");
    assert.deepEqual(lines, [
      '12:00:00.000 WARN  insert failed; will retry            table=t code=60 error="no table"\n',
      "12:00:00.000 INFO  listening                            url=http://h:1\n",
      "12:00:00.000 ERROR a bug\n",
    ]);
    const painted = logTo("text", "info", true);
    painted.log.info("x", { a: 1 });
    assert.ok(painted.lines[0]!.includes("\x1b["));
  });

  test("json: one object a line", () => {
    const { log, lines } = logTo("json");
    log.info("batch stored", { table: "t", rows: 3, ok: true, none: null, not: undefined });
    assert.equal(
      lines.join(),
      '{"time":"2026-01-31T12:00:00.000Z","level":"info","message":"batch stored",' +
        '"table":"t","rows":3,"ok":true,"none":null}\n',
    );
  });

  test("below the level nothing is told", () => {
    const { log, lines } = logTo("json", "warn");
    log.debug("d");
    log.info("i");
    log.warn("w");
    assert.equal(lines.length, 1);
  });

  test("the last line is told whatever the level is, after what was folded", () => {
    const { log, lines } = logTo("text", "error");
    for (let n = 0; n < 3; n++) log.error("e");
    log.last("stopped", { held: 0 });
    assert.match(lines[1]!, /ERROR e \(repeated 2 times/);
    assert.match(lines[2]!, /INFO {2}stopped +held=0\n$/);
    assert.equal(lines.length, 3);
  });

  test("what repeats is told once a minute by itself, and what is left at the end", async () => {
    const { log, lines, clock } = logTo("text");
    for (let n = 0; n < 413; n++) log.warn("insert failed; will retry", { table: "t", attempt: n });
    assert.equal(lines.length, 1);
    await clock.advance(60_000);
    assert.equal(lines.length, 2);
    assert.match(
      lines[1]!,
      /insert failed; will retry \(repeated 412 times in 60 s\) .*attempt=412/,
    );
    log.warn("insert failed; will retry", { table: "t", attempt: 413 });
    log.flush();
    assert.match(lines[2]!, /attempt=413/);
    assert.equal(lines.length, 3);
    assert.equal(clock.pending, 0);
  });

  test("json of what repeats has the number in a field", () => {
    const { log, lines } = logTo("json");
    for (let n = 0; n < 4; n++) log.warn("x");
    log.flush();
    const { message, repeated, in_s } = JSON.parse(lines[1]!) as Record<string, unknown>;
    assert.deepEqual([message, repeated, in_s], ["x", 3, 0]);
  });

  test("dropped lines are told of when the reader reads again", () => {
    const lines: string[] = [];
    const log = createLog("info", "json", {
      write: (each) => {
        lines.push(each);
        return lines.length === 1 ? 7 : 0;
      },
    });
    log.info("x");
    assert.deepEqual(lines.map((each) => JSON.parse(each).lines), [undefined, 7]);
  });

  for (const format of ["text", "json"] as const) {
    test(`${format}: no value starts a line, moves the cursor or turns the writing around`, () => {
      const evil = '\n{"level":"info","message":"forged"}\r\x1b[2J\x9b31m\x07\u2028\u202e"=\x00';
      fc.assert(
        fc.property(fc.string({ unit: "binary" }), (text) => {
          const { log, lines } = logTo(format);
          log.error(text, { row: text });
          assert.match(lines.join(""), /^[^\p{Cc}\u2028\u2029\u202a-\u202e]+\n$/u);
          if (format === "json") assert.equal(JSON.parse(lines[0]!).row, text);
        }),
        { examples: [[evil]] },
      );
    });
  }
});
