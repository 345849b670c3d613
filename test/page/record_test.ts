/** The past hour, samples, problems and their sentences, the busiest: all of it pure. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import type { Batch, Chunk, Holdings, Log, Status } from "../../src/contracts.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { createProblems, sentenceOf, SENTENCES } from "../../src/page/problems.ts";
import {
  createHistory,
  createRecorder,
  createSampler,
  differenceOf,
  momentOf,
  quantile,
  SERIES,
  top,
  type Values,
} from "../../src/page/recorder.ts";
import { ManualClock } from "../kit/manual_clock.ts";

const valuesOf = (value: number): Values =>
  Object.fromEntries(SERIES.map((name) => [name, value])) as Values;

const NO_HOLDINGS: Holdings = {
  rows: () => 0,
  memoryBytes: () => 0,
  spoolBytes: () => 0,
  oldestMs: () => 0,
  byTable: () => new Map(),
};

const chunkOf = (table: string, types: Record<string, number>): Chunk => {
  const rows = Object.values(types).reduce((sum, count) => sum + count, 0);
  const counts = new Map(Object.entries(types));
  const body = new Uint8Array();
  return { table, shape: "event", rows, body, types: counts, fingerprint: null };
};

test("the history is the last samples in the order of their time", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 20 }),
    fc.array(fc.integer({ min: 1, max: 5000 }), { maxLength: 60 }),
    (size, steps) => {
      const history = createHistory(size);
      let atMs = 1_700_000_000_000;
      const all = steps.map((step, index) => {
        history.add(atMs += step, valuesOf(index));
        return [atMs / 1000, index];
      });
      const columns = history.columns();
      assert.equal(columns.length, SERIES.length + 1);
      const last = all.slice(-size);
      assert.deepEqual(columns[0], last.map(([at]) => at));
      for (const column of columns.slice(1)) assert.deepEqual(column, last.map(([, n]) => n));
    },
  ));
});

test("a clock that is set back leaves no past ahead of it", () => {
  const history = createHistory(4);
  for (const at of [1000, 2000, 3000, 1500, 2500]) history.add(at, valuesOf(at));
  assert.deepEqual(history.columns()[0], [1, 1.5, 2.5]);
  for (const at of [3500, 4500, 5500, 2600]) history.add(at, valuesOf(at));
  assert.deepEqual(history.columns().slice(0, 2), [[2.5, 2.6], [2500, 2600]]);
});

test("what is not a number is told as null", () => {
  const history = createHistory(2);
  history.add(1000, { ...valuesOf(0), p50Ms: NaN });
  assert.deepEqual(history.columns()[1 + SERIES.indexOf("p50Ms")], [null]);
});

test("quantiles lie within the bucket that holds them", () => {
  const bounds = [1, 2, 4];
  assert.equal(quantile({ bounds, counts: [0, 10, 0, 0] }, 0.5), 1.5);
  assert.equal(quantile({ bounds, counts: [5, 0, 5, 0] }, 0.5), 1);
  assert.equal(quantile({ bounds, counts: [5, 0, 5, 0] }, 0.99), 3.96);
  assert.equal(quantile({ bounds, counts: [0, 0, 0, 3] }, 0.5), 4);
  assert.ok(Number.isNaN(quantile({ bounds, counts: [0, 0, 0, 0] }, 0.5)));
});

test("a sample has the ledger's counts as rates over the last seconds", async () => {
  const clock = new ManualClock();
  const ledger = createLedger();
  const take = createSampler({ ledger, holdings: NO_HOLDINGS, clock });
  await clock.advance(1000);
  ledger.accepted(chunkOf("t", { click: 30 }));
  ledger.insertError("t", 60);
  assert.equal(take().received, 30);
  for (let second = 0; second < 5; second++) {
    await clock.advance(1000);
    ledger.accepted(chunkOf("t", { click: 10 }));
    const { received, stored, retries } = take();
    // The 30 of the first second are among those of the last five until they are older.
    assert.equal(received, second < 4 ? (30 + 10 * (second + 1)) / (second + 2) : 10);
    assert.equal(stored, 0);
    assert.equal(retries, second < 4 ? 1 / (second + 2) : 0);
  }
});

test("INSERT times are those of the last INSERTs, none where there were none", () => {
  const clock = new ManualClock();
  const ledger = createLedger();
  const take = createSampler({ ledger, holdings: NO_HOLDINGS, clock });
  ledger.insert("t", 1, 8);
  const { p50Ms, p99Ms } = take();
  assert.ok(p50Ms > 5 && p50Ms < 10, String(p50Ms));
  assert.ok(p99Ms > p50Ms && p99Ms <= 10, String(p99Ms));
  for (let sample = 0; sample < 10; sample++) take();
  assert.ok(Number.isNaN(take().p50Ms));
});

test("problems: the same is folded, the latest come first, 50 at most, no data", async () => {
  const clock = new ManualClock();
  const problems = createProblems(clock);
  const told: string[] = [];
  const tell = (message: string) => void told.push(message);
  const log = problems.watch({ debug: tell, info: tell, warn: tell, error: tell } as Log);
  log.info("nothing to see");
  log.debug("nothing to see");
  log.warn("row refused by ClickHouse", {
    table: "a",
    code: 27,
    row: "secret",
    error: "x".repeat(999),
  });
  await clock.advance(5000);
  log.warn("row refused by ClickHouse", { table: "a", code: 27, row: "secret" });
  log.warn("row refused by ClickHouse", { table: "b", code: 27 });
  const [latest, folded, ...others] = problems.list();
  assert.deepEqual([latest?.fields.table, latest?.times], ["b", 1]);
  assert.deepEqual([folded?.fields.table, folded?.times], ["a", 2]);
  assert.equal(folded!.lastMs - folded!.firstMs, 5000);
  assert.equal(others.length, 0);
  assert.doesNotMatch(JSON.stringify(problems.list()), /secret|x{500}/);
  assert.equal(told.length, 5, "the log itself is told everything");
  for (const server of ["a", "b"]) log.warn("ClickHouse is passed over", { server });
  assert.deepEqual(problems.list().slice(0, 2).map(({ fields }) => fields.server), ["b", "a"]);
  for (let n = 0; n < 80; n++) log.error("a request failed", { table: `t${n}` });
  assert.equal(problems.list().length, 50);
  assert.equal(problems.list()[0]?.fields.table, "t79");
});

test("problems are told in sentences", () => {
  const cases: [string, Record<string, string | number>, RegExp][] = [
    [
      "insert failed; will retry",
      { table: "clicks", rows: 812, code: 60, error: "Table is missing." },
      /^ClickHouse did not take 812 rows of clicks \(code 60, Table is missing\)\. They are kept/,
    ],
    [
      "insert failed; will retry",
      { table: "t", rows: 1, code: 0 },
      /did not take 1 row of t\. They/,
    ],
    [
      "ClickHouse is away",
      { server: "http://h:8123" },
      /^ClickHouse does not answer at http:\/\/h:8123\./,
    ],
    [
      "something odd",
      { table: "flights", error: "broken" },
      /^Something odd \(table flights\) \(broken\)\.$/,
    ],
    [
      "a write token has used up a quota",
      { token: "web", quota: "5GiB/d" },
      /^The write token web has a quota of 5GiB\/d and sends more\. What is beyond it is refused/,
    ],
    ["3 rows could not be stored in time", {}, /^3 rows could not be stored in time\.$/],
  ];
  for (const [message, fields, expected] of cases) {
    assert.match(sentenceOf({ message, fields }), expected);
  }
});

test("what was done to tables is noted, each statement by itself; other lines of the kind are not", () => {
  const problems = createProblems(new ManualClock());
  const log = problems.watch({ debug() {}, info() {}, warn() {}, error() {} });
  log.info("listening", { url: "http://127.0.0.1" });
  for (const ddl of ["ALTER a", "ALTER b", "ALTER b"]) {
    log.info("added columns to a table", { table: "t", ddl });
  }
  log.info("made a table", { table: "t", ddl: "CREATE TABLE t" });
  assert.deepEqual(
    problems.list().map((note) => `${note.level} ${note.times} ${sentenceOf(note)}`),
    [
      "info 1 The table t was made of its first rows: CREATE TABLE t.",
      "info 2 The table t got columns for new keys: ALTER b.",
      "info 1 The table t got columns for new keys: ALTER a.",
    ],
  );
});

test("every sentence is about a line that is logged", () => {
  const root = new URL("../../src/", import.meta.url);
  const texts = readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((path) => /\.ts$/.test(path) && !path.endsWith("problems.ts"))
    .map((path) => readFileSync(new URL(path.replaceAll("\\", "/"), root), "utf8"));
  for (const message of Object.keys(SENTENCES)) {
    assert.ok(texts.some((text) => text.includes(`"${message}"`)), message);
  }
});

test("every sentence ends, whatever the fields are", () => {
  const text = fc.oneof(
    fc.string(),
    fc.constantFrom("insert failed; will retry", "a request failed"),
  );
  const fields = fc.dictionary(
    fc.constantFrom("table", "error", "why", "code", "rows", "url"),
    fc.oneof(fc.string(), fc.integer(), fc.constant(undefined), fc.constant(null)),
  );
  fc.assert(fc.property(text, fields, (message, fields) => {
    assert.match(sentenceOf({ message, fields }), /[.!?…]$/);
  }));
});

test("the busiest come first, and the rest is counted", () => {
  const all = Array.from({ length: 25 }, (_, n) => ({ n }));
  const { first, more } = top(all, ({ n }) => n);
  assert.deepEqual(first.map(({ n }) => n), Array.from({ length: 20 }, (_, at) => 24 - at));
  assert.equal(more, 5);
  assert.deepEqual(top([], () => 0), { first: [], more: 0 });
});

const statusOf = (ledger: ReturnType<typeof createLedger>) =>
  ({
    state: "running",
    uptime_s: 1,
    recovering: false,
    ledger: ledger.totals(),
    tables: {},
  }) as unknown as Status;

test("a moment has the books as they are measured, and the busiest event types", () => {
  const ledger = createLedger();
  for (let n = 0; n < 30; n++) ledger.accepted(chunkOf("t", { [`type${n}`]: n + 1 }));
  const held = { ...NO_HOLDINGS, rows: () => 465 };
  const control = { status: () => statusOf(ledger), unready: () => ["paused"] };
  const { books, difference, types, reasons } = momentOf({ ledger, holdings: held, control }, [1]);
  assert.equal(books.received, 465);
  assert.equal(difference, 0);
  assert.equal(types.first[0]?.eventType, "type29");
  assert.deepEqual([types.first.length, types.more], [20, 10]);
  assert.deepEqual(reasons, ["paused"]);
  assert.equal(differenceOf({ ...books, held: 460 }), 5);
});

test("many busy tables hide neither the one in trouble nor the event types", () => {
  const ledger = createLedger();
  ledger.accepted(chunkOf("events", { click: 1 }));
  const busy = Array.from({ length: 25 }, (_, n) => `log_${n}`);
  for (const table of busy) ledger.accepted(chunkOf(table, { "": 1000 }));
  const tables = Object.fromEntries([
    ...busy.map((table) => [table, { received: 1000, recovered: 0, state: "ok" }]),
    ["found", { received: 0, recovered: 5000, state: "ok" }],
    ["broken", { received: 1, recovered: 0, state: "trouble", trouble: "no such table" }],
  ]);
  const control = {
    status: () => ({ ...statusOf(ledger), tables }) as Status,
    unready: () => busy,
  };
  const moment = momentOf({ ledger, holdings: NO_HOLDINGS, control }, [1]);
  assert.deepEqual(moment.reasons, [...busy.slice(0, 5), "and 20 more"]);
  assert.deepEqual(moment.tables.first.slice(0, 2).map(({ table }) => table), ["broken", "found"]);
  assert.deepEqual([moment.tables.first.length, moment.tables.more], [20, 7]);
  assert.deepEqual(moment.types.first.map(({ eventType }) => eventType), ["click"]);
  assert.equal(moment.types.more, 0);
});

test("sources that do not read come first; without any there is an empty list", () => {
  const ledger = createLedger();
  const source = (name: string, state: string) => ({ name, state });
  const moment = (sources?: unknown) =>
    momentOf({
      ledger,
      holdings: NO_HOLDINGS,
      control: { status: () => ({ ...statusOf(ledger), sources }) as Status, unready: () => [] },
    }, [1]).sources;
  const all = [source("a", "running"), source("b", "waiting"), source("c", "running")];
  assert.deepEqual(moment(all).first.map(({ name }) => name), ["b", "a", "c"]);
  assert.deepEqual(moment(), { first: [], more: 0 });
});

test("who waits gets the next sample; what is a setting and not told stays untold", async () => {
  const clock = new ManualClock();
  const ledger = createLedger();
  const about = {
    group: "g",
    id: "i",
    version: "1",
    runtime: "r",
    table: "t",
    tables: [],
    backlog: 1,
    backlogBytes: 2,
    takesEvents: true,
    spoolMaxBytes: 3,
    authTokens: ["secret"],
  };
  const recorder = createRecorder({
    ledger,
    holdings: NO_HOLDINGS,
    clock,
    problems: createProblems(clock),
    control: { status: () => statusOf(ledger), unready: () => [] },
    about: () => about,
  });
  const [one, other] = [recorder.next(), recorder.next()];
  ledger.accepted(chunkOf("t", { click: 2 }));
  ledger.settled({ ...chunkOf("t", { click: 1 }) } as unknown as Batch, 0, new Map());
  await clock.advance(1000);
  recorder.sample();
  assert.equal((await one).now, (await other).now);
  const { sample, books } = JSON.parse((await one).now);
  assert.deepEqual(sample.slice(1, 3), [2, 1]);
  assert.equal(books.received, 2);
  const first = await recorder.first();
  assert.doesNotMatch(JSON.stringify(first), /secret/);
  assert.deepEqual(JSON.parse(first.past).columns[0], [sample[0]]);
  assert.deepEqual(Object.keys(JSON.parse(first.about)).sort(), [
    "backlog",
    "backlogBytes",
    "group",
    "id",
    "runtime",
    "spoolMaxBytes",
    "table",
    "tables",
    "takesEvents",
    "version",
  ]);
});
