/** Values against their columns: what is refused, in which words, and that the scanner agrees. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Decoding } from "../../src/admit/decode.ts";
import { Scanner } from "../../src/admit/scanner.ts";
import type { Column } from "../../src/contracts.ts";
import { columnsOf } from "../kit/columns.ts";
import { bytesOf, errorsOf, linesOf, NOW_MS } from "./kit.ts";

const scanner = new Scanner();

/** What becomes of one row with a value for a column `v`; the value as it is sent, or the error. */
function sent(type: string, value: string, defaultKind: Column["defaultKind"] = ""): string {
  const known = columnsOf([`v ${type}`]);
  const columns = { ...known, columns: known.columns.map((one) => ({ ...one, defaultKind })) };
  const target = { table: "t", shape: "row", columns, typeCheck: true } as const;
  // By the scanner, and once more with a key that it leaves to the closer look.
  const [fast, slow] = [`{"v":${value}}`, `{"\\u0076":${value}}`].map((row) => {
    const decoding = new Decoding(bytesOf(row), target, scanner, NOW_MS);
    decoding.go(Infinity);
    const decoded = decoding.end();
    return errorsOf(decoded)[0]?.slice(3) ?? linesOf(decoded)[0]!.replace(/^\{"[^"]*":|\}$/g, "");
  });
  // The two may write one and the same time in different words.
  const plain = (text: string) =>
    text.replace(/(\d)\.?0*Z"/g, '$1Z"').replaceAll(/(\d)T(\d)/g, "$1 $2");
  assert.equal(plain(fast!), plain(slow!), `${type} ${value}`);
  return fast!;
}

const ENUM = "Enum8('new' = 1, 'paid' = 2)";
const KEPT: readonly (readonly [string, ...string[]])[] = [
  ["UInt8", "0", "255", '"255"', "true", '"+7"', "null"],
  ["Int8", "-128", "127", '"-5"'],
  ["UInt64", "18446744073709551615", "9999999999999999999", "10000000000000000000"],
  ["Int64", "-9223372036854775808", "9223372036854775807"],
  ["UInt128", "340282366920938463463374607431768211455"],
  ["Int256", "-57896044618658097711785492504343953926634992332820282019728792003956564819968"],
  ["Float32", "3.4e38", "1e-7", "-0.5", '"nan"', "1E5", "16777217", "0.1e-40"],
  ["Float64", "1.7976931348623157e308", "1e-400", "123456789012345678901234567890"],
  ["Decimal(10, 2)", "1.23", "-99999999.99", '"1.5"', "0", "0.0"],
  ["Bool", "true", "false", "0", "1"],
  ["String", "5", "true", '"a"', '{"a":[1]}', "null"],
  ["FixedString(3)", '"abc"', '"ü"', '""'],
  ["UUID", '"01890a5d-ac96-774b-bcce-b302099a8057"', '"01890A5DAC96774BBCCEB302099A8057"'],
  ["IPv4", '"255.0.0.1"', '"01.2.3.4"'],
  ["IPv6", '"::"', '"2001:db8::1"', '"::ffff:1.2.3.4"', '"1:2:3:4:5:6:7:8"', '"1.2.3.4"'],
  [ENUM, '"new"'],
  ["Enum8('a\\'b' = 0, 'ü, (x)' = -1)", '"ü, (x)"', '"a\'b"', "null"],
  ["Date", '"1970-01-01"', '"2149-06-06"', '"2024-02-29"', "null"],
  ["Date32", '"1900-01-01"', '"2299-12-31"'],
  ["DateTime", "0", "4294967295", '"2106-02-07T06:28:15Z"', '"2025-11-29 07:06:40+02:00"'],
  ["DateTime('Europe/Berlin')", '"2025-11-29 07:06:40"'],
  ["Time", '"09:30:00"', '"-999:59:59"', "3599999", "-1"],
  ["Time64(3)", '"9:30:00.125"', '"999:59:59"', "null"],
  ["Nullable(UInt8)", "null", "255"],
  ["LowCardinality(Nullable(String))", "null", "5"],
  ["Array(Nullable(Int8))", "[]", "[1,null,-128]", "[ 1 , 2 ]"],
  ["Map(UInt8, Array(String))", '{"255":["a"],"0":[]}', "{}"],
  ["Map(LowCardinality(String), Nullable(UInt8))", '{"a\\u0062":null,"":1}'],
  ["Tuple(UInt8, String)", '[1,"x"]'],
  ["Tuple(a UInt8, `b c` String)", '{"a":1,"b c":"x"}', '{"b c":"x"}', '[1,"x"]', "{}"],
  ["Nested(a UInt8, b String)", '[{"a":1,"b":"x"}]'],
  ["SimpleAggregateFunction(sum, UInt64)", "1"],
  // What is not known is ClickHouse's to judge.
  ["JSON", '{"a":300}', "null"],
  ["Variant(UInt8, String)", "300"],
  ["AggregateFunction(count)", '"x"'],
  ["Geometry", "[[1]]", "null"],
  ["Whatever('a', (b", "300"],
];

describe("what fits is sent as it came", () => {
  for (const [type, ...values] of KEPT) {
    for (const value of values) {
      test(`${type} ${value}`, () => {
        const wanted = /^Date.*Berlin/.test(type) || !type.startsWith("DateTime") ||
            !value.includes('"')
          ? value
          : null;
        if (wanted !== null) assert.equal(sent(type, value), wanted);
        else assert.ok(!sent(type, value).includes("does not fit"));
      });
    }
  }
});

const REFUSED: readonly (readonly [string, string, string])[] = [
  ["UInt8", "300", "v: 300 does not fit UInt8 (0 to 255)"],
  ["UInt8", "-1", "v: -1 does not fit UInt8 (0 to 255)"],
  ["UInt8", "-0", "v: -0 does not fit UInt8 (0 to 255)"],
  ["UInt8", "1.5", "v: 1.5 does not fit UInt8 (0 to 255)"],
  ["UInt8", '"300"', 'v: "300" does not fit UInt8 (0 to 255)'],
  ["UInt8", '""', 'v: "" does not fit UInt8 (0 to 255)'],
  ["Int32", "2147483648", "v: 2147483648 does not fit Int32 (-2147483648 to 2147483647)"],
  ["Int32", "-2147483649", "v: -2147483649 does not fit Int32 (-2147483648 to 2147483647)"],
  [
    "UInt64",
    "18446744073709551616",
    "v: 18446744073709551616 does not fit UInt64 (0 to 18446744073709551615)",
  ],
  [
    "UInt64",
    "28446744073709551616",
    "v: 28446744073709551616 does not fit UInt64 (0 to 18446744073709551615)",
  ],
  ["Nullable(UInt8)", "300", "v: 300 does not fit UInt8 (0 to 255)"],
  ["Float32", "1e39", "v: 1e39 does not fit Float32 (a number in its range)"],
  ["Float64", "1e400", "v: 1e400 does not fit Float64 (a number in its range)"],
  [
    "Decimal(10, 2)",
    "1.239",
    "v: 1.239 does not fit Decimal(10, 2) (8 digits before the point, 2 behind it)",
  ],
  [
    "Decimal(4, 2)",
    "100",
    "v: 100 does not fit Decimal(4, 2) (2 digits before the point, 2 behind it)",
  ],
  ["Bool", "2", "v: 2 does not fit Bool (true, false, 1 or 0)"],
  ["FixedString(3)", '"abcd"', 'v: "abcd" does not fit FixedString(3) (text of at most 3 bytes)'],
  ["UUID", '"x"', 'v: "x" does not fit UUID (text such as 01890a5d-ac96-774b-bcce-b302099a8057)'],
  ["IPv4", '"1.2.3.256"', 'v: "1.2.3.256" does not fit IPv4 (text such as 192.0.2.1)'],
  [
    "IPv6",
    '"1:2:3:4:5:6:7:8:9"',
    'v: "1:2:3:4:5:6:7:8:9" does not fit IPv6 (text such as 2001:db8::1)',
  ],
  [ENUM, "3", `v: 3 does not fit ${ENUM} ('new', 'paid')`],
  [ENUM, '"old"', `v: "old" does not fit ${ENUM} ('new', 'paid')`],
  [ENUM, "null", `v: null does not fit ${ENUM} ('new', 'paid')`],
  [`Array(${ENUM})`, "[null]", `v[0]: null does not fit ${ENUM} ('new', 'paid')`],
  [`Map(String, ${ENUM})`, '{"k":null}', `v.k: null does not fit ${ENUM} ('new', 'paid')`],
  [`Tuple(a ${ENUM})`, "null", `v: null does not fit Tuple(a ${ENUM}) (an object with these keys)`],
  [`Tuple(a ${ENUM})`, "{}", `v.a: missing, and ${ENUM} has no default`],
  [
    "Date",
    '"2026-02-30"',
    'v: "2026-02-30" does not fit Date (YYYY-MM-DD, 1970-01-01 to 2149-06-06)',
  ],
  [
    "Date",
    '"2026-13-01"',
    'v: "2026-13-01" does not fit Date (YYYY-MM-DD, 1970-01-01 to 2149-06-06)',
  ],
  [
    "Date",
    '"2150-01-01"',
    'v: "2150-01-01" does not fit Date (YYYY-MM-DD, 1970-01-01 to 2149-06-06)',
  ],
  [
    "Time",
    "3600000",
    "v: 3600000 does not fit Time (text such as 09:30:00, to 999:59:59, or seconds)",
  ],
  [
    "Time",
    '"12:61:00"',
    'v: "12:61:00" does not fit Time (text such as 09:30:00, to 999:59:59, or seconds)',
  ],
  ["Time64(6)", "1", "v: 1 does not fit Time64(6) (text such as 09:30:00, to 999:59:59)"],
  ["Date", "20000", "v: 20000 does not fit Date (YYYY-MM-DD, 1970-01-01 to 2149-06-06)"],
  [
    "Date32",
    '"1899-12-31"',
    'v: "1899-12-31" does not fit Date32 (YYYY-MM-DD, 1900-01-01 to 2299-12-31)',
  ],
  [
    "DateTime",
    "1764400000123",
    "v: 1764400000123 does not fit DateTime (ISO 8601 or epoch seconds, 1970-01-01 to 2106-02-07)",
  ],
  [
    "DateTime",
    "-1",
    "v: -1 does not fit DateTime (ISO 8601 or epoch seconds, 1970-01-01 to 2106-02-07)",
  ],
  [
    "DateTime",
    '"2106-02-07T06:28:16Z"',
    'v: "2106-02-07T06:28:16Z" does not fit DateTime (ISO 8601 or epoch seconds, 1970-01-01 to 2106-02-07)',
  ],
  [
    "DateTime64(3)",
    '"2025-11-29 25:00:00"',
    'v: "2025-11-29 25:00:00" does not fit DateTime64(3) (ISO 8601 or epoch seconds or milliseconds, 1900-01-01 to 2299-12-31)',
  ],
  [
    "DateTime64(9)",
    '"2299-12-31 00:00:00"',
    'v: "2299-12-31 00:00:00" does not fit DateTime64(9) (ISO 8601 or epoch seconds or milliseconds, 1900-01-01 to 2262-04-11)',
  ],
  ["Array(UInt8)", "[1,300]", "v[1]: 300 does not fit UInt8 (0 to 255)"],
  ["Array(UInt8)", "[null]", "v[0]: null does not fit UInt8 (0 to 255)"],
  ["Array(UInt8)", "5", "v: 5 does not fit Array(UInt8) (an array)"],
  ["Map(UInt8, String)", '{"300":"a"}', 'v: "300" does not fit UInt8 (0 to 255)'],
  ["Map(UInt8, String)", '{"":"a"}', 'v: "" does not fit UInt8 (0 to 255)'],
  ["Tuple(a UInt8, b String)", '{"a":1,"c":2}', "v.c: no element of Tuple(a UInt8, b String)"],
  ["Tuple(UInt8, String)", "[1]", "v: [1] does not fit Tuple(UInt8, String) (an array of 2)"],
  ["Nested(a UInt8)", '[{"a":1},{"a":256}]', "v[1].a: 256 does not fit UInt8 (0 to 255)"],
];

describe("what does not fit is an error of its row", () => {
  for (const [type, value, error] of REFUSED) {
    test(`${type} ${value}`, () => assert.equal(sent(type, value), error));
  }
});

test("null stands for the default that a column has", () => {
  assert.equal(sent(ENUM, "null", "DEFAULT"), "null");
  assert.equal(sent("UInt8", "null", "DEFAULT"), "null");
  assert.match(sent("UInt8", "300", "DEFAULT"), /does not fit/);
});

const TIMES: readonly (readonly [string, string, string])[] = [
  ["DateTime64(3, 'UTC')", "1764400000123", '"2025-11-29 07:06:40.123Z"'],
  ["DateTime64(3, 'UTC')", "1764400000", '"2025-11-29 07:06:40.000Z"'],
  ["DateTime64(3, 'UTC')", "1764400000.5", '"2025-11-29 07:06:40.500Z"'],
  ["DateTime64(6)", "1764400000123456", '"2025-11-29 07:06:40.123456Z"'],
  ["DateTime64(9)", "1764400000123456789", '"2025-11-29 07:06:40.123456789Z"'],
  // Before 1970 a fraction is put in ticks, which every version reads alike.
  ["DateTime64(9)", "-0.25", "-250000000"],
  ["DateTime64(9)", "-1", '"1969-12-31 23:59:59.000000000Z"'],
  ["DateTime64(3)", '"1969-12-31T23:59:58.5Z"', "-1500"],
  ["DateTime64(3)", '"1969-12-31T23:59:58.0009Z"', '"1969-12-31T23:59:58.0009Z"'],
  ["DateTime64(6, 'Asia/Tokyo')", '"1960-01-01 09:00:00.25"', "-315619199750000"],
  ["DateTime64(3)", '"1900-01-01 00:00:00.001"', "-2208988799999"],
  [
    "Array(DateTime64(3))",
    '["1960-01-01T00:00:00.25Z",5]',
    '[-315619199750,"1970-01-01 00:00:05.000Z"]',
  ],
  ["DateTime64(3)", '"1764400000123"', '"2025-11-29 07:06:40.123Z"'],
  ["DateTime64(3)", "1.7644e9", '"2025-11-29 07:06:40.000Z"'],
  ["DateTime64(3)", '"2025-11-29 07:06:40"', '"2025-11-29 07:06:40Z"'],
  ["DateTime", '"2025-11-29 07:06:40"', '"2025-11-29 07:06:40Z"'],
  ["DateTime", '"2025-11-29"', '"2025-11-29 00:00:00Z"'],
  ["DateTime", '"2025/11/29 07:06"', '"2025-11-29 07:06:00Z"'],
  ["DateTime", "1764400000.5", "1764400000"],
  ["DateTime('Europe/Berlin')", '"2025/11/29 07:06"', '"2025-11-29 07:06:00"'],
  ["DateTime('Asia/Tokyo')", '"2106-02-07 15:28:15"', '"2106-02-07 15:28:15"'],
  [
    "Array(DateTime64(3))",
    '[1764400000123,"2025-11-29"]',
    '["2025-11-29 07:06:40.123Z","2025-11-29 00:00:00Z"]',
  ],
  ["Map(String, DateTime64(3))", '{"a":1764400000123}', '{"a":"2025-11-29 07:06:40.123Z"}'],
];

test("the number of an Enum is sent as its name, which every version reads", () => {
  assert.equal(sent(ENUM, "2"), '"paid"');
  assert.equal(sent(ENUM, '"1"'), '"new"');
  assert.equal(sent("Enum8('a\\'b' = 0, 'ü, (x)' = -1)", "-1"), '"ü, (x)"');
});

test("a Decimal with digits that say nothing is sent without them", () => {
  for (
    const [type, value, wanted] of [
      ["Decimal(9, 2)", "0e6", "0"],
      ["Decimal(9, 2)", "0e-400", "0"],
      ["Decimal(9, 2)", "-0e0", "0"],
      ["Decimal(9, 2)", "-0", "-0"],
      ["Decimal(9, 2)", "0.000", "0"],
      ["Decimal(9, 2)", "1000e-3", "1"],
      ["Decimal(9, 2)", "-1230e-3", "-1.23"],
      ["Decimal(9, 2)", "1.50e1", "15"],
      ["Decimal(9, 2)", "12e5", "1200000"],
      ["Decimal(9, 2)", "5e-2", "0.05"],
      ["Decimal(9, 2)", "1.2300", "1.23"],
      ["Decimal(9, 2)", "1.23", "1.23"],
      ["Decimal(9, 2)", '"00012.5e+1"', '"125"'],
      ["Decimal(9, 2)", '"+1"', '"1"'],
      ["Decimal(38, 10)", "0.00000000000000000000000001e26", "1"],
      ["Decimal(38, 10)", "10000000000000000000000e-20", "100"],
      ["Array(Decimal(9, 2))", "[1e0,2.50]", "[1,2.50]"],
      ["Map(Decimal(9, 2), UInt8)", '{"1e1":1}', '{"10":1}'],
    ] as const
  ) assert.equal(sent(type, value), wanted, `${type} ${value}`);
  for (const value of ["1e-400", "1e-3", "1.239", "1e7", "12345678", "1e999999999"]) {
    assert.match(sent("Decimal(9, 2)", value), /does not fit/, value);
  }
});

describe("a time that could be read in two ways is sent in one", () => {
  for (const [type, value, wanted] of TIMES) {
    test(`${type} ${value}`, () => assert.equal(sent(type, value), wanted));
  }
  test("also beyond the edge that only the zone makes", () => {
    assert.match(sent("DateTime('Asia/Tokyo')", '"1970-01-01 08:59:59"'), /does not fit/);
    assert.equal(sent("DateTime('Asia/Tokyo')", '"1970-01-01 09:00:00"'), '"1970-01-01 09:00:00"');
  });
});
