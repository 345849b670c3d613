/** The HTTP interface on a scripted intake: statuses, headers, and what is told to whom. */

import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";
import { columnsOf } from "../kit/columns.ts";
import { settle } from "../kit/manual_clock.ts";
import { plainTable } from "../../src/admit/gate.ts";
import { answerOf, appOn, ask, bytesOf, post, Script } from "./kit.ts";

const GOOD = '{"eventType":"click","userId":"u1"}';
const MIXED = `${GOOD}\n{"eventType":5}\n${GOOD}\n`;

test("202: rows go to the intake as one chunk", async () => {
  const script = new Script();
  const { status, headers, body } = await post(appOn(script), "/events", MIXED);
  assert.equal(status, 202);
  assert.deepEqual(body, {
    accepted: 2,
    rejected: 1,
    ack: "memory",
    errors: [{ index: 1, error: "eventType: expected a string, got 5" }],
  });
  assert.equal(headers.get("content-type"), "application/json");
  assert.equal(headers.get("x-content-type-options"), "nosniff");
  const [chunk] = script.chunks;
  assert.equal(script.chunks.length, 1);
  assert.deepEqual([chunk!.table, chunk!.shape, chunk!.rows], ["analytics_events", "event", 2]);
  assert.deepEqual([...chunk!.types], [["click", 2]]);
  assert.deepEqual(script.rejected, ["analytics_events invalid 1"]);
  assert.deepEqual([script.acknowledged, script.statuses], [1, [202]]);
  assert.equal(script.reserved, 0);
});

test("the Content-Type does not matter, and no body has to say its length", async () => {
  const script = new Script();
  const app = appOn(script);
  const type = { "content-type": "application/x-www-form-urlencoded" };
  assert.equal((await post(app, "/events", GOOD, type)).status, 202);
  const parts = [bytesOf(GOOD.slice(0, 10)), bytesOf(GOOD.slice(10))];
  assert.equal((await post(app, "/events", ReadableStream.from(parts))).status, 202);
  assert.equal(script.chunks.length, 2);
  assert.equal(script.reserved, 0);
});

test("the ack is what was reached", async () => {
  const script = new Script();
  script.reached = "disk";
  assert.equal((await post(appOn(script), "/events", GOOD)).body.ack, "disk");
});

for (
  const [name, path, headers] of [
    ["Prefer", "/events", { prefer: "handling=strict" }],
    ["?strict=1", "/events?strict=1", {}],
  ] as const
) {
  test(`strict by ${name}: one bad row refuses all`, async () => {
    const script = new Script();
    const app = appOn(script);
    const answer = await post(app, path, MIXED, headers);
    assert.equal(answer.status, 400);
    assert.deepEqual([answer.body.accepted, answer.body.rejected], [0, 3]);
    assert.equal(answer.body.errors.length, 1);
    assert.deepEqual(script.rejected, ["analytics_events invalid 1", "analytics_events strict 2"]);
    assert.equal(script.chunks.length, 0);
    const applied = name === "Prefer" ? "handling=strict" : null;
    assert.equal(answer.headers.get("preference-applied"), applied);
    const good = await post(app, path, GOOD, headers);
    assert.equal(good.status, 202);
    assert.equal(good.headers.get("preference-applied"), applied);
  });
}

test("?strict=0 is not strict", async () => {
  assert.equal((await post(appOn(new Script()), "/events?strict=0", MIXED)).status, 202);
});

test("ack=clickhouse waits for the insert: 200, with the dead ones", async () => {
  const script = new Script();
  const waits: number[] = [];
  script.settled = (ms) => {
    waits.push(ms);
    return Promise.resolve({ dead: 1 });
  };
  const app = appOn(script, { ack: "clickhouse", insertTimeoutMs: 7000 });
  const { status, headers, body } = await post(app, "/events", GOOD);
  assert.equal(status, 200);
  assert.deepEqual(body, { accepted: 1, rejected: 0, ack: "clickhouse", dead: 1, errors: [] });
  assert.equal(headers.get("preference-applied"), null);
  assert.deepEqual(waits, [7000]);
});

test("ack=clickhouse, not inserted in time: 202 with what was reached", async () => {
  const script = new Script();
  script.settled = () => Promise.resolve(null);
  script.reached = "disk";
  const { status, body } = await post(appOn(script, { ack: "clickhouse" }), "/events", GOOD);
  assert.equal(status, 202);
  assert.equal(body.ack, "disk");
});

