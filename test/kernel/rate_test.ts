/**
 * How often one client may ask: exactly its rate, whoever else asks, in bounded memory.
 * Runs once: each client's rate is counted on a clock of the test.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { clientOf } from "../../src/admit/gate.ts";
import { MOST_KEYS, RateLimiter } from "../../src/kernel/rate.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { appOn, post, Script } from "../admit/kit.ts";

test("a period's requests at once, then one whenever it is due", async () => {
  const clock = new ManualClock();
  const bare = new RateLimiter(clock);
  const limit = { waitMs: (client: string) => bare.waitMs(client, { count: 5, periodMs: 1000 }) };
  for (let n = 0; n < 5; n++) assert.equal(limit.waitMs("a"), 0);
  assert.equal(Math.round(limit.waitMs("a")), 200);
  await clock.advance(150);
  assert.equal(Math.round(limit.waitMs("a")), 50);
  await clock.advance(50);
  assert.equal(limit.waitMs("a"), 0);
  assert.ok(limit.waitMs("a") > 0);
  assert.equal(limit.waitMs("b"), 0, "somebody else");
  await clock.advance(1000);
  for (let n = 0; n < 5; n++) assert.equal(limit.waitMs("a"), 0);
  assert.ok(limit.waitMs("a") > 0, "what was not used is not saved up beyond a period");
});

test("any pattern: never more than a period's requests and those that were due; waiting helps", () => {
  const steps = fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 200 });
  const rates = fc.record({
    count: fc.integer({ min: 1, max: 50 }),
    periodMs: fc.constantFrom(1000, 60_000),
  });
  fc.assert(fc.property(steps, rates, (stepsMs, rate) => {
    let nowMs = 0;
    const clock = { monotonicMs: () => nowMs } as ManualClock;
    const limit = new RateLimiter(clock);
    let taken = 0;
    for (const stepMs of stepsMs) {
      nowMs += stepMs;
      const waitMs = limit.waitMs("a", rate);
      if (waitMs === 0) taken++;
      assert.ok(
        taken <= rate.count * (1 + nowMs / rate.periodMs) + 1e-6,
        `${taken} by ${nowMs} ms`,
      );
      if (waitMs > 0) {
        nowMs += waitMs;
        assert.equal(limit.waitMs("a", rate), 0, `after waiting ${waitMs} ms`);
        taken++;
      }
    }
  }));
});

test("more clients than are remembered: nobody new is shut out, and who asks on is remembered", () => {
  const bare = new RateLimiter(new ManualClock());
  const limit = {
    waitMs: (client: string) => bare.waitMs(client, { count: 2, periodMs: 3_600_000 }),
  };
  const others = (count: number, name: string) => {
    for (let n = 0; n < count; n++) assert.equal(limit.waitMs(`${name} ${n}`), 0);
  };
  assert.equal(limit.waitMs("steady"), 0);
  others(MOST_KEYS - 1, "some");
  assert.equal(limit.waitMs("steady"), 0);
  others(MOST_KEYS - 1, "more");
  assert.ok(limit.waitMs("steady") > 0, "remembered for what was let in");
  others(MOST_KEYS - 1, "others");
  assert.ok(limit.waitMs("steady") > 0, "and for what was refused");
  others(MOST_KEYS, "too many");
  assert.equal(limit.waitMs("steady"), 0, "forgotten in favour of others");
});

test("another rate counts what was let in before, and asks nobody to wait for longer than its period", () => {
  const limit = new RateLimiter(new ManualClock());
  const hourly = { count: 10, periodMs: 3_600_000 };
  for (let n = 0; n < 10; n++) assert.equal(limit.waitMs("a", hourly), 0);
  const waitMs = limit.waitMs("a", { count: 10, periodMs: 1000 });
  assert.ok(waitMs > 0 && waitMs <= 100, String(waitMs));
  assert.equal(limit.waitMs("b", { count: 10, periodMs: 1000 }), 0);
});

const CLIENTS: readonly (readonly [string, string])[] = [
  ["192.0.2.1", "192.0.2.1"],
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["::FFFF:192.0.2.1", "192.0.2.1"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
  ["2001:DB8:0001:2::6", "2001:db8:1:2"],
  ["2001:db8::6", "2001:db8:0:0"],
  ["2001:db8::1:2:3:4:5", "2001:db8:0:1"],
  ["2001::", "2001:0:0:0"],
  ["::1", "0:0:0:0"],
  ["::", "0:0:0:0"],
  ["fe80::1%eth0", "fe80:0:0:0"],
  ["", ""],
];
for (const [address, client] of CLIENTS) {
  test(`${address || "no address"} counts as ${client || "one"}`, () => {
    assert.equal(clientOf(address), client);
  });
}

const GOOD = '{"eventType":"click"}';

test("429 with Retry-After beyond the rate; each address for itself; later it goes on", async () => {
  const script = new Script();
  const app = appOn(script, { rateLimit: { count: 2, periodMs: 60_000 } });
  const from = (address: string) => {
    const request = new Request("http://localhost/events", {
      method: "POST",
      body: GOOD,
      headers: { "content-length": String(GOOD.length) },
    });
    return Promise.resolve(app.fetch(request, () => address));
  };
  const statuses = async (address: string) =>
    [await from(address), await from(address)]
      .map(({ status }) => status);
  assert.deepEqual(await statuses("192.0.2.1"), [202, 202]);
  const refused = await from("192.0.2.1");
  assert.deepEqual([refused.status, refused.headers.get("retry-after")], [429, "30"]);
  assert.match((await refused.json()).error, /^rate-limit: more than 2 requests in 60 s/);
  assert.deepEqual(await statuses("192.0.2.2"), [202, 202]);
  await script.clock.advance(30_000);
  assert.deepEqual(await statuses("192.0.2.1"), [202, 429]);
  assert.equal(script.chunks.length, 5);
  assert.deepEqual(script.statuses, [202, 202, 429, 202, 202, 202, 429]);
});

test("each token for itself, wherever it comes from; a wrong one counts for its address", async () => {
  const app = appOn(new Script(), {
    rateLimit: { count: 1, periodMs: 1000 },
    authTokens: ["one", "two"],
  });
  const statusOf = async (token: string, path = "/events") =>
    (await post(app, path, GOOD, { authorization: `Bearer ${token}` })).status;
  assert.deepEqual(
    [await statusOf("one"), await statusOf("two"), await statusOf("one"), await statusOf("two")],
    [202, 202, 429, 429],
  );
  // A second path is no second chance, and guessing is not for free.
  assert.deepEqual([await statusOf("1"), await statusOf("2", "/events/flights")], [401, 429]);
});
