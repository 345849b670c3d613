/** The spool on a disk in memory that fails as told, and on the real one. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, test } from "node:test";
import { openSpool } from "../../src/spool/data_dir.ts";
import type { Batch, Spool } from "../../src/contracts.ts";
import { readFrames } from "../../src/spool/frame.ts";
import { journalNumber } from "../../src/spool/journal.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { chunkOf, events, memoryLog, rowOfBytes } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { settle } from "../kit/manual_clock.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import {
  DATA,
  framesIn,
  groupsIn,
  journalFiles,
  openBatch,
  segments,
  spill,
  spoolIn,
  spoolKit,
  submit as submitTo,
} from "../batch/spool_kit.ts";

/** How often an operation was begun. */
function times(files: FaultyFiles, operation: string): number {
  return files.trace.filter((line) => line.startsWith(`${operation} `)).length;
}

function textOf(...chunks: readonly { readonly body: Uint8Array }[]): string {
  return Buffer.concat(chunks.map(({ body }) => body)).toString();
}

/** Throws where the disk does not give them back. */
async function read(spool: Spool, batch: Batch): Promise<{ body: Uint8Array }[]> {
  const rows = await spool.read(batch);
  if (!rows.ok) throw new Error(rows.problem);
  return rows.value.map((body) => ({ body }));
}

describe("group commit", () => {
  test("requests that come while a sync runs share the next one", async () => {
    const { files, gate, submit } = await spoolKit();
    const chunks = Array.from({ length: 20 }, () => events(2));
    const batch = openBatch(chunks[0]!);
    gate.shut = true;
    const first = [submit(batch, chunks[0]!), submit(batch, chunks[1]!)];
    while (times(files, "sync") === 0) {
      await settle();
      gate.release(0);
    }
    const later = chunks.slice(2).map((chunk) => submit(batch, chunk));
    gate.open();
    assert.deepEqual(await Promise.all([...first, ...later]), chunks.map(() => null));
    assert.equal(times(files, "sync"), 2);
    assert.deepEqual(framesIn(files), [
      textOf(...chunks.slice(0, 2)),
      textOf(...chunks.slice(2)),
    ]);
    batch.close();
    assert.equal(Buffer.concat(batch.body).toString(), textOf(...chunks));
  });

  test("however many batches get rows in a round: one write, one sync", async () => {
    const { files, submit } = await spoolKit();
    const chunks = Array.from({ length: 200 }, (_, at) => events(1, { table: `t${at}` }));
    const batches = chunks.map(openBatch);
    for (const round of [1, 2]) {
      files.trace.length = 0;
      const told = await Promise.all(chunks.map((chunk, at) => submit(batches[at]!, chunk)));
      assert.deepEqual(told, chunks.map(() => null));
      assert.deepEqual([times(files, "write"), times(files, "sync")], [1, 1], `round ${round}`);
    }
    assert.equal(framesIn(files).length, 400);
    assert.equal(journalFiles(files).length, 1);
  });

  test("what was written before without a sync is safe with the next rows, or all of it is not", async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const { files, spool, submit } = await spoolKit(new FaultyFiles(seed));
      const chunks = ["a", "b", "c"].map((table) => events(2, { table }));
      const [stored, held, next] = chunks.map(openBatch);
      assert.equal(await submit(stored!, chunks[0]!), null);
      assert.equal(await submit(held!, chunks[1]!), null);
      spool.remove(stored!.id);
      await settle();
      assert.equal(await submit(next!, chunks[2]!), null);
      const [path = ""] = journalFiles(files);
      const left = files.crash("power").get(path)!;
      const { live, bad } = readFrames(left, journalNumber(basename(path))!);
      assert.deepEqual(bad, [], `seed ${seed}`);
      assert.deepEqual(live.flatMap((each) => "settled" in each ? each.settled : []), [stored!.id]);
    }
  });

  for (const first of [0, 1]) {
    const order = first === 0 ? "before" : "after";
    test(`the answer comes after the sync, for a new file also after its folder's, ${order} it`, async () => {
      const { files, gate, submit } = await spoolKit();
      const chunk = events(1);
      const batch = openBatch(chunk);
      for (
        const steps of [
          [
            ["makeFolder"],
            ["syncFolder"],
            ["list"],
            ["overwrite"],
            ["sync", "syncFolder"],
          ],
          [["sync"]],
        ]
      ) {
        files.trace.length = 0;
        gate.shut = true;
        let told = false;
        const answer = submit(batch, chunk).then(() => told = true);
        for (const together of steps) {
          for (let left = together.length; left > 0; left--) {
            await settle();
            assert.equal(told, false, `told before ${together}`);
            assert.equal(gate.waiting, left);
            gate.release(first);
          }
        }
        await answer;
        const done = files.trace.map((line) => line.split(" ")[0]);
        // What is synced is written in the same call.
        assert.deepEqual(done.toSorted(), ["write", ...steps.flat()].toSorted());
      }
    });
  }
});

