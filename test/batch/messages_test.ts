/**
 * Messages of brokers: one that comes again becomes no rows, whatever happens in between.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Chunk, Mark, Taken } from "../../src/contracts.ts";
import { events } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import { stored, tableTrouble } from "../kit/scripted_sink.ts";
import { DATA, journalFiles, type PumpKit, pumpKit, segments } from "./spool_kit.ts";

type Options = Parameters<typeof pumpKit>[0];

async function started(options: Options = {}): Promise<PumpKit> {
  const kit = await pumpKit(options);
  await kit.pump.recover();
  return kit;
}

/** Rows of the messages of a source, up to a position in partition `a/0`. */
function sent(
  position: number | string | null,
  { rows = 2, ids = [] as string[], source = "s", partition = "a/0", table = "t" } = {},
): Chunk {
  const marks: Mark[] = position === null ? [] : [{ partition, position: String(position) }];
  return { ...events(rows, { table }), messages: { source, marks, ids } };
}

async function outcome(taken: Taken): Promise<string> {
  if (taken.kind === "refused") return taken.why;
  return (await taken.ticket.kept)?.why ?? "kept";
}

const take = (kit: PumpKit, chunk: Chunk) => outcome(kit.pump.take(chunk));

/** By partition, up to where a source is taken. */
async function marks(kit: PumpKit, source = "s"): Promise<Record<string, string>> {
  const marks = [...await kit.pump.marks(source)];
  return Object.fromEntries(marks.map(([partition, { position }]) => [partition, position]));
}

async function known(kit: PumpKit, ids: readonly string[], source = "s"): Promise<string[]> {
  return [...(await kit.pump.taken(source, ids)).keys()];
}

/** As after `kill -9`, or a power cut. */
async function crashed(kit: PumpKit, how: "process" | "power" = "process", options: Options = {}) {
  const files = kit.files.crash(how);
  kit.pump.abandon();
  return await started({ ...options, files });
}

async function stopped(kit: PumpKit, options: Options = {}): Promise<PumpKit> {
  kit.pump.close();
  await settle();
  await kit.pump.spill();
  kit.pump.abandon();
  await kit.disk.close();
  return await started({ ...options, files: kit.files });
}

/** All that waits is stored, and what comes from now on. */
async function deliver({ sink, clock }: PumpKit): Promise<void> {
  sink.script = () => stored;
  sink.answerAll(stored);
  await clock.advance(100_000);
}

/** What a promise says within a turn. */
async function soon<T>(promise: Promise<T>): Promise<T | "not yet"> {
  await settle();
  return await Promise.race([promise, Promise.resolve("not yet" as const)]);
}

