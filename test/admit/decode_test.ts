/** Bytes → events: what is taken, as what, and what is said about the rest. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { rounds } from "../kit/rounds.ts";
import { bytesOf, decodeEvents, errorsOf, linesOf, NOW_MS, UUID } from "./kit.ts";

const FULL = `{"id":"${UUID}","timestamp":"2024-01-01T00:00:00Z","eventType":"a","userId":"u",` +
  `"properties":{"n":18446744073709551615,"f":1.10,"b":true,"x":null,"o":{"a":[1]}}}`;
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("a complete event is forwarded as it came", () => {
  assert.deepEqual(linesOf(decodeEvents(FULL)), [FULL]);
});

test("id and timestamp are put in front where they are missing", () => {
  const [line] = linesOf(decodeEvents('{"eventType":"click","userId":"u1"}'));
  const { id, timestamp, ...rest } = JSON.parse(line!);
  assert.match(id, UUID_V7);
  assert.equal(parseInt(id.replace("-", "").slice(0, 12), 16), NOW_MS);
  assert.equal(timestamp, "2024-01-01 00:00:00.000");
  assert.deepEqual(rest, { eventType: "click", userId: "u1" });

  const [timed] = linesOf(decodeEvents('{"eventType":"a","timestamp":5}'));
  assert.match(
    timed!,
    /^\{"id":"[^"]{36}","eventType":"a","timestamp":"1970-01-01 00:00:05\.000"\}$/,
  );
  const [named] = linesOf(decodeEvents(`{"eventType":"a","id":"${UUID}"}`));
  assert.equal(named, `{"timestamp":"2024-01-01 00:00:00.000","eventType":"a","id":"${UUID}"}`);
});

test("new ids differ, also across refills of the pool", () => {
  const ids = linesOf(decodeEvents('{"eventType":"a"}\n'.repeat(3000))).map((line) =>
    JSON.parse(line).id
  );
  assert.equal(new Set(ids).size, 3000);
});

const row = (n: number) =>
  `{"eventType":"e","timestamp":"2024-01-01T00:00:00.${
    String(n).padStart(3, "0")
  }Z","id":"${UUID}"}`;
const FORMS: readonly (readonly [string, string | Uint8Array])[] = [
  ["NDJSON", `${row(1)}\n${row(2)}\n`],
  ["NDJSON without a last line end", `${row(1)}\n${row(2)}`],
  ["NDJSON with CRLF", `${row(1)}\r\n${row(2)}\r\n`],
  ["NDJSON with blank lines", `\n\r\n  \n${row(1)}\n\n\t\n${row(2)}\n\n`],
  ["NDJSON with blanks around rows", `  ${row(1)}  \n\t${row(2)} \t`],
  ["NDJSON with a byte order mark", `\ufeff${row(1)}\n${row(2)}`],
  ["an array", `[${row(1)},${row(2)}]`],
  ["an array over several lines", ` [\n  ${row(1)},\r\n  ${row(2)}\n]\n`],
  ["an array with a byte order mark", `\ufeff[${row(1)},${row(2)}]`],
  [
    "an array, each row over several lines",
    JSON.stringify([row(1), row(2)].map((r) => JSON.parse(r)), null, 2),
  ],
];
for (const [name, body] of FORMS) {
  test(`${name} gives the same rows`, () => {
    const decoded = decodeEvents(body);
    assert.deepEqual(errorsOf(decoded), []);
    assert.deepEqual(
      linesOf(decoded).map((line) => JSON.parse(line)),
      [row(1), row(2)].map((line) => JSON.parse(line)),
    );
  });
}

test("one object may stand on several lines", () => {
  for (const indent of [2, "\t"]) {
    const text = JSON.stringify(JSON.parse(row(1)), null, indent);
    for (const body of [text, text.replaceAll("\n", "\r\n"), `\n\n${text}\n`]) {
      assert.deepEqual(linesOf(decodeEvents(body)).map((line) => JSON.parse(line)), [
        JSON.parse(row(1)),
      ]);
    }
  }
});

const MENDED: readonly (readonly [string, string, object])[] = [
  ["a repeated key: the last wins", '"eventType":"b","eventType":"a"', { eventType: "a" }],
  ["a lone surrogate", '"userId":"x\\ud800y"', { userId: "x\ufffdy" }],
  ["a surrogate pair", '"userId":"\\ud83d\\ude00"', { userId: "😀" }],
  ["an escaped backslash before u", '"userId":"\\\\ud800"', { userId: "\\ud800" }],
  ["an escaped key", '"user\\u0049d":"u"', { userId: "u" }],
  ["an escaped time", '"timestamp":"2024-01-01\\u005400:00Z"', { timestamp: "2024-01-01T00:00Z" }],
  ["a time as 1.5e12", '"timestamp":1.5e12', { timestamp: "2017-07-14 02:40:00.000" }],
  ["a time as 1500000000000.0", '"timestamp":1500000000000.0', {
    timestamp: "2017-07-14 02:40:00.000",
  }],
  ["a time finer than a millisecond", '"timestamp":1500000000000.9', {
    timestamp: "2017-07-14 02:40:00.000",
  }],
  ["seconds", '"timestamp":1500000000', { timestamp: "2017-07-14 02:40:00.000" }],
  ["seconds with a fraction", '"timestamp":1500000000.1239', {
    timestamp: "2017-07-14 02:40:00.123",
  }],
  ["seconds before 1970", '"timestamp":-1', { timestamp: "1969-12-31 23:59:59.000" }],
  ["a time as -0", '"timestamp":-0', { timestamp: "1970-01-01 00:00:00.000" }],
  ["a user as a number", '"userId":42', { userId: "42" }],
  ["a user as a large number", `"userId":${"9".repeat(30)}`, { userId: "9".repeat(30) }],
  ["a negative user", '"userId":-7,"timestamp":5', {
    userId: "-7",
    timestamp: "1970-01-01 00:00:05.000",
  }],
  ["an id without dashes", `"id":"${UUID.replaceAll("-", "").toUpperCase()}"`, {
    id: UUID.toUpperCase(),
  }],
  ["no time", '"timestamp":null', { timestamp: "2024-01-01 00:00:00.000" }],
];
test("before 1970 a time with a fraction is put in milliseconds, which every version reads alike", () => {
  for (const time of ["-1.5", '"1969-12-31T23:59:58.5Z"', '"1969-12-31 23:59:58.500"']) {
    const [line] = linesOf(decodeEvents(`{"eventType":"a","timestamp":${time}}`));
    assert.equal(JSON.parse(line!).timestamp, -1500, time);
  }
  const [whole] = linesOf(decodeEvents('{"eventType":"a","timestamp":"1969-12-31T23:59:58.000Z"}'));
  assert.equal(JSON.parse(whole!).timestamp, "1969-12-31T23:59:58.000Z");
});

for (const [name, member, wanted] of MENDED) {
  test(`taken: ${name}`, () => {
    const [line] = linesOf(decodeEvents(`{"eventType":"a",${member}}`));
    assert.deepEqual({ ...JSON.parse(line!), ...wanted }, JSON.parse(line!));
    const keys = Object.keys(JSON.parse(line!));
    for (const key of keys) assert.equal(line!.split(`"${key}":`).length, 2, "each key once");
    assert.match(line!, /"timestamp":"/);
  });
}

test("null is nothing where a field may be absent", () => {
  const body = '{"userId":null,"eventType":"a","properties":null,"timestamp":null,"id":null}';
  const { id, ...event } = JSON.parse(linesOf(decodeEvents(body))[0]!);
  assert.match(id, UUID_V7);
  assert.deepEqual(event, { eventType: "a", timestamp: "2024-01-01 00:00:00.000" });
});

test("digits survive in an event that is put together anew", () => {
  const body =
    '{"eventType":"a","userId":"\\ud800","properties":{"n":18446744073709551615,"f":1.10}}';
  assert.match(
    linesOf(decodeEvents(body))[0]!,
    /"properties":\{"n":18446744073709551615,"f":1.10\}/,
  );
});

const ERRORS: readonly (readonly [string, string])[] = [
  ['{"eventType":5}', "eventType: expected a string, got 5"],
  ['{"eventType":null}', "eventType: expected a string, got null"],
  ['{"eventType":""}', 'eventType: expected a non-empty string, got ""'],
  ["{}", "eventType: missing; expected a string"],
  ['{"userId":"u"}', "eventType: missing; expected a string"],
  ['{"eventType":"a","userId":7.5}', "userId: expected a string, got 7.5"],
  ['{"eventType":"a","userId":1e3}', "userId: expected a string, got 1e3"],
  ['{"eventType":"a","userId":true}', "userId: expected a string, got true"],
  [
    '{"event_type":"a"}',
    "event_type: unknown key; did you mean eventType?; an event has eventType, userId, timestamp, id, properties",
  ],
  [
    '{"eventType":"a","user_id":"u"}',
    "user_id: unknown key; did you mean userId?; an event has eventType, userId, timestamp, id, properties",
  ],
  [
    '{"eventType":"a","zip":1}',
    "zip: unknown key; an event has eventType, userId, timestamp, id, properties",
  ],
  [
    '{"eventType":"a","__proto__":{}}',
    "__proto__: unknown key; an event has eventType, userId, timestamp, id, properties",
  ],
  ['{"eventType":"a","properties":[1]}', "properties: expected an object, got [1]"],
  ['{"eventType":"a","id":"zz"}', 'id: expected a UUID, got "zz"'],
  [
    `{"eventType":"a","id":"${UUID.replace("-", "")}"}`,
    `id: expected a UUID, got "${UUID.replace("-", "")}"`,
  ],
  ...[
    '"2300-01-01T00:00:00Z"',
    '"1899-12-31"',
    '"2024-02-30"',
    '"yesterday"',
    '""',
    "true",
    "1e300",
    "10413792000000",
    "-2208988800001",
    "[1]",
  ].map((value) =>
    [
      `{"eventType":"a","timestamp":${value}}`,
      `timestamp: expected ISO 8601, epoch seconds or epoch milliseconds between 1900-01-01 and 2299-12-31, got ${value}`,
    ] as const
  ),
  ['{"eventType":NaN}', 'not JSON: {"eventType":NaN}'],
  ['{"eventType":"a"', 'not JSON: {"eventType":"a"'],
  ['{"eventType":"a"}}', 'not JSON: {"eventType":"a"}}'],
  ['{"eventType":"a"} hello', 'not JSON: {"eventType":"a"} hello'],
  ['{"eventType":"a"} 5', 'not JSON: {"eventType":"a"} 5'],
  ['{"eventType":"a"}hello{"eventType":"b"}', 'not JSON: {"eventType":"a"}hello{"eventType":"b"}'],
  ["{'eventType':'a'}", "not JSON: {'eventType':'a'}"],
  ['{"eventType":"a\u0000"}', 'not JSON: {"eventType":"a\u0000"}'],
  ["\u0000", "not JSON: \u0000"],
  ["hello", "not JSON: hello"],
  ["5", "expected a JSON object, got 5"],
  ["null", "expected a JSON object, got null"],
  ['"text"', 'expected a JSON object, got "text"'],
  ["[[]]", "expected a JSON object, got []"],
  [
    `{"eventType":"a","properties":{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}}`,
    "nested deeper than 1000 levels",
  ],
  [
    `{"eventType":${JSON.stringify(["x".repeat(1_000_000)])}}`,
    `eventType: expected a string, got ["${"x".repeat(62)}…`,
  ],
];
for (const [line, error] of ERRORS) {
  test(`the row alone is refused: ${JSON.stringify(line.slice(0, 60))}`, () => {
    const decoded = decodeEvents(`${row(1)}\n${line}\n${row(2)}\n`);
    assert.deepEqual(errorsOf(decoded), [`1: ${error}`]);
    assert.deepEqual(linesOf(decoded), [row(1), row(2)]);
  });
}

test("a bad element costs itself alone in an array too", () => {
  const decoded = decodeEvents(`[${row(1)},5,{"eventType":6},\n${row(2)},null]`);
  assert.deepEqual(errorsOf(decoded), [
    "1: expected a JSON object, got 5",
    "2: eventType: expected a string, got 6",
    "4: expected a JSON object, got null",
  ]);
  assert.deepEqual(linesOf(decoded), [row(1), row(2)]);
});

const REFUSED: readonly (readonly [string, string | Uint8Array, RegExp])[] = [
  ["an empty body", "", /empty/],
  ["blanks", " \r\n\t", /empty/],
  ["a byte order mark alone", "\ufeff", /empty/],
  ["a number", "5", /^expected one JSON object.*got 5$/],
  ["a string", '"x"\n', /got "x"$/],
  ["true", "true", /got true$/],
  ["null", " null ", /got null$/],
  ["an empty array", "[ ]", /empty/],
  ["an array that does not end", `[${row(1)}`, /not end/],
  ["an array that ends in a comma", `[${row(1)},`, /not/],
  ["an array with a comma too many", `[${row(1)},]`, /not JSON/],
  ["an array without commas", `[${row(1)} ${row(2)}]`, /not JSON/],
  ["an array closed by a brace", `[${row(1)}}`, /not JSON/],
  ["an array with NaN", `[${row(1)},NaN]`, /not JSON/],
  ["an array with something behind it", `[${row(1)}] 5`, /follows/],
  ["separators alone", "\x1e\n,\n", /empty/],
  ["empty arrays", "[]\n[ ]", /empty/],
  ["a form", "eventType=click&userId=u1", /urlencoded form; send JSON: .*--data-binary @FILE$/],
  ["JSON as a form's value", "data=%7B%22eventType%22%3A%22a%22%7D", /urlencoded/],
  ["JSON percent-encoded", "%7B%22eventType%22%3A%22a%22%7D", /urlencoded/],
  [
    "a multipart body",
    '--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n{"eventType":"a"}\r\n--b--\r\n',
    /multipart .*send JSON: .*-H 'Content-Type: application\/json' --data-binary/,
  ],
  ["10,000 brackets", "[".repeat(10_000), /./],
  ["invalid UTF-8 in an array", bytesOf(`[{"eventType":"?"}]`).with(15, 0xff), /UTF-8/],
];
for (const [name, body, error] of REFUSED) {
  test(`refused as a whole: ${name}`, () => {
    const decoded = decodeEvents(body);
    assert.equal(decoded.kind, "refused");
    assert.match((decoded as { error: string }).error, error);
    assert.deepEqual(linesOf(decodeEvents(row(1))), [row(1)], "leaves no trace");
  });
}

const SEQUENCES: readonly (readonly [string, string])[] = [
  ["nothing between them", `${row(1)}${row(2)}${row(3)}`],
  ["blanks between them", `${row(1)} ${row(2)}\t ${row(3)} `],
  ["lines that end in commas", `${row(1)},\n${row(2)},\r\n${row(3)},\n`],
  ["lines that begin with commas", `${row(1)}\n,${row(2)}\n, ${row(3)}`],
  ["commas", `${row(1)},${row(2)} , ${row(3)}`],
  ["carriage returns", `${row(1)}\r${row(2)}\r${row(3)}\r`],
  ["record separators (RFC 7464)", `\x1e${row(1)}\n\x1e${row(2)}\n\x1e${row(3)}\n`],
  ["record separators without lines", `\x1e${row(1)}\x1e\x1e${row(2)}\x1e${row(3)}`],
  ["byte order marks of joined files", `\ufeff${row(1)}\n\ufeff${row(2)}\ufeff${row(3)}`],
  ["arrays one a line", `[${row(1)}]\n[]\n[${row(2)},${row(3)}]\n`],
  ["arrays without anything between", `[${row(1)}][${row(2)}][${row(3)}]`],
  ["arrays among objects", `${row(1)}\n[${row(2)}]${row(3)}`],
  ["an array first", `[ ${row(1)},\n${row(2)} ],${row(3)}`],
  ["objects over several lines", [1, 2, 3].map((n) => pretty(row(n))).join("\n")],
  ["the same, closely", [1, 2, 3].map((n) => pretty(row(n))).join("")],
  ["the same, with commas", [1, 2, 3].map((n) => pretty(row(n))).join(",\r\n")],
  [
    "the same, as curl -d sends a file",
    [1, 2, 3].map((n) => pretty(row(n))).join("\n")
      .replaceAll("\n", ""),
  ],
  ["the same, not indented", [1, 2, 3].map((n) => row(n).replaceAll(",", ",\n")).join("\n")],
  ["lines and several lines", `${row(1)}\n${pretty(row(2))}\n${row(3)}`],
];
for (const [name, body] of SEQUENCES) {
  test(`a sequence: ${name}`, () => {
    const decoded = decodeEvents(body);
    assert.deepEqual(errorsOf(decoded), []);
    assert.deepEqual(
      linesOf(decoded).map((line) => JSON.parse(line)),
      [1, 2, 3].map((n) => JSON.parse(row(n))),
    );
  });
}

function pretty(json: string): string {
  return JSON.stringify(JSON.parse(json), null, 2);
}

const BROKEN = `{
  "eventType": "a",
  "properties": {
    "list": [
      {
        "eventType": "inner"
      }
    ],
    "bad": oops
  }
}`;
const CUT = BROKEN.slice(0, BROKEN.indexOf(',\n    "bad'));
/** Bodies with row 1 first and row 2 last, and what is said about what is between. */
const AMONG: readonly (readonly [string, string, readonly string[]])[] = [
  ["an object over several lines", `${row(1)}\n${BROKEN}\n${row(2)}`, [
    '1: not JSON in line 10: "bad": oops',
  ]],
  ["one among others", `${pretty(row(1))}\n${BROKEN}\n${pretty(row(2))}`, [
    '1: not JSON in line 14: "bad": oops',
  ]],
  ["one that is cut", `${pretty(row(1))}\n${CUT}\n${pretty(row(2))}`, ["1: not JSON: {"]],
  ["two of them", `${row(1)}\n${BROKEN}\n${BROKEN},\n${row(2)}`, [
    '1: not JSON in line 10: "bad": oops',
    '2: not JSON in line 21: "bad": oops',
  ]],
  ["a line that is cut", `${row(1)}\n{"eventType":"a","properties":{"x":1\n${row(2)}`, [
    '1: not JSON: {"eventType":"a","properties":{"x":1',
  ]],
  [
    "a line that is cut before a value, and text behind the next one",
    `${row(1)}\n{"a":\n${row(2)}\nhello`,
    [
      '1: not JSON: {"a":',
      "3: not JSON: hello",
    ],
  ],
  ["a line that is cut in its text", `${row(1)}\n{"eventType":"a\n${row(2)}`, [
    '1: not JSON: {"eventType":"a',
  ]],
  ["a record that is cut", `\x1e${row(1)}\n\x1e{"eventType":"a"\x1e${row(2)}\n`, [
    '1: not JSON: {"eventType":"a"\x1e' + row(2).slice(0, 48) + "…",
  ]],
  ["a text between records", `\x1e${row(1)}\n\x1ehello\x1e${row(2)}\n`, [
    "1: not JSON: hello\x1e" + row(2).slice(0, 58) + "…",
  ]],
  ["an element", `${row(1)}\n[{"eventType":5},${row(2)}]`, [
    "1: eventType: expected a string, got 5",
  ]],
  ["an array", `${row(1)}\n[oops,${row(3)}]\n${row(2)}`, [`1: not JSON: oops,${row(3)}]`]],
  ["an array over several lines", `${row(1)}\n[\n  5\n  {},\n  {}\n]\n${row(2)}`, [
    "1: expected a JSON object, got 5",
    "2: not JSON: {},",
  ]],
  ["an array with something behind it", `${row(1)}\n[5] 6\n${row(2)}`, [
    "1: expected a JSON object, got 5",
    "2: not JSON: 6",
  ]],
  ["too deep an array", `${row(1)}\n[${"[".repeat(2000)}\n${row(2)}`, [
    `1: not JSON: ${"[".repeat(64)}…`,
  ]],
];
for (const [name, body, errors] of AMONG) {
  test(`what is broken in a sequence costs itself: ${name}`, () => {
    const decoded = decodeEvents(body);
    assert.deepEqual(
      errorsOf(decoded).map((error) => error.slice(0, 70)),
      errors.map((error) => error.slice(0, 70)),
    );
    assert.deepEqual(
      linesOf(decoded).map((line) => JSON.parse(line)),
      [row(1), row(2)].map((line) => JSON.parse(line)),
    );
  });
}

