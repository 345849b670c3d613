/**
 * What is remembered of tables, how long, and how often a server is asked.
 * Runs once: the server is a model; servers_test.ts has real ones on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Answered } from "../../src/contracts.ts";
import type { Query, Row } from "../../src/deliver/query.ts";
import { columnsOf, createTables, namedColumns } from "../../src/deliver/plan.ts";
import { fakeClock, silent } from "./kit.ts";

const row = (name: string, type = "String", kind = ""): Row => ({ name, type, default_kind: kind });
const failed: Answered<never> = { ok: false, code: 0, problem: "down" };

/** A server whose answers the test sets and, where `held`, lets go by hand. */
function room(answer: Answered<readonly Row[]> = { ok: true, value: [row("a")] }) {
  const clock = fakeClock();
  const state = {
    answer,
    held: false,
    asked: [] as string[],
    commands: [] as string[],
    words: [] as string[],
    deaf: false,
    gives: (_sql: string) => true,
  };
  const waiting: (() => void)[] = [];
  const query: Query = {
    rows(sql) {
      state.asked.push(sql);
      if (sql.startsWith("SELECT version()")) {
        return Promise.resolve({ ok: true, value: [{ version: "18.16.1" }] });
      }
      if (!state.held) return Promise.resolve(state.answer);
      return new Promise((resolve) => waiting.push(() => resolve(state.answer)));
    },
    command(sql) {
      state.commands.push(sql);
      return Promise.resolve(
        state.answer.ok ? { ok: true, value: null } : state.answer,
      );
    },
    word(sql) {
      state.words.push(sql);
      if (state.deaf) return Promise.resolve({ ok: false, code: 62, problem: "Syntax error" });
      return Promise.resolve({ ok: true, value: state.gives(sql) ? "1" : "0" });
    },
    ping: () => Promise.resolve(true),
  };
  const tables = createTables({
    query,
    database: "db",
    eventsTable: "analytics_events",
    clock,
    log: silent,
  });
  const settle = async () => {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  };
  return { tables, state, clock, settle, letGo: () => waiting.splice(0).forEach((go) => go()) };
}

