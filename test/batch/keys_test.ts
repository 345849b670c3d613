/**
 * Keys of writes: the same rows under the same key are taken once, whatever happens in between.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Chunk, KnownKey, Recovered, Taken } from "../../src/contracts.ts";
import { Earlier, Keys, NameBudget } from "../../src/batch/keys.ts";
import { events } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import { deadRows, stored } from "../kit/scripted_sink.ts";
import { journalFiles, type PumpKit, pumpKit } from "./spool_kit.ts";

type Options = Parameters<typeof pumpKit>[0];

async function started(options: Options = {}): Promise<PumpKit> {
  const kit = await pumpKit(options);
  await kit.pump.recover();
  return kit;
}

function keyed(key: string, rows = 2, { hash = "h", table = "t", rejected = 0 } = {}): Chunk {
  return { ...events(rows, { table }), key: { key, hash, rejected } };
}

/** What became of a chunk once the disk has answered. */
async function outcome(taken: Taken): Promise<string> {
  if (taken.kind === "refused") return taken.why;
  const refused = await taken.ticket.kept;
  if (refused !== null) return refused.why;
  const { before } = taken;
  return before === undefined ? "new" : `again ${before.accepted} ${before.rejected}`;
}

const take = (kit: PumpKit, chunk: Chunk) => outcome(kit.pump.take(chunk));

/** As after `kill -9`, or a power cut. */
async function crashed(kit: PumpKit, how: "process" | "power" = "process", options: Options = {}) {
  const files = kit.files.crash(how);
  kit.pump.abandon();
  return await started({ ...options, files });
}

async function stopped(kit: PumpKit, options: Options = {}): Promise<PumpKit> {
  kit.pump.close();
  await settle();
  kit.pump.abandon();
  await kit.disk.close();
  return await started({ ...options, files: kit.files });
}

function keysOf(clock: ManualClock, most: { names: number; bytes: number }): Keys {
  return new Keys({
    clock,
    windowMs: () => 60_000,
    nowMs: () => clock.nowMs(),
    earlier: new Earlier({ clock, heldBatch: () => null }, false),
    budget: new NameBudget(most),
  });
}

