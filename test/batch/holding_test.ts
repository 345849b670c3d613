/**
 * Where rows are, in memory and on disk, through the pump: what is acknowledged, counted and freed.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Chunk, RecoveredBatch, Ticket } from "../../src/contracts.ts";
import { balance } from "../../src/meter/ledger.ts";
import { events } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { stored, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { patient } from "../kit/wait.ts";
import { DATA, framesIn, journalFiles, type PumpKit, pumpKit, segments } from "./spool_kit.ts";

function taken({ pump }: PumpKit, chunk: Chunk): Ticket {
  const answer = pump.take(chunk);
  if (answer.kind === "refused") throw new Error(answer.reason);
  return answer.ticket;
}

/** Takes a chunk and waits until the disk has it. */
async function keep(kit: PumpKit, chunk: Chunk): Promise<void> {
  assert.equal(await taken(kit, chunk).kept, null);
}

function refused({ pump }: PumpKit, chunk: Chunk): string {
  const answer = pump.take(chunk);
  if (answer.kind !== "refused") throw new Error("taken");
  assert.equal(answer.why, "full");
  return answer.reason;
}

function assertBooks({ ledger, pump }: PumpKit): void {
  assert.equal(balance(ledger.totals()), 0);
  assert.equal(ledger.totals().held, pump.rows());
}

for (const ack of ["memory", "disk"] as const) {
  test(`what a request only lends may change once it is taken (ack=${ack})`, async () => {
    const kit = await pumpKit({ ack });
    kit.gate.shut = true;
    const room = new Uint8Array(200_000);
    const wanted: string[] = [];
    const kept: Promise<unknown>[] = [];
    for (const rows of [1, 3, 2000, 2]) {
      const chunk = events(rows);
      wanted.push(new TextDecoder().decode(chunk.body));
      room.set(chunk.body);
      const lent = { ...chunk, body: room.subarray(0, chunk.body.length), lent: true };
      kept.push(Promise.resolve(taken(kit, lent).kept));
      room.fill(0);
    }
    kit.gate.open();
    await Promise.all(kept);
    kit.sink.script = () => stored;
    await kit.clock.advance(1000);
    assert.equal(kit.sink.attempts.map(({ text }) => text).join(""), wanted.join(""));
    assertBooks(kit);
  });
}

