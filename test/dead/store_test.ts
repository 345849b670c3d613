/** Dead letters on disk: setting them aside, reducing files, the journal of replays. */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { journalName, type Letter, LetterSet, replayId } from "../../src/dead/letter.ts";
import { openJournal } from "../../src/dead/replay.ts";
import { replayedOf } from "../../src/dead/store.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { batch, deadRows, idsOf, namesIn, setAside, storeOf, textOf, writerOf } from "./kit.ts";

const folders: string[] = [];
function folder(): string {
  folders.push(tempDir("letterbox"));
  return join(folders.at(-1)!, "data");
}
after(() => folders.forEach(removeDir));

describe("taking", () => {
  test("nothing is there: nothing is taken, nothing is made", async () => {
    const dataDir = folder();
    assert.deepEqual(await storeOf(dataDir).tables(), []);
    assert.deepEqual(await setAside(dataDir), []);
    assert.deepEqual(await storeOf(dataDir).visit("t", () => {}), { bytes: 0, damaged: 0 });
  });

  test("new letters go to a fresh file; both are read, the older first", async () => {
    const dataDir = folder();
    const letters = writerOf({ dataDir });
    await letters.write(batch("a"), deadRows(0), ["{}"]);
    const [aside, ...more] = await setAside(dataDir);
    assert.deepEqual(more, []);
    await letters.write(batch("b"), deadRows(0), ["{}"]);
    await letters.write(batch("c", "other"), deadRows(0), ["{}"]);
    assert.deepEqual(namesIn(dataDir), ["other.ndjson", aside, "t.ndjson"].sort());
    assert.deepEqual(await storeOf(dataDir).tables(), ["other", "t"]);
    assert.deepEqual(await idsOf(dataDir), ["a 0", "b 0"]);
    assert.equal((await setAside(dataDir)).length, 2);
    assert.equal((await storeOf(dataDir).read(aside!)).lines.length, 1);
  });
});

describe("reducing", () => {
  test("keeps the chosen lines byte for byte, also those that cannot be read", async () => {
    const dataDir = folder();
    await writerOf({ dataDir }).write(batch("a"), deadRows(0, 1, 2), ["{}", '{"é":1}', "{}"]);
    const lines = textOf(dataDir).split("\n");
    writeFileSync(join(dataDir, "dead/t.ndjson"), `${lines[0]}\nnoise\n\n${lines[1]}\n${lines[2]}`);
    const [name] = await setAside(dataDir);
    const store = storeOf(dataDir);
    const file = await store.read(name!);
    await store.reduce(file, ({ letter }) => letter?.index !== 0, "goes");
    assert.equal(textOf(dataDir, name), `noise\n${lines[1]}\n${lines[2]}\n`);
    assert.equal((await store.visit("t", () => {})).damaged, 1);
    await store.reduce(await store.read(name!), () => false, "goes");
    assert.deepEqual(namesIn(dataDir), []);
  });

  test("a half-written replacement of an earlier try is no hindrance, and no letters", async () => {
    const dataDir = folder();
    await writerOf({ dataDir }).write(batch("a"), deadRows(0, 1), ["{}", "{}"]);
    const [name] = await setAside(dataDir);
    writeFileSync(join(dataDir, `dead/${name}.tmp`), textOf(dataDir, name).slice(0, 50));
    assert.deepEqual(await idsOf(dataDir), ["a 0", "a 1"]);
    const store = storeOf(dataDir);
    await store.reduce(await store.read(name!), ({ letter }) => letter?.index === 1, "goes");
    assert.deepEqual(await idsOf(dataDir), ["a 1"]);
    assert.deepEqual(namesIn(dataDir), [name]);
  });
});

