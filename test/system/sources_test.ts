/**
 * A collector that reads a real Redis and stores in a real ClickHouse: what its status, metrics and dead letters
 * say; killed, paused, reloaded, followed by a new process, and with a broker that goes away. What each broker
 * promises is in test/sources/.
 * Runs once: test/sources/ has both runtimes, and points_test.ts of test/crash.
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { type ClickHouse, startClickHouse } from "../servers/clickhouse.ts";
import { type Redis, startRedis } from "../servers/redis.ts";
import { ask, closeAll, ended, followers, soon } from "./upgrading.ts";

let redis: Redis;
let clickhouse: ClickHouse;
let number = 0;

before(async () => {
  [redis, clickhouse] = await Promise.all([startRedis(), startClickHouse()]);
});
after(async () => {
  await Promise.all([redis.close(), clickhouse.close()]);
});

/** A stream and a table of one name, and collectors on one data folder. */
async function place(columns = "n UInt32") {
  const name = `s${++number}`;
  const dataDir = join(tempDir("sources"), "data");
  await clickhouse.query(
    `CREATE TABLE ${name} (${columns}) ENGINE = MergeTree ORDER BY tuple()
     SETTINGS non_replicated_deduplication_window = 1000`,
  );
  const url = (more = "") => `${redis.url}?stream=${name}&table=${name}&claim=1s${more}`;
  return {
    name,
    dataDir,
    url,
    args: [
      ...["--clickhouse-url", clickhouse.url, "--data-dir", dataDir],
      ...["--id", name, "--flush-interval", "50ms"],
    ],
    add: async (...bodies: (string | Uint8Array)[]) => {
      await Promise.all(bodies.map((body) => redis.call("XADD", name, "*", "data", body)));
    },
    /** As many, and no number twice. */
    stored: (count: number) =>
      eventually(async () => {
        const found = await clickhouse.query(`SELECT count(), uniqExact(n) FROM ${name}`);
        assert.equal(found, `${count}\t${count}`);
      }, { withinMs: 30_000 }),
    acknowledged: () =>
      eventually(async () => {
        const [group] = await redis.call("XINFO", "GROUPS", name) as (string | number)[][];
        const facts = Object.fromEntries(
          Array.from(
            { length: group!.length / 2 },
            (_, at) => [group![2 * at], group![2 * at + 1]],
          ),
        );
        assert.deepEqual([facts["pending"], facts["lag"]], [0, 0]);
      }, { withinMs: 30_000 }),
    remove: () => removeDir(join(dataDir, "..")),
  };
}

const rows = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, at) => `{"n":${from + at}}`);
const sourceOf = async (shishi: Shishi) => (await shishi.status()).sources?.[0];
const isRunning = (shishi: Shishi) =>
  soon(async () => assert.equal((await sourceOf(shishi))?.state, "running"));

test("rows, events, poison and nothing: what is stored, shown, counted, and read again", async () => {
  const of = await place();
  const shishi = await startShishi({
    args: [
      ...of.args,
      ...["--source", of.url("&meta=_id")],
      ...["--source", `${redis.url}?list=events-of-all&meta=_key`],
    ],
  });
  try {
    const event = '{"eventType":"click","userId":"u1","properties":{"a":1}}';
    await redis.call("LPUSH", "events-of-all", event);
    await of.add(...rows(1, 3), '{"n":-1}', Uint8Array.of(0xff), "[]", '[{"n":4},{"n":5}]');
    await of.stored(5);
    await of.acknowledged();
    await soon(async () =>
      assert.equal(
        await clickhouse.query("SELECT event_type, user_id, properties FROM analytics_events"),
        "click\tu1\t{'_key':'events-of-all','a':'1'}",
      )
    );
    const { sources, state, ledger } = await shishi.status();
    assert.equal(state, "running");
    assert.deepEqual(
      sources.map((
        { name, state, why, unacked, rows, dead, repeated }: Record<string, unknown>,
      ) => ({
        name,
        state,
        why,
        unacked,
        rows,
        dead,
        repeated,
      })),
      [
        { name: `redis:${of.name}`, rows: 5, dead: 2 },
        { name: "redis:events-of-all", rows: 1, dead: 0 },
      ].map((one) => ({ ...one, state: "running", why: null, unacked: 0, repeated: 0 })),
    );
    assert.equal(ledger.dead, 2);
    assert.equal(ledger.received, ledger.rejected + ledger.stored + ledger.dead + ledger.held);
    const metrics = (await shishi.get("/metrics")).text;
    for (
      const line of [
        `shishi_source_messages_total{source="redis:${of.name}",result="dead"} 2`,
        `shishi_source_messages_total{source="redis:${of.name}",result="empty"} 1`,
        `shishi_source_rows_total{source="redis:${of.name}"} 5`,
        `shishi_source_state{source="redis:${of.name}",state="running"} 1`,
      ]
    ) assert.ok(metrics.includes(`${line}\n`), line);

    const { json: { letters } } = await shishi.get(`/api/dead?table=${of.name}`);
    assert.equal(letters.length, 2);
    const [bytes, text] = letters[0].base64 ? letters : letters.toReversed();
    assert.equal(bytes.row, "/w==");
    assert.equal(text.row, '{"n":-1}');
    assert.match(text.message, /^n: -1 does not fit UInt32/);
    assert.match(text.address, new RegExp(`${of.name}.*\\d+-\\d+`));

    // Its column has changed: what was no row is one.
    await clickhouse.query(`ALTER TABLE ${of.name} MODIFY COLUMN n Int32`);
    await soon(async () => {
      const replayed = await shishi.post("", { path: `/api/dead/replay?table=${of.name}` });
      assert.equal(replayed.json.stored, 1, replayed.text);
    });
    await of.stored(6);
    const shown = await runShishi(["dead", "ls", "--data-dir", of.dataDir]);
    assert.match(shown.stdout, new RegExp(`${of.name} +1 `), shown.stdout + shown.stderr);
  } finally {
    await shishi.close();
    of.remove();
  }
});

