/** What headers and names mean: Prefer, tokens, encodings, globs. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { compileGlobs } from "../../src/kernel/names.ts";
import { parseEncoding } from "../../src/admit/body.ts";
import { parsePrefer } from "../../src/admit/write.ts";
import { patient } from "../kit/wait.ts";

const PREFERENCES: readonly (readonly [string | null, boolean, number | null])[] = [
  [null, false, null],
  ["", false, null],
  ["handling=strict", true, null],
  ["handling=lenient", false, null],
  ["Handling = Strict", true, null],
  ['handling="strict"', true, null],
  ["wait=5", false, 5],
  ['wait="5"', false, 5],
  ["wait=0", false, 0],
  ["wait=100000", false, 240],
  ["wait=-1", false, null],
  ["wait=1.5", false, null],
  ["wait", false, null],
  ["handling=strict, wait=3", true, 3],
  ["respond-async, wait=3;x=1,handling=strict; y", true, 3],
  ["handling=lenient, handling=strict", false, null],
  ['foo="a, handling=strict"', false, null],
  ['foo="a\\", wait=9", wait=2', false, 2],
  ['foo;bar="x,wait=9", wait=2', false, 2],
  [",, ,wait=4,", false, 4],
  ["(?), wait=4", false, 4],
  ["wait=4 5", false, null],
];
for (const [header, strict, waitS] of PREFERENCES) {
  test(`Prefer: ${header}`, () => assert.deepEqual(parsePrefer(header), { strict, waitS }));
}

test("any Prefer header is read, quickly", () => {
  const soup = fc.array(fc.constantFrom(...'a=;,"\\ \t', "wait=1", "handling=strict"), {
    maxLength: 200,
  });
  fc.assert(fc.property(soup, (parts) => {
    parsePrefer(parts.join(""));
  }));
  const startedMs = performance.now();
  for (const piece of ['a;"', 'a="\\', ";", 'a;b"c"', " ,", "a ", 'a;";"']) {
    parsePrefer(piece.repeat(4000));
  }
  assert.ok(performance.now() - startedMs < patient(1000));
});

const CODINGS: readonly (readonly [string | null, ReturnType<typeof parseEncoding>])[] = [
  [null, null],
  ["", null],
  ["identity", null],
  ["gzip", "gzip"],
  ["X-GZIP", "gzip"],
  ["identity, gzip", "gzip"],
  ["deflate", "deflate"],
  ["br", "br"],
  ["zstd", "zstd"],
  ["gzip, gzip", "unknown"],
  ["compress", "unknown"],
  ["snappy", "unknown"],
];
for (const [header, wanted] of CODINGS) {
  test(`Content-Encoding: ${header}`, () => assert.equal(parseEncoding(header), wanted));
}

test("globs match whole names of tables and nothing else", () => {
  const allowed = compileGlobs(["flights", "log_*", "day?", "a.b"]);
  const cases: readonly (readonly [string, boolean])[] = [
    ["flights", true],
    ["flights2", false],
    ["Flights", false],
    ["log_", true],
    ["log_http", true],
    ["xlog_http", false],
    ["day1", true],
    ["day", false],
    ["day12", false],
    ["axb", false],
    ["log_; DROP TABLE x", false],
    ["log_`", false],
    ["log_.x", false],
    ["log_ü-1", true],
    ["a.b", true],
    ["a", false],
    ["log_" + "x".repeat(123), true],
    ["log_" + "x".repeat(124), false],
    ["", false],
  ];
  for (const [name, wanted] of cases) {
    assert.equal(allowed(name), wanted, name);
    assert.equal(allowed(name), wanted, "the second time too");
  }
  assert.equal(compileGlobs(["*"])("1x"), true);
  assert.equal(compileGlobs(["*"])("my-events"), true);
  assert.equal(compileGlobs(["*"])("system.query_log"), false, "in another database");
  assert.equal(compileGlobs(["other.*"])("other.t"), true);
  assert.equal(compileGlobs(["other.*"])("others.t"), false);
  assert.equal(compileGlobs(["Ün?"])("Ünï"), true);
  assert.equal(compileGlobs(["*"])("anything"), true);
  assert.equal(compileGlobs([])("anything"), false);
});
