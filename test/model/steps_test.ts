/**
 * Every step that the table of a batch's states allows is taken by some batch, and no other one.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { HeldBatch } from "../../src/batch/batch.ts";
import { Memory } from "../../src/batch/memory.ts";
import type { Spool } from "../../src/contracts.ts";
import { DONE, failed, type Result } from "../../src/kernel/result.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { DATA, pumpKit, segments } from "../batch/spool_kit.ts";
import { events } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { deadRows, stored, unanswered } from "../kit/scripted_sink.ts";
import { command, config, Run } from "./freed_model.ts";
import { checkSteps, legal, seen } from "./steps.ts";

/** Chance that every run has the same of: what is asserted is asserted always. */
const SEED = 12;
const RUNS = 100;

/** A disk whose rows are safe once they are appended, and can be read back only once they are written. */
function journal(written: () => Promise<Result>): Spool {
  return {
    bytes: () => 0,
    trouble: () => null,
    append: () => Promise.resolve(DONE),
    write: written,
    read: () => Promise.resolve(failed("nothing is read here")),
    note: () => Promise.resolve(),
    remove() {},
    reached() {},
    probe: () => Promise.resolve([]),
    async *recover() {},
    close: () => Promise.resolve(),
  };
}

describe("a batch that is given up", () => {
  async function giveUp(until: string): Promise<void> {
    const kit = await pumpKit({ ack: until === "closed" ? "disk" : "memory" });
    if (until === "closed") kit.gate.shut = true;
    assert.equal(kit.pump.take(events(3)).kind, "taken");
    await settle();
    if (until === "delivered") kit.files.fail({ on: "append", code: "EIO", times: 99 });
    if (until !== "open") kit.pump.close();
    if (until === "dead-lettering") kit.gate.shut = true;
    if (until === "waiting") kit.sink.answerAll(unanswered());
    if (until === "dead-lettering" || until === "delivered") kit.sink.answerAll(deadRows(1));
    await settle();
    seen.delete(`${until} → settled`);
    kit.pump.abandon();
    kit.gate.open();
    await settle();
    checkSteps();
    assert.ok(seen.has(`${until} → settled`));
  }
  for (const until of ["open", "closed", "waiting", "sending", "dead-lettering", "delivered"]) {
    test(`while it is ${until}`, () => giveUp(until));
  }
});

test("a batch may be stored while it is written", async () => {
  const kit = await pumpKit({ ack: "memory" });
  assert.equal(kit.pump.take(events(2)).kind, "taken");
  kit.pump.close();
  kit.gate.shut = true;
  const spilled = kit.pump.spill();
  await settle();
  kit.sink.answerAll(stored);
  await settle();
  kit.gate.open();
  await spilled;
  checkSteps();
  assert.ok(seen.has("spilling → gone"));
});

test("what the disk has lost is in memory again, alone, and then written anew", async () => {
  const kit = await pumpKit();
  kit.sink.script = () => unanswered();
  for (const lose of [false, true]) {
    if (lose) kit.files.deleteTree(DATA);
    const taken = kit.pump.take(events(3));
    assert.equal(taken.kind === "taken" && await taken.ticket.kept === null, !lose);
  }
  seen.delete("both → memory");
  await kit.pump.probeDisk();
  checkSteps();
  assert.ok(seen.has("both → memory"));
  assert.equal(segments(kit.files).length, 1);
});

test("what is safe but cannot be read back is written before it leaves memory", async () => {
  const rows = events(4);
  const limits = { maxRows: 100, maxBytes: rows.body.length, diskFirst: true, maxSpoolBytes: 1e9 };
  let answer: (result: Result) => void = () => {};
  const spool = journal(() => new Promise((resolve) => answer = resolve));
  const memory = new Memory(limits, { ledger: createLedger(), spool });
  const batch = new HeldBatch("id", rows, 0);
  memory.hold(rows);
  await memory.keep(batch.reserve(rows, 0));
  batch.close();
  for (const result of [failed("no room"), DONE]) {
    const written = memory.relieve(false);
    assert.deepEqual([batch.where, batch.ready, batch.onDisk], ["spilling", false, true]);
    answer(result);
    assert.equal(await written, result.ok);
    assert.deepEqual([batch.where, batch.ready], ["both", true]);
  }
  assert.equal(memory.bytes(), rows.body.length);
  checkSteps();
});

test("every legal step is taken, and no other one", { timeout: 60_000 }, async () => {
  const commands = fc.array(command, { minLength: 1, maxLength: 80, size: "max" });
  await fc.assert(
    fc.asyncProperty(config, commands, async (configuration, commands) => {
      const run = await Run.start(configuration);
      for (const each of commands) await run.obey(each);
      await run.finish();
      checkSteps();
    }),
    { numRuns: RUNS, seed: SEED },
  );
  assert.deepEqual([...seen].sort(), [...legal].sort());
});
