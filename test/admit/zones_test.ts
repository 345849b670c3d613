/** What clocks of a zone show, and the instant that it means: that of ClickHouse, or none. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Decoding, type Target } from "../../src/admit/decode.ts";
import { Scanner } from "../../src/admit/scanner.ts";
import { instantOf } from "../../src/admit/timestamp.ts";
import { columnsOf } from "../kit/columns.ts";
import { oneClickHouse } from "../kit/one_clickhouse.ts";
import { bytesOf } from "./kit.ts";

const clickhouse = oneClickHouse();
const HOUR_MS = 3_600_000;
/** Not those whose clocks changed at one minute past midnight, which ClickHouse reckons in quarters of an hour. */
const ZONES = [
  ...["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Asia/Tokyo"],
  ...["Pacific/Apia", "Africa/Casablanca", "America/Sao_Paulo"],
];
const textOf = (ms: number) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

test("each quarter of an hour around changes of the clock is what ClickHouse makes of it, or refused", async () => {
  let refused = 0;
  for (const zone of ZONES) {
    // The hours in which the offset is another one than that of the hour before.
    const changes = await clickhouse.query(
      `SELECT toUnixTimestamp(t) FROM (SELECT toDateTime('1995-01-01 00:00:00', 'UTC') + number * 3600 AS t ` +
        `FROM numbers(24 * 365 * 35)) WHERE timeZoneOffset(toTimeZone(t, '${zone}')) != ` +
        `timeZoneOffset(toTimeZone(t - 3600, '${zone}'))`,
    );
    const shown = changes.split("\n").filter(Boolean).flatMap((at) => {
      const ms = Number(at) * 1000;
      const ahead = ms - instantOf(zone, ms)!;
      return Array.from(
        { length: 40 },
        (_, quarter) => ms + ahead - 5 * HOUR_MS + quarter * HOUR_MS / 4,
      );
    });
    shown.push(Date.UTC(2026, 0, 2, 3, 4, 5), Date.UTC(2011, 11, 30, 12));
    const texts = shown.map(textOf);
    const rows = await clickhouse.query(
      `SELECT toUnixTimestamp(t), formatDateTime(t, '%F %T', '${zone}') FROM (SELECT arrayJoin(arrayMap(` +
        `x -> toDateTime(x, '${zone}'), [${texts.map((text) => `'${text}'`).join(",")}])) AS t)`,
    );
    for (const [at, row] of rows.split("\n").entries()) {
      const [seconds, back] = row.split("\t");
      const instant = instantOf(zone, shown[at]!);
      // What it shows for it again is what was sent, or there is no such time.
      const real = back === texts[at];
      assert.equal(instant === null, !real, `${zone} ${texts[at]}: ${back}`);
      if (instant !== null) assert.equal(instant / 1000, Number(seconds), `${zone} ${texts[at]}`);
      else refused++;
    }
  }
  assert.ok(refused > 400, `${refused} times that there are not`);
});

test("a row with such a time is an error; with an offset or as a number it is none", () => {
  const columns = columnsOf([
    "t DateTime('Europe/Berlin')",
    "a Array(DateTime64(3, 'Europe/Berlin'))",
  ]);
  const target: Target = { table: "t", shape: "row", columns };
  const scanner = new Scanner();
  const read = (row: string) => {
    const decoding = new Decoding(bytesOf(row), target, scanner, 0);
    decoding.go(Infinity);
    const decoded = decoding.end();
    assert.ok(decoded.kind === "rows");
    return decoded.errors[0]?.error ?? new TextDecoder().decode(decoded.body).trimEnd();
  };
  assert.equal(
    read('{"t":"2026-03-29T02:30"}'),
    't: "2026-03-29T02:30" is no time in Europe/Berlin: clocks are put forward over it; say it in UTC, or with its offset',
  );
  assert.match(read('{"a":["2026-03-29 02:00:00.5"]}'), /^a\[0\]: .* is no time in Europe\/Berlin/);
  for (
    const time of [
      ...['"2026-03-29 01:59:59"', '"2026-03-29 03:00:00"', '"2026-03-29T02:30:00Z"'],
      ...['"2026-03-29T02:30:00+02:00"', "1774744200", '"2026-10-25 02:30:00"'],
    ]
  ) assert.equal(read(`{"t":${time}}`), `{"t":${time}}`);
});

test("a zone that is not known is ClickHouse's to judge", () => {
  assert.equal(instantOf("Mars/Olympus", 5), 5);
});
