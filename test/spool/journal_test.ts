/** The journal over many rounds, files and starts: recycled, bounded, put together again whatever is lost. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { HeldBatch } from "../../src/batch/batch.ts";
import type { Chunk, Recovered, RecoveredBatch, Spool } from "../../src/contracts.ts";
import { openSpool, takeOrphans } from "../../src/spool/data_dir.ts";
import { listSpool, recover } from "../../src/spool/recovery.ts";
import { JournalSpool } from "../../src/spool/spool.ts";
import { events, memoryLog } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import {
  DATA,
  framesIn,
  journalFiles,
  openBatch,
  segments,
  spill,
  spoolKit,
  submit,
} from "../batch/spool_kit.ts";

const textOf = (chunk: Chunk) => new TextDecoder().decode(chunk.body);

interface Started {
  readonly spool: Spool;
  readonly batches: readonly RecoveredBatch[];
  readonly keys: readonly string[];
  readonly log: ReturnType<typeof memoryLog>;
  /** Rows of a batch as they would be sent. */
  text(id: string): Promise<string | null>;
}

/** The next process. */
async function start(files: FaultyFiles, dataDir = DATA): Promise<Started> {
  const log = memoryLog();
  const dir = { files, dataDir, log };
  assert.equal((await openSpool(dir)).ok, true);
  const listing = await listSpool(dir);
  const clock = new ManualClock(1, Date.UTC(2025, 0, 1));
  const spool = new JournalSpool({ dir, clock, earlier: () => recover(dir, listing) });
  const batches: RecoveredBatch[] = [];
  const keys: string[] = [];
  const onMemos = (found: readonly Recovered[]) =>
    keys.push(...found.flatMap((memo) => "key" in memo ? [memo.key] : []));
  for await (const batch of spool.recover(onMemos)) batches.push(batch);
  return {
    spool,
    batches,
    keys,
    log,
    async text(id) {
      const batch = batches.find((each) => each.id === id);
      const rows = batch === undefined ? null : await spool.read(batch);
      return rows?.ok ? rows.value.map((piece) => new TextDecoder().decode(piece)).join("") : null;
    },
  };
}

/** Rounds that fill files; their batches leave at once. */
async function pass(spool: Spool, rounds: number, table = "busy"): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const chunk = events(3, { table });
    const batch = openBatch(chunk);
    assert.equal(await submit(spool, batch, chunk), null);
    batch.close();
    spool.remove(batch.id);
    await settle();
  }
}

