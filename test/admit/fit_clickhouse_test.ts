/**
 * What the door lets through is what ClickHouse stores: random types, with values at their edges and
 * beyond. A value that ClickHouse itself refuses loses nothing, but is worth an error at the door.
 * Runs once: fit_test.ts has both runtimes; what differs here is the age of ClickHouse.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { Decoding } from "../../src/admit/decode.ts";
import { Scanner } from "../../src/admit/scanner.ts";
import { READ_SETTINGS } from "../../src/kernel/pinned.ts";
import { columnsOf } from "../kit/columns.ts";
import type { ClickHouse } from "../kit/servers.ts";
import { ENGINES } from "../servers/engines.ts";
import { bytesOf, NOW_MS } from "./kit.ts";

const scanner = new Scanner();

/** A type, values that may or may not fit it, and what ClickHouse should give back of one. */
interface Sample {
  readonly type: string;
  readonly value: string;
}

const around = (...edges: readonly bigint[]): fc.Arbitrary<string> =>
  fc.tuple(fc.constantFrom(...edges), fc.integer({ min: -2, max: 2 }))
    .map(([edge, step]) => String(edge + BigInt(step)));

const quoted = (value: fc.Arbitrary<string>) =>
  fc.tuple(value, fc.boolean()).map(([text, quote]) => quote ? `"${text}"` : text);

const integers = fc.constantFrom(8, 16, 32, 64, 128, 256).chain((bits) => {
  const all = 1n << BigInt(bits), half = all >> 1n;
  const values = quoted(
    fc.oneof(around(0n, all, half, -half), fc.bigInt({ min: -all, max: all * 2n }).map(String)),
  );
  return fc.tuple(fc.constantFrom(`UInt${bits}`, `Int${bits}`), values);
});
const decimals = fc.tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 6 })).chain(
  ([precision, scale]) =>
    fc.tuple(
      fc.constant(`Decimal(${Math.max(precision, scale)}, ${scale})`),
      quoted(fc.oneof(
        fc.stringMatching(/^-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,7})?(e-?[0-9])?$/),
        // Digits that say nothing, and exponents that undo each other.
        fc.stringMatching(/^-?(0|[1-9]0{0,9})(\.0{0,9}[0-9])?0{0,3}(e-?[0-9]{1,3})?$/),
      )),
    ),
);
const days = fc.tuple(
  fc.constantFrom(1899, 1900, 1969, 1970, 2024, 2025, 2106, 2149, 2150, 2299, 2300),
  fc.integer({ min: 0, max: 13 }),
  fc.integer({ min: 0, max: 32 }),
).map(([year, month, day]) =>
  `${year}-${String(month).padStart(2, "0")}-${String(day).padStart(2, "0")}`
);
const clock = fc.constantFrom(
  "",
  " 00:00:00",
  "T23:59:59Z",
  " 12:30:00.123456",
  "T06:28:15+02:00",
  " 24:00:00",
  "T10:00Z",
  " 10:20:30.5-11:00",
);
const dates = fc.tuple(fc.constantFrom("Date", "Date32"), days.map((day) => `"${day}"`));
const times = fc.tuple(
  fc.constantFrom(
    "DateTime",
    "DateTime('UTC')",
    "DateTime('America/New_York')",
    "DateTime64(0)",
    "DateTime64(3, 'UTC')",
    "DateTime64(3)",
    "DateTime64(6, 'Asia/Tokyo')",
    "DateTime64(9)",
  ),
  fc.oneof(
    fc.tuple(days, clock).map((parts) => `"${parts.join("")}"`),
    quoted(
      around(
        0n,
        4_294_967_296n,
        100_000_000_000n,
        1_764_400_000_123n,
        -2_208_988_800_000n,
        10_413_792_000_000n,
      ),
    ),
    fc.constantFrom("1764400000.5", "1764400000123456", "-0.5"),
  ),
);
const others = fc.constantFrom<[string, string]>(
  ["Bool", "true"],
  ["Bool", "2"],
  ["Float32", "3.5e38"],
  ["Float32", "-3.4028235677973366e38"],
  ["Float64", "1e309"],
  ["FixedString(3)", '"abc"'],
  ["FixedString(3)", '"aüb"'],
  ["UUID", '"01890a5d-ac96-774b-bcce-b302099a8057"'],
  ["UUID", '"01890a5d-ac96-774b-bcce-b302099a805"'],
  ["IPv4", '"1.2.3.256"'],
  ["IPv6", '"1::2::3"'],
  ["IPv6", '"::ffff:1.2.3.4"'],
  ["Enum8('a' = 1, 'b' = -2)", '"a"'],
  ["Enum8('a' = 1, 'b' = -2)", "-2"],
  ["Enum8('a' = 1, 'b' = -2)", '"c"'],
  ["Enum8('a' = 1, 'b' = -2)", "null"],
  ["Enum16('a' = 0)", "null"],
);
const plain: fc.Arbitrary<Sample> = fc.oneof(integers, integers, decimals, dates, times, others)
  .map(([type, value]) => ({ type, value }));
