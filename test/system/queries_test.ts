/**
 * `GET /api/metrics` and `GET /api/events` from end to end: what was posted is found again by every
 * parameter, whatever it is called; and neither a slow ClickHouse nor an old one costs the writes anything.
 * Runs once: test/deliver/ has both runtimes.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import type { Question } from "../../src/contracts.ts";
import { createQueries, MOST_QUESTIONS, selectEvents } from "../../src/deliver/questions.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { deliverTo, never } from "../deliver/kit.ts";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse, startOldClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { ready } from "./around.ts";
import { startIn, WAIT } from "./database.ts";
import { createPlain, good, postLines } from "./rows.ts";

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());

const query = (parameters: Readonly<Record<string, string | number>>) =>
  `?${new URLSearchParams(Object.entries(parameters).map(([n, v]) => [n, String(v)]))}`;

interface Found {
  readonly events: { eventType: string; timestamp: string; userId: string; id: string }[];
}

test("what was posted is found by type, time and id, the newest first", async () => {
  const shishi = await startIn(clickhouse, "found");
  try {
    const id = "01890A5D-AC96-774B-BCCE-B302099A8057";
    const at = (day: number) => `2026-01-0${day}T00:00:00.000Z`;
    const posted = [
      { eventType: "click", userId: "u1", timestamp: at(2) },
      { eventType: "buy", userId: "u1", timestamp: at(3), id },
      { eventType: "click", userId: "u2", timestamp: at(1) },
      { eventType: "click", timestamp: at(4) },
    ];
    const odd = '{"eventType":"odd","properties":{"n":18446744073709551615,"t":"a\\nb\\u0000"}}';
    const lines = [...posted.map((event) => JSON.stringify(event)), odd].join("\n");
    assert.equal((await shishi.post(lines, WAIT)).status, 200);
    const times = async (parameters: Record<string, string | number>) => {
      const answer = await shishi.get(`/api/events${query(parameters)}`);
      assert.equal(answer.status, 200, answer.text);
      return (answer.json as Found).events.map(({ timestamp }) => timestamp);
    };
    const january = { from: "2026-01-01", to: "2026-02-01" };
    assert.deepEqual(await times(january), [at(4), at(3), at(2), at(1)]);
    assert.deepEqual(await times({ ...january, limit: 2 }), [at(4), at(3)]);
    assert.deepEqual(await times({ ...january, eventType: "click" }), [at(4), at(2), at(1)]);
    // From the first moment on, before the last, however they are written.
    assert.deepEqual(await times({ from: Date.parse(at(2)), to: at(4) }), [at(3), at(2)]);
    assert.deepEqual(await times({ from: "2026-01-02T02:00:00+02:00", to: at(3) }), [at(2)]);
    assert.deepEqual(await times({ id: id.toLowerCase() }), [at(3)]);
    assert.deepEqual(await times({ id, ...january, eventType: "click" }), []);
    assert.deepEqual(await times({ to: at(4) }), [at(3)], "a day before `to`");

    const counted = await shishi.get(`/api/metrics${query(january)}`);
    assert.deepEqual(counted.json, {
      counts: { click: 3, buy: 1 },
      users: 2,
      period: { from: at(1), to: "2026-02-01T00:00:00.000Z" },
    });
    const clicks = await shishi.get(`/api/metrics${query({ ...january, eventType: "click" })}`);
    assert.deepEqual([clicks.json.counts, clicks.json.users], [{ click: 3 }, 2]);
    const today = await shishi.get("/api/events");
    assert.deepEqual(today.json.events[0].properties, {
      n: "18446744073709551615",
      t: "a\nb\u0000",
    });
    // Without encoding the plus of a zone comes as a blank.
    const plus = await shishi.get("/api/events?from=2026-01-02T02:00:00+02:00&to=2026-01-03");
    assert.equal(plus.json.events.length, 1, plus.text);
  } finally {
    await shishi.close();
  }
});

/** The room itself, on a ClickHouse. */
function queriesOn(urls: readonly string[], table: string) {
  const deliver = deliverTo(urls);
  const queries = createQueries({
    ask: deliver.ask,
    clock: systemClock,
    source: () => ({ database: "default", table }),
  });
  return { deliver, queries };
}

const EVER: Question = { eventType: null, id: null, fromMs: null, toMs: null };

