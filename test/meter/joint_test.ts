/** Several ledgers as one: it balances and never goes back, whatever dies between two reports. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { LedgerTotals } from "../../src/contracts.ts";
import { createJoint } from "../../src/meter/joint.ts";
import { balance, createLedger, type MeteredLedger } from "../../src/meter/ledger.ts";
import { events, rows } from "./kit.ts";

/** A process with a disk: what it holds survives it. */
class Process {
  ledger: MeteredLedger = createLedger();
  held: number[] = [];
  onDisk: number[] = [];

  take(count: number): void {
    this.ledger.accepted(events({ click: count }));
    this.held.push(count);
  }

  deliver(dead: number): void {
    const count = this.held.shift();
    if (count === undefined) return;
    const bad = Math.min(dead, count);
    this.ledger.settled(events({ click: count }), bad, new Map([["click", bad]]));
  }

  die(): void {
    this.onDisk.push(...this.held);
    this.held = [];
    this.ledger = createLedger();
  }

  /** Reads one batch of the spool. */
  recover(): void {
    const count = this.onDisk.shift();
    if (count === undefined) return;
    this.ledger.recovered("analytics_events", count);
    this.held.push(count);
  }
}

const RISING = ["received", "recovered", "rejected", "stored", "dead", "lost"] as const;

const step = fc.record({
  at: fc.nat(1),
  what: fc.constantFrom("take", "take", "deliver", "reject", "report", "report", "die", "recover"),
  count: fc.integer({ min: 1, max: 50 }),
});

test("the books of all balance and nothing but held goes down, through any deaths", () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const all = createLedger();
    const joint = createJoint(all);
    const processes = [new Process(), new Process()];
    let before: LedgerTotals = all.totals();
    const report = (at: number) => {
      joint.took(at, processes[at]!.ledger.counts());
      if (processes[at]!.onDisk.length === 0) joint.settle(at, "stored");
    };
    for (const { at, what, count } of steps) {
      const process = processes[at]!;
      if (what === "take") process.take(count);
      if (what === "deliver") process.deliver(count % 3);
      if (what === "reject") process.ledger.rejected("analytics_events", "json", count);
      if (what === "recover") process.recover();
      if (what === "report") report(at);
      if (what === "die") {
        process.die();
        joint.died(at);
      }
      const totals = all.totals();
      assert.equal(balance(totals), 0, JSON.stringify(totals));
      for (const name of RISING) assert.ok(totals[name] >= before[name], `${name} went down`);
      assert.ok(totals.held >= 0);
      before = totals;
    }
    for (const [at, process] of processes.entries()) {
      while (process.onDisk.length > 0) process.recover();
      report(at);
    }
    const held = processes.flatMap((process) => process.held).reduce((a, b) => a + b, 0);
    assert.equal(all.totals().held, held, "what is held is what they hold");
    assert.equal([...joint.owed().values()].reduce((a, b) => a + b, 0), 0);
  }));
});

test("rows that a successor finds are not recovered once more, only those nobody had told", () => {
  const all = createLedger();
  const joint = createJoint(all);
  const first = createLedger();
  first.accepted(events({ click: 10 }));
  joint.took(1, first.counts());
  joint.died(1);
  assert.equal(all.totals().held, 10);
  assert.deepEqual([...joint.owed()], [["analytics_events", 10]]);
  const second = createLedger();
  second.recovered("analytics_events", 13);
  joint.took(1, second.counts());
  const { received, recovered, held } = all.totals();
  assert.deepEqual({ received, recovered, held }, { received: 10, recovered: 3, held: 13 });
});

test("what nobody finds was lost where memory held it", () => {
  const all = createLedger();
  const joint = createJoint(all);
  const first = createLedger();
  first.accepted(events({ click: 10 }));
  joint.took(1, first.counts());
  joint.died(1);
  const second = createLedger();
  second.recovered("analytics_events", 4);
  joint.took(1, second.counts());
  joint.settle(1, "lost");
  assert.deepEqual({ ...all.totals() }, {
    received: 10,
    recovered: 0,
    rejected: 0,
    stored: 0,
    dead: 0,
    held: 4,
    lost: 6,
  });
});

test("everything that is counted arrives, under its name", () => {
  const one = createLedger();
  one.accepted(events({ click: 2, view: 1 }));
  one.accepted(rows("flights", "row", 5));
  one.rejected("flights", "unknown column", 2);
  one.settled(events({ click: 2, view: 1 }), 1, new Map([["view", 1]]));
  one.insert("analytics_events", 3, 40);
  one.insertError("flights", 60);
  one.http(202);
  one.http(429);
  one.acknowledged(3);
  const all = createLedger();
  const joint = createJoint(all);
  joint.took(1, one.counts());
  joint.took(2, JSON.parse(JSON.stringify(one.counts())));
  joint.took(2, one.counts());
  const twice = (ledger: MeteredLedger) => ({
    totals: Object.values(ledger.totals()),
    types: [...ledger.typeTotals()].map(({ accepted, stored }) => [accepted, stored]).flat(),
    rejections: [...ledger.rejections()].map(({ rows }) => rows),
    errors: [...ledger.insertErrors()].map(({ count }) => count),
    http: [...ledger.httpStatuses()].map(({ count }) => count),
    inserts: ledger.work().inserts,
    retries: ledger.work().retries,
    histograms: [ledger.requestSeconds, ledger.insertSeconds, ledger.insertRows]
      .flatMap(({ counts, sum, count }) => [...counts, sum, count]),
  });
  const doubled = JSON.parse(
    JSON.stringify(twice(one), (_, value) => typeof value === "number" ? value * 2 : value),
  );
  assert.deepEqual(twice(all), doubled);
  assert.deepEqual([...all.eventTotals()], [["click", 4], ["view", 2]]);
  assert.deepEqual([...all.rejections()][0]?.reason, "unknown column");
  assert.deepEqual([...all.insertErrors()][0]?.code, "60");
});
