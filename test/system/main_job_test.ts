/** The main job, end to end: what is posted is in ClickHouse soon after, as the README says. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { testOnce } from "../kit/once.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { EVERY_BUILD, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually, patient } from "../kit/wait.ts";
import { assertDelivered, insertsSent, say } from "./books.ts";
import { startCounting } from "./counting.ts";
import { SOON_MS, startIn, WAIT } from "./database.ts";

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());

/** Every `curl -d … localhost:8080/PATH` of the README's quick start. */
function curlLines(): { body: string; path: string }[] {
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const lines = readme.matchAll(/^curl (?:-H '[^']+' )?-d '(.+)' localhost:8080(\/\S+)$/gm);
  return [...lines].map(([, body, path]) => ({ body: body!, path: path! }));
}

for (const binary of EVERY_BUILD) {
  test(`the README's curl lines, ${binary ? "the binary" : "from source"} with nothing but --clickhouse-url`, async () => {
    const shishi = await startShishi({ binary, args: ["--clickhouse-url", clickhouse.url] });
    try {
      const lines = curlLines().filter(({ path }) => path === "/events");
      assert.ok(lines.length >= 2, "the README shows how to post an event");
      const before = Date.now();
      for (const { body } of lines) {
        const headers = { "content-type": "application/x-www-form-urlencoded" };
        const answer = await shishi.post(body, { headers });
        assert.equal(answer.status, 202, answer.text);
        assert.deepEqual(answer.json, { accepted: 1, rejected: 0, ack: "disk", errors: [] });
      }
      const rows = await eventually(async () => {
        const text = await clickhouse.query(
          "SELECT id, toUnixTimestamp64Milli(timestamp) AS ms, event_type, user_id, properties " +
            "FROM analytics_events ORDER BY event_type DESC FORMAT JSONEachRow",
        );
        const rows = text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
        assert.equal(rows.length, lines.length);
        return rows;
      }, { withinMs: SOON_MS });
      const [click, buy] = rows;
      assert.equal(click.event_type, "click");
      assert.equal(click.user_id, "u1");
      assert.match(
        click.id,
        /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      );
      assert.ok(Number(click.ms) >= before && Number(click.ms) <= Date.now(), `${click.ms}`);
      assert.deepEqual(buy.properties, { price: "9.90", items: '["a","b"]' });
      await clickhouse.query("TRUNCATE TABLE analytics_events");
    } finally {
      await shishi.close();
    }
  });
}

describe("what is posted is what is stored", () => {
  let shishi: Shishi;
  before(async () => {
    shishi = await startIn(clickhouse, "forms", "--flush-interval=50ms");
  });
  after(() => shishi.close());

  const stored = async (type: string) => {
    const text = await clickhouse.query(
      "SELECT user_id, properties, toUnixTimestamp64Milli(timestamp) AS ms, id FROM forms.analytics_events " +
        `WHERE event_type = '${type}' ORDER BY user_id FORMAT JSONEachRow`,
    );
    return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  };

  const event = (type: string, user: string) => JSON.stringify({ eventType: type, userId: user });
  const forms: [name: string, body: (type: string) => string | Uint8Array, rows: number][] = [
    ["object", (type) => event(type, "a"), 1],
    ["array", (type) => `[${event(type, "a")}, ${event(type, "b")}]`, 2],
    ["pretty", (type) => `[\n  {\n    "eventType": "${type}",\n    "userId": "a"\n  }\n]\n`, 1],
    ["ndjson", (type) => ["a", "b", "c"].map((user) => event(type, user)).join("\n"), 3],
    ["crlf", (type) => ["a", "b"].map((user) => event(type, user)).join("\r\n") + "\r\n", 2],
    ["unicode", (type) => event(type, "a").replace('"a"', '"a→ä\\u00e9😀"'), 1],
  ];
  for (const [name, body, rows] of forms) {
    for (const encoding of ["plain", "gzip"]) {
      test(`${name}, ${encoding}`, async () => {
        const type = `${name}_${encoding}`;
        const bytes = body(type);
        const headers = { ...WAIT.headers, "content-type": "text/plain" };
        const answer = encoding === "gzip"
          ? await shishi.post(gzipSync(bytes), {
            headers: { ...headers, "content-encoding": "gzip" },
          })
          : await shishi.post(bytes, { headers });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(answer.json.accepted, rows);
        const users = (await stored(type)).map((row) => row.user_id);
        const wanted = name === "unicode" ? ["a→äé😀"] : ["a", "b", "c"].slice(0, rows);
        assert.deepEqual(users, wanted);
      });
    }
  }

  testOnce("every field given, and every digit of the properties kept", async () => {
    const id = crypto.randomUUID();
    const answer = await shishi.post(
      `{"id":"${id}","eventType":"digits","userId":"u","timestamp":"2026-01-02T03:04:05.678+01:00",` +
        '"properties":{"big":18446744073709551615,"price":1.50,"yes":true,"no":false,"nothing":null,' +
        '"nested":{"a":[1,2.0,{"b":null}]},"list":[1,"x"],"text":"a\\"b\\nc","":"empty"}}',
      WAIT,
    );
    assert.equal(answer.status, 200, answer.text);
    const [row] = await stored("digits");
    assert.equal(row.id, id);
    assert.equal(Number(row.ms), Date.UTC(2026, 0, 2, 2, 4, 5, 678));
    assert.deepEqual(row.properties, {
      big: "18446744073709551615",
      price: "1.50",
      yes: "true",
      no: "false",
      nothing: "",
      nested: '{"a":[1,2.0,{"b":null}]}',
      list: '[1,"x"]',
      text: 'a"b\nc',
      "": "empty",
    });
  });

  testOnce(
    "a row that is wrong costs itself alone, and the answer says which and why",
    async () => {
      const answer = await shishi.post(
        '[{"eventType":"mixed","userId":"a"},{"eventType":5},{"eventType":"mixed","userId":"c"},{"eventType":"mixed","colour":"red"}]',
        WAIT,
      );
      assert.equal(answer.status, 200, answer.text);
      assert.equal(answer.json.accepted, 2);
      assert.equal(answer.json.rejected, 2);
      assert.deepEqual(answer.json.errors.map((error: { index: number }) => error.index), [1, 3]);
      assert.match(answer.json.errors[1].error, /colour/);
      assert.deepEqual((await stored("mixed")).map((row) => row.user_id), ["a", "c"]);
    },
  );
});

test("ack=clickhouse: 200, and the row is there at once", async () => {
  const shishi = await startIn(
    clickhouse,
    "acked",
    "--ack",
    "clickhouse",
    "--flush-interval",
    "50ms",
  );
  try {
    for (let n = 1; n <= 5; n++) {
      const answer = await shishi.post({ eventType: "acked" });
      assert.equal(answer.status, 200, answer.text);
      assert.equal(answer.json.ack, "clickhouse");
      assert.equal(await clickhouse.query("SELECT count() FROM acked.analytics_events"), `${n}`);
    }
  } finally {
    await shishi.close();
  }
});

testOnce("Prefer: wait=N is named when it was honoured, and says how far a write got", async () => {
  const shishi = await startIn(clickhouse, "waited", "--flush-interval", "50ms");
  const nowhere = await startShishi({ args: ["--clickhouse-url", "http://127.0.0.1:9"] });
  try {
    const there = await shishi.post({ eventType: "a" }, WAIT);
    assert.equal(there.status, 200, there.text);
    assert.equal(there.headers.get("preference-applied"), "wait=30");
    assert.equal(await clickhouse.query("SELECT count() FROM waited.analytics_events"), "1");
    const began = performance.now();
    const away = await nowhere.post({ eventType: "a" }, { headers: { prefer: "wait=1" } });
    const tookMs = performance.now() - began;
    assert.equal(away.status, 202, away.text);
    assert.equal(away.json.ack, "disk");
    assert.ok(tookMs > 900 && tookMs < patient(3000), `${tookMs} ms`);
  } finally {
    await shishi.close();
    await nowhere.close();
  }
});

testOnce("idle-interval sends early, and cannot hold a stream back", async () => {
  const shishi = await startIn(clickhouse, "idle", "--flush-interval=2s", "--idle-interval=200ms");
  try {
    await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 200), {
      withinMs: SOON_MS,
    });
    const began = performance.now();
    const answer = await shishi.post({ eventType: "once" }, WAIT);
    const quietMs = performance.now() - began;
    assert.equal(answer.status, 200, answer.text);
    assert.ok(quietMs >= 190 && quietMs < patient(1500), `sent after ${quietMs} ms of silence`);
    const before = (await shishi.status()).ledger.stored;
    await eventually(async () => {
      await shishi.post({ eventType: "stream" });
      assert.ok((await shishi.status()).ledger.stored > before, "a stream is never flushed");
    }, { withinMs: 5_000, everyMs: 50 });
  } finally {
    await shishi.close();
  }
});

