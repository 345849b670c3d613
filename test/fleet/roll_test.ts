/**
 * `stop --batch`: a few at a time, and an end to it as soon as something goes wrong.
 * Runs once: collectors and the bus are made of nothing; servers_test.ts has real ones on both runtimes.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { batchesOf } from "../../src/fleet/fleet.ts";
import { Bus, collector, type Habits, run } from "./bus.ts";

const NAMES = Array.from({ length: 7 }, (_, n) => `eu.c${n + 1}`);

/** Seven collectors that take a second each, but for those with habits of their own. */
function fleet(bus: Bus, habits: Readonly<Record<string, Habits>> = {}) {
  return NAMES.map((name) => collector(bus, name, { drainMs: 1_000, ...habits[name] }));
}
const roll = (size: number, pauseMs = 0) => ({ target: "eu", roll: { size, pauseMs } });
const told = (all: readonly { told: readonly string[] }[]) => all.map((each) => each.told.length);

test("three at a time, the next when these have stopped", async () => {
  const bus = new Bus();
  const all = fleet(bus);
  const { out, err, end } = run(bus, "stop", roll(3));
  await bus.clock.advance(2_900);
  assert.deepEqual(told(all), [1, 1, 1, 0, 0, 0, 0]);
  assert.equal(await end(), 0);
  assert.deepEqual(err, []);
  assert.deepEqual(told(all), [1, 1, 1, 1, 1, 1, 1]);
  assert.deepEqual(out.filter((line) => line.startsWith("batch")), [
    "batch 1 of 3: eu.c1, eu.c2, eu.c3",
    "batch 2 of 3: eu.c4, eu.c5, eu.c6",
    "batch 3 of 3: eu.c7",
  ]);
  assert.equal(out.at(-1), "7 of 7 stopped");
  assert.ok(!bus.published.includes("shishi.stop.eu"), "nobody is told through the group");
});

test("--wait DURATION: so long between one batch and the next", async () => {
  const bus = new Bus();
  const all = fleet(bus);
  const { end } = run(bus, "stop", roll(5, 60_000));
  await bus.clock.advance(60_000);
  assert.deepEqual(told(all), [1, 1, 1, 1, 1, 0, 0]);
  await bus.clock.advance(10_000);
  assert.deepEqual(told(all), [1, 1, 1, 1, 1, 1, 1]);
  assert.equal(await end(), 0);
});

const LEFT = "these did not get the command: eu.c5, eu.c6, eu.c7";
const ends: [what: string, habits: Habits, err: string][] = [
  [
    "is late",
    { drainMs: Infinity },
    "eu.c3 is not done after 9 s (draining, 100 rows held when last asked)",
  ],
  ["refuses", { refuses: "no" }, "eu.c3: no"],
  ["loses rows", { loses: 5 }, "eu.c3 lost 5 rows: see its log"],
];
for (const [what, habits, problem] of ends) {
  test(`one that ${what} ends the roll after its batch, and who is left is named`, async () => {
    const bus = new Bus();
    const all = fleet(bus, { "eu.c3": habits });
    const { out, err, end } = run(bus, "stop", { ...roll(2), timeoutMs: 9_000 });
    assert.equal(await end(), 1);
    assert.deepEqual(err, [problem, `the rolling stop ends at batch 2 of 4; ${LEFT}`]);
    assert.deepEqual(told(all), [1, 1, 1, 1, 0, 0, 0]);
    assert.equal(out.at(-1), what === "loses rows" ? "4 of 7 stopped" : "3 of 7 stopped");
  });
}

test("one that is gone when its turn comes ends the roll", async () => {
  const bus = new Bus();
  const all = fleet(bus);
  const { err, end } = run(bus, "stop", roll(2, 30_000));
  await bus.clock.advance(10_000);
  all[2]!.leave();
  assert.equal(await end(), 1);
  assert.match(err[0]!, /^no collector listens on shishi\.stop\.eu\.c3: /);
  assert.equal(err[1], `the rolling stop ends at batch 2 of 4; ${LEFT}`);
});

test("NATS lost between two batches: said, with those that are left; exit 1 and no waiting", async () => {
  const bus = new Bus();
  const all = fleet(bus);
  const { err, end } = run(bus, "stop", roll(4, 3_000_000));
  await bus.clock.advance(10_000);
  bus.cut();
  await bus.clock.advance(1_000);
  assert.equal(await end(), 1);
  assert.ok(bus.clock.monotonicMs() < 100_000);
  assert.deepEqual(told(all), [1, 1, 1, 1, 0, 0, 0]);
  assert.match(err.at(-1)!, /^the rolling stop ends at batch 2 of 2; /);
});

test("--timeout is for a batch: a roll may take longer", async () => {
  const bus = new Bus();
  fleet(bus, Object.fromEntries(NAMES.map((name) => [name, { drainMs: 8_000 }])));
  const { end } = run(bus, "stop", { ...roll(1), timeoutMs: 10_000 });
  assert.equal(await end(), 0);
  assert.ok(bus.clock.monotonicMs() > 7 * 8_000);
});

test("--dry-run --batch: the batches, and nobody stops", async () => {
  const bus = new Bus();
  const all = fleet(bus);
  const { out, end } = run(bus, "stop", { ...roll(5), dryRun: true });
  assert.equal(await end(), 0);
  assert.deepEqual(out.filter((line) => line.startsWith("batch")), [
    "batch 1 of 2: 5 collectors: eu.c1, eu.c2, eu.c3, eu.c4, eu.c5",
    "batch 2 of 2: 2 collectors: eu.c6, eu.c7",
  ]);
  assert.deepEqual(told(all), [0, 0, 0, 0, 0, 0, 0]);
});

test("in any fleet a batch has the size or less, and every name its turn exactly once", () => {
  const name = fc.constantFrom("a", "b", "c", "d", "e", "f");
  fc.assert(fc.property(fc.array(name), fc.integer({ min: 1, max: 8 }), (ids, size) => {
    const found = ids.map((id) => ({ name: `eu.${id}` }));
    const batches = batchesOf(found, size);
    assert.ok(batches.every((batch) => batch.length >= 1 && batch.length <= size));
    assert.ok(batches.slice(0, -1).every((batch) => batch.length === size));
    assert.deepEqual(batches.flat(), [...new Set(ids.map((id) => `eu.${id}`))]);
  }));
});
