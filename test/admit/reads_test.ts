/**
 * The parameters of a question: what they may be, what is made of them, and every problem at once.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { done, failed } from "../../src/kernel/result.ts";
import { answerOf, appOn, ask, NOW_MS, Script, UUID } from "./kit.ts";

const DAY_MS = 24 * 3600 * 1000;

function start() {
  const script = new Script();
  // The clock stands still.
  Object.assign(script.clock, { nowMs: () => NOW_MS });
  const app = appOn(script);
  const get = async (path: string) => await answerOf(await ask(app, path));
  const replay = async (body: string) =>
    await answerOf(await ask(app, "/api/dead/replay", { method: "POST", body }));
  const purge = async (query: string) =>
    await answerOf(await ask(app, `/api/dead${query}`, { method: "DELETE" }));
  return { script, app, get, replay, purge };
}

const NOTHING = { eventType: null, id: null };
const LAST_DAY = { ...NOTHING, fromMs: NOW_MS - DAY_MS, toMs: NOW_MS };

describe("what is asked for", () => {
  const cases: [string, unknown][] = [
    ["/api/metrics", LAST_DAY],
    ["/api/metrics?", LAST_DAY],
    ["/api/metrics?eventType=a%26b", { ...LAST_DAY, eventType: "a&b" }],
    ["/api/events", { ...LAST_DAY, limit: 100 }],
    ["/api/events?limit=1000", { ...LAST_DAY, limit: 1000 }],
    [`/api/events?id=${UUID}`, { eventType: null, id: UUID, fromMs: null, toMs: null, limit: 100 }],
    [
      `/api/events?id=${UUID}&to=2024-01-01`,
      { eventType: null, id: UUID, fromMs: NOW_MS - DAY_MS, toMs: NOW_MS, limit: 100 },
    ],
    ["/api/metrics?from=0", { ...NOTHING, fromMs: 0, toMs: NOW_MS }],
    ["/api/metrics?to=-1", { ...NOTHING, fromMs: -1000 - DAY_MS, toMs: -1000 }],
    [
      "/api/metrics?from=2023-06-01%2001:00:00.5&to=2023-06-02T00:00+02",
      { ...NOTHING, fromMs: 1685581200500, toMs: 1685656800000 },
    ],
    // An unencoded plus.
    ["/api/metrics?from=2023-06-01T02:00+02:00", {
      ...NOTHING,
      fromMs: Date.UTC(2023, 5, 1),
      toMs: NOW_MS,
    }],
  ];
  for (const [path, wanted] of cases) {
    test(path, async () => {
      const { script, get } = start();
      assert.equal((await get(path)).status, 200);
      assert.deepEqual(script.questions, [wanted]);
    });
  }

  test("dead letters", async () => {
    const { script, get, replay, purge } = start();
    await get("/api/dead");
    await get("/api/dead?table=flights&limit=5");
    script.replaying = done({
      ...{ stored: 0, dead: 0, left: 0, reasons: [], problems: [] },
      retryAfterS: null,
    });
    await replay("");
    await replay(' {"table":"flights","ids":["a.1"]} ');
    assert.deepEqual(script.questions, [
      [null, 50],
      ["flights", 5],
      { table: null, ids: null, code: null, beforeMs: null },
      { table: "flights", ids: ["a.1"], code: null, beforeMs: null },
    ]);
    script.questions.length = 0;
    assert.deepEqual((await get("/api/dead?id=a.1")).body, { letters: [], total: 0 });
    await get("/api/dead/tables");
    await get("/api/dead/tables?table=flights&code=27&before=2024-01-01");
    await replay('{"code":27,"before":"2024-01-01T00:00:00Z"}');
    assert.deepEqual((await purge("?all=true")).body, { letters: 2, damaged: 1, bound: 0 });
    await purge("?table=t&code=0&before=1&damaged=true");
    const beforeMs = Date.UTC(2024, 0, 1);
    assert.deepEqual(script.questions, [
      [null, "a.1"],
      { table: null, code: null, beforeMs: null },
      { table: "flights", code: 27, beforeMs },
      { table: null, ids: null, code: 27, beforeMs },
      [{ table: null, code: null, beforeMs: null }, false],
      [{ table: "t", code: 0, beforeMs: 1000 }, true],
    ]);
  });

  test("dead letters as lines", async () => {
    const { script, app } = start();
    const answer = await ask(app, "/api/dead/letters?table=t&limit=1000000");
    assert.equal(answer.headers.get("content-type"), "application/x-ndjson");
    assert.equal(await answer.text(), "{}\n[]\n");
    assert.deepEqual(script.questions, [[{ table: "t", code: null, limit: 1_000_000 }, 1_000_000]]);
    assert.equal(await (await ask(app, "/api/dead/letters", { method: "HEAD" })).text(), "");
  });

  test("dead letters of one folder only: those of another are not touched", async () => {
    const { script, app } = start();
    const asked = async (folder: string, path: string, method = "GET") =>
      (await ask(app, path, { method, headers: { "Shishi-Folder": folder } })).status;
    for (const path of ["/api/dead", "/api/dead/tables", "/api/dead/letters"]) {
      assert.equal(await asked("64769:12", path), 200);
      assert.equal(await asked("64769:13", path), 421);
    }
    script.questions.length = 0;
    assert.equal(await asked("64769:13", "/api/dead?all=true", "DELETE"), 421);
    assert.equal(await asked("64769:13", "/api/dead/replay", "POST"), 421);
    assert.deepEqual(script.questions, []);
  });
});

describe("what is wrong is named, with what was found and what was wanted", () => {
  const time =
    "expected ISO 8601, epoch seconds or epoch milliseconds between 1900-01-01 and 2299-12-31, got";
  const cases: [string, string][] = [
    [
      "/api/metrics?from=yesterday&to=2024-02-30&limit=5",
      `from: ${time} yesterday; to: ${time} 2024-02-30; ` +
      "limit: unknown parameter; there are eventType, from, to",
    ],
    [
      "/api/events?limit=0&id=5&eventType=&from=2024-01-02&to=2024-01-02",
      "limit: expected a whole number from 1 to 1000, got 0; id: expected a UUID, got 5; " +
      "eventType: expected a non-empty string, got nothing; from: expected a time before to " +
      "(2024-01-02T00:00:00.000Z), got 2024-01-02T00:00:00.000Z",
    ],
    ["/api/events?limit=1&limit=2", "limit: expected once, got another one: 2"],
    ["/api/events?limit=1e2", "limit: expected a whole number from 1 to 1000, got 1e2"],
    [
      "/api/metrics?from=2024-06-01",
      "from: expected a time before to (2024-01-01T00:00:00.000Z), got 2024-06-01T00:00:00.000Z",
    ],
    ["/api/metrics?__proto__=1", "__proto__: unknown parameter; there are eventType, from, to"],
    [
      "/api/dead?table=a;b&limit=501",
      "table: expected the name of a table, got a;b; " +
      "limit: expected a whole number from 1 to 500, got 501",
    ],
  ];
  for (const [path, error] of cases) {
    test(path, async () => {
      const { script, get } = start();
      const answer = await get(path);
      assert.deepEqual([answer.status, answer.body], [400, { error }]);
      assert.deepEqual(script.questions, []);
    });
  }

  const bodies: [string, RegExp][] = [
    ["[1]", /^expected nothing, or an object such as .*, got \[1\]$/],
    ["null", /got null$/],
    ["{", /^the body is not JSON; expected nothing, or an object/],
    [
      '{"table":5,"ids":[],"all":true}',
      /^all: unknown key; there are table, ids, code, before; table: expected .*, got 5; ids: expected 1 to 500 ids of letters, got \[\]$/,
    ],
    [
      '{"code":"many","before":"yesterday"}',
      /^code: expected a whole number .*, got "many"; before: expected ISO 8601, .*, got "yesterday"$/,
    ],
    [`{"ids":[${"1,".repeat(600)}1]}`, /^ids: expected 1 to 500 ids of letters, got \[1,1,/],
  ];
  for (const [body, error] of bodies) {
    test(`replay ${body.slice(0, 40)}`, async () => {
      const { script, replay } = start();
      const answer = await replay(body);
      assert.equal(answer.status, 400);
      assert.match(answer.body.error, error);
      assert.ok(answer.body.error.length < 500);
      assert.deepEqual(script.questions, []);
    });
  }
});

test("what is to be deleted has to be said", async () => {
  const { script, purge } = start();
  for (
    const [query, error] of [
      ["", "expected table or all=true, got neither"],
      ["?all=false", "expected table or all=true, got neither"],
      ["?table=t&all=true", "expected table or all=true, got both"],
      [
        "?table=a;b&damaged=yes",
        "table: expected the name of a table, got a;b; " +
        "damaged: expected true or false, got yes",
      ],
    ] as const
  ) {
    const answer = await purge(query);
    assert.deepEqual([answer.status, answer.body], [400, { error }]);
  }
  script.purging = failed("a replay is under way");
  assert.equal((await purge("?all=true")).status, 409);
});

test("an error of the disk is told without its path, and logged", async () => {
  const { script, replay } = start();
  const answer = await replay("");
  assert.deepEqual([answer.status, answer.headers.get("retry-after")], [503, "5"]);
  assert.ok(!JSON.stringify(answer.body).includes("/a/path"));
  const told = script.logged.filter((line) => /dead letters cannot be/.test(line));
  assert.equal(told.length, 1);
});

test("replaying while paused or stopping is refused as writing is", async () => {
  for (const closed of ["paused", "stopping"] as const) {
    const { script, replay } = start();
    script.closed = closed;
    assert.equal((await replay("")).status, 503);
    assert.deepEqual(script.questions, []);
  }
});
