/**
 * Stepping over JSON: never a yes for what `JSON.parse` refuses, and a yes for what clients send.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Member, members } from "../../src/admit/closer.ts";
import { type Fault, Scanner } from "../../src/admit/scanner.ts";
import { failed } from "../../src/kernel/result.ts";
import { rounds } from "../kit/rounds.ts";
import { bytesOf } from "./kit.ts";
import { DEEPEST, passes as scannerPasses } from "./scanner_kit.ts";

/** Whether the scanner passes the whole text as one value, without a closer look. */
const passes = (text: string) => scannerPasses(bytesOf(text));

const scanner = new Scanner();

/** With something else around it, which is not to be looked at. */
function jsonFault(text: string): Fault | null {
  const bytes = bytesOf(`]${text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, "")}"`);
  scanner.open(bytes);
  return faultOf(1, bytes.length - 1);
}

/** Of [from, to) as one value. */
function faultOf(from: number, to: number): Fault | null {
  const found = scanner.value(from, to);
  return found ?? (scanner.stoppedAt === to ? null : "invalid");
}

function normalized(text: string): string {
  const bytes = bytesOf(`\n${text}\n`);
  scanner.open(bytes);
  assert.equal(faultOf(1, bytes.length - 1), null, text);
  return scanner.normalized;
}

function allMembers(text: string): Member[] {
  const found = members(text, () => null);
  if (!found.ok) throw new Error(found.problem);
  return found.value;
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
    assert.equal(passes(text), text === normalized(text));
  }));
});

const soup = fc.array(
  fc.constantFrom(
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
  ),
  { maxLength: 12 },
).map((parts) => parts.join(""));

/** One byte away from JSON. */
const touched = fc.tuple(fc.json(), fc.nat(), fc.constantFrom(...'{}[]:,"\\0 -.e\n')).map((
  [text, at, char],
) => {
  const place = at % (text.length + 1);
  return text.slice(0, place) + char + text.slice(place + 1);
});

for (const [name, texts] of [["soup", soup], ["one byte away from JSON", touched]] as const) {
  test(`nothing is passed that JSON.parse refuses: ${name}`, () => {
    fc.assert(fc.property(texts, (text) => !passes(text) || isJson(text)), {
      numRuns: rounds(1500),
    });
  });

  test(`whether it is JSON is what JSON.parse says: ${name}`, () => {
    fc.assert(
      fc.property(texts, (text) => {
        assert.equal(jsonFault(text) === null, isJson(text));
      }),
      { numRuns: rounds(1500) },
    );
  });
}

test("what JSON.stringify writes is JSON", () => {
  const indents = fc.constantFrom<string | number>("", 2, "\t");
  fc.assert(fc.property(fc.jsonValue({ maxDepth: 6 }), indents, (value, indent) => {
    assert.equal(jsonFault(JSON.stringify(value, null, indent)), null);
  }));
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
  test(`the scanner ${wanted ? "passes" : "does not pass"} ${text}`, () => {
    assert.equal(passes(text), wanted);
    assert.equal(jsonFault(text) === null, isJson(text));
  });
}

test("members are the raw pieces, the last of repeated keys", () => {
  const text = '{ "a" : 18446744073709551615 , "b\\u0063":[1, {"a":"}"}],\n"a":1.50,"":"\\"" }';
  assert.deepEqual(allMembers(text), [
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
    const found = new Map(allMembers(text).map(({ key, rawValue }) => [key, JSON.parse(rawValue)]));
    const wanted = new Map(Object.entries(JSON.parse(text)));
    assert.deepEqual([...found].sort(byKey), [...wanted].sort(byKey));
  }));
});

test("members stop at the first key that may not be there, and at ten thousand", () => {
  const seen: string[] = [];
  const wrong = (key: string) => {
    seen.push(key);
    return key === "b" ? "no b" : null;
  };
  assert.deepEqual(members('{"a":1,"b":2,"c":3}', wrong), failed("no b"));
  assert.deepEqual(seen, ["a", "b"]);
  const many = Object.fromEntries(Array.from({ length: 10_001 }, (_, n) => [`k${n}`, n]));
  assert.deepEqual(members(JSON.stringify(many), () => null), failed("more than 10000 keys"));
});

function byKey(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}

test("normalizing does what toWellFormed would, and nothing else", () => {
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
    assert.equal(JSON.parse(normalized(json)), text.toWellFormed());
    assert.equal(
      normalized(JSON.stringify(text.toWellFormed())),
      JSON.stringify(text.toWellFormed()),
    );
  }));
});

test("normalizing makes one line", () => {
  const value = { a: [1, "x\ny"], b: { c: null } };
  const line = normalized(JSON.stringify(value, null, 2).replaceAll("\n", "\r\n"));
  assert.doesNotMatch(line, /[\r\n]/);
  assert.deepEqual(JSON.parse(line), value);
});

test("nesting is bounded", () => {
  const nested = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
  assert.equal(jsonFault(nested(DEEPEST)), null);
  assert.equal(jsonFault(nested(DEEPEST + 1)), "deep");
  assert.equal(jsonFault(JSON.stringify("[".repeat(5000))), null);
  assert.equal(jsonFault("[".repeat(10_000)), "deep");
  assert.equal(jsonFault(nested(DEEPEST).replaceAll("[", '{"a":').replaceAll("]", "}")), "invalid");
  const objects = `${'{"a":'.repeat(DEEPEST)}1${"}".repeat(DEEPEST)}`;
  assert.equal(jsonFault(objects), null);
  assert.equal(jsonFault(`[${objects}]`), "deep");
  assert.equal(jsonFault("{"), "invalid");
});

test("wherever it stands, and however long it is, the same is said of it", () => {
  const value = fc.tuple(fc.json({ maxDepth: 3 }), soup).map(([json, more]) => `${json}${more}`);
  const lengths = fc.constantFrom(0, 1000, 200_000, 262_130, 300_000);
  fc.assert(
    fc.property(fc.oneof(value, fc.json()), lengths, lengths, (inner, before, padding) => {
      const text = `[${inner},"${"x".repeat(padding)}\\ud800",\n${inner}]`;
      const bytes = bytesOf(`${"{".repeat(before)}${text}${"}".repeat(20)}`);
      scanner.open(bytes);
      const fault = faultOf(before, bytes.length - 20);
      assert.equal(fault === null, isJson(text));
      if (fault !== null) return;
      assert.doesNotMatch(scanner.normalized, /[\r\n]/);
      const wellFormed = (_: string, value: unknown) =>
        typeof value === "string" ? value.toWellFormed() : value;
      assert.deepEqual(JSON.parse(scanner.normalized), JSON.parse(text, wellFormed));
    }),
    { numRuns: rounds(30) },
  );
  const long = "x".repeat(300_000);
  assert.equal(jsonFault(`["${long}",${"[".repeat(1000)}`), "deep");
  assert.equal(jsonFault(`["${long}"`), "invalid");
});
