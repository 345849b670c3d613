/**
 * The books balance, whatever happens in whatever order, and stay bounded whatever names arrive.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Batch, Shape } from "../../src/contracts.ts";
import { LABEL_CHARS } from "../../src/meter/label.ts";
import { balance, createLedger, type MeteredLedger } from "../../src/meter/ledger.ts";
import { events, rows } from "./kit.ts";

const TABLES: readonly { name: string; shape: Shape }[] = [
  { name: "analytics_events", shape: "event" },
  { name: "flights", shape: "row" },
  { name: "test_go_worker", shape: "row" },
];

type Step =
  | { kind: "accept"; table: number; types: [string, number][] }
  | { kind: "reject"; table: number; reason: string; rows: number }
  | { kind: "settle"; pick: number; deadEvery: number }
  | { kind: "lose"; pick: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant("accept" as const),
    table: fc.nat(TABLES.length - 1),
    types: fc.uniqueArray(
      fc.tuple(
        fc.oneof(
          fc.constantFrom("click", "other", "", "__proto__"),
          fc.string(),
          fc.string({
            minLength: 200,
            maxLength: 400,
            unit: "binary",
          }),
        ),
        fc.integer({ min: 1, max: 50 }),
      ),
      { selector: ([type]) => type, minLength: 1, maxLength: 5 },
    ),
  }),
  fc.record({
    kind: fc.constant("reject" as const),
    table: fc.nat(TABLES.length - 1),
    reason: fc.constantFrom("shape", "column", "size"),
    rows: fc.integer({ min: 1, max: 9 }),
  }),
  fc.record({ kind: fc.constant("settle" as const), pick: fc.nat(), deadEvery: fc.nat(4) }),
  fc.record({ kind: fc.constant("lose" as const), pick: fc.nat() }),
);

/** Each taken batch by the table and the counts it was taken with. */
function play(ledger: MeteredLedger, steps: readonly Step[]) {
  const open: Batch[] = [];
  const sent = { accepted: 0, rejected: 0, stored: 0, dead: 0, lost: 0 };
  const check = () => {
    const totals = ledger.totals();
    assert.equal(balance(totals), 0);
    assert.deepEqual(totals, {
      received: sent.accepted + sent.rejected,
      recovered: 0,
      rejected: sent.rejected,
      stored: sent.stored,
      dead: sent.dead,
      lost: sent.lost,
      held: open.reduce((sum, batch) => sum + batch.rows, 0),
    });
  };
  for (const now of steps) {
    if (now.kind === "accept") {
      const { name, shape } = TABLES[now.table]!;
      const count = now.types.reduce((sum, [, n]) => sum + n, 0);
      const batch = rows(name, shape, count, new Map(shape === "event" ? now.types : []));
      ledger.accepted(batch);
      open.push(batch);
      sent.accepted += count;
    } else if (now.kind === "reject") {
      ledger.rejected(TABLES[now.table]!.name, now.reason, now.rows);
      sent.rejected += now.rows;
    } else if (open.length > 0) {
      const [batch] = open.splice(now.pick % open.length, 1) as [Batch];
      if (now.kind === "lose") {
        ledger.lost(batch);
        sent.lost += batch.rows;
      } else {
        const some = (n: number) => now.deadEvery === 0 ? 0 : Math.floor(n / now.deadEvery);
        const deadTypes = new Map([...batch.types].map(([type, n]) => [type, some(n)]));
        const dead = batch.shape === "row"
          ? some(batch.rows)
          : [...deadTypes.values()].reduce((sum, n) => sum + n, 0);
        ledger.settled(batch, dead, deadTypes);
        sent.dead += dead;
        sent.stored += batch.rows - dead;
      }
    }
    check();
  }
  return open;
}

