/**
 * Which batches may go while the fate of another one of their table is unknown.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { HeldBatch } from "../../src/batch/batch.ts";
import { Doubts } from "../../src/batch/queue.ts";
import { HeldBatch as Batch } from "../../src/batch/batch.ts";
import type { Delivery, Sink } from "../../src/contracts.ts";
import { events } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { stored, unanswered } from "../kit/scripted_sink.ts";
import { fill, scheduleOf, takeAll } from "./schedules.ts";
import { pumpKit } from "./spool_kit.ts";

const lost: Delivery = { ...unanswered(), unknown: true } as Delivery;
const refused: Delivery = {
  kind: "transient",
  code: 252,
  message: "too many parts",
  unknown: true,
};

let ids = 0;
const batch = (): HeldBatch => new Batch(`batch ${ids++}`, { ...events(1) }, 0);

/** How many INSERTs of others may go, one after the other, each of so many blocks. */
function passing(doubts: Doubts, window: number, blocks = 1): number {
  for (let n = 0; n < 10_000; n++) {
    const other = batch();
    if (!doubts.begin(other, blocks, window)) return n;
    doubts.ended(other, false);
  }
  return Infinity;
}

describe("a table remembers", () => {
  // deno-fmt-ignore: a table is read line by line.
  const cases: [what: string, window: number, blocks: number, passing: number][] = [
    ["nothing", 0, 1, 0],
    ["one block", 1, 1, 0],
    ["two", 2, 1, 1],
    ["five", 5, 1, 2],
    ["a thousand", 1000, 1, 500],
    ["a thousand, four for each INSERT", 1000, 4, 125],
    ["a thousand, a hundred for each INSERT", 1000, 100, 5],
    ["fewer than an INSERT brings", 50, 100, 0],
  ];
  for (const [what, window, blocks, most] of cases) {
    test(`${what}: ${most} INSERTs pass one in doubt`, () => {
      const doubts = new Doubts();
      const poison = batch();
      assert.ok(doubts.begin(poison, blocks, window));
      doubts.ended(poison, true);
      assert.equal(passing(doubts, window, blocks), most);
      assert.ok(doubts.closed);
      // Sent again it is the same INSERT: that gives the others no more leave.
      for (let n = 0; n < 3; n++) {
        assert.ok(doubts.begin(poison, 0, window));
        doubts.ended(poison, true);
        assert.equal(passing(doubts, window, blocks), 0);
      }
      doubts.ended(poison, false);
      assert.equal(doubts.closed, false);
      assert.equal(passing(doubts, window, blocks), Infinity);
    });
  }
});

test("the one that is longest in doubt counts", () => {
  const doubts = new Doubts();
  const [first, second] = [batch(), batch()];
  doubts.begin(first, 1, 10);
  doubts.ended(first, true);
  const known = batch();
  doubts.begin(known, 1, 10);
  doubts.ended(known, false);
  doubts.begin(second, 1, 10);
  doubts.ended(second, true);
  assert.equal(passing(doubts, 10), 3);
  doubts.forget(first);
  assert.equal(passing(doubts, 10), 0 + 2);
});

test("what is under way holds up others as well, but no table that remembers nothing", () => {
  const doubts = new Doubts();
  doubts.begin(batch(), 1, 5);
  assert.equal(passing(doubts, 5), 2);
  const none = new Doubts();
  none.begin(batch(), 1, 0);
  assert.equal(passing(none, 0), Infinity);
});

test("what an earlier process may have sent goes before all", () => {
  const doubts = new Doubts();
  const left = batch();
  doubts.recovered(left);
  assert.equal(passing(doubts, 10_000), 0);
  assert.ok(doubts.begin(left, 0, 10_000));
  doubts.ended(left, false);
  assert.equal(passing(doubts, 10_000), Infinity);
});