describe("rows that are to be on disk first", () => {
  test("count when they are there, and use the budget before", async () => {
    const kit = await pumpKit({ backlog: 10 });
    kit.gate.shut = true;
    const ticket = taken(kit, events(7));
    assert.equal(ticket.reached, "disk");
    await settle();
    assert.deepEqual([kit.pump.rows(), kit.ledger.totals().received], [0, 0]);
    assert.match(refused(kit, events(4)), /backlog/);
    kit.gate.open();
    assert.equal(await ticket.kept, null);
    assert.deepEqual([kit.pump.rows(), kit.ledger.totals().received], [7, 7]);
    assertBooks(kit);
  });

  test("are refused with the disk's reason, and leave no trace", async () => {
    const kit = await pumpKit();
    kit.files.fail({ on: "write", code: "ENOSPC", written: 11 });
    const problem = await taken(kit, events(7)).kept;
    assert.equal(problem?.why, "full");
    assert.match(problem?.reason ?? "", /disk: .*ENOSPC/);
    assert.match(kit.pump.troubles().disk ?? "", /ENOSPC/);
    await settle();
    assert.deepEqual([kit.pump.rows(), kit.pump.memoryBytes(), kit.pump.spoolBytes()], [0, 0, 0]);
    assert.deepEqual(segments(kit.files), []);
    assert.equal(kit.ledger.totals().received, 0);
    assert.equal(await kit.pump.drained(1000), true);
  });

  test("after a failure the next ones begin a batch of their own", async () => {
    const kit = await pumpKit();
    kit.sink.script = () => unanswered();
    await keep(kit, events(1));
    kit.files.fail({ on: "sync", code: "EIO" });
    assert.notEqual(await taken(kit, events(1)).kept, null);
    await keep(kit, events(2));
    assert.equal(kit.pump.troubles().disk, null);
    assert.equal(framesIn(kit.files).length, 2);
    assert.equal(kit.pump.rows(), 3);
    kit.sink.script = () => stored;
    await kit.clock.advance(5000);
    assert.deepEqual([kit.ledger.totals().stored, kit.pump.spoolBytes()], [3, 0]);
    assert.equal(new Set(kit.sink.attempts.map(({ batch }) => batch.id)).size, 2);
  });

  for (const on of ["overwrite", "sync"] as const) {
    test(`what waits behind a group that failed (${on}) is refused with it: no row follows a hole`, async () => {
      const kit = await pumpKit();
      kit.gate.shut = true;
      kit.files.fail({ on, code: "EIO" });
      const first = taken(kit, events(2));
      await settle();
      const behind = taken(kit, events(3));
      kit.gate.open();
      assert.notEqual(await first.kept, null);
      assert.notEqual(await behind.kept, null);
      const chunk = events(4);
      await keep(kit, chunk);
      kit.sink.script = () => stored;
      await kit.clock.advance(5000);
      assert.deepEqual(kit.sink.attempts.map(({ text }) => text), [
        new TextDecoder().decode(chunk.body),
      ]);
      assertBooks(kit);
    });
  }

  test("a disk in trouble is tried by one request in a while; the others are told at once", async () => {
    const kit = await pumpKit();
    kit.files.fail({ on: ["write"], code: "EIO", times: 4 });
    assert.notEqual(await taken(kit, events(1)).kept, null);
    assert.notEqual(await taken(kit, events(1)).kept, null);
    assert.match(refused(kit, events(1)), /EIO/);
    await kit.clock.advance(600);
    await keep(kit, events(1));
    await keep(kit, events(1));
  });

  test("of a cut request the disk keeps all or nothing, for its parts share a round", async () => {
    const kit = await pumpKit({ maxRows: 3 });
    kit.files.fail({ on: "write", code: "EIO", written: 400 });
    assert.notEqual(await taken(kit, events(5)).kept, null);
    await settle();
    assert.deepEqual(framesIn(kit.files), []);
    assert.equal(kit.pump.rows(), 0);
    await keep(kit, events(5));
    assert.equal(framesIn(kit.files).length, 2);
    assertBooks(kit);
    kit.sink.answerAll(stored);
    kit.sink.script = () => stored;
    await kit.clock.advance(1000);
    assert.equal(await kit.pump.drained(0), true);
    assertBooks(kit);
  });

  test("rows on their way to the disk count against its limit", async () => {
    const chunk = events(2);
    const kit = await pumpKit({ maxSpoolBytes: chunk.body.length * 2 - 1 });
    const first = taken(kit, chunk);
    assert.match(refused(kit, chunk), /spool is full/);
    assert.equal(await first.kept, null);
    assert.match(kit.pump.troubles().disk ?? "", /spool is full/);
    kit.sink.script = () => stored;
    await kit.clock.advance(1000);
    assert.equal(kit.pump.troubles().disk, null);
  });

  test("a request that could never be on disk is no trouble of the disk", async () => {
    const kit = await pumpKit({ maxSpoolBytes: 100 });
    assert.match(refused(kit, events(20)), /spool-max-bytes is 100/);
    assert.equal(kit.pump.troubles().disk, null);
  });

  test("a replay that comes twice is acknowledged when the disk has it, not before", async () => {
    const kit = await pumpKit();
    const chunk = { ...events(3), replay: "00000000-0000-8000-8000-000000000001" };
    for (const fails of [true, false]) {
      if (fails) kit.files.fail({ on: "sync", code: "EIO" });
      kit.gate.shut = true;
      const first = taken(kit, chunk);
      await settle();
      const second = taken(kit, chunk);
      kit.gate.open();
      assert.notEqual(second.kept, null, "not true yet");
      assert.equal((await first.kept) === null, !fails);
      assert.equal((await second.kept) === null, !fails);
      await settle();
    }
    assert.equal(kit.pump.rows(), 3);
  });

  test("a replay whose rows an earlier process left is refused until they are recovered", async () => {
    const chunk = { ...events(3), replay: "00000000-0000-8000-8000-000000000001" };
    const before = await pumpKit();
    await keep(before, chunk);
    before.pump.abandon();
    await before.disk.close();
    const kit = await pumpKit({ files: before.files });
    assert.match((await taken(kit, chunk).kept)?.reason ?? "", /not read yet/);
    assert.equal(kit.pump.troubles().disk, null, "the disk is well");
    await kit.pump.recover();
    await keep(kit, chunk);
    assert.equal(kit.pump.rows(), 3);
    assertBooks(kit);
  });
});

