/** CSV and TSV over HTTP: which rows come of it, and what is said of each line that is wrong. */

import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";
import fc from "fast-check";
import { columnsOf } from "../kit/columns.ts";
import { rounds } from "../kit/rounds.ts";
import { type Answer, appOn, bytesOf, post, Script } from "./kit.ts";

const COLUMNS = columnsOf([
  "n UInt8",
  "f Float64",
  "s String",
  "o Nullable(String)",
  "b Bool",
  "d Date",
  "ts DateTime64(3, 'UTC')",
  "tags Array(String)",
  "m Map(String, UInt8)",
  "id UUID",
]);
const CSV = { "content-type": "text/csv; charset=utf-8" };
const TSV = { "content-type": "text/tab-separated-values" };

interface Sent extends Answer {
  /** The rows that were taken. */
  readonly rows: unknown[];
  readonly lines: readonly string[];
}

async function send(
  body: string | Uint8Array,
  headers: Record<string, string> = CSV,
  script = new Script(),
): Promise<Sent> {
  if (script.columns === "unknown") script.columns = COLUMNS;
  const answer = await post(appOn(script), "/events/flights", body, headers);
  assert.equal(script.reserved, 0);
  const lines = script.chunks.flatMap(({ body }) =>
    new TextDecoder().decode(body).split("\n").slice(0, -1)
  );
  return { ...answer, lines, rows: lines.map((line) => JSON.parse(line)) };
}

test("a field becomes what its column holds", async () => {
  const { status, lines, body } = await send(
    "n,f,s,b,d,ts,tags,m,id\n" +
      '5, 1.50 ,007,TRUE,2024-02-29,1764400000123,"[""a"", ""b""]","{""x"":1}",01890a5dac96774bbcceb302099a8057\n',
  );
  assert.equal(status, 202, JSON.stringify(body));
  assert.deepEqual(lines, [
    '{"n":5,"f":1.50,"s":"007","b":true,"d":"2024-02-29","ts":"2025-11-29 07:06:40.123Z",' +
    '"tags":["a", "b"],"m":{"x":1},"id":"01890a5dac96774bbcceb302099a8057"}',
  ]);
});

test("an empty field is none, quotes around nothing are empty text, \\N is null", async () => {
  const { rows } = await send('n,s,o\n,,\n1,"",""\n2,\\N,\\N\n3,"\\N",x\n');
  assert.deepEqual(rows, [
    {},
    { n: 1, s: "", o: "" },
    { n: 2, s: null, o: null },
    { n: 3, s: "\\N", o: "x" },
  ]);
});

test("quoted line ends, doubled quotes, a byte order mark, CRLF, no last line end", async () => {
  const { rows } = await send(
    '\ufeffn,"s"\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n2,a "b" c\r\n3,"x\ny"',
  );
  assert.deepEqual(rows, [
    { n: 1, s: 'two\r\nlines, "quoted"' },
    { n: 2, s: 'a "b" c' },
    { n: 3, s: "x\ny" },
  ]);
});

test("tabs", async () => {
  const { rows } = await send('n\ts\n1\ta,b\n2\t"a\tb"\n3\t\n', TSV);
  assert.deepEqual(rows, [{ n: 1, s: "a,b" }, { n: 2, s: "a\tb" }, { n: 3 }]);
});

test("each line that is wrong is told with its number, the others are taken", async () => {
  const { status, body, rows } = await send(
    'n,s\n1,a\n300,b\n\n2,"x\ny"\nfive,"c\nd"\n3\n4,e,f\n6,"g\n\n',
  );
  assert.equal(status, 202);
  assert.deepEqual(body, {
    accepted: 2,
    rejected: 5,
    ack: "memory",
    errors: [
      { index: 1, line: 3, error: "n: 300 does not fit UInt8 (0 to 255)" },
      { index: 3, line: 7, error: 'n: "five" does not fit UInt8 (0 to 255)' },
      { index: 4, line: 9, error: "expected 2 fields, got 1" },
      { index: 5, line: 10, error: "expected 2 fields, got 3" },
      { index: 6, line: 11, error: "a quote is not closed" },
    ],
  });
  assert.deepEqual(rows, [{ n: 1, s: "a" }, { n: 2, s: "x\ny" }]);
});

const REFUSED: readonly (readonly [string, string, RegExp])[] = [
  ["nothing", "", /the body is empty; expected a header line/],
  ["a header alone", "n,s\n", /a header line and no rows/],
  ["no column", "n,zip\n1,2\n", /^the header line: zip: no column of flights, which has n, f/],
  [
    "semicolons",
    "n;s\n1;2\n",
    /^the header line: n;s: no column .*commas between fields.*not ";"$/,
  ],
  ["tabs", "n\ts\n1\t2\n", /text\/tab-separated-values tabs, and not "\\t"$/],
  ["a column twice", "n,s,n\n1,2,3\n", /^the header line: n: named twice$/],
  ["a name that is empty", "n,,s\n1,2,3\n", /^the header line: field 2 names no column$/],
  ["a quote that is not closed there", '"n,s\n1,2\n', /^the header line: a quote is not closed$/],
];
for (const [name, body, error] of REFUSED) {
  test(`refused as a whole: ${name}`, async () => {
    const answer = await send(body);
    assert.equal(answer.status, 400);
    assert.match(answer.body.error, error);
  });
}

