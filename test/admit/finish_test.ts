/** Every answer can be found again in the log, tells nothing of the inside, and is JSON. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Log, LogFields } from "../../src/contracts.ts";
import { createFinish } from "../../src/admit/gate.ts";
import { columnsOf } from "../kit/columns.ts";
import { rounds } from "../kit/rounds.ts";
import { appOn, ask, bytesOf, post, Script } from "./kit.ts";

const GOOD = '{"eventType":"click"}';
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("the client's id comes back; without one only what went wrong gets one", async () => {
  const app = appOn(new Script());
  const idOf = async (body: string, headers: Record<string, string>) =>
    (await post(app, "/events", body, headers)).headers.get("x-request-id");
  assert.equal(await idOf(GOOD, { "x-request-id": "a/b:1~" }), "a/b:1~");
  assert.equal(await idOf("", { "x-request-id": "a" }), "a");
  assert.equal(await idOf(GOOD, {}), null);
  assert.match((await idOf("", {}))!, UUID);
  assert.notEqual(await idOf("", {}), await idOf("", {}));
  const status = await ask(app, "/api/status", { headers: { "x-request-id": "b" } });
  assert.equal(status.headers.get("x-request-id"), "b");
});

for (const id of ["", "two words", "ü", "x".repeat(129)]) {
  test(`an id of ${id.length} characters that a log line should not hold is not taken`, async () => {
    const app = appOn(new Script());
    const headers = { "x-request-id": id };
    assert.equal((await post(app, "/events", GOOD, headers)).headers.get("x-request-id"), null);
    assert.match((await post(app, "/events", "", headers)).headers.get("x-request-id")!, UUID);
  });
}

test("a refused and a failed request are in the log under the id of their answer", () => {
  const lines: [string, LogFields | undefined][] = [];
  const write = (message: string, fields?: LogFields) => void lines.push([message, fields]);
  const log: Log = { debug: write, info: write, warn: write, error: write };
  const addressOf = () => "192.0.2.1";
  const client = (request: Request, addressOf: (request: Request) => string) => addressOf(request);
  const finish = createFinish({ log, ledger: { http: () => {}, certified: () => {} } }, {
    mark: () => {},
    labelOf: () => null,
  }, client);
  const request = new Request("http://localhost/events?token=secret", { method: "POST" });
  const refused = finish.done(new Response("", { status: 400 }), request, addressOf);
  const failed = finish.done(
    finish.failed(new Error("no room"), request, addressOf),
    request,
    addressOf,
  );
  const about = { method: "POST", path: "/events", client: "192.0.2.1" };
  const [first, second] = [refused, failed].map(({ headers }) => headers.get("x-request-id")!);
  assert.deepEqual(lines, [
    ["a request was refused", { request: first, ...about, status: 400 }],
    ["a request failed", { request: second, ...about, error: "Error: no room" }],
  ]);
});

test("what a browser shows is not sniffed, framed, kept or told to other sites", async () => {
  const app = appOn(new Script());
  for (const path of ["/healthz", "/readyz", "/metrics", "/api/status", "/nothing"]) {
    const { headers } = await ask(app, path);
    assert.equal(headers.get("x-content-type-options"), "nosniff", path);
    assert.equal(headers.get("cache-control"), "no-store", path);
    assert.equal(headers.get("x-frame-options"), "DENY", path);
    assert.equal(headers.get("referrer-policy"), "no-referrer", path);
    assert.equal(headers.get("cross-origin-resource-policy"), "same-origin", path);
    assert.equal(headers.get("strict-transport-security"), null, path);
  }
  const taken = await post(app, "/events", GOOD);
  assert.equal(taken.headers.get("x-content-type-options"), "nosniff");
});

const HTTPS: readonly (readonly [string, string | null])[] = [
  ["https://box.example/metrics", "max-age=31536000"],
  ["https://[2001:db8::1]/metrics", "max-age=31536000"],
  ["https://box.example:8443/metrics", null],
  ["https://[2001:db8::1]:8443/metrics", null],
  ["http://box.example/metrics", null],
];
for (const [url, wanted] of HTTPS) {
  test(`${url}: ${wanted ? "the host is said to speak https" : "nothing is said of its other ports"}`, async () => {
    const { headers } = await appOn(new Script()).fetch(new Request(url), () => "");
    assert.equal(headers.get("strict-transport-security"), wanted);
  });
}

/** What is written for people, or for Prometheus. */
const DOCUMENTS: readonly string[] = ["/", "/metrics"];
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "X"];
const PATHS = [
  "/",
  "/events",
  "/events/flights",
  "/events/log_1",
  "/healthz",
  "/readyz",
  "/metrics",
];
const NAMES = [
  "authorization",
  "content-encoding",
  "content-length",
  "content-type",
  "prefer",
  "shishi-folder",
  "x-request-id",
  "sec-fetch-site",
  "if-none-match",
  "range",
];
const VALUES = [
  "Bearer token",
  "Bearer wrong",
  "gzip",
  "br",
  "zstd",
  "deflate",
  "handling=strict, wait=1",
  "analytics_events/01890a5d-ac96-874b-bcce-b302099a8057",
  "5",
  "-1",
  "cross-site",
  "*",
];
const anyPath = fc.oneof(
  fc.constantFrom(
    ...PATHS,
    "/api/status",
    "/openapi.json",
    "/%",
    "/events/%ff",
    "/events/..%2f",
    "//",
  ),
  fc.webPath(),
  fc.string({ maxLength: 40 }).map((text) => `/${encodeURI(text.toWellFormed())}`),
);
const anyBody = fc.oneof(
  fc.constantFrom(GOOD, `[${GOOD}]`, `${GOOD}\n{"a":1}`, "", "{", "[", '{"eventType":5}', "null"),
  fc.json(),
  fc.string(),
  fc.uint8Array({ maxLength: 100 }),
);
const anyHeader = fc.tuple(
  fc.constantFrom(...NAMES),
  fc.oneof(fc.constantFrom(...VALUES), fc.string({ maxLength: 30 }).map(encodeURI.bind(null))),
);