describe("in one process", () => {
  for (const ack of ["memory", "disk"] as const) {
    test(`what came before is not taken again; ack=${ack}`, async () => {
      const kit = await started({ ack });
      assert.equal(await take(kit, keyed("a", 2, { rejected: 1 })), "new");
      assert.equal(await take(kit, keyed("a", 2, { rejected: 1 })), "again 2 1");
      assert.equal(
        await outcome((await kit.pump.known("t", { key: "a", hash: "h" }))!),
        "again 2 1",
      );
      assert.equal(await take(kit, keyed("a", 2, { hash: "other" })), "key");
      assert.equal(await take(kit, keyed("a", 2, { table: "u" })), "new", "of another table");
      assert.equal(await take(kit, keyed("b")), "new");
      assert.equal(await take(kit, events(1, { table: "t" })), "new", "without a key");
      assert.equal(kit.pump.rows(), 7);
    });
  }

  test("who comes while the first is under way waits for it, and shares its fate", async () => {
    const kit = await started();
    kit.gate.shut = true;
    const first = take(kit, keyed("a"));
    const second = take(kit, keyed("a"));
    let answered = false;
    void second.then(() => answered = true);
    assert.equal(await take(kit, keyed("a", 2, { hash: "other" })), "key");
    await settle();
    assert.equal(answered, false);
    kit.gate.open();
    assert.deepEqual(await Promise.all([first, second]), ["new", "again 2 0"]);
    kit.files.fail({ on: "sync", code: "EIO", times: 1 });
    assert.deepEqual(await Promise.all([take(kit, keyed("b")), take(kit, keyed("b"))]), [
      "full",
      "full",
    ]);
    await kit.pump.probeDisk();
    assert.equal(await take(kit, keyed("b")), "new", "what was refused is forgotten");
    assert.equal(kit.pump.rows(), 4);
  });

  test("what is refused at once is not remembered", async () => {
    const kit = await started({ backlog: 3 });
    assert.equal(await take(kit, keyed("a", 4)), "full");
    kit.pump.pause();
    assert.equal(await take(kit, keyed("a", 2)), "closed");
    kit.pump.resume();
    assert.equal(await take(kit, keyed("a", 2)), "new");
  });

  test("also where there is no room for new rows", async () => {
    const kit = await started({ backlog: 2 });
    assert.equal(await take(kit, keyed("a")), "new");
    assert.equal(await take(kit, keyed("b")), "full");
    assert.equal(await take(kit, keyed("a")), "again 2 0");
  });

  test("after the window it is another one", async () => {
    const kit = await started({ keyWindowMs: 10_000 });
    assert.equal(await take(kit, keyed("a")), "new");
    await kit.clock.advance(9_999);
    assert.equal(await take(kit, keyed("a")), "again 2 0");
    await kit.clock.advance(1);
    assert.equal(await take(kit, keyed("a", 3, { hash: "other" })), "new");
    const next = await crashed(kit);
    assert.equal(await take(next, keyed("a", 3, { hash: "other" })), "again 3 0", "the newer one");
  });

  test("its ticket tells what became of the rows, also later", async () => {
    const kit = await started();
    assert.equal(await take(kit, keyed("a", 3)), "new");
    const waiting = kit.pump.take(keyed("a", 3));
    assert.ok(waiting.kind === "taken");
    const settled = waiting.ticket.settled(60_000);
    kit.sink.script = () => deadRows(1);
    await kit.clock.advance(1000);
    assert.deepEqual(await settled, { dead: 1 });
    const later = kit.pump.take(keyed("a", 3));
    assert.ok(later.kind === "taken");
    assert.deepEqual(await later.ticket.settled(0), { dead: 1 });
  });

  test("memory is bounded: the oldest are forgotten", () => {
    const clock = new ManualClock();
    for (const most of [{ names: 10, bytes: 1e6 }, { names: 1e6, bytes: 4_100 }]) {
      const keys = keysOf(clock, most);
      const records = Array.from({ length: 30 }, (_, at) => {
        const begun = keys.begin("t", 1, { key: `k${at}`, hash: "h", rejected: 0 });
        begun.taken("memory", null, []);
        return begun.record;
      });
      assert.equal(keys.size, 10);
      assert.equal(keys.known("t", { key: "k19", hash: "h" }), null);
      assert.notEqual(keys.known("t", { key: "k20", hash: "h" }), null);
      assert.deepEqual(records.map(({ gone }) => gone).lastIndexOf(true), 19);
    }
  });
});

