/**
 * Settings that a person wants on INSERTs: where they arrive, and what is said of those that cannot.
 * Runs once: what servers answer is compared; servers_test.ts and broken_off_test.ts have the way to them on both runtimes.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Delivery, InsertSetting } from "../../src/contracts.ts";
import { inspectClickHouse } from "../../src/deliver/inspect_clickhouse.ts";
import { type ClickHouse, startClickHouse, startOldClickHouse, userXml } from "../kit/servers.ts";
import { batchOf, deliverTo, endpointOf, never, realClock } from "./kit.ts";

const wanted = (...settings: [table: string | null, name: string, value: string][]) =>
  settings.map(([table, name, value]): InsertSetting => ({ table, name, value }));

/** A batch with a bad row or some at these settings, delivered. */
async function deliver(
  url: string,
  table: string,
  insertSettings: readonly InsertSetting[],
  lines: readonly string[] = ['{"a":1}'],
): Promise<Delivery> {
  const room = deliverTo([url], { insertSettings });
  try {
    return await room.sink.deliver(batchOf(lines, { table }), never);
  } finally {
    await room.close();
  }
}

/** What `check` says of a table. */
async function checked(url: string, table: string, insertSettings: readonly InsertSetting[]) {
  const findings = await inspectClickHouse(
    endpointOf(url),
    { table: "analytics_events", createTable: true, tables: [table], insertSettings },
    { fetch: (url, init) => fetch(url, init), clock: realClock },
  );
  return findings.filter(({ what }) => what.startsWith(`table ${table} `));
}

describe("insert-settings", () => {
  let server: ClickHouse;
  before(async () => {
    server = await startClickHouse({
      users: userXml("fixed", undefined, "fixed"),
      profiles: "<fixed><max_threads>3</max_threads><constraints><max_threads><readonly/>" +
        "</max_threads></constraints></fixed>",
    });
    for (const table of ["plain", "logs_web", "`my-logs`"]) {
      await server.query(
        `CREATE TABLE ${table} (a UInt32, said String DEFAULT getSetting('log_comment'), ` +
          "threads UInt64 DEFAULT getSetting('max_threads'))" +
          " ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 1000",
      );
    }
  });
  after(() => server.close());

  test("those of all tables and those of some; these win, whatever their order", async () => {
    const settings = wanted(
      ["logs_*", "log_comment", "of logs, all"],
      [null, "log_comment", "of all"],
      [null, "max_threads", "2"],
      ["my-logs", "max_threads", "1"],
    );
    for (const table of ["plain", "logs_web", "my-logs"]) {
      assert.equal((await deliver(server.url, table, settings)).kind, "settled");
    }
    const said = (table: string) => server.query(`SELECT said, threads FROM ${table}`);
    assert.equal(await said("plain"), "of all\t2");
    assert.equal(await said("logs_web"), "of logs, all\t2");
    assert.equal(await said("`my-logs`"), "of all\t1");
  });

  test("a Distributed table's shards are waited for, which no server does by itself", async () => {
    const waits = "getSetting('distributed_foreground_insert')";
    await server.query(
      `CREATE TABLE waits (a UInt32, waits UInt8 DEFAULT ${waits}) ENGINE = MergeTree ORDER BY a`,
    );
    assert.equal(await server.query(`SELECT toUInt8(${waits})`), "0");
    assert.equal((await deliver(server.url, "waits", [])).kind, "settled");
    assert.equal(await server.query("SELECT waits FROM waits"), "1");
  });

  test("bad rows are found as the INSERT reads them", async () => {
    const settings = wanted([null, "bool_true_representation", "yes"]);
    const lines = Array.from({ length: 60 }, (_, at) => `{"a":${at % 5 === 2 ? '"x"' : at}}`);
    const delivery = await deliver(server.url, "plain", settings, lines);
    assert.equal(delivery.kind === "settled" && delivery.dead.length, 12);
  });

  for (
    const [what, user, setting, code, why] of [
      ["a name that the server does not know", "", "insert_quorom", 115, /Unknown setting/],
      ["one that the profile forbids", "fixed:p@", "max_threads", 452, /should not be changed/],
    ] as const
  ) {
    test(`${what} holds the rows and is told`, async () => {
      const url = server.url.replace("://", `://${user}`);
      const settings = wanted(["plain", setting, "2"]);
      await server.query("TRUNCATE TABLE plain");
      const delivery = await deliver(url, "plain", settings);
      assert.ok(delivery.kind === "table", JSON.stringify(delivery));
      assert.equal(delivery.code, code);
      assert.match(delivery.message, /^insert-settings: /);
      assert.match(delivery.message, why);
      assert.equal(await server.query("SELECT count() FROM plain"), "0");
      const [finding] = await checked(url, "plain", settings);
      assert.equal(finding?.state, "wrong");
      assert.match(finding.text, /insert-settings: /);
      assert.equal(finding.todo, "correct insert-settings");
      assert.equal((await deliver(url, "logs_web", settings)).kind, "settled", "other tables flow");
    });
  }

  test("18.16: those that it knows arrive", async () => {
    const old = await startOldClickHouse();
    try {
      await old.query("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a");
      const known = await deliver(old.url, "t", wanted([null, "max_threads", "1"]));
      assert.equal(known.kind, "settled");
      const unknown = await deliver(old.url, "t", wanted([null, "log_comment", "x"]));
      assert.match(
        unknown.kind === "table" ? unknown.message : "",
        /^insert-settings: .*log_comment/,
      );
    } finally {
      await old.close();
    }
  });
});