test("Prefer: wait=N waits N seconds at most, and says so", async () => {
  const script = new Script();
  const waits: number[] = [];
  script.settled = (ms) => {
    waits.push(ms);
    assert.equal(script.reserved, 0, "nothing is reserved while an answer waits");
    return Promise.resolve(ms > 0 ? { dead: 0 } : null);
  };
  const app = appOn(script);
  const stored = await post(app, "/events", GOOD, { prefer: "wait=2, handling=strict" });
  assert.equal(stored.status, 200);
  assert.deepEqual(stored.body, { accepted: 1, rejected: 0, ack: "clickhouse", errors: [] });
  assert.equal(stored.headers.get("preference-applied"), "handling=strict, wait=2");
  const late = await post(app, "/events", GOOD, { prefer: "wait=0" });
  assert.equal(late.status, 202);
  assert.equal(late.headers.get("preference-applied"), "wait=0");
  assert.deepEqual(waits, [2000, 0]);
});

for (const [why, status] of [["full", 429], ["closed", 503]] as const) {
  test(`${status}: the intake is ${why}, nothing counts`, async () => {
    const script = new Script();
    script.refuse = { kind: "refused", why, reason: "because", retryAfterS: 1.2 };
    const answer = await post(appOn(script), "/events", MIXED);
    assert.equal(answer.status, status);
    assert.deepEqual(answer.body, { error: "because" });
    assert.equal(answer.headers.get("retry-after"), "2");
    assert.deepEqual([script.rejected, script.acknowledged], [[], 0]);
    assert.deepEqual([script.statuses, script.reserved], [[status], 0]);
  });
}

test("429 before the body is read, when its length tells that there is no room; 413 goes before", async () => {
  const script = new Script();
  script.refuse = { kind: "refused", why: "full", reason: "because", retryAfterS: 1 };
  script.foreseenBytes = 1000;
  const app = appOn(script);
  const unread = () => new ReadableStream<Uint8Array>({ pull() {} }, { highWaterMark: 0 });
  const full = await post(app, "/events", unread(), { "content-length": "1001" });
  assert.deepEqual([full.status, full.body.error], [429, "because"]);
  const large = await post(app, "/events", unread(), { "content-length": "1048577" });
  assert.equal(large.status, 413);
  assert.deepEqual([script.statuses, script.reserved, script.acknowledged], [[429, 413], 0, 0]);
});

for (const why of ["stopping", "paused"] as const) {
  test(`503 before the body is read: ${why}`, async () => {
    const script = new Script();
    script.closed = why;
    const unread = new ReadableStream<Uint8Array>({ pull() {} }, { highWaterMark: 0 });
    const answer = await post(appOn(script), "/events", unread);
    assert.equal(answer.status, 503);
    assert.match(answer.body.error, new RegExp(why));
    assert.ok(Number(answer.headers.get("retry-after")) >= 1);
  });
}

test("429 when there is no room for the body, sent or unpacked", async () => {
  const script = new Script();
  const app = appOn(script);
  script.room = 10;
  const streams = [GOOD, ReadableStream.from([bytesOf(GOOD)])];
  for (const body of streams) {
    const answer = await post(app, "/events", body);
    assert.equal(answer.status, 429);
    assert.equal(answer.headers.get("retry-after"), "1");
  }
  script.room = 1000;
  const packed = zlib.gzipSync(bytesOf(GOOD));
  assert.equal((await post(app, "/events", packed, { "content-encoding": "gzip" })).status, 429);
  assert.equal(script.reserved, 0);
  assert.equal((await post(app, "/events", GOOD)).status, 202);
});

test("rows of a table", async () => {
  const script = new Script();
  script.columns = columnsOf(["date", "delay"]);
  const app = appOn(script);
  const { status, body } = await post(app, "/events/flights", '{"delay":1}\n{"zip":2}\n');
  assert.equal(status, 202);
  assert.deepEqual(body.errors, [{
    index: 1,
    error: "zip: no column of flights, which has date, delay",
  }]);
  const { table, shape, rows, fingerprint, types } = script.chunks[0]!;
  assert.deepEqual([table, shape, rows, fingerprint, types.size], ["flights", "row", 1, "f", 0]);
  assert.deepEqual(script.rejected, ["flights invalid 1"]);
});

test("rows are taken while the columns cannot be asked", async () => {
  const script = new Script();
  assert.equal((await post(appOn(script), "/events/flights", '{"zip":2}')).status, 202);
  assert.equal(script.chunks[0]!.fingerprint, null);
});