describe("files are recycled", () => {
  test("over many rounds there are as many, as large as they once became", async () => {
    const { files, spool } = await spoolKit(new FaultyFiles(), { fileBytes: 3000 });
    // One batch is always held, or the journal would rest.
    let held = openBatch(events(1));
    const sizes = new Set<string>();
    for (let round = 0; round < 200; round++) {
      const next = openBatch(events(1));
      assert.equal(await submit(spool, next, events(1)), null);
      spool.remove(held.id);
      held = next;
      await pass(spool, 1);
      if (round < 50) continue;
      files.trace.forEach((line) => assert.ok(!line.startsWith("remove "), line));
      sizes.add(journalFiles(files).map((path) => files.get(path)!.length).sort().join());
      files.trace.length = 0;
    }
    assert.ok(journalFiles(files).length <= 4);
    assert.ok(sizes.size <= 3, [...sizes].join(" · "));
    spool.remove(held.id);
    await spool.close();
    assert.deepEqual(journalFiles(files), [], "and what holds nothing goes at the end");
  });

  test("what a file held before is never recovered, also not where its newest frames are damaged", async () => {
    const { files, spool } = await spoolKit(new FaultyFiles(), { fileBytes: 3000 });
    // All files have been written to their ends before, and the last one has just been begun.
    const newest = () => journalFiles(files).at(-1);
    await pass(spool, 40);
    for (const last = newest(); newest() === last;) await pass(spool, 1);
    const [kept, lost] = [events(2, { table: "kept" }), events(2, { table: "lost" })];
    for (const chunk of [kept, lost]) {
      assert.equal(await submit(spool, openBatch(chunk), chunk), null);
    }
    const path = journalFiles(files).find((path) =>
      new TextDecoder().decode(files.get(path)!).includes('"lost"')
    )!;
    const bytes = files.get(path)!;
    const at = new TextDecoder("latin1").decode(bytes).indexOf('"lost"');
    assert.ok(bytes.length - at > 1000, "there are frames behind it, whole ones");
    for (
      const change of [
        (damaged: Uint8Array) => void (damaged[at]! ^= 1),
        (damaged: Uint8Array) => void damaged.fill(0, at - 60, at + 200),
        (damaged: Uint8Array) => void damaged.set(damaged.subarray(at + 600, at + 800), at),
      ]
    ) {
      const next = new FaultyFiles();
      for (const each of files.paths()) next.put(each, files.get(each)!);
      const damaged = bytes.slice();
      change(damaged);
      next.put(path, damaged);
      const started = await start(next);
      assert.deepEqual(started.batches.map(({ table }) => table), ["kept"]);
      assert.equal(await started.text(started.batches[0]!.id), textOf(kept));
      assert.ok(next.paths().some((path) => path.includes("/quarantine/journal.")));
    }
  });

  test("a table that is stuck pins nothing: it moves, sealed or not", async () => {
    for (const sealed of [true, false]) {
      const options = { fileBytes: 3000, memoryBytes: () => 3000 };
      const { files, spool } = await spoolKit(new FaultyFiles(), options);
      const chunk = events(5, { table: "stuck" });
      const stuck = openBatch(chunk);
      for (let times = 0; times < 3; times++) assert.equal(await submit(spool, stuck, chunk), null);
      if (sealed) stuck.close();
      for (let times = 0; times < 30; times++) {
        await pass(spool, 10);
        assert.ok(journalFiles(files).length <= 6, `${journalFiles(files).length} files`);
      }
      assert.equal(segments(files).length, sealed ? 1 : 0);
      if (!sealed) {
        assert.equal(await submit(spool, stuck, chunk), null, "it goes on growing");
        stuck.close();
      }
      const whole = textOf(chunk).repeat(sealed ? 3 : 4);
      const rows = await spool.read(stuck);
      assert.ok(rows.ok);
      assert.equal(rows.value.map((piece) => new TextDecoder().decode(piece)).join(""), whole);
      const next = await start(files.crash("process"));
      assert.deepEqual(next.batches.map(({ id, rows }) => [id, rows]), [[stuck.id, stuck.rows]]);
      assert.equal(await next.text(stuck.id), whole);
    }
  });

  test("and moves once, though a look at the disk has it begun again", async () => {
    const options = { fileBytes: 3000, memoryBytes: () => 3000 };
    const { files, gate, spool, log, submit } = await spoolKit(new FaultyFiles(), options);
    const chunks = ["one", "two"].map((table) => events(5, { table }));
    const stuck = chunks.map(openBatch);
    const told = await Promise.all(chunks.map((chunk, at) => submit(stuck[at]!, chunk)));
    assert.deepEqual(told, [null, null]);
    const readPart = gate.readPart.bind(gate);
    const hangs = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let begun = 0;
    gate.readPart = async (...of) => {
      await hangs[begun++]?.promise;
      return await readPart(...of);
    };
    while (begun === 0) await pass(spool, 1);
    await spool.probe();
    while (begun === 1) await pass(spool, 1);
    for (const hang of hangs) {
      hang.resolve();
      await pass(spool, 10);
    }
    assert.deepEqual(log.lines.filter(({ level }) => level === "error"), []);
    const next = await start(files.crash("process"));
    for (const [at, { id }] of stuck.entries()) {
      assert.equal(await next.text(id), textOf(chunks[at]!));
    }
  });
});

/**
 * Three files with batches that lie in several of them, closed as by a power cut. Rows of `b` came each under
 * a key, which is what they call their type.
 */
