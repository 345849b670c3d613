/** Large bodies: read in slices, the same comes out; others have their turn meanwhile. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import { type Decoded, Decoding } from "../../src/admit/decode.ts";
import { Desk } from "../../src/admit/desk.ts";
import { EventReader } from "../../src/admit/event.ts";
import { Ids } from "../../src/admit/ids.ts";
import { Lines } from "../../src/admit/lines.ts";
import { Names } from "../../src/admit/names.ts";
import { bytesOf, decodeEvents, errorsOf, linesOf, NOW_MS } from "./kit.ts";

const UUID = "01890a5d-ac96-774b-bcce-b302099a8057";
const GOOD = `{"id":"${UUID}","timestamp":5,"eventType":"a"}`;

/** As much as possible in pieces: stops after every row. */
function decodeByRow(bytes: Uint8Array): { decoded: Decoded; slices: number } {
  const lines = new Lines();
  const decoding = new Decoding(
    bytes,
    new EventReader(lines, new Names(), new Ids()),
    lines,
    NOW_MS,
  );
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
  );
  const body = fc.tuple(fc.array(row, { maxLength: 12 }), fc.boolean(), fc.boolean()).map(
    ([rows, array, latin]) => {
      const text = array ? `[${rows.join(",")}]` : rows.join("\n");
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
    { numRuns: 2000 },
  );
});

test("it can be stopped between any two rows", () => {
  assert.equal(decodeByRow(bytesOf(`${GOOD}\n`.repeat(50))).slices, 50);
  assert.equal(decodeByRow(bytesOf("x\n".repeat(50))).slices, 50);
  assert.equal(decodeByRow(bytesOf(`[${Array(50).fill(GOOD).join()}]`)).slices, 50);
});

const FLOODS: readonly (readonly [string, string, number])[] = [
  ["good rows", `${GOOD}\n`.repeat(50_000), 50_000],
  ["tiny wrong rows", "x\n".repeat(500_000), 0],
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
    const desk: Desk = new Desk(() => {
      turns++;
      // A small body in the middle of a large one.
      const small = desk.decode(bytesOf(GOOD), "event", NOW_MS);
      assert.ok(!(small instanceof Promise));
      assert.deepEqual(linesOf(small), [GOOD]);
      return Promise.resolve();
    });
    const decoded = await desk.decode(bytesOf(text), "event", NOW_MS);
    assert.ok(decoded.kind === "rows" && decoded.rows === rows);
    assert.ok(turns >= 2, `${turns} turns`);
  });
}

test("large bodies are read one after the other, also when one fails", async () => {
  const begun: string[] = [];
  let fail = true;
  const desk = new Desk(() => {
    begun.push("turn");
    if (!fail) return Promise.resolve();
    fail = false;
    return Promise.reject(new Error("as a bug would"));
  });
  const large = bytesOf(`${GOOD}\n`.repeat(50_000));
  const first = desk.decode(large, "event", NOW_MS);
  const second = desk.decode(large, "event", NOW_MS);
  await assert.rejects(async () => await first);
  const decoded = await second;
  assert.ok(decoded.kind === "rows" && decoded.rows === 50_000);
  assert.equal(linesOf(decoded).length, 50_000);
});

test("what came of a large body is its own, and hardly more memory than its length", async () => {
  const desk = new Desk();
  const large = (type: string) => bytesOf(`{"eventType":"${type}"}\n`.repeat(20_000));
  const [first, second] = await Promise.all([
    desk.decode(large("first"), "event", NOW_MS),
    desk.decode(large("other"), "event", NOW_MS),
  ]);
  assert.ok(first.kind === "rows" && second.kind === "rows");
  assert.deepEqual([first.lent, second.lent], [false, false]);
  assert.ok(first.body.buffer.byteLength <= first.body.byteLength * 1.2);
  assert.ok(linesOf(first).every((line) => line.includes('"first"')));
});