describe("a schedule", () => {
  /** A schedule whose first batch of `t` is in doubt after it was sent with this window. */
  function inDoubt(window: number, answer = lost) {
    const schedule = scheduleOf();
    fill(schedule, "t", 1);
    const first = schedule.next(0)!;
    const queue = schedule.queue("t");
    queue.doubts.begin(first.batch, 1, window);
    schedule.onDelivery(first, answer, 0);
    return { schedule, queue, poison: first.batch };
  }

  test("sends it in turn with fresh ones, before all others where these may not pass", () => {
    for (const window of [0, 1000]) {
      const { schedule, poison } = inDoubt(window);
      fill(schedule, "t", 5, 1);
      // The server is silent: one at a time.
      const first = schedule.next(60_000)!;
      assert.equal(first.batch === poison, window === 0);
      schedule.onDelivery(first, stored, 60_000);
      assert.equal(schedule.next(60_000)!.batch === poison, window !== 0);
    }
  });

  test("lets fresh ones pass while it backs off, half of the window, and other tables go on", () => {
    const { schedule, queue, poison } = inDoubt(10, refused);
    fill(schedule, "t", 50, 1);
    fill(schedule, "other", 50, 1);
    let passed = 0;
    let others = 0;
    for (let nowMs = 10; nowMs < 120_000; nowMs += 10) {
      for (const sent of takeAll(schedule, nowMs)) {
        const own = sent.batch === poison;
        if (sent.queue !== queue) others++;
        else if (!queue.doubts.begin(sent.batch, own ? 0 : 1, 10)) {
          schedule.onDelivery(sent, { kind: "behind", blocks: 1 }, nowMs);
          continue;
        } else if (!own) passed++;
        schedule.onDelivery(sent, own ? refused : stored, nowMs);
      }
    }
    assert.equal(passed, 5);
    assert.equal(others, 50);
    assert.match(schedule.tableTroubles().get("t") ?? "", /^batch id-\d+ \(1 rows\) may be stored/);
    assert.ok(schedule.wakeAtMs() > 120_000 - 10, "it asks again and again for nothing");
    // Known at last, it leaves the way free.
    for (let nowMs = 120_000; nowMs < 400_000; nowMs += 100) {
      for (const sent of takeAll(schedule, nowMs)) {
        if (sent.queue === queue) queue.doubts.begin(sent.batch, sent.batch === poison ? 0 : 1, 10);
        schedule.onDelivery(sent, stored, nowMs);
      }
    }
    assert.equal([...schedule.held()].length, 0);
    assert.equal(schedule.tableTroubles().size, 0);
  });

  test("an INSERT that may not go yet costs its batch no backoff", () => {
    const { schedule, queue, poison } = inDoubt(0, refused);
    fill(schedule, "t", 1, 1);
    const [fresh] = queue.waiting.filter((each) => each !== poison);
    assert.equal(takeAll(schedule, 10).length, 0);
    queue.doubts.forget(poison);
    const sent = schedule.next(5000)!;
    assert.equal(sent.batch, fresh);
    schedule.onDelivery(sent, { kind: "behind", blocks: 1 }, 5000);
    assert.equal(fresh!.state, "waiting");
    assert.equal(fresh!.retry.atMs, 0);
    assert.equal(queue.inFlight, 0);
  });
});

test("a batch with a trail that is found on disk is sent before what is fresh", async () => {
  const kit = await pumpKit({ maxRows: 1 });
  // As the sink does: it is noted before the INSERT goes out.
  const sends: Sink["deliver"] = async (_batch, _signal, attempt) => {
    await attempt!.note('{"plan":1,"rows":1,"cap":1}');
    attempt!.begin(1, 100);
    return await new Promise<Delivery>(() => {});
  };
  Object.assign(kit.sink, { deliver: sends });
  for (let n = 0; n < 8; n++) {
    const taken = kit.pump.take(events(1, { table: "t" }));
    if (taken.kind === "taken") await taken.ticket.kept;
  }
  await settle();
  const next = await pumpKit({ files: kit.files.crash("process"), maxRows: 1 });
  const order: string[][] = [];
  next.sink.script = ({ batch }) => {
    order.push([...(batch as HeldBatch).trail]);
    return "hold";
  };
  const fresh = next.pump.take(events(1, { table: "t" }));
  await next.pump.recover();
  if (fresh.kind === "taken") await fresh.ticket.kept;
  while (order.length < 9) {
    assert.ok(next.sink.inFlight.length > 0);
    next.sink.answerAll(stored);
    await settle();
  }
  // Four were under way: each has its line; none of the others went out before them.
  assert.deepEqual(order.map((trail) => trail.length), [1, 1, 1, 1, 0, 0, 0, 0, 0]);
});
