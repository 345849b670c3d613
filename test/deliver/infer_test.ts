/**
 * What becomes of a sample of rows: which of them are one, and which of ClickHouse's types are believed.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  columnsIn,
  keysOfManyTypes,
  sampleOf,
  tableOf,
  widerType,
} from "../../src/deliver/infer.ts";

const bytesOf = (...rows: readonly unknown[]) =>
  new TextEncoder().encode(
    rows.map((row) => (typeof row === "string" ? row : JSON.stringify(row)) + "\n").join(""),
  );

/** The columns of a table of these rows, where ClickHouse says these types of them. */
function tableFor(types: Record<string, string>, ...rows: readonly unknown[]) {
  const sample = sampleOf(bytesOf(...rows), null);
  const columns = columnsIn(new Map(Object.entries(types)), sample);
  if (!columns.ok) return columns.problem;
  const { columns: found, time } = tableOf(columns.value, sample);
  return [...found.map(({ name, type }) => `${name} ${type}`), time];
}

const INT = "Nullable(Int64)";
const TEXT = "Nullable(String)";
const TIME = "Nullable(DateTime64(9))";
const AS_TIME = "DateTime64(3, 'UTC')";

describe("a sample", () => {
  test("is the first rows, as far as a form takes them", () => {
    const row = { text: "x".repeat(1000) };
    const { rows, text } = sampleOf(bytesOf(...Array.from({ length: 500 }, () => row)), null);
    assert.ok(rows > 80 && rows < 98, `${rows} rows`);
    assert.equal(text.split("\n").length, rows);
  });

  test("counts backslashes and line ends as the two bytes that they are on their way", () => {
    const row = { text: "\\".repeat(20_000) };
    assert.equal(sampleOf(bytesOf(row, row, row), null).rows, 1);
  });

  test("passes a row by that is too long for any", () => {
    const { values, rows } = sampleOf(bytesOf({ long: "x".repeat(200_000) }, { a: 1 }), null);
    assert.equal(rows, 1);
    assert.deepEqual([...values.keys()], ["a"]);
  });

  test("has rows with the keys that are asked for, wherever they are", () => {
    const rows = Array.from({ length: 5000 }, (_, n) => n === 4321 ? { a: 1, b: 2 } : { a: 1 });
    const { values, rows: taken } = sampleOf(bytesOf(...rows), new Set(["b"]));
    assert.equal(taken, 1);
    assert.deepEqual([...values], [["b", [2]]]);
  });
});

