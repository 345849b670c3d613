/** The document: whole in itself, small, and held to what it is by its policy. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { createDocument } from "../../src/page/document.ts";

const MOST_BYTES = 150_000;
const page = createDocument();
const get = (headers: Record<string, string> = {}) =>
  page.answer(new Request("http://shishi/", { headers }));

test("the page is under 150 KB in all", async () => {
  const size = (await get().arrayBuffer()).byteLength;
  assert.ok(size > 60_000 && size < MOST_BYTES, `${size} bytes`);
});

test("its policy names exactly the scripts and the style that stand in it, and allows nothing else", async () => {
  const answer = get();
  const html = await answer.text();
  const policy = new Map(
    (answer.headers.get("content-security-policy") ?? "").split("; ").map((rule) => {
      const [name = "", ...values] = rule.split(" ");
      return [name, values] as const;
    }),
  );
  const hashes = (pattern: RegExp) =>
    [...html.matchAll(pattern)].map(([, text = ""]) =>
      `'sha256-${createHash("sha256").update(text).digest("base64")}'`
    );
  const scripts = hashes(/<script[^>]*>([^]*?)<\/script>/g);
  assert.equal(scripts.length, 2);
  assert.deepEqual(policy.get("script-src"), scripts);
  assert.deepEqual(policy.get("style-src"), hashes(/<style>([^]*?)<\/style>/g));
  assert.deepEqual(policy.get("default-src"), ["'none'"]);
  assert.deepEqual(policy.get("connect-src"), ["'self'"]);
  assert.deepEqual(policy.get("frame-ancestors"), ["'none'"]);
  assert.doesNotMatch([...policy.values()].flat().join(" "), /unsafe|\*|http/);
});

test("nothing is loaded from elsewhere, nothing is left to be put in", async () => {
  const html = await get().text();
  const frame = html.replace(/(<(style|script)[^>]*>)[^]*?<\/\2>/g, "$1");
  const style = /<style>([^]*?)<\/style>/.exec(html)?.[1] ?? "";
  const script = /<script type="module">([^]*?)<\/script>/.exec(html)?.[1] ?? "";
  // The whole text in a failure would help nobody.
  const found = (pattern: RegExp, text: string) => text.match(pattern)?.[0];
  assert.equal(found(/\/\* (style|script|uplot) \*\//, html), undefined);
  assert.equal(found(/<(script|img|iframe)[^>]* src=/, frame), undefined);
  assert.equal(found(/<link(?![^>]*rel="icon"\s+href="data:)/, frame), undefined);
  assert.equal(found(/ style="| on\w+="/, frame), undefined);
  assert.equal(found(/@import|url\(/, style), undefined);
  assert.equal(found(/^\s*(import|export)\b/m, script), undefined);
  assert.ok(script.length > 10_000 && style.length > 5_000);
  // Modules that were made one: no two give the same name to something.
  assert.doesNotThrow(() => new Function(script));
});

test("packed where the browser takes it, and the same", async () => {
  const packed = get({ "accept-encoding": "gzip, deflate, br" });
  assert.equal(packed.headers.get("content-encoding"), "gzip");
  const bytes = new Uint8Array(await packed.arrayBuffer());
  assert.ok(bytes.length < 50_000, `${bytes.length} bytes`);
  assert.ok(gunzipSync(bytes).toString() === await get().text());
  for (const none of ["gzip;q=0", "br", "identity"]) {
    assert.equal(get({ "accept-encoding": none }).headers.get("content-encoding"), null, none);
  }
});

test("a browser that has it already is told so", () => {
  const etag = get().headers.get("etag") ?? "";
  assert.equal(get({ "if-none-match": etag }).status, 304);
  assert.equal(get({ "if-none-match": '"other"' }).status, 200);
});