describe("in the next process", () => {
  for (const how of ["process", "power"] as const) {
    test(`what the disk has is known after a crash of the ${how}, stored or not`, async () => {
      const kit = await started();
      assert.equal(await take(kit, keyed("a", 2, { rejected: 3 })), "new");
      const next = await crashed(kit, how);
      assert.equal(next.pump.rows(), 2);
      assert.equal(await take(next, keyed("a")), "again 2 3");
      assert.equal(await take(next, keyed("a", 2, { hash: "other" })), "key");
      next.sink.script = () => stored;
      await next.clock.advance(2000);
      assert.equal(next.pump.rows(), 0);
      const third = await crashed(next, how);
      assert.equal(await take(third, keyed("a")), "again 2 3");
    });
  }

  test("what never got to the disk is new", async () => {
    const kit = await started();
    kit.gate.shut = true;
    void take(kit, keyed("a"));
    await settle();
    const next = await crashed(kit);
    assert.equal(await take(next, keyed("a")), "new");
  });

  test("with ack=memory it is new: the disk never had it", async () => {
    const kit = await started({ ack: "memory" });
    assert.equal(await take(kit, keyed("a")), "new");
    assert.equal(await take(await stopped(kit, { ack: "memory" }), keyed("a")), "new");
  });

  test("a stop in good order leaves one file for the keys, and none when they are old", async () => {
    let kit = await started({ keyWindowMs: 10_000 });
    kit.sink.script = () => stored;
    for (let start = 0; start < 4; start++) {
      assert.equal(await take(kit, keyed(`k${start}`)), "new");
      await kit.clock.advance(1000);
      assert.equal(kit.pump.rows(), 0);
      kit = await stopped(kit, { keyWindowMs: 10_000 });
      kit.sink.script = () => stored;
      assert.equal(await take(kit, keyed("k0")), "again 2 0");
    }
    assert.ok(journalFiles(kit.files).length <= 2, journalFiles(kit.files).join());
    await kit.clock.advance(20_000);
    await kit.pump.probeDisk();
    await stopped(kit, { keyWindowMs: 10_000 });
    assert.deepEqual(journalFiles(kit.files), []);
  });

  test("the window goes on across a start", async () => {
    const kit = await started({ keyWindowMs: 10_000 });
    kit.sink.script = () => stored;
    assert.equal(await take(kit, keyed("a")), "new");
    await kit.clock.advance(1000);
    const files = kit.files.crash("process");
    const clock = new ManualClock();
    clock.setWall(10_000);
    const next = await started({ files, keyWindowMs: 10_000, clock });
    assert.equal(await take(next, keyed("a", 2, { hash: "other" })), "new");
  });

  test("until the journal is read nobody knows: a question waits, rows are refused", async () => {
    const kit = await started();
    assert.equal(await take(kit, keyed("a")), "new");
    const next = await pumpKit({ files: kit.files.crash("process") });
    assert.equal(await take(next, keyed("a")), "closed");
    const known = next.pump.known("t", { key: "a", hash: "h" });
    const unknown = next.pump.known("t", { key: "b", hash: "h" });
    assert.ok(known instanceof Promise);
    await next.pump.recover();
    assert.equal(await outcome((await known)!), "again 2 0");
    assert.equal(await unknown, null);
  });

  test("a ticket waits for the rows that are held", async () => {
    const kit = await started();
    assert.equal(await take(kit, keyed("a")), "new");
    const next = await crashed(kit);
    const again = next.pump.take(keyed("a"));
    assert.ok(again.kind === "taken");
    let settled: unknown = "not yet";
    void again.ticket.settled(60_000).then((fate) => settled = fate);
    await next.clock.advance(100);
    assert.equal(settled, "not yet");
    next.sink.attempts.at(-1)!.answer(stored);
    await settle();
    assert.deepEqual(settled, { dead: 0 });
  });

  test("a request that is larger than a batch is not cut: it is there with its key, or not at all", async () => {
    for (let seed = 1; seed < 30; seed++) {
      const chunk = keyed("a", 35);
      const kit = await started({ maxRows: 10, files: new FaultyFiles(seed) });
      assert.equal(await take(kit, events(3, { table: "t" })), "new");
      kit.gate.shut = true;
      void take(kit, chunk);
      await settle();
      kit.gate.release(0);
      await settle();
      const next = await crashed(kit, "power");
      const rows = next.pump.rows();
      assert.ok(rows === 3 || rows === 38, `${rows} rows are there`);
      assert.equal(await take(next, chunk), rows === 3 ? "new" : "again 35 0");
      assert.equal(next.pump.rows(), 38);
    }
  });
});

test("keys outlive the files in which they came", async () => {
  const options = { journalFileBytes: 4096, backlogBytes: 8192, maxRows: 20 };
  const kit = await started(options);
  kit.sink.script = () => stored;
  for (let at = 0; at < 5; at++) assert.equal(await take(kit, keyed(`k${at}`)), "new");
  const first = journalFiles(kit.files);
  for (let at = 0; at < 200; at++) {
    await take(kit, events(20, { table: `t${at % 3}` }));
    await kit.clock.advance(1000);
  }
  const paths = journalFiles(kit.files);
  assert.ok(!paths.includes(first[0]!), "the first file was written over");
  assert.ok(paths.length <= 8, `${paths.length} files`);
  const next = await crashed(kit, "power", options);
  for (let at = 0; at < 5; at++) assert.equal(await take(next, keyed(`k${at}`)), "again 2 0");
});

test("keys that were recovered are in order with those that came meanwhile", () => {
  const clock = new ManualClock();
  const keys = keysOf(clock, { names: 2, bytes: 1e6 });
  keys.begin("t", 1, { key: "new", hash: "h", rejected: 0 }).taken("disk", null, []);
  const found = (key: string, sinceMs: number): Recovered<KnownKey> => ({
    ...{ table: "t", key, hash: "h", accepted: 1, rejected: 0, batches: [], gone: false },
    sinceMs: clock.nowMs() - sinceMs,
  });
  keys.recover([found("older", 10), found("oldest", 20)]);
  assert.equal(keys.known("t", { key: "oldest", hash: "h" }), null);
  assert.notEqual(keys.known("t", { key: "older", hash: "h" }), null);
  assert.notEqual(keys.known("t", { key: "new", hash: "h" }), null);
});
