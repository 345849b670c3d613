/**
 * Events held against the columns of a table of the user's own.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { RowsToJudge } from "../../src/contracts.ts";
import { DecodeQueue } from "../../src/admit/decode.ts";
import { eventColumnsOf, eventTypes } from "../../src/admit/event.ts";
import { createJudge } from "../../src/admit/judge.ts";
import { columnsOf } from "../kit/columns.ts";
import { bytesOf, errorsOf, linesOf, NOW_MS, UUID } from "./kit.ts";

const queue = new DecodeQueue(() => Promise.reject(new Error("none of these is CSV")));

/** What the door makes of one event in a table that has this column. */
async function at(column: string, event: string) {
  const columns = columnsOf([column], column);
  const target = { table: "t", shape: "event", columns } as const;
  const decoded = await queue.decode(bytesOf(event), target, NOW_MS);
  return { lines: () => linesOf(decoded), error: errorsOf(decoded)[0] ?? null };
}

const event = (fields: string) => `{"eventType":"a","id":"${UUID}",${fields}}`;

test("a table that takes every event is not looked at", () => {
  const made = [
    ...["id UUID", "timestamp DateTime64(3, 'UTC')", "event_type LowCardinality(String)"],
    ...["user_id String", "properties Map(LowCardinality(String), String)"],
  ];
  assert.equal(eventColumnsOf(columnsOf(made)), null);
  const others = [
    ...["id String", "timestamp DateTime64(6)", "event_type Nullable(String)", "n UInt8"],
    ...["user_id LowCardinality(Nullable(String))", "properties JSON", "timestamp String"],
    ...[
      "timestamp Date32",
      "timestamp UInt32",
      "properties String",
      "user_id Variant(UInt8, String)",
    ],
  ];
  for (const column of others) assert.equal(eventColumnsOf(columnsOf([column])), null, column);
});

test("fields are read as their columns are, where these have no text", () => {
  const columns = columnsOf([
    ...["id FixedString(36)", "timestamp DateTime", "user_id LowCardinality(Nullable(UInt64))"],
    ...["event_type Enum8('LowCardinality(' = 1)", "properties Map(LowCardinality(String), Bool)"],
  ]);
  assert.deepEqual([...eventTypes(columns)!], [
    ["id", "FixedString(36)"],
    ["eventType", "Enum8('LowCardinality(' = 1)"],
    ["userId", "Nullable(UInt64)"],
    ["properties", "Map(String, Bool)"],
  ]);
});

test("times of a column with fewer of them", async () => {
  const cases: [type: string, time: string, sent: string | RegExp][] = [
    ["DateTime", "0", '"1970-01-01 00:00:00.000"'],
    ["DateTime", '"2106-02-07T06:28:15Z"', '"2106-02-07T06:28:15Z"'],
    ["DateTime", '"2106-02-07T06:28:16Z"', /^0: timestamp: .* does not fit DateTime/],
    ["DateTime('Europe/Berlin')", "-0.001", /^0: timestamp: -1 does not fit DateTime/],
    ["Nullable(DateTime)", '"1969-12-31T23:59:59Z"', /does not fit/],
    ["Date", '"2149-06-06T23:59:59.999Z"', '"2149-06-06T23:59:59.999Z"'],
    ["Date", '"2149-06-07T00:00:00Z"', /^0: timestamp: .* does not fit Date/],
    ["Date", "-1.5", /does not fit Date/],
    ["DateTime64(9)", '"2262-04-11T00:00:00Z"', '"2262-04-11T00:00:00Z"'],
    ["DateTime64(9)", '"2262-04-12T00:00:00Z"', /does not fit DateTime64\(9\)/],
    // What is finer goes backwards, as after 1970.
    ["DateTime64(0)", '"1960-01-01T00:00:00.25Z"', '"1960-01-01 00:00:00.000"'],
    ["DateTime64(1)", "-1.25", "-1300"],
    ["DateTime64(1)", "-1.5", "-1500"],
    ["DateTime64(1)", "1.25", '"1970-01-01 00:00:01.250"'],
    ["Bool", "1", /no time fits Bool/],
    ["Time", "1", /no time fits Time/],
  ];
  for (const [type, time, sent] of cases) {
    const { lines, error } = await at(`timestamp ${type}`, event(`"timestamp":${time}`));
    if (typeof sent !== "string") assert.match(error ?? "", sent, `${type} ${time}`);
    else assert.deepEqual(lines(), [event(`"timestamp":${sent}`)], `${type} ${time}`);
  }
});

test("a field that is not there has to have a default", async () => {
  const userless = event('"timestamp":"2026-01-01"');
  assert.equal((await at("user_id UInt8", userless)).error, null);
  assert.equal((await at("user_id Nullable(Enum8('a' = 1))", userless)).error, null);
  assert.equal(
    (await at("user_id Enum8('a' = 1)", userless)).error,
    "0: userId: missing, and Enum8('a' = 1) has no default",
  );
});

test("twice comes to the same, whatever was put in other words", async () => {
  const columns = columnsOf([
    ...["timestamp DateTime64(1)", "event_type Enum8('a' = 1)", "user_id Decimal(9, 2)"],
    "properties Map(String, DateTime64(3))",
  ]);
  const body = ["-1.25", "-1.5", '"1960-01-01T00:00:00.25Z"', "1764400000"]
    .map((time) =>
      `{"eventType":"1","timestamp":${time},"userId":"1e2","properties":{"t":1764400000}}`
    ).join("\n");
  const target = { table: "t", shape: "event", columns } as const;
  const door = linesOf(await queue.decode(bytesOf(body), target, NOW_MS));
  assert.match(
    door[0]!,
    /^\{"eventType":"a","timestamp":-1300,"userId":"100","properties":\{"t":"/,
  );
  const rows: RowsToJudge = {
    ...{ ...target, widens: false, unknownKeys: { policy: "pass" } },
    body: [bytesOf(`${door.join("\n")}\n`)],
  };
  const judged = await createJudge()(rows);
  assert.deepEqual([judged.body, judged.misfits], [null, []]);
  const narrower = { ...rows, columns: columnsOf(["timestamp DateTime", "user_id UInt8"]) };
  const { misfits } = await createJudge()(narrower);
  assert.deepEqual(misfits.map(({ index }) => index), [0, 1, 2]);
  assert.match(misfits[0]!.problem, /^timestamp: -1300 does not fit DateTime/);
});