testOnce(
  "a batch is as full as whole requests make it, and what is left goes at the stop",
  async () => {
    const args = ["--tables=t", "--max-block-size=100", "--flush-interval=10m"];
    const shishi = await startIn(clickhouse, "exact", ...args);
    // Parts that are never merged show the INSERTs.
    await clickhouse.query(
      "CREATE TABLE exact.t (a UInt32) ENGINE = MergeTree ORDER BY a " +
        "SETTINGS max_bytes_to_merge_at_max_space_in_pool = 1, max_bytes_to_merge_at_min_space_in_pool = 1",
    );
    try {
      for (let sent = 0; sent < 1050; sent += 7) {
        const rows = Array.from({ length: 7 }, (_, at) => ({ a: sent + at }));
        assert.equal((await shishi.post(rows, { path: "/events/t" })).status, 202);
      }
      const parts = () =>
        clickhouse.query(
          "SELECT rows, count() FROM system.parts WHERE database = 'exact' AND active GROUP BY rows ORDER BY rows",
        );
      // 14 requests of 7 rows fit into 100.
      await eventually(async () => assert.equal(await parts(), "98\t10"), { withinMs: SOON_MS });
      assert.equal((await shishi.status()).ledger.held, 70);
      assert.equal(await insertsSent(shishi), 10);
      shishi.signal("SIGTERM");
      assert.deepEqual(await shishi.exited, { code: 0, signal: null });
      assert.equal(await parts(), "70\t1\n98\t10");
      assert.equal(
        await clickhouse.query("SELECT uniqExact(a), max(a) FROM exact.t"),
        "1050\t1049",
      );
    } finally {
      await shishi.close();
    }
  },
);

