/** Whom a browser may ask for: the collector's own pages, those that may post, and nobody else. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOrigins } from "../../src/admit/gate.ts";
import { answerOf, appOn, ask, post, Script } from "./kit.ts";

const SHOP = "https://shop.example";
const EVIL = "https://evil.example";
const BOX = "http://127.0.0.1:8080";

interface Case {
  readonly name: string;
  readonly method?: string;
  readonly path?: string;
  readonly headers: Record<string, string>;
  /** Absent: nothing is wrong. */
  readonly says?: RegExp;
  readonly corsOrigins?: readonly string[];
  readonly onlyOwnHost?: boolean;
}

const CASES: readonly Case[] = [
  { name: "curl", headers: {} },
  { name: "a collector by its public name", headers: { host: "box.example:8080" } },
  { name: "a page that may post", headers: { origin: SHOP, host: "box.example" } },
  { name: "another scheme", headers: { origin: "http://shop.example" }, says: /got http:\/\/shop/ },
  {
    name: "another port",
    headers: { origin: `${SHOP}:444` },
    says: /got https:\/\/shop.example:444/,
  },
  { name: "a longer name", headers: { origin: `${SHOP}.evil` }, says: /^Origin: expected this/ },
  { name: "a page from nowhere", headers: { origin: "null", host: "box" }, says: /got null/ },
  { name: "an empty origin", headers: { origin: "", host: "box.example" }, says: /^Origin/ },
  { name: "anybody", headers: { origin: EVIL }, corsOrigins: ["*"] },
  { name: "a page from nowhere, anybody may", headers: { origin: "null" }, corsOrigins: ["*"] },
  { name: "own page", headers: { origin: BOX, host: "127.0.0.1:8080" } },
  { name: "own page, other port", headers: { origin: BOX, host: "127.0.0.1:80" }, says: /^Origin/ },
  { name: "own page on IPv6", headers: { origin: "http://[::1]:8080", host: "[::1]:8080" } },
  {
    name: "own page behind a proxy that changes the host",
    headers: {
      origin: "https://box.example",
      host: "127.0.0.1:8080",
      "sec-fetch-site": "same-origin",
    },
  },
  {
    name: "who may post may not read",
    method: "GET",
    path: "/api/status",
    headers: { origin: SHOP },
    says: /expected the collector's own, got/,
  },
  {
    name: "who may post may not command",
    path: "/api/dead/replay",
    headers: { origin: SHOP },
    says: /expected the collector's own, got/,
  },
  {
    name: "a picture of another site",
    method: "GET",
    path: "/api/events",
    headers: { "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" },
    says: /^Sec-Fetch-Site: expected same-origin or none, got cross-site/,
  },
  {
    name: "a link of another site",
    method: "GET",
    path: "/metrics",
    headers: { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" },
  },
  {
    name: "a typed address through a proxy",
    method: "GET",
    path: "/metrics",
    headers: { host: "box.example", "sec-fetch-site": "none" },
    onlyOwnHost: true,
  },
  ...[
    "localhost:8080",
    "LOCALHOST",
    "a.localhost:1",
    "shishi.test",
    "box.home.arpa:80",
    "127.0.0.1:8080",
    "[::1]:8080",
    "box",
    "",
    "10.0.0.1",
  ]
    .map((host) => ({
      name: `read as ${host || "no host"}`,
      method: "GET",
      path: "/metrics",
      headers: { host } as Record<string, string>,
      onlyOwnHost: true,
    })),
  ...[
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "1.2.3",
    "evil.example.",
  ]
    .map((host) => ({
      name: `read as ${host}`,
      method: "GET",
      path: "/metrics",
      headers: { host },
      onlyOwnHost: true,
      says: /^Host: expected localhost or an address, got .*; set auth-tokens, or add/,
    })),
  {
    name: "a page under its own name for our address",
    headers: { origin: "http://evil.example:8080", host: "evil.example:8080" },
    onlyOwnHost: true,
    says: /^Host/,
  },
  {
    name: "the name of an origin that may post",
    method: "GET",
    path: "/metrics",
    headers: { host: "shop.example" },
    onlyOwnHost: true,
  },
  { name: "a write as any host", headers: { host: "evil.example" }, onlyOwnHost: true },
];
for (const { name, method = "POST", path = "/events", headers, says, ...settings } of CASES) {
  test(`${name}: ${says ? "refused" : "let in"}`, () => {
    const origins = createOrigins({ corsOrigins: [SHOP], onlyOwnHost: false, ...settings });
    // Not a Request: one that is made here may not say `Host` or `Origin`.
    const request = { method, headers: new Headers(headers) } as Request;
    const refusal = origins.refusal(request, path.startsWith("/events"));
    if (says === undefined) assert.equal(refusal, null);
    else assert.match(refusal ?? "nothing", says);
  });
}

test("a preflight is answered for who may post, and says what may be sent", async () => {
  const app = appOn(new Script(), { corsOrigins: [SHOP], authTokens: ["00"] });
  for (const path of ["/events", "/events/flights"]) {
    const answer = await ask(app, path, {
      method: "OPTIONS",
      headers: { origin: SHOP, "access-control-request-method": "POST" },
    });
    assert.equal(answer.status, 204);
    const said = (name: string) => answer.headers.get(name)?.toLowerCase();
    assert.equal(said("access-control-allow-origin"), SHOP);
    assert.equal(said("access-control-allow-methods"), "post");
    assert.equal(
      said("access-control-allow-headers"),
      "authorization,content-type,content-encoding,idempotency-key,prefer,x-request-id",
    );
    assert.equal(said("access-control-max-age"), "7200");
    assert.match(said("vary")!, /\borigin\b/);
    assert.equal(said("access-control-allow-credentials"), undefined);
  }
});

test("a preflight is refused for everybody else, and for what is not a place to post", async () => {
  const script = new Script();
  const app = appOn(script, { corsOrigins: [SHOP] });
  for (const [path, origin] of [["/events", EVIL], ["/api/status", SHOP]] as const) {
    const answer = await ask(app, path, {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "POST" },
    });
    assert.equal(answer.status, 403);
    assert.equal(answer.headers.get("access-control-allow-methods"), null);
  }
  assert.deepEqual(script.statuses, [403, 403]);
});