describe("the journal", () => {
  const letter = (index: number): Letter => ({
    time: "2026-01-01T00:00:00.000Z",
    table: "t",
    shape: "row",
    batch: "b",
    index,
    code: 27,
    error: "e",
    row: "{}",
  });

  const journalOf = (dataDir: string, name: string) =>
    openJournal({ files: nodeFiles, folder: join(dataDir, "dead") }, name);
  const sent = (id: string, ...letters: Letter[]) => ({
    sent: id,
    letters: letters.map(({ batch, index }) => [batch, index] as const),
  });

  async function written(): Promise<{ dataDir: string; name: string; path: string }> {
    const dataDir = folder();
    mkdirSync(join(dataDir, "dead"), { recursive: true });
    const name = "t.0190a5a0-0000-7000-8000-000000000000.ndjson";
    const journal = await journalOf(dataDir, name);
    await journal.write(sent("one", letter(0), letter(1)));
    await journal.write({ done: "one" });
    await journal.write(sent("two", letter(2)));
    await journal.write({ refused: "two" });
    await journal.write(sent("three", letter(3), letter(4)));
    await journal.close();
    return { dataDir, name, path: join(dataDir, "dead", journalName(name)) };
  }

  const states = (text: string) => {
    const { done, open } = replayedOf(text);
    return {
      done: [0, 1, 2, 3, 4].filter((index) => done.has({ batch: "b", index })),
      open: open.map(({ id }) => id),
    };
  };

  test("tells what is done and what is open", async () => {
    const { path } = await written();
    const text = readFileSync(path, "utf8");
    assert.deepEqual(states(text), { done: [0, 1], open: ["three"] });
    assert.deepEqual(replayedOf(text).open[0]?.places, [["b", 3], ["b", 4]]);
  });

  test("torn at any byte: at most the torn entry is missing, and the next one is whole", async () => {
    const { path, dataDir, name } = await written();
    const text = readFileSync(path, "utf8");
    for (let length = 0; length < text.length; length++) {
      const found = states(text.slice(0, length));
      // What was done stays done once it was written whole.
      if (length > text.indexOf('"done":"one"}') + 13) assert.deepEqual(found.done, [0, 1]);
      assert.ok(found.done.length === 0 || found.done.length === 2);
    }
    writeFileSync(path, text.slice(0, -4));
    const journal = await journalOf(dataDir, name);
    await journal.write(sent("four", letter(4)));
    await journal.close();
    assert.deepEqual(states(readFileSync(path, "utf8")).open, ["four"]);
  });

  test("letters that are done are not read any more", async () => {
    const dataDir = folder();
    await writerOf({ dataDir }).write(batch("b"), deadRows(0, 1, 2), ["{}", "{}", "{}"]);
    const [name] = await setAside(dataDir);
    const journal = await journalOf(dataDir, name!);
    await journal.write(sent("one", letter(0), letter(2)));
    assert.deepEqual(await idsOf(dataDir), ["b 0", "b 1", "b 2"]);
    await journal.write({ done: "one" });
    await journal.close();
    assert.deepEqual(await idsOf(dataDir), ["b 1"]);
  });

  test("the id of letters: the same for the same, another for other rows, places, tables", () => {
    const ids = [
      replayId("t", [letter(0), letter(1)]),
      replayId("t", [letter(1), letter(0)]),
      replayId("t", [letter(0)]),
      replayId("u", [letter(0), letter(1)]),
      replayId("t", [letter(0), { ...letter(1), row: '{"n":1}' }]),
      replayId("t", [letter(0), { ...letter(1), shape: "event" }]),
    ];
    assert.equal(new Set(ids).size, ids.length);
    assert.equal(replayId("t", [letter(0), letter(1)]), ids[0]);
    for (const id of ids) {
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
  });
});

test("a set of letters counts each once", () => {
  const set = new LetterSet();
  assert.equal(set.add({ batch: "a", index: 1 }), true);
  assert.equal(set.add({ batch: "a", index: 1 }), false);
  assert.equal(set.add({ batch: "a", index: 2 }), true);
  assert.ok(set.has({ batch: "a", index: 2 }) && !set.has({ batch: "b", index: 2 }));
  assert.equal(set.size, 2);
});