testOnce("concurrency: never more INSERTs at once, and as many when there is work", async () => {
  await clickhouse.query("CREATE DATABASE many");
  await clickhouse.query(
    "CREATE TABLE many.slow (a UInt32, b UInt8 MATERIALIZED sleepEachRow(0.02)) ENGINE = MergeTree ORDER BY a",
  );
  // Counted between the two: ClickHouse may still list an INSERT whose answer is out already.
  const between = await startCounting(clickhouse.url);
  const shishi = await startIn(
    { ...clickhouse, url: between.url },
    "many",
    "--tables=slow",
    "--concurrency=3",
    "--max-block-size=10",
    "--flush-interval=10m",
  );
  try {
    const rows = Array.from({ length: 240 }, (_, a) => ({ a }));
    assert.equal((await shishi.post(rows, { path: "/events/slow" })).status, 202);
    await eventually(() => assertDelivered(shishi), { withinMs: 20_000 });
    const { inserts, most } = between.counted();
    say("concurrency 3", { "most INSERTs at once": most, "INSERTs": inserts });
    assert.equal(most, 3);
    assert.ok(inserts >= 24, "a batch has 10 rows at most");
    assert.equal(await clickhouse.query("SELECT count(), uniqExact(a) FROM many.slow"), "240\t240");
  } finally {
    await shishi.close();
    await between.close();
  }
});