test("404: a table that is not there, not allowed, no name, or the one for events", async () => {
  const script = new Script();
  script.columns = "missing";
  const app = appOn(script, { tables: ["*"] });
  const narrow = appOn(script);
  const cases: readonly (readonly [string, RegExp])[] = [
    ["/events/flights", /no table flights/],
    ["/events/analytics_events", /use POST \/events$/],
    ["/events/a%2Fb", /not one of the tables/],
    ["/events/events", /no table events; for analytics events use POST \/events$/],
    ["/events/" + "x".repeat(200), /not one of the tables/],
    ["/events/%60; DROP TABLE x", /not one of the tables/],
    ["/events/%ff", /not one of the tables/],
  ];
  for (const [path, error] of cases) {
    const answer = await post(app, path, "{}");
    assert.equal(answer.status, 404, path);
    assert.match(answer.body.error, error);
    assert.ok(answer.body.error.length < 200);
  }
  assert.equal((await post(narrow, "/events/other", "{}")).status, 404);
  const { body } = await post(narrow, "/events/events", "{}");
  assert.match(body.error, /not one of the tables .*; for analytics events use POST \/events$/);
  assert.equal(script.chunks.length, 0);
});

test("a plain path goes past the router, and means what the router would have read", async () => {
  const names = ["flights", "my-events", "a.b", "2026_log", "A_Z-09", "x"];
  for (const name of names) {
    assert.equal(plainTable(`http://host:1/events/${name}`), name);
    const taken: string[] = [];
    // An escape that means the same letter is the router's.
    const escaped = `%${name.charCodeAt(0).toString(16)}${name.slice(1)}`;
    for (const path of [name, escaped, `${name}?strict=0`]) {
      const script = new Script();
      await post(appOn(script, { tables: ["*", "a.b"] }), `/events/${path}`, '{"zip":2}');
      taken.push(...script.chunks.map(({ table }) => table));
    }
    assert.deepEqual(taken, [name, name, name]);
  }
  assert.equal(plainTable("https://host/events"), "");
  for (
    const url of [
      "http://host/events/",
      "http://host/events/a/",
      "http://host/events/a/b",
      "http://host/events?strict",
      "http://host/events/a?strict",
      "http://host/events/%61",
      "http://host/x/events/a",
      "http://host/eventsa",
      "http://events/a",
      "http://host",
      "/events/a",
    ]
  ) assert.equal(plainTable(url), null, url);
});

test("403, 409: a table that can never take rows", async () => {
  const script = new Script();
  const app = appOn(script);
  for (const [why, status] of [["right", 403], ["kind", 409]] as const) {
    script.columns = { ...columnsOf(["a"]), takesNone: { why, reason: `flights ${why}` } };
    const answer = await post(app, "/events/flights", '{"a":1}');
    assert.deepEqual([answer.status, answer.body.error], [status, `flights ${why}`]);
  }
  assert.equal(script.chunks.length, 0);
});

