/** The sink around the plan: a schema that changed, trouble in the middle, a table to create. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Columns, Inserter, Tables, Verdict } from "../../src/contracts.ts";
import { join } from "../../src/deliver/rows.ts";
import { createSink } from "../../src/deliver/sink.ts";
import { columnsOf } from "../kit/columns.ts";
import { startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { batchOf, deliverTo, never, silent } from "./kit.ts";

const columns = (fingerprint: string): Columns => columnsOf(["a"], fingerprint);

/** A server that answers by a function of the lines, and a table that tells this fingerprint. */
function sinkOf(
  judge: (lines: readonly string[], insert: number) => Verdict,
  known: () => Columns | "missing" | "unknown" = () => columns("same"),
  createEventsTable: (() => Promise<boolean>) | null = null,
) {
  const tokens: string[] = [];
  const bodies: Uint8Array[] = [];
  const inserter: Inserter = {
    insert(request) {
      tokens.push(request.token);
      bodies.push(...request.body);
      const lines = new TextDecoder().decode(join(request.body)).trim().split("\n");
      return Promise.resolve(judge(lines, tokens.length));
    },
    sieve: () => Promise.resolve(null),
  };
  const tables: Tables = {
    columns: known,
    lookUp: () => Promise.resolve(known()),
    refresh: () => Promise.resolve(known()),
    doubt() {},
  };
  return { sink: createSink({ inserter, tables, log: silent, createEventsTable }), tokens, bodies };
}

const bad: Verdict = { kind: "row", code: 27, message: "bad", row: 1 };
const unknownField: Verdict = {
  kind: "row",
  code: 117,
  message: "Unknown field found while parsing JSONEachRow format: b",
  row: 1,
};

