/** Timestamps: real days only, within what DateTime64 can hold. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { inRange, isoMs, LATEST_MS, plainMs } from "../../src/admit/timestamp.ts";
import { bytesOf } from "./kit.ts";

function iso(text: string): number {
  const bytes = bytesOf(text);
  return isoMs(bytes, 0, bytes.length);
}
function plain(text: string): number {
  const bytes = bytesOf(text);
  return plainMs(bytes, 0, bytes.length);
}

test("every moment that toISOString writes is read back", () => {
  const dates = fc.date({ min: new Date(0, 0), max: new Date(LATEST_MS), noInvalidDate: true })
    .filter((date) => date.getUTCFullYear() >= 1000);
  fc.assert(fc.property(dates, (date) => {
    assert.equal(iso(date.toISOString()), date.getTime());
    assert.equal(iso(date.toISOString().slice(0, 10)), Math.floor(date.getTime() / 864e5) * 864e5);
  }));
});

const GOOD: readonly (readonly [string, string])[] = [
  ["2024-02-29", "2024-02-29T00:00:00.000Z"],
  ["2024-01-02T03:04", "2024-01-02T03:04:00.000Z"],
  ["2024-01-02T03:04Z", "2024-01-02T03:04:00.000Z"],
  ["2024-01-02 03:04:05", "2024-01-02T03:04:05.000Z"],
  ["2024-01-02T03:04:05.6", "2024-01-02T03:04:05.600Z"],
  ["2024-01-02T03:04:05.678901234Z", "2024-01-02T03:04:05.678Z"],
  ["2024-01-02T03:04:05+02:00", "2024-01-02T01:04:05.000Z"],
  ["2024-01-02T03:04:05-0530", "2024-01-02T08:34:05.000Z"],
  ["2024-01-02T03:04:05+14", "2024-01-01T13:04:05.000Z"],
  ["2000-02-29T23:59:59.999Z", "2000-02-29T23:59:59.999Z"],
];
for (const [text, wanted] of GOOD) {
  test(`${text} is ${wanted}`, () => assert.equal(iso(text), Date.parse(wanted)));
}

const BAD = [
  "",
  "2024",
  "2024-02-30",
  "2023-02-29",
  "1900-02-29",
  "2024-13-01",
  "2024-00-10",
  "2024-01-00",
  "2024-1-1",
  "24-01-01",
  "2024/01/01",
  "2024-01-01T",
  "2024-01-01T10",
  "2024-01-01T24:00:00Z",
  "2024-01-01T23:60:00Z",
  "2024-01-01T23:59:60Z",
  "2024-01-01T10:00:00.Z",
  "2024-01-01T10:00:00z",
  "2024-01-01T10:00:0",
  "2024-01-01T10:00:00+",
  "2024-01-01T10:00:00+2",
  "2024-01-01T10:00:00+15:00",
  "2024-01-01T10:00:00+02:60",
  "2024-01-01T10:00:00 +02:00",
  "2024-01-01T10:00:00Z ",
  " 2024-01-01",
  "+2024-01-01",
  "Mon, 01 Jan 2024 10:00:00 GMT",
  "1700000000",
];
for (const text of BAD) {
  test(`no time: "${text}"`, () => assert.ok(Number.isNaN(iso(text))));
}

test("whole milliseconds are read, anything else is not", () => {
  const inside = fc.integer({ min: -2_208_988_800_000, max: LATEST_MS });
  fc.assert(fc.property(inside, (ms) => {
    assert.equal(plain(String(ms)), ms);
    assert.ok(inRange(ms));
  }));
  for (const text of ["", "-", "-0", "01", "1.5", "1e3", "123456789012345", "0x1"]) {
    assert.ok(Number.isNaN(plain(text)), text);
  }
});

test("the range is 1900 to 2299", () => {
  const cases: readonly (readonly [string, boolean])[] = [
    ["1899-12-31T23:59:59.999Z", false],
    ["1900-01-01", true],
    ["1900-01-01T00:00:00+01:00", false],
    ["2299-12-31T23:59:59.999Z", true],
    ["2299-12-31T23:59:59.999-01:00", false],
    ["2300-01-01", false],
  ];
  for (const [text, wanted] of cases) assert.equal(inRange(iso(text)), wanted, text);
  assert.ok(!inRange(NaN));
});