test("a broken array at the end of a sequence: the rows before stay", () => {
  const decoded = decodeEvents(`${row(1)}\n[${row(2)},`);
  assert.deepEqual(errorsOf(decoded), ["2: the array does not end"]);
  assert.deepEqual(linesOf(decoded), [row(1), row(2)]);
});

test("invalid UTF-8 costs its own value, over several lines too", () => {
  const bad = new TextEncoder().encode('{\n  "eventType": "?"\n}\n').with(18, 0xc3);
  const array = new TextEncoder().encode('[{"eventType":"?"}]\n').with(15, 0xc3);
  for (const [value, said] of [[bad, "1: not UTF-8"], [array, "1: not UTF-8"]] as const) {
    const body = [bytesOf(row(1) + "\n"), value, bytesOf(`[${row(2)}]\n`)];
    const decoded = decodeEvents(new Uint8Array(body.flatMap((part) => [...part])));
    assert.deepEqual(errorsOf(decoded), [said]);
    assert.deepEqual(linesOf(decoded), [row(1), row(2)]);
  }
});

test("a brace alone is one bad row, and so is a broken object", () => {
  assert.deepEqual(errorsOf(decodeEvents("{")), ["0: not JSON: {"]);
  assert.deepEqual(errorsOf(decodeEvents('{\n  "eventType": "a",\n')), ["0: not JSON: {"]);
  assert.deepEqual(errorsOf(decodeEvents('{\n  "eventType": "a",\n  "userId": oops\n}')), [
    '0: not JSON in line 3: "userId": oops',
  ]);
});

