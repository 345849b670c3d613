/**
 * Timestamps: real days only, within what DateTime64 can hold.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { epochMs, eventTime, inRange, isoMs, LATEST_MS } from "../../src/admit/timestamp.ts";
import { bytesOf } from "./kit.ts";

function iso(text: string): number {
  const bytes = bytesOf(text);
  return isoMs(bytes, 0, bytes.length);
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

test("a number is seconds or milliseconds, by its size", () => {
  const inside = fc.integer({ min: 1e11, max: LATEST_MS });
  fc.assert(fc.property(inside, (ms) => {
    assert.equal(epochMs(String(ms)), ms);
    const seconds = `${Math.floor(ms / 1000)}.${String(ms % 1000).padStart(3, "0")}`;
    if (ms < 1e14) assert.equal(epochMs(seconds), ms);
    assert.ok(inRange(ms));
  }));
  const cases: readonly (readonly [string, number])[] = [
    ["99999999999", 99_999_999_999_000],
    ["100000000000", 1e11],
    ["-1.5", -1500],
    ["1.7e9", 1.7e12],
    ["1.5E12", 1.5e12],
  ];
  for (const [text, ms] of cases) assert.equal(epochMs(text), ms, text);
});

test("what is written is read back, by anybody", () => {
  fc.assert(fc.property(fc.integer({ min: -2_208_988_800_000, max: LATEST_MS }), (ms) => {
    assert.match(eventTime(ms), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/);
    assert.equal(iso(eventTime(ms)), ms);
    assert.equal(Date.parse(`${eventTime(ms).replace(" ", "T")}Z`), ms);
  }));
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