test("parameters of the Content-Type that cannot be used", async () => {
  const latin = await send("n\n1\n", { "content-type": "text/csv; charset=iso-8859-1" });
  assert.deepEqual([latin.status, latin.body.error], [
    415,
    "Content-Type: charset: expected utf-8, got iso-8859-1",
  ]);
  const bare = await send("1\n2\n", { "content-type": "text/csv; header=absent" });
  assert.equal(bare.status, 415);
  assert.match(bare.body.error, /header: expected present/);
});

test("JSON that is said to be CSV is JSON", async () => {
  const { rows } = await send('{"n":1}\n{"n":2}', CSV);
  assert.deepEqual(rows, [{ n: 1 }, { n: 2 }]);
});

test("bytes that are no UTF-8 cost their row", async () => {
  const body = bytesOf("n,s\n1,a\n2,?\n3,c\n").map((byte) => byte === 63 ? 0xe9 : byte);
  const answer = await send(body);
  assert.deepEqual(answer.body.errors, [{ index: 1, line: 3, error: "s: not UTF-8" }]);
  assert.deepEqual(answer.rows, [{ n: 1, s: "a" }, { n: 3, s: "c" }]);
});

test("while the columns are not known all is text", async () => {
  const script = new Script();
  script.columns = { ...COLUMNS, names: new Set(["a", "b"]), columns: [] };
  assert.deepEqual((await send("a,b\n1,x\n", CSV, script)).rows, [{ a: "1", b: "x" }]);
});

test("numbers keep every digit, and what JSON does not know as one is the column's to judge", async () => {
  const script = new Script();
  script.columns = columnsOf(["u UInt64", "x Decimal(38, 10)", "f Float64"]);
  const { lines, body } = await send(
    "u,x,f\n18446744073709551615,1.0000000001,1e5\n007,1,2\n+1,.5,3\n1,1,NaN\n",
    CSV,
    script,
  );
  assert.deepEqual(lines, [
    '{"u":18446744073709551615,"x":1.0000000001,"f":1e5}',
    '{"u":"007","x":1,"f":2}',
    '{"u":1,"x":1,"f":"NaN"}',
  ]);
  assert.equal(body.errors.length, 1);
});

test("long names and many rows: no more room than was granted, or asked for", async () => {
  const name = "c".repeat(10_000);
  const script = new Script();
  script.columns = columnsOf([`${name} UInt8`]);
  const body = `${name}\n${"1\n".repeat(2000)}`;
  const refused = await send(body, CSV, script);
  assert.equal(refused.status, 400);
  assert.match(refused.body.error, /take more than 8388608 bytes as JSON; send fewer/);
  const small = new Script();
  small.columns = script.columns;
  small.room = 2.5 * 1024 * 1024;
  const full = await send(`${name}\n${"1\n".repeat(500)}`, CSV, small);
  assert.equal(full.status, 429);
  assert.ok(small.mostReserved <= small.room);
});

test("a large body is read in pieces, and packed ones too", async () => {
  const body = "n,s\n" +
    Array.from({ length: 30_000 }, (_, n) => `${n % 256},"row\n${n}"\n`).join("");
  for (const pack of [zlib.gzipSync, zlib.zstdCompressSync]) {
    const encoding = pack === zlib.gzipSync ? "gzip" : "zstd";
    const { rows } = await send(pack(bytesOf(body)), { ...CSV, "content-encoding": encoding });
    assert.equal(rows.length, 30_000);
    assert.ok(rows.every((row, n) => (row as { s: string }).s === `row\n${n}`));
  }
});

test("any texts come through, in quotes or without", async () => {
  const plain = fc.stringMatching(/^[^"\r\n,\t]+$/u).filter((text) => text !== "\\N");
  const field = fc.oneof(
    plain.map((text) => [text, text] as const),
    fc.string({ unit: "binary" }).map((text) => [`"${text.replaceAll('"', '""')}"`, text] as const),
  );
  const script = Object.assign(new Script(), { columns: COLUMNS });
  const app = appOn(script);
  const pairs = fc.array(fc.tuple(field, field), { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(pairs, async (pairs) => {
      script.chunks.length = 0;
      const lines = pairs.map(([a, b]) => `${a[0]},${b[0]}`);
      const { body } = await post(app, "/events/flights", `s,o\n${lines.join("\n")}\n`, CSV);
      assert.deepEqual(body.errors, []);
      const sent = new TextDecoder().decode(script.chunks[0]!.body).trimEnd().split("\n");
      const wanted = pairs.map(([a, b]) => ({ s: a[1].toWellFormed(), o: b[1].toWellFormed() }));
      assert.deepEqual(sent.map((line) => JSON.parse(line)), wanted);
    }),
    { numRuns: rounds(50) },
  );
});
