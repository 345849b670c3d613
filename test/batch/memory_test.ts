/** What becomes of a batch's memory: freed as soon as nobody reads it, and not before. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Batch } from "../../src/contracts.ts";
import { events, rowOfBytes } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { deadRows, stored, textOf, unanswered } from "../kit/scripted_sink.ts";
import { bench } from "./bench.ts";
import { groupsIn, pumpKit, segments } from "./spool_kit.ts";

/** What a sink has before it when it begins to read. */
const read = ({ body }: Batch) => ({ body });
const bytesOf = ({ body }: Pick<Batch, "body">) =>
  body.reduce((sum, { length }) => sum + length, 0);

describe("a batch's memory", () => {
  test("is freed when its rows are stored", async () => {
    const b = bench();
    b.take(events(10));
    const seen = read(b.sink.last.batch);
    assert.ok(bytesOf(seen) > 0);
    b.sink.answerAll(stored);
    await settle();
    assert.equal(bytesOf(seen), 0);
  });

  test("is freed when some of its rows are dead, and those are whole", async () => {
    const b = bench();
    b.take(events(10));
    const seen = read(b.sink.last.batch);
    const rows = textOf(seen).trimEnd().split("\n");
    b.sink.answerAll(deadRows(3));
    await settle();
    assert.deepEqual(b.buried[0]?.rows, [rows[3]]);
    assert.equal(bytesOf(seen), 0);
  });

  test("stays as it was for an attempt that failed: it may still be read", async () => {
    const b = bench();
    b.take(events(10));
    const seen = read(b.sink.last.batch);
    const before = textOf(seen);
    b.sink.answerAll(unanswered());
    await b.clock.advance(60_000);
    assert.equal(b.sink.attempts.length, 2);
    b.sink.answerAll(stored);
    await settle();
    assert.equal(b.ledger.totals().stored, 10);
    b.take(events(10));
    assert.equal(textOf(seen), before);
  });

  test("stays as it was for an attempt that is cut off at the end", async () => {
    const b = bench();
    b.take(events(10));
    const seen = read(b.sink.last.batch);
    const before = textOf(seen);
    b.pump.abandon();
    await settle();
    assert.equal(b.ledger.totals().lost, 10);
    assert.equal(textOf(seen), before);
  });

  test("is not freed with another batch that has the rest of the same body", async () => {
    const b = bench({ concurrency: 1, maxRows: 10_000, backlog: 25_000, backlogBytes: 1e8 });
    const chunk = events(25_000);
    assert.ok(chunk.body.length > 64 * 1024);
    const sent = new TextDecoder().decode(chunk.body);
    b.take(chunk);
    let arrived = "";
    for (let batches = 0; batches < 3; batches++) {
      await b.clock.advance(1000);
      arrived += textOf(b.sink.last.batch);
      b.sink.answerAll(stored);
      await settle();
    }
    const sorted = (rows: string) => rows.split("\n").sort().join("\n");
    assert.ok(sorted(arrived) === sorted(sent));
    assert.ok(new TextDecoder().decode(chunk.body) === sent, "it is the giver's");
  });

  for (const end of ["stored", "given up"] as const) {
    test(`stays as it was while it is written, ${end} meanwhile: what is sealed is whole`, async () => {
      const kit = await pumpKit({ ack: "memory", concurrency: 1 });
      // It is not even sent when it is given up.
      if (end === "given up") kit.pump.take(events(1, { table: "other" }));
      // More than is written at once.
      const chunks = Array.from({ length: 20 }, () => rowOfBytes(40_000, { table: "large" }));
      for (const chunk of chunks) kit.pump.take(chunk);
      kit.pump.close();
      kit.gate.shut = true;
      void kit.pump.spill();
      const created = () => kit.files.trace.some((line) => /^create .*\/large\//.test(line));
      do {
        kit.gate.release(0);
        await settle();
      } while (!created() || kit.gate.changes[0] !== "write");
      if (end === "stored") kit.sink.answerAll(stored);
      else kit.pump.abandon();
      await settle();
      // What the next start would find, were it not removed.
      kit.files.fail({ on: "remove", code: "EIO", times: 9 });
      kit.gate.open();
      await settle();
      const path = segments(kit.files).find((path) => path.includes("/large/"));
      const sent = chunks.map(({ body }) => new TextDecoder().decode(body)).join("");
      assert.ok(path !== undefined && groupsIn(kit.files, path).join("") === sent);
    });
  }

  test("is freed when its rows stay on disk only, and what is read again likewise", async () => {
    const kit = await pumpKit({ maxRows: 1, concurrency: 1, backlogBytes: 40_000 });
    kit.sink.script = () => unanswered();
    const tickets = Array.from({ length: 8 }, () => kit.pump.take(rowOfBytes(4_000)));
    for (const taken of tickets) {
      assert.ok(taken.kind === "taken" && await taken.ticket.kept === null);
    }
    assert.ok(kit.pump.memoryBytes() <= 10_000, `${kit.pump.memoryBytes()} bytes`);
    const bodies: Pick<Batch, "body">[] = [];
    kit.sink.script = ({ batch, text }) => {
      assert.equal(bytesOf(batch), text.length);
      bodies.push(read(batch));
      return stored;
    };
    await kit.clock.advance(60_000);
    assert.equal(kit.ledger.totals().stored, 8);
    // The first of them was tried before.
    assert.deepEqual(bodies.slice(1).map(bytesOf), [0, 0, 0, 0, 0, 0, 0]);
  });
});
