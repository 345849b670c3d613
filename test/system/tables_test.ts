/**
 * Tables that are missing, are dropped, come back or change while the collector runs.
 * Runs once: test/deliver/ and test/admit/ have both runtimes.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { assertDelivered } from "./books.ts";
import { SOON_MS, startIn, WAIT } from "./database.ts";

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());

test("create-table=false: the rows wait until somebody creates the table", async () => {
  const shishi = await startIn(
    clickhouse,
    "by_hand",
    "--create-table=false",
    "--flush-interval=50ms",
  );
  try {
    assert.equal((await shishi.post({ eventType: "early" })).status, 202);
    await eventually(async () => {
      const ready = await shishi.get("/readyz");
      assert.equal(ready.status, 503);
      assert.match(ready.json.reasons.join(), /table analytics_events: /);
    }, { withinMs: SOON_MS });
    assert.equal(await clickhouse.query("EXISTS TABLE by_hand.analytics_events"), "0");
    await clickhouse.query(
      "CREATE TABLE by_hand.analytics_events (id UUID, timestamp DateTime64(3, 'UTC'), " +
        "event_type String, user_id String, properties Map(String, String)) " +
        "ENGINE = MergeTree ORDER BY timestamp",
    );
    await eventually(() => assertDelivered(shishi), { withinMs: 10_000 });
    assert.equal(
      await clickhouse.query("SELECT event_type FROM by_hand.analytics_events"),
      "early",
    );
    assert.equal((await shishi.get("/readyz")).status, 200);
  } finally {
    await shishi.close();
  }
});

test("the table of events is created again when it is dropped", async () => {
  const shishi = await startIn(clickhouse, "dropped", "--flush-interval=50ms");
  try {
    assert.equal((await shishi.post({ eventType: "before" }, WAIT)).status, 200);
    await clickhouse.query("DROP TABLE dropped.analytics_events SYNC");
    const answer = await shishi.post({ eventType: "after" }, WAIT);
    assert.equal(answer.status, 200, answer.text);
    assert.equal(
      await clickhouse.query("SELECT event_type FROM dropped.analytics_events"),
      "after",
    );
    assert.equal((await shishi.status()).state, "running");
  } finally {
    await shishi.close();
  }
});

test("a database that does not exist yet holds rows and loses none", async () => {
  const shishi = await startShishi({
    args: ["--clickhouse-url", `${clickhouse.url}/later`, "--flush-interval=50ms"],
  });
  try {
    assert.equal((await shishi.post({ eventType: "early" })).status, 202);
    await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 503), {
      withinMs: SOON_MS,
    });
    await clickhouse.query("CREATE DATABASE later");
    await eventually(() => assertDelivered(shishi), { withinMs: 10_000 });
    assert.equal(await clickhouse.query("SELECT event_type FROM later.analytics_events"), "early");
  } finally {
    await shishi.close();
  }
});

describe("other tables", () => {
  let shishi: Shishi;
  before(async () => {
    shishi = await startIn(clickhouse, "others", "--tables=flights,log_*", "--flush-interval=50ms");
  });
  after(() => shishi.close());

  test("a table that is missing is a 404; it is taken soon after it was created", async () => {
    const post = () => shishi.post({ a: 1 }, { path: "/events/log_new", ...WAIT });
    const missing = await post();
    assert.equal(missing.status, 404, missing.text);
    assert.match(missing.json.error, /log_new/);
    await clickhouse.query("CREATE TABLE others.log_new (a UInt32) ENGINE = MergeTree ORDER BY a");
    await eventually(async () => assert.equal((await post()).status, 200), { withinMs: 5_000 });
    assert.equal(await clickhouse.query("SELECT count() FROM others.log_new"), "1");
  });

  test("a table that was dropped is a 404 soon after, and taken again when it is back", async () => {
    const create = "CREATE TABLE others.log_old (a UInt32) ENGINE = MergeTree ORDER BY a";
    await clickhouse.query(create);
    const post = () => shishi.post({ a: 1 }, { path: "/events/log_old", ...WAIT });
    assert.equal((await post()).status, 200);
    await clickhouse.query("DROP TABLE others.log_old SYNC");
    const probe = () => shishi.post({ b: 1 }, { path: "/events/log_old" });
    await eventually(async () => assert.equal((await probe()).status, 404), { withinMs: 8_000 });
    await clickhouse.query(create);
    await eventually(async () => assert.equal((await post()).status, 200), { withinMs: 5_000 });
  });

  test("a column that was added is taken soon after", async () => {
    await clickhouse.query("CREATE TABLE others.log_wide (a UInt32) ENGINE = MergeTree ORDER BY a");
    const post = () => shishi.post({ a: 1, b: 2 }, { path: "/events/log_wide", ...WAIT });
    const narrow = await post();
    assert.equal(narrow.status, 400, narrow.text);
    assert.match(narrow.json.errors[0].error, /^b: no column of log_wide/);
    await clickhouse.query("ALTER TABLE others.log_wide ADD COLUMN b UInt8");
    await eventually(async () => assert.equal((await post()).status, 200), { withinMs: 8_000 });
    assert.equal(await clickhouse.query("SELECT a, b FROM others.log_wide"), "1\t2");
  });

  const refused: [path: string, status: number][] = [
    ["/events/not_allowed", 404],
    ["/events/log_%60;DROP%20TABLE%20x", 404],
    ["/events/analytics_events", 404],
    ["/events/flights/x", 404],
  ];
  for (const [path, status] of refused) {
    test(`POST ${path} → ${status}`, async () => {
      const answer = await shishi.post({ a: 1 }, { path });
      assert.equal(answer.status, status, answer.text);
    });
  }
});
