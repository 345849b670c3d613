/** Rows of any table: forwarded as they came, with only the table's columns as keys. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeRows, errorsOf, linesOf } from "./kit.ts";

const COLUMNS = ["date", "delay", "origin"];
const ROW = '{"date":"2001-01-14 21:55:00","delay":18446744073709551615,"origin":"SAT"}';

test("rows are forwarded as they came", () => {
  const odd = '{ "origin" : "\\u0053AT", "delay":1.50 }';
  assert.deepEqual(linesOf(decodeRows(`${ROW}\n${odd}\r\n{"delay":null}\n`, COLUMNS)), [
    ROW,
    odd,
    '{"delay":null}',
  ]);
  assert.deepEqual(linesOf(decodeRows(`[${ROW},${odd}]`, COLUMNS)), [ROW, odd]);
});

test("a row without keys is a row", () => {
  assert.deepEqual(linesOf(decodeRows("{}\n{ }\n", COLUMNS)), ["{}", "{ }"]);
});

test("no types are counted", () => {
  const decoded = decodeRows(ROW, COLUMNS);
  assert.ok(decoded.kind === "rows");
  assert.equal(decoded.types.size, 0);
});

test("a key that is no column costs its row", () => {
  const decoded = decodeRows(`${ROW}\n{"delay":1,"zip":2}\n{"__proto__":1}\n${ROW}\n`, COLUMNS);
  assert.deepEqual(errorsOf(decoded), [
    "1: zip: no column of flights, which has date, delay, origin",
    "2: __proto__: no column of flights, which has date, delay, origin",
  ]);
  assert.deepEqual(linesOf(decoded), [ROW, ROW]);
});

test("a long key and many columns make no long error", () => {
  const many = Array.from({ length: 500 }, (_, i) => `column_${i}`);
  const [error] = errorsOf(decodeRows(`{"${"k".repeat(100_000)}":1}`, many));
  assert.match(error!, /^0: k{64}…: no column of flights, which has column_0, .* and 480 more$/);
});

test("any key goes while the columns are not known", () => {
  assert.deepEqual(linesOf(decodeRows('{"zip":1}', null)), ['{"zip":1}']);
});

test("a repeated key: the last wins, wherever it stands", () => {
  const body = '{"delay":1,"delay":2}\n{"delay":1,"origin":"a","delay":3}\n{"delay":1}\n';
  for (const columns of [COLUMNS, null]) {
    const rows = linesOf(decodeRows(body, columns)).map((line) => JSON.parse(line));
    assert.deepEqual(rows, [{ delay: 2 }, { origin: "a", delay: 3 }, { delay: 1 }]);
    for (const line of linesOf(decodeRows(body, columns))) {
      assert.equal(line.split('"delay"').length, 2);
    }
  }
});

test("a lone surrogate is mended, a row over several lines made one", () => {
  assert.deepEqual(linesOf(decodeRows('{"origin":"\\udead"}', COLUMNS)), ['{"origin":"\\ufffd"}']);
  const [line] = linesOf(decodeRows(JSON.stringify(JSON.parse(ROW), null, 2), COLUMNS));
  assert.equal(JSON.parse(line!).origin, "SAT");
});

test("any rows come through with the same values, whatever keys came before", () => {
  const names = fc.constantFrom(
    ...["a", "b", "ab", "ключ", "", "__proto__", 'q"', "back\\slash", "long".repeat(20)],
    // Compared by eights.
    ...["seven-a", "seven-b", "eight--a", "eight--b", "sixteen--sixte-a", "sixteen--sixte-b"],
    ...["sixteen--sixte-aa", "sixteen--sixte-ab"],
  );
  const rows = fc.array(fc.dictionary(names, fc.jsonValue()), { minLength: 1, maxLength: 6 });
  fc.assert(fc.property(rows, fc.boolean(), (batch, array) => {
    const texts = batch.map((object) => JSON.stringify(object));
    const body = array ? `[${texts.join(",")}]` : texts.join("\n");
    const found = linesOf(decodeRows(body, null)).map((line) => JSON.parse(line));
    assert.deepEqual(found, texts.map((text) => JSON.parse(wellFormed(text))));
  }));
});

/** The only \u that JSON.stringify writes above the control characters is a lone surrogate. */
function wellFormed(json: string): string {
  // Escape by escape: in "\\uda" the backslash is escaped, and no surrogate follows.
  return json.replace(
    /\\(u[0-9a-f]{4}|.)/g,
    (escape) => /^\\ud[89a-f]/.test(escape) ? "\\ufffd" : escape,
  );
}

test("a column is a column in any order, and only a column", () => {
  const names = fc.constantFrom("date", "delay", "origin", "dat", "dates", "delayorigin");
  const rows = fc.array(fc.uniqueArray(names), { minLength: 1, maxLength: 6 });
  fc.assert(fc.property(rows, (batch) => {
    const body = batch.map((keys) => `{${keys.map((key) => `"${key}":1`).join(",")}}`).join("\n");
    const decoded = decodeRows(body, COLUMNS);
    assert.ok(decoded.kind === "rows");
    const bad = batch.flatMap((keys, i) => keys.every((key) => COLUMNS.includes(key)) ? [] : [i]);
    assert.deepEqual(decoded.errors.map(({ index }) => index), bad);
    assert.equal(decoded.rows, batch.length - bad.length);
  }));
});

test("more columns than the scanner knows, and longer ones", () => {
  const many = Array.from({ length: 2000 }, (_, i) => `column_${i}`);
  const long = Array.from({ length: 100 }, (_, i) => `${"long".repeat(300)}_${i}`);
  for (const columns of [many, long, [...many, ...long]]) {
    const rows = columns.map((name) => `{"${name}":1}`);
    assert.deepEqual(linesOf(decodeRows(rows.join("\n"), columns)), rows);
    assert.deepEqual(linesOf(decodeRows(rows.join("\n"), null)), rows);
    assert.equal(errorsOf(decodeRows('{"column_2001":1}', columns)).length, 1);
  }
});

test("columns of one table are none of another's", () => {
  for (let turn = 0; turn < 3; turn++) {
    assert.deepEqual(errorsOf(decodeRows('{"a":1}\n{"a":2}', ["a"])), []);
    assert.equal(errorsOf(decodeRows('{"a":1}', ["b"])).length, 1);
    assert.deepEqual(errorsOf(decodeRows('{"a":1,"b":1}', null)), []);
    assert.equal(errorsOf(decodeRows('{"b":1}', ["a"])).length, 1);
  }
});
