/** Whose request it is, behind proxies that are trusted and before those that are not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createClientAddress, type TrustedProxy } from "../../src/admit/gate.ts";
import { parseNetwork } from "../../src/kernel/address.ts";
import { appOn, Script } from "./kit.ts";

const TRUSTED: readonly TrustedProxy[] = [
  parseNetwork("10.0.0.0/8")!,
  parseNetwork("2001:db8::/32")!,
  "unix",
];

type Case = readonly [peer: string, headers: Record<string, string>, client: string];
const CASES: readonly Case[] = [
  ["192.0.2.1", { "x-forwarded-for": "1.1.1.1" }, "192.0.2.1"],
  ["192.0.2.1", { forwarded: "for=1.1.1.1" }, "192.0.2.1"],
  ["10.0.0.1", {}, "10.0.0.1"],
  ["10.0.0.1", { "x-forwarded-for": "1.1.1.1" }, "1.1.1.1"],
  ["::ffff:10.0.0.1", { "x-forwarded-for": "1.1.1.1" }, "1.1.1.1"],
  ["", { "x-forwarded-for": "1.1.1.1" }, "1.1.1.1"],
  ["10.0.0.1", { "x-forwarded-for": "9.9.9.9, 1.1.1.1" }, "1.1.1.1"],
  ["10.0.0.1", { "x-forwarded-for": "9.9.9.9, 1.1.1.1, 10.9.9.9 ,2001:db8::7" }, "1.1.1.1"],
  ["10.0.0.1", { "x-forwarded-for": "10.0.0.3, 10.0.0.2" }, "10.0.0.3"],
  ["10.0.0.1", { "x-forwarded-for": "1.1.1.1:4711" }, "1.1.1.1"],
  ["10.0.0.1", { "x-forwarded-for": "[2001:db9::1]:4711" }, "2001:db9::1"],
  ["10.0.0.1", { "x-forwarded-for": "1.1.1.1, unknown" }, "10.0.0.1"],
  ["10.0.0.1", { "x-forwarded-for": "" }, "10.0.0.1"],
  ["10.0.0.1", { forwarded: 'for="[2001:db9::1]:80";proto=https;by=10.0.0.1' }, "2001:db9::1"],
  ["10.0.0.1", { forwarded: "for=9.9.9.9, By=x; For=1.1.1.1 ,for=10.0.0.2" }, "1.1.1.1"],
  ["10.0.0.1", { forwarded: "for=_hidden" }, "10.0.0.1"],
  ["10.0.0.1", { forwarded: "for=2.2.2.2", "x-forwarded-for": "1.1.1.1" }, "1.1.1.1"],
];
for (const [peer, headers, wanted] of CASES) {
  test(`${peer || "unix"} says ${JSON.stringify(headers)}: ${wanted}`, () => {
    const request = new Request("http://localhost/events", { headers });
    assert.equal(createClientAddress(TRUSTED)(request, () => peer), wanted);
    assert.equal(createClientAddress([])(request, () => peer), peer);
  });
}

test("the limit of requests is that of the client behind the proxy", async () => {
  const app = appOn(new Script(), {
    rateLimit: { count: 1, periodMs: 60_000 },
    trustedProxies: TRUSTED,
  });
  const ask = async (peer: string, client: string) => {
    const headers = { "x-forwarded-for": client };
    const request = new Request("http://localhost/api/status", { headers });
    return (await app.fetch(request, () => peer)).status;
  };
  assert.deepEqual([await ask("10.0.0.1", "1.1.1.1"), await ask("10.0.0.1", "2.2.2.2")], [
    200,
    200,
  ]);
  assert.equal(await ask("10.0.0.2", "1.1.1.1"), 429);
  // A client that is no proxy has one address, whatever it says.
  assert.deepEqual([await ask("3.3.3.3", "4.4.4.4"), await ask("3.3.3.3", "5.5.5.5")], [200, 429]);
});