test("whatever is asked: JSON or the documented text, no 500, nothing of the inside", async () => {
  const script = new Script();
  script.columns = columnsOf(["a"]);
  const settings = {
    authTokens: ["token"],
    loopback: true,
    corsOrigins: ["https://a.example"],
  };
  const apps = [appOn(script, settings), appOn(script)];
  const request = fc.record({
    method: fc.constantFrom(...METHODS),
    path: anyPath,
    query: fc.oneof(fc.constant(""), fc.webQueryParameters().map((query) => `?${query}`)),
    headers: fc.array(anyHeader, { maxLength: 4 }),
    body: anyBody,
  });
  await fc.assert(
    fc.asyncProperty(request, fc.constantFrom(0, 1), async (asked, which) => {
      const headers = new Headers();
      for (const [name, value] of asked.headers) headers.set(name, value);
      const bodiless = asked.method === "GET" || asked.method === "HEAD";
      const answer = await ask(apps[which]!, asked.path + asked.query, {
        method: asked.method,
        headers,
        ...(bodiless ? {} : { body: bytesOf(asked.body) }),
      });
      const { status } = answer;
      const text = await answer.text();
      assert.ok(status >= 200 && status < 500, `${status}`);
      assert.doesNotMatch(text, /^\s+at .*:\d+:\d+|\.ts:\d|node_modules|\/src\//m);
      const type = answer.headers.get("content-type");
      // The server below sends no body to a HEAD.
      if (asked.method === "HEAD" || status === 204) return;
      if (type === "application/json") JSON.parse(text);
      else {assert.ok(
          DOCUMENTS.includes(new URL(`http://x${asked.path}`).pathname) && status === 200,
          `${type}`,
        );}
    }),
    {
      numRuns: rounds(200),
      examples: [[{ method: "POST", path: "/events", query: "", headers: [], body: GOOD }, 0]],
    },
  );
});