test("the first line broken does not cost the others", () => {
  for (const broken of ['{"eventType":"a"', "{", "hello", "5"]) {
    const decoded = decodeEvents(`${broken}\n${row(1)}\n`);
    assert.equal(errorsOf(decoded).length, 1, broken);
    assert.deepEqual(linesOf(decoded), [row(1)]);
  }
});

test("invalid UTF-8 costs its own line", () => {
  const bad = bytesOf('{"eventType":"?"}\n').with(14, 0xc3);
  const body = new Uint8Array([...bytesOf(row(1) + "\n"), ...bad, ...bytesOf('{"eventType":"é"}')]);
  const decoded = decodeEvents(body);
  assert.deepEqual(errorsOf(decoded), ["1: not UTF-8"]);
  assert.equal(JSON.parse(linesOf(decoded)[1]!).eventType, "é");
});

test("100 errors are told, all are counted", () => {
  const decoded = decodeEvents("{}\n".repeat(250) + row(1) + "\n" + '{"userId":"long enough"}\n');
  assert.ok(decoded.kind === "rows");
  assert.deepEqual([decoded.rows, decoded.rejected, decoded.errors.length], [1, 251, 100]);
});

test("rows are counted by type, long types as other", () => {
  const long = "x".repeat(300);
  const body = ["a", "b", "a", "é", long].map((t) => JSON.stringify({ eventType: t })).join("\n") +
    '\n{"eventType":"\\u0061"}\n{"eventType":5}\n';
  const decoded = decodeEvents(body);
  assert.ok(decoded.kind === "rows");
  assert.deepEqual([...decoded.types], [["a", 3], ["b", 1], ["é", 1], ["other", 1]]);
  assert.equal(JSON.parse(linesOf(decoded)[4]!).eventType, long);
});

