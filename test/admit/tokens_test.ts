/** Tokens: who they are, what they may do, and how much of it. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { gzipSync } from "node:zlib";
import { createShared } from "../../src/admit/app.ts";
import { Accounts, createTokens } from "../../src/admit/tokens.ts";
import type { Refused } from "../../src/contracts.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { writersOf } from "../kit/write_tokens.ts";
import { answerOf, appOn, ask, post, Script } from "./kit.ts";

const EVENT = '{"eventType":"a"}';
const NDJSON = (rows: number) => `${EVENT}\n`.repeat(rows);
const DAY_MS = 86_400_000;
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe("a token is known", () => {
  const tokensOf = (auth: readonly string[], write = "") => {
    const writers = write === "" ? [] : writersOf(write);
    const accounts = new Accounts(new ManualClock());
    accounts.adopt(writers);
    return createTokens(auth, writers, accounts);
  };
  const asked = (header: string | null, query = "") =>
    new Request(
      `http://h/events${query}`,
      header === null ? {} : {
        headers: { authorization: header },
      },
    );
  const nameOf = (found: ReturnType<NonNullable<ReturnType<typeof tokensOf>>["ofWrite"]>) =>
    typeof found === "string" ? found : found.appender?.account.label ?? found.key.slice(0, 10);

  test("without tokens none is asked for", () => assert.equal(tokensOf([]), null));

  const ONE = "token 7692";
  const TWO = "token 3fc4";
  const AUTH: readonly (readonly [string | null, string])[] = [
    ["Bearer one", ONE],
    ["bearer two", TWO],
    ["Bearer  two ", TWO],
    ["Bearer web", "w"],
    ["Bearer three", "unknown"],
    ["Bearer on", "unknown"],
    ["Bearer one two", "unknown"],
    ["Basic one", "unknown"],
    ["one", "unknown"],
    ["Bearer ", "unknown"],
    ["", "unknown"],
    [null, "none"],
  ];
  for (const [header, wanted] of AUTH) {
    test(`Authorization: ${header}`, () => {
      const tokens = tokensOf(["one", "two"], "w:web")!;
      assert.equal(nameOf(tokens.inHeader(asked(header))), wanted);
      assert.equal(nameOf(tokens.ofWrite(asked(header))), wanted);
    });
  }

  const QUERIES: readonly (readonly [string, string])[] = [
    ["?token=web", "w"],
    ["?strict&token=%77eb&key=x", "w"],
    ["?token=one", "unknown"],
    ["?token=other", "unknown"],
    ["?token=", "unknown"],
    ["?tokens=web", "none"],
    ["", "none"],
  ];
  for (const [query, wanted] of QUERIES) {
    test(`in the address: ${query}`, () => {
      const tokens = tokensOf(["one"], "w:web")!;
      assert.equal(nameOf(tokens.ofWrite(asked(null, query))), wanted);
      assert.equal(tokens.inHeader(asked(null, query)), "none");
      // A header that is there counts alone.
      assert.equal(nameOf(tokens.ofWrite(asked("Bearer wrong", query))), "unknown");
    });
  }

  test("any token among any others, and none that differs in anything", () => {
    const token = fc.stringMatching(/^[!-+\--9<>-~]{1,40}$/);
    fc.assert(
      fc.property(fc.uniqueArray(token, { minLength: 1, maxLength: 20 }), fc.nat(), (all, at) => {
        const tokens = tokensOf(all)!;
        const one = all[at % all.length]!;
        const found = tokens.inHeader(asked(`Bearer ${one}`));
        assert.ok(typeof found === "object");
        for (const other of all) {
          const also = tokens.inHeader(asked(`Bearer ${other}`));
          assert.equal(typeof also === "object" && also.key === found.key, other === one);
        }
        for (const wrong of [`${one}x`, one.slice(1) + "~~", `x${one}`]) {
          if (!all.includes(wrong)) {
            assert.equal(tokens.inHeader(asked(`Bearer ${wrong}`)), "unknown");
          }
        }
      }),
    );
  });
});

/** Every path but `/events` and health, with a method that it takes. */
const ELSEWHERE: readonly (readonly [string, string])[] = [
  ["GET", "/metrics"],
  ["GET", "/api/status"],
  ["GET", "/api/metrics"],
  ["GET", "/api/events"],
  ["GET", "/api/dead"],
  ["GET", "/api/dead/tables"],
  ["GET", "/api/dead/letters?table=flights"],
  ["GET", "/api/live"],
  ["GET", "/openapi.json"],
  ["POST", "/api/dead/replay"],
  ["DELETE", "/api/dead?all=true"],
];

