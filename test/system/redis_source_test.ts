/**
 * Redis to ClickHouse through the collector as users run it: killed over and over, stopped, checked.
 * Runs once: what may differ between the runtimes, the connection, has tests of its own.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { oneClickHouse } from "../kit/one_clickhouse.ts";
import { BUILDS, runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { type Redis, startRedis } from "../servers/redis.ts";
import { DEDUPLICATED } from "./rows.ts";

const clickhouse = oneClickHouse();
let redis: Redis;
before(async () => {
  redis = await startRedis("appendfsync everysec");
});
after(() => redis.close());

/** Messages of a round. */
const EACH = 2_000;

/** In turn, with pauses in which collectors come and go. */
async function publish(what: "list" | "stream", key: string, from: number, to: number) {
  for (let n = from; n <= to; n += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, at) => {
      const body = JSON.stringify({ n: n + at });
      return what === "list"
        ? redis.call("LPUSH", key, body)
        : redis.call("XADD", key, "*", "data", body);
    }));
    await pause(10);
  }
}

async function stored(table: string): Promise<{ rows: number; different: number }> {
  const found = await clickhouse.query(`SELECT count(), uniqExact(n) FROM ${table}`);
  const [rows, different] = found.split("\t").map(Number);
  return { rows: rows!, different: different! };
}

for (const binary of BUILDS) {
  const how = binary ? "the binary" : "from source";

  for (const what of binary ? ["stream", "list"] as const : ["stream"] as const) {
    test(`${how}: a ${what} through three kill -9 loses nothing${what === "stream" ? ", and repeats nothing" : ""}`, async () => {
      const table = `${what}_${binary}`;
      const dataDir = tempDir("data");
      await clickhouse.query(`CREATE TABLE ${table} (n UInt32) ${DEDUPLICATED}`);
      if (what === "stream") await redis.call("XGROUP", "CREATE", table, "shishi", "0", "MKSTREAM");
      const args = [
        ...["--clickhouse-url", clickhouse.url, "--data-dir", dataDir, "--id", "edge"],
        ...["--source", `redis://127.0.0.1:${redis.port}?${what}=${table}&table=${table}`],
        ...["--flush-interval", "50ms"],
      ];
      let shishi: Shishi | null = null;
      try {
        for (let round = 0; round < 3; round++) {
          const first = round * EACH + 1;
          const publishing = publish(what, table, first, first + EACH - 101);
          shishi = await startShishi({ args, binary });
          const source = async () => (await shishi!.status()).sources[0];
          await eventually(async () => assert.ok((await source()).rows > 100), {
            withinMs: 20_000,
            everyMs: 5,
          });
          // A list's messages have no names, so of it the kill alone may repeat some.
          if (what === "stream") {
            // From here on nothing can be acknowledged: what is synced comes again.
            await redis.call("ACL", "SETUSER", "default", "-xack");
            const { repeated } = await source();
            await publish(what, table, first + EACH - 100, first + EACH - 1);
            await eventually(async () => assert.ok((await source()).repeated > repeated), {
              withinMs: 20_000,
            });
          }
          await shishi.kill();
          await redis.call("ACL", "SETUSER", "default", "+xack");
          if (what === "list") await publish(what, table, first + EACH - 100, first + EACH - 1);
          await publishing;
        }
        shishi = await startShishi({ args, binary });
        await eventually(async () => assert.equal((await stored(table)).different, 3 * EACH), {
          withinMs: 30_000,
        });
        const [source] = (await shishi.status()).sources;
        assert.equal(source.state, "running");
        shishi.signal("SIGTERM");
        assert.equal((await shishi.exited).code, 0, shishi.stderr());
        const { rows: all } = await stored(table);
        if (what === "stream") {
          assert.equal(all, 3 * EACH);
          const [pending] = await redis.call("XPENDING", table, "shishi") as [number];
          assert.equal(pending, 0);
        } else {
          // What was synced and not yet removed, each time: what is read together at most.
          assert.ok(all < 3 * EACH + 3 * 1_000, `${all} rows`);
          // All of them had one list, since all had one folder.
          const lists = await redis.call("SMEMBERS", `{${table}}:shishi`) as string[];
          assert.equal(lists.length, 1);
          assert.match(lists[0]!, /:shishi:default\.edge\.[0-9a-f]{8}$/);
          assert.equal(await redis.call("LLEN", lists[0]!), 0);
        }
      } finally {
        await shishi?.close();
        removeDir(dataDir);
      }
    });
  }

  test(`${how}: events of a channel, entries without JSON, and what is no row`, async () => {
    const at = `redis://127.0.0.1:${redis.port}`;
    const [channel, stream] = [`channel_${binary}`, `fields_${binary}`];
    await clickhouse.query(
      `CREATE TABLE ${stream} (n UInt32, word String, _key String, id String) ${DEDUPLICATED}`,
    );
    const dead = String(await redis.call("XADD", stream, "*", "n", "many", "word", "x"));
    const id = String(await redis.call("XADD", stream, "*", "n", "17", "word", 'a "b" ü'));
    const shishi = await startShishi({
      binary,
      args: [
        ...["--clickhouse-url", clickhouse.url, "--flush-interval", "50ms"],
        ...["--source", `${at}?channel=${channel}`],
        ...["--source", `${at}?stream=${stream}&table=${stream}&meta=_key,_id:id`],
      ],
    });
    try {
      await eventually(async () => {
        const states = (await shishi.status()).sources.map(({ state }: { state: string }) => state);
        assert.deepEqual(states, ["running", "running"]);
        await redis.call("PUBLISH", channel, `{"eventType":"${channel}"}`);
        const events = "SELECT count() > 0 FROM analytics_events WHERE event_type = ";
        assert.equal(await clickhouse.query(`${events}'${channel}'`), "1");
      }, { withinMs: 20_000 });
      await eventually(async () => {
        const rows = await clickhouse.query(`SELECT * FROM ${stream} FORMAT JSONEachRow`);
        assert.deepEqual(JSON.parse(rows), { n: 17, word: 'a "b" ü', _key: stream, id });
      }, { withinMs: 20_000 });
      const { json } = await shishi.get(`/api/dead?table=${stream}`);
      assert.match(JSON.stringify(json), new RegExp(`redis:${stream}@${dead}`));
    } finally {
      await shishi.close();
    }
  });

  test(`${how}: check looks at each source`, async () => {
    const args = ["--clickhouse-url", clickhouse.url, "--data-dir", tempDir("data")];
    const at = `127.0.0.1:${redis.port}`;
    const good = await runShishi(["check", ...args, "--source", `redis://${at}?list=l`], {
      binary,
    });
    assert.match(
      good.stdout,
      /✓ source redis:l \(redis:\/\/127.*\): 7\.[\d.]+, 0 messages wait in the list l/,
    );
    const wrong = await runShishi(
      ["check", ...args, "--source", `redis://shishi:falsch@${at}?list=l`],
      { binary },
    );
    assert.equal(wrong.code, 1);
    assert.match(wrong.stdout, /✗ source .*the server refuses user and password/);
    assert.doesNotMatch(wrong.stdout + wrong.stderr, /falsch/);
  });
}