describe("in one process", () => {
  for (const ack of ["memory", "disk"] as const) {
    test(`what was taken is known, of its source alone; ack=${ack}`, async () => {
      const kit = await started({ ack });
      assert.deepEqual(await marks(kit), {});
      assert.equal(await take(kit, sent(7, { ids: ["x", "y"] })), "kept");
      assert.equal(await take(kit, sent(9)), "kept");
      assert.equal(await take(kit, sent("5-3", { partition: "b/0" })), "kept");
      assert.deepEqual(await marks(kit), { "a/0": "9", "b/0": "5-3" });
      assert.deepEqual(await known(kit, ["y", "z", "x"]), ["y", "x"]);
      assert.deepEqual(await marks(kit, "other"), {});
      assert.deepEqual(await known(kit, ["x"], "other"), []);
      const { ticket } = (await kit.pump.marks("s")).get("a/0")!;
      assert.deepEqual([ticket.kept, ticket.reached], [null, ack]);
    });
  }

  test("a question waits for rows that are on their way, and what is refused was not taken", async () => {
    const kit = await started();
    kit.gate.shut = true;
    const first = take(kit, sent(7, { ids: ["x"] }));
    const [position, ids] = [marks(kit), known(kit, ["x"])];
    assert.equal(await soon(position), "not yet");
    assert.equal(await soon(ids), "not yet");
    assert.deepEqual(await marks(kit, "other"), {}, "another source waits for nothing");
    kit.gate.open();
    assert.equal(await first, "kept");
    assert.deepEqual([await position, await ids], [{ "a/0": "7" }, ["x"]]);
    kit.files.fail({ on: "sync", code: "EIO", times: 1 });
    assert.equal(await take(kit, sent(8, { ids: ["y"] })), "full");
    assert.deepEqual(await marks(kit), { "a/0": "7" });
    assert.deepEqual(await known(kit, ["x", "y"]), ["x"]);
  });

  test("tickets tell when all rows up to there have left, and so they do of ids", async () => {
    const kit = await started({ maxRows: 2 });
    for (const position of [1, 2, 3]) {
      assert.equal(await take(kit, sent(position, { ids: [`m${position}`] })), "kept");
    }
    const mark = (await kit.pump.marks("s")).get("a/0")!;
    const ids = await kit.pump.taken("s", ["m1", "m3"]);
    const [all, first, last] = [mark.ticket, ids.get("m1")!, ids.get("m3")!]
      .map((ticket) => ticket.settled(60_000));
    const [one, two, three] = kit.sink.attempts.filter(({ batch }) => batch.table === "t");
    one!.answer(stored);
    assert.deepEqual(await soon(first!), { dead: 0 });
    three!.answer(stored);
    assert.deepEqual(await soon(last!), { dead: 0 });
    assert.equal(await soon(all!), "not yet");
    two!.answer(stored);
    assert.deepEqual(await soon(all!), { dead: 0 });
    const later = (await kit.pump.marks("s")).get("a/0")!;
    assert.deepEqual(await later.ticket.settled(0), { dead: 0 });
  });

  test("rows that are given up were not stored, whatever is asked of their ticket", async () => {
    const kit = await started();
    assert.equal(await take(kit, sent(1, { ids: ["x"] })), "kept");
    const { ticket } = (await kit.pump.marks("s")).get("a/0")!;
    const ids = await kit.pump.taken("s", ["x"]);
    kit.pump.abandon();
    assert.equal(await ticket.settled(60_000), null);
    assert.equal(await ids.get("x")!.settled(60_000), null);
    const [later] = (await kit.pump.marks("s")).values();
    assert.equal(await later!.ticket.settled(60_000), null, "nor when it is asked after");
    const [id] = (await kit.pump.taken("s", ["x"])).values();
    assert.equal(await id!.settled(60_000), null);
  });

  test("what the broker has is forgotten, and what is beyond is not", async () => {
    const kit = await started();
    assert.equal(await take(kit, sent(7)), "kept");
    assert.equal(await take(kit, sent(12)), "kept");
    kit.pump.committed("s", { partition: "a/0", position: "9" });
    assert.deepEqual(await marks(kit), { "a/0": "12" });
    kit.pump.committed("s", { partition: "a/0", position: "12" });
    assert.deepEqual(await marks(kit), {});
    assert.equal(await take(kit, sent(3)), "kept", "the partition counts from the beginning again");
    assert.deepEqual(await marks(kit), { "a/0": "3" });
  });

  test("what the broker has is waited for no longer, and what is beyond is", async () => {
    const kit = await started({ maxRows: 2 });
    for (const position of [1, 2, 3]) assert.equal(await take(kit, sent(position)), "kept");
    kit.pump.committed("s", { partition: "a/0", position: "2" });
    const { ticket } = (await kit.pump.marks("s")).get("a/0")!;
    const settled = ticket.settled(60_000);
    kit.sink.attempts[0]!.answer(stored);
    kit.sink.attempts[1]!.answer(stored);
    assert.equal(await soon(settled), "not yet");
    kit.sink.attempts[2]!.answer(stored);
    assert.deepEqual(await soon(settled), { dead: 0 });
  });

  test("what is no position is not remembered", async () => {
    const kit = await started();
    for (const position of ["", "x", "-1", "1-", "1.5", "9".repeat(41)]) {
      assert.equal(await take(kit, sent(position)), "kept");
      assert.deepEqual(await marks(kit), {}, position);
    }
  });

  test("after the window an id is another one", async () => {
    const kit = await started({ keyWindowMs: 10_000 });
    assert.equal(await take(kit, sent(null, { ids: ["x"] })), "kept");
    await kit.clock.advance(9_999);
    assert.deepEqual(await known(kit, ["x"]), ["x"]);
    await kit.clock.advance(1);
    assert.deepEqual(await known(kit, ["x"]), []);
  });

  test("messages without positions and names leave nothing beside their rows", async () => {
    const kit = await started();
    assert.equal(await take(kit, sent(null)), "kept");
    const [path] = journalFiles(kit.files);
    assert.doesNotMatch(new TextDecoder().decode(kit.files.get(path!)!), /"keys"|#mark|#ids/);
  });

  test("a chunk of messages is one batch, however large it is", async () => {
    const kit = await started({ maxRows: 10 });
    kit.sink.script = () => tableTrouble;
    assert.equal(await take(kit, events(3, { table: "t" })), "kept");
    assert.equal(await take(kit, sent(7, { rows: 35 })), "kept");
    await kit.clock.advance(2000);
    const sizes = new Set(kit.sink.attempts.map(({ batch }) => batch.rows));
    assert.deepEqual([...sizes].sort((a, b) => a - b), [3, 35]);
  });

  test("of very many partitions those are forgotten in which nothing comes", async () => {
    const kit = await started();
    for (let at = 0; at <= 10_000; at++) kit.pump.take(sent(at, { partition: `l${at}`, rows: 1 }));
    await settle();
    assert.ok(Object.keys(await marks(kit)).length <= 10_001);
    assert.equal(await take(kit, sent(1, { partition: "l0" })), "kept");
    const left = await marks(kit);
    assert.equal(Object.keys(left).length, 10_000);
    assert.equal(left.l0, "1");
    assert.equal(left.l1, undefined);
  });
});

describe("in the next process", () => {
  for (const how of ["process", "power"] as const) {
    test(`what the disk has is known after a crash of the ${how}, stored or not`, async () => {
      const kit = await started();
      assert.equal(await take(kit, sent(7, { ids: ["x"] })), "kept");
      assert.equal(await take(kit, sent("18446744073709551616", { ids: ["y"] })), "kept");
      const next = await crashed(kit, how);
      assert.equal(next.pump.rows(), 4);
      for (const each of [next, null]) {
        const now = each ?? await crashed(next, how);
        assert.deepEqual(await marks(now), { "a/0": "18446744073709551616" });
        assert.deepEqual(await known(now, ["x", "y", "z"]), ["x", "y"]);
        await deliver(now);
        assert.equal(now.pump.rows(), 0);
      }
    });
  }

  test("what never got to the disk is not known", async () => {
    const kit = await started();
    assert.equal(await take(kit, sent(7)), "kept");
    kit.gate.shut = true;
    void take(kit, sent(8, { ids: ["x"] }));
    await settle();
    const next = await crashed(kit);
    assert.deepEqual(await marks(next), { "a/0": "7" });
    assert.deepEqual(await known(next, ["x"]), []);
  });

  test("with ack=memory nothing is: a mark of rows that were never safe must not be believed", async () => {
    const kit = await started({ ack: "memory" });
    assert.equal(await take(kit, sent(7, { ids: ["x"] })), "kept");
    const next = await crashed(kit, "process", { ack: "memory" });
    assert.deepEqual([await marks(next), await known(next, ["x"])], [{}, []]);
    // Nor that of rows which were safe, for it speaks of those before as well.
    assert.equal(await take(next, sent(7)), "kept");
    next.pump.adopt(options("disk"), false);
    next.gate.shut = true;
    const taken = take(next, sent(8, { ids: ["y"] }));
    await settle();
    // The rows that memory had are written after those.
    next.gate.release(0);
    await settle();
    next.gate.open();
    assert.equal(await taken, "kept");
    assert.deepEqual(await marks(next), { "a/0": "8" });
    const third = await crashed(next);
    assert.deepEqual([await marks(third), await known(third, ["y"])], [{}, ["y"]]);
  });

  test("and once these have left, it is believed", async () => {
    const kit = await started({ ack: "memory" });
    kit.sink.script = () => stored;
    assert.equal(await take(kit, sent(7)), "kept");
    await kit.clock.advance(2000);
    kit.pump.adopt(options("disk"), false);
    assert.equal(await take(kit, sent(8)), "kept");
    assert.deepEqual(await marks(await crashed(kit)), { "a/0": "8" });
  });

  test("nor that of a chunk that was given while another of its partition was on its way", async () => {
    for (let seed = 1; seed < 40; seed++) {
      const kit = await started({ files: new FaultyFiles(seed) });
      assert.equal(await take(kit, sent(7)), "kept");
      kit.gate.shut = true;
      void take(kit, sent(8, { table: "u" }));
      void take(kit, sent(9, { table: "v" }));
      void take(kit, sent(3, { table: "w", partition: "b/0" }));
      await settle();
      kit.gate.release(0);
      await settle();
      const next = await crashed(kit, "power");
      const tables = next.pump.byTable();
      const { "a/0": position, "b/0": other } = await marks(next);
      assert.equal(position, tables.has("u") ? "8" : "7");
      assert.equal(other, tables.has("w") ? "3" : undefined);
    }
  });

  test("until the journal is read nobody knows, and a question waits", async () => {
    const kit = await started();
    assert.equal(await take(kit, sent(7, { ids: ["x"] })), "kept");
    const next = await pumpKit({ files: kit.files.crash("process") });
    const [position, ids] = [marks(next), known(next, ["x"])];
    await next.clock.advance(100_000);
    assert.equal(await soon(position), "not yet");
    assert.equal(await soon(ids), "not yet");
    await next.pump.recover();
    assert.deepEqual([await position, await ids], [{ "a/0": "7" }, ["x"]]);
  });

  test("a process that follows another knows what that one took when it has gone", async () => {
    const kit = await started();
    const { promise, resolve: goes } = Promise.withResolvers<void>();
    const next = await pumpKit({ files: kit.files, clock: kit.clock, vacated: promise });
    const recovered = next.pump.recover();
    const [position, ids] = [marks(next), known(next, ["x", "y"])];
    assert.equal(await take(kit, sent(7, { ids: ["x"] })), "kept");
    assert.equal(await take(next, sent(null, { ids: ["y"] })), "kept");
    await kit.clock.advance(60_000);
    assert.equal(await soon(position), "not yet");
    assert.equal(await soon(ids), "not yet");
    kit.pump.abandon();
    await kit.disk.close();
    goes();
    await recovered;
    assert.deepEqual([await position, await ids], [{ "a/0": "7" }, ["x", "y"]]);
    assert.equal(await take(next, sent(8)), "kept");
    // And so does the process after a crash of this one.
    assert.deepEqual(await marks(await crashed(next, "power")), { "a/0": "8" });
  });

  test("a ticket waits for all rows of the partition that are held", async () => {
    const kit = await started({ maxRows: 2 });
    for (const position of [1, 2, 3]) assert.equal(await take(kit, sent(position)), "kept");
    assert.equal(await take(kit, sent(9, { partition: "b/0" })), "kept");
    const next = await crashed(kit);
    assert.equal(await take(next, sent(4, { table: "u", ids: ["x"] })), "kept");
    const { ticket, position } = (await next.pump.marks("s")).get("a/0")!;
    assert.deepEqual([position, ticket.kept, ticket.reached], ["4", null, "disk"]);
    const all = ticket.settled(60_000);
    let others = 0;
    for (let round = 0; round < 10; round++) {
      for (const each of next.sink.inFlight) {
        // The oldest of them goes last.
        if (each.batch.table === "t" && next.pump.rows() > 2) {
          if (others++ < 3 && each !== next.sink.inFlight[0]) each.answer(stored);
        } else if (each.batch.table === "u") each.answer(stored);
      }
      if (next.pump.rows() > 2) assert.equal(await soon(all), "not yet");
      await next.clock.advance(1000);
    }
    for (const each of next.sink.inFlight) each.answer(stored);
    assert.deepEqual(await soon(all), { dead: 0 });
  });

  test("what the broker has is not found, though its frames still lie there", async () => {
    for (const how of ["crash", "stop"] as const) {
      const kit = await started();
      kit.sink.script = () => tableTrouble;
      assert.equal(await take(kit, sent(7)), "kept");
      assert.equal(await take(kit, sent(5, { partition: "b/0" })), "kept");
      kit.pump.committed("s", { partition: "a/0", position: "7" });
      if (how === "crash") assert.equal(await take(kit, events(1, { table: "u" })), "kept");
      const next = how === "crash" ? await crashed(kit, "power") : await stopped(kit);
      assert.deepEqual(await marks(next), { "b/0": "5" }, how);
      assert.ok(next.pump.rows() >= 4);
      // And the partition may begin anew.
      assert.equal(await take(next, sent(2)), "kept");
      assert.deepEqual(await marks(await crashed(next)), { "a/0": "2", "b/0": "5" });
    }
  });

  test("that is said again where the disk did not take it", async () => {
    const kit = await started();
    kit.sink.script = () => tableTrouble;
    assert.equal(await take(kit, sent(7)), "kept");
    kit.pump.committed("s", { partition: "a/0", position: "7" });
    kit.files.fail({ on: "write", code: "EIO", times: 1 });
    assert.equal(await take(kit, events(1, { table: "u" })), "full");
    await kit.pump.probeDisk();
    assert.equal(await take(kit, events(1, { table: "u" })), "kept");
    assert.deepEqual(await marks(await crashed(kit, "power")), {});
  });

  test("a stop in good order leaves no file where the broker has everything", async () => {
    const kit = await started();
    kit.sink.script = () => stored;
    for (let position = 1; position < 50; position++) {
      assert.equal(await take(kit, sent(position)), "kept");
    }
    await kit.clock.advance(2000);
    assert.equal(kit.pump.rows(), 0);
    kit.pump.committed("s", { partition: "a/0", position: "49" });
    const next = await stopped(kit);
    assert.deepEqual(journalFiles(next.files), []);
    assert.deepEqual(await marks(next), {});
  });

  test("and one file where it has not", async () => {
    let kit = await started();
    for (let start = 1; start < 5; start++) {
      kit.sink.script = () => stored;
      assert.equal(await take(kit, sent(start, { ids: [`m${start}`] })), "kept");
      await kit.clock.advance(2000);
      assert.equal(kit.pump.rows(), 0);
      kit = await stopped(kit);
      assert.deepEqual(await marks(kit), { "a/0": String(start) });
      assert.deepEqual(await known(kit, ["m1", `m${start}`, "m9"]), [
        ...new Set(["m1", `m${start}`]),
      ]);
      assert.ok(journalFiles(kit.files).length <= 2, journalFiles(kit.files).join());
    }
  });

  test("marks and ids outlive the files in which they came, and rows that became segments", async () => {
    const options = { journalFileBytes: 4096, backlogBytes: 8192, maxRows: 20 };
    const kit = await started(options);
    kit.sink.script = ({ batch }) => batch.table === "stuck" ? tableTrouble : stored;
    for (let position = 1; position <= 5; position++) {
      assert.equal(
        await take(kit, sent(position, { table: "stuck", ids: [`m${position}`] })),
        "kept",
      );
    }
    assert.equal(await take(kit, sent("3-1", { partition: "b/0" })), "kept");
    const first = journalFiles(kit.files);
    for (let at = 0; at < 200; at++) {
      await take(kit, events(20, { table: `t${at % 3}` }));
      await kit.clock.advance(1000);
    }
    const paths = journalFiles(kit.files);
    assert.ok(!paths.includes(first[0]!), "the first file was written over");
    assert.ok(paths.length <= 8, `${paths.length} files`);
    assert.equal(segments(kit.files).length, 1);
    const next = await crashed(kit, "power", options);
    assert.deepEqual(await marks(next), { "a/0": "5", "b/0": "3-1" });
    const ids = ["m1", "m2", "m3", "m4", "m5"];
    assert.deepEqual(await known(next, [...ids, "m6"]), ids);
    const { ticket } = (await next.pump.marks("s")).get("a/0")!;
    next.sink.script = () => tableTrouble;
    const settled = ticket.settled(1e6);
    await next.clock.advance(1000);
    assert.equal(await soon(settled), "not yet", "the segment's rows are held");
    await deliver(next);
    assert.deepEqual(await soon(settled), { dead: 0 });
  });

  test("marks of a long life keep no more than one file, nor more than they need in memory", async () => {
    const options = { journalFileBytes: 4096, backlogBytes: 8192, maxRows: 20 };
    const kit = await started(options);
    kit.sink.script = () => stored;
    for (let position = 1; position <= 400; position++) {
      assert.equal(await take(kit, sent(position, { rows: 3 })), "kept");
      if (position % 10 === 0) await kit.clock.advance(1000);
    }
    assert.ok(journalFiles(kit.files).length <= 6, `${journalFiles(kit.files).length} files`);
    const next = await crashed(kit, "power", options);
    assert.deepEqual(await marks(next), { "a/0": "400" });
    next.sink.script = () => stored;
    await deliver(next);
    for (let at = 0; at < 100; at++) {
      await take(next, events(20, { table: "u" }));
      await next.clock.advance(1000);
    }
    // Of all marks that were found one is written again, and in no file but one.
    const text = new TextDecoder();
    const written = journalFiles(next.files).flatMap((path) =>
      text.decode(next.files.get(path)!).match(/#mark /g) ?? []
    );
    assert.ok(written.length < 20, `${written.length} marks`);
    const third = await crashed(next, "power", options);
    assert.deepEqual(await marks(third), { "a/0": "400" });
  });

  test("no mark is believed that speaks of rows which are lost with their file", async () => {
    const options = { journalFileBytes: 4096, backlogBytes: 8192, maxRows: 20 };
    const first = await started(options);
    const sorted = ({ batch }: { batch: { table: string } }) =>
      batch.table === "stuck" ? tableTrouble : stored;
    first.sink.script = sorted;
    assert.equal(await take(first, sent(1, { table: "stuck", ids: ["m1"] })), "kept");
    for (let at = 0; at < 200; at++) {
      await take(first, events(20, { table: "u" }));
      await first.clock.advance(1000);
    }
    const path = segments(first.files).find((path) => path.startsWith(`${DATA}/spool/stuck/`))!;
    const kit = await crashed(first, "power", options);
    kit.sink.answerAll(tableTrouble);
    kit.sink.script = sorted;
    assert.equal(await take(kit, sent(2, { ids: ["m2"] })), "kept");
    assert.deepEqual(await marks(kit), { "a/0": "2" });
    await kit.files.remove(path);
    await kit.clock.advance(60_000);
    for (let times = 0; times < 2; times++) await kit.pump.probeDisk();
    assert.equal(kit.ledger.totals().lost, 2);
    assert.deepEqual(await marks(kit), {});
    assert.deepEqual(await known(kit, ["m1", "m2"]), ["m2"]);
    assert.equal(await take(kit, events(1, { table: "u" })), "kept");
    assert.deepEqual(await marks(await crashed(kit, "power", options)), {});
  });

  test("a large chunk is there with its mark, or neither of them is", async () => {
    for (let seed = 1; seed < 30; seed++) {
      const kit = await started({ maxRows: 10, files: new FaultyFiles(seed) });
      assert.equal(await take(kit, sent(1, { rows: 3 })), "kept");
      kit.gate.shut = true;
      void take(kit, sent(2, { rows: 35, ids: ["x"] }));
      await settle();
      kit.gate.release(0);
      await settle();
      const next = await crashed(kit, "power");
      const all = next.pump.rows() === 38;
      assert.ok(all || next.pump.rows() === 3);
      assert.deepEqual(await marks(next), { "a/0": all ? "2" : "1" });
      assert.deepEqual(await known(next, ["x"]), all ? ["x"] : []);
    }
  });
});

test("neither requests nor another source can push out what keeps to its part", async () => {
  const kit = await started();
  const clock = kit.clock instanceof ManualClock;
  assert.ok(clock);
  const ids = (of: string, count: number) => Array.from({ length: count }, (_, at) => `${of}${at}`);
  const key = (at: number) => ({ key: `k${at}`, hash: "h", rejected: 0 });
  for (let at = 0; at < 1000; at++) kit.pump.take({ ...events(1, { table: "t" }), key: key(at) });
  kit.pump.take(sent(null, { ids: ids("few", 1000), source: "quiet" }));
  for (let round = 0; round < 30; round++) {
    kit.pump.take(sent(null, { ids: ids(`many${round}-`, 5000), source: "loud" }));
  }
  await settle();
  assert.equal((await known(kit, ids("few", 1000), "quiet")).length, 1000);
  assert.equal((await known(kit, ids("many29-", 5000), "loud")).length, 5000);
  assert.equal((await known(kit, ids("many0-", 5000), "loud")).length, 0);
  for (const at of [0, 999]) {
    const again = kit.pump.take({ ...events(1, { table: "t" }), key: key(at) });
    assert.ok(again.kind === "taken" && again.before !== undefined, `k${at}`);
  }
});

function options(reached: "disk" | "memory"): Parameters<PumpKit["pump"]["adopt"]>[0] {
  return {
    fill: { maxRows: 1000, maxBytes: 1e6, flushIntervalMs: 1000, idleIntervalMs: null },
    budget: { maxRows: 1e6, maxBytes: 1e8, tableShare: 1 },
    concurrency: 4,
    reached,
    maxSpoolBytes: 1e9,
    keyWindowMs: 3_600_000,
  };
}