test("names that ClickHouse has not confirmed are bounded", async () => {
  const script = new Script();
  const app = appOn(script, { tables: ["*", "mine"] });
  const statuses = new Map<number, number>();
  const once = async (table: string) => (await post(app, `/events/${table}`, '{"a":1}')).status;
  for (let n = 0; n < 1000; n++) {
    const status = await once(`t${n}`);
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  assert.deepEqual([...statuses], [[202, 100], [503, 900]]);
  assert.equal(await once("t5"), 202, "one of those that were first");
  assert.equal(await once("mine"), 202, "one that is named in tables");
  script.columns = columnsOf(["a"]);
  assert.equal(await once("t999"), 202, "one that is there");
  assert.equal(await once("t5"), 202);
  script.columns = "unknown";
  assert.equal(await once("t1000"), 202, "in the place of one that turned out to be there");
  assert.equal(await once("t1001"), 503);
});

test("a table's name may be anything that ClickHouse takes, percent-encoded in the path", async () => {
  const script = new Script();
  const app = appOn(script, { tables: ["my-events", "2026_log", "Ünï", "other.t", "a b"] });
  for (const table of ["my-events", "2026_log", "Ünï", "other.t", "a b"]) {
    const answer = await post(app, `/events/${encodeURIComponent(table)}`, '{"a":1}');
    assert.equal(answer.status, 202, table);
    assert.equal(script.chunks.at(-1)?.table, table);
  }
  assert.equal((await post(app, "/events/system.t", '{"a":1}')).status, 404);
});

test("401 without the right token, on everything but health", async () => {
  const script = new Script();
  const app = appOn(script, { authTokens: ["secret", "other"] });
  const paths: readonly (readonly [string, string, number])[] = [
    ["POST", "/events", 202],
    ["POST", "/events/flights", 202],
    ["GET", "/metrics", 200],
    ["GET", "/api/status", 200],
  ];
  for (const [method, path, good] of paths) {
    const statusOf = async (headers: Record<string, string>) =>
      await answerOf(
        await ask(app, path, { method, headers, ...(method === "POST" ? { body: GOOD } : {}) }),
      );
    for (const headers of [{}, { authorization: "Bearer wrong" }] as Record<string, string>[]) {
      const answer = await statusOf(headers);
      assert.equal(answer.status, 401, path);
      assert.match(answer.headers.get("www-authenticate")!, /^Bearer\b/);
      assert.doesNotMatch(JSON.stringify(answer.body), /secret|wrong/);
    }
    assert.equal((await statusOf({ authorization: "Bearer other" })).status, good, path);
  }
  for (const path of ["/healthz", "/readyz"]) assert.equal((await ask(app, path)).status, 200);
});

test("health, readiness, metrics, status", async () => {
  const script = new Script();
  const app = appOn(script);
  const get = async (path: string, method = "GET") =>
    await answerOf(await ask(app, path, { method }));
  assert.equal((await get("/healthz")).status, 200);
  assert.deepEqual((await get("/readyz")).body, { ready: true, reasons: [] });
  script.unready = ["clickhouse"];
  const unready = await get("/readyz");
  assert.deepEqual([unready.status, unready.body], [503, {
    ready: false,
    reasons: ["clickhouse"],
  }]);
  assert.equal((await get("/healthz")).status, 200);
  const metrics = await get("/metrics");
  assert.equal(metrics.body, "shishi_up 1\n");
  assert.match(metrics.headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
  assert.equal((await get("/api/status")).body.state, "running");
  assert.equal((await ask(app, "/healthz", { method: "HEAD" })).status, 200);
  assert.equal(await (await ask(app, "/metrics", { method: "HEAD" })).text(), "");
});

const METHODS: readonly (readonly [string, string, string])[] = [
  ["GET", "/events", "POST"],
  ["PUT", "/events", "POST"],
  ["OPTIONS", "/events", "POST"],
  ["DELETE", "/events/flights", "POST"],
  ["POST", "/healthz", "GET, HEAD"],
  ["POST", "/readyz", "GET, HEAD"],
  ["DELETE", "/metrics", "GET, HEAD"],
  ["POST", "/api/status", "GET, HEAD"],
];
for (const [method, path, allowed] of METHODS) {
  test(`405: ${method} ${path}`, async () => {
    const answer = await answerOf(await ask(appOn(new Script()), path, { method }));
    assert.equal(answer.status, 405);
    assert.equal(answer.headers.get("allow"), allowed);
    assert.equal(answer.body.error, `${path} takes ${allowed}, not ${method}`);
  });
}

test("404 in JSON for an unknown path, however long", async () => {
  for (const path of ["/event", "/events/a/b", "/api", "/x".repeat(2000)]) {
    const answer = await answerOf(await ask(appOn(new Script()), path));
    assert.equal(answer.status, 404, path);
    assert.ok(answer.body.error.length < 200);
  }
});

test("an exception is a 500 that tells nothing, and a line in the log", async () => {
  const script = new Script();
  const app = appOn(script);
  Object.defineProperty(script, "chunks", {
    get() {
      throw new Error("/secret/path");
    },
  });
  const answer = await post(app, "/events", GOOD);
  assert.deepEqual([answer.status, answer.body], [500, { error: "internal error" }]);
  assert.equal(script.logged.length, 1);
  assert.deepEqual([script.reserved, script.statuses], [0, [500]]);
});

for (const [how, rows] of [["at once", 1], ["in slices", 100_000]] as const) {
  test(`rows that cannot be decoded for want of memory hold no room: ${how}`, async () => {
    const script = new Script();
    const names = new Set<string>();
    names.has = () => {
      throw new RangeError("Array buffer allocation failed");
    };
    script.columns = { ...columnsOf([]), names };
    const answer = await post(appOn(script), "/events/flights", '{"a":1}\n'.repeat(rows));
    assert.equal(answer.status, 500);
    assert.deepEqual([script.reserved, script.chunks.length], [0, 0]);
  });
}

test("408: a body that does not arrive in time holds nothing any longer", async () => {
  for (const length of [{}, { "content-length": "100" }] as Record<string, string>[]) {
    const script = new Script();
    let push: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => void (push = controller),
    });
    const answering = post(appOn(script, { bodyTimeoutMs: 5000 }), "/events", body, length);
    for (let second = 0; second < 4; second++) {
      push!.enqueue(bytesOf("{"));
      await script.clock.advance(1000);
    }
    assert.ok(script.reserved > 0);
    await script.clock.advance(1001);
    const answer = await answering;
    assert.equal(answer.status, 408);
    await settle();
    assert.deepEqual([script.reserved, script.clock.pending, script.chunks.length], [0, 0, 0]);
  }
});

test("a client that goes away leaves nothing behind", async () => {
  for (const length of [{}, { "content-length": "100" }] as Record<string, string>[]) {
    const script = new Script();
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(bytesOf(GOOD + "\n")),
      pull: (controller) => controller.error(new Error("connection reset")),
    }, { highWaterMark: 0 });
    const answer = await post(appOn(script), "/events", body, length);
    assert.equal(answer.status, 400);
    assert.deepEqual([script.reserved, script.chunks.length], [0, 0]);
  }
});
