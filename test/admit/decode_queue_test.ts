/** Large bodies: read in slices, the same comes out; others have their turn meanwhile. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import { type Decoded, DecodeQueue, Decoding } from "../../src/admit/decode.ts";
import { Scanner } from "../../src/admit/scanner.ts";
import { rounds } from "../kit/rounds.ts";
import { bytesOf, decodeEvents, errorsOf, EVENTS, linesOf, NOW_MS } from "./kit.ts";

const UUID = "01890a5d-ac96-774b-bcce-b302099a8057";
const GOOD = `{"id":"${UUID}","timestamp":"2024-01-01","eventType":"a"}`;

const scanner = new Scanner();
const noCsv = () => Promise.reject(new Error("none of these is CSV"));

/** As much as possible in pieces: stops after every row. */
function decodeByRow(bytes: Uint8Array): { decoded: Decoded; slices: number } {
  const decoding = new Decoding(bytes, EVENTS, scanner, NOW_MS);
  let slices = 1;
  while (!decoding.go(1)) slices++;
  return { decoded: decoding.end(), slices };
}

test("in slices the same comes out as at once", () => {
  const row = fc.constantFrom(
    GOOD,
    `${GOOD}\r`,
    GOOD.replace('"a"', '"a","eventType":"b"'),
    GOOD.replace('"a"', '"\\ud800"'),
    '{"eventType":5}',
    "{}",
    "x",
    "1",
    "",
    "  ",
    "[1,2]",
    "\ufeff{}",
    "\xff",
    JSON.stringify(JSON.parse(GOOD), null, 2),
    '{\n  "eventType": oops\n}',
    `[${GOOD},\n${GOOD}]`,
    "[",
  );
  const between = fc.constantFrom("\n", "\n", "", ",\n", "\n\x1e", " ");
  const body = fc.tuple(fc.array(row, { maxLength: 12 }), fc.boolean(), fc.boolean(), between).map(
    ([rows, array, latin, between]) => {
      const text = array ? `[${rows.join(",")}]` : rows.join(between);
      // Latin-1 makes some bodies that are not UTF-8.
      return latin ? new Uint8Array(Buffer.from(text, "latin1")) : bytesOf(text);
    },
  );
  fc.assert(
    fc.property(body, (bytes) => {
      const atOnce = decodeEvents(bytes);
      const { decoded } = decodeByRow(bytes);
      assert.deepEqual(errorsOf(decoded), errorsOf(atOnce));
      if (atOnce.kind === "rows") assert.deepEqual(linesOf(decoded), linesOf(atOnce));
    }),
    { numRuns: rounds(500) },
  );
});

test("it can be stopped between any two rows", () => {
  assert.equal(decodeByRow(bytesOf(`${GOOD}\n`.repeat(50))).slices, 50);
  assert.equal(decodeByRow(bytesOf(GOOD.repeat(50))).slices, 50);
  assert.equal(decodeByRow(bytesOf("x\n".repeat(50))).slices, 50);
  assert.equal(decodeByRow(bytesOf(`[${Array(50).fill(GOOD).join()}]`)).slices, 50);
});

const FLOODS: readonly (readonly [string, string, number])[] = [
  ["good rows", `${GOOD}\n`.repeat(50_000), 50_000],
  ["tiny wrong rows", "x\n".repeat(1_000_000), 0],
  ["many kinds of wrong rows", '{"eventTyp":"xx"}\n\xff\n'.repeat(80_000), 0],
  ["lines that open brackets", `${GOOD}\n${'{"a":\n'.repeat(100_000)}`, 1],
  ["lines that open arrays", `${GOOD}\n${'[{"a":\n'.repeat(100_000)}`, 1],
  ["lines that open texts", `${GOOD}\n${'{"a":"\n'.repeat(100_000)}`, 1],
  ["arrays that break", `${GOOD}\n${'[{"a":[[{"\n'.repeat(100_000)}`, 1],
  ["rows closely", GOOD.repeat(50_000), 50_000],
  ["records", `\x1e${GOOD}\n`.repeat(50_000), 50_000],
  ["arrays of one", `[${GOOD}]\n`.repeat(50_000), 50_000],
  ["rows over several lines", `${JSON.stringify(JSON.parse(GOOD), null, 2)}\n`.repeat(20_000), 2e4],
  ["elements that are none", `[${"{},".repeat(300_000)}{}]`, 0],
  ["broken rows", '{"eventType":x}  }\n'.repeat(50_000), 0],
  [
    "rows to be put together anew",
    `{"userId":"","userId":"",${GOOD.slice(1)}\n`.repeat(20_000),
    2e4,
  ],
];
for (const [name, text, rows] of FLOODS) {
  test(`others have their turn while ${name} are read`, async () => {
    let turns = 0;
    const queue: DecodeQueue = new DecodeQueue(noCsv, () => {
      turns++;
      // A small body in the middle of a large one.
      const small = queue.decode(bytesOf(GOOD), EVENTS, NOW_MS);
      assert.ok(!(small instanceof Promise));
      assert.deepEqual(linesOf(small), [GOOD]);
      return Promise.resolve();
    });
    const decoded = await queue.decode(bytesOf(text), EVENTS, NOW_MS);
    assert.ok(decoded.kind === "rows" && decoded.rows === rows);
    assert.ok(turns >= 2, `${turns} turns`);
  });
}