describe("tables", () => {
  test("columns answers at once and asks in the background, once", async () => {
    const { tables, state, settle } = room();
    assert.equal(tables.columns("t"), "unknown");
    assert.equal(tables.columns("t"), "unknown");
    await settle();
    const known = tables.columns("t");
    assert.ok(typeof known === "object" && known.names.has("a"));
    assert.equal(state.asked.length, 1);
    assert.match(state.asked[0] ?? "", /database = 'db' AND table = 't'/);
    await tables.close();
  });

  test("columns stay fresh for 5 s; after that they are used while they are asked again", async () => {
    const { tables, state, clock } = room();
    await tables.lookUp("t", 1000);
    clock.advance(4_999);
    await tables.lookUp("t", 1000);
    assert.equal(state.asked.length, 1);
    clock.advance(1);
    state.held = true;
    assert.ok(typeof await tables.lookUp("t", 1000) === "object");
    assert.equal(state.asked.length, 2);
    state.held = false;
  });

  test("columns that INSERTs confirm stay fresh; what else is known is asked twice a minute", async () => {
    const { tables, state, clock, settle } = room();
    await tables.lookUp("t", 1000);
    const known = tables.columns("t");
    const whole = () => state.asked.filter((sql) => sql.includes("engine")).length;
    for (let atMs = 1000; atMs < 30_000; atMs += 1000) {
      clock.advance(1000);
      assert.equal(await tables.current("t"), known);
    }
    assert.equal(tables.columns("t"), known);
    assert.equal(whole(), 1);
    clock.advance(1000);
    tables.columns("t");
    await settle();
    assert.equal(whole(), 2);
    assert.equal(tables.columns("t"), known, "nothing has changed, so it is the same object");
    // A column that was added is seen at the next INSERT.
    state.answer = { ok: true, value: [row("a"), row("b")] };
    const now = await tables.current("t");
    assert.ok(typeof now === "object" && now.names.has("b"));
    await tables.close();
  });

  test("a missing table is remembered for two seconds only", async () => {
    const { tables, state, clock } = room({ ok: true, value: [] });
    assert.equal(await tables.lookUp("t", 1000), "missing");
    clock.advance(1999);
    assert.equal(await tables.lookUp("t", 1000), "missing");
    assert.equal(state.asked.length, 1);
    state.answer = { ok: true, value: [row("a")] };
    clock.advance(1);
    assert.ok(typeof await tables.lookUp("t", 1000) === "object");
    await tables.close();
  });

  test("columns that rows did not fit are asked for again within half a second, once", async () => {
    const { tables, state, clock, settle } = room();
    await tables.lookUp("t", 1000);
    tables.doubt("t");
    await settle();
    assert.equal(state.asked.length, 1, "they were asked for a moment ago");
    clock.advance(499);
    tables.columns("t");
    assert.equal(state.asked.length, 1);
    clock.advance(1);
    state.answer = { ok: true, value: [row("a"), row("b")] };
    tables.columns("t");
    await settle();
    assert.equal(state.asked.length, 2);
    const known = tables.columns("t");
    assert.ok(typeof known === "object" && known.names.has("b"));
    // No rows have been in trouble since.
    clock.advance(4_000);
    tables.columns("t");
    assert.equal(state.asked.length, 2);
    tables.doubt("t");
    tables.doubt("t");
    await settle();
    assert.equal(state.asked.length, 3);
    await tables.close();
  });

  test("doubts about a table of which nothing is known ask nothing", async () => {
    const { tables, state, settle } = room();
    tables.doubt("t");
    await settle();
    assert.equal(state.asked.length, 0);
    await tables.close();
  });

  test("a server that cannot be asked is left alone for a second, and old knowledge stays", async () => {
    const { tables, state, clock } = room(failed);
    assert.equal(await tables.lookUp("t", 1000), "unknown");
    assert.equal(await tables.lookUp("t", 1000), "unknown");
    assert.equal(state.asked.length, 1);
    clock.advance(1000);
    state.answer = { ok: true, value: [row("a")] };
    assert.ok(typeof await tables.lookUp("t", 1000) === "object");
    state.answer = failed;
    clock.advance(30_000);
    assert.equal(await tables.refresh("t"), "unknown");
    assert.ok(typeof tables.columns("t") === "object");
    await tables.close();
  });

  test("lookUp waits no longer than it was told; everybody shares one question", async () => {
    const { tables, state, clock, letGo } = room();
    state.held = true;
    const waits = [tables.lookUp("t", 100), tables.lookUp("t", 100), tables.lookUp("t", 5000)];
    clock.advance(100);
    assert.deepEqual(await Promise.all(waits.slice(0, 2)), ["unknown", "unknown"]);
    letGo();
    assert.ok(typeof await waits[2] === "object");
    assert.equal(state.asked.length, 1);
    assert.equal(clock.pending(), 0);
    await tables.close();
  });

  test("a name that is no identifier is missing, and nobody is asked", async () => {
    const { tables, state } = room();
    assert.equal(await tables.lookUp("t'; DROP TABLE x", 1000), "missing");
    assert.equal(state.asked.length, 0);
    await tables.close();
  });

  test("no more than a thousand tables are remembered", async () => {
    const { tables, state } = room();
    for (let at = 0; at < 1001; at++) await tables.lookUp(`t${at}`, 1000);
    await tables.lookUp("t1000", 1000);
    assert.equal(state.asked.length, 1001);
    await tables.lookUp("t0", 1000);
    assert.equal(state.asked.length, 1002);
    await tables.close();
  });

  test("rights: asked once while all are there; those that lack are found, and asked again", async () => {
    const { tables, state, clock } = room({ ok: true, value: [row("a"), row("b"), row("c`")] });
    const known = async (again?: boolean) => {
      clock.advance(5_000);
      // The first answer to a stale plan is the old one.
      if (again === undefined) await tables.lookUp("t", 0);
      else await tables.refresh("t", again);
      const plan = await tables.lookUp("t", 0);
      assert.ok(typeof plan === "object");
      return plan;
    };
    await tables.lookUp("t", 1000);
    await known();
    assert.deepEqual(state.words, ["CHECK GRANT INSERT ON `db`.`t`"]);

    // Taken away: believed until an INSERT says so.
    state.gives = (sql) => /INSERT\(`a`\) /.test(sql);
    assert.deepEqual([...(await known(false)).names], ["a", "b", "c`"]);
    const some = await known(true);
    assert.deepEqual([...some.names], ["a"]);
    assert.equal(
      some.closed.get("b")?.reason,
      "the user of clickhouse-url has no right to insert it into t",
    );
    assert.match(state.words.at(-1)!, /INSERT\(`c\\``\) ON/);
    assert.deepEqual(namedColumns(some, new Set(["a", "b", "x"])), ["a", "b"]);
    assert.deepEqual(namedColumns(some, null), ["a"]);

    const asked = state.words.length;
    state.gives = () => false;
    await known(false);
    assert.equal(state.words.length, asked);
    clock.advance(15_000);
    const none = await known(false);
    assert.deepEqual(none.takesNone, {
      why: "right",
      reason: "the user of clickhouse-url has no right to insert into t",
    });
    state.gives = () => true;
    clock.advance(15_000);
    assert.equal((await known(false)).takesNone, null);
    await tables.close();
  });

  test("a right that is missing is asked for in its time, also while INSERTs confirm the columns", async () => {
    const { tables, state, clock, settle } = room({ ok: true, value: [row("a"), row("b")] });
    state.gives = (sql) => !sql.includes("`b`") && sql.includes("(");
    await tables.lookUp("t", 1000);
    for (let atMs = 0; atMs < 15_000; atMs += 1000) {
      clock.advance(1000);
      await tables.current("t");
    }
    state.gives = () => true;
    tables.columns("t");
    await settle();
    const known = tables.columns("t");
    assert.ok(typeof known === "object" && known.names.has("b"));
    await tables.close();
  });

  test("rights: a server that cannot tell gives all; many columns are no flood of questions", async () => {
    const { tables, state } = room({
      ok: true,
      value: Array.from({ length: 1000 }, (_, at) => row(`c${at}`)),
    });
    state.gives = () => false;
    assert.ok(typeof await tables.lookUp("t", 1000) === "object");
    assert.ok(state.words.length <= 201, `${state.words.length} questions`);
    await tables.close();
    const other = room();
    other.state.deaf = true;
    const plan = await other.tables.lookUp("t", 1000);
    assert.equal(typeof plan === "object" && plan.takesNone, null);
    await other.tables.close();
  });

  test("a user whose profile is read-only writes nowhere", async () => {
    const reason = "the user of clickhouse-url may only read (its profile sets readonly)";
    for (
      const answer of [
        { ok: true as const, value: [{ ...row("a"), engine: "MergeTree", readonly: "2" }] },
        {
          ok: false as const,
          code: 164,
          problem: "Cannot modify 'limit' setting in readonly mode",
        },
      ]
    ) {
      const { tables } = room(answer);
      const plan = await tables.lookUp("t", 1000);
      assert.deepEqual(typeof plan === "object" && plan.takesNone, { why: "right", reason });
      await tables.close();
    }
  });

  test("columns that no row gives say why", () => {
    const plan = columnsOf(
      [row("a"), row("m", "UInt8", "MATERIALIZED"), row("x", "T", "ALIAS")],
      "t",
    );
    assert.deepEqual(typeof plan === "object" && [...plan.closed], [
      ["m", { why: "kind", reason: "MATERIALIZED in t: no row gives it" }],
      ["x", { why: "kind", reason: "ALIAS in t: no row gives it" }],
    ]);
  });

  test("the fingerprint is equal exactly when names and types are", () => {
    const print = (...rows: Row[]) => {
      const known = columnsOf(rows, "t");
      return known === "missing" ? "" : known.fingerprint;
    };
    assert.equal(print(row("a"), row("b")), print(row("b"), row("a")));
    assert.notEqual(print(row("a"), row("b")), print(row("a")));
    assert.notEqual(print(row("a", "UInt8")), print(row("a", "UInt16")));
    assert.notEqual(print(row("a"), row("b")), print(row('a","String"],["b')));
    assert.equal(
      print(row("a"), row("m", "UInt8", "MATERIALIZED"), row("x", "UInt8", "ALIAS")),
      print(row("a")),
    );
    assert.notEqual(print(row("a"), row("d", "UInt8", "DEFAULT")), print(row("a")));
    assert.equal(columnsOf([], "t"), "missing");
  });

  test("the table of events syncs what it stores, where the server can", async () => {
    const { tables, state } = room();
    await tables.prepare();
    assert.match(
      state.commands[0]!,
      /_window = 1000, fsync_after_insert = 1, fsync_part_dir\w+ = 1$/,
    );
    state.answer = { ok: false, code: 115, problem: "Unknown setting fsync_after_insert" };
    await tables.prepare();
    assert.match(state.commands[2]!, /_window = 1000$/);
    assert.equal(state.commands.length, 3);
    await tables.close();
  });

  test("the table of events is created; a server that is too old is told so in a sentence", async () => {
    const { tables, state } = room();
    assert.deepEqual(await tables.prepare(), { ok: true, value: null });
    assert.match(state.commands[0] ?? "", /CREATE TABLE IF NOT EXISTS `db`\.`analytics_events`/);
    state.answer = { ok: false, code: 50, problem: "Unknown data type family: Map" };
    assert.deepEqual(await tables.prepare(), {
      ok: false,
      code: 50,
      problem:
        "analytics_events needs ClickHouse 21.8 or newer for Map columns; this server is 18.16.1; POST /events/TABLE works",
    });
    await tables.close();
  });
});
