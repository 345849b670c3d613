/**
 * What servers teach about INSERTs: how many rows pass, and how long they take.
 * Runs once: the server is a model; servers_test.ts has real ones on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Batch, Inserter, Tables, Verdict } from "../../src/contracts.ts";
import { LONGEST_FACTOR, Patience, Sizes } from "../../src/deliver/limits.ts";
import { blocksOf, columnsOf, type TablePlan } from "../../src/deliver/plan.ts";
import { createSink, type SinkTools } from "../../src/deliver/sink.ts";
import { memoryLog } from "../kit/chunks.ts";
import { batchOf, never, silent } from "./kit.ts";

describe("how long an INSERT may take", () => {
  const raised = (log: ReturnType<typeof memoryLog>) =>
    log.lines.map(({ fields }) => fields.now_ms);

  test("doubles each time that it is outlasted, within a bound; each step is logged", () => {
    const log = memoryLog();
    const patience = new Patience(1000, "server", log);
    for (let times = 0; times < 10; times++) patience.outlasted("slow", patience.ofMs("slow"));
    assert.equal(patience.ofMs("slow"), 1000 * LONGEST_FACTOR);
    assert.deepEqual(raised(log).slice(0, 5), [2000, 4000, 8000, 16_000, 32_000]);
    assert.equal(log.lines.at(-1)?.level, "error");
    assert.equal(patience.ofMs("other"), 1000);
  });

  test("INSERTs that were under way together are one step", () => {
    const patience = new Patience(1000, "server", memoryLog());
    for (let times = 0; times < 4; times++) patience.outlasted("slow", 1000);
    assert.equal(patience.ofMs("slow"), 2000);
  });

  test("is what was set again once INSERTs are fast", () => {
    const told: (number | null)[] = [];
    const patience = new Patience(1000, "server", memoryLog(), (_, ms) => told.push(ms));
    for (const ms of [1000, 2000, 4000]) patience.outlasted("slow", ms);
    patience.answered("slow", 3000);
    assert.equal(patience.ofMs("slow"), 8000);
    for (let times = 0; times < 3; times++) patience.answered("slow", 100);
    assert.equal(patience.ofMs("slow"), 1000);
    assert.deepEqual(told, [2000, 4000, 8000, 4000, 2000, null]);
  });
});

describe("how many rows pass at once", () => {
  test("is remembered for the table, and tried anew after many that passed", () => {
    const sizes = new Sizes();
    assert.equal(sizes.of("t"), Infinity);
    sizes.refused("t", 1000);
    sizes.refused("t", 500);
    // Larger than what is known to be too large.
    sizes.refused("t", 1000);
    assert.equal(sizes.of("t"), 250);
    assert.equal(sizes.of("other"), Infinity);
    for (let times = 0; times < 31; times++) sizes.stored("t", 250);
    // It says nothing about more.
    for (let times = 0; times < 100; times++) sizes.stored("t", 10);
    assert.equal(sizes.of("t"), 250);
    sizes.stored("t", 250);
    assert.equal(sizes.of("t"), 500);
    for (let times = 0; times < 5000; times++) sizes.stored("t", sizes.of("t"));
    assert.equal(sizes.of("t"), Infinity);
  });

  const tables: Tables = {
    columns: () => "unknown",
    lookUp: () => Promise.resolve("unknown"),
    refresh: () => Promise.resolve("unknown"),
    doubt() {},
  };
  /** A sink before a server that answers as `verdictOf` says; and the rows of each INSERT. */
  function sinkOf(
    verdictOf: (rows: number, nth: number) => Verdict,
    more: Partial<SinkTools> = {},
  ) {
    const inserts: number[] = [];
    const inserter: Inserter = {
      insert: ({ rows }) => Promise.resolve(verdictOf(rows, inserts.push(rows))),
      sieve: () => Promise.resolve(null),
    };
    const sink = createSink({ inserter, tables, log: silent, createEventsTable: null, ...more });
    return { sink, inserts };
  }
  const lines = (rows: number) => Array.from({ length: rows }, (_, n) => `{"n":${n}}`);
  const split = (code: number, unknown = false): Verdict => ({
    kind: "split",
    code,
    message: "too much",
    unknown,
  });

  for (const code of [241, 252, 159, 0]) {
    test(`${code}: one batch finds it out, the next one begins with it`, async () => {
      const { sink, inserts } = sinkOf((rows) => rows > 25 ? split(code) : { kind: "stored" });
      assert.equal((await sink.deliver(batchOf(lines(100)), never)).kind, "settled");
      assert.deepEqual(inserts.splice(0), [100, 50, 25, 25, 25, 25]);
      await sink.deliver(batchOf(lines(100)), never);
      assert.deepEqual(inserts.splice(0), [25, 25, 25, 25]);
      await sink.deliver(batchOf(lines(100), { table: "another" }), never);
      assert.equal(inserts[0], 100);
    });
  }

  test("a batch that may be stored goes in parts only when its size was refused three times", async () => {
    const lost: Verdict = { kind: "transient", code: 0, message: "lost", unknown: true };
    const { sink, inserts } = sinkOf((rows, nth) =>
      nth === 1 ? lost : rows > 5 ? split(241) : { kind: "stored" }
    );
    const batch = batchOf(lines(10));
    for (let nth = 1; nth <= 3; nth++) {
      const delivery = await sink.deliver(batch, never);
      assert.ok(delivery.kind === "transient" && delivery.unknown === true, `${nth}`);
    }
    assert.equal((await sink.deliver(batch, never)).kind, "settled");
    assert.deepEqual(inserts, [10, 10, 10, 10, 5, 5]);
  });

  test("its time was over: never in parts where a view may have been filled meanwhile", async () => {
    const plan = { window: 1000, views: true } as TablePlan;
    const { sink, inserts } = sinkOf(() => split(159, true), {
      tables: { ...tables, columns: () => plan },
    });
    const batch = batchOf(lines(10));
    for (let nth = 1; nth <= 6; nth++) {
      const delivery = await sink.deliver(batch, never);
      assert.ok(delivery.kind === "transient" && delivery.unknown === true);
    }
    assert.deepEqual(new Set(inserts), new Set([10]));
  });

  test("what is held goes by the bounds of now, what may be stored by those that it was sent with", async () => {
    const largest = { rows: 4, bytes: 1000 };
    const { sink, inserts } = sinkOf(() => ({ kind: "stored" }), { largest: () => largest });
    await sink.deliver(batchOf(lines(10)), never);
    assert.deepEqual(inserts.splice(0), [4, 4, 2]);
    const wide: Batch = batchOf(
      lines(10).map((line) => line.replace("}", `,"s":"${"x".repeat(390)}"}`)),
    );
    await sink.deliver(wide, never);
    assert.deepEqual(inserts.splice(0), [2, 2, 2, 2, 2]);
    const attempt = { note: () => Promise.resolve(), begin: () => true };
    const trail = ['{"plan":1,"rows":10,"cap":10}'];
    await sink.deliver(batchOf(lines(10)), never, { ...attempt, trail });
    assert.deepEqual(inserts.splice(0), [10]);
  });
});