test("rows of a small body are lent", () => {
  for (const body of ['{"eventType":"a"}', `{}\n${FULL}`, `${FULL}\n`]) {
    const decoded = decodeEvents(body);
    assert.equal(decoded.kind === "rows" && decoded.lent, true, body.slice(0, 20));
  }
});

test("rows that outgrow the scanner's memory are nobody else's", () => {
  const decoded = decodeEvents('{"eventType":"a"}\n{"eventType":"b"}\n'.repeat(6000));
  assert.ok(decoded.kind === "rows" && !decoded.lent);
  assert.ok(decoded.body.buffer.byteLength <= decoded.body.byteLength * 1.2);
  decodeEvents('{"eventType":"another"}\n'.repeat(6000));
  const events = linesOf(decoded).map((line) => JSON.parse(line));
  assert.equal(new Set(events.map(({ id }) => id)).size, 12_000);
  assert.ok(events.every(({ eventType }, at) => eventType === "ab"[at % 2]));
  assert.deepEqual(decoded.types, new Map([["a", 6000], ["b", 6000]]));
});

const types = fc.string({ minLength: 1, unit: "binary" });
const properties = fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue());
const times = fc.oneof(
  fc.oneof(
    fc.integer({ min: -2_208_988_800_000, max: -1e11 }),
    fc.integer({ min: -2_208_988_800, max: 10_413_791_999 }),
    fc.integer({ min: 1e11, max: 10_413_791_999_999 }),
  ),
  fc.date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true }).map((d) =>
    d.toISOString()
  ),
);
const anyEvent = fc.record(
  { eventType: types, userId: fc.string(), timestamp: times, id: fc.uuid(), properties },
  { requiredKeys: ["eventType"] },
);

