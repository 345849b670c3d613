/** The modules of the page's script that need no browser. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import fc from "fast-check";
import { appended, CHARTS, joined } from "../../src/page/web/charts.js";
import { createRates } from "../../src/page/web/figures.js";
import { age, bytes, count, millis, percent, rate, seconds } from "../../src/page/web/format.js";
import { curlLine, exampleEvent, withId } from "../../src/page/web/playground.js";
import { createParser } from "../../src/page/web/stream.js";

test("numbers as people read them", () => {
  const cases: [string, string][] = [
    [count(null), "–"],
    [count(999_999), "999,999"],
    [count(1_234_567), "1.2M"],
    [rate(0.333), "0.33"],
    [rate(2.25), "2.3"],
    [rate(1234.4), "1,234"],
    [bytes(0), "0 B"],
    [bytes(1536), "1.5 KiB"],
    [bytes(64 * 1024 ** 2), "64 MiB"],
    [millis(4.26), "4.3 ms"],
    [bytes(1024 ** 2 - 1), "1 MiB"],
    [bytes(999 * 1024), "999 KiB"],
    [bytes(1023 * 1024), "1 MiB"],
    [millis(2500), "2.5 s"],
    [millis(999.4), "999 ms"],
    [millis(999.6), "1 s"],
    [seconds(59), "59 s"],
    [seconds(59.7), "1 min"],
    [seconds(3599.9), "1 h"],
    [seconds(125), "2 min 5 s"],
    [seconds(3 * 3600 + 60), "3 h 1 min"],
    [seconds(50 * 3600), "2 d 2 h"],
    [age(9.25), "9.3 s"],
    [age(3599), "59 min"],
    [age(50 * 3600), "2 d"],
    [percent(1, 1_000_000), "< 0.1 %"],
    [percent(1, 0), "–"],
  ];
  for (const [got, expected] of cases) assert.equal(got, expected);
});

test("the lines of a grid are told apart by their labels, which are short enough", () => {
  for (const { id, format, steps } of CHARTS) {
    for (const [at, step] of steps.entries()) {
      const labels = [0, 1, 2, 3, 4].map((n) => format(n * step));
      assert.equal(new Set(labels).size, labels.length, `${id}: ${labels.join(", ")}`);
      assert.ok(labels.every(({ length }) => length <= 11), `${id}: ${labels.join(", ")}`);
      assert.ok(at === 0 || step > steps[at - 1]!, `${id}: ${step} is not in order`);
    }
  }
});

test("a stream is the same events however it is cut", () => {
  const events = [["now", '{"a":1}'], ["problems", "[]"], ["end", "{}"]] as const;
  const text = events.map(([name, data]) => `event: ${name}\ndata: ${data}\n\n`).join("");
  fc.assert(fc.property(fc.array(fc.nat(text.length)), (cuts) => {
    const told: string[][] = [];
    const parse = createParser((name: string, data: string) => void told.push([name, data]));
    let from = 0;
    for (const cut of [...cuts, text.length].sort((a, b) => a - b)) {
      parse(text.slice(from, cut));
      from = cut;
    }
    assert.deepEqual(told, events.map((event) => [...event]));
  }));
});

test("the hour goes on: once each, an hour at most, a gap where nothing was told", () => {
  assert.deepEqual(appended([[1], [5]], [1, 6]), [[1], [5]], "told twice");
  assert.deepEqual(appended([[1], [5]], [2, 6]), [[1, 2], [5, 6]]);
  assert.deepEqual(appended([[1], [5]], [60, 6]), [[1, 2, 60], [5, null, 6]]);
  assert.deepEqual(appended([[1], [5]], [4000, 6]), [[4000], [6]]);
  assert.deepEqual(appended([[1, 2, 3], [5, 6, 7]], [1.5, 8]), [[1, 1.5], [5, 8]], "set back");
  assert.deepEqual(appended([[5, 6], [5, 6]], [4, 8]), [[4], [8]], "set back before all of it");
});

test("a collector that was started again does not take the page's past with it", () => {
  assert.deepEqual(joined([], [[10, 11], [1, 2]]), [[10, 11], [1, 2]]);
  assert.deepEqual(joined([[5, 10], [8, 9]], [[10, 11], [1, 2]]), [[5, 10, 11], [8, 1, 2]]);
  assert.deepEqual(joined([[5], [8]], [[], []]), [[5], [8]]);
});

test("rates are over the last seconds, and begin again with another process", () => {
  const rates = createRates();
  const at = (s: number, n: number) => rates(s, new Map([["a", n]])).get("a");
  assert.equal(at(1, 100), undefined);
  assert.equal(at(2, 110), 10);
  assert.equal(at(3, 140), 20);
  for (let s = 4; s <= 12; s++) at(s, 140);
  assert.equal(at(13, 145), 1);
  assert.equal(at(14, 3), undefined);
  assert.equal(at(15, 5), 2);
});

test("the curl line sends exactly the body, and never the token", () => {
  const body = fc.string().map((text) => text.replaceAll("\0", ""));
  fc.assert(
    fc.property(body, (body) => {
      const line = curlLine({ path: "/events", body, origin: "http://h", withToken: true });
      const shown = execFileSync("/bin/sh", ["-c", `curl() { printf %s "$4"; }; ${line}`], {
        encoding: "utf8",
        env: { SHISHI_TOKEN: "t" },
      });
      assert.equal(shown, body);
      assert.match(line, /^curl -H "Authorization: Bearer \$SHISHI_TOKEN" -d '/);
    }),
    { numRuns: 20 },
  );
});

test("an event without an id gets one, and keeps every digit; anything else is left alone", () => {
  const id = "01a201b5-c4e7-4417-88dc-ee1e6ed7fdd8";
  const given = '{ "eventType": "click", "properties": { "n": 18446744073709551615 } }';
  const { body, ...told } = withId(given, () => id);
  assert.deepEqual(told, { id, eventType: "click" });
  assert.equal(JSON.parse(body).id, id);
  assert.match(body, /18446744073709551615/);
  for (const other of ["", "[1]", "{", "{}", '{"a":1}\n{"a":2}', "5", "null"]) {
    assert.equal(withId(other, () => id).body, other);
  }
  assert.deepEqual(withId(exampleEvent("x"), () => id).id, "x");
});
