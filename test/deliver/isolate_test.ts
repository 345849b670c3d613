/**
 * The plan that isolates bad rows, against a model of a server: it names rows or not, can sieve or
 * not, limits rows per INSERT, loses answers, and remembers tokens as a deduplication window does.
 * Runs once: the server is a model; servers_test.ts has real ones on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { DeadRow, Inserter, JudgeRows, Verdict } from "../../src/contracts.ts";
import {
  after,
  append,
  type Event,
  EXPLAINED,
  first,
  restored,
  startPlan,
  step,
} from "../../src/deliver/isolate.ts";
import { join } from "../../src/deliver/rows.ts";
import { createSink } from "../../src/deliver/sink.ts";
import { columnsOf } from "../kit/columns.ts";
import { rounds } from "../kit/rounds.ts";
import { batchOf, never, noTables, realClock, silent } from "./kit.ts";

interface Model {
  readonly rows: number;
  /** Rows that do not parse. */
  readonly bad: ReadonlySet<number>;
  /** Rows that parse and fail later, at a constraint, without a name. */
  readonly hidden: ReadonlySet<number>;
  readonly names: boolean;
  readonly sieves: boolean;
  /** Rows that the sieve calls bad although they are not. */
  readonly sieveLies?: ReadonlySet<number>;
  /** More rows than this in an INSERT: split. */
  readonly atMost: number;
  /**
   * Which INSERTs (by order) are interrupted, whether their rows were stored all the same, and whether the
   * process dies at that moment. The next one has what was noted, and no limit of rows.
   */
  readonly interrupted: ReadonlyMap<number, Interruption>;
  /** Rows that do not fit their columns any more before so many INSERTs. */
  readonly unfit?: ReadonlyMap<number, ReadonlySet<number>>;
}

interface Interruption {
  readonly stored: boolean;
  readonly dies?: boolean;
}

interface Outcome {
  readonly stored: readonly number[];
  readonly dead: readonly DeadRow[];
  readonly inserts: number;
  readonly sieves: number;
  readonly uploadedRows: number;
  readonly deliveries: number;
}