/** What may stand between values. */
const SEPARATORS = ["", " ", "\n", ",", ",\n", "\r", "\n\x1e", "\x1e", "\ufeff"];

test("any events come through any form with the same values", () => {
  const batches = fc.array(anyEvent, { minLength: 1, maxLength: 8 });
  fc.assert(fc.property(batches, (batch) => {
    const wanted = batch.map((event) => {
      const { timestamp } = event;
      const sent = typeof timestamp === "number"
        ? { ...event, timestamp: sentTime(timestamp) }
        : event;
      return JSON.parse(JSON.stringify(sent).toWellFormed());
    });
    const forms = [
      batch.map((event) => JSON.stringify(event)).join("\n"),
      batch.map((event) => JSON.stringify(event)).join("\r\n") + "\r\n",
      JSON.stringify(batch),
      JSON.stringify(batch, null, 2),
      ...SEPARATORS.flatMap((between) =>
        [0, 2].map((indent) =>
          batch.map((event) => JSON.stringify(event, null, indent)).join(between) + between
        )
      ),
      batch.map((event) => JSON.stringify([event], null, 1)).join(""),
      ...(batch.length === 1 ? [JSON.stringify(batch[0], null, 2)] : []),
    ];
    for (const form of forms) {
      const decoded = decodeEvents(form);
      assert.deepEqual(errorsOf(decoded), []);
      const found = linesOf(decoded).map((line, i) => {
        const { id, timestamp, ...rest } = JSON.parse(line);
        const given = wanted[i];
        assert.match(id, /^[0-9a-f-]{36}$/);
        if (!("timestamp" in given)) assert.equal(timestamp, "2024-01-01 00:00:00.000");
        return {
          ...rest,
          ...("id" in given ? { id } : {}),
          ...("timestamp" in given ? { timestamp } : {}),
        };
      });
      assert.deepEqual(found, wanted.map(wellFormed));
    }
  }));
});