test("any text is the type of exactly the events that have it", async () => {
  await clickhouse.query(
    "CREATE TABLE default.named (id UUID, timestamp DateTime64(3, 'UTC'), " +
      "event_type LowCardinality(String), user_id String, " +
      "properties Map(LowCardinality(String), String)) ENGINE = Memory",
  );
  const { deliver, queries } = queriesOn(
    [`http://127.0.0.1:${await freePort()}`, clickhouse.url],
    "named",
  );
  const texts = fc.oneof(
    fc.string({ minLength: 1, maxLength: 20, unit: "grapheme" }),
    fc.array(
      fc.constantFrom("'", "\\", "\n", "\t", "\0", "\b", "{a:String}", "%", "--", "é", "N"),
      {
        minLength: 1,
        maxLength: 6,
      },
    ).map((parts) => parts.join("")),
  );
  const types = [...new Set(fc.sample(texts, { numRuns: 25, seed: 7 }))];
  const rows = types.map((event_type) => JSON.stringify({ event_type })).join("\n");
  await clickhouse.query(`INSERT INTO default.named FORMAT JSONEachRow ${rows}`);
  for (const eventType of types) {
    const answer = await queries.metrics({ ...EVER, eventType }, never);
    assert.equal(answer.kind, "answer", JSON.stringify([eventType, answer]));
    const { counts } = JSON.parse((answer as { json: string }).json);
    assert.deepEqual(Object.entries(counts), [[eventType, 1]]);
  }
  await deliver.close();
});

test("the server itself holds to the limits: time, size of the answer, and reading only", async () => {
  const { deliver } = queriesOn([clickhouse.url], "named");
  const { settings } = selectEvents({ database: "default", table: "named" }, { ...EVER, limit: 1 });
  const code = async (sql: string, more = {}) => {
    const select = { sql, format: "JSON" as const, params: {}, settings: { ...settings, ...more } };
    const answer = await deliver.ask(select, never);
    return answer.ok ? 0 : answer.code;
  };
  const slow = "SELECT sleepEachRow(0.3) FROM numbers(9)";
  assert.equal(await code(slow, { max_execution_time: 1, max_block_size: 1 }), 159);
  assert.equal(await code("SELECT repeat('x', 1000000 - number) FROM numbers(9)"), 396);
  assert.equal(await code("SELECT groupArray(number) FROM numbers(1000000000)"), 241);
  assert.equal(await code("INSERT INTO default.named (event_type) VALUES ('x')"), 164);
  await deliver.close();
});

test("no table, an old server: a sentence that says so", async () => {
  const missing = queriesOn([clickhouse.url], "nowhere");
  const answer = await missing.queries.metrics(EVER, never);
  const reason = "clickhouse: there is no table default.nowhere";
  assert.deepEqual(answer, { kind: "away", reason });
  await missing.deliver.close();
  const old = await startOldClickHouse();
  const { deliver, queries } = queriesOn([old.url], "analytics_events");
  try {
    for (
      const ask of [queries.metrics(EVER, never), queries.events({ ...EVER, limit: 1 }, never)]
    ) {
      const answer = await ask as { kind: string; reason: string };
      assert.equal(answer.kind, "away");
      assert.match(answer.reason, /needs ClickHouse 21\.8 or newer .* this server is 18\.16/);
    }
  } finally {
    await deliver.close();
    await old.close();
  }
});

/** Questions that ClickHouse works on. */
async function working(): Promise<number> {
  return Number(
    await clickhouse.query(
      "SELECT count() FROM system.processes WHERE query LIKE '%eventType%' AND query NOT LIKE '%processes%'",
    ),
  );
}

test("questions hang: writes go on, more questions are refused, and who leaves ends his own", async () => {
  await clickhouse.query(
    "CREATE VIEW default.slow AS SELECT generateUUIDv4() AS id, " +
      "now64(3, 'UTC') - toIntervalMillisecond(1 + number % 1000) AS timestamp, " +
      "'a' AS event_type, '' AS user_id, map('a', 'b') AS properties FROM system.numbers " +
      "WHERE sleep(0.1) = 0",
  );
  await createPlain(clickhouse, "default.plain");
  const shishi: Shishi = await startShishi({
    args: ["--clickhouse-url", clickhouse.url, "--table=slow", "--tables=plain"]
      .concat("--flush-interval=50ms"),
  });
  try {
    await ready(shishi);
    const leaving = new AbortController();
    const { signal } = leaving;
    const hanging = Array.from(
      { length: MOST_QUESTIONS },
      () => fetch(`${shishi.url}/api/events`, { signal }).then(() => "answered", () => "left"),
    );
    await eventually(async () => assert.equal(await working(), MOST_QUESTIONS), {
      withinMs: 10_000,
    });
    const more = await shishi.get("/api/metrics");
    assert.equal(more.status, 429, more.text);
    assert.ok(Number(more.headers.get("retry-after")) >= 1);
    for (let n = 0; n < 5; n++) {
      const answer = await postLines(shishi, "plain", [good(n)], { prefer: "wait=30" });
      assert.equal(answer.status, 200, answer.text);
    }
    assert.equal(await working(), MOST_QUESTIONS, "they hang still");
    leaving.abort();
    assert.deepEqual(new Set(await Promise.all(hanging)), new Set(["left"]));
    // By themselves they would go on for longer.
    await eventually(async () => assert.equal(await working(), 0), { withinMs: 5_000 });
    const { ledger, state } = await shishi.status();
    assert.deepEqual([ledger.stored, ledger.held, state], [5, 0, "running"]);
    assert.equal(await clickhouse.query("SELECT count() FROM default.plain"), "5");
  } finally {
    await shishi.close();
  }
});
