/**
 * What docs/http.md says, over real sockets: each bad input gets its documented answer, the next
 * good request is taken, and ClickHouse holds exactly what was accepted.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, before, describe, test } from "node:test";
import zlib from "node:zlib";
import { brotliBomb, gzipBomb, zstdBomb } from "../kit/bombs.ts";
import { rawRequest } from "../kit/raw_http.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { event, Front, KINDS } from "./front.ts";

interface Case {
  readonly name: string;
  /** `user`: for the row that is accepted, if one is. */
  readonly body?: string | Uint8Array | ((user: string) => string | Uint8Array);
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly status: number;
  /** In `error`, or in the first of `errors`. */
  readonly says?: RegExp;
  readonly rejected?: number;
}

const nested = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
const packed = (encoding: string, bytes: Uint8Array) => ({
  body: bytes,
  headers: { "Content-Encoding": encoding },
});
const whole = Buffer.from(event("nobody").padEnd(2000));
const half = (bytes: Uint8Array) => bytes.subarray(0, bytes.length >> 1);

const BODIES: readonly Case[] = [
  { name: "an empty body", body: "", status: 400, says: /the body is empty/ },
  { name: "no body at all", status: 400, says: /the body is empty/ },
  { name: "only blanks", body: " \r\n\t\n", status: 400, says: /the body is empty/ },
  { name: "{", body: "{", status: 400, says: /not JSON: \{/ },
  { name: "a number", body: "42", status: 400, says: /expected one JSON object.*got 42/ },
  { name: "a string", body: '"x"', status: 400, says: /got "x"/ },
  { name: "10,000 open brackets", body: "[".repeat(10_000), status: 400, says: /does not end/ },
  { name: "10,000 nested brackets", body: nested(10_000), status: 400, says: /deeper than 1000/ },
  {
    name: "10,000 nested brackets in properties",
    body: (user) => `${event("no", `,"properties":{"x":${nested(10_000)}}`)}\n${event(user)}`,
    status: 202,
    says: /nested deeper than 1000 levels/,
    rejected: 1,
  },
  {
    name: "900 nested brackets in properties",
    body: (user) => event(user, `,"properties":{"x":${nested(900)}}`),
    status: 202,
  },
  { name: "a form", body: "eventType=a&userId=b", status: 400, says: /urlencoded.*--data-binary/ },
  {
    name: "CSV where events go",
    body: "eventType,userId\na,b\n",
    headers: { "Content-Type": "text/csv" },
    status: 400,
    says: /CSV goes to POST \/events\/TABLE/,
  },
  { name: "NUL bytes", body: new Uint8Array(1000), status: 400, says: /not JSON/ },
  {
    name: "a NUL byte in a string",
    body: (user) => `${event("a\0b")}\n${event(user)}`,
    status: 202,
    says: /not JSON/,
    rejected: 1,
  },
  {
    name: "a NUL escape in a string",
    body: (user) => event(user, ',"properties":{"x":"a\\u0000b"}'),
    status: 202,
  },
  {
    name: "invalid UTF-8 in one row of many",
    body: (user) => Buffer.concat([Buffer.from([0x7b, 0xff, 0x0a]), Buffer.from(event(user))]),
    status: 202,
    says: /not UTF-8/,
    rejected: 1,
  },
  {
    name: "lone surrogates",
    body: (user) => event(user, ',"properties":{"\\ud800":"\\udfff"}'),
    status: 202,
  },
  { name: "repeated keys", body: (user) => event("no", `,"userId":"${user}"`), status: 202 },
  {
    name: "repeated keys in properties",
    body: (user) => event(user, ',"properties":{"x":1,"x":2}'),
    status: 202,
  },
  {
    name: "__proto__",
    body: event("no", ',"__proto__":{"admin":true}'),
    status: 400,
    says: /__proto__: unknown key/,
  },
  {
    name: "__proto__ in properties",
    body: (user) => event(user, ',"properties":{"__proto__":{"a":1},"constructor":2}'),
    status: 202,
  },
  { name: "20 MB", body: new Uint8Array(20e6).fill(32), status: 413, says: /larger than 10485760/ },
  {
    name: "an id that is no UUID",
    body: event("no", ',"id":"1"'),
    status: 400,
    says: /id: expected a UUID, got "1"/,
  },
  {
    name: "a timestamp of 1900",
    body: (user) => event(user, ',"timestamp":"1900-01-01T00:00:00Z"'),
    status: 202,
  },
  ...['"2300-01-01T00:00:00Z"', '"2024-02-30"', '"yesterday"', "1e300", "true"].map((time) => ({
    name: `a timestamp of ${time}`,
    body: event("no", `,"timestamp":${time}`),
    status: 400,
    says:
      /timestamp: expected ISO 8601, epoch seconds or epoch milliseconds between 1900-01-01 and 2299-12-31/,
  })),
  { name: "NaN", body: event("no", ',"properties":{"x":NaN}'), status: 400, says: /not JSON/ },
  {
    name: "a 1 MB string",
    body: (user) => event(user, `,"properties":{"x":"${"y".repeat(1e6)}"}`),
    status: 202,
  },
  {
    name: "a good row among a thousand bad ones",
    body: (user) => `${"x\n".repeat(500)}${event(user)}\n${"{}\n".repeat(500)}`,
    status: 202,
    says: /not JSON: x/,
    rejected: 1000,
  },
  ...(["gzip", "deflate", "br", "zstd"] as const).flatMap((encoding) => {
    const pack = {
      gzip: zlib.gzipSync,
      deflate: zlib.deflateSync,
      br: zlib.brotliCompressSync,
      zstd: zlib.zstdCompressSync,
    }[encoding];
    const headers = { "Content-Encoding": encoding };
    const says = new RegExp(`not valid ${encoding}, or cut short`);
    return [
      {
        name: `${encoding}: good`,
        body: (user: string) => pack(Buffer.from(event(user))),
        headers,
        status: 202,
      },
      { name: `${encoding}: cut short`, body: half(pack(whole)), headers, status: 400, says },
      { name: `${encoding}: something else`, body: "hello, world", headers, status: 400, says },
    ];
  }),
  { name: "a gzip bomb", ...packed("gzip", gzipBomb()), status: 413, says: /unpacks to more/ },
  { name: "a br bomb", ...packed("br", brotliBomb()), status: 413, says: /unpacks to more/ },
  { name: "a zstd bomb", ...packed("zstd", zstdBomb()), status: 413, says: /unpacks to more/ },
  {
    name: "zstd in too many frames",
    ...packed("zstd", Buffer.concat(Array(2000).fill(zlib.zstdCompressSync(whole)))),
    status: 400,
    says: /more than 1000 zstd frames/,
  },
  { name: "an unknown encoding", ...packed("lzma", whole), status: 415, says: /got lzma/ },
  { name: "a long encoding", ...packed("z".repeat(4000), whole), status: 415, says: /z{64}…/ },
];

const pretty = (row: string) => JSON.stringify(JSON.parse(row), null, 2);
/** Three events in one body, as programs send them. */
const SEQUENCES: readonly (readonly [string, (rows: readonly string[]) => string])[] = [
  ["a file by curl -d, without its line ends", (rows) => rows.join("")],
  ["objects over several lines, as jq prints them", (rows) => rows.map(pretty).join("\n")],
  ["lines that end in commas", (rows) => rows.join(",\n") + ",\n"],
  ["arrays one a line", (rows) => rows.map((row) => `[${row}]\n`).join("")],
  ["records (RFC 7464)", (rows) => rows.map((row) => `\x1e${row}\n`).join("")],
];

const PATHS: readonly Case[] = [
  ...["GET", "PUT", "DELETE", "PATCH", "OPTIONS"].map((method) => ({
    name: `${method} /events`,
    method,
    status: 405,
    says: new RegExp(`/events takes POST, not ${method}`),
  })),
  { name: "HEAD /events", method: "HEAD", status: 405 },
  { name: "POST /healthz", path: "/healthz", body: "x", status: 405, says: /takes GET, HEAD/ },
  { name: "an unknown path", path: "/nowhere", body: "x", status: 404, says: /events go to POST/ },
  { name: "a slash too many", path: "/events/", body: "x", status: 404, says: /does not exist/ },
  ...[
    "a'b",
    'a"b',
    "a`b",
    "a%2Fb",
    "%2e%2e%2fsystem",
    "system.tables",
    "a%00b",
    "%",
    "%ff",
    "x;DROP%20TABLE%20y",
    "x".repeat(128),
    "x".repeat(7000),
  ].map((table) => ({
    name: `/events/${table.slice(0, 40)}`,
    path: `/events/${table}`,
    body: "{}",
    status: 404,
    says: /is not one of the tables that may be written/,
  })),
  ...["absent", "t%C3%A4%F0%9F%98%80", "x%20FORMAT%20Null", "1x"].map((table) => ({
    name: `a table that is not there: /events/${table}`,
    path: `/events/${table}`,
    body: "{}",
    status: 404,
    says: /there is no table/,
  })),
  {
    name: "the events' table by its name",
    path: "/events/analytics_events",
    body: "{}",
    status: 404,
    says: /use POST \/events/,
  },
  { name: "a strange query", path: "/events?strict=%ff&&=&x[]=1", body: event, status: 202 },
  ...[", ,;=,", "wait=-1", "wait=x", "wait=1e9", `wait=${"9".repeat(400)}`, 'a="', "handling=maybe"]
    .map((prefer) => ({
      name: `Prefer: ${prefer.slice(0, 20)}`,
      headers: { Prefer: prefer },
      body: event,
      status: 202,
    })),
];

for (const kind of KINDS) {
  describe(`answers, ${kind}`, () => {
    let clickhouse: ClickHouse;
    let front: Front;
    before(async () => {
      clickhouse = await startClickHouse();
      front = await Front.start(clickhouse, "answers", kind, "--tables", "*");
    });
    after(async () => {
      await front.close();
      await clickhouse.close();
    });

    // A path is the same however it comes.
    for (const wanted of kind === "tls" ? BODIES : [...BODIES, ...PATHS]) {
      const { name, body, method = "POST", path = "/events", headers, status, says } = wanted;
      test(`${status}: ${name}`, async () => {
        const user = front.user();
        const bytes = typeof body === "function" ? body(user) : body;
        const connection = await front.open();
        connection.send(rawRequest(method, path, headers, bytes));
        const answer = await connection.answer();
        assert.equal(answer?.status, status, answer?.text);
        if (method !== "HEAD") {
          assert.equal(answer.headers.get("content-type"), "application/json");
          assert.ok(answer.text.length < 10_000, "an answer is short");
        }
        if (says) assert.match(answer.json.error ?? answer.json.errors[0].error, says);
        if (status === 405) assert.match(answer.headers.get("allow") ?? "", /POST|GET/);
        if (status === 202) {
          assert.deepEqual([answer.json.accepted, answer.json.rejected], [1, wanted.rejected ?? 0]);
          front.accept(user);
        }
        // What was refused left nothing behind on the connection.
        if (method === "HEAD") await front.good();
        else await front.good(connection);
        await connection.close();
      });
    }

    for (const [name, write] of SEQUENCES) {
      test(`202: ${name}`, async () => {
        const users = [front.user(), front.user(), front.user()];
        const body = write(users.map((user) => event(user)));
        const answer = await front.ask(rawRequest("POST", "/events", {}, body));
        assert.deepEqual([answer?.status, answer?.json.accepted], [202, 3], answer?.text);
        front.accept(...users);
      });
    }

    test("202: 100,000 rows", async () => {
      const users = Array.from({ length: 100_000 }, () => front.user());
      const body = users.map((user) => event(user)).join("\n");
      const answer = await front.ask(rawRequest("POST", "/events", {}, body));
      assert.deepEqual(answer?.json, { accepted: 1e5, rejected: 0, ack: "disk", errors: [] });
      front.accept(...users);
    });

    test("ClickHouse holds exactly what was accepted", () => front.assertExact());
  });
}
