/** Stepping over JSON: never a yes for what `JSON.parse` refuses, and a yes for what clients send. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { skipValue } from "../../src/admit/json.ts";
import { DEEPEST, jsonFault, members, mend, shown } from "../../src/admit/scan.ts";
import { bytesOf } from "./kit.ts";

/** Whether the whole text is passed as one value. */
function passes(text: string): boolean {
  const bytes = bytesOf(text);
  return skipValue(bytes, 0, bytes.length) === bytes.length;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

test("what JSON.stringify writes is passed", () => {
  fc.assert(fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
    const text = JSON.stringify(value);
    assert.equal(passes(text), text === mend(text));
  }));
});

test("nothing is passed that JSON.parse refuses", () => {
  const pieces = fc.constantFrom(
    ...'{}[]:,"\\-+.eE0123456789 \t\n',
    "true",
    "false",
    "null",
    '"a"',
    "\\u00",
    "\\ud800",
    "\\udc00",
    "\u0000",
    "é",
    '{"a":1}',
    "1.5e3",
  );
  const soup = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(""));
  fc.assert(fc.property(soup, (text) => !passes(text) || isJson(text)), { numRuns: 5000 });
});

test("nothing is passed that JSON.parse refuses, one byte away from JSON", () => {
  const touched = fc.tuple(fc.json(), fc.nat(), fc.constantFrom(...'{}[]:,"\\0 -.e\n'));
  fc.assert(
    fc.property(touched, ([text, at, char]) => {
      const place = at % (text.length + 1);
      const broken = text.slice(0, place) + char + text.slice(place + 1);
      return !passes(broken) || isJson(broken);
    }),
    { numRuns: 5000 },
  );
});

const CASES: readonly (readonly [string, boolean])[] = [
  ["0", true],
  ["-0.5e+10", true],
  ["01", false],
  ["1.", false],
  [".5", false],
  ["+1", false],
  ["1e", false],
  ["NaN", false],
  ["Infinity", false],
  ["nul", false],
  ["truer", false],
  ['"\\x"', false],
  ['"\\u12g4"', false],
  ['"\\u00e9"', true],
  ['"\\ud83d\\ude00"', true],
  ['"\\ud83d"', false],
  ['"\\ude00"', false],
  ['"\\ud83d\\u0041"', false],
  ['"\\\\ud83d"', true],
  ['"tab\there"', false],
  ['"open', false],
  ['"open\\', false],
  ["[1,]", false],
  ["[,1]", false],
  ['{"a":1,}', false],
  ['{"a"}', false],
  ["{a:1}", false],
  ['{ "a" : [ 1 , { } ] }', true],
  ["", false],
  ["[", false],
  ["{", false],
];
for (const [text, wanted] of CASES) {
  test(`skipValue ${wanted ? "passes" : "does not pass"} ${text}`, () => {
    assert.equal(passes(text), wanted);
  });
}

test("members are the raw pieces, the last of repeated keys", () => {
  const text = '{ "a" : 18446744073709551615 , "b\\u0063":[1, {"a":"}"}],\n"a":1.50,"":"\\"" }';
  assert.deepEqual(members(text), [
    { key: "bc", rawKey: '"b\\u0063"', rawValue: '[1, {"a":"}"}]' },
    { key: "a", rawKey: '"a"', rawValue: "1.50" },
    { key: "", rawKey: '""', rawValue: '"\\""' },
  ]);
});

test("members agree with JSON.parse, with any blanks", () => {
  const objects = fc.dictionary(fc.string(), fc.jsonValue());
  const indents = fc.constantFrom<string | number>("", 2, "\t");
  fc.assert(fc.property(objects, indents, (object, indent) => {
    const text = JSON.stringify(object, null, indent);
    const found = new Map(members(text).map(({ key, rawValue }) => [key, JSON.parse(rawValue)]));
    const wanted = new Map(Object.entries(JSON.parse(text)));
    assert.deepEqual([...found].sort(byKey), [...wanted].sort(byKey));
  }));
});

function byKey(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}

test("mending does what toWellFormed would, and nothing else", () => {
  const units = fc.constantFrom(
    "\ud800",
    "\udfff",
    "\ud83d\ude00",
    "a",
    "\\",
    '"',
    "\\ud800",
    "\n",
  );
  const texts = fc.array(units, { maxLength: 10 }).map((parts) => parts.join(""));
  fc.assert(fc.property(texts, (text) => {
    const json = JSON.stringify(text);
    assert.equal(JSON.parse(mend(json)), text.toWellFormed());
    assert.equal(mend(JSON.stringify(text.toWellFormed())), JSON.stringify(text.toWellFormed()));
  }));
});

test("mending makes one line", () => {
  const value = { a: [1, "x\ny"], b: { c: null } };
  const line = mend(JSON.stringify(value, null, 2).replaceAll("\n", "\r\n"));
  assert.doesNotMatch(line, /[\r\n]/);
  assert.deepEqual(JSON.parse(line), value);
});

test("nesting is bounded", () => {
  const nested = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
  assert.equal(jsonFault(nested(DEEPEST)), null);
  assert.equal(jsonFault(nested(DEEPEST + 1)), "deep");
  assert.equal(jsonFault(JSON.stringify("[".repeat(5000))), null);
  assert.equal(jsonFault("[".repeat(10_000)), "deep");
  assert.equal(jsonFault("{"), "invalid");
});

test("an excerpt is short and whole", () => {
  assert.equal(shown("abc"), "abc");
  assert.equal(shown("a".repeat(64)), "a".repeat(64));
  assert.equal(shown("a".repeat(65)), "a".repeat(64) + "…");
  assert.equal(shown("a".repeat(63) + "😀" + "b"), "a".repeat(63) + "…");
});
