/**
 * What a scrape says, read back by a parser of its own that knows the text format and no more.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { SourceStatus } from "../../src/contracts.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { createPrometheus, type PrometheusDeps } from "../../src/meter/prometheus.ts";
import { memoryLog } from "../kit/chunks.ts";
import { events, fixedHoldings, rows } from "./kit.ts";

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Throws where a line is neither a comment nor a sample, or a series stands there twice. */
function parse(text: string): { samples: Sample[]; types: Map<string, string> } {
  assert.ok(text.endsWith("\n"));
  const types = new Map<string, string>();
  const samples: Sample[] = [];
  const seen = new Set<string>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("# HELP ")) continue;
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (type !== null) {
      types.set(type[1]!, type[2]!);
      continue;
    }
    const sample = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/s.exec(line);
    assert.ok(sample !== null, `not a sample: ${line}`);
    const [, name, inner = "", value] = sample;
    const labels: Record<string, string> = Object.create(null);
    const rest = inner.replace(/(\w+)="((?:[^"\\]|\\[\\n"])*)"(,|$)/gsy, (_, key, text) => {
      labels[key] = text.replace(/\\([\\n"])/g, (_: string, c: string) => c === "n" ? "\n" : c);
      return "";
    });
    assert.equal(rest, "", `labels that do not parse: ${line}`);
    const key = JSON.stringify([name, Object.entries(labels).sort()]);
    assert.ok(!seen.has(key), `twice: ${line}`);
    seen.add(key);
    const number = value === "+Inf" ? Infinity : Number(value);
    assert.ok(!Number.isNaN(number), line);
    samples.push({ name: name!, labels, value: number });
  }
  return { samples, types };
}

const SEEN: PrometheusDeps["surroundings"] = {
  room: () => ({ freeBytes: 30, sizeBytes: 40 }),
  certificateEndS: () => 1_800_000_000,
};

const SOURCE: SourceStatus = {
  name: "a",
  state: "running",
  why: null,
  lag: 7,
  unacked: 3,
  rows: 1,
  repeated: 0,
  dead: 0,
  last_ack_s: null,
};

function setUp(
  held: Map<string, number> = new Map(),
  maxEventTypes = 1000,
  surroundings = SEEN,
) {
  const ledger = createLedger({ maxEventTypes });
  const log = memoryLog();
  const prometheus = createPrometheus({
    ledger,
    holdings: fixedHoldings(held),
    log,
    group: "g",
    id: "one",
    version: "1.2.3",
    runtime: "some 4.5",
    rssBytes: () => 123_456_789,
    limits: () => ({ backlog: 1000, spoolMaxBytes: 2000 }),
    sources: () => [SOURCE, { ...SOURCE, name: "b", lag: null, state: "full" }],
    surroundings,
  });
  const scrape = async () => parse(await prometheus.text());
  return { ledger, held, log, prometheus, scrape };
}

const sumOf = (samples: readonly Sample[], name: string) =>
  samples.filter((sample) => sample.name === name).reduce((sum, { value }) => sum + value, 0);

function difference(samples: readonly Sample[]): number {
  const sum = (name: string) => sumOf(samples, `shishi_rows_${name}`);
  return sum("received_total") + sum("recovered_total") -
    (sum("rejected_total") + sum("stored_total") + sum("dead_total") + sum("held") +
      sum("lost_total"));
}

/** The contract's names with their types and label names. */
const NAMES: readonly [name: string, type: string, labels: string][] = [
  ["analytics_events_total", "counter", "event_type"],
  ["analytics_processing_duration_seconds", "histogram", ""],
  ["shishi_rows_received_total", "counter", "table"],
  ["shishi_rows_rejected_total", "counter", "reason,table"],
  ["shishi_rows_stored_total", "counter", "table"],
  ["shishi_rows_dead_total", "counter", "table"],
  ["shishi_rows_held", "gauge", "table"],
  ["shishi_rows_lost_total", "counter", ""],
  ["shishi_rows_recovered_total", "counter", ""],
  ["shishi_insert_duration_seconds", "histogram", ""],
  ["shishi_insert_rows", "histogram", ""],
  ["shishi_insert_errors_total", "counter", "code,table"],
  ["shishi_insert_timeout_seconds", "gauge", "table"],
  ["shishi_spool_bytes", "gauge", ""],
  ["shishi_memory_bytes", "gauge", ""],
  ["shishi_oldest_row_seconds", "gauge", ""],
  ["shishi_backlog_limit_rows", "gauge", ""],
  ["shishi_spool_limit_bytes", "gauge", ""],
  ["shishi_disk_free_bytes", "gauge", ""],
  ["shishi_disk_size_bytes", "gauge", ""],
  ["shishi_certificate_end_timestamp_seconds", "gauge", ""],
  ["shishi_http_requests_total", "counter", "status"],
  ["shishi_mirror_errors_total", "counter", ""],
  ["shishi_control_commands_total", "counter", "command,ok"],
  ["shishi_certificate_requests_total", "counter", "subject"],
  ["shishi_token_rows_total", "counter", "token"],
  ["shishi_token_bytes_total", "counter", "token"],
  ["shishi_token_refused_total", "counter", "reason,token"],
  ["shishi_table_changes_total", "counter", "what"],
  ["shishi_source_messages_total", "counter", "result,source"],
  ["shishi_source_rows_total", "counter", "source"],
  ["shishi_source_reconnects_total", "counter", "source"],
  ["shishi_source_unacked", "gauge", "source"],
  ["shishi_source_lag", "gauge", "source"],
  ["shishi_source_state", "gauge", "source,state"],
  ["shishi_build_info", "gauge", "runtime,version"],
  ["shishi_collector_info", "gauge", "group,id"],
  ["process_resident_memory_bytes", "gauge", ""],
  ["process_cpu_seconds_total", "counter", ""],
  ["process_start_time_seconds", "gauge", ""],
];

describe("a scrape", () => {
  test("has every name of the contract with its type, its labels and its value", async () => {
    const { ledger, held, scrape } = setUp();
    ledger.accepted(events({ click: 5, view: 2 }));
    ledger.accepted(rows("flights", "row", 10));
    ledger.rejected("analytics_events", "shape", 3);
    ledger.settled(events({ click: 4 }), 1, new Map([["click", 1]]));
    ledger.lost(rows("flights", "row", 1));
    held.set("analytics_events", 3).set("flights", 9);
    ledger.insert("analytics_events", 4, 20);
    ledger.insertError("flights", 241);
    ledger.insertTimeout("flights", 60_000);
    ledger.insertTimeout("analytics_events", 60_000);
    ledger.insertTimeout("analytics_events", null);
    ledger.acknowledged(3);
    ledger.http(202);
    ledger.http(202);
    ledger.mirrorError();
    ledger.control("stop", true);
    ledger.certified("edge-1");
    ledger.tokenTook("web", 2, 50);
    ledger.tokenTook("web", 1, 7);
    ledger.tokenRefused("web", "quota");
    ledger.tableChanged("created");
    Object.assign(ledger.source("a"), { messages: 5, repeated: 2, rows: 8, reconnects: 1 });
    ledger.died("letters", 2);
    ledger.control("stop", false);

    const { samples, types } = await scrape();
    for (const [name, type, labels] of NAMES) {
      assert.equal(types.get(name), type, name);
      const found = samples.filter((sample) =>
        sample.name === (type === "histogram" ? `${name}_count` : name)
      );
      assert.ok(found.length > 0, `${name} has no sample`);
      for (const sample of found) {
        assert.equal(Object.keys(sample.labels).sort().join(), labels, name);
      }
    }
    assert.equal(types.size, NAMES.length, "no name beyond the contract's");

    const value = (name: string, labels: Record<string, string> = {}) =>
      samples.find((sample) =>
        sample.name === name &&
        JSON.stringify(Object.entries(sample.labels).sort()) ===
          JSON.stringify(Object.entries(labels).sort())
      )?.value;
    assert.equal(value("shishi_certificate_requests_total", { subject: "edge-1" }), 1);
    assert.equal(value("shishi_table_changes_total", { what: "created" }), 1);
    assert.equal(value("shishi_source_messages_total", { source: "a", result: "rows" }), 5);
    assert.equal(value("shishi_source_messages_total", { source: "a", result: "repeated" }), 2);
    assert.equal(value("shishi_source_rows_total", { source: "a" }), 8);
    assert.equal(value("shishi_source_reconnects_total", { source: "a" }), 1);
    assert.equal(value("shishi_source_unacked", { source: "a" }), 3);
    assert.equal(value("shishi_source_lag", { source: "a" }), 7);
    assert.ok(
      !samples.some(({ name, labels }) => name.endsWith("_lag") && labels["source"] === "b"),
    );
    assert.equal(value("shishi_source_state", { source: "b", state: "full" }), 1);
    assert.equal(value("shishi_rows_dead_total", { table: "letters" }), 2);
    assert.equal(value("shishi_table_changes_total", { what: "widened" }), 0);
    assert.equal(value("shishi_token_rows_total", { token: "web" }), 3);
    assert.equal(value("shishi_token_bytes_total", { token: "web" }), 57);
    assert.equal(value("shishi_token_refused_total", { token: "web", reason: "quota" }), 1);
    assert.equal(value("shishi_token_refused_total", { token: "web", reason: "right" }), 0);
    assert.equal(value("analytics_events_total", { event_type: "click" }), 5);
    assert.equal(value("analytics_events_total", { event_type: "view" }), 2);
    assert.equal(sumOf(samples, "analytics_events_total"), 7);
    assert.equal(value("shishi_rows_received_total", { table: "analytics_events" }), 10);
    assert.equal(
      value("shishi_rows_rejected_total", { table: "analytics_events", reason: "shape" }),
      3,
    );
    assert.equal(value("shishi_rows_stored_total", { table: "analytics_events" }), 3);
    assert.equal(value("shishi_rows_dead_total", { table: "analytics_events" }), 1);
    assert.equal(value("shishi_rows_held", { table: "flights" }), 9);
    assert.equal(value("shishi_rows_lost_total"), 1);
    assert.equal(value("shishi_insert_errors_total", { table: "flights", code: "241" }), 1);
    assert.equal(value("shishi_insert_timeout_seconds", { table: "flights" }), 60);
    assert.equal(samples.filter(({ name }) => name === "shishi_insert_timeout_seconds").length, 1);
    assert.equal(value("shishi_spool_bytes"), 8192);
    assert.equal(value("shishi_memory_bytes"), 4096);
    assert.equal(value("shishi_oldest_row_seconds"), 1.5);
    assert.equal(value("shishi_backlog_limit_rows"), 1000);
    assert.equal(value("shishi_spool_limit_bytes"), 2000);
    assert.equal(value("shishi_disk_free_bytes"), 30);
    assert.equal(value("shishi_disk_size_bytes"), 40);
    assert.equal(value("shishi_certificate_end_timestamp_seconds"), 1_800_000_000);
    assert.equal(value("shishi_http_requests_total", { status: "202" }), 2);
    assert.equal(value("shishi_mirror_errors_total"), 1);
    assert.equal(value("shishi_control_commands_total", { command: "stop", ok: "true" }), 1);
    assert.equal(value("shishi_control_commands_total", { command: "stop", ok: "false" }), 1);
    assert.equal(value("shishi_build_info", { version: "1.2.3", runtime: "some 4.5" }), 1);
    assert.equal(value("shishi_collector_info", { group: "g", id: "one" }), 1);
    assert.equal(value("process_resident_memory_bytes"), 123_456_789);
    assert.ok(value("process_cpu_seconds_total")! > 0);
    const startedMs = value("process_start_time_seconds")! * 1000;
    assert.ok(Date.now() - startedMs < 3_600_000 && startedMs <= Date.now());
    assert.equal(difference(samples), 0);
  });

  test("what cannot be told is absent, not 0", async () => {
    const nothing = { ...SEEN, room: () => null, certificateEndS: () => null };
    const { samples } = await setUp(new Map(), 1000, nothing).scrape();
    assert.deepEqual(
      samples.filter(({ name }) => /_disk_|_certificate_/.test(name)),
      [],
    );
  });

  test("histograms are cumulative, inclusive at their bounds, and end with all", async () => {
    const { ledger, scrape } = setUp();
    for (const rows of [1, 2, 10, 10, 11, 1_000_000]) ledger.insert("t", rows, rows);
    const { samples } = await scrape();
    const at = (le: string) =>
      samples.find((s) => s.name === "shishi_insert_rows_bucket" && s.labels.le === le)?.value;
    assert.equal(at("1"), 1);
    assert.equal(at("10"), 4);
    assert.equal(at("100"), 5);
    assert.equal(at("100000"), 5);
    assert.equal(at("+Inf"), 6);
    assert.equal(sumOf(samples, "shishi_insert_rows_count"), 6);
    assert.equal(sumOf(samples, "shishi_insert_rows_sum"), 1_000_034);
  });

  test("any event type comes back as it is, and no two become one series", async () => {
    await fc.assert(fc.asyncProperty(
      fc.uniqueArray(
        fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.stringMatching(/^[\\"\n{},= ]*$/)),
        {
          maxLength: 30,
        },
      ),
      async (types) => {
        const { ledger, held, scrape } = setUp();
        ledger.accepted(events(Object.fromEntries(types.map((type, at) => [type, at + 1]))));
        held.set("analytics_events", ledger.totals().held);
        const { samples } = await scrape();
        const shown = samples.filter(({ name }) => name === "analytics_events_total");
        assert.equal(shown.length, types.length);
        types.forEach((type, at) => {
          if (!type.isWellFormed()) return;
          const own = shown.find(({ labels }) => labels.event_type === type);
          assert.equal(own?.value, at + 1, JSON.stringify(type));
        });
      },
    ));
  });

  test("is one moment: what happens while it is rendered is not in it", async () => {
    const { ledger, held, prometheus } = setUp();
    ledger.accepted(events({ click: 5 }));
    held.set("analytics_events", 5);
    const pending = prometheus.text();
    const overlapping = prometheus.text();
    ledger.settled(events({ click: 5 }), 2, new Map([["click", 2]]));
    held.delete("analytics_events");
    ledger.rejected("another", "shape", 9);
    for (const text of [await pending, await overlapping]) {
      const { samples } = parse(text);
      assert.equal(difference(samples), 0);
      assert.equal(sumOf(samples, "shishi_rows_held"), 5);
      assert.equal(sumOf(samples, "shishi_rows_stored_total"), 0);
    }
    const after = parse(await prometheus.text()).samples;
    assert.equal(difference(after), 0);
    assert.equal(sumOf(after, "shishi_rows_stored_total"), 3);
  });

  test("books that do not balance are seen in the scrape and logged once", async () => {
    const { ledger, held, log, scrape } = setUp();
    ledger.accepted(events({ click: 5 }));
    held.set("analytics_events", 4);
    assert.equal(difference((await scrape()).samples), 1);
    await scrape();
    const errors = log.lines.filter(({ level }) => level === "error");
    assert.equal(errors.length, 1);
    assert.equal(errors[0]!.fields.difference, 1);
  });

  test("balances with more tables and event types than have names of their own", async () => {
    const { ledger, held, scrape } = setUp(new Map(), 10);
    for (let i = 0; i < 1500; i++) {
      ledger.accepted(rows(`t${i}`, "row", 2));
      ledger.accepted(events({ [`type ${i}`]: 1 }));
      held.set(`t${i}`, 2);
    }
    held.set("analytics_events", 1500);
    const { samples } = await scrape();
    assert.equal(difference(samples), 0);
    assert.equal(samples.filter(({ name }) => name === "shishi_rows_held").length, 1001);
    assert.equal(samples.filter(({ name }) => name === "analytics_events_total").length, 11);
    assert.equal(sumOf(samples, "analytics_events_total"), 1500);
  });
});
