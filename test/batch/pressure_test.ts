/**
 * A budget that is used up, in memory or on disk, while nothing or little leaves: through the pump.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Chunk, Ticket } from "../../src/contracts.ts";
import { events, rowOfBytes } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { stored, unanswered } from "../kit/scripted_sink.ts";
import { type PumpKit, pumpKit, segments } from "./spool_kit.ts";

function taken({ pump }: PumpKit, chunk: Chunk): Ticket {
  const answer = pump.take(chunk);
  if (answer.kind === "refused") throw new Error(answer.reason);
  return answer.ticket;
}

/** Takes full batches of two rows until one is refused. */
function fill(kit: PumpKit): number {
  let rows = 0;
  while (kit.pump.take(events(2)).kind === "taken") rows += 2;
  return rows;
}

describe("rows in memory only", () => {
  const backlogBytes = 2_000;

  test("leave it, one batch after the other, until there is room for many more", async () => {
    const kit = await pumpKit({ ack: "memory", maxRows: 2, backlogBytes });
    kit.sink.script = () => unanswered();
    kit.gate.shut = true;
    const rows = fill(kit);
    assert.ok(kit.pump.memoryBytes() > backlogBytes * 0.9);
    kit.gate.open();
    await settle();
    assert.ok(kit.pump.memoryBytes() <= backlogBytes / 2, `${kit.pump.memoryBytes()} bytes`);
    assert.ok(fill(kit) > 10);
    kit.sink.script = () => stored;
    await kit.clock.advance(60_000);
    assert.ok(kit.ledger.totals().stored > rows);
    assert.deepEqual([kit.pump.memoryBytes(), kit.pump.spoolBytes()], [0, 0]);
  });

  test("take no more of the disk than spool-max-bytes", async () => {
    const maxSpoolBytes = 1_000;
    const kit = await pumpKit({ ack: "memory", maxRows: 2, backlogBytes, maxSpoolBytes });
    kit.sink.script = () => unanswered();
    for (let times = 0; times < 20; times++) {
      fill(kit);
      await settle();
    }
    assert.ok(kit.pump.spoolBytes() > maxSpoolBytes / 2, `${kit.pump.spoolBytes()} bytes`);
    // A seal is not foreseen.
    assert.ok(kit.pump.spoolBytes() <= maxSpoolBytes + 33, `${kit.pump.spoolBytes()} bytes`);
  });

  test("are written at the end although the disk refused them once", async () => {
    const kit = await pumpKit({ ack: "memory", maxRows: 2, backlogBytes });
    kit.sink.script = () => unanswered();
    kit.files.fail({ on: "write", code: "ENOSPC", written: 11 });
    const rows = fill(kit);
    await settle();
    assert.match(kit.pump.troubles().disk ?? "", /ENOSPC/);
    assert.deepEqual(segments(kit.files), [], "nothing is left of what was refused");
    kit.pump.close();
    await kit.pump.spill();
    kit.pump.abandon();
    assert.deepEqual([kit.ledger.totals().lost, kit.ledger.totals().held], [0, rows]);
  });

  test("may be stored while they are written: no file stays, and the disk is well", async () => {
    for (let releases = 0; releases < 8; releases++) {
      const kit = await pumpKit({ ack: "memory" });
      taken(kit, events(2));
      kit.pump.close();
      kit.gate.shut = true;
      const spilled = kit.pump.spill();
      await settle();
      for (let times = 0; times < releases; times++) {
        kit.gate.release(0);
        await settle();
      }
      assert.equal(kit.sink.answerAll(stored), 1);
      await settle();
      kit.gate.open();
      await spilled;
      await kit.disk.close();
      assert.equal(kit.pump.troubles().disk, null);
      assert.deepEqual([segments(kit.files), kit.pump.spoolBytes()], [[], 0]);
      assert.equal(kit.ledger.totals().stored, 2);
      assert.deepEqual([...kit.gate.handles], []);
    }
  });

  test("stay there while large batches are sent as fast as they come", async () => {
    const large = events(15);
    const backlogBytes = large.body.length * 9;
    const kit = await pumpKit({ ack: "memory", maxRows: 15, backlogBytes, concurrency: 2 });
    taken(kit, large);
    // Two are being sent, one waits, one is being filled.
    for (const rows of [15, 15, 14]) taken(kit, events(rows));
    await settle();
    assert.ok(kit.pump.memoryBytes() > backlogBytes / 3);
    assert.deepEqual(segments(kit.files), []);
    // A second one that waits is too much.
    taken(kit, events(1));
    await settle();
    assert.equal(segments(kit.files).length, 1);
  });

  test("leave it for what is being filled, too, while no server answers", async () => {
    const large = events(15);
    const backlogBytes = large.body.length * 9;
    const kit = await pumpKit({ ack: "memory", maxRows: 15, backlogBytes });
    kit.sink.script = () => unanswered();
    taken(kit, large);
    await settle();
    assert.deepEqual(segments(kit.files), []);
    taken(kit, events(14));
    await settle();
    assert.equal(segments(kit.files).length, 1);
    assert.ok(kit.pump.memoryBytes() < large.body.length, `${kit.pump.memoryBytes()} bytes`);
  });

  test("that fill it because they are being sent do not make small batches of the others", async () => {
    const large = events(15);
    const small = Array.from({ length: 4 }, () => events(1));
    const backlogBytes = large.body.length / 0.72;
    // Nor is there a disk to take them.
    const limits = { maxRows: 15, backlogBytes, maxSpoolBytes: 1, concurrency: 1 };
    const kit = await pumpKit({ ack: "memory", ...limits });
    taken(kit, large);
    for (const chunk of small) taken(kit, chunk);
    assert.ok(kit.pump.memoryBytes() > backlogBytes * 0.8, `${kit.pump.memoryBytes()} bytes`);
    kit.sink.answerAll(stored);
    kit.sink.script = () => stored;
    await kit.clock.advance(5_000);
    assert.deepEqual(kit.sink.attempts.map(({ batch }) => batch.rows), [15, 4]);
  });
});