describe("a disk that fails", () => {
  for (const on of ["makeFolder", "list", "overwrite", "write", "sync", "syncFolder"] as const) {
    test(`at ${on}: that round is refused, and the next one taken`, async () => {
      const { files, spool, submit } = await spoolKit();
      const chunks = ["a", "b"].map((table) => events(2, { table }));
      files.fail({ on, path: on === "syncFolder" ? "journal" : "", code: "EIO" });
      const batches = chunks.map(openBatch);
      for (const told of await Promise.all(batches.map((each, at) => submit(each, chunks[at]!)))) {
        assert.match(told ?? "", /EIO/);
      }
      for (const batch of batches) {
        batch.close();
        assert.equal(batch.rows, 0);
        spool.remove(batch.id);
      }
      await settle();
      assert.deepEqual([spool.bytes(), framesIn(files)], [0, []]);
      const others = chunks.map(openBatch);
      assert.deepEqual(
        await Promise.all(others.map((each, at) => submit(each, chunks[at]!))),
        [null, null],
        "the next round is taken",
      );
      assert.equal(spool.trouble(), null);
      assert.deepEqual(framesIn(files), chunks.map((chunk) => textOf(chunk)));
      assert.ok(journalFiles(files).length <= 2);
    });
  }

  for (const code of ["EIO", "ENOSPC"]) {
    test(`${code} again and again: files do not gather, and what is kept stays`, async () => {
      const { files, submit } = await spoolKit();
      const chunk = events(2);
      assert.equal(await submit(openBatch(chunk), chunk), null);
      const heal = files.fail({ on: ["write", "sync"], code, times: Infinity });
      for (let round = 0; round < 30; round++) {
        assert.match((await submit(openBatch(chunk), chunk)) ?? "", new RegExp(code));
      }
      heal();
      assert.ok(journalFiles(files).length <= 2, journalFiles(files).join());
      assert.equal(await submit(openBatch(chunk), chunk), null);
      assert.equal(framesIn(files).length, 2);
    });
  }

  test("of two syncs at once: the round is void and its file closed when both are over", async () => {
    const { files, gate, submit } = await spoolKit();
    const chunk = events(1);
    const batch = openBatch(chunk);
    gate.shut = true;
    const told = submit(batch, chunk);
    while (gate.changes.length < 2) {
      gate.release(0);
      await settle();
    }
    assert.deepEqual(gate.changes, ["sync", "syncFolder"]);
    files.fail({ on: "syncFolder", code: "EIO" });
    gate.release(1);
    await settle();
    assert.deepEqual(gate.changes, ["sync"]);
    gate.open();
    assert.match((await told) ?? "", /EIO/);
    assert.deepEqual(framesIn(files), []);
    assert.deepEqual([...gate.handles], []);
  });

  test("what waits behind a failed round is told the same reason, of whatever batch", async () => {
    const { files, gate, spool, submit } = await spoolKit();
    const chunk = events(1);
    const batch = openBatch(chunk);
    const other = events(2, { table: "other" });
    const others = openBatch(other);
    assert.equal(await submit(batch, chunk), null);
    files.fail({ on: "write", code: "ENOSPC", written: 20 });
    gate.shut = true;
    const first = submit(batch, chunk);
    await settle();
    const second = [submit(batch, chunk), submit(others, other)];
    gate.open();
    assert.match((await first) ?? "", /ENOSPC/);
    assert.deepEqual(await Promise.all(second), [await first, await first]);
    assert.match(spool.trouble() ?? "", /ENOSPC/);
    assert.deepEqual(framesIn(files), [textOf(chunk)]);
    // They take none any more, also where the disk does again.
    assert.deepEqual(await Promise.all([submit(batch, chunk), submit(others, other)]), [
      await first,
      await first,
    ]);
    assert.equal(await submit(openBatch(other), other), null);
    assert.deepEqual(framesIn(files), [textOf(chunk), textOf(other)]);
  });

  test("rows that were refused never come back, not even after a power cut", async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const { files, submit } = await spoolKit(new FaultyFiles(seed));
      const [kept, refused] = [events(2), events(3)];
      const batch = openBatch(kept);
      assert.equal(await submit(batch, kept), null);
      files.fail({ on: "sync", code: "EIO" });
      assert.match((await submit(batch, refused)) ?? "", /EIO/);
      const found = files.crash(seed % 2 === 0 ? "power" : "process");
      assert.deepEqual(framesIn(found), [textOf(kept)], `seed ${seed}`);
    }
  });

  test("nor those of a longer round that a shorter one was written over", async () => {
    const { files, submit } = await spoolKit();
    const kept = events(1);
    const long = Array.from({ length: 9 }, (_, at) => events(3, { table: `t${at}` }));
    assert.equal(await submit(openBatch(kept), kept), null);
    files.fail({ on: "sync", code: "EIO" });
    for (const told of await Promise.all(long.map((chunk) => submit(openBatch(chunk), chunk)))) {
      assert.match(told ?? "", /EIO/);
    }
    assert.ok(files.get(journalFiles(files)[0]!)!.length > 9 * 300, "they are there");
    assert.deepEqual(framesIn(files), [textOf(kept)]);
  });

  for (const home of ["journal", "segment"]) {
    test(`a ${home} that is spoiled while it waits is not sent in part`, async () => {
      const { files, spool, log, submit } = await spoolKit();
      const chunk = events(5);
      const batch = openBatch(chunk);
      if (home === "segment") await spill(spool, batch, chunk);
      else {
        await submit(batch, chunk);
        batch.close();
      }
      const [path = ""] = home === "segment" ? segments(files) : journalFiles(files);
      const bytes = files.get(path)!;
      files.put(
        path,
        bytes.map((byte, at) => at === (home === "segment" ? 3 : 250) ? byte ^ 1 : byte),
      );
      assert.equal((await spool.read(batch)).ok, false);
      assert.ok(log.lines.some(({ level, fields }) => level === "error" && fields.file === path));
      files.put(path, bytes);
      assert.equal(textOf(...await read(spool, batch)), textOf(chunk));
    });
  }

  test("a probe finds out that it is well again, without rows, and makes folders anew", async () => {
    const { files, spool, submit } = await spoolKit();
    const chunk = events(1);
    const batch = openBatch(chunk);
    await submit(batch, chunk);
    files.deleteTree(DATA);
    assert.match((await submit(batch, chunk)) ?? "", /ENOENT/);
    files.readOnly = true;
    await spool.probe();
    assert.match(spool.trouble() ?? "", /EROFS/);
    files.readOnly = false;
    await spool.probe();
    assert.equal(spool.trouble(), null);
    assert.ok(files.get(`${DATA}/version`) !== null, "rows never lie there without a version");
    const found = files.crash("power");
    assert.deepEqual(found.paths(), [`${DATA}/version`], "and no probe is left");
  });
});

