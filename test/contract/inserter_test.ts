/**
 * One suite for everything that answers INSERTs: ClickHouse of several ages, and the
 * fake that other tests rely on. What holds for the fake holds for the servers.
 * Runs once: what servers answer is compared; servers_test.ts and broken_off_test.ts have the way to them on both runtimes.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Deliver } from "../../src/deliver/deliver.ts";
import { type FakeClickHouse, startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import type { ClickHouse } from "../kit/servers.ts";
import { EVERY_ENGINE } from "../servers/engines.ts";
import { batchOf, deliverTo, never } from "../deliver/kit.ts";

interface Subject {
  readonly url: string;
  createTable(name: string): Promise<void>;
  addColumn(name: string): Promise<void>;
  /** Values of column `a`, ascending. */
  stored(name: string): Promise<number[]>;
  close(): Promise<void>;
}

function real(server: ClickHouse, settings: string): Subject {
  return {
    url: `${server.url}/suite`,
    async createTable(name) {
      await server.query("CREATE DATABASE IF NOT EXISTS suite");
      await server.query(
        `CREATE TABLE suite.${name} (a UInt32, b String) ENGINE = MergeTree ORDER BY a ${settings}`,
      );
    },
    async addColumn(name) {
      await server.query(`ALTER TABLE suite.${name} ADD COLUMN c String`);
    },
    async stored(name) {
      const text = await server.query(`SELECT a FROM suite.${name} ORDER BY a`);
      return text === "" ? [] : text.split("\n").map(Number);
    },
    close: () => server.close(),
  };
}

function fake(server: FakeClickHouse): Subject {
  const create = (name: string, columns: Record<string, "UInt32" | "String">) => {
    server.createTable(name, { a: "UInt32", b: "String", ...columns });
    return Promise.resolve();
  };
  return {
    url: `${server.url}/suite`,
    createTable: (name) => create(name, {}),
    addColumn: (name) => create(name, { c: "String" }),
    stored: (name) =>
      Promise.resolve(server.rows(name).map((row) => Number(row["a"] ?? 0)).sort((a, b) => a - b)),
    close: () => server.close(),
  };
}

const subjects = [
  ...EVERY_ENGINE.map(({ version, modern, start }) => ({
    name: `ClickHouse ${version}`,
    modern,
    start: async () =>
      real(await start(), modern ? "SETTINGS non_replicated_deduplication_window = 100" : ""),
  })),
  { name: "the fake", modern: true, start: async () => fake(await startFakeClickHouse()) },
  {
    name: "the fake, old",
    modern: false,
    start: async () => {
      const server = await startFakeClickHouse();
      server.old(["async_insert", "insert_deduplication_token", "input_format_null_as_default"]);
      return fake(server);
    },
  },
];

