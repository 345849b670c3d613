/**
 * Questions: a few at a time, each for a bounded time, and what an answer of ClickHouse means.
 * Runs once: the server is a model; servers_test.ts has real ones on both runtimes.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Ask, Question, Select } from "../../src/contracts.ts";
import { createQueries, MOST_QUESTIONS } from "../../src/deliver/questions.ts";
import { ManualClock } from "../kit/manual_clock.ts";

const DAY: Question = {
  eventType: null,
  id: null,
  fromMs: Date.UTC(2026, 0, 1),
  toMs: Date.UTC(2026, 0, 2),
};
const PERIOD = '"period":{"from":"2026-01-01T00:00:00.000Z","to":"2026-01-02T00:00:00.000Z"}';
const never = new AbortController().signal;

type Answer = Awaited<ReturnType<Ask>>;

/** A ClickHouse that answers when the test says so, or when it is told that nobody waits. */
class Scripted {
  readonly selects: Select[] = [];
  readonly #waiting: ((answer: Answer) => void)[] = [];
  aborted = 0;

  readonly ask: Ask = (select, signal) => {
    this.selects.push(select);
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      const end = () => {
        this.aborted++;
        resolve({ ok: false, code: 0, problem: "given up" });
      };
      if (signal.aborted) end();
      else signal.addEventListener("abort", end);
    });
  };

  answer(answer: Answer): void {
    this.#waiting.shift()!(answer);
  }
}

function start() {
  const server = new Scripted();
  const clock = new ManualClock();
  const queries = createQueries({
    ask: server.ask,
    clock,
    source: () => ({ database: "d", table: "t" }),
  });
  return { server, clock, queries };
}

test("counts and users keep every digit, and names stay names", async () => {
  const { server, queries } = start();
  const asked = queries.metrics(DAY, never);
  const most = "18446744073709551615";
  const data = [
    { event_type: "__proto__", events: most, users: "1" },
    { event_type: 'a"\\\u2028', events: "2", users: "1" },
  ];
  server.answer({
    ok: true,
    value: JSON.stringify({ data, totals: { events: "18446744073709551620", users: most } }),
  });
  assert.deepEqual(await asked, {
    kind: "answer",
    json: `{"counts":{"__proto__":${most},${JSON.stringify('a"\\\u2028')}:2},"users":${most},` +
      `"others":3,${PERIOD}}\n`,
  });
});

test("no events at all", async () => {
  const { server, queries } = start();
  const counted = queries.metrics(DAY, never);
  server.answer({ ok: true, value: '{"data":[]}' });
  assert.deepEqual(await counted, {
    kind: "answer",
    json: `{"counts":{},"users":0,${PERIOD}}\n`,
  });
  const listed = queries.events({ ...DAY, fromMs: null, toMs: null, limit: 5 }, never);
  server.answer({ ok: true, value: "" });
  assert.deepEqual(await listed, {
    kind: "answer",
    json: '{"events":[],"period":{"from":null,"to":null}}\n',
  });
});

test("what answers is no ClickHouse: neither an exception nor its words as JSON", async () => {
  for (const value of ["<html>\n<p>{}</p></html>", "Ok.", '"OK"', "null", '{"data":"x"}\nno']) {
    const { server, clock, queries } = start();
    const asked = [
      queries.metrics(DAY, never),
      queries.events({ ...DAY, limit: 1 }, never),
    ];
    for (const _ of asked) server.answer({ ok: true, value });
    for (const answer of await Promise.all(asked)) {
      assert.deepEqual(answer, {
        kind: "away",
        reason: "clickhouse: what answered is not ClickHouse; look at clickhouse-url",
      });
    }
    assert.equal(clock.pending, 0);
  }
});

test("nothing that is asked for is part of the SQL", async () => {
  const { server, queries } = start();
  const evil = "'); DROP TABLE t; --";
  const asked = queries.events({ ...DAY, eventType: evil, id: evil, limit: 7 }, never);
  server.answer({ ok: true, value: "" });
  await asked;
  const { sql, params, settings } = server.selects[0]!;
  assert.ok(!sql.includes("DROP"));
  assert.deepEqual(params, {
    database: "d",
    table: "t",
    from: DAY.fromMs,
    to: DAY.toMs,
    eventType: evil,
    id: evil,
    limit: 7,
  });
  for (const name of Object.keys(params)) assert.ok(sql.includes(`{${name}:`), name);
  assert.equal(settings["readonly"], "1");
});

test("what a failure means", async () => {
  const cases = [
    [159, "slow"],
    [241, "slow"],
    [396, "large"],
    [497, "away"],
    [0, "away"],
  ] as const;
  for (const [code, kind] of cases) {
    const { server, clock, queries } = start();
    const asked = queries.metrics(DAY, never);
    server.answer({ ok: false, code, problem: "connection refused" });
    const answer = await asked;
    assert.equal(answer.kind, kind);
    if (answer.kind === "away") assert.equal(answer.reason, "clickhouse: connection refused");
    assert.equal(clock.pending, 0);
  }
});

test("a few at a time, the next at once refused; each for a bounded time", async () => {
  const { server, clock, queries } = start();
  const asked = Array.from({ length: MOST_QUESTIONS }, () => queries.metrics(DAY, never));
  assert.equal((await queries.metrics(DAY, never)).kind, "busy");
  assert.equal(server.selects.length, MOST_QUESTIONS);
  await clock.advance(10_999);
  assert.equal(server.aborted, 0);
  await clock.advance(1);
  for (const answer of await Promise.all(asked)) assert.equal(answer.kind, "slow");
  assert.equal(server.aborted, MOST_QUESTIONS);
  void queries.metrics(DAY, never);
  assert.equal(server.selects.length, MOST_QUESTIONS + 1);
});

test("nobody waits any more: the question is ended and its place is free", async () => {
  const { server, clock, queries } = start();
  const clients = Array.from({ length: MOST_QUESTIONS }, () => new AbortController());
  const asked = clients.map(({ signal }) => queries.metrics(DAY, signal));
  clients[1]!.abort();
  await asked[1];
  assert.equal(server.aborted, 1);
  const gone = new AbortController();
  gone.abort();
  assert.equal((await queries.metrics(DAY, gone.signal)).kind, "away");
  assert.equal(server.aborted, 2);
  queries.close();
  for (const answer of await Promise.all([asked[0], asked[2], asked[3]])) {
    assert.deepEqual(answer, { kind: "away", reason: "clickhouse: the collector is stopping" });
  }
  assert.equal(clock.pending, 0);
});
