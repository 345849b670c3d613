/**
 * A row that needs more memory than a query may have, among others: it costs itself.
 * Runs once: what servers answer is compared; servers_test.ts and broken_off_test.ts have the way to them on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Batch, Delivery } from "../../src/contracts.ts";
import { oneClickHouse } from "../kit/one_clickhouse.ts";
import { adding, batchOf, deliverTo, never } from "./kit.ts";

const WIDE = "x".repeat(3_000_000);
const ROWS = 400;
/** Passes with all of the narrow rows at once, and not with a wide one. */
const MEMORY = { max_memory_usage: "8000000" };

describe("memory", () => {
  const server = oneClickHouse();
  let tables = 0;

  async function room() {
    const table = `poison${tables++}`;
    await server.query(
      `CREATE TABLE ${table} (id UInt32, s String) ENGINE = MergeTree ORDER BY id ` +
        "SETTINGS non_replicated_deduplication_window = 1000",
    );
    let inserts = 0;
    const limited = adding(MEMORY);
    const deliver = deliverTo([server.url], {
      compress: "none",
      fetch(url, init) {
        if (!/[?&]query=INSERT/.test(url)) return fetch(url, init);
        inserts++;
        return limited(url, init);
      },
    });
    const batch = (wide: (id: number) => boolean, from = 0, rows = ROWS) =>
      batchOf(
        Array.from({ length: rows }, (_, at) => {
          const id = from + at;
          return `{"id":${id},"s":"${wide(id) ? WIDE : "y".repeat(200)}"}`;
        }),
        { table },
      );
    const send = (batch: Batch, trail: readonly string[] = [], noted: string[] = []) =>
      deliver.sink.deliver(batch, never, {
        trail,
        note(line) {
          noted.push(line);
          return Promise.resolve();
        },
        begin: () => true,
      });
    return { table, batch, send, inserts: () => inserts, close: () => deliver.close() };
  }

  const deadOf = (delivery: Delivery) => {
    assert.ok(delivery.kind === "settled", JSON.stringify(delivery).slice(0, 300));
    assert.ok(delivery.dead.every(({ code }) => code === 241));
    return delivery.dead.map(({ index }) => index);
  };

  for (
    const [name, wide, most] of [
      ["in the middle", (id: number) => id === 177, 24],
      ["first", (id: number) => id === 0, 24],
      ["last", (id: number) => id === ROWS - 1, 24],
      ["three of them", (id: number) => [3, 200, 201].includes(id), 60],
    ] as const
  ) {
    test(`${name}: the others land, in few INSERTs`, async () => {
      const { table, batch, send, inserts, close } = await room();
      const bad = Array.from({ length: ROWS }, (_, id) => id).filter(wide);
      assert.deepEqual(deadOf(await send(batch(wide))), bad);
      const good = ROWS - bad.length;
      assert.equal(
        await server.query(`SELECT count(), uniqExact(id) FROM ${table}`),
        `${good}\t${good}`,
      );
      assert.ok(inserts() <= most, `${inserts()} INSERTs`);
      // The next batch does not pay for it.
      const before = inserts();
      assert.deepEqual(deadOf(await send(batch(() => false, 1000))), []);
      assert.ok(inserts() - before <= 8, `${inserts() - before} INSERTs`);
      await close();
    });
  }

  test("a process that ends in the middle is followed by one that goes on there", async () => {
    const { table, batch, send, close } = await room();
    const wide = (id: number) => id === 3 || id === 250;
    const first = batch(wide);
    const noted: string[] = [];
    assert.deepEqual(deadOf(await send(first, [], noted)), [3, 250]);
    assert.ok(noted.some((line) => line.includes("put off")));
    for (let lines = 1; lines <= noted.length; lines += 3) {
      const again = { ...batch(wide), id: first.id };
      let delivery = await send(again, noted.slice(0, lines));
      // The first INSERT may be stored already: it is parted when it was refused often enough.
      for (let time = 0; delivery.kind === "transient" && time < 3; time++) {
        delivery = await send(again);
      }
      assert.deepEqual(deadOf(delivery), [3, 250]);
    }
    assert.equal(await server.query(`SELECT count(), uniqExact(id) FROM ${table}`), "398\t398");
    await close();
  });

  test("alone in its batch it is held, until others of its table pass", async () => {
    const { table, batch, send, close } = await room();
    const alone = batch(() => true, 0, 1);
    for (let time = 0; time < 2; time++) assert.equal((await send(alone)).kind, "table");
    assert.deepEqual(deadOf(await send(batch(() => false, 10, 5))), []);
    assert.deepEqual(deadOf(await send(alone)), [0]);
    assert.equal(await server.query(`SELECT count() FROM ${table}`), "5");
    await close();
  });
});