describe("bytes and files", () => {
  test("the bytes of all that is held, until it is gone", async () => {
    const { files, spool, submit } = await spoolKit();
    const chunks = [1, 2, 3].map((rows) => events(rows, { table: `t${rows}` }));
    const batches = chunks.map(openBatch);
    const total = (paths: readonly string[]) =>
      paths.reduce((sum, path) => sum + files.get(path)!.length, 0);
    for (const round of [1, 2]) {
      await Promise.all(batches.map((batch, at) => submit(batch, chunks[at]!)));
      assert.equal(spool.bytes(), total(journalFiles(files)), `round ${round}`);
    }
    const whole = events(4);
    const spilled = openBatch(whole);
    await spill(spool, spilled, whole);
    assert.equal(spool.bytes(), total([...journalFiles(files), ...segments(files)]));
    for (const batch of [...batches, spilled]) {
      const before = spool.bytes();
      spool.remove(batch.id);
      assert.ok(spool.bytes() <= before);
      await settle();
      spool.remove(batch.id);
      await settle();
    }
    assert.deepEqual([segments(files), spool.bytes()], [[], 0]);
    await spool.close();
    assert.deepEqual(journalFiles(files), [], "a journal of nothing is nothing");
  });

  test("a file that the disk keeps counts, and goes when the disk lets it", async () => {
    const { files, spool } = await spoolKit();
    const batches = [];
    for (let at = 0; at < 3; at++) {
      const chunk = events(1);
      const batch = openBatch(chunk);
      await spill(spool, batch, chunk);
      batches.push(batch);
    }
    const [first, second, third] = batches as [
      typeof batches[0],
      typeof batches[0],
      typeof batches[0],
    ];
    files.fail({ on: "remove", code: "EIO", times: 2 });
    spool.remove(first.id);
    await settle();
    spool.remove(second.id);
    await settle();
    assert.equal(segments(files).length, 3);
    assert.ok(spool.bytes() > 0);
    spool.remove(third.id);
    await settle();
    assert.deepEqual([segments(files), spool.bytes()], [[], 0]);
  });

  test("a file that the disk kept goes with a probe, though no other one does", async () => {
    const { files, spool } = await spoolKit();
    const chunk = events(1);
    const batch = openBatch(chunk);
    await spill(spool, batch, chunk);
    files.fail({ on: "remove", code: "EIO" });
    spool.remove(batch.id);
    await settle();
    assert.equal(segments(files).length, 1);
    await spool.probe();
    assert.deepEqual([segments(files), spool.bytes()], [[], 0]);
  });

  test("a batch sealed without a write leaves no file open beyond the next round", async () => {
    const { gate, spool, submit } = await spoolKit();
    for (let at = 0; at < 50; at++) {
      const chunk = events(1);
      const batch = openBatch(chunk);
      await submit(batch, chunk);
      batch.close();
    }
    await settle();
    assert.ok(gate.handles.size <= 1, `${gate.handles.size} files are open`);
    await spool.close();
    assert.equal(gate.handles.size, 0);
  });

  test("a batch that is written whole, and one whose rows leave meanwhile", async () => {
    const { files, gate, spool } = await spoolKit();
    const chunk = chunkOf([{ eventType: "a" }, { eventType: "b" }]);
    for (let releases = 0; releases < 8; releases++) {
      const batch = openBatch(chunk);
      batch.commit(batch.reserve(chunk, 0));
      batch.close();
      gate.shut = true;
      const written = spool.write(batch);
      for (let times = 0; times < releases; times++) {
        await settle();
        gate.release(0);
      }
      if (releases > 0) spool.remove(batch.id);
      await settle();
      gate.open();
      assert.deepEqual(await written, { ok: true, value: undefined });
      await settle();
      if (releases > 0) continue;
      const [path = ""] = segments(files);
      assert.deepEqual(groupsIn(files, path), [textOf(chunk)]);
      assert.equal(spool.write(batch), null, "it can be read back already");
    }
    assert.equal(segments(files).length, 1, "the one that waits");
    assert.equal(spool.bytes(), files.get(segments(files)[0]!)!.length);
    assert.equal(gate.handles.size, 0);
  });

  test("of a batch whose file was removed under us: told, until it is written again", async () => {
    const { files, gate, spool } = await spoolKit();
    const chunks = ["a", "b"].map((table) => events(1, { table }));
    const batches = chunks.map(openBatch);
    for (const [at, batch] of batches.entries()) {
      await spill(spool, batch, chunks[at]!);
    }
    const [a = openBatch(chunks[0]!), b = openBatch(chunks[1]!)] = batches;
    const [fileOfA = "", fileOfB = ""] = segments(files);
    files.deleteTree(`${DATA}/spool/a`);
    assert.deepEqual(await spool.probe(), [], "nobody has missed it yet");
    assert.equal((await spool.read(a)).ok, false);
    assert.deepEqual(await spool.probe(), [{ id: a.id, file: fileOfA }]);
    assert.equal(spool.bytes(), files.get(fileOfB)!.length);
    assert.equal((await spool.read(a)).ok, false);
    files.deleteTree(`${DATA}/spool/b`);
    gate.shut = true;
    const probed = spool.probe();
    // The folder of the first has been looked at, that of the second not yet.
    while (gate.waiting > 0 && !/^list .*spool$/.test(files.trace.at(-1)!)) {
      gate.release(0);
      await settle();
    }
    const written = spool.write(a);
    assert.notEqual(written, null);
    gate.open();
    assert.equal((await written)?.ok, true);
    assert.deepEqual(await probed, [{ id: b.id, file: fileOfB }]);
    assert.deepEqual(segments(files), [fileOfA]);
    assert.equal(textOf(...await read(spool, a)), textOf(chunks[0]!));
    spool.remove(a.id);
    spool.remove(b.id);
    await settle();
    assert.deepEqual([segments(files), spool.bytes()], [[], 0]);
  });
});