describe("sink", () => {
  test("unchanged schema: a batch of bad rows only is a batch of dead letters", async () => {
    for (const fingerprint of ["same", null]) {
      const { sink } = sinkOf(() => bad);
      const delivery = await sink.deliver(batchOf(["{1}", "{2}"], { fingerprint }), never);
      assert.equal(delivery.kind, "settled");
      assert.equal(delivery.kind === "settled" && delivery.dead.length, 2);
    }
  });

  test("between attempts it holds no rows: what is sent is what the batch has then", async () => {
    const verdicts: Verdict[] = [bad, { kind: "transient", code: 0, message: "away" }];
    const { sink, bodies } = sinkOf(() => verdicts.shift() ?? { kind: "stored" });
    const batch = batchOf(["{1}", "{2}", "{3}"]);
    assert.equal((await sink.deliver(batch, never)).kind, "transient");
    const again = batch.body.map((piece) => piece.slice());
    Object.assign(batch, { body: again });
    assert.equal((await sink.deliver(batch, never)).kind, "settled");
    assert.equal(bodies.at(-1)?.buffer, again[0]?.buffer);
    assert.equal(new TextDecoder().decode(bodies.at(-1)), "{2}\n{3}\n");
  });

  test("a field that became unknown is trouble of the table, and no row dies for it", async () => {
    let schema = "changed";
    const { sink, tokens } = sinkOf(
      () => schema === "changed" ? unknownField : { kind: "stored" },
      () => columns(schema),
    );
    const batch = batchOf(["{1}", "{2}"], { fingerprint: "same" });
    for (let time = 0; time < 3; time++) {
      const delivery = await sink.deliver(batch, never);
      assert.equal(delivery.kind, "table");
      assert.equal(delivery.kind === "table" && delivery.code, 117);
    }
    schema = "same";
    assert.deepEqual(await sink.deliver(batch, never), { kind: "settled", dead: [], inserts: 4 });
    assert.deepEqual(new Set(tokens), new Set([batch.id]));
  });

  test("a column that is gone: one late row of 1,001 is set aside, the others land", async () => {
    const { sink } = sinkOf((lines) => {
      const at = lines.findIndex((line) => line.includes('"b"'));
      return at < 0 ? { kind: "stored" } : { ...unknownField, row: at + 1 } as Verdict;
    }, () => columns("changed"));
    const lines = Array.from({ length: 1000 }, (_, i) => `{"i":${i}}`);
    lines.splice(700, 0, '{"i":5000,"b":1}');
    const late = await sink.deliver(batchOf(lines, { fingerprint: "same" }), never);
    assert.deepEqual(late.kind === "settled" && late.dead.map(({ index }) => index), [700]);
    const all = lines.map((line) => line.replace("}", ',"b":2}'));
    const held = await sink.deliver(batchOf(all, { fingerprint: "same" }), never);
    assert.equal(held.kind, "table");
  });

  test("a field that was always unknown is an error of its row", async () => {
    const { sink } = sinkOf(() => unknownField);
    const delivery = await sink.deliver(batchOf(["{1}"], { fingerprint: "same" }), never);
    assert.equal(delivery.kind, "settled");
  });

  test("a column that is back before the columns are asked costs no row", async () => {
    const { sink, tokens } = sinkOf((_, insert) =>
      insert === 1 ? unknownField : { kind: "stored" }
    );
    const batch = batchOf(["{1}", "{2}"], { fingerprint: "same" });
    assert.deepEqual(await sink.deliver(batch, never), { kind: "settled", dead: [], inserts: 2 });
    assert.deepEqual(tokens, [batch.id, batch.id]);
  });

  test("a column that goes while bad rows are found out costs no row", async () => {
    let schema = "same";
    const { sink } = sinkOf((lines, insert) => {
      if (insert === 1) {
        schema = "changed";
        return { ...bad, row: 2 };
      }
      if (schema === "changed") return unknownField;
      return lines.includes("{2}") ? { ...bad, row: 2 } : { kind: "stored" };
    }, () => columns(asked++ === 0 ? "same" : schema));
    let asked = 0;
    const batch = batchOf(["{1}", "{2}", "{3}"], { fingerprint: "same" });
    assert.equal((await sink.deliver(batch, never)).kind, "table");
    schema = "same";
    const delivery = await sink.deliver(batch, never);
    assert.deepEqual(
      delivery.kind === "settled" && delivery.dead.map(({ index }) => index),
      [1],
    );
  });

  test("changed schema: rows that fit land, the others are dead", async () => {
    const { sink } = sinkOf(
      (lines) =>
        lines.includes("{2}") ? { ...bad, row: lines.indexOf("{2}") + 1 } : { kind: "stored" },
      () => columns("changed"),
    );
    const delivery = await sink.deliver(
      batchOf(["{1}", "{2}", "{3}"], { fingerprint: "same" }),
      never,
    );
    assert.equal(delivery.kind, "settled");
    assert.deepEqual(
      delivery.kind === "settled" && delivery.dead,
      [{ index: 1, code: 27, message: "bad" }],
    );
  });

  test("changed schema: when nothing lands the batch is held, and starts over later", async () => {
    let fits = false;
    const { sink } = sinkOf(() => fits ? { kind: "stored" } : bad, () => columns("changed"));
    const batch = batchOf(["{1}", "{2}", "{3}"], { fingerprint: "same" });
    assert.equal((await sink.deliver(batch, never)).kind, "table");
    assert.equal((await sink.deliver(batch, never)).kind, "table");
    fits = true;
    const delivery = await sink.deliver(batch, never);
    assert.deepEqual(delivery.kind === "settled" && delivery.dead, []);
  });

  test("no row dies while the columns cannot be asked", async () => {
    let known: Columns | "unknown" = "unknown";
    const { sink } = sinkOf(() => bad, () => known);
    const batch = batchOf(["{1}"], { fingerprint: "same" });
    assert.equal((await sink.deliver(batch, never)).kind, "transient");
    known = columns("same");
    assert.equal((await sink.deliver(batch, never)).kind, "settled");
  });

  test("after trouble in the middle it goes on there, with the same token", async () => {
    const { sink, tokens } = sinkOf((lines, insert) => {
      if (insert === 2) return { kind: "transient", code: 202, message: "busy", retryAfterMs: 7 };
      if (insert === 3) return { kind: "table", code: 242, message: "read only" };
      return lines.length === 3 ? { ...bad, row: 2 } : { kind: "stored" };
    });
    const batch = batchOf(["{1}", "{2}", "{3}"]);
    assert.deepEqual(await sink.deliver(batch, never), {
      kind: "transient",
      code: 202,
      message: "busy",
      retryAfterMs: 7,
    });
    assert.equal((await sink.deliver(batch, never)).kind, "table");
    const delivery = await sink.deliver(batch, never);
    assert.equal(delivery.kind === "settled" && delivery.dead.length, 1);
    assert.equal(delivery.kind === "settled" && delivery.inserts, 4);
    assert.equal(tokens[0], batch.id);
    assert.equal(new Set(tokens.slice(1)).size, 1);
    assert.notEqual(tokens[1], batch.id);
  });

  test("one row that is still too much is trouble of the table", async () => {
    const { sink } = sinkOf(() => ({ kind: "split", code: 252, message: "Too many partitions" }));
    const delivery = await sink.deliver(batchOf(["{1}", "{2}", "{3}"]), never);
    assert.deepEqual(delivery, { kind: "table", code: 252, message: "Too many partitions" });
  });

  test("a missing table of events is created and the INSERT sent again; another table is not", async () => {
    const server = await startFakeClickHouse();
    const deliver = deliverTo([`${server.url}/db`]);
    const lines = ['{"eventType":"a"}', '{"eventType":"b"}'];
    const events = batchOf(lines, { table: "analytics_events", shape: "event" });
    assert.deepEqual(await deliver.sink.deliver(events, never), {
      kind: "settled",
      dead: [],
      inserts: 2,
    });
    assert.equal(server.rows("analytics_events").length, 2);
    assert.equal(
      (await deliver.sink.deliver(batchOf(lines, { table: "other" }), never)).kind,
      "table",
    );
    await deliver.close();

    server.dropTable("analytics_events");
    const unwilling = deliverTo([`${server.url}/db`], { createTable: false });
    const again = batchOf(lines, { table: "analytics_events", shape: "event" });
    const delivery = await unwilling.sink.deliver(again, never);
    assert.equal(delivery.kind === "table" && delivery.code, 60);
    await unwilling.close();
    await server.close();
  });

  test("the ledger is told of every INSERT", async () => {
    const server = await startFakeClickHouse();
    server.createTable("t", { a: "UInt32" });
    const told: (string | number)[][] = [];
    const ledger = {
      insert: (table: string, rows: number, durationMs: number) => {
        assert.ok(durationMs >= 0);
        told.push(["stored", table, rows]);
      },
      insertError: (table: string, code: number) => void told.push(["refused", table, code]),
    };
    const deliver = deliverTo([`${server.url}/db`], { ledger });
    await deliver.sink.deliver(batchOf(['{"a":1}', '{"a":"x"}', '{"a":3}']), never);
    assert.deepEqual(told, [["refused", "t", 27], ["stored", "t", 2]]);
    await deliver.close();
    await server.close();
  });
});