describe("how many blocks an INSERT adds to a table's window", () => {
  const planOf = (partition_key: string) =>
    columnsOf(
      [{ name: "a", type: "UInt8", default_kind: "", engine: "MergeTree", partition_key }],
      "t",
    );
  const request = (shape: "event" | "row", lines: readonly string[]) => batchOf(lines, { shape });
  const times = (...months: string[]) =>
    months.map((month) => `{"timestamp":"${month}-03T04:05:06Z"}`);
  // deno-fmt-ignore: a table is read line by line.
  const cases: [string, string, Batch, number][] = [
    ["no partitions", "", request("row", ["{}", "{}", "{}"]), 1],
    ["partitions, few rows", "a", request("row", ["{}", "{}", "{}"]), 3],
    ["partitions, many rows", "a", request("row", Array(1000).fill("{}")), 100],
    ["events of one month", "toYYYYMM(timestamp)", request("event", times("2026-01", "2026-01")), 1],
    ["events of two months", "toYYYYMM(timestamp)", request("event", times("2026-01", "2026-02", "2026-01")), 2],
    ["events with a time in another form", "toYYYYMM(timestamp)", request("event", [...times("2026-01", "2026-01"), '{"timestamp":1}']), 3],
    ["events with spaces, as some write JSON", "toYYYYMM(timestamp)", request("event", times("2026-01", "2026-01").map((row) => row.replace(":", " : "))), 1],
    ["events that speak of a timestamp", "toYYYYMM(timestamp)", request("event", times("2026-01", "2026-01").map((row) => row.replace("}", ',"userId":"timestamp"}'))), 1],
    ["events with times in seconds", "toYYYYMM(timestamp)", request("event", ['{"timestamp":"1700000000"}', '{"timestamp":"1700000001"}']), 2],
    ["events, partitions of one's own", "toDate(timestamp)", request("event", times("2026-01", "2026-01")), 2],
  ];
  for (const [what, key, batch, blocks] of cases) {
    test(`${what}: ${blocks}`, () =>
      assert.equal(blocksOf(planOf(key) as TablePlan, batch), blocks));
  }
  test("nothing is known: one", () =>
    assert.equal(blocksOf(null, request("row", ["{}", "{}"])), 1));
});
