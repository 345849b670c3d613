/** `Idempotency-Key`: what is asked of the intake, and what is answered. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Refused } from "../../src/contracts.ts";
import { appOn, post, Script } from "./kit.ts";

const GOOD = '{"eventType":"click","userId":"u1"}';
const MIXED = `${GOOD}\n{"eventType":5}\n`;
const KEY = { "idempotency-key": "order-7" };

/** What the intake knows of the key. */
class Knows extends Script {
  before: ReturnType<Script["known"]> = null;
  override known(...asked: Parameters<Script["known"]>) {
    super.known(...asked);
    return this.before;
  }
}

const ticket = { reached: "disk", kept: null, settled: () => Promise.resolve(null) } as const;
const seen = { kind: "taken", ticket, before: { accepted: 2, rejected: 3 } } as const;

test("a chunk has its key, the hash of what came, and how many rows were refused", async () => {
  const script = new Script();
  const app = appOn(script);
  assert.equal((await post(app, "/events", MIXED, KEY)).status, 202);
  assert.equal((await post(app, "/events?strict=0&key=order-7", GOOD)).status, 202);
  assert.equal((await post(app, "/events", GOOD, KEY)).status, 202);
  assert.equal((await post(app, "/events", GOOD)).status, 202);
  const [first, second, third, fourth] = script.chunks.map(({ key }) => key);
  assert.deepEqual([first!.key, first!.rejected], ["order-7", 1]);
  assert.match(first!.hash, /^[\w-]{22}$/);
  assert.deepEqual(second, third);
  assert.notEqual(second!.hash, first!.hash);
  assert.equal(fourth, undefined, "no key, no cost");
  assert.equal(script.named.length, 3);
});

test("what came before is answered as then, and given to nobody", async () => {
  const script = new Knows();
  script.before = seen;
  const { status, body } = await post(appOn(script), "/events", MIXED, KEY);
  assert.equal(status, 202);
  assert.deepEqual(body, { accepted: 2, rejected: 3, ack: "disk", duplicate: true, errors: [] });
  assert.deepEqual([script.chunks, script.rejected, script.reserved], [[], [], 0]);
  assert.equal(script.acknowledged, 1);
});

test("while nothing is known yet the answer waits", async () => {
  const script = new Knows();
  const { promise, resolve } = Promise.withResolvers<typeof seen | null>();
  script.before = promise;
  const asked = post(appOn(script), "/events", GOOD, KEY);
  resolve(null);
  assert.equal((await asked).body.duplicate, undefined);
  assert.equal(script.chunks.length, 1);
});

test("it waits for the insert as it is asked to", async () => {
  const script = new Knows();
  script.before = {
    ...seen,
    ticket: { ...ticket, settled: () => Promise.resolve({ dead: 1 }) },
  };
  const { status, body } = await post(appOn(script, { ack: "clickhouse" }), "/events", GOOD, KEY);
  assert.equal(status, 200);
  assert.deepEqual(body, {
    ...{ accepted: 2, rejected: 3, ack: "clickhouse", dead: 1, duplicate: true },
    errors: [],
  });
});

test("422: another body under the same key; the first one's fate is the second one's", async () => {
  const script = new Knows();
  const refused: Refused = { kind: "refused", why: "key", reason: "another body", retryAfterS: 1 };
  script.before = refused;
  const { status, body, headers } = await post(appOn(script), "/events", GOOD, KEY);
  assert.deepEqual([status, body], [422, { error: "Idempotency-Key order-7: another body" }]);
  assert.equal(headers.get("retry-after"), null);
  const full: Refused = { ...refused, why: "full", reason: "disk: EIO" };
  script.before = { ...seen, ticket: { ...ticket, kept: Promise.resolve(full) } };
  assert.equal((await post(appOn(script), "/events", GOOD, KEY)).status, 429);
});

for (const key of ["", "a b", "x".repeat(129), "a\tb"]) {
  test(`400: no key is ${JSON.stringify(key.slice(0, 9))}`, async () => {
    const script = new Script();
    const query = `/events?key=${encodeURIComponent(key)}`;
    const { status, body } = await post(appOn(script), query, GOOD);
    assert.equal(status, 400);
    assert.match(body.error, /^Idempotency-Key: expected 1 to 128 visible ASCII characters, got /);
    assert.deepEqual([script.chunks, script.named], [[], []]);
  });
}

test("a request of which nothing is taken is not remembered", async () => {
  const script = new Script();
  const app = appOn(script);
  assert.equal((await post(app, "/events", '{"eventType":5}', KEY)).status, 400);
  assert.equal((await post(app, "/events?strict", MIXED, KEY)).status, 400);
  assert.deepEqual(script.chunks, []);
});

test("with a key room is looked for when the body is known: it may have come before", async () => {
  const script = new Knows();
  script.refuse = { kind: "refused", why: "full", reason: "full", retryAfterS: 1 };
  script.foreseenBytes = 1;
  const app = appOn(script);
  assert.equal((await post(app, "/events", GOOD)).status, 429);
  assert.equal((await post(app, "/events", GOOD, KEY)).status, 429);
  script.before = seen;
  assert.equal((await post(app, "/events", GOOD, KEY)).status, 202);
});