for (const path of ["/events", "/events/flights", "/events?x=1"]) {
  test(`${path}: every answer may be read by who may post`, async () => {
    const script = new Script();
    const app = appOn(script, { corsOrigins: [SHOP] });
    for (const [body, status] of [['{"eventType":"a"}', 202], ["", 400]] as const) {
      const answer = await post(app, path, body, { origin: SHOP });
      assert.equal(answer.status, status);
      assert.equal(answer.headers.get("access-control-allow-origin"), SHOP);
      assert.equal(
        answer.headers.get("access-control-expose-headers"),
        "retry-after, preference-applied, x-request-id",
      );
      assert.equal(answer.headers.get("vary"), "Origin");
    }
    script.closed = "paused";
    const closed = await post(app, path, "{}", { origin: SHOP });
    assert.deepEqual([closed.status, closed.headers.get("access-control-allow-origin")], [
      503,
      SHOP,
    ]);
  });

  test(`${path}: 403 for a page of another site, with CORS or without, and nothing is taken`, async () => {
    for (const corsOrigins of [[], [SHOP]]) {
      const script = new Script();
      const app = appOn(script, { corsOrigins });
      const answer = await post(app, path, '{"eventType":"a"}', { origin: EVIL });
      assert.equal(answer.status, 403);
      assert.match(answer.body.error, /^Origin: .*, got https:\/\/evil.example$/);
      assert.equal(answer.headers.get("access-control-allow-origin"), null);
      assert.deepEqual([script.chunks.length, script.statuses], [0, [403]]);
    }
  });
}

test("health is for everybody, by any name", async () => {
  const app = appOn(new Script(), { loopback: true, rateLimit: { count: 1, periodMs: 1000 } });
  for (let n = 0; n < 3; n++) {
    for (const path of ["/healthz", "/readyz"]) {
      const headers = { origin: EVIL, host: "evil.example", "sec-fetch-site": "cross-site" };
      assert.equal((await answerOf(await ask(app, path, { headers }))).status, 200);
    }
  }
});