const named = (name: string) => (one: Sample) => ({ ...one, type: `${name} ${one.type}` });
const samples: fc.Arbitrary<Sample> = fc.oneof(
  { weight: 3, arbitrary: plain },
  plain.map(({ type, value }) => ({ type: `Array(${type})`, value: `[${value},${value}]` })),
  plain.map(({ type, value }) => ({ type: `Map(String, ${type})`, value: `{"k":${value}}` })),
  integers.map(([type, value]) => ({
    type: `Map(${type}, UInt8)`,
    value: `{"${value.replaceAll('"', "")}":1}`,
  })),
  fc.tuple(plain.map(named("a")), plain.map(named("b"))).map(([a, b]) => ({
    type: `Tuple(${a.type}, ${b.type})`,
    value: `{"a":${a.value},"b":${b.value}}`,
  })),
  plain.map(({ type, value }) => ({
    type: `Tuple(${type}, String)`,
    value: `[${value},"x"]`,
  })),
  plain.filter(({ type }) => !type.startsWith("Map")).map(({ type, value }) => ({
    type: `Nullable(${type})`,
    value,
  })),
);

// 18.16 has no `format()`.
for (const engine of ENGINES.filter(({ modern }) => modern)) {
  describe(`the door and ClickHouse ${engine.version}`, () => held(engine));
}

