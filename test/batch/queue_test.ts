/**
 * When a batch is sealed: by rows, by bytes.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Chunk } from "../../src/contracts.ts";
import { type FillLimits, TableQueue } from "../../src/batch/queue.ts";
import { events, fill, rowOfBytes } from "../kit/chunks.ts";
import { textOf } from "../kit/scripted_sink.ts";

function queueOf(limits: Partial<FillLimits> = {}): TableQueue {
  let id = 0;
  return new TableQueue("events", {
    maxRows: 10,
    maxBytes: 1_000_000,
    flushIntervalMs: 1000,
    idleIntervalMs: null,
    ...limits,
  }, () => `id-${++id}`);
}

const text = (chunk: Chunk) => new TextDecoder().decode(chunk.body);
const sizes = (queue: TableQueue) => [...queue.waiting.map((b) => b.rows), queue.open?.rows ?? 0];

describe("a batch is sealed by rows", () => {
  test("at exactly max rows, not before", () => {
    const queue = queueOf();
    fill(queue, events(9), 0);
    assert.deepEqual(sizes(queue), [9]);
    fill(queue, events(1), 0);
    assert.deepEqual(sizes(queue), [10, 0]);
  });

  test("a large chunk is cut, in order, without losing a byte", () => {
    const queue = queueOf();
    const first = events(7);
    const second = events(25);
    fill(queue, first, 0);
    const reservations = fill(queue, second, 0);
    assert.deepEqual(sizes(queue), [10, 10, 10, 2]);
    queue.close();
    assert.equal(queue.waiting.map(textOf).join(""), text(first) + text(second));
    assert.deepEqual(reservations.map(({ from, to }) => [from, to]), [[7, 10], [0, 10], [0, 10], [
      0,
      2,
    ]]);
  });
});

test("a chunk that fits into a batch is not cut: the disk takes a request whole or not", () => {
  const byRows = queueOf();
  fill(byRows, events(7), 0);
  assert.equal(fill(byRows, events(10), 0).length, 1);
  assert.deepEqual(sizes(byRows), [7, 10, 0]);
  const three = events(3);
  const byBytes = queueOf({ maxBytes: three.body.length });
  fill(byBytes, events(1), 0);
  assert.equal(fill(byBytes, three, 0).length, 1);
  assert.deepEqual(sizes(byBytes), [1, 3, 0]);
});

test("a batch knows the keys of all of its rows, unless those of some are not known", () => {
  const queue = queueOf({ maxRows: 100 });
  const add = (...keys: string[]) => fill(queue, { ...events(1), keys: new Set(keys) }, 0);
  const known = () => queue.open!.keys && [...queue.open!.keys].sort();
  const same = new Set(["a", "b"]);
  fill(queue, { ...events(1), keys: same }, 0);
  add("a");
  assert.equal(queue.open!.keys, same);
  add("b", "c");
  assert.deepEqual(known(), ["a", "b", "c"]);
  add();
  assert.deepEqual(known(), ["a", "b", "c"]);
  fill(queue, events(1), 0);
  add("a");
  assert.equal(known(), null);
  queue.close();
  add();
  add("a", "b");
  assert.deepEqual(known(), ["a", "b"]);
});

describe("a batch is sealed by bytes", () => {
  test("exactly max bytes fit", () => {
    const queue = queueOf({ maxBytes: 100 });
    fill(queue, rowOfBytes(50), 0);
    fill(queue, rowOfBytes(50), 0);
    fill(queue, rowOfBytes(50), 0);
    assert.deepEqual(queue.waiting.map((b) => b.bytes), [100]);
    assert.equal(queue.open?.bytes, 50);
  });

  test("one byte more begins another batch", () => {
    const queue = queueOf({ maxBytes: 100 });
    fill(queue, rowOfBytes(50), 0);
    fill(queue, rowOfBytes(51), 0);
    assert.deepEqual(queue.waiting.map((b) => b.bytes), [50]);
    assert.equal(queue.open?.bytes, 51);
  });

  test("a row larger than max bytes travels alone", () => {
    const queue = queueOf({ maxBytes: 100 });
    fill(queue, rowOfBytes(40), 0);
    fill(queue, rowOfBytes(500), 0);
    fill(queue, rowOfBytes(40), 0);
    queue.close();
    assert.deepEqual(queue.waiting.map((b) => [b.rows, b.bytes]), [[1, 40], [1, 500], [1, 40]]);
  });
});

test("whatever comes, no batch is larger than allowed and no byte is lost or moved", () => {
  const chunks = fc.array(fc.array(fc.integer({ min: 40, max: 160 }), { minLength: 1 }), {
    maxLength: 12,
  });
  fc.assert(fc.property(
    chunks,
    fc.integer({ min: 1, max: 12 }),
    fc.integer({ min: 1, max: 400 }),
    (sizesOfChunks, maxRows, maxBytes) => {
      const queue = queueOf({ maxRows, maxBytes });
      let sent = "";
      for (const rowSizes of sizesOfChunks) {
        const rows = rowSizes.map((bytes) => rowOfBytes(bytes));
        const chunk: Chunk = {
          ...rows[0]!,
          rows: rows.length,
          types: new Map([["big", rows.length]]),
          body: new TextEncoder().encode(rows.map(text).join("")),
        };
        sent += text(chunk);
        const reservations = fill(queue, chunk, 0);
        assert.equal(reservations.reduce((sum, { from, to }) => sum + to - from, 0), chunk.rows);
      }
      queue.close();
      assert.equal(queue.waiting.map(textOf).join(""), sent);
      for (const batch of queue.waiting) {
        assert.ok(batch.rows >= 1 && batch.rows <= maxRows);
        assert.ok(batch.bytes <= maxBytes || batch.rows === 1);
        assert.equal(batch.bytes, textOf(batch).length);
        assert.equal(batch.types.get("big"), batch.rows);
      }
    },
  ));
});

test("small and large chunks keep their order and every byte", () => {
  const chunks = fc.array(fc.constantFrom(40, 41, 300, 4095, 4096, 4097, 9000, 70_000), {
    maxLength: 120,
    size: "max",
  });
  fc.assert(
    fc.property(chunks, (sizesOfRows) => {
      const queue = queueOf({ maxRows: 1000, maxBytes: 100_000_000 });
      const rows = sizesOfRows.map((bytes) => rowOfBytes(bytes));
      for (const row of rows) fill(queue, row, 0);
      queue.close();
      assert.equal(queue.waiting.map(textOf).join(""), rows.map(text).join(""));
    }),
    { numRuns: 40 },
  );
});

describe("what may not share a batch", () => {
  test("rows that were checked against other columns", () => {
    const queue = queueOf();
    for (const fingerprint of [null, null, "a", "a", "b", null]) {
      fill(queue, events(1, { fingerprint }), 0);
    }
    queue.close();
    assert.deepEqual(queue.waiting.map((b) => [b.fingerprint, b.rows]), [
      [null, 2],
      ["a", 2],
      ["b", 1],
      [null, 1],
    ]);
  });

  test("rows of another shape: their INSERT is another one", () => {
    const queue = queueOf();
    fill(queue, events(2), 0);
    fill(queue, events(3, { shape: "row" }), 0);
    fill(queue, events(1), 0);
    queue.close();
    assert.deepEqual(queue.waiting.map((b) => [b.shape, b.rows]), [
      ["event", 2],
      ["row", 3],
      ["event", 1],
    ]);
  });
});

describe("age and idleness", () => {
  test("a batch is due at its oldest row's age, however many follow", () => {
    const queue = queueOf();
    fill(queue, events(1), 100);
    fill(queue, events(1), 1050);
    assert.equal(queue.next(1099), null);
    assert.equal(queue.next(1100)?.rows, 2);
  });

  test("idle: due as soon as nothing has come for so long, age still counts", () => {
    const queue = queueOf({ maxRows: 100, idleIntervalMs: 50 });
    fill(queue, events(1), 0);
    fill(queue, events(1), 40);
    assert.equal(queue.next(89), null);
    assert.equal(queue.next(90)?.rows, 2);
    for (let at = 1000; at < 2000; at += 40) fill(queue, events(1), at);
    assert.equal(queue.next(1999), null);
    assert.equal(queue.next(2000)?.rows, 25);
  });

  test("idle is off unless asked for", () => {
    const queue = queueOf();
    fill(queue, events(1), 0);
    assert.equal(queue.next(999), null);
  });

  test("a due batch that cannot be sent goes on gathering", () => {
    const queue = queueOf();
    fill(queue, events(1), 0);
    fill(queue, events(1), 5000);
    assert.equal(queue.waiting.length, 0);
    assert.equal(queue.next(9000)?.rows, 2);
  });

  test("a due batch is not sealed for the sake of another one that is sent", () => {
    const queue = queueOf();
    fill(queue, events(30), 0);
    for (let now = 2000; queue.waiting.length > 0; now += 2000) {
      fill(queue, events(1), now - 1500);
      queue.next(now);
      assert.ok(now < 20_000, "the queue never gets shorter: each dispatch adds a batch");
    }
  });
});

describe("the queue", () => {
  test("newest and oldest take turns", () => {
    const queue = queueOf({ maxRows: 1 });
    for (let i = 0; i < 6; i++) fill(queue, events(1), i);
    const order = Array.from({ length: 6 }, () => queue.next(10)!.oldestMs);
    assert.deepEqual(order, [0, 5, 1, 4, 2, 3]);
  });

  test("a batch that comes back stands where its age belongs", () => {
    const queue = queueOf({ maxRows: 1 });
    for (let i = 0; i < 4; i++) fill(queue, events(1), i);
    const batch = queue.next(10)!;
    fill(queue, events(1), 4);
    queue.putBack(batch);
    assert.deepEqual(queue.waiting.map((b) => b.oldestMs), [0, 1, 2, 3, 4]);
  });

  test("sealed means never changed", () => {
    const queue = queueOf();
    fill(queue, events(2), 0);
    queue.close();
    assert.throws(() => queue.waiting[0]!.reserve(events(1), 0), /takes no further rows/);
  });

  test("a chunk without rows holds up nothing and makes no batch", () => {
    const queue = queueOf();
    const none = { ...events(1), rows: 0, body: new Uint8Array(), types: new Map() };
    assert.deepEqual(fill(queue, none, 0), []);
    assert.deepEqual([queue.waiting.length, queue.open], [0, null]);
  });
});
