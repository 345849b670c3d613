/**
 * Once, on a table that remembers few INSERTs: answers are lost, INSERTs outlast their time, the collector
 * dies, and fresh rows keep coming.
 * Runs once: what is sent again under which token is no affair of the runtime.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type LosingProxy, startLosingProxy } from "../kit/losing_proxy.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { drained } from "../crash/drained.ts";
import { assertDelivered } from "./books.ts";

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());

const POISON = 1_000_000;

/** A table with a window of 5 (none: 0), and one that is well. */
async function tablesOf(database: string, window = 5): Promise<void> {
  await clickhouse.query(`CREATE DATABASE ${database}`);
  for (const [table, remembers] of [["t", window], ["other", 100]] as const) {
    await clickhouse.query(
      `CREATE TABLE ${database}.${table} (id UInt32) ENGINE = MergeTree ORDER BY id ` +
        `SETTINGS non_replicated_deduplication_window = ${remembers}`,
    );
  }
}

function start(database: string, urls: readonly string[], ...more: string[]): Promise<Shishi> {
  return startShishi({
    args: [
      ...["--clickhouse-url", urls.map((url) => `${url}/${database}`).join(",")],
      ...["--tables", "t,other", "--flush-interval", "20ms", "--compress", "none", ...more],
    ],
  });
}

async function post(shishi: Shishi, table: string, id: number): Promise<void> {
  const answer = await shishi.post({ id }, { path: `/events/${table}` });
  assert.equal(answer.status, 202, answer.text);
}

/** Rows that keep coming, one a batch, to both tables, until `enough` says so. */
async function flood(shishi: Shishi, enough: () => boolean, from = 0): Promise<number> {
  let id = from;
  for (; !enough(); id++) {
    await post(shishi, "t", id);
    await post(shishi, "other", id);
    await pause(80);
  }
  return id;
}

/** Every id that was posted is there once. */
async function allOnce(database: string, shishi: Shishi, ids: number): Promise<void> {
  await eventually(() => assertDelivered(shishi), { withinMs: 60_000 });
  const found = await clickhouse.query(
    `SELECT count(), uniqExact(id), countIf(id = ${POISON}) FROM ${database}.t`,
  );
  assert.equal(found, `${ids + 1}\t${ids + 1}\t1`);
}

const isPoison = (rows: string) => rows.includes(String(POISON));

/** Loses the answers of the poison, `times` times in all; then it passes. */
function losing(proxy: LosingProxy, times: number): { lost: number } {
  const count = { lost: 0 };
  proxy.fateOf = ({ rows }) => {
    if (!isPoison(rows) || count.lost >= times) return "pass";
    count.lost++;
    return "lose";
  };
  return count;
}

/** How many INSERTs into a table came between the first of the poison and the last. */
function whileInDoubt({ seen }: LosingProxy): (table: string) => number {
  const from = seen.findIndex(({ rows }) => isPoison(rows));
  const between = seen.slice(from, seen.findLastIndex(({ rows }) => isPoison(rows)));
  return (of) => between.filter(({ table, rows }) => table === of && !isPoison(rows)).length;
}

describe("a batch whose answers are lost, on a table that remembers 5 INSERTs", () => {
  test("is there once, the fresh ones too; another table does not wait", async () => {
    await tablesOf("lost");
    const proxy = await startLosingProxy(clickhouse.url);
    const shishi = await start("lost", [proxy.url]);
    try {
      const count = losing(proxy, 7);
      await post(shishi, "t", POISON);
      const ids = await flood(shishi, () => count.lost >= 7);
      assert.ok(ids > 20, `${ids} rows beside it prove nothing`);
      await allOnce("lost", shishi, ids);
      const meanwhile = whileInDoubt(proxy);
      assert.ok(meanwhile("t") <= 2, `${meanwhile("t")} INSERTs passed it`);
      assert.ok(meanwhile("other") > 10, `${meanwhile("other")} INSERTs into the other table`);
    } finally {
      await shishi.close();
      await proxy.close();
    }
  });

  test("without a window it goes before anything fresh", async () => {
    await tablesOf("windowless", 0);
    const proxy = await startLosingProxy(clickhouse.url);
    const shishi = await start("windowless", [proxy.url]);
    try {
      let lost = 0;
      // It does not reach ClickHouse, which the collector cannot know.
      proxy.fateOf = ({ rows }) => isPoison(rows) && ++lost <= 5 ? "refuse" : "pass";
      await post(shishi, "t", POISON);
      // What was under way beside it is no matter.
      await eventually(() => assert.ok(lost >= 2), { withinMs: 10_000 });
      const ids = await flood(shishi, () => lost > 5);
      await allOnce("windowless", shishi, ids);
      assert.equal(whileInDoubt(proxy)("t"), 0);
    } finally {
      await shishi.close();
      await proxy.close();
    }
  });

  test("also when another server takes turns, as a replica of the first", async () => {
    await tablesOf("replicas");
    const [one, two] = [
      await startLosingProxy(clickhouse.url),
      await startLosingProxy(clickhouse.url),
    ];
    const shishi = await start("replicas", [one.url, two.url]);
    try {
      const count = losing(one, 5);
      two.fateOf = ({ rows }) => isPoison(rows) && count.lost < 5 ? "refuse" : "pass";
      await post(shishi, "t", POISON);
      const ids = await flood(shishi, () => count.lost >= 5);
      await allOnce("replicas", shishi, ids);
    } finally {
      await shishi.close();
      await one.close();
      await two.close();
    }
  });

  test("also when the collector is killed meanwhile", async () => {
    await tablesOf("killed");
    const dataDir = tempDir("once");
    const proxy = await startLosingProxy(clickhouse.url);
    const again = () => start("killed", [proxy.url], "--data-dir", dataDir);
    let shishi = await again();
    try {
      const count = losing(proxy, 6);
      await post(shishi, "t", POISON);
      let ids = await flood(shishi, () => count.lost >= 2);
      await shishi.close();
      shishi = await again();
      ids = await flood(shishi, () => count.lost >= 6, ids);
      await allOnce("killed", shishi, ids);
    } finally {
      await shishi.close();
      await proxy.close();
      removeDir(dataDir);
    }
  });
});