describe("types", () => {
  test("are ClickHouse's, and all but the time may be absent", () => {
    const rows = [{ time: "2026-11-29T10:00:00Z", n: 1, s: "a", l: [1] }];
    const types = { time: TIME, n: INT, s: TEXT, l: "Array(Nullable(Int64))" };
    assert.deepEqual(tableFor(types, ...rows), [
      `time ${AS_TIME}`,
      `n ${INT}`,
      `s ${TEXT}`,
      "l Array(Nullable(Int64))",
      "time",
    ]);
  });

  test("a number is a time where name and size say so", () => {
    const table = (name: string, ...values: unknown[]) =>
      tableFor({ [name]: INT }, ...values.map((value) => ({ [name]: value })));
    const time = (name: string) => [`${name} ${AS_TIME}`, name];
    const number = (name: string) => [`${name} ${INT}`, null];
    for (const name of ["time", "ts", "created_at", "eventTime", "@timestamp", "Created"]) {
      assert.deepEqual(table(name, 1764410400), time(name));
      assert.deepEqual(table(name, 1764410400123, "2026-11-29"), time(name));
    }
    assert.deepEqual(table("response_time", 12), number("response_time"));
    assert.deepEqual(table("created_at", 1764410400, 5), number("created_at"));
    assert.deepEqual(table("bytes", 1764410400), number("bytes"));
    assert.deepEqual(table("flat", 1764410400), number("flat"));
    assert.deepEqual(table("ts", 1764410400123456), ["ts DateTime64(6, 'UTC')", "ts"]);
  });

  test("a time that would lose digits gets room for them", () => {
    const table = (value: string) => tableFor({ t: TIME }, { t: value });
    assert.deepEqual(table("2026-11-29 10:00:00.123456"), ["t DateTime64(6, 'UTC')", "t"]);
    assert.deepEqual(table("2026-11-29 10:00:00.1234567"), ["t DateTime64(9, 'UTC')", "t"]);
  });

  test("what no row of this collector could bring again is text", () => {
    assert.deepEqual(tableFor({ t: "Nullable(DateTime)" }, { t: "Jan 5 2020" }), [
      `t ${TEXT}`,
      null,
    ]);
    assert.deepEqual(tableFor({ t: "Nullable(Date)" }, { t: "2020/01/05" }), [`t ${TEXT}`, null]);
    const mixed = {
      a: "Array(Dynamic)",
      b: "Array(Tuple(x Int64))",
      c: "Tuple(x Int64)",
      d: "JSON",
    };
    assert.deepEqual(tableFor(mixed, { a: [1, "x"], b: [{ x: 1 }], c: { x: 1 }, d: {} }), [
      "a Array(Nullable(String))",
      "b Array(Nullable(String))",
      `c ${TEXT}`,
      `d ${TEXT}`,
      null,
    ]);
  });

  test("what the type would refuse is text", () => {
    const table = (type: string, ...values: readonly string[]) =>
      tableFor({ v: type }, ...values.map((value) => `{"v":${value}}`));
    const refused: [type: string, value: string][] = [
      [TIME, '"1850-01-01"'],
      [TIME, '"2300-01-01T00:00:00Z"'],
      [TIME, '"2026-11-29 24:00"'],
      ["Nullable(Date)", '"2026-02-30"'],
      ["Nullable(Date)", '"2026-13-01"'],
      ["Nullable(Float64)", "1e400"],
      ["Nullable(Float64)", "-1e400"],
    ];
    for (const [type, value] of refused) assert.deepEqual(table(type, value), [`v ${TEXT}`, null]);
    assert.deepEqual(table("Nullable(Date)", '"2024-02-29"'), ["v Date", "v"]);
    assert.deepEqual(table(TIME, '"2299-12-31 23:59:59"'), [`v ${AS_TIME}`, "v"]);
    assert.deepEqual(table("Nullable(Float64)", "1e300"), ["v Nullable(Float64)", null]);
  });

  test("keys of many types are those that ClickHouse finds none for", () => {
    const lines = [
      '{"a":1,"b":[1],"c":[],"d":null,"e":-1,"f":-1,"g":[null],"h":1,"i":[]}',
      '{"a":"x","b":["x"],"c":[[1]],"d":[1],"e":18446744073709551615,"f":1,"g":[1],"h":[],"i":{}}',
    ];
    assert.deepEqual(keysOfManyTypes(sampleOf(bytesOf(...lines), null)), ["e", "h", "i"]);
  });

  test("a day stays one, unless its name is a time's", () => {
    const types = { date: "Nullable(Date)", at: "Nullable(Date)" };
    assert.deepEqual(tableFor(types, { at: "2026-11-29", date: "2026-11-29" }), [
      `at ${AS_TIME}`,
      "date Nullable(Date)",
      "at",
    ]);
  });

  test("a time that a row lacks sorts no table", () => {
    assert.deepEqual(tableFor({ time: TIME }, { time: "2026-11-29" }, { time: null }), [
      `time Nullable(${AS_TIME})`,
      null,
    ]);
    assert.deepEqual(tableFor({ time: TIME, a: INT }, { time: "2026-11-29" }, { a: 1 }), [
      `time Nullable(${AS_TIME})`,
      `a ${INT}`,
      null,
    ]);
  });

  test("names that no column can have are told", () => {
    for (const name of ["", "a\nb", "x".repeat(200)]) {
      assert.match(String(tableFor({}, { [name]: 1 })), /can be no column's name/);
    }
    assert.deepEqual(tableFor({ a: INT }, { "": 1, a: 1 }), [`a ${INT}`, null]);
    assert.match(String(tableFor({}, {})), /no keys/);
  });
});

describe("a wider type", () => {
  const wider = (type: string, ...values: readonly string[]) => {
    const found = widerType(type, values);
    return found === null ? null : `${found.type}${found.ifExact ? " if exact" : ""}`;
  };

  test("of integers holds what was there, and more", () => {
    assert.equal(wider("UInt8", "300"), "Int64");
    assert.equal(wider("Nullable(Int32)", '"-3000000000"'), "Nullable(Int64)");
    assert.equal(wider("UInt32", "18446744073709551615"), "UInt64");
    assert.equal(wider("UInt8", "300", "99999999999999999999999"), "Int64");
    assert.equal(wider("Int64", "9223372036854775808"), null);
    assert.equal(wider("UInt64", "-1"), null);
    assert.equal(wider("Int8", "18446744073709551615"), null);
  });

  test("of integers with fractions is Float64, where no digit is lost", () => {
    assert.equal(wider("Int32", "1.5"), "Float64");
    assert.equal(wider("Nullable(UInt8)", "1e-3", "300"), "Nullable(Float64)");
    assert.equal(wider("Int64", "1.5"), "Float64 if exact");
    assert.equal(wider("Int32", "1.5", "9007199254740993"), null);
  });

  test("of a day is a time, as fine as its values", () => {
    assert.equal(wider("Date", '"2026-11-29 10:00"'), "DateTime64(3, 'UTC')");
    assert.equal(
      wider("Nullable(Date)", '"2026-11-29T10:00:00.1234Z"'),
      "Nullable(DateTime64(6, 'UTC'))",
    );
  });

  test("is none for what it would not hold either", () => {
    for (const time of ["2026-02-30", "2026-13-01 10:00", "2026-11-29 99:99:99", "1850-01-01"]) {
      assert.equal(wider("Date", `"${time}"`), null, time);
    }
    assert.equal(wider("Int32", "1e400"), null);
    assert.equal(wider("Int32", "1e400", "0.5"), "Float64");
  });

  test("is never text, and never one of another kind", () => {
    for (
      const type of [
        "Int64",
        "Date",
        "UInt8",
        "Float32",
        "Bool",
        "DateTime",
        "UUID",
        "Decimal(9, 2)",
      ]
    ) {
      assert.equal(wider(type, '"soon"', "true", "[1]", "null"), null, type);
    }
    assert.equal(wider("LowCardinality(Int8)", "300"), null);
    assert.equal(wider("Array(UInt8)", "[300]"), null);
  });
});