/** A number as it is put out: seconds or milliseconds, as text. */
function sentTime(number: number): string | number {
  const ms = Math.abs(number) < 1e11 ? number * 1000 : number;
  if (ms < 0 && ms % 1000 !== 0) return ms;
  return new Date(ms).toISOString().replace("T", " ").slice(0, -1);
}

/** Every string in `value` without lone surrogates, keys included. */
function wellFormed(value: unknown): unknown {
  if (typeof value === "string") return value.toWellFormed();
  if (Array.isArray(value)) return value.map(wellFormed);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key.toWellFormed(), wellFormed(inner)]),
  );
}

test("numbers keep every digit", () => {
  const digits = fc.stringMatching(/^-?[1-9][0-9]{0,40}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?$/);
  fc.assert(fc.property(digits, fc.boolean(), (number, odd) => {
    const user = odd ? '"userId":"\\udfff",' : "";
    const body = `{${user}"eventType":"a","properties":{"n":${number}}}`;
    assert.ok(linesOf(decodeEvents(body))[0]!.includes(`{"n":${number}}`));
  }));
});

test("any bytes get an answer, and never more rows than lines", () => {
  const pieces = fc.constantFrom(
    row(1),
    "{",
    "}",
    "[",
    "]",
    ",",
    "\n",
    "\r",
    '"',
    "\\",
    "5",
    "\0",
    "é",
  );
  const soup = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(""));
  fc.assert(
    fc.property(soup, (text) => {
      const decoded = decodeEvents(text);
      if (decoded.kind === "refused") return;
      for (const line of linesOf(decoded)) assert.equal(JSON.parse(line).eventType, "e");
      assert.ok(decoded.rows <= text.split('"eventType"').length - 1);
    }),
    { numRuns: rounds(800) },
  );
});

