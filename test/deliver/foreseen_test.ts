/** Columns that are asked for before the turn of a batch: for which INSERT they are good. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Batch, InsertRequest, JudgeRows } from "../../src/contracts.ts";
import { columnsOf } from "../../src/deliver/plan.ts";
import { createSink } from "../../src/deliver/sink.ts";
import { batchOf, fakeClock, never, noTables, silent } from "./kit.ts";

/** All rows fit. */
const judge: JudgeRows = () =>
  Promise.resolve({
    body: null,
    keys: new Set(["a", "b"]),
    misfits: [],
    strange: new Set(),
    wider: new Map(),
  });

/** A sink of tables that have the columns `state.columns`; `asked`: of which, in turn. */
function room() {
  const clock = fakeClock();
  const state = { columns: ["a"], refuses: false };
  const asked: string[] = [];
  const sent: InsertRequest[] = [];
  const sink = createSink({
    inserter: {
      insert(request) {
        sent.push(request);
        const answer = state.refuses
          ? { kind: "transient", code: 999, message: "Keeper" } as const
          : { kind: "stored" } as const;
        return Promise.resolve(answer);
      },
      sieve: () => Promise.resolve(null),
    },
    tables: noTables,
    log: silent,
    createEventsTable: null,
    fitting: {
      judge: () => judge,
      current(table) {
        asked.push(table);
        const rows = state.columns.map((name) => ({ name, type: "UInt8", default_kind: "" }));
        return Promise.resolve(columnsOf(rows, table));
      },
      earlier: () => null,
      eventTypes: () => null,
      clock,
    },
  });
  const deliver = (batch: Batch) => sink.deliver(batch, never);
  return { sink, clock, state, asked, sent, deliver };
}

const batches = () => ["t", "u"].map((table) => batchOf(['{"a":1,"b":2}'], { table }));

describe("what is asked for ahead", () => {
  test("is the answer for the first INSERT of each batch, as the columns were at the seal", async () => {
    const { sink, clock, state, asked, sent, deliver } = room();
    const [t, u] = batches();
    sink.expect?.([t!, u!]);
    assert.deepEqual(asked, ["t", "u"]);
    state.columns = ["a", "b"];
    clock.advance(999);
    await deliver(t!);
    await deliver(u!);
    assert.deepEqual(asked, ["t", "u"]);
    assert.deepEqual(sent.map(({ columns }) => columns), [["a"], ["a"]]);
    // Another batch of the table has rows that came later.
    await deliver(batchOf(['{"a":1,"b":2}'], { table: "t" }));
    assert.deepEqual(sent.at(-1)?.columns, ["a", "b"]);
  });

  test("is too old for a batch that has waited, and for the second attempt", async () => {
    const { sink, clock, state, asked, deliver } = room();
    const [t, u] = batches();
    sink.expect?.([t!, u!]);
    state.refuses = true;
    await deliver(t!);
    await deliver(t!);
    assert.deepEqual(asked, ["t", "u", "t"]);
    clock.advance(1000);
    await deliver(u!);
    assert.deepEqual(asked, ["t", "u", "t", "u"]);
  });
});