describe("the ledger", () => {
  test("balances in total and per table, and types add up to rows, after any steps", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 60 }), fc.nat(6), (steps, maxEventTypes) => {
      const ledger = createLedger({ maxEventTypes });
      play(ledger, steps);
      const perType = [...ledger.typeTotals()];
      for (const [table, totals] of ledger.tableTotals()) {
        assert.equal(balance(totals), 0, table);
        const own = perType.filter((type) => type.table === table);
        const sum = (field: "accepted" | "stored") => own.reduce((s, type) => s + type[field], 0);
        assert.equal(sum("accepted"), totals.received - totals.rejected, table);
        assert.equal(sum("stored"), totals.stored, table);
      }
      for (const { accepted, stored } of perType) assert.ok(stored >= 0 && stored <= accepted);
    }));
  });

  test("a type has the same name when it is stored as when it was accepted", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 40 }), fc.nat(4), (steps, maxEventTypes) => {
      const ledger = createLedger({ maxEventTypes });
      const open = play(ledger, steps.filter(({ kind }) => kind !== "lose"));
      for (const batch of open) ledger.settled(batch, 0, new Map());
      const { dead } = ledger.totals();
      const missing = [...ledger.typeTotals()].reduce((s, t) => s + t.accepted - t.stored, 0);
      assert.equal(missing, dead);
    }));
  });

  test("the first event types keep their names, the rest is other, for ever", () => {
    const ledger = createLedger({ maxEventTypes: 2 });
    const first = events({ a: 1, b: 2, c: 3 });
    ledger.accepted(first);
    ledger.accepted(events({ d: 4, a: 5 }));
    ledger.settled(first, 1, new Map([["c", 1]]));
    assert.deepEqual([...ledger.typeTotals()], [
      { table: "analytics_events", eventType: "a", accepted: 6, stored: 1 },
      { table: "analytics_events", eventType: "b", accepted: 2, stored: 2 },
      { table: "analytics_events", eventType: "other", accepted: 7, stored: 2 },
    ]);
    assert.deepEqual([...ledger.eventTotals()], [["a", 6], ["b", 2], ["other", 7]]);
  });

  test("rows of other tables have no event type and are no events", () => {
    const ledger = createLedger();
    ledger.accepted(rows("flights", "row", 7));
    ledger.settled(rows("flights", "row", 5), 2, new Map());
    assert.deepEqual([...ledger.typeTotals()], [
      { table: "flights", eventType: "", accepted: 7, stored: 3 },
    ]);
    assert.equal(ledger.eventTotals().size, 0);
  });

  test("long and malformed event types are cut, and stay apart", () => {
    const ledger = createLedger();
    const long = "x".repeat(70_000);
    const lone = (at: number) => String.fromCharCode(0xd800 + at);
    ledger.accepted(events({ [long + "1"]: 1, [long + "2"]: 2, [lone(0)]: 4, [lone(1)]: 8 }));
    const names = [...ledger.eventTotals().keys()];
    assert.equal(new Set(names).size, 4);
    for (const name of names) {
      assert.ok(name.length <= LABEL_CHARS, String(name.length));
      assert.ok(name.isWellFormed());
    }
    assert.equal(new Set(names.map((name) => new TextEncoder().encode(name).join())).size, 4);
  });

  test("tables, codes, reasons, statuses and commands are bounded, and nothing is lost", () => {
    const ledger = createLedger();
    for (let i = 0; i < 3000; i++) {
      ledger.accepted(rows(`t${i}`, "row", 1));
      ledger.rejected("t0", `reason ${i}`, 1);
      ledger.insertError("t0", i);
      ledger.http(i);
      ledger.control(`command ${i}`, i % 2 === 0);
    }
    const total = <T>(items: Iterable<T>, pick: (item: T) => number) =>
      [...items].reduce((sum, item) => sum + pick(item), 0);
    assert.equal(ledger.tableTotals().size, 1001);
    assert.equal(ledger.tableTotals().get("other")?.received, 2000);
    assert.equal(ledger.tableLabel("t2999"), "other");
    assert.equal(ledger.tableLabel("t1"), "t1");
    assert.equal(balance(ledger.totals()), 0);
    assert.ok([...ledger.rejections()].length <= 40);
    assert.equal(total(ledger.rejections(), ({ rows }) => rows), 3000);
    assert.ok([...ledger.insertErrors()].length <= 201);
    assert.equal(total(ledger.insertErrors(), ({ count }) => count), 3000);
    assert.ok([...ledger.httpStatuses()].length <= 501);
    assert.equal(total(ledger.httpStatuses(), ({ count }) => count), 3000);
    assert.ok([...ledger.controls()].length <= 34);
    assert.equal(total(ledger.controls(), ({ count }) => count), 3000);
  });

  test("balance tells by how much", () => {
    const none = { received: 0, recovered: 0, rejected: 0, stored: 0, dead: 0, held: 0, lost: 0 };
    assert.equal(balance(none), 0);
    assert.equal(balance({ ...none, received: 5, recovered: 2, stored: 4, held: 1 }), 2);
    assert.equal(balance({ ...none, dead: 3 }), -3);
  });
});

describe("the work", () => {
  test("quantiles are of the last 1000 inserts, by nearest rank, 0 while there were none", () => {
    const ledger = createLedger();
    assert.deepEqual(ledger.work(), { inserts: 0, retries: 0, insertMsP50: 0, insertMsP99: 0 });
    for (let i = 0; i < 5000; i++) ledger.insert("t", 10, 1e6);
    for (let ms = 1000; ms >= 1; ms--) ledger.insert("t", 10, ms);
    ledger.insertError("t", 241);
    assert.deepEqual(ledger.work(), {
      inserts: 6000,
      retries: 1,
      insertMsP50: 500,
      insertMsP99: 990,
    });
  });
});
