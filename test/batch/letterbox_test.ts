/** The commands' side of dead letters: taking them away beside a writer, reducing files, the journal. */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import { type Letter, LetterSet, replayId } from "../../src/dead/letter.ts";
import { createLetterbox } from "../../src/dead/letterbox.ts";
import { journalName, openJournal, replayedOf } from "../../src/dead/replayed.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import {
  batch,
  boxOf,
  deadRows,
  idsOf,
  lettersIn,
  namesIn,
  textOf,
  watched,
} from "./letters_kit.ts";

const folders: string[] = [];
function folder(): string {
  folders.push(tempDir("letterbox"));
  return join(folders.at(-1)!, "data");
}
after(() => folders.forEach(removeDir));

async function taken(dataDir: string, table = "t"): Promise<readonly string[]> {
  const names = await boxOf(dataDir).take(table);
  assert.ok(!("problem" in names), JSON.stringify(names));
  return names;
}

describe("taking", () => {
  test("nothing is there: nothing is taken, nothing is made", async () => {
    const dataDir = folder();
    assert.deepEqual(await boxOf(dataDir).tables(), []);
    assert.deepEqual(await taken(dataDir), []);
    assert.deepEqual(await boxOf(dataDir).visit("t", () => {}), { bytes: 0, damaged: 0 });
  });

  test("new letters go to a fresh file; both are read, the older first", async () => {
    const dataDir = folder();
    const letters = lettersIn({ dataDir });
    await letters.bury(batch("a"), deadRows(0), ["{}"]);
    const [aside, ...more] = await taken(dataDir);
    assert.deepEqual(more, []);
    await letters.bury(batch("b"), deadRows(0), ["{}"]);
    await letters.bury(batch("c", "other"), deadRows(0), ["{}"]);
    assert.deepEqual(namesIn(dataDir), ["other.ndjson", aside, "t.ndjson"].sort());
    assert.deepEqual(await boxOf(dataDir).tables(), ["other", "t"]);
    assert.deepEqual(await idsOf(dataDir), ["a 0", "b 0"]);
    assert.equal((await taken(dataDir)).length, 2);
    assert.equal((await boxOf(dataDir).read(aside!)).lines.length, 1);
  });

  test("waits for whoever is writing, so that no line comes after it was read", async () => {
    const dataDir = folder();
    let release = () => {};
    const held = new Promise<void>((resolve) => release = resolve);
    let writing = false;
    const files = watched(async (operation) => {
      if (operation !== "write") return;
      writing = true;
      await held;
    });
    const burying = lettersIn({ dataDir, files }).bury(batch("a"), deadRows(0), ["{}"]);
    await eventually(() => assert.ok(writing), { withinMs: 5_000, everyMs: 1 });
    let over = false;
    const taking = taken(dataDir).finally(() => over = true);
    await pause(60);
    assert.equal(over, false);
    release();
    assert.equal(await burying, "kept");
    const [name] = await taking;
    assert.equal((await boxOf(dataDir).read(name!)).lines.length, 1);
  });

  test("a mark that stays: a problem that says which file it is, and nothing is lost", async () => {
    const dataDir = folder();
    await lettersIn({ dataDir }).bury(batch("a"), deadRows(0), ["{}"]);
    writeFileSync(join(dataDir, "dead/.burying-x"), "");
    const clock = new ManualClock();
    const taking = createLetterbox({ files: nodeFiles, dataDir, clock }).take("t");
    const told = taking.then((answer) => (answer as { problem: string }).problem);
    let done = false;
    void taking.finally(() => done = true);
    await eventually(async () => {
      await clock.advance(1_000);
      assert.ok(done);
    }, { withinMs: 5_000, everyMs: 5 });
    assert.match(await told, /\.burying-x/);
    assert.deepEqual(await idsOf(dataDir), ["a 0"]);
  });

  test("beside a writer, at any pace: every kept letter is met exactly once", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 200 }), async (ms) => {
        const dataDir = folder();
        const delays = [...ms];
        const files = watched(async () => {
          const delayMs = delays.shift() ?? 0;
          if (delayMs > 0) await pause(delayMs - 1);
        });
        const letters = lettersIn({ dataDir, files });
        let writing = true;
        const kept: string[] = [];
        const writer = (async () => {
          for (let n = 0; n < 12; n++) {
            assert.equal(await letters.bury(batch(`b${n}`), deadRows(0, 1), ["{}", "{}"]), "kept");
            kept.push(`b${n} 0`, `b${n} 1`);
          }
          writing = false;
        })();
        const found: string[] = [];
        for (let last = false; !last;) {
          last = !writing;
          const box = boxOf(dataDir, files);
          const names = await box.take("t");
          assert.ok(!("problem" in names));
          for (const name of names) {
            const file = await box.read(name);
            for (const { letter } of file.lines) found.push(`${letter?.batch} ${letter?.index}`);
            await box.reduce(file, () => false);
          }
        }
        await writer;
        assert.deepEqual(found.sort(), kept.sort());
        removeDir(dataDir);
      }),
      { numRuns: 15 },
    );
  });
});

