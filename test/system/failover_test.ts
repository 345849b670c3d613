/**
 * Two ClickHouse servers that know nothing of each other: rows flow to the first that is well. What
 * was acknowledged is on one of them; only an INSERT that was under way in the moment of the kill may
 * be on both.
 * Runs once: test/deliver/failover_test.ts has several servers as one on both runtimes.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { type Books, compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually, patient } from "../kit/wait.ts";
import { assertDelivered, metrics, say, sum, watch } from "./books.ts";

const RECOVERS_WITHIN_MS = 35_000;
const BLOCK = 500;
const CONCURRENCY = 4;

describe("two servers", () => {
  let first: ClickHouse;
  let second: ClickHouse;
  let shishi: Shishi;
  before(async () => {
    [first, second] = await Promise.all([startClickHouse(), startClickHouse()]);
    shishi = await startShishi({
      args: [
        `--clickhouse-url=${first.url},${second.url}`,
        "--flush-interval=100ms",
        `--max-block-size=${BLOCK}`,
        `--concurrency=${CONCURRENCY}`,
        "--backlog=5000",
        "--insert-timeout=2s",
      ],
    });
  });
  after(async () => {
    await shishi.close();
    await Promise.all([first.close(), second.close()]);
  });

  const count = (server: ClickHouse) =>
    server.query("SELECT count() FROM analytics_events").then(Number);
  const send = (events: number, rowsPerSecond?: number) =>
    load({
      url: shishi.url,
      clients: 20,
      events,
      eventsPerRequest: 10,
      ...(rowsPerSecond === undefined ? {} : { rowsPerSecond }),
    });

  /** 20,000 events, and more until it is enough. */
  async function sendUntil(enough: () => boolean): Promise<Books> {
    const all = [await send(20_000, 4_000)];
    while (!enough()) all.push(await send(1_000, 4_000));
    return {
      acknowledged: new Set(all.flatMap(({ acknowledged }) => [...acknowledged])),
      refused: new Set(all.flatMap(({ refused }) => [...refused])),
      unanswered: new Set(all.flatMap(({ unanswered }) => [...unanswered])),
      statuses: new Map(all.flatMap(({ statuses }) => [...statuses])),
    };
  }

  /** Every event is there, none twice on the same server; how many are on both. */
  async function assertAllThere(books: Books): Promise<number> {
    const [one, other] = await Promise.all([storedIds(first), storedIds(second)]);
    assert.ok([...one.values(), ...other.values()].every((times) => times === 1));
    const { missing, uninvited } = compare(books, new Map([...one, ...other]));
    assert.deepEqual({ missing, uninvited }, { missing: 0, uninvited: 0 });
    return [...books.acknowledged].filter((id) => one.has(id) && other.has(id)).length;
  }

  test("the first is killed under load: rows flow to the second, and back when it returns", async () => {
    const watching = watch(shishi);
    let enough = false;
    try {
      const loading = sendUntil(() => enough);
      await eventually(async () => assert.ok(await count(first) > 1_000), { withinMs: 10_000 });
      await first.kill();
      const killed = performance.now();
      // Its table is created there, by the INSERT that misses it.
      await eventually(async () => assert.ok(await count(second) > 0), { withinMs: 5_000 });
      const passedOverMs = performance.now() - killed;
      await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 200), {
        withinMs: 5_000,
      });
      await eventually(async () => assert.ok(await count(second) > 2_000), { withinMs: 5_000 });
      await first.start();
      const [before, returned] = [await count(first), performance.now()];
      await eventually(async () => assert.ok(await count(first) > before), { withinMs: 10_000 });
      const backMs = performance.now() - returned;
      enough = true;
      const books = await loading;
      await eventually(() => assertDelivered(shishi), { withinMs: RECOVERS_WITHIN_MS });
      const onBoth = await assertAllThere(books);
      assert.ok(onBoth <= CONCURRENCY * BLOCK, `${onBoth} rows on both`);
      assert.deepEqual([...books.statuses.keys()].filter((s) => s !== 202 && s !== 429), []);
      await watching.end();
      say("failover", {
        "first row on the second after": `${Math.round(passedOverMs)} ms`,
        "back on the first after": `${Math.round(backMs)} ms`,
        "rows on first/second/both": `${await count(first)}/${await count(second)}/${onBoth}`,
        statuses: JSON.stringify([...books.statuses]),
      });
    } finally {
      enough = true;
      await watching.end().catch(() => {});
      if (first.pid === 0) await first.start();
    }
  });

  test("the first hangs: an INSERT waits for one insert-timeout, the next ones for none", async () => {
    const before = await count(second);
    process.kill(first.pid, "SIGSTOP");
    try {
      const headers = { prefer: "wait=30" };
      const began = performance.now();
      assert.equal((await shishi.post({ eventType: "slow" }, { headers })).status, 200);
      const slowMs = performance.now() - began;
      assert.ok(slowMs < patient(4_000), `${slowMs} ms`);
      const again = performance.now();
      assert.equal((await shishi.post({ eventType: "quick" }, { headers })).status, 200);
      const quickMs = performance.now() - again;
      assert.ok(quickMs < patient(1_000), `${quickMs} ms`);
      assert.equal(await count(second), before + 2);
    } finally {
      process.kill(first.pid, "SIGCONT");
    }
  });

  test("both are away: held, then 429; whichever comes back takes it", async () => {
    const watching = watch(shishi);
    try {
      await Promise.all([first.kill(), second.kill()]);
      const books = await send(8_000);
      assert.deepEqual(Object.fromEntries(books.statuses), { 202: 500, 429: 300 });
      await eventually(async () => {
        const ready = await shishi.get("/readyz");
        assert.equal(ready.status, 503);
        assert.match(ready.json.reasons.join(), /clickhouse: /);
      }, { withinMs: 6_000 });
      await second.start();
      const returned = performance.now();
      await eventually(() => assertDelivered(shishi), { withinMs: RECOVERS_WITHIN_MS });
      const recoveredMs = performance.now() - returned;
      await first.start();
      assert.equal(await assertAllThere(books), 0);
      await watching.end();
      const samples = await metrics(shishi);
      say("both away", {
        "delivered after": `${Math.round(recoveredMs)} ms`,
        "failed INSERTs in all": sum(samples, "shishi_insert_errors_total"),
      });
    } finally {
      await watching.end().catch(() => {});
      for (const server of [first, second]) if (server.pid === 0) await server.start();
    }
  });
});