async function run(model: Model): Promise<Outcome> {
  const stored: number[] = [];
  const tokens = new Map<string, string>();
  let inserts = 0;
  let sieves = 0;
  let uploadedRows = 0;
  let died = false;
  let atMost = model.atMost;
  const numbersOf = (body: readonly Uint8Array[]) =>
    new TextDecoder().decode(join(body)).trim().split("\n").map((line) =>
      Number(line.slice(1, -1))
    );

  const inserter: Inserter = {
    insert(request): Promise<Verdict> {
      const rows = request.rows === 0 ? [] : numbersOf(request.body);
      assert.equal(rows.length, request.rows);
      const now = unfitNow();
      const words = new TextDecoder().decode(join(request.body)).match(/\{ /g)?.length ?? 0;
      if (model.unfit) assert.equal(words, rows.length, "in the words that the columns want");
      assert.deepEqual(rows.filter((row) => now.has(row)), [], "never what does not fit");
      const interrupted = model.interrupted.get(inserts++);
      died = interrupted?.dies === true;
      uploadedRows += rows.length;
      // One token never stands for two sets of rows: the window would swallow the second.
      const content = rows.join();
      const before = tokens.get(request.token);
      if (before !== undefined && before !== content) {
        assert.ok(new Set(rows).isSubsetOf(new Set(before.split(",").map(Number))));
        assert.ok(before.split(",").every((row) => rows.includes(+row) || now.has(+row)));
      }
      if (interrupted && !interrupted.stored) {
        return Promise.resolve(LOST);
      }
      const verdict = judge(rows);
      if (verdict.kind === "stored" && !tokens.has(request.token)) {
        tokens.set(request.token, content);
        stored.push(...rows);
      }
      return Promise.resolve(interrupted ? LOST : verdict);
    },
    sieve(request) {
      sieves++;
      if (!model.sieves) return Promise.resolve(null);
      return Promise.resolve(
        numbersOf(request.body).flatMap((row, at) =>
          model.bad.has(row) || model.sieveLies?.has(row) ? [] : [at]
        ),
      );
    },
  };

  function judge(rows: readonly number[]): Verdict {
    if (rows.length > atMost) return { kind: "split", code: 252, message: "too many" };
    const bad = rows.findIndex((row) => model.bad.has(row));
    if (bad >= 0) {
      const message = `row ${rows[bad]}`;
      return { kind: "row", code: 27, message, row: model.names ? bad + 1 : null };
    }
    const hidden = rows.find((row) => model.hidden.has(row));
    if (hidden !== undefined) {
      return { kind: "row", code: 469, message: `row ${hidden}`, row: null };
    }
    return { kind: "stored" };
  }

  /** By the INSERT that comes next. */
  function unfitNow(): ReadonlySet<number> {
    const sets = [...model.unfit ?? []].filter(([at]) => at <= inserts).map(([, rows]) => rows);
    return new Set(sets.flatMap((rows) => [...rows]));
  }

  /** Rows that fit are put in other words. */
  const held: JudgeRows = ({ body }) => {
    const rows = numbersOf(body);
    const now = unfitNow();
    return Promise.resolve({
      body: [new TextEncoder().encode(rows.map((row) => `{ ${row}}\n`).join(""))],
      misfits: rows.filter((row) => now.has(row)).map((row) => ({
        index: row,
        problem: `row ${row} does not fit`,
      })),
      keys: new Set(["a"]),
      strange: new Set(),
      wider: new Map(),
    });
  };
  const fitting = {
    judge: () => held,
    current: () => Promise.resolve(columnsOf(["a UInt8"], String(unfitNow().size))),
    earlier: () => null,
    eventTypes: () => null,
    clock: realClock,
  };

  const lines = Array.from({ length: model.rows }, (_, row) => `{${row}}`);
  const begin = () => ({
    sink: createSink({
      ...{ inserter, tables: noTables, log: silent, createEventsTable: null },
      ...(model.unfit ? { fitting } : {}),
    }),
    batch: batchOf(lines, { id: "0192f0c1-0000-7000-8000-0000000000ff" }),
  });
  let { sink, batch } = begin();
  const trail: string[] = [];
  const note = (line: string) => Promise.resolve(void trail.push(line));
  let dead: readonly DeadRow[] = [];
  let told = false;
  let deliveries = 0;
  while (!told) {
    deliveries++;
    const delivery = await sink.deliver(batch, never, { trail, note, begin: () => true });
    if (died) {
      ({ sink, batch } = begin());
      atMost = Infinity;
    }
    if (delivery.kind === "settled") {
      told = true;
      dead = delivery.dead;
      if (![...model.interrupted.values()].some(({ dies }) => dies)) {
        assert.equal(delivery.inserts, inserts);
      }
    } else {
      assert.ok(delivery.kind === "transient" && delivery.unknown === true);
    }
  }
  return { stored, dead, inserts, sieves, uploadedRows, deliveries };
}

const LOST: Verdict = { kind: "transient", code: 0, message: "lost", unknown: true };

function assertFates(model: Model, outcome: Outcome): void {
  const bad = (row: number) => model.bad.has(row) || model.hidden.has(row);
  const expectedDead = Array.from({ length: model.rows }, (_, row) => row).filter(bad);
  assert.deepEqual(outcome.dead.map((row) => row.index), expectedDead, "dead rows, each once");
  assert.deepEqual(
    [...outcome.stored].sort((a, b) => a - b),
    Array.from({ length: model.rows }, (_, row) => row).filter((row) => !bad(row)),
    "good rows, each stored once",
  );
  for (const row of outcome.dead) assert.ok(row.code === 27 || row.code === 469);
}

const base: Model = {
  rows: 10_000,
  bad: new Set(),
  hidden: new Set(),
  names: true,
  sieves: true,
  atMost: Infinity,
  interrupted: new Map(),
};

function every(rows: number, which: (row: number) => boolean) {
  return new Set(Array.from({ length: rows }, (_, row) => row).filter(which));
}

describe("isolating bad rows", () => {
  test("any bad rows, any server, any interruptions: each row's fate once", async () => {
    const places = (rows: number) =>
      fc.array(fc.nat({ max: Math.max(rows - 1, 0) }), { maxLength: rows });
    const interruption = fc.record({ stored: fc.boolean(), dies: fc.boolean() });
    const models = fc.integer({ min: 1, max: 60 }).chain((rows) =>
      fc.record({
        rows: fc.constant(rows),
        bad: fc.oneof(places(rows), fc.constant([...every(rows, () => true)])).map((list) =>
          new Set(list)
        ),
        hidden: places(rows).map((list) => new Set(list.slice(0, 5))),
        names: fc.boolean(),
        sieves: fc.boolean(),
        sieveLies: places(rows).map((list) => new Set(list.slice(0, 2))),
        atMost: fc.constantFrom(1, 3, 10, Infinity),
        interrupted: fc.array(fc.tuple(fc.nat({ max: 80 }), interruption), { maxLength: 30 })
          .map((list) => new Map(list)),
      })
    );
    await fc.assert(
      fc.asyncProperty(models, async (drawn) => {
        // A sieve that lies about more rows than are sent alone cannot be caught for sure.
        const model: Model = drawn.bad.size + drawn.sieveLies.size <= EXPLAINED
          ? drawn
          : { ...drawn, sieveLies: new Set() };
        const outcome = await run(model);
        assertFates(model, outcome);
        const interruptions = [...model.interrupted.keys()].filter((at) =>
          at < outcome.inserts
        ).length;
        assert.equal(outcome.deliveries, interruptions + 1, "no attempt without a reason");
        const dies = [...model.interrupted.values()].some(({ dies }) => dies);
        // An answer of the sieve that is not noted yet is asked for again.
        assert.ok(dies || outcome.sieves <= 1, "the sieve is asked once");
        if (model.atMost === Infinity && model.hidden.size === 0) {
          const useful = outcome.inserts - interruptions;
          const limit = model.names
            ? 2 * model.bad.size + 4
            : boundUnnamed(model.rows, model.bad.size);
          assert.ok(
            useful <= limit + 2 * (model.sieveLies?.size ?? 0),
            `${useful} INSERTs, limit ${limit}`,
          );
        }
      }),
      { numRuns: rounds(200) },
    );
  });

  test("and rows that come not to fit their columns are never sent", async () => {
    const models = fc.integer({ min: 1, max: 40 }).chain((rows) => {
      const places = fc.array(fc.nat({ max: rows - 1 }), { maxLength: rows })
        .map((list) => new Set(list));
      const interruption = fc.record({ stored: fc.boolean(), dies: fc.boolean() });
      return fc.record({
        rows: fc.constant(rows),
        bad: places,
        hidden: fc.constant(new Set<number>()),
        names: fc.boolean(),
        sieves: fc.boolean(),
        atMost: fc.constantFrom(1, 3, 10, Infinity),
        interrupted: fc.array(fc.tuple(fc.nat({ max: 30 }), interruption), { maxLength: 10 })
          .map((list) => new Map(list)),
        unfit: fc.array(fc.tuple(fc.nat({ max: 20 }), places), { maxLength: 4 })
          .map((list) => new Map(list)),
      });
    });
    await fc.assert(
      fc.asyncProperty(models, async (model) => {
        const { stored, dead } = await run(model);
        assert.equal(new Set(stored).size, stored.length, "stored once");
        const letters = new Map(dead.map(({ index, code, message }) => [index, { code, message }]));
        assert.equal(letters.size, dead.length, "dead once");
        const unfit = new Set([...model.unfit.values()].flatMap((rows) => [...rows]));
        for (let row = 0; row < model.rows; row++) {
          const letter = letters.get(row);
          if (letter === undefined) assert.ok(stored.includes(row), `row ${row} is nowhere`);
          else if (stored.includes(row)) assert.match(letter.message, /may be in the table/);
          else assert.ok(unfit.has(row) || model.bad.has(row), `row ${row} is good`);
          if (letter?.code === 0) assert.ok(unfit.has(row));
        }
      }),
      { numRuns: rounds(200) },
    );
  });

  /** Two and a half INSERTs a bad row, plus the search among the good ones. */
  function boundUnnamed(rows: number, bad: number): number {
    return bad === 0 ? 1 : 4 + Math.ceil(bad * (2.5 + 2 * Math.log2(rows / bad)));
  }

  const counts: [string, Partial<Model>, { inserts: number; uploads: number; sieves: number }][] = [
    ["no bad row", {}, { inserts: 1, uploads: 10_000, sieves: 0 }],
    ["one bad row that is named", { bad: every(10_000, (row) => row === 7777) }, {
      inserts: 2,
      uploads: 19_999,
      sieves: 0,
    }],
    ["one bad row, not named", { bad: every(10_000, (row) => row === 7777), names: false }, {
      inserts: 3,
      uploads: 20_000,
      sieves: 1,
    }],
    ["1000 bad rows", { bad: every(10_000, (row) => row % 10 === 3) }, {
      inserts: 3 + EXPLAINED,
      uploads: 30_000,
      sieves: 1,
    }],
    ["all bad", { bad: every(10_000, () => true) }, {
      inserts: 2 + EXPLAINED,
      uploads: 21_000,
      sieves: 1,
    }],
    ["1000 bad rows, no sieve", { bad: every(10_000, (row) => row % 10 === 3), sieves: false }, {
      inserts: 1010,
      uploads: 80_000,
      sieves: 1,
    }],
    ["all bad, no sieve", { bad: every(10_000, () => true), sieves: false }, {
      inserts: 10_000,
      uploads: 100_000,
      sieves: 1,
    }],
    ["half bad, no sieve", { bad: every(10_000, (row) => row % 2 === 1), sieves: false }, {
      inserts: 5010,
      uploads: 70_000,
      sieves: 1,
    }],
    [
      "all bad, no sieve, no names",
      { bad: every(10_000, () => true), sieves: false, names: false },
      { inserts: 10_020, uploads: 60_000, sieves: 1 },
    ],
    ["half bad, no sieve, no names", {
      bad: every(10_000, (row) => row % 2 === 1),
      sieves: false,
      names: false,
    }, { inserts: 20_000, uploads: 60_000, sieves: 1 }],
    ["one row that only a constraint refuses", { hidden: every(10_000, (row) => row === 4711) }, {
      inserts: 30,
      uploads: 40_000,
      sieves: 1,
    }],
    ["too many rows at once", { atMost: 1000 }, { inserts: 20, uploads: 30_000, sieves: 0 }],
  ];
  for (const [name, part, limit] of counts) {
    test(`of 10,000: ${name}`, async () => {
      const model = { ...base, ...part };
      const outcome = await run(model);
      assertFates(model, outcome);
      assert.ok(outcome.inserts <= limit.inserts, `${outcome.inserts} INSERTs`);
      assert.ok(outcome.uploadedRows <= limit.uploads, `${outcome.uploadedRows} rows uploaded`);
      assert.ok(outcome.sieves <= limit.sieves, `${outcome.sieves} sieves`);
    });
  }

  test("a sieve that calls good rows bad is found out and not believed", async () => {
    const model = {
      ...base,
      bad: every(10_000, (row) => row % 10 === 3),
      sieveLies: every(10_000, (row) => row % 5 === 1),
    };
    const outcome = await run(model);
    assertFates(model, outcome);
  });

  test("rows of different groups never go together, before a restart or after it", () => {
    const model = fc.record({
      groups: fc.array(fc.nat({ max: 3 }), { minLength: 1, maxLength: 60, size: "max" }),
      bad: fc.uniqueArray(fc.nat({ max: 59 }), { maxLength: 8 }),
      hidden: fc.uniqueArray(fc.nat({ max: 59 }), { maxLength: 4 }),
      cap: fc.integer({ min: 1, max: 60 }),
      names: fc.boolean(),
      lies: fc.boolean(),
    });
    fc.assert(fc.property(model, ({ groups, bad, hidden, cap, names, lies }) => {
      const rows = groups.length;
      const lines = [first(rows, cap)];
      let plan = startPlan(rows, cap);
      const happens = (event: Event) => {
        plan = after(plan, event);
        lines.push(append(event));
        assert.deepEqual(step(restored(lines, rows)!.plan), step(plan));
      };
      happens({ is: "apart", groups });
      const stored: number[] = [];
      for (let next = step(plan); next.kind !== "done"; next = step(plan)) {
        const piece = [...next.rows];
        if (next.kind === "sieve") {
          const good = piece.filter((row) => !bad.includes(row) && !(lies && row % 2 === 0));
          happens({ is: "sieve", good });
          continue;
        }
        assert.equal(new Set(piece.map((row) => groups[row])).size, 1);
        const at = piece.findIndex((row) => bad.includes(row));
        const said = { code: 27, message: "" };
        if (at >= 0) happens({ is: "row", row: names ? at + 1 : null, said });
        else if (piece.some((row) => hidden.includes(row))) happens({ is: "row", row: null, said });
        else {
          stored.push(...piece);
          happens({ is: "stored" });
        }
      }
      const wrong = new Set([...bad, ...hidden]);
      assert.deepEqual(
        stored.sort((a, b) => a - b),
        groups.map((_, row) => row).filter((row) => !wrong.has(row)),
      );
    }));
  });

  test("the same rows have the same token after a restart, other rows never do", async () => {
    const tokens: string[][] = [[], []];
    for (const seen of tokens) {
      const sink = createSink({
        inserter: {
          insert(request) {
            seen.push(request.token);
            const bad = new TextDecoder().decode(join(request.body)).split("\n").indexOf("{5}");
            return Promise.resolve(
              bad < 0 ? { kind: "stored" } : { kind: "row", code: 27, message: "", row: null },
            );
          },
          sieve: () => Promise.resolve(null),
        },
        tables: noTables,
        log: silent,
        createEventsTable: null,
      });
      await sink.deliver(
        batchOf(["{1}", "{2}", "{3}", "{4}", "{5}", "{6}"], { id: "batch" }),
        never,
      );
    }
    assert.deepEqual(tokens[0], tokens[1]);
    assert.equal(new Set(tokens[0]).size, tokens[0]?.length);
  });
});
