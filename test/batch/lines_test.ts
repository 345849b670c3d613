/**
 * Cutting chunks between rows.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { cut } from "../../src/batch/queue.ts";
import { eventTypeOf, offsetAfter, rowsAt, rowsWithin } from "../../src/kernel/ndjson.ts";
import { chunkOf } from "../kit/chunks.ts";

const TYPES = ["click", "view", "größe", "\u{1f38d} bamboo", "__proto__", "line\nbreak", ""];
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

const eventRows = fc.array(
  fc.record({ eventType: fc.constantFrom(...TYPES), userId: fc.string({ unit: "binary" }) }),
  { minLength: 1, maxLength: 12 },
);

/** What the counts must be, from the rows of the body alone. */
function recount(body: Uint8Array): Record<string, number> {
  const counts = new Map<string, number>();
  for (const line of decoder.decode(body).split("\n").slice(0, -1)) {
    const { eventType } = JSON.parse(line);
    counts.set(eventType, (counts.get(eventType) ?? 0) + 1);
  }
  return Object.fromEntries(counts);
}

describe("cutting a chunk", () => {
  test("at every row: bytes, rows and counts by type add up on both sides", () => {
    fc.assert(fc.property(eventRows, (rows) => {
      const chunk = chunkOf(rows, { fingerprint: "f" });
      for (let at = 1; at < rows.length; at++) {
        const [head, tail] = cut(chunk, at);
        assert.equal(head.rows, at);
        assert.equal(head.rows + tail.rows, chunk.rows);
        assert.equal(
          decoder.decode(head.body) + decoder.decode(tail.body),
          decoder.decode(chunk.body),
        );
        assert.equal(decoder.decode(head.body).split("\n").length - 1, at);
        assert.deepEqual(Object.fromEntries(head.types), recount(head.body));
        assert.deepEqual(Object.fromEntries(tail.types), recount(tail.body));
        assert.equal(head.fingerprint, "f");
        assert.equal(tail.table, chunk.table);
      }
    }));
  });

  test("again and again until nothing is left", () => {
    const chunk = chunkOf(Array.from({ length: 50 }, (_, i) => ({ eventType: TYPES[i % 7], i })));
    let text = "";
    let rest = chunk;
    while (rest.rows > 3) {
      const [head, tail] = cut(rest, 3);
      text += decoder.decode(head.body);
      assert.deepEqual(Object.fromEntries(tail.types), recount(tail.body));
      rest = tail;
    }
    assert.equal(text + decoder.decode(rest.body), decoder.decode(chunk.body));
  });

  test("rows of shape row have no counts by type", () => {
    const [head, tail] = cut(chunkOf([{ a: 1 }, { a: 2 }, { a: 3 }], { shape: "row" }), 2);
    assert.equal(head.types.size, 0);
    assert.equal(tail.types.size, 0);
  });

  test("a last row without a newline stays whole", () => {
    const body = new TextEncoder().encode('{"eventType":"a"}\n{"eventType":"b"}');
    const chunk = {
      ...chunkOf([{ eventType: "a" }, { eventType: "b" }]),
      body,
    };
    const [head, tail] = cut(chunk, 1);
    assert.equal(decoder.decode(head.body), '{"eventType":"a"}\n');
    assert.equal(decoder.decode(tail.body), '{"eventType":"b"}');
    assert.deepEqual(Object.fromEntries(tail.types), { b: 1 });
    assert.equal(offsetAfter(body, 2), body.length);
    assert.equal(offsetAfter(body, 99), body.length);
    assert.deepEqual(rowsAt([body], [1]), ['{"eventType":"b"}']);
  });
});

describe("rows within a number of bytes", () => {
  test("exactly those that fit whole, at every size", () => {
    const { body } = chunkOf([{ eventType: "ä" }, { eventType: "\u{1f38d}" }, { eventType: "c" }]);
    const ends = [...body.keys()].filter((at) => body[at] === 10).map((at) => at + 1);
    for (let maxBytes = 0; maxBytes <= body.length + 1; maxBytes++) {
      assert.equal(rowsWithin(body, maxBytes), ends.filter((end) => end <= maxBytes).length);
    }
  });
});

describe("rows of a body in pieces", () => {
  test("are found by their index, whatever the pieces", () => {
    fc.assert(fc.property(eventRows, fc.infiniteStream(fc.boolean()), (rows, coins) => {
      const pieces = [];
      let next = 0;
      for (let at = 1; at <= rows.length; at++) {
        if (at < rows.length && coins.next().value) continue;
        pieces.push(chunkOf(rows.slice(next, at)).body);
        next = at;
      }
      const indexes = rows.map((_, at) => at).filter(() => coins.next().value);
      assert.deepEqual(rowsAt(pieces, indexes), indexes.map((at) => JSON.stringify(rows[at])));
    }));
  });

  test("nothing asked, nothing found", () => {
    assert.deepEqual(rowsAt([chunkOf([{ eventType: "a" }]).body], []), []);
  });
});

describe("the event type of a row", () => {
  const cases: [string, string][] = [
    ['{"eventType":"click"}', "click"],
    ['{"eventType":"a","eventType":"b"}', "b"],
    ['{"eventType":5}', ""],
    ["{}", ""],
    ["{", ""],
    ["", ""],
    ["null", ""],
    ['{"eventType":"caf\\u00e9"}', "café"],
  ];
  for (const [row, type] of cases) {
    test(`${row || "(empty)"} is ${type || "(none)"}`, () => assert.equal(eventTypeOf(row), type));
  }
});

test("a cut counts an event type as the intake did, also one too long for a name of its own", () => {
  const long = "ü".repeat(200);
  const rows = [{ eventType: long }, { eventType: "a" }, { eventType: long }];
  const chunk = { ...chunkOf(rows), types: new Map([["other", 2], ["a", 1]]) };
  for (const at of [1, 2]) {
    const sides = cut(chunk, at);
    const counts = sides.flatMap(({ types }) => [...types.values()]);
    assert.ok(counts.every((count) => count > 0), String(counts));
    assert.equal(counts.reduce((sum, count) => sum + count, 0), 3);
  }
});
