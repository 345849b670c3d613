/**
 * Write tokens on a collector as it runs: from a file, over real sockets, on the runtime and on the
 * binary. What a token may do is tested in test/admit/tokens_test.ts, case by case.
 */

import { testOnce } from "../kit/once.ts";
import { BUILDS } from "../kit/shishi.ts";
import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { after, before, describe, test } from "node:test";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { type Reloading, startReloading } from "./reloading.ts";
import { createPlain } from "./rows.ts";

const AUTH = "an-auth-token-of-some-length";
const WEB = "a-write-token-of-some-length";
const NEXT = "another-write-token-of-some-length";
const DAILY = "a-third-write-token-of-some-length";
const FILE = `
# pages of the shop
web:${WEB}=events,pl?in;1MiB/d
daily:${DAILY}=events;3/d   # three rows
`;
const EVENT = { eventType: "click", userId: "u1" };
const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

for (const binary of BUILDS) {
  describe(binary ? "the binary" : "the source", () => {
    let clickhouse: ClickHouse;
    let at: Reloading;
    const read = (path: string) => at.shishi.get(path, bearer(AUTH).headers);
    before(async () => {
      clickhouse = await startClickHouse();
      await createPlain(clickhouse, "plain");
      at = await startReloading((file) => ({
        "clickhouse-url": clickhouse.url,
        listen: "127.0.0.1:0",
        tables: ["plain", "other"],
        "flush-interval": "50ms",
        "log-level": "debug",
        "auth-tokens": AUTH,
        "write-tokens-file": file("tokens", FILE),
      }), { listens: true, binary });
    });
    after(async () => {
      await at?.close();
      await clickhouse?.close();
    });

    test("a write token appends, in the header or in the address, plain or packed, and nothing else", async () => {
      const { shishi } = at;
      assert.equal((await shishi.post(EVENT, bearer(WEB))).status, 202);
      assert.equal((await shishi.post(EVENT, { path: `/events?token=${WEB}` })).status, 202);
      assert.equal(
        (await shishi.post({ n: 1 }, { path: `/events/plain?token=${WEB}&strict` })).status,
        202,
      );
      const packed = new Uint8Array(gzipSync(JSON.stringify(EVENT)));
      const { headers } = bearer(WEB);
      assert.equal(
        (await shishi.post(packed, { headers: { ...headers, "content-encoding": "gzip" } })).status,
        202,
      );
      const other = await shishi.post({ n: 1 }, { path: "/events/other", ...bearer(WEB) });
      assert.equal(other.status, 403);
      assert.match(other.json.error, /^write-tokens: web may not write to other, only to events/);
      for (const path of ["/api/status", "/metrics", "/api/dead", "/api/events"]) {
        assert.equal((await shishi.get(path, headers)).status, 403, path);
        assert.equal((await shishi.get(`${path}?token=${WEB}`)).status, 401, path);
        assert.equal((await shishi.get(`${path}?token=${AUTH}`)).status, 401, path);
        assert.equal((await read(path)).status, 200, path);
      }
      await eventually(async () => {
        assert.equal((await clickhouse.query("SELECT count() FROM analytics_events")).trim(), "3");
        assert.equal((await clickhouse.query("SELECT count() FROM plain")).trim(), "1");
      }, { withinMs: 20_000 });
    });

    testOnce("a quota is kept, and a key costs it once", async () => {
      const { shishi } = at;
      const keyed = { headers: { ...bearer(DAILY).headers, "idempotency-key": "k" } };
      assert.equal((await shishi.post([EVENT, EVENT], keyed)).status, 202);
      const again = await shishi.post([EVENT, EVENT], keyed);
      assert.deepEqual([again.status, again.json.duplicate], [202, true]);
      const over = await shishi.post([EVENT, EVENT], bearer(DAILY));
      assert.equal(over.status, 429);
      assert.equal(
        over.json.error,
        "write-tokens: daily has a quota of 3/d (rows), and what is left of it is less than this request has; nothing was taken",
      );
      const toMidnightS = (86_400_000 - Date.now() % 86_400_000) / 1000;
      const retryAfterS = Number(over.headers.get("retry-after"));
      assert.ok(Math.abs(retryAfterS - toMidnightS) < 60, `${retryAfterS} ${toMidnightS}`);
      assert.equal((await shishi.post(EVENT, bearer(DAILY))).status, 202, "there was room for one");
      assert.equal((await shishi.post([EVENT, EVENT, EVENT, EVENT], bearer(DAILY))).status, 429);
    });

    testOnce("metrics, status and log name a token by its label", async () => {
      const { json } = await read("/api/status");
      assert.deepEqual(Object.keys(json.tokens), ["web", "daily"]);
      assert.equal(json.tokens.web.rows, 4);
      assert.deepEqual(json.tokens.daily.rows, 3);
      assert.ok(json.tokens.web.refused.right > 4);
      const metrics = (await read("/metrics")).text;
      assert.match(metrics, /^shishi_token_rows_total\{token="web"\} 4$/m);
      assert.match(metrics, /^shishi_token_bytes_total\{token="daily"\} \d\d+$/m);
      assert.match(metrics, /^shishi_token_refused_total\{token="daily",reason="quota"\} 2$/m);
      const warned = at.shishi.lines()
        .filter(({ message }) => message === "a write token has used up a quota");
      assert.deepEqual(warned.map(({ token, quota }) => [token, quota]), [["daily", "3/d"]]);
      assert.ok(at.shishi.lines().some(({ token, status }) => token === "web" && status === 403));
    });

    testOnce("a reload takes the file as it is then; those that stay go on counting", async () => {
      at.file("tokens", `web:${NEXT}=events;1MiB/d\ndaily:${DAILY}=events;3/d\n`);
      await at.set({});
      assert.equal((await at.shishi.post(EVENT, bearer(WEB))).status, 401);
      assert.equal((await at.shishi.post(EVENT, bearer(NEXT))).status, 202);
      assert.equal((await at.shishi.post(EVENT, bearer(DAILY))).status, 429);
      assert.equal((await read("/api/status")).json.tokens.web.rows, 5);
    });

    test("no token is in any log line, answer, metric or file of the data folder", async () => {
      const told = [
        at.shishi.stderr(),
        (await read("/metrics")).text,
        (await read("/api/status")).text,
        (await at.shishi.post(EVENT, { path: `/events?token=${WEB}` })).text,
        (await at.shishi.post(EVENT, bearer(DAILY))).text,
      ].join("\n");
      for (const token of [AUTH, WEB, NEXT, DAILY]) {
        assert.ok(!told.includes(token));
        assert.ok(!told.includes(token.slice(0, 12)));
      }
    });
  });
}