test("large bodies are read one after the other, also when one fails", async () => {
  let turns = 0;
  // In the middle of the first one.
  const queue = new DecodeQueue(
    noCsv,
    () => ++turns === 2 ? Promise.reject(new Error("as a bug would")) : Promise.resolve(),
  );
  const large = bytesOf(`${GOOD}\n`.repeat(50_000));
  const first = queue.decode(large, EVENTS, NOW_MS);
  const second = queue.decode(large, EVENTS, NOW_MS);
  await assert.rejects(async () => await first);
  const decoded = await second;
  assert.ok(decoded.kind === "rows" && decoded.rows === 50_000);
  assert.equal(linesOf(decoded).length, 50_000);
  assert.deepEqual(decoded.types, new Map([["a", 50_000]]));
});

test("what came of a large body is its own, and hardly more memory than its length", async () => {
  const queue = new DecodeQueue(noCsv);
  const large = (type: string) => bytesOf(`{"eventType":"${type}"}\n`.repeat(20_000));
  const [first, second] = await Promise.all([
    queue.decode(large("first"), EVENTS, NOW_MS),
    queue.decode(large("other"), EVENTS, NOW_MS),
  ]);
  assert.ok(first.kind === "rows" && second.kind === "rows");
  assert.deepEqual([first.lent, second.lent], [false, false]);
  assert.ok(first.body.buffer.byteLength <= first.body.byteLength * 1.2);
  assert.ok(linesOf(first).every((line) => line.includes('"first"')));
});

/** Rows that together are some windows of the scanner long, each as it would come out alone. */
const longRow = fc.record({
  type: fc.constantFrom("a", "b", "\u00e9", "t".repeat(300)),
  padding: fc.oneof(
    { weight: 3, arbitrary: fc.integer({ min: 0, max: 20_000 }) },
    { weight: 1, arbitrary: fc.integer({ min: 200_000, max: 300_000 }) },
  ),
  odd: fc.boolean(),
  separator: fc.constantFrom("\n", "\r\n", " \n\n", "  \r\n\t", ""),
  pretty: fc.boolean(),
}).map(({ type, padding, odd, separator, pretty }) => {
  // A lone surrogate is looked at closer.
  const line = `{"id":"${UUID}","timestamp":"2024-01-01","eventType":"${type}","userId":"${
    "x".repeat(padding)
  }${odd ? "\\ud800" : ""}"}`;
  const sent = pretty ? JSON.stringify(JSON.parse(line), null, 2) : line;
  return { line, sent, type: type.length > 256 ? "other" : type, separator };
});

/** One over several lines is put together anew. */
function sameEvent(line: string, other: string): boolean {
  return line === other ||
    JSON.stringify(JSON.parse(line)) === JSON.stringify(JSON.parse(other));
}

test("bodies of many windows: every row comes out, once and whole", async () => {
  const queue = new DecodeQueue(noCsv);
  const rows = fc.array(longRow, { minLength: 20, maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(rows, fc.boolean(), async (rows, array) => {
      const text = array
        ? `[${rows.map(({ sent, separator }) => sent + separator).join(",")}]`
        : rows.map(({ sent, separator }) => sent + separator).join("");
      const decoded = await queue.decode(bytesOf(text), EVENTS, NOW_MS);
      assert.ok(decoded.kind === "rows");
      assert.deepEqual(errorsOf(decoded), []);
      const alone = rows.flatMap(({ line }) => linesOf(decodeEvents(line)));
      assert.ok(linesOf(decoded).every((line, at) => sameEvent(line, alone[at]!)));
      assert.equal(decoded.rows, rows.length);
      const counts = new Map<string, number>();
      for (const { type } of rows) counts.set(type, (counts.get(type) ?? 0) + 1);
      assert.deepEqual(decoded.types, counts);
    }),
    { numRuns: rounds(6) },
  );
});