test("a batch that grows while its file is removed: refused, told, and written anew whole", async () => {
  const { files, gate, spool, submit } = await spoolKit();
  const [first, second] = [events(2), events(3)];
  const batch = openBatch(first);
  assert.equal(await submit(batch, first), null);
  const [path = ""] = journalFiles(files);
  files.deleteTree(`${DATA}/journal`);
  assert.equal((await spool.read(batch)).ok, false);
  assert.deepEqual(await spool.probe(), [{ id: batch.id, file: path }]);
  assert.match((await submit(batch, second)) ?? "", /ENOENT/);
  batch.close();
  assert.equal(batch.rows, 2);
  assert.equal((await spool.write(batch))?.ok, true);
  await settle();
  assert.equal(segments(files).length, 1, "the new file is not removed for the old one");
  assert.equal(textOf(...await read(spool, batch)), textOf(first));
  spool.remove(batch.id);
  await spool.close();
  assert.deepEqual([segments(files), spool.bytes(), gate.handles.size], [[], 0, 0]);
});

test("on the real disk files are 0600 and folders 0700", async () => {
  const folder = tempDir("spool");
  try {
    const place = { files: nodeFiles, dataDir: join(folder, "data"), log: memoryLog() };
    assert.equal((await openSpool(place)).ok, true);
    const chunk = events(3, { table: "t" });
    const batch = openBatch(chunk);
    const spool = spoolIn(place);
    assert.equal(await submitTo(spool, batch, chunk), null);
    const paths = readdirSync(place.dataDir, { recursive: true, encoding: "utf8" });
    assert.ok(paths.some((path) => path.endsWith(".ndjson")));
    for (const path of ["", ...paths]) {
      const { mode } = statSync(join(place.dataDir, path));
      assert.equal(mode & 0o777, (mode & 0o40000) === 0 ? 0o600 : 0o700, path);
    }
    batch.close();
    assert.equal(textOf(...await read(spool, batch)), textOf(chunk));
    spool.remove(batch.id);
    await spool.close();
    assert.equal(spool.bytes(), 0);
  } finally {
    removeDir(folder);
  }
});