/** Events and what is almost one: some bytes of it are others. */
const nearlyEvent = fc.tuple(
  anyEvent,
  fc.array(
    fc.tuple(
      fc.nat(),
      fc.constantFrom(...' \t\n"\\{}[]:,.-+eE019aZu\u0000\u007f', "ü", "\ud83d\ude00"),
    ),
    { maxLength: 3 },
  ),
).map(([event, changes]) => {
  let text = JSON.stringify(event);
  for (const [at, by] of changes) {
    const place = at % text.length;
    text = text.slice(0, place) + by + text.slice(place + 1);
  }
  return text.replaceAll("\n", "").toWellFormed();
});

test("whatever the scanner passes, a closer look says yes to, with the same meaning", () => {
  const first = '{"eventType":"first"}\n';
  // Of this moment: a made one, which is another each time.
  const made = `${NOW_MS.toString(16).padStart(12, "0").slice(0, 8)}-`;
  const told = (body: string) => {
    const decoded = decodeEvents(body);
    const events = linesOf(decoded).slice(1).map((line) => JSON.parse(line));
    return {
      errors: errorsOf(decoded).map((error) => error.replaceAll("\ufeff", "").slice(0, 60)),
      types: decoded.kind === "rows" && decoded.types,
      events: events.map((event) => event.id.startsWith(made) ? { ...event, id: "made" } : event),
    };
  };
  // One that is broken takes its line with it.
  const next = nearlyEvent.filter((text) => text.startsWith("{"));
  fc.assert(
    fc.property(nearlyEvent, fc.constantFrom(...SEPARATORS), next, (text, between, next) => {
      // The scanner stops at a byte order mark.
      assert.deepEqual(
        told(`${first}${text}${between}${next}\n`),
        told(`${first}\ufeff${text}${between}\ufeff${next}\n`),
      );
    }),
    { numRuns: rounds(1000) },
  );
});
