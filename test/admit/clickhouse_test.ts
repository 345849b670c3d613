/**
 * What admit forwards means to a real ClickHouse what it meant to admit.
 * Runs once: what ClickHouse makes of rows is asked; row_test.ts and decode_test.ts have the reading on both runtimes.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { isoMs } from "../../src/admit/timestamp.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { bytesOf, decodeEvents, errorsOf, linesOf, NOW_MS, UUID } from "./kit.ts";

const INPUT = "id UUID, timestamp DateTime64(3,''UTC''), eventType String, userId String, " +
  "properties Map(String,String)";

describe("events on ClickHouse", () => {
  let server: ClickHouse;
  before(async () => {
    server = await startClickHouse();
  });
  after(() => server.close());

  /** The rows as the INSERT reads them, in their order. */
  async function read(lines: readonly string[]): Promise<Record<string, unknown>[]> {
    const data = lines.join("\n").replace(/[\\']/g, "\\$&");
    const answer = await server.query(
      `SELECT toString(id) AS id, toString(toUnixTimestamp64Milli(timestamp)) AS ms, eventType, userId, ` +
        `properties FROM format(JSONEachRow, '${INPUT}', '${data}') ` +
        `SETTINGS date_time_input_format='best_effort', input_format_skip_unknown_fields=0, ` +
        `max_threads=1 FORMAT JSONEachRow`,
    );
    return answer.split("\n").map((line) => JSON.parse(line));
  }

  test("every accepted form of a time", async () => {
    const days = ["2024-02-29", "1969-12-31", "1970-01-01", "2299-12-30", "1900-01-02"];
    const clocks = [
      "T10:20",
      "T10:20:30",
      "T10:20:30.5",
      "T10:20:30.123456",
      "T10:20:30.123456789012",
      " 23:59:59.999",
      " 10:20",
    ];
    const zones = ["", "Z", "+02:00", "-05:30", "+0230", "-11", "+14:00"];
    const texts = days.flatMap((day) => [
      day,
      ...clocks.flatMap((clock) => zones.map((zone) => day + clock + zone)),
    ]);
    const wanted = texts.map((text) => String(isoMs(bytesOf(text), 0, text.length)));
    const lines = linesOf(
      decodeEvents(texts.map((t) => `{"eventType":"a","timestamp":"${t}"}`).join("\n")),
    );
    const found = await read(lines);
    assert.deepEqual(found.map(({ ms }, i) => [texts[i], ms]), texts.map((t, i) => [t, wanted[i]]));
  });

  test("every accepted form of a number as the time", async () => {
    const times: readonly (readonly [string, number])[] = [
      ["0", 0],
      ["-1", -1000],
      ["-0", 0],
      ["5", 5000],
      ["0.5", 500],
      ["1700000000", 1.7e12],
      ["1700000000.1239", 1_700_000_000_123],
      ["99999999999", NaN],
      ["100000000000", 1e11],
      ["1.5e12", 1.5e12],
      ["1.5e9", 1.5e12],
      ["1517966773840.0", 1517966773840],
      ["-2208988800000", -2208988800000],
      ["-2208988800", -2208988800000],
      ["10413791999999", 10413791999999],
    ];
    const all = times.filter(([, ms]) => !Number.isNaN(ms)).map(([text]) => text);
    const lines = linesOf(
      decodeEvents(all.map((t) => `{"eventType":"a","timestamp":${t}}`).join("\n")),
    );
    const found = await read(lines);
    const wanted = times.flatMap(([, ms]) => Number.isNaN(ms) ? [] : [String(ms)]);
    assert.deepEqual(found.map(({ ms }) => ms), wanted);
  });

  test("property values become text with every digit", async () => {
    const properties =
      '{"n":18446744073709551615,"f":1.10,"e":1E5,"b":true,"x":null,"s":"a\\"b\\u00e9\\/","o":{"a":[1, 2.0]},"":"k","__proto__":"p"}';
    const [row] = await read(
      linesOf(decodeEvents(`{"eventType":"a","properties":${properties}}`)),
    );
    const { x, ...found } = row!.properties as Record<string, string>;
    assert.equal(x, "");
    assert.deepEqual(
      { ...found },
      {
        n: "18446744073709551615",
        f: "1.10",
        e: "1E5",
        b: "true",
        s: 'a"bé/',
        o: '{"a":[1, 2.0]}',
        "": "k",
        ["__proto__"]: "p",
      },
    );
  });

  test("odd events arrive as they were meant", async () => {
    const body = [
      '{"eventType":"a","userId":"\\ud800"}',
      '{"eventType":"a","userId":"\\ud83d\\ude00"}',
      '{"eventType":"x","userId":"u","eventType":"a","userId":"v"}',
      '{"eventType":"a","user\\u0049d":"u\\u0000w"}',
      `{ "eventType" :\t"a" , "userId" : "b" , "id" : "${UUID.toUpperCase()}" }\r`,
      '{"eventType":"a","userId":"\\\\ud800\\n\\b"}',
    ].join("\n");
    const decoded = decodeEvents(body);
    assert.deepEqual(errorsOf(decoded), []);
    const rows = await read(linesOf(decoded));
    assert.deepEqual(rows.map(({ userId }) => userId), [
      "\ufffd",
      "😀",
      "v",
      "u\0w",
      "b",
      "\\ud800\n\b",
    ]);
    assert.equal(rows[4]!.id, UUID);
    for (const row of rows) {
      assert.equal(row.eventType, "a");
      assert.equal(row.ms, String(NOW_MS));
    }
  });

  test("nesting up to the limit is read", async () => {
    const deep = '{"a":'.repeat(900) + "1" + "}".repeat(900);
    const [row] = await read(linesOf(decodeEvents(`{"eventType":"a","properties":{"d":${deep}}}`)));
    assert.equal((row!.properties as Record<string, string>).d, deep);
  });
});
