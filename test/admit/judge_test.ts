/**
 * Rows of a batch are read once more as the door would read them now; the others stay where they are.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Columns, RowsToJudge } from "../../src/contracts.ts";
import { DecodeQueue } from "../../src/admit/decode.ts";
import { createJudge } from "../../src/admit/judge.ts";
import { columnsOf } from "../kit/columns.ts";
import { rounds } from "../kit/rounds.ts";
import { bytesOf } from "./kit.ts";

const COLUMNS = columnsOf([
  "id UInt32",
  "u UInt8",
  "t DateTime64(3, 'UTC')",
  "e Enum8('a' = 1, 'b' = 2)",
  "_rest Map(String, String)",
]);

const rowsOf = (lines: readonly string[], more: Partial<RowsToJudge> = {}): RowsToJudge => ({
  shape: "row",
  table: "t",
  body: [bytesOf(lines.map((line) => `${line}\n`).join(""))],
  columns: COLUMNS,
  unknownKeys: { policy: "error" },
  widens: false,
  ...more,
});
const textOf = (body: readonly Uint8Array[]) =>
  body.map((piece) => new TextDecoder().decode(piece)).join("");
const noCsv = () => Promise.reject(new Error("none of these is CSV"));

test("each row is what the door makes of it", async () => {
  const value = fc.constantFrom(
    ...[
      "1",
      "255",
      "256",
      "null",
      '"x"',
      "1764400000",
      "1764400000123",
      '"2026-01-02"',
      '"a"',
      "2",
    ],
    ...['"2026-02-30"', '{"a":1}', "[]", '"b"', "1.5"],
  );
  const row = fc.uniqueArray(fc.tuple(fc.constantFrom("id", "u", "t", "e", "n", "_rest"), value), {
    selector: ([key]) => key,
    maxLength: 4,
  }).map((fields) => `{${fields.map(([key, value]) => `"${key}":${value}`).join(",")}}`);
  const policy = fc.constantFrom("error", "skip", "keep", "pass" as const);
  const judge = createJudge();
  // One for all: see the scanner of kit.ts.
  const door = new DecodeQueue(noCsv);
  await fc.assert(
    fc.asyncProperty(
      fc.array(row, { minLength: 1, maxLength: 30 }),
      fc.nat({ max: 3 }),
      policy,
      async (lines, cuts, policy) => {
        const unknownKeys = { policy };
        const body = Array.from({ length: cuts + 1 }, (_, at) => {
          const from = Math.floor(at * lines.length / (cuts + 1));
          const to = Math.floor((at + 1) * lines.length / (cuts + 1));
          return bytesOf(lines.slice(from, to).map((line) => `${line}\n`).join(""));
        });
        const judged = await judge(rowsOf(lines, { body, unknownKeys }));
        const problems = new Map(judged.misfits.map(({ index, problem }) => [index, problem]));
        const sent = textOf(judged.body ?? body).split("\n");
        assert.equal(sent.length, lines.length + 1);
        for (const [at, line] of lines.entries()) {
          const target = { table: "t", shape: "row", columns: COLUMNS, unknownKeys } as const;
          const decoded = await door.decode(bytesOf(line), target, 0);
          assert.ok(decoded.kind === "rows");
          assert.equal(problems.get(at), decoded.errors[0]?.error, line);
          assert.equal(`${sent[at]}\n`, decoded.rows === 1 ? textOf([decoded.body]) : `${line}\n`);
          for (const key of decoded.rows === 1 ? decoded.keys! : []) {
            assert.ok(judged.keys.has(key));
          }
        }
        assert.deepEqual([...problems.keys()], [...problems.keys()].sort((a, b) => a - b));
      },
    ),
    { numRuns: rounds(150) },
  );
});

test("twice comes to the same, whatever was put in other words", async () => {
  const judge = createJudge();
  const times = ["1764400000", "1764400000.25", '"2026-01-02"', '"1960-01-01 00:00:00.25"', "-1.5"];
  const lines = times.map((time) => `{"t":${time},"e":1,"n":1}`);
  const door = await new DecodeQueue(noCsv).decode(
    bytesOf(lines.join("\n")),
    { table: "t", shape: "row", columns: COLUMNS, unknownKeys: { policy: "keep" } },
    0,
  );
  assert.ok(door.kind === "rows");
  const judged = await judge(rowsOf([], { body: [door.body.slice()] }));
  assert.equal(judged.body, null);
  // Ticks could be seconds: what it means is not guessed.
  assert.deepEqual(judged.misfits.map(({ index }) => index), [3, 4]);
  assert.match(
    judged.misfits[0]!.problem,
    /^t: -315619199750 may be seconds, or parts of a second/,
  );
});

test("rows that stay as they are stay where they are", async () => {
  const good = Array.from({ length: 8000 }, (_, id) => `{"id":${id},"u":${id % 256},"e":"a"}`);
  const judge = createJudge();
  const all = await judge(rowsOf(good));
  assert.deepEqual([all.body, all.misfits, [...all.keys].sort()], [null, [], ["e", "id", "u"]]);
  const lines = good.with(2000, '{"id":2000,"u":7,"t":1764400000}').with(7999, '{"u":256}');
  const rows = rowsOf(lines);
  const some = await judge(rows);
  assert.deepEqual(some.misfits, [{
    index: 7999,
    problem: "u: 256 does not fit UInt8 (0 to 255)",
  }]);
  const sent = lines.with(2000, '{"id":2000,"u":7,"t":"2025-11-29 07:06:40.000Z"}').join("\n");
  assert.equal(textOf(some.body!), `${sent}\n`);
  const [whole] = rows.body;
  const copied = some.body!.filter(({ buffer }) => buffer !== whole!.buffer);
  assert.ok(some.body!.length > 2);
  assert.equal(copied.length, 1);
});

test("a line that is no row, or more than one, does not fit; the others do", async () => {
  const lines = ['{"u":1}', '{"u":1}{"u":2}', "[", '{"u":3}', '[{"u":4},{"u":5}]', "", "7"];
  const judged = await createJudge()(rowsOf(lines));
  assert.equal(judged.body, null);
  assert.deepEqual(judged.misfits.map(({ index }) => index), [1, 2, 4, 5, 6]);
  assert.match(judged.misfits[0]!.problem, /^expected one JSON object/);
});

test("columns that the table lacks, and values that are too wide, are told", async () => {
  const judge = createJudge();
  const columns: Columns = columnsOf(["u UInt8"]);
  const lines = ['{"u":1}', '{"u":1,"n":2}', '{"u":300}'];
  const asked = await judge(
    rowsOf(lines, { columns, unknownKeys: { policy: "column" }, widens: true }),
  );
  assert.deepEqual([[...asked.strange], [...asked.wider]], [["n"], [["u", ["300"]]]]);
  assert.deepEqual(asked.misfits.map(({ index }) => index), [1, 2]);
});

test("others have their turn every some milliseconds, and batches go one after the other", async () => {
  let turns = 0;
  let under = 0;
  const judge = createJudge(async () => {
    assert.equal(++under, 1);
    turns++;
    await Promise.resolve();
    under--;
  });
  // Each is put together anew.
  const lines = Array.from({ length: 4000 }, (_, id) => `{"id":${id},"e":${1 + id % 2}}`);
  await Promise.all([judge(rowsOf(lines)), judge(rowsOf(lines))]);
  assert.ok(turns >= 8, `${turns} turns`);
});