async function threeFiles(): Promise<{ files: FaultyFiles; rows: Map<string, string> }> {
  const { files, spool } = await spoolKit(new FaultyFiles(), { fileBytes: 1200 });
  const tables = ["a", "b", "c"];
  const batches = tables.map((table) => openBatch(events(1, { table })));
  const rows = new Map<string, string>();
  for (let round = 0; round < 4; round++) {
    const chunks = tables.map((table) => {
      const type = `${table}${round}`;
      const key = { key: type, hash: "h", rejected: 0 };
      return { ...events(1, { table, type }), ...(table === "b" ? { key } : {}) };
    });
    await Promise.all(batches.map((batch, at) => submit(spool, batch, chunks[at]!)));
    batches.forEach(({ id }, at) => rows.set(id, (rows.get(id) ?? "") + textOf(chunks[at]!)));
  }
  const left = files.crash("power");
  assert.ok(journalFiles(left).length >= 3);
  return { files: left, rows };
}

const copyOf = (files: FaultyFiles) => {
  const copy = new FaultyFiles();
  for (const path of files.paths()) copy.put(path, files.get(path)!);
  return copy;
};

describe("a start after a crash", () => {
  test("the very batches: same ids, same rows, same order, whatever files they are in", async () => {
    const { files, rows } = await threeFiles();
    const started = await start(files);
    assert.deepEqual(started.batches.map(({ id }) => id), [...rows.keys()].sort());
    for (const [id, text] of rows) assert.equal(await started.text(id), text);
    for (const { id } of started.batches) started.spool.remove(id);
    await settle();
    await started.spool.close();
    assert.deepEqual([started.spool.bytes(), journalFiles(files).length], [0, 1], "for the keys");
    assert.deepEqual((await start(files)).keys.toSorted(), ["b0", "b1", "b2", "b3"]);
  });

  test("every byte of three files, flipped one by one, costs one frame at most, and no start", async () => {
    const { files, rows } = await threeFiles();
    for (const path of journalFiles(files)) {
      const { length } = files.get(path)!;
      for (let at = 0; at < length; at++) {
        const damaged = copyOf(files);
        damaged.put(path, files.get(path)!.map((byte, n) => n === at ? byte ^ 0x10 : byte));
        const started = await start(damaged);
        let missing = 0;
        let all = "";
        for (const [id, text] of rows) {
          const rowsLeft = await started.text(id) ?? "";
          all += rowsLeft;
          const left = rowsLeft.split("\n");
          const lines = text.split("\n");
          assert.deepEqual(left, lines.filter((line) => left.includes(line)), "in order, once");
          missing += lines.length - Math.max(1, left.length);
        }
        assert.equal(missing, 1, `byte ${at} of ${path}`);
        const keyed = [0, 1, 2, 3].map((round) => `b${round}`);
        assert.deepEqual(
          started.keys.toSorted(),
          keyed.filter((type) => all.includes(`"${type}"`)),
        );
        assert.ok(damaged.paths().some((each) => each.includes("/quarantine/")));
      }
    }
  });

  test("a file that is gone, cut short, or not ours costs its frames, and no start", async () => {
    const { files } = await threeFiles();
    const [first = "", second = "", last = ""] = journalFiles(files);
    const gone = copyOf(files);
    await gone.remove(second);
    gone.put(last, files.get(last)!.subarray(0, 700));
    gone.put(`${DATA}/journal/notes.txt`, "mine");
    const started = await start(gone);
    assert.equal(started.batches.length, 3);
    assert.deepEqual(
      gone.get(`${DATA}/quarantine/journal.notes.txt`),
      new TextEncoder().encode("mine"),
    );
    const missing = started.log.lines.filter(({ message }) =>
      /rows of a batch are missing/.test(message)
    );
    assert.ok(missing.length > 0, "what is not there is told");
    assert.ok(gone.get(first) !== null);
  });

  test("a file that cannot be read for want of something holds all batches back, not some rows of them", async () => {
    const { files, rows } = await threeFiles();
    const takeBack = files.fail({ on: "read", path: journalFiles(files)[1]!, code: "EMFILE" });
    assert.deepEqual((await start(files)).batches, []);
    takeBack();
    assert.equal((await start(files)).batches.length, rows.size);
  });

  test("what has left is not sent again, also not after a kill", async () => {
    const { files, spool } = await spoolKit();
    const chunks = ["a", "b"].map((table) => events(1, { table }));
    const [a, b] = chunks.map(openBatch) as [HeldBatch, HeldBatch];
    await Promise.all([submit(spool, a, chunks[0]!), submit(spool, b, chunks[1]!)]);
    spool.remove(a.id);
    await settle();
    assert.deepEqual((await start(files.crash("process"))).batches.map(({ id }) => id), [b.id]);
  });

  test("journal and segment of one batch are one; a segment that was only begun is none", async () => {
    for (const part of [1, 0.5, 0]) {
      const options = { fileBytes: 1000, memoryBytes: () => 1000 };
      const { files, spool } = await spoolKit(new FaultyFiles(), options);
      const chunk = events(5, { table: "stuck" });
      const stuck = openBatch(chunk);
      assert.equal(await submit(spool, stuck, chunk), null);
      stuck.close();
      const before = copyOf(files);
      for (let times = 0; segments(files).length === 0 && times < 50; times++) await pass(spool, 1);
      await settle();
      const [path = ""] = segments(files);
      before.put(path, files.get(path)!.subarray(0, files.get(path)!.length * part));
      const started = await start(before);
      assert.deepEqual(started.batches.map(({ id, rows }) => [id, rows]), [[stuck.id, 5]]);
      assert.equal(await started.text(stuck.id), textOf(chunk));
      assert.deepEqual(segments(before), [], "the journal has it, for certain");
      assert.deepEqual(before.paths().filter((each) => each.includes("/quarantine/")), []);
      started.spool.remove(stuck.id);
      await settle();
      await started.spool.close();
      assert.deepEqual([started.spool.bytes(), segments(before), journalFiles(before)], [
        0,
        [],
        [],
      ]);
    }
  });

  test("a data folder of 0.1, with segments alone, is taken over", async () => {
    const { files, spool } = await spoolKit();
    const chunk = events(4, { table: "old" });
    const batch = openBatch(chunk);
    await spill(spool, batch, chunk);
    await spool.close();
    assert.deepEqual(journalFiles(files), []);
    assert.equal(new TextDecoder().decode(files.get(`${DATA}/version`)!), "shishi spool 1\n");
    const started = await start(files);
    assert.equal(await started.text(batch.id), textOf(chunk));
    const fresh = events(1, { table: "new" });
    assert.equal(await submit(started.spool, openBatch(fresh), fresh), null);
    assert.deepEqual(framesIn(files), [textOf(fresh)]);
  });

  test("the journal of an orphaned spool is taken over whole, again and again", async () => {
    const files = new FaultyFiles();
    const log = memoryLog();
    const rows = new Map<string, string>();
    for (let times = 0; times < 3; times++) {
      const dataDir = `${DATA}/worker-1`;
      await openSpool({ files, dataDir, log });
      const { spool } = await start(files, dataDir);
      const chunk = events(2, { table: `t${times}` });
      const batch = openBatch(chunk);
      assert.equal(await submit(spool, batch, chunk), null);
      rows.set(batch.id, textOf(chunk));
      await spool.close();
      const hold = () => Promise.resolve({ release: () => Promise.resolve() });
      assert.equal((await takeOrphans({ files, dataDir: DATA, log }, hold)).ok, true);
    }
    const started = await start(files);
    for (const [id, text] of rows) assert.equal(await started.text(id), text);
    assert.equal(started.batches.length, 3);
    for (const id of rows.keys()) started.spool.remove(id);
    await settle();
    await started.spool.close();
    assert.deepEqual(journalFiles(files), []);
  });
});