describe("the end", () => {
  test("rows whose sync fails after they were given up are refused, once", async () => {
    const kit = await pumpKit();
    kit.files.fail({ on: "sync", code: "EIO" });
    kit.gate.shut = true;
    const ticket = taken(kit, events(2));
    kit.pump.close();
    await settle();
    kit.pump.abandon();
    kit.gate.open();
    assert.notEqual(await ticket.kept, null);
    await kit.disk.close();
    assertBooks(kit);
    assert.deepEqual([...kit.gate.handles], []);
  });

  test("with a disk nothing is lost at a stop, also not what is just being spilled", async () => {
    const kit = await pumpKit({ ack: "memory", maxRows: 2, backlogBytes: 300 });
    kit.gate.shut = true;
    for (let at = 0; at < 3; at++) taken(kit, events(2));
    await settle();
    assert.ok(kit.gate.waiting > 0, "memory is more than half full, so a batch is being written");
    kit.pump.close();
    let spilled = false;
    const spilling = kit.pump.spill().then(() => spilled = true);
    await settle();
    assert.equal(spilled, false);
    kit.gate.open();
    await spilling;
    kit.pump.abandon();
    assert.deepEqual([kit.ledger.totals().lost, kit.ledger.totals().held], [0, 6]);
    await kit.disk.close();
    const next = await pumpKit({ files: kit.files });
    await next.pump.recover();
    assert.equal(next.pump.rows(), 6);
  });

  test("nothing is sent, and nothing more recovered, once all is given up", async () => {
    const before = await pumpKit();
    for (const table of ["a", "b", "c"]) await keep(before, events(1, { table }));
    before.pump.abandon();
    await before.disk.close();
    const kit = await pumpKit({ files: before.files, concurrency: 1 });
    kit.gate.shut = true;
    const recovered = kit.pump.recover();
    await settle();
    kit.gate.release(0);
    await settle();
    kit.pump.abandon();
    kit.gate.open();
    await recovered;
    await kit.disk.close();
    assert.equal(kit.sink.attempts.length, 0);
    assert.ok(kit.ledger.totals().recovered < 3);
    assert.equal(framesIn(kit.files).length, 3, "the rest is for the next start");
    assertBooks(kit);
  });
});

describe("memory", () => {
  test("what came from the disk to be sent goes again when the attempt has failed", async () => {
    const before = await pumpKit();
    for (let at = 0; at < 40; at++) await keep(before, events(10, { table: `t${at}` }));
    before.pump.abandon();
    const kit = await pumpKit({ files: before.files });
    let largest = 0;
    kit.sink.script = () => {
      largest = Math.max(largest, kit.pump.memoryBytes());
      return tableTrouble;
    };
    await kit.pump.recover();
    await kit.clock.advance(100_000);
    assert.ok(kit.sink.attempts.length > 100);
    assert.ok(largest > 0 && largest < 8 * 10 * 60, `${largest} bytes`);
    assert.equal(kit.pump.memoryBytes(), 0);
    kit.sink.script = () => stored;
    await kit.clock.advance(100_000);
    assert.equal(kit.ledger.totals().stored, 400);
  });

  test("in an outage many tables fill the disk, not memory", async () => {
    const kit = await pumpKit({ backlogBytes: 60_000, maxSpoolBytes: 600_000 });
    kit.sink.script = () => unanswered();
    for (let at = 0; kit.pump.spoolBytes() < 400_000; at++) {
      assert.ok(at < 10_000);
      await keep(kit, events(10, { table: `t${at % 100}` }));
      assert.ok(kit.pump.memoryBytes() <= 60_000);
    }
    assert.ok(segments(kit.files).length < 1500, "nor with many small files");
    kit.sink.script = () => stored;
    await kit.clock.advance(60_000);
    assert.equal(kit.ledger.totals().stored, kit.ledger.totals().received);
  });

  test("rows whose files were deleted are written again while memory has them", async () => {
    const kit = await pumpKit();
    kit.sink.script = () => unanswered();
    const chunks = ["a", "a", "b"].map((table) => events(5, { table }));
    for (const chunk of chunks) await keep(kit, chunk);
    kit.files.deleteTree(DATA);
    assert.match((await taken(kit, events(1, { table: "a" })).kept)?.reason ?? "", /ENOENT/);
    await kit.pump.probeDisk();
    assert.equal(kit.pump.troubles().disk, null);
    await keep(kit, events(1, { table: "a" }));
    const next = await pumpKit({ files: kit.files.crash("power") });
    await next.pump.recover();
    assert.deepEqual(Object.fromEntries(next.pump.byTable()), { a: 11, b: 5 });
    const paths = [...segments(next.files), ...journalFiles(next.files)];
    const bytes = paths.reduce((sum, path) => sum + next.files.get(path)!.length, 0);
    assert.equal(kit.pump.spoolBytes(), bytes);
    next.sink.script = () => stored;
    await next.clock.advance(1000);
    const sent = next.sink.attempts.map(({ text }) => text).join("");
    for (const { body } of chunks) assert.ok(sent.includes(new TextDecoder().decode(body)));
  });
});

test("a hundred thousand waiting batches cost neither the start nor a request", async () => {
  const kit = await pumpKit({ backlog: 150_000 });
  kit.sink.script = () => unanswered();
  const chunk = events(1);
  Object.assign(kit.disk.spool, {
    async *recover(): AsyncGenerator<RecoveredBatch> {
      for (let at = 0; at < 100_000; at++) {
        yield { ...chunk, id: `batch ${at}`, rows: 1, bytes: 100, oldestMs: at, trail: [] };
      }
    },
  });
  const began = performance.now();
  await kit.pump.recover();
  for (let at = 0; at < 5000; at++) {
    if (at % 5 === 0) await keep(kit, events(1));
    else assert.match(refused(kit, { ...chunk, rows: 100_000 }), /backlog/);
  }
  const tookMs = performance.now() - began;
  assert.ok(tookMs < patient(5000), `${Math.round(tookMs)} ms`);
});
