/**
 * A pump that is given other limits while it holds rows.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { PumpOptions } from "../../src/batch/pump.ts";
import { events } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { assertBooks, bench, refused } from "./bench.ts";
import { pumpKit } from "./spool_kit.ts";

const options = (more: Partial<PumpOptions["fill"]> = {}, all: Partial<PumpOptions> = {}) => ({
  fill: { maxRows: 10, maxBytes: 1e6, flushIntervalMs: 1000, idleIntervalMs: null, ...more },
  budget: { maxRows: 1000, maxBytes: 1e6 },
  concurrency: 4,
  reached: "memory" as const,
  maxSpoolBytes: Infinity,
  keyWindowMs: 3_600_000,
  ...all,
});

test("a batch that is open keeps what it has, the next ones are as small as is wanted", async () => {
  const b = bench({ maxRows: 100, flushIntervalMs: 60_000 });
  b.take(events(50));
  b.pump.adopt(options({ maxRows: 10 }), false);
  assert.deepEqual(b.sink.inFlight.map(({ batch }) => batch.rows), [50]);
  b.take(events(25));
  assert.deepEqual(b.sink.inFlight.map(({ batch }) => batch.rows), [50, 10, 10]);
  await b.clock.advance(1000);
  assert.deepEqual(b.sink.inFlight.map(({ batch }) => batch.rows), [50, 10, 10, 5]);
  b.sink.answerAll(stored);
  await settle();
  assert.equal(b.ledger.totals().stored, 75);
  assertBooks(b);
});

test("less room refuses at once and drops nothing; fewer INSERTs let those under way end", async () => {
  const b = bench({ maxRows: 1 });
  b.take(events(3));
  b.pump.adopt(
    options({ maxRows: 1 }, {
      budget: { maxRows: 3, maxBytes: 1e6 },
      concurrency: 1,
    }),
    false,
  );
  assert.match(refused(b.pump.take(events(1))).reason, /3 of 3 rows/);
  assert.equal(b.sink.inFlight.length, 3);
  b.sink.inFlight[0]!.answer(stored);
  await settle();
  b.take(events(1));
  assert.equal(b.sink.inFlight.length, 2, "no fourth one beside two");
  assertBooks(b);
});

test("other servers are tried at once, whatever was wrong with the old ones", async () => {
  for (const trouble of [unanswered(30_000), tableTrouble]) {
    const b = bench({ maxRows: 5 });
    b.take(events(5));
    b.sink.answerAll(trouble);
    await settle();
    const { server, tables } = b.pump.troubles();
    assert.ok(server !== null || tables.size > 0);
    b.pump.adopt(options(), false);
    assert.equal(b.sink.inFlight.length, 0, "no reason to hurry yet");
    b.pump.adopt(options(), true);
    assert.equal(b.sink.inFlight.length, 1);
    assert.deepEqual([b.pump.troubles().server, b.pump.troubles().tables.size], [null, 0]);
  }
});

test("from memory to disk and back: what is held follows to the disk, each ticket says what is so", async () => {
  const { pump, sink, ledger } = await pumpKit({ ack: "memory", flushIntervalMs: 60_000 });
  const take = async () => {
    const taken = pump.take(events(3));
    assert.equal(taken.kind, "taken");
    if (taken.kind !== "taken") throw new Error("refused");
    assert.equal(await taken.ticket.kept, null);
    return taken.ticket;
  };
  const limits = (reached: "memory" | "disk") =>
    options({ maxRows: 1000, flushIntervalMs: 60_000 }, { reached, maxSpoolBytes: 1e9 });
  assert.equal((await take()).reached, "memory");
  assert.equal(pump.spoolBytes(), 0);
  pump.adopt(limits("disk"), false);
  assert.equal((await take()).reached, "disk");
  pump.adopt(limits("memory"), false);
  assert.equal((await take()).reached, "memory");
  pump.adopt(limits("disk"), false);
  assert.equal((await take()).reached, "disk");
  for (let turn = 0; turn < 50; turn++) await settle();
  assert.equal(pump.rows(), 12);
  pump.close();
  for (let turn = 0; turn < 20; turn++) {
    sink.answerAll(stored);
    await settle();
  }
  assert.equal(ledger.totals().stored, 12);
  assert.equal(pump.spoolBytes(), 0, "stored = deleted");
});