for (const { name, modern, start } of subjects) {
  describe(`inserting into ${name}`, () => {
    let subject: Subject;
    let deliver: Deliver;
    before(async () => {
      subject = await start();
      await subject.createTable("known");
      deliver = deliverTo([subject.url]);
    });
    after(async () => {
      await deliver.close();
      await subject.close();
    });

    const insert = (table: string, lines: readonly string[], token: string) =>
      deliver.inserter.insert({
        table,
        shape: "row",
        body: [new TextEncoder().encode(lines.map((line) => line + "\n").join(""))],
        rows: lines.length,
        token,
      }, never);

    for (const compress of ["gzip", "none"] as const) {
      test(`stores rows, few and many, in several pieces, compress=${compress}`, async () => {
        const table = `stored_${compress}`;
        await subject.createTable(table);
        const room = deliverTo([subject.url], { compress });
        const insertPieces = (pieces: readonly (readonly string[])[], token: string) =>
          room.inserter.insert({
            table,
            shape: "row",
            body: pieces.map((lines) => new TextEncoder().encode(lines.join(""))),
            rows: pieces.reduce((sum, { length }) => sum + length, 0),
            token,
          }, never);
        const lines = Array.from(
          { length: 30_000 },
          (_, at) => `{"a":${at + 1},"b":"row ${at}"}\n`,
        );
        const few = [lines.slice(0, 1)];
        const many = [lines.slice(1, 9), lines.slice(9, 20_000), lines.slice(20_000)];
        assert.deepEqual(await insertPieces(few, "t1"), { kind: "stored" });
        assert.deepEqual(await insertPieces(many, "t2"), { kind: "stored" });
        await room.close();
        assert.deepEqual(
          await subject.stored(table),
          Array.from({ length: 30_000 }, (_, at) => at + 1),
        );
      });
    }

    test("names the bad row and stores nothing of the INSERT", async () => {
      await subject.createTable("named");
      const lines = Array.from({ length: 2000 }, (_, at) => `{"a":${at === 1233 ? '"x"' : at}}`);
      const verdict = await insert("named", lines, "n1");
      assert.equal(verdict.kind, "row");
      assert.equal(verdict.kind === "row" && verdict.row, 1234);
      assert.equal(verdict.kind === "row" && verdict.code, 27);
      assert.deepEqual(await subject.stored("named"), []);
    });

    test("a key that is no column is an error of its row", async () => {
      const verdict = await insert("known", ['{"a":1}', '{"a":1,"zz":2}'], "u1");
      assert.equal(verdict.kind === "row" && verdict.code, 117);
      assert.equal(verdict.kind === "row" && verdict.row, 2);
    });

    test("a missing table is trouble of the table", async () => {
      const verdict = await insert("nowhere", ['{"a":1}'], "m1");
      assert.equal(verdict.kind, "table");
      assert.equal(verdict.kind === "table" && verdict.code, 60);
    });

    test("a table name that is none never becomes SQL", async () => {
      const verdict = await insert("t; DROP TABLE known", ['{"a":1}'], "i1");
      assert.equal(verdict.kind, "table");
      assert.ok(typeof await deliver.tables.refresh("known") === "object");
    });

    if (modern) {
      test("the same token is stored once", async () => {
        await subject.createTable("once");
        for (let time = 0; time < 3; time++) {
          assert.equal((await insert("once", ['{"a":1}', '{"a":2}'], "same")).kind, "stored");
        }
        assert.deepEqual(await subject.stored("once"), [1, 2]);
      });
    }

    test("sieves, or says that it cannot", async () => {
      const rows = [
        '{"a":1,"b":"x"}\n{"a":"bad"}\n{}\n',
        '{"zz":1}\n{"a":5\n {"a":7}\n{"_row":1}\n{"a":9}\n',
      ];
      const body = rows.map((row) => new TextEncoder().encode(row));
      const request = { table: "known", shape: "row" as const, body, rows: 8, token: "s1" };
      for (let time = 0; time < 2; time++) {
        assert.deepEqual(
          await deliver.inserter.sieve(request, never),
          modern ? [0, 2, 5, 7] : null,
        );
      }
    });

    test("one bad row of 10,000 costs one more INSERT", async () => {
      await subject.createTable("isolated");
      const lines = Array.from({ length: 10_000 }, (_, at) => `{"a":${at === 7 ? '"x"' : at}}`);
      const delivery = await deliver.sink.deliver(batchOf(lines, { table: "isolated" }), never);
      assert.equal(delivery.kind, "settled");
      assert.ok(delivery.kind === "settled" && delivery.inserts === 2);
      assert.deepEqual(delivery.kind === "settled" && delivery.dead.map((row) => row.index), [7]);
      assert.equal((await subject.stored("isolated")).length, 9_999);
    });

    test("an aborted INSERT ends at once as transient", async () => {
      const abort = new AbortController();
      abort.abort();
      const body = [new TextEncoder().encode('{"a":1}\n')];
      const verdict = await deliver.inserter.insert(
        { table: "known", shape: "row", body, rows: 1, token: "a1" },
        abort.signal,
      );
      assert.equal(verdict.kind, "transient");
    });

    test("columns, and a fingerprint that changes with them", async () => {
      await subject.createTable("columns");
      const first = await deliver.tables.lookUp("columns", 5000);
      assert.ok(typeof first === "object");
      assert.deepEqual([...first.names].sort(), ["a", "b"]);
      assert.deepEqual(deliver.tables.columns("columns"), first);
      const again = await deliver.tables.refresh("columns");
      assert.equal(typeof again === "object" && again.fingerprint, first.fingerprint);
      await subject.addColumn("columns");
      const wider = await deliver.tables.refresh("columns");
      assert.ok(typeof wider === "object" && wider.names.has("c"));
      assert.notEqual(typeof wider === "object" && wider.fingerprint, first.fingerprint);
      assert.equal(await deliver.tables.lookUp("nowhere", 5000), "missing");
    });

    test("answers pings", async () => {
      assert.equal(await deliver.query.ping(), true);
    });
  });
}