function held({ start, whole }: (typeof ENGINES)[number]): void {
  /** One of them answers a question in 50 ms, the others in two. */
  const runs = (wanted: number) => whole ? wanted : Math.ceil(wanted / 20);
  let server: ClickHouse;
  before(async () => {
    server = await start();
  });
  after(() => server.close());

  /** What the door sends of a row; null: it is refused there. */
  function admitted({ type, value }: Sample): string | null {
    const columns = columnsOf([`v ${type}`]);
    const target = { table: "t", shape: "row", columns, typeCheck: true } as const;
    const decoding = new Decoding(bytesOf(`{"v":${value}}`), target, scanner, NOW_MS);
    decoding.go(Infinity);
    const decoded = decoding.end();
    if (decoded.kind === "refused") throw new Error(decoded.error);
    return decoded.rows === 1 ? new TextDecoder().decode(decoded.body).trim() : null;
  }

  /** Those of an INSERT that this version knows, in a zone of its own. */
  let settings = "";
  before(async () => {
    const known = new Set((await server.query("SELECT name FROM system.settings")).split("\n"));
    settings = Object.entries({ ...READ_SETTINGS, session_timezone: "Asia/Tokyo" })
      .filter(([name]) => /input_format|timezone/.test(name) && known.has(name))
      .map(([name, value]) => `${name}='${value}'`).join(", ");
  });

  /** What ClickHouse gives back of a row, times in UTC; null: it refuses it. */
  async function stored(type: string, row: string): Promise<unknown> {
    const text = (sql: string) => sql.replace(/[\\']/g, "\\$&");
    try {
      const answer = await server.query(
        `SELECT v FROM format(JSONEachRow, '${text(`v ${type}`)}', '${
          text(row)
        }') SETTINGS ${settings}, ` +
          `date_time_output_format='iso', output_format_json_quote_64bit_integers=1, ` +
          `output_format_json_quote_decimals=1 FORMAT JSONEachRow`,
      );
      return JSON.parse(answer).v;
    } catch (error) {
      assert.match(String(error), /Code: \d+/);
      return null;
    }
  }

  /** Whether `found` is `given`, a value of `type` without anything in it. */
  function same(type: string, given: unknown, raw: string, found: unknown): boolean {
    if (given === null) return found === null || type.startsWith("Enum16");
    const text = String(found);
    if (/^U?Int/.test(type)) return BigInt(raw.replaceAll('"', "")) === BigInt(text);
    if (type.startsWith("Decimal")) return Number(raw.replaceAll('"', "")) === Number(text);
    if (type.startsWith("DateTime")) return isTime(type, raw.replaceAll('"', ""), text);
    if (type.startsWith("Date")) return given === found;
    if (type.startsWith("Float32")) return Math.fround(Number(raw)) === Math.fround(Number(text));
    if (type.startsWith("FixedString")) return text.replaceAll("\0", "") === given;
    if (type.startsWith("Enum")) return found === (given === -2 ? "b" : given);
    return text.toLowerCase() === String(given).toLowerCase();
  }

  function isTime(type: string, raw: string, found: string): boolean {
    const seconds = /^DateTime(\(|$)/.test(type) || type.startsWith("DateTime64(0");
    const foundMs = Date.parse(found);
    const number = /^-?\d+(\.\d+)?$/.test(raw);
    const zone = /'(.*)'/.exec(type)?.[1] ?? "UTC";
    const size = Math.abs(Number(raw));
    const parts = size < 1e11 ? 1000 : size < 1e14 ? 1 : 1e-3;
    const text = raw.length === 10 ? `${raw}T00:00:00` : raw.replace(" ", "T");
    const zoned = /(Z|[+-]\d\d:\d\d)$/.test(text);
    let wantedMs = number ? Number(raw) * parts : Date.parse(zoned ? text : `${text}Z`);
    if (!number && !zoned && zone !== "UTC") {
      const shown = new Date(foundMs).toLocaleString("sv-SE", { timeZone: zone });
      return shown === new Date(wantedMs).toISOString().replace("T", " ").slice(0, 19);
    }
    if (seconds) wantedMs = Math.floor(wantedMs / 1000) * 1000;
    return Math.abs(foundMs - wantedMs) < 1;
  }

  test("what passes is stored as it was sent", async () => {
    let passed = 0, refused = 0;
    await fc.assert(
      fc.asyncProperty(plain, async (sample) => {
        const row = admitted(sample);
        if (row === null) return void refused++;
        const found = await stored(sample.type, row);
        if (found === null && sample.value !== "null") return;
        passed++;
        const told = `${sample.type} ${sample.value}: sent ${row}, stored ${JSON.stringify(found)}`;
        assert.ok(same(sample.type, JSON.parse(sample.value), sample.value, found), told);
      }),
      { numRuns: runs(1500) },
    );
    assert.ok(passed > runs(200) && refused > runs(200), `${passed} passed, ${refused} refused`);
  });

  test("times of day", async () => {
    const type = (scale: number) => scale === 0 ? "Time" : `Time64(${scale})`;
    // 25.5 has none.
    if (await stored(type(0), '{"v":"00:00:01"}') === null) return;
    const parts = ["0", "7", "09", "23", "99", "999", "1000", "-1", "-100"];
    const some = fc.constantFrom(...parts);
    const two = fc.constantFrom("00", "05", "30", "45", "59", "60", "7");
    const clock = fc.oneof(
      fc.tuple(some, two, two, fc.constantFrom("", ".5", ".123456789", "Z"))
        .map(([hour, minute, second, rest]) => `"${hour}:${minute}:${second}${rest}"`),
      fc.constantFrom('"12:30"', '"5"', "5", "-5", "3599999", "3600000", "1.5", "true", '""'),
    );
    let passed = 0, refused = 0;
    await fc.assert(
      fc.asyncProperty(clock, fc.constantFrom(0, 3, 9), async (value, scale) => {
        const row = admitted({ type: type(scale), value });
        if (row === null) return void refused++;
        passed++;
        const found = String(await stored(type(scale), row));
        const [sign, hours, minutes, seconds, fraction = ""] =
          /^(-?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?$/.exec(found)?.slice(1) ?? assert.fail(row);
        const text = `${sign}${Number(hours)}:${minutes}:${seconds}`;
        const inSeconds = (Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds);
        const [given = "", rest = ""] = value.replaceAll('"', "").split(".");
        const wanted = given.replace(/^(-?)0*(?=\d)/, "$1");
        if (given.includes(":")) assert.equal(text, wanted, `${row} ${found}`);
        else assert.equal(sign === "-" ? -inSeconds : inSeconds, Number(given), row);
        assert.equal(Number(fraction), Number(rest.padEnd(scale, "0").slice(0, scale)), row);
      }),
      { numRuns: runs(800) },
    );
    assert.ok(passed > 0 && refused > 0, `${passed} passed, ${refused} refused`);
  });

  test("what is in something is judged as it is alone", () => {
    const pairs = fc.tuple(plain, fc.constantFrom("array", "map", "tuple", "record", "nested"));
    fc.assert(
      fc.property(pairs, ([{ type, value }, around]) => {
        const [outer, text] = {
          array: [`Array(${type})`, `[${value},${value}]`],
          map: [`Map(String, ${type})`, `{"k":${value}}`],
          tuple: [`Tuple(${type}, String)`, `[${value},"x"]`],
          record: [`Tuple(a String, b ${type})`, `{"a":"","b":${value}}`],
          nested: [`Array(Tuple(b ${type}))`, `[{"b":${value}}]`],
        }[around] as [string, string];
        const alone = admitted({ type, value });
        const inside = admitted({ type: outer, value: text });
        if (value !== "null") assert.equal(inside === null, alone === null, `${outer} ${text}`);
        else assert.equal(inside, null);
      }),
      { numRuns: 1500 },
    );
  });

  test("ClickHouse reads whatever passes, so nothing becomes a dead letter by its type", async () => {
    const failed: string[] = [];
    await fc.assert(
      fc.asyncProperty(samples, async (sample) => {
        const row = admitted(sample);
        if (row === null || sample.value.includes("null")) return;
        if (await stored(sample.type, row) === null) failed.push(`${sample.type} ${row}`);
      }),
      { numRuns: runs(600) },
    );
    assert.deepEqual(failed, []);
  });
}