test("INSERTs that outlast insert-timeout get longer: nothing is sent for ever", async () => {
  await clickhouse.query("CREATE DATABASE slow");
  await clickhouse.query(
    "CREATE TABLE slow.t (id UInt32) ENGINE = MergeTree ORDER BY id " +
      "SETTINGS non_replicated_deduplication_window = 5",
  );
  await clickhouse.query(
    "CREATE MATERIALIZED VIEW slow.v ENGINE = MergeTree ORDER BY id AS SELECT id, sleep(3) AS z FROM slow.t",
  );
  const shishi = await start("slow", [clickhouse.url], "--insert-timeout", "1s");
  try {
    for (let id = 0; id < 12; id++) {
      await post(shishi, "t", id);
      await pause(500);
    }
    await eventually(() => assertDelivered(shishi), { withinMs: 60_000 });
    assert.equal(await clickhouse.query("SELECT count(), uniqExact(id) FROM slow.t"), "12\t12");
    // The log folds what comes after it.
    const [first] = shishi.lines().filter(({ message }) =>
      /outlast insert-timeout/.test(`${message}`)
    );
    assert.equal(first?.["now_ms"], 2000);
    const { text } = await shishi.get("/metrics");
    const value = (name: string) =>
      Number(new RegExp(`^${name}\\{[^}]*\\} (\\d+)$`, "m").exec(text)?.[1]);
    // Doubled each time, until what sleeps for 3 s has time; a busy server may need more.
    const seconds = value("shishi_insert_timeout_seconds");
    assert.ok(seconds >= 4 && Number.isInteger(Math.log2(seconds)), `${seconds} s`);
    // What was under way when the time was too short may be in the view again, and no more.
    const failed = value("shishi_insert_errors_total");
    const inView = Number(await clickhouse.query("SELECT count() FROM slow.v"));
    assert.ok(inView >= 12 && inView <= 12 * (failed + 1), `${inView} rows in the view`);
  } finally {
    await shishi.close();
  }
});

test("a smaller max-block-size after a restart goes for what is held; after kill -9 in the middle as well", async () => {
  await tablesOf("smaller", 1000);
  const dataDir = tempDir("once");
  const proxy = await startLosingProxy(clickhouse.url);
  const begin = (rows: string, ...more: string[]) =>
    start("smaller", [proxy.url], "--data-dir", dataDir, "--max-block-size", rows, ...more);
  const seen: number[] = [];
  let passing = 0;
  proxy.fateOf = ({ table, rows }) => {
    // It stands before the other one, which is not sent.
    if (table !== "t") return new Promise(() => {});
    seen.push(rows.split("\n").length - 1);
    return passing-- > 0 ? "pass" : "refuse";
  };
  let shishi = await begin("1000", "--concurrency", "1");
  try {
    const rows = Array.from({ length: 600 }, (_, id) => ({ id }));
    assert.equal((await shishi.post(rows, { path: "/events/other" })).status, 202);
    await eventually(() => assert.equal(proxy.seen.length, 1), { withinMs: 10_000 });
    assert.equal((await shishi.post(rows, { path: "/events/t" })).status, 202);
    await shishi.close();
    assert.equal(seen.length, 0);
    passing = 2;
    shishi = await begin("100");
    await eventually(() => assert.ok(seen.length >= 3), { withinMs: 20_000 });
    await shishi.close();
    proxy.fateOf = ({ table, rows }) => {
      if (table === "t") seen.push(rows.split("\n").length - 1);
      return "pass";
    };
    shishi = await begin("50");
    await drained(shishi);
    assert.equal(
      await clickhouse.query("SELECT count(), uniqExact(id) FROM smaller.t"),
      "600\t600",
    );
    assert.equal(await clickhouse.query("SELECT count() FROM smaller.other"), "600");
    // It goes on in the pieces that it was begun with.
    assert.deepEqual(new Set(seen), new Set([100]));
  } finally {
    await shishi.close();
    await proxy.close();
    removeDir(dataDir);
  }
});
