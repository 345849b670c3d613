/** Bad bodies over HTTP: each gets its status and a sentence, and the next good one is taken. */

import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";
import { appOn, bytesOf, post, Script } from "./kit.ts";

const GOOD = '{"eventType":"click"}';
const MIB = 1024 * 1024;

interface Case {
  readonly name: string;
  readonly body: string | Uint8Array | (() => ReadableStream<Uint8Array>);
  readonly headers?: Record<string, string>;
  readonly status: number;
  /** In `error`, or in the first of `errors`. */
  readonly says?: RegExp;
}

const gzip = { "content-encoding": "gzip" };
const endless = () =>
  new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new Uint8Array(65536)),
  });

const CASES: readonly Case[] = [
  { name: "empty", body: "", status: 400, says: /empty/ },
  { name: "a brace", body: "{", status: 400, says: /not JSON: \{/ },
  { name: "a number", body: "42", status: 400, says: /got 42/ },
  { name: "a string", body: '"x"', status: 400, says: /got "x"/ },
  { name: "true", body: "true", status: 400, says: /got true/ },
  { name: "null", body: "null", status: 400, says: /got null/ },
  { name: "10,000 brackets", body: "[".repeat(10_000), status: 400 },
  { name: "10,000 closed brackets", body: "[".repeat(1e4) + "]".repeat(1e4), status: 400 },
  { name: "10,000 braces", body: '{"a":'.repeat(10_000), status: 400 },
  { name: "NUL bytes", body: new Uint8Array(100), status: 400, says: /not JSON/ },
  {
    name: "a NUL byte in a string",
    body: '{"eventType":"a\0b"}',
    status: 400,
    says: /not JSON/,
  },
  {
    name: "invalid UTF-8",
    body: bytesOf('{"eventType":"?"}').with(14, 0xff),
    status: 400,
    says: /not UTF-8/,
  },
  { name: "a lone surrogate", body: '{"eventType":"a","userId":"\\ud800"}', status: 202 },
  { name: "repeated keys", body: '{"eventType":"a","eventType":"b"}', status: 202 },
  {
    name: "__proto__",
    body: '{"eventType":"a","__proto__":{}}',
    status: 400,
    says: /__proto__: unknown/,
  },
  {
    name: "__proto__ as a property",
    body: '{"eventType":"a","properties":{"__proto__":1}}',
    status: 202,
  },
  { name: "20 MB", body: new Uint8Array(20e6).fill(32), status: 413, says: /larger than 10485760/ },
  { name: "a body without end", body: endless, status: 413, says: /larger than 10485760/ },
  {
    name: "a bomb",
    body: zlib.gzipSync(new Uint8Array(64 * MIB)),
    headers: gzip,
    status: 413,
    says: /unpacks to more than 10485760/,
  },
  {
    name: "a body that was cut while packed",
    body: zlib.gzipSync(bytesOf(GOOD)).subarray(0, 30),
    headers: gzip,
    status: 400,
    says: /not valid gzip, or cut short/,
  },
  { name: "plain bytes said to be gzip", body: GOOD, headers: gzip, status: 400, says: /gzip/ },
  { name: "nothing said to be gzip", body: "", headers: gzip, status: 400, says: /empty/ },
  {
    name: "an unknown encoding",
    body: GOOD,
    headers: { "content-encoding": "compress" },
    status: 415,
    says: /expected one of gzip, deflate, br, zstd, got compress/,
  },
  {
    name: "stacked encodings",
    body: GOOD,
    headers: { "content-encoding": "gzip, br" },
    status: 415,
    says: /got gzip, br/,
  },
  {
    name: "a length that is too large",
    body: GOOD,
    headers: { "content-length": "99999999999" },
    status: 413,
    says: /larger/,
  },
  {
    name: "an id that is no UUID",
    body: '{"eventType":"a","id":"1"}',
    status: 400,
    says: /id: expected a UUID, got "1"/,
  },
  {
    name: "a time of 1900",
    body: '{"eventType":"a","timestamp":"1900-01-01T00:00:00Z"}',
    status: 202,
  },
  {
    name: "a time of 1899",
    body: '{"eventType":"a","timestamp":"1899-12-31T23:59:59Z"}',
    status: 400,
    says: /between 1900-01-01 and 2299-12-31, got "1899/,
  },
  {
    name: "a time of 2300",
    body: '{"eventType":"a","timestamp":"2300-01-01T00:00:00Z"}',
    status: 400,
    says: /got "2300-01-01T00:00:00Z"$/,
  },
  { name: "NaN", body: '{"eventType":"a","properties":{"x":NaN}}', status: 400, says: /not JSON/ },
  {
    name: "a string of 1 MB",
    body: JSON.stringify({ eventType: "a", properties: { x: "y".repeat(1e6) } }),
    status: 202,
  },
  {
    name: "a wrong value of 1 MB",
    body: JSON.stringify({ eventType: ["y".repeat(1e6)] }),
    status: 400,
    says: /^eventType: expected a string, got .{64}…$/,
  },
];

for (const { name, body, headers, status, says } of CASES) {
  test(`${status}: ${name}`, async () => {
    const script = new Script();
    const app = appOn(script, { maxBodyBytes: 10 * MIB });
    const answer = await post(app, "/events", typeof body === "function" ? body() : body, headers);
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    if (says) assert.match(answer.body.error ?? answer.body.errors[0].error, says);
    assert.ok(JSON.stringify(answer.body).length < 1000);
    assert.equal(script.reserved, 0);
    assert.ok(script.clock.pending <= 1, "one timer for all bodies");
    assert.ok(script.mostReserved <= 21 * MIB);
    assert.equal((await post(app, "/events", GOOD)).status, 202);
  });
}

for (
  const [encoding, pack] of [
    ["gzip", zlib.gzipSync],
    ["x-gzip", zlib.gzipSync],
    ["deflate", zlib.deflateSync],
    ["deflate", zlib.deflateRawSync],
    ["br", zlib.brotliCompressSync],
    ["zstd", zlib.zstdCompressSync],
  ] as const
) {
  test(`202: ${encoding}`, async () => {
    const script = new Script();
    const app = appOn(script);
    for (const rows of [1, 20_000]) {
      const packed = pack(bytesOf(`${GOOD}\n`.repeat(rows)));
      const answer = await post(app, "/events", packed, { "content-encoding": encoding });
      assert.equal(answer.body.accepted, rows);
    }
    assert.equal(script.reserved, 0);
  });
}
