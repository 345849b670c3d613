/** `GET /shishi.js` as an answer: small, to be kept, and open to every page. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { createSnippet } from "../../src/page/fixed.ts";
import { appOn, ask, Script } from "../admit/kit.ts";

const MOST_BYTES = 2048;
const snippet = createSnippet();
const get = (headers: Record<string, string> = {}) =>
  snippet.answer(new Request("http://shishi/shishi.js", { headers }));

test("it is under 2 KB gzipped, and a script that stands on its own", async () => {
  const packed = new Uint8Array(await get({ "accept-encoding": "gzip" }).arrayBuffer());
  assert.ok(packed.length < MOST_BYTES, `${packed.length} bytes`);
  const text = await get().text();
  assert.ok(gunzipSync(packed).toString() === text);
  assert.doesNotThrow(() => new Function(text));
  assert.doesNotMatch(text, /^\s*(import|export)\b|\beval\b|\bnew Function\b|document\.cookie/m);
});

test("it is kept for a day, known again by its tag, and may be embedded and read anywhere", () => {
  const { headers } = get();
  assert.match(headers.get("content-type") ?? "", /^text\/javascript/);
  assert.match(headers.get("cache-control") ?? "", /^public, max-age=86400\b/);
  assert.equal(headers.get("access-control-allow-origin"), "*");
  assert.equal(headers.get("cross-origin-resource-policy"), "cross-origin");
  const known = get({ "if-none-match": headers.get("etag") ?? "" });
  assert.equal(known.status, 304);
  assert.match(known.headers.get("cache-control") ?? "", /max-age/, "it is kept for another day");
  assert.equal(get({ "if-none-match": '"other"' }).status, 200);
});

test("every page may load it, whoever may post and read, and its answer is the same for all", async () => {
  const script = new Script();
  script.page = { ...script.page, snippet: (request) => Promise.resolve(snippet.answer(request)) };
  const app = appOn(script, {
    authTokens: ["a-token"],
    corsOrigins: ["https://shop.example"],
    rateLimit: { count: 1, periodMs: 60_000 },
  });
  const answers = [];
  for (const origin of ["https://shop.example", "https://other.example"]) {
    const headers = { origin, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" };
    const answer = await ask(app, "/shishi.js", { headers });
    assert.equal(answer.status, 200);
    answers.push(Object.fromEntries(answer.headers));
  }
  assert.equal(answers[0]!["access-control-allow-origin"], "*");
  assert.equal(answers[0]!["cross-origin-resource-policy"], "cross-origin");
  assert.deepEqual(answers[0], answers[1]);
});