describe("reducing", () => {
  test("keeps the chosen lines byte for byte, also those that cannot be read", async () => {
    const dataDir = folder();
    await lettersIn({ dataDir }).bury(batch("a"), deadRows(0, 1, 2), ["{}", '{"é":1}', "{}"]);
    const lines = textOf(dataDir).split("\n");
    writeFileSync(join(dataDir, "dead/t.ndjson"), `${lines[0]}\nnoise\n\n${lines[1]}\n${lines[2]}`);
    const [name] = await taken(dataDir);
    const box = boxOf(dataDir);
    const file = await box.read(name!);
    await box.reduce(file, ({ letter }) => letter?.index !== 0);
    assert.equal(textOf(dataDir, name), `noise\n${lines[1]}\n${lines[2]}\n`);
    assert.equal((await box.visit("t", () => {})).damaged, 1);
    await box.reduce(await box.read(name!), () => false);
    assert.deepEqual(namesIn(dataDir), []);
  });

  test("a half-written replacement of an earlier try is no hindrance, and no letters", async () => {
    const dataDir = folder();
    await lettersIn({ dataDir }).bury(batch("a"), deadRows(0, 1), ["{}", "{}"]);
    const [name] = await taken(dataDir);
    writeFileSync(join(dataDir, `dead/${name}.tmp`), textOf(dataDir, name).slice(0, 50));
    assert.deepEqual(await idsOf(dataDir), ["a 0", "a 1"]);
    const box = boxOf(dataDir);
    await box.reduce(await box.read(name!), ({ letter }) => letter?.index === 1);
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

  async function written(): Promise<{ dataDir: string; name: string; path: string }> {
    const dataDir = folder();
    mkdirSync(join(dataDir, "dead"), { recursive: true });
    const name = "t.0190a5a0-0000-7000-8000-000000000000.ndjson";
    const journal = await openJournal(nodeFiles, dataDir, name);
    await journal.sent("one", [letter(0), letter(1)]);
    await journal.done("one");
    await journal.sent("two", [letter(2)]);
    await journal.refused("two");
    await journal.sent("three", [letter(3), letter(4)]);
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
    const journal = await openJournal(nodeFiles, dataDir, name);
    await journal.sent("four", [letter(4)]);
    await journal.close();
    assert.deepEqual(states(readFileSync(path, "utf8")).open, ["four"]);
  });

  test("letters that are done are not read any more", async () => {
    const dataDir = folder();
    await lettersIn({ dataDir }).bury(batch("b"), deadRows(0, 1, 2), ["{}", "{}", "{}"]);
    const [name] = await taken(dataDir);
    const journal = await openJournal(nodeFiles, dataDir, name!);
    await journal.sent("one", [letter(0), letter(2)]);
    assert.deepEqual(await idsOf(dataDir), ["b 0", "b 1", "b 2"]);
    await journal.done("one");
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
