/**
 * The mirror against a real InfluxDB: what it says adds up to what ClickHouse holds, whatever happened
 * to InfluxDB meanwhile, and ingest does not notice.
 * Runs once: test/meter/ has both runtimes.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, type Influx, startClickHouse, startInflux } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually, patient, pause } from "../kit/wait.ts";
import { ledgerAtEnd, says, stopBy } from "./around.ts";

/** What the line protocol could stumble over is among them. */
const TYPES = ["click", "page view", "a,b=c", 'quote"d', "größe ☂", "back\\slash"];

/** `accepted` and `stored` by event type; those without a type under `""`. */
type Sums = Record<string, { accepted: number; stored: number }>;

describe("the mirror", () => {
  let clickhouse: ClickHouse;
  let influx: Influx;
  before(async () => {
    [clickhouse, influx] = await Promise.all([startClickHouse(), startInflux()]);
  });
  after(async () => {
    await Promise.all([clickhouse.close(), influx.close()]);
  });

  const start = (table: string, interval: string) =>
    startShishi({
      args: ["--flush-interval", "200ms", "--influx-interval", interval, "--id", table],
      env: {
        SHISHI_CLICKHOUSE_URL: clickhouse.url,
        SHISHI_TABLE: table,
        SHISHI_TABLES: "plain",
        SHISHI_INFLUX_URL: `${influx.url}/${table}`,
      },
    });

  async function mirrored(database: string, where = ""): Promise<Sums> {
    const rows = await influx.query(
      database,
      `SELECT sum(accepted) AS accepted, sum(stored) AS stored FROM shishi_events ${where}
       GROUP BY event_type`,
    );
    return Object.fromEntries(rows.map(({ event_type, accepted, stored }) => [
      String(event_type),
      { accepted: Number(accepted), stored: Number(stored) },
    ]));
  }

  async function inClickHouse(table: string): Promise<Sums> {
    const text = await clickhouse.query(
      `SELECT event_type, count() AS n FROM ${table} GROUP BY event_type FORMAT JSONCompactEachRow`,
    );
    return Object.fromEntries(
      text.split("\n").map((line) => {
        const [type, count] = JSON.parse(line) as [string, string];
        return [type, { accepted: Number(count), stored: Number(count) }];
      }),
    );
  }

  async function stopped(shishi: Shishi): Promise<Record<string, unknown>> {
    const { code, tookMs } = await stopBy(shishi);
    assert.equal(code, 0, shishi.stderr());
    assert.ok(tookMs < patient(4_000), `took ${tookMs} ms`);
    return ledgerAtEnd(shishi);
  }

  test("12 s at 2,000 rows/s, InfluxDB killed for 6 s of them: every count is there once", async () => {
    const table = "outage";
    const shishi = await start(table, "1s");
    try {
      const startedMs = performance.now();
      const loading = load({
        url: shishi.url,
        clients: 8,
        events: 24_000,
        eventsPerRequest: 10,
        rowsPerSecond: 2_000,
        eventTypes: TYPES,
      });
      await eventually(async () => {
        assert.ok(Object.keys(await mirrored(table)).length === TYPES.length);
      }, { withinMs: 10_000, everyMs: 200 });
      await influx.kill();
      await pause(6_000);
      await influx.start();
      await says(shishi, "InfluxDB takes the counts again");
      const books = await loading;
      const tookMs = performance.now() - startedMs;

      assert.deepEqual([...books.statuses.keys()], [202]);
      assert.equal(books.acknowledged.size, 24_000);
      assert.ok(tookMs < patient(15_000), `the clients were held up: ${tookMs} ms`);
      assert.equal((await stopped(shishi))["stored"], 24_000);
      const stored = await storedIds(clickhouse, table);
      assert.deepEqual(compare(books, stored), { missing: 0, doubled: 0, uninvited: 0 });
      const sums = await mirrored(table);
      assert.deepEqual(sums, await inClickHouse(table));
      const total = Object.values(sums).reduce((sum, { stored }) => sum + stored, 0);
      assert.equal(total, 24_000);
    } finally {
      await shishi.close();
    }
  });

  test("InfluxDB absent at start: the counts come when it does", async () => {
    await influx.kill();
    const shishi = await start("absent", "300ms");
    try {
      const events = TYPES.flatMap((eventType) => [{ eventType }, { eventType }]);
      assert.equal((await shishi.post(events)).status, 202);
      // The report that fails holds the counts.
      await says(shishi, "InfluxDB does not take the counts; they are kept");
      await influx.start();
      await eventually(async () => {
        const sums = await mirrored("absent");
        assert.deepEqual(
          sums,
          Object.fromEntries(TYPES.map((type) => [type, { accepted: 2, stored: 2 }])),
        );
      }, { withinMs: 15_000, everyMs: 100 });
      assert.deepEqual(await mirrored("absent"), await inClickHouse("absent"));
      await stopped(shishi);
    } finally {
      await shishi.close();
    }
  });

  test("the last counts are written at the stop", async () => {
    await clickhouse.query("CREATE TABLE plain (n UInt32) ENGINE = MergeTree ORDER BY n");
    const shishi = await start("last", "1h");
    try {
      assert.equal((await shishi.post(TYPES.map((eventType) => ({ eventType })))).status, 202);
      assert.equal(
        (await shishi.post([{ n: 1 }, { n: 2 }], { path: "/events/plain" })).status,
        202,
      );
      await stopped(shishi);
      assert.deepEqual(
        await mirrored("last", `WHERE "table" = 'last'`),
        await inClickHouse("last"),
      );
      assert.deepEqual(await mirrored("last", `WHERE "table" = 'plain'`), {
        "": { accepted: 2, stored: 2 },
      });
      const [series] = await influx.query("last", "SELECT * FROM shishi_events LIMIT 1");
      assert.deepEqual([series?.["group"], series?.["id"]], ["default", "last"]);
    } finally {
      await shishi.close();
    }
  });

  test("a token in the URL goes to InfluxDB 2 and 3 as they want it, and to nobody else", async () => {
    const token = "aB-9_zzz+Q==";
    const fake = await startFakeInflux(null);
    fake.behave(({ path }) =>
      path.startsWith("/query") ? { status: 200, body: '{"results":[{"statement_id":0}]}' } : "pass"
    );
    const env = {
      SHISHI_CLICKHOUSE_URL: clickhouse.url,
      SHISHI_INFLUX_URL: fake.url.replace("//", `//:${encodeURIComponent(token)}@`) + "/metrics",
    };
    let shishi: Shishi | null = null;
    try {
      const checked = await runShishi(["check"], { env });
      assert.match(checked.stdout, /influxdb http:\S+\/metrics: .*takes counts/);
      shishi = await startShishi({ args: ["--influx-interval", "200ms"], env });
      await shishi.post({ eventType: "click" });
      await eventually(() => assert.ok(fake.seen.some(({ body }) => body.includes("click"))), {
        withinMs: 10_000,
      });
      await stopped(shishi);
      const told = checked.stdout + checked.stderr + shishi.stderr();
      assert.ok(!told.includes("zzz"), told);
      assert.ok(fake.seen.every(({ headers }) => headers.authorization === `Token ${token}`));
      assert.deepEqual(
        new Set(fake.seen.map(({ method, path }) => `${method} ${path}`)),
        new Set(["POST /write?db=metrics"]),
      );
    } finally {
      await shishi?.close();
      await fake.close();
    }
  });

  test("shishi_collector tells about the collector itself", async () => {
    const shishi = await start("itself", "200ms");
    try {
      await shishi.post([{ eventType: "a" }, { eventType: "b" }]);
      await eventually(async () => {
        const [sum] = await influx.query(
          "itself",
          "SELECT sum(inserts) AS n FROM shishi_collector",
        );
        assert.equal(sum?.["n"], 1);
      }, { withinMs: 10_000, everyMs: 100 });
      const points = await influx.query("itself", "SELECT * FROM shishi_collector");
      for (const point of points) {
        assert.deepEqual(Object.keys(point).sort(), [
          "dead",
          "group",
          "held",
          "held_bytes",
          "id",
          "insert_ms_p50",
          "insert_ms_p99",
          "inserts",
          "lost",
          "name",
          "oldest_s",
          "rejected",
          "retries",
          "rss_bytes",
          "spool_bytes",
          "time",
        ]);
        for (const [field, value] of Object.entries(point)) {
          assert.notEqual(value, null, `${field} of ${JSON.stringify(point)}`);
        }
        assert.ok(Number(point["rss_bytes"]) > 1e6);
      }
      assert.ok(Number(points.at(-1)?.["insert_ms_p99"]) > 0);
      const types = await influx.query("itself", "SHOW FIELD KEYS FROM shishi_collector");
      const floats = types.filter((row) => row["fieldType"] === "float").map((row) =>
        row["fieldKey"]
      );
      assert.deepEqual(floats, ["insert_ms_p50", "insert_ms_p99", "oldest_s"]);
    } finally {
      await shishi.close();
    }
  });
});