test("killed -9 over and over: each row once", async () => {
  const of = await place();
  try {
    let last = 0;
    for (let round = 0; round < 3; round++) {
      const shishi = await startShishi({ args: [...of.args, "--source", of.url()] });
      await of.add(...rows(last + 1, last += 500));
      // In the midst of them, as chance has it.
      await soon(async () => assert.ok((await sourceOf(shishi))?.rows > 0));
      await shishi.close();
    }
    const shishi = await startShishi({ args: [...of.args, "--source", of.url()] });
    await of.stored(last);
    await of.acknowledged();
    await shishi.close();
  } finally {
    of.remove();
  }
});

test("a stop acknowledges what was taken, and ends", async () => {
  const of = await place();
  const shishi = await startShishi({ args: [...of.args, "--source", of.url()] });
  try {
    await of.add(...rows(1, 10));
    await of.stored(10);
    shishi.signal("SIGTERM");
    assert.equal((await shishi.exited).code, 0, shishi.stderr());
    await of.acknowledged();
  } finally {
    await shishi.close();
    of.remove();
  }
});

test("a broker that is away: degraded, ready all the same, and HTTP goes on", async () => {
  const of = await place();
  const own = await startRedis();
  const source = `${own.url}?list=away&table=${of.name}`;
  const args = [...of.args, "--tables", of.name, "--source", source];
  const shishi = await startShishi({ args });
  try {
    await isRunning(shishi);
    await own.kill();
    await soon(async () => assert.equal((await sourceOf(shishi))?.state, "waiting"));
    const { state, sources: [{ why }] } = await shishi.status();
    assert.equal(state, "degraded");
    assert.ok(why.length > 5, why);
    assert.equal((await shishi.get("/readyz")).status, 200);
    assert.equal((await shishi.post({ n: 1 }, { path: `/events/${of.name}` })).status, 202);
    await of.stored(1);
    await own.start();
    await own.call("LPUSH", "away", '{"n":2}');
    await of.stored(2);
    await soon(async () => assert.equal((await shishi.status()).state, "running"));
  } finally {
    await shishi.close();
    await own.close();
    of.remove();
  }
});

test("a reload: what is new begins, what has gone ends, the others go on", async () => {
  const [one, other] = [await place(), await place()];
  const file = join(one.dataDir, "..", "shishi.toml");
  const write = (...urls: string[]) => writeFileSync(file, `sources = ${JSON.stringify(urls)}\n`);
  write(one.url());
  const shishi = await startShishi({ args: [...one.args, "--config", file] });
  try {
    await one.add(...rows(1, 5));
    await one.stored(5);
    write(one.url(), other.url());
    shishi.signal("SIGHUP");
    await other.add(...rows(1, 5));
    await other.stored(5);
    write(other.url());
    shishi.signal("SIGHUP");
    await soon(async () => {
      const names = (await shishi.status()).sources.map(({ name }: { name: string }) => name);
      assert.deepEqual(names, [`redis:${other.name}`]);
    });
    const connected = shishi.lines().filter(({ message }) => message === "a source is connected");
    assert.equal(connected.length, 2, "each has connected once");
    await one.add(...rows(6, 6));
    await other.add(...rows(6, 6));
    await other.stored(6);
    await one.stored(5);
    writeFileSync(file, "");
    shishi.signal("SIGHUP");
    await soon(async () => assert.equal((await shishi.status()).sources, undefined));
  } finally {
    await shishi.close();
    one.remove();
    other.remove();
  }
});

describe("an upgrade", () => {
  test("the old process leaves the broker before the new one reads; each row once", async () => {
    const of = await place();
    const shishi = await startShishi({
      args: [...of.args, "--source", of.url(), "--log-format", "json"],
    });
    try {
      await of.add('{"n":0}');
      await isRunning(shishi);
      const adding = (async () => {
        for (let n = 1; n <= 1000; n += 20) {
          await of.add(...rows(n, n + 19));
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      })();
      shishi.signal("SIGUSR2");
      await soon(() => assert.equal(followers(shishi).length, 1));
      await adding;
      await ended(shishi, 1);
      await of.add(...rows(1001, 1020));
      await of.stored(1021);
      await of.acknowledged();
      const { text } = await ask(shishi, "GET", "/api/status");
      assert.match(text, /"state":"running"/);
      const order = shishi.lines().map(({ message }) => String(message))
        .filter((message) => /^stopped|^a source is connected/.test(message));
      assert.deepEqual(order.map((message) => message.split(" ")[0]), ["a", "stopped", "a"]);
    } finally {
      await closeAll(shishi);
      of.remove();
    }
  });
});