describe("rows on disk", () => {
  test("a batch that is closed to make room for others is sent although the disk hangs", async () => {
    const kit = await pumpKit({ maxRows: 3 });
    assert.equal(await taken(kit, events(2)).kept, null);
    kit.gate.shut = true;
    const second = taken(kit, events(2));
    await settle();
    assert.deepEqual(kit.sink.inFlight.map(({ batch }) => batch.rows), [2]);
    kit.gate.open();
    assert.equal(await second.kept, null);
  });

  test("a spool that was full is no trouble once it has room, whatever comes later", async () => {
    const large = events(20);
    const maxSpoolBytes = large.body.length + 100;
    const kit = await pumpKit({ maxSpoolBytes });
    assert.equal(await taken(kit, events(5)).kept, null);
    assert.equal(kit.pump.take(large).kind, "refused");
    assert.match(kit.pump.troubles().disk ?? "", /spool is full/);
    kit.sink.script = () => stored;
    await kit.clock.advance(5_000);
    assert.equal(kit.pump.troubles().disk, null);
    kit.sink.script = () => "hold";
    assert.equal(await taken(kit, events(5)).kept, null);
    assert.equal(kit.pump.troubles().disk, null);
  });

  /** Each of 64 tables has got some, a third of what memory may hold in all; half of them are closed. */
  async function many() {
    const chunks = Array.from({ length: 64 }, (_, at) => rowOfBytes(500, { table: `t${at}` }));
    const bytes = chunks.reduce((sum, { body }) => sum + body.length, 0);
    const kit = await pumpKit({ backlogBytes: 3 * bytes, flushIntervalMs: 1000 });
    // An INSERT takes no time so far.
    kit.sink.script = () => stored;
    assert.equal(await taken(kit, chunks[0]!).kept, null);
    await kit.clock.advance(1000);
    assert.equal(kit.pump.rows(), 0);
    kit.sink.script = () => "hold";
    kit.files.trace.length = 0;
    for (const kept of chunks.map((chunk) => taken(kit, chunk).kept)) {
      assert.equal(await kept, null);
    }
    await kit.clock.advance(1000);
    assert.equal(kit.sink.inFlight.length, 4);
    // So much more that it is looked for what may leave.
    const more = rowOfBytes(bytes / 8, { table: "more" });
    assert.equal(await taken(kit, more).kept, null);
    return { kit, bytes: bytes + more.body.length };
  }
  const read = ({ files }: PumpKit) => files.trace.filter((line) => line.startsWith("readPart "));

  test("of many tables that go together stay in memory until it is their turn", async () => {
    const { kit, bytes } = await many();
    assert.equal(kit.pump.memoryBytes(), bytes);
    kit.sink.script = () => stored;
    while (kit.sink.inFlight.length > 0) {
      kit.sink.answerAll(stored);
      await settle();
    }
    await kit.clock.advance(1000);
    assert.deepEqual([kit.ledger.totals().stored, kit.pump.rows()], [66, 0]);
    assert.deepEqual([read(kit), segments(kit.files)], [[], []]);
  });

  test("leave it when they do not go together after all", async () => {
    const { kit, bytes } = await many();
    kit.sink.script = () => unanswered();
    kit.sink.answerAll(unanswered());
    await kit.clock.advance(1000);
    // Half of the tables still fill their batches.
    assert.ok(kit.pump.memoryBytes() < bytes * 0.6, `${kit.pump.memoryBytes()} of ${bytes}`);
    kit.sink.script = () => stored;
    await kit.clock.advance(60_000);
    assert.deepEqual([kit.ledger.totals().stored, kit.pump.rows()], [66, 0]);
  });
});
