/** Events in an address: what becomes of parameters, what is answered, and to whom. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { writersOf } from "../kit/write_tokens.ts";
import { appOn, ask, Script, UUID } from "./kit.ts";

const PIXEL = { pixel: true };

function taken(script: Script): Record<string, unknown>[] {
  return script.chunks.flatMap(({ body }) =>
    new TextDecoder().decode(body).trimEnd().split("\n").map((line) => JSON.parse(line))
  );
}

async function get(query: string, headers: Record<string, string> = {}, method = "GET") {
  const script = new Script();
  const response = await ask(appOn(script, PIXEL), `/events${query}`, { method, headers });
  return { response, script, events: taken(script) };
}

test("parameters are fields, and all others properties", async () => {
  const { response, events } = await get(
    `?eventType=open&userId=42&timestamp=1764400000&id=${UUID}&campaign=spring%20%26%20co` +
      "&campaign=summer&properties=p&empty=&key=k1&strict=1&__proto__=x&n=007",
  );
  assert.equal(response.status, 200);
  const [{ properties, ...event }] = events as [{ properties: Record<string, string> }];
  assert.deepEqual(event, {
    eventType: "open",
    userId: "42",
    timestamp: "2025-11-29 07:06:40.000",
    id: UUID,
  });
  assert.deepEqual(Object.entries(properties), [
    ["campaign", "summer"],
    ["properties", "p"],
    ["empty", ""],
    ["__proto__", "x"],
    ["n", "007"],
  ]);
});

test("fields without a value are none", async () => {
  const { events } = await get("?eventType=open&userId=&timestamp=&id=");
  const { id, timestamp, ...rest } = events[0]!;
  assert.match(String(id), /^[0-9a-f-]{36}$/);
  assert.match(String(timestamp), /^\d{4}-/);
  assert.deepEqual(rest, { eventType: "open", properties: {} });
});

test("a picture that nothing keeps, or nothing at all", async () => {
  const { response } = await get("?eventType=open", { accept: "image/webp,*/*;q=0.8" });
  assert.equal(response.headers.get("content-type"), "image/gif");
  const gif = new Uint8Array(await response.arrayBuffer());
  assert.equal(new TextDecoder().decode(gif.subarray(0, 6)), "GIF89a");
  assert.deepEqual([gif[6], gif[8]], [1, 1]);
  assert.match(response.headers.get("cache-control")!, /no-store/);
  assert.equal(response.headers.get("cross-origin-resource-policy"), "cross-origin");
  const { response: none, events } = await get("?eventType=open", { accept: "application/json" });
  assert.deepEqual([none.status, await none.text(), events.length], [204, "", 1]);
});

test("HEAD stores nothing", async () => {
  const { response, script } = await get("?eventType=open", {}, "HEAD");
  assert.deepEqual([response.status, await response.text()], [200, ""]);
  assert.equal(script.chunks.length, 0);
});

const WRONG: readonly (readonly [string, RegExp])[] = [
  ["", /eventType: missing/],
  ["?event_type=a&campaign=b", /event_type: unknown key; did you mean eventType\?/],
  ["?eventType=", /eventType: expected a non-empty string/],
  ["?eventType=a&timestamp=yesterday", /timestamp: expected ISO 8601/],
  ["?eventType=a&id=7", /id: expected a UUID, got "7"/],
];
for (const [query, error] of WRONG) {
  test(`the same rules as for what is posted: ${query}`, async () => {
    const { response, script } = await get(query);
    assert.equal(response.status, 400);
    assert.match((await response.json()).errors[0].error, error);
    assert.deepEqual([script.chunks.length, script.reserved], [0, 0]);
  });
}

test("a picture in a page of another site counts, a script there does not", async () => {
  const image = { "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" };
  assert.equal((await get("?eventType=open", image)).response.status, 200);
  const origin = { ...image, origin: "https://elsewhere.example" };
  assert.equal((await get("?eventType=open", origin)).response.status, 403);
});

test("a write token in the address: its quota counts, and the token is no property", async () => {
  const script = new Script();
  const app = appOn(script, { ...PIXEL, writeTokens: writersOf("mail:w-token=events;1/d") });
  const path = "/events?eventType=open&campaign=7&token=";
  assert.equal((await ask(app, `${path}other`)).status, 401);
  assert.equal((await ask(app, `${path}w-token`)).status, 200);
  assert.equal((await ask(app, `${path}w-token`)).status, 429);
  const stored = script.chunks.map(({ body }) => new TextDecoder().decode(body)).join("");
  assert.match(stored, /campaign/);
  assert.doesNotMatch(stored + script.lines.join(), /token=|w-token/);
});

test("without the setting there is no such path", async () => {
  const script = new Script();
  const response = await ask(appOn(script), "/events?eventType=open");
  assert.deepEqual([response.status, script.chunks.length], [405, 0]);
});

test("refused: full, stopping, without a token", async () => {
  const path = "/events?eventType=open";
  const full = Object.assign(new Script(), { room: 0 });
  assert.equal((await ask(appOn(full, PIXEL), path)).status, 429);
  const stopping = Object.assign(new Script(), { closed: "stopping" as const });
  assert.equal((await ask(appOn(stopping, PIXEL), path)).status, 503);
  const script = new Script();
  const app = appOn(script, { ...PIXEL, authTokens: ["a-token"] });
  assert.equal((await ask(app, path)).status, 401);
  assert.equal(
    (await ask(app, path, { headers: { authorization: "Bearer a-token" } })).status,
    200,
  );
  assert.equal(script.chunks.length, 1);
});
