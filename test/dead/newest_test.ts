/** The newest letters and how many there are, without ever reading a large file whole. */

import assert from "node:assert/strict";
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { asideName, freshName, letterId } from "../../src/dead/letter.ts";
import { openJournal } from "../../src/dead/replay.ts";
import { DONE } from "../../src/kernel/result.ts";
import { uuid7 } from "../../src/kernel/names.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { batch, deadRows, lettersOf, storeOf, writerOf } from "./kit.ts";

const folders: string[] = [];
function folder(): string {
  folders.push(tempDir("newest"));
  return join(folders.at(-1)!, "data");
}
after(() => folders.forEach(removeDir));

/** As the collector does, with a count of the bytes that were read. */
function watching(dataDir: string) {
  let bytes = 0;
  const files: typeof nodeFiles = {
    ...nodeFiles,
    async readPart(path, from, to) {
      const part = await nodeFiles.readPart(path, from, to);
      bytes += part.bytes.length;
      return part;
    },
    read: (path) => assert.fail(`${path} is read whole`),
  };
  const store = storeOf(dataDir, files);
  return { newest: store.newest.bind(store), store, bytes: () => bytes };
}

async function bury(dataDir: string, id: string, rows: readonly string[], table = "t") {
  const dead = deadRows(...rows.keys());
  assert.equal(await writerOf({ dataDir }).write(batch(id, table), dead, rows), DONE);
}

/** As a replay or a full file does. */
function setAside(dataDir: string, table = "t") {
  const dead = join(dataDir, "dead");
  const name = asideName(freshName(table), uuid7(Date.now()));
  renameSync(join(dead, freshName(table)), join(dead, name));
  return name;
}

test("no folder, no letters", async () => {
  const { newest } = watching(folder());
  assert.deepEqual(await newest(null, 10), { letters: [], total: 0 });
});

test("the newest of all tables or of one, over all files, and how many there are", async () => {
  const dataDir = folder();
  const { newest } = watching(dataDir);
  const ids = async (table: string | null, limit: number) => {
    const { letters, total } = await newest(table, limit);
    return [letters.map(({ id }) => id).join(" "), total];
  };
  await bury(dataDir, "a", ["1", "2"]);
  setAside(dataDir);
  await new Promise((resolve) => setTimeout(resolve, 2));
  await bury(dataDir, "b", ["3"]);
  await new Promise((resolve) => setTimeout(resolve, 2));
  await bury(dataDir, "c", ["4", "5"], "u");
  assert.deepEqual(await ids(null, 10), ["c.1 c.0 b.0 a.1 a.0", 5]);
  assert.deepEqual(await ids(null, 2), ["c.1 c.0", 5]);
  assert.deepEqual(await ids("t", 2), ["b.0 a.1", 3]);
  assert.deepEqual(await ids("v", 2), ["", 0]);
  const [letter] = (await newest("t", 1)).letters;
  assert.equal(letter?.message, "bad 0 (at row 1)");
  assert.deepEqual([letter?.row, letter?.rowLength, letter?.code, letter?.shape], [
    "3",
    1,
    27,
    "row",
  ]);
  // Another file of the same name is counted afresh.
  setAside(dataDir);
  await bury(dataDir, "d", ["6", "7", "8"]);
  assert.deepEqual(await ids("t", 1), ["d.2", 6]);
  rmSync(join(dataDir, "dead", freshName("t")));
  assert.deepEqual(await ids("t", 1), ["b.0", 3]);
});

test("what a replay has stored is no letter any more", async () => {
  const dataDir = folder();
  await bury(dataDir, "a", ["1", "2", "3"]);
  const [first, , third] = await lettersOf(dataDir);
  const journal = await openJournal(
    { files: nodeFiles, folder: join(dataDir, "dead") },
    setAside(dataDir),
  );
  await journal.write({ sent: "one", letters: [[first!.batch, first!.index]] });
  await journal.write({ done: "one" });
  await journal.write({ sent: "two", letters: [[third!.batch, third!.index]] });
  await journal.close();
  const { letters, total } = await watching(dataDir).newest(null, 10);
  assert.deepEqual([letters.map(({ index }) => index), total], [[2, 1], 2]);
});

test("a large file is read at its end, and counted once", async () => {
  const dataDir = folder();
  const row = `{"s":"${"x".repeat(1000)}"}`;
  await bury(dataDir, "many", Array.from({ length: 4000 }, () => row));
  const { newest, bytes } = watching(dataDir);
  assert.equal((await newest(null, 3)).total, 4000);
  const first = bytes();
  assert.deepEqual((await newest(null, 3)).letters.map(letterId), [
    "many.3999",
    "many.3998",
    "many.3997",
  ]);
  assert.ok(bytes() - first < 200_000, `${bytes() - first} bytes for three letters`);
  await bury(dataDir, "more", ["1"]);
  assert.equal((await newest(null, 3)).total, 4001);
  assert.ok(bytes() - first < 400_000);
});

test("a long row is shown in part, and those behind it too", async () => {
  const dataDir = folder();
  await bury(dataDir, "a", ["1", `"${"é".repeat(300_000)}"`, "3"]);
  const { letters } = await watching(dataDir).newest(null, 3);
  assert.deepEqual(letters.map(({ index, rowLength }) => [index, rowLength]), [
    [2, 1],
    [1, 300_002],
    [0, 1],
  ]);
  assert.ok(letters[1]!.row.length < 10_000 && letters[1]!.row.endsWith("é…"));
});

test("whatever the letters are, the newest are those that come last", async () => {
  const rows = fc.array(fc.nat({ max: 90_000 }), { minLength: 1, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(rows, fc.integer({ min: 1, max: 13 }), async (lengths, limit) => {
      const dataDir = folder();
      await bury(dataDir, "a", lengths.map((length) => "x".repeat(length)));
      const { letters, total } = await watching(dataDir).newest(null, limit);
      const wanted = lengths.map((length, index) => [index, length]).reverse().slice(0, limit);
      assert.deepEqual(letters.map(({ index, rowLength }) => [index, rowLength]), wanted);
      assert.equal(total, lengths.length);
    }),
    { numRuns: 15 },
  );
});