describe("what a write token may do", () => {
  const settings = {
    authTokens: ["all"],
    writeTokens: writersOf("web:w=events,log_* rows:r=flights any:a"),
  };
  const statusOf = async (token: string, path: string) => {
    const script = new Script();
    const answer = await post(appOn(script, settings), path, EVENT, bearer(token));
    assert.equal(script.chunks.length, answer.status === 202 ? 1 : 0);
    return answer.status;
  };

  test("to append to its tables, and to no other", async () => {
    for (
      const [token, path, wanted] of [
        ["w", "/events", 202],
        ["w", "/events?strict=1", 202],
        ["w", "/events/log_a", 202],
        ["w", "/events/flights", 403],
        ["w", "/events/elsewhere", 403],
        ["r", "/events", 403],
        ["r", "/events/flights", 202],
        ["r", "/events/log_a", 403],
        ["a", "/events", 202],
        ["a", "/events/flights", 202],
        ["a", "/events/elsewhere", 404],
        ["all", "/events", 202],
        ["all", "/events/log_a", 202],
        ["x", "/events", 401],
      ] as const
    ) assert.equal(await statusOf(token, path), wanted, `${token} ${path}`);
  });

  test("the table of events by its own name is as good as events", async () => {
    const script = new Script();
    const app = appOn(script, { writeTokens: writersOf("web:w=analytics_*") });
    assert.equal((await post(app, "/events", EVENT, bearer("w"))).status, 202);
  });

  test("the right to events is led on to where they go, by the name of their table", async () => {
    const app = appOn(new Script(), { writeTokens: writersOf("web:w=events no:n=log_*") });
    const { status, body } = await post(app, "/events/analytics_events", EVENT, bearer("w"));
    assert.equal(status, 404);
    assert.match(String((body as { error: string }).error), /use POST \/events$/);
    const other = await post(app, "/events/analytics_events", EVENT, bearer("n"));
    assert.equal(other.status, 403);
  });

  test("a refusal says whose token, which table, and which would be right", async () => {
    const script = new Script();
    const { status, body, headers } = await post(
      appOn(script, settings),
      "/events/flights?token=w",
      EVENT,
    );
    assert.equal(status, 403);
    assert.deepEqual(body, {
      error: "write-tokens: web may not write to flights, only to events, log_*",
    });
    assert.equal(headers.get("www-authenticate"), 'Bearer error="insufficient_scope"');
    assert.deepEqual(script.tokens, ["web right"]);
    // The log names it by its label, and has no query.
    assert.deepEqual(
      script.lines.map((line) => line.replace(/"request":"[^"]*",/, "")),
      [
        'a request was refused {"method":"POST","path":"/events/flights","client":"127.0.0.1",' +
        '"token":"web","status":403}',
      ],
    );
  });

  test("to read nothing, delete nothing, replay nothing", async () => {
    for (const [method, path] of ELSEWHERE) {
      const script = new Script();
      const app = appOn(script, settings);
      const answer = await answerOf(await ask(app, path, { method, headers: bearer("w") }));
      assert.equal(answer.status, 403, path);
      assert.equal(
        answer.body.error,
        "write-tokens: web may only append; this needs one of auth-tokens",
      );
      assert.deepEqual([script.tokens, script.questions], [["web right"], []]);
      // In the address it counts as none at all.
      const query = `${path}${path.includes("?") ? "&" : "?"}token=`;
      for (const token of ["w", "all"]) {
        const asked = await ask(app, query + token, { method });
        assert.equal(asked.status, 401, query + token);
      }
      assert.notEqual((await ask(app, path, { method, headers: bearer("all") })).status, 401);
    }
  });

  test("without auth-tokens nothing is read, and health answers", async () => {
    const app = appOn(new Script(), { writeTokens: settings.writeTokens });
    for (const [method, path] of ELSEWHERE) {
      for (const headers of [{}, bearer("x")]) {
        const answer = await answerOf(await ask(app, path, { method, headers }));
        assert.equal(answer.status, 401, path);
        assert.equal(
          answer.body.error,
          "auth-tokens is not set, and write-tokens may only append",
        );
      }
    }
    for (const path of ["/healthz", "/readyz"]) assert.equal((await ask(app, path)).status, 200);
    assert.equal((await post(app, "/events", EVENT)).status, 401);
  });

  test("a 401 names the settings that the token could stand in", async () => {
    const both = appOn(new Script(), settings);
    const error = async (app: typeof both, path: string) =>
      (await post(app, path, EVENT, bearer("x"))).body.error;
    assert.equal(
      await error(both, "/events"),
      "Authorization: the token is not one of auth-tokens or write-tokens",
    );
    assert.equal(
      await error(both, "/api/dead/replay"),
      "Authorization: the token is not one of auth-tokens",
    );
    assert.equal(
      await error(appOn(new Script(), { writeTokens: settings.writeTokens }), "/events"),
      "Authorization: the token is not one of write-tokens",
    );
  });

  test("a page of another origin can read each of these answers", async () => {
    const origin = "https://shop.example";
    const app = appOn(new Script(), {
      ...settings,
      writeTokens: writersOf("web:w=events;1/d"),
      corsOrigins: [origin],
    });
    for (
      const [path, wanted] of [
        ["/events?token=w", 202],
        ["/events?token=w", 429],
        ["/events/flights?token=w", 403],
        ["/events?token=x", 401],
      ] as const
    ) {
      const answer = await post(app, path, EVENT, { origin, "content-type": "text/plain" });
      assert.equal(answer.status, wanted, path);
      assert.equal(answer.headers.get("access-control-allow-origin"), origin);
    }
    const other = await post(app, "/events?token=w", EVENT, { origin: "https://other.example" });
    assert.equal(other.status, 403);
  });

  test("the rate limit counts a write token as one client, wherever it stands", async () => {
    const app = appOn(new Script(), { ...settings, rateLimit: { count: 2, periodMs: 1000 } });
    assert.equal((await post(app, "/events", EVENT, bearer("w"))).status, 202);
    assert.equal((await post(app, "/events?token=w", EVENT)).status, 202);
    assert.equal((await post(app, "/events", EVENT, bearer("w"))).status, 429);
    assert.equal((await post(app, "/events", EVENT, bearer("a"))).status, 202);
  });
});

describe("quotas", () => {
  /** Of the day that is, in UTC. */
  const passedMs = (script: Script) => script.clock.nowMs() % DAY_MS;

  test("rows: what fits is taken, the rest is refused until the period is over", async () => {
    const script = new Script();
    const app = appOn(script, { writeTokens: writersOf("web:w;5/s") });
    const send = (rows: number) => post(app, "/events", NDJSON(rows), bearer("w"));
    assert.equal((await send(3)).status, 202);
    const over = await send(3);
    assert.equal(over.status, 429);
    assert.equal(
      over.body.error,
      "write-tokens: web has a quota of 5/s (rows), and what is left of it is less than this request has; nothing was taken",
    );
    assert.equal(over.headers.get("retry-after"), "1");
    assert.equal((await send(2)).status, 202, "what is left can be used");
    assert.equal((await send(1)).status, 429);
    await script.clock.advance(1000);
    assert.equal((await send(5)).status, 202);
    assert.deepEqual(script.chunks.map(({ rows }) => rows), [3, 2, 5]);
    assert.deepEqual(script.tokens, [
      `web 3 ${NDJSON(3).length}`,
      "web quota",
      `web 2 ${NDJSON(2).length}`,
      "web quota",
      `web 5 ${NDJSON(5).length}`,
    ]);
  });

  test("what is used up is refused unread", async () => {
    const script = new Script();
    const app = appOn(script, { writeTokens: writersOf("web:w;1/m") });
    assert.equal((await post(app, "/events", EVENT, bearer("w"))).status, 202);
    script.mostReserved = 0;
    assert.equal((await post(app, "/events", EVENT, bearer("w"))).status, 429);
    assert.equal(script.mostReserved, 0);
  });

  test("bytes are those of the unpacked body, a day begins at midnight in UTC", async () => {
    const script = new Script();
    const body = NDJSON(100);
    const app = appOn(script, { writeTokens: writersOf(`web:w;${2 * body.length}B/d`) });
    await script.clock.advance(DAY_MS / 2);
    const packed = { ...bearer("w"), "content-encoding": "gzip" };
    assert.equal((await post(app, "/events", gzipSync(body), packed)).status, 202);
    assert.equal((await post(app, "/events", body, bearer("w"))).status, 202);
    const { status, headers } = await post(app, "/events", gzipSync(EVENT), packed);
    assert.equal(status, 429);
    assert.equal(headers.get("retry-after"), String((DAY_MS - passedMs(script)) / 1000));
    await script.clock.advance(DAY_MS - passedMs(script) - 1);
    assert.equal((await post(app, "/events", EVENT, bearer("w"))).status, 429);
    await script.clock.advance(1);
    assert.equal((await post(app, "/events", EVENT, bearer("w"))).status, 202);
    // Said once a period.
    assert.deepEqual(script.lines.filter((line) => line.startsWith("a write token")), [
      `a write token has used up a quota {"token":"web","quota":"${2 * body.length}B/d"}`,
    ]);
  });

  test("of several the one that is used up is named", async () => {
    const app = appOn(new Script(), { writeTokens: writersOf("web:w;3/s;4/h;1KiB/m") });
    const send = async (rows: number) => {
      const { status, body } = await post(app, "/events", NDJSON(rows), bearer("w"));
      return status === 202 ? 202 : body.error.split("quota of ")[1].split(" ")[0];
    };
    assert.deepEqual([await send(3), await send(1)], [202, "3/s"]);
    const script = new Script();
    const hourly = appOn(script, { writeTokens: writersOf("web:w;3/s;4/h") });
    await post(hourly, "/events", NDJSON(3), bearer("w"));
    await script.clock.advance(1000);
    const { body } = await post(hourly, "/events", NDJSON(2), bearer("w"));
    assert.match(body.error, /quota of 4\/h \(rows\)/);
  });

  test("what never fits is 413 with how much it is, and counts nothing", async () => {
    const script = new Script();
    const app = appOn(script, { writeTokens: writersOf("web:w;5/s;200B/d") });
    const rows = await post(app, "/events", NDJSON(6), bearer("w"));
    assert.deepEqual([rows.status, rows.body.error], [
      413,
      "write-tokens: web has a quota of 5/s (rows), and this request has 6 rows; nothing was taken",
    ]);
    const long = JSON.stringify({ eventType: "a".repeat(300) });
    const bytes = await post(app, "/events", long, bearer("w"));
    assert.equal(bytes.status, 413);
    assert.match(
      bytes.body.error,
      new RegExp(`200B/d \\(bytes\\), and this request has ${long.length} bytes`),
    );
    assert.equal(bytes.headers.get("retry-after"), null);
    assert.equal((await post(app, "/events", NDJSON(5), bearer("w"))).status, 202);
  });

  test("bad rows, refused bodies and refusals of the intake use nothing", async () => {
    const script = new Script();
    const app = appOn(script, { writeTokens: writersOf("web:w;2/d") });
    const send = async (body: string) => (await post(app, "/events", body, bearer("w"))).status;
    assert.equal(await send('{"eventType":5}'), 400);
    assert.equal(await send("nothing"), 400);
    const full: Refused = { kind: "refused", why: "full", reason: "full", retryAfterS: 1 };
    script.refuse = full;
    assert.equal(await send(EVENT), 429);
    script.refuse = null;
    script.kept = Promise.resolve(full);
    assert.equal(await send(NDJSON(2)), 429);
    script.kept = null;
    assert.equal(await send(`${NDJSON(2)}{"eventType":5}`), 202);
    assert.equal(await send(EVENT), 429);
    assert.deepEqual(script.tokens, ["web 2 51", "web quota"]);
  });

  test("what is being synced counts already", async () => {
    const script = new Script();
    const app = appOn(script, { writeTokens: writersOf("web:w;2/d") });
    const synced = Promise.withResolvers<null>();
    script.kept = synced.promise;
    const first = post(app, "/events", NDJSON(2), bearer("w"));
    for (let turns = 0; script.chunks.length === 0 && turns < 100; turns++) await Promise.resolve();
    assert.equal(script.chunks.length, 1);
    assert.equal((await post(app, "/events", EVENT, bearer("w"))).status, 429);
    synced.resolve(null);
    assert.equal((await first).status, 202);
  });

  test("what came before under its key is answered also when all is used up, and costs nothing", async () => {
    const script = new Script();
    const app = appOn(script, { writeTokens: writersOf("web:w;1/d") });
    const keyed = { ...bearer("w"), "idempotency-key": "k" };
    assert.equal((await post(app, "/events", EVENT, keyed)).status, 202);
    assert.equal((await post(app, "/events", EVENT, keyed)).status, 429, "it is not known");
    const ticket = { reached: "disk" as const, kept: null, settled: () => Promise.resolve(null) };
    script.known = () => ({ kind: "taken", ticket, before: { accepted: 1, rejected: 0 } });
    const again = await post(app, "/events", EVENT, keyed);
    assert.deepEqual([again.status, again.body.duplicate], [202, true]);
    assert.deepEqual(script.tokens, [`web 1 ${EVENT.length}`, "web quota"]);
  });

  test("a reload keeps what was used by those that stay, also where the token is another one", async () => {
    const script = new Script();
    const shared = createShared(script.clock);
    const appWith = (text: string) => appOn(script, { writeTokens: writersOf(text) }, shared);
    const send = async (app: ReturnType<typeof appOn>, token: string) =>
      (await post(app, "/events", EVENT, bearer(token))).status;
    assert.equal(await send(appWith("web:old;2/d other:o;1/d"), "old"), 202);
    const both = appWith("web:old;2/d web:new;2/d");
    assert.equal(await send(both, "new"), 202);
    assert.equal(await send(both, "old"), 429);
    assert.equal(await send(appWith("web:new;2/d;7/h"), "new"), 429);
    assert.equal(await send(appWith("web:new;3/d"), "new"), 202, "one more a day");
    assert.equal(await send(appWith("web:new;3/d"), "old"), 401);
    // Taken out and put in again, it begins anew.
    appWith("x:y");
    assert.equal(await send(appWith("web:new;2/d"), "new"), 202);
  });

  test("any writes in any periods: never more than the quota, and what is left can be used", async () => {
    const step = fc.record({
      rows: fc.integer({ min: 1, max: 7 }),
      ms: fc.integer({ min: 0, max: 900 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const script = new Script();
        const app = appOn(script, { writeTokens: writersOf("web:w;5/s") });
        const used = new Map<number, number>();
        for (const { rows, ms } of steps) {
          await script.clock.advance(ms);
          const second = Math.floor(script.clock.nowMs() / 1000);
          const before = used.get(second) ?? 0;
          const { status } = await post(app, "/events", NDJSON(rows), bearer("w"));
          // A quota that is used up is told before the body is read.
          const wanted = before === 5 ? 429 : rows > 5 ? 413 : before + rows > 5 ? 429 : 202;
          assert.equal(status, wanted);
          if (status === 202) used.set(second, before + rows);
        }
      }),
      { numRuns: 50 },
    );
  });
});