describe("many tables at once", () => {
  /** Batches of these tables got rows in each of so many rounds. */
  async function filled(tables: number, rounds: number) {
    const kit = await spoolKit();
    let readBytes = 0;
    const readPart = kit.gate.readPart.bind(kit.gate);
    kit.gate.readPart = (path, from, to) => {
      readBytes += to - from;
      return readPart(path, from, to);
    };
    const chunks = Array.from(
      { length: tables },
      (_, at) => rowOfBytes(1000, { table: `t${at}` }),
    );
    const batches = chunks.map(openBatch);
    for (let round = 0; round < rounds; round++) {
      const told = chunks.map((chunk, at) => kit.submit(batches[at]!, chunk));
      assert.ok((await Promise.all(told)).every((problem) => problem === null));
    }
    for (const batch of batches) batch.close();
    const text = textOf(...batches[1]!.body.map((body) => ({ body })));
    return { ...kit, batch: batches[1]!, text, readBytes: () => readBytes };
  }

  test("a batch in many small pieces is written whole when memory lets it go", async () => {
    const { spool, files, batch, text, readBytes } = await filled(40, 40);
    const before = spool.bytes();
    assert.equal((await spool.write(batch))?.ok, true);
    assert.deepEqual([segments(files).length, spool.write(batch)], [1, null]);
    assert.ok(spool.bytes() < before, "its frames are needed no more");
    assert.equal(readBytes(), 0);
    assert.equal(textOf(...await read(spool, batch)), text);
  });

  test("unless the disk takes nothing; what is read then is little more than its rows", async () => {
    const { spool, files, submit, batch, text, readBytes } = await filled(40, 40);
    files.fail({ on: ["write", "create"], code: "ENOSPC", times: Infinity });
    const more = events(1);
    assert.match((await submit(openBatch(more), more)) ?? "", /ENOSPC/);
    assert.equal(spool.write(batch), null);
    assert.equal(textOf(...await read(spool, batch)), text);
    assert.ok(readBytes() < 1.5 * text.length, `${readBytes()} of ${text.length}`);
  });

  for (const [tables, rounds] of [[2, 40], [40, 10]] as const) {
    test(`${rounds} pieces beside those of ${tables - 1}: it can be read as it is`, async () => {
      const { spool, files, batch, text } = await filled(tables, rounds);
      assert.equal(spool.write(batch), null);
      assert.deepEqual(segments(files), []);
      assert.equal(textOf(...await read(spool, batch)), text);
    });
  }
});
