/**
 * How many rows and bytes are held, and what is foreseen of a body.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { HeldBatch } from "../../src/batch/batch.ts";
import { Memory } from "../../src/batch/memory.ts";
import type { Chunk } from "../../src/contracts.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { events } from "../kit/chunks.ts";

const budget = () =>
  new Memory(
    { maxRows: 10, maxBytes: 1000, diskFirst: false, maxSpoolBytes: Infinity },
    { ledger: createLedger(), spool: null },
  );

const chunkOf = (rows: number, bytes: number): Chunk => ({
  ...events(1),
  rows,
  body: new Uint8Array(bytes),
});

describe("budget of held rows", () => {
  test("takes exactly the limit and not one row or byte more", () => {
    const full = budget();
    full.hold(chunkOf(9, 900));
    assert.equal(full.refusal(1, 100, 0), null);
    assert.match(full.refusal(2, 100, 0) ?? "", /9 of 10 rows/);
    assert.match(full.refusal(1, 101, 0) ?? "", /900 of 1000 bytes \(backlog-bytes\)/);
  });

  test("what has left can be held again", () => {
    const full = budget();
    const chunk = chunkOf(10, 1000);
    const batch = new HeldBatch("id", chunk, 0);
    full.hold(chunk);
    assert.equal(full.keep(batch.reserve(chunk, 0)), null);
    assert.notEqual(full.refusal(1, 1, 0), null);
    assert.deepEqual([full.rows(), full.bytes(), full.empty], [10, 1000, false]);
    full.letGo(batch);
    assert.equal(full.refusal(10, 1000, 0), null);
    assert.deepEqual([full.rows(), full.bytes(), full.empty], [0, 0, true]);
  });

  test("a request that never fits is told so, with what was found and what was wanted", () => {
    assert.match(budget().refusal(11, 1, 0) ?? "", /11 rows.*backlog is 10/);
    assert.match(budget().refusal(1, 1001, 0) ?? "", /1001 bytes.*backlog-bytes is 1000/);
  });
});

describe("what is foreseen of a body", () => {
  test("refused as its rows would be, but for one that may be mostly blanks", () => {
    const held = budget();
    held.hold(chunkOf(3, 900));
    assert.equal(held.foreseen(100), null);
    assert.match(held.foreseen(101) ?? "", /900 of 1000 bytes/);
    assert.equal(held.foreseen(1001), null);
    held.hold(chunkOf(7, 0));
    assert.match(held.foreseen(1) ?? "", /10 of 10 rows/);
  });
});

describe("budget of bodies under way", () => {
  test("is bounded, and what is released is free again", () => {
    const reading = budget();
    assert.equal(reading.reserveBody(600), true);
    assert.equal(reading.reserveBody(400), true);
    assert.equal(reading.reserveBody(1), false);
    reading.releaseBody(600);
    assert.equal(reading.reserveBody(600), true);
    assert.equal(reading.reserveBody(1), false);
  });

  test("one body always gets through, however large; a second one beside it does not", () => {
    const reading = budget();
    assert.equal(reading.reserveBody(5000), true);
    assert.equal(reading.reserveBody(1), false);
    reading.releaseBody(5000);
    assert.equal(reading.reserveBody(1), true);
  });

  test("a refused reservation takes nothing", () => {
    const reading = budget();
    reading.reserveBody(900);
    for (let i = 0; i < 100; i++) assert.equal(reading.reserveBody(200), false);
    assert.equal(reading.reserveBody(100), true);
  });
});
