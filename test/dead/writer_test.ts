/** Dead letters on disk: kept means kept, once, byte for byte; trouble is told and nothing is lost. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import type { LogFields } from "../../src/contracts.ts";
import { readLetter } from "../../src/dead/letter.ts";
import { DONE } from "../../src/kernel/result.ts";
import { openSpool } from "../../src/spool/data_dir.ts";
import { ASIDE_BYTES } from "../../src/dead/writer.ts";
import { memoryLog } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { rounds } from "../kit/rounds.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import {
  batch,
  bytesIn,
  deadRows,
  diskError,
  idsOf,
  lettersOf,
  namesIn,
  setAside,
  storeOf,
  textOf,
  watched,
  writerOf,
} from "./kit.ts";

const folders: string[] = [];
function folder(): string {
  folders.push(tempDir("letters"));
  return join(folders.at(-1)!, "data");
}
after(() => folders.forEach(removeDir));

test("a letter is one line with everything that is known of the row", async () => {
  const dataDir = folder();
  const letters = writerOf({ dataDir });
  assert.equal(
    await letters.write(batch("b-1"), deadRows(3, 9), ['{"n":"x"}', '{"n":"y"}']),
    DONE,
  );
  const lines = textOf(dataDir).trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.equal(lines.length, 2);
  const { time, ...rest } = lines[0];
  assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000 && /T.*Z$/.test(time));
  assert.deepEqual(rest, {
    table: "t",
    shape: "row",
    batch: "b-1",
    index: 3,
    code: 27,
    error: "bad 3 (at row 4)",
    row: '{"n":"x"}',
  });
  assert.deepEqual(namesIn(dataDir), ["t.ndjson"]);
  assert.equal(statSync(join(dataDir, "dead")).mode & 0o777, 0o700);
  assert.equal(statSync(join(dataDir, "dead", "t.ndjson")).mode & 0o777, 0o600);
});

test("rows come back byte for byte", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.string({ unit: "binary" }), { maxLength: 20 }), async (rows) => {
      const dataDir = folder();
      await writerOf({ dataDir }).write(batch("b"), deadRows(...rows.keys()), rows);
      assert.deepEqual((await lettersOf(dataDir)).map(({ row }) => row), rows);
    }),
    { numRuns: rounds(30) },
  );
});

test("a long message is cut, a batch without bad rows leaves nothing", async () => {
  const dataDir = folder();
  const letters = writerOf({ dataDir });
  assert.equal(await letters.write(batch("b"), [], []), DONE);
  await letters.write(batch("b"), [{ index: 0, code: 1, message: "é".repeat(10_000) }], ["{}"]);
  assert.ok((await lettersOf(dataDir))[0]!.error.length < 5_000);
});

test("a table that is no file's name is a problem, not a path", async () => {
  const dataDir = folder();
  const answer = await writerOf({ dataDir }).write(batch("b", "../x"), deadRows(0), ["{}"]);
  assert.match((answer as { problem: string }).problem, /\.\.\/x/);
});

test("the same letter written twice counts once", async () => {
  const dataDir = folder();
  await writerOf({ dataDir }).write(batch("b"), deadRows(1, 2), ["{}", "{}"]);
  await writerOf({ dataDir }).write(batch("b"), deadRows(1, 2), ["{}", "{}"]);
  await writerOf({ dataDir }).write(batch("c"), deadRows(1), ["{}"]);
  assert.deepEqual(await idsOf(dataDir), ["b 1", "b 2", "c 1"]);
});

test("the log gets a shortened line a row, of the first ones", async () => {
  const told: { message: string; fields: LogFields }[] = [];
  const letters = writerOf({ dataDir: folder(), told });
  const rows = Array.from({ length: 50 }, () => "x".repeat(1000));
  await letters.write(batch("b"), deadRows(...rows.keys()), rows);
  assert.equal(told.filter(({ message }) => message === "row refused by ClickHouse").length, 10);
  assert.equal(told.at(-1)?.fields["rows"], 40);
  assert.ok(JSON.stringify(told).length < 10_000);
});

describe("a torn tail", () => {
  const whole = folder();
  const rows = ['{"s":"é"}', '{"s":"2"}', '{"s":"3"}'];
  const made = writerOf({ dataDir: whole }).write(batch("a"), deadRows(0, 1, 2), rows);

  test("at every byte: whole letters stay, the rest goes to quarantine, the next is whole", async () => {
    await made;
    const bytes = readFileSync(join(whole, "dead/t.ndjson"));
    for (let length = 0; length <= bytes.length; length++) {
      const dataDir = folder();
      mkdirSync(join(dataDir, "dead"), { recursive: true });
      writeFileSync(join(dataDir, "dead/t.ndjson"), bytes.subarray(0, length));
      const letters = writerOf({ dataDir });
      assert.equal(await letters.write(batch("z"), deadRows(7), ["{}"]), DONE);
      const text = textOf(dataDir);
      const lines = text.split("\n");
      assert.equal(lines.pop(), "");
      assert.ok(lines.every((line) => readLetter(line) !== null), `${length}: ${text}`);
      const kept = bytes.subarray(0, length).lastIndexOf(10) + 1;
      assert.equal(Buffer.from(text).subarray(0, kept).compare(bytes.subarray(0, kept)), 0);
      assert.equal(lines.length, bytes.subarray(0, kept).filter((byte) => byte === 10).length + 1);
      const torn = kept === length ? [] : readdirSync(join(dataDir, "quarantine"));
      assert.equal(torn.length, kept === length ? 0 : 1);
      for (const name of torn) {
        const found = readFileSync(join(dataDir, "quarantine", name));
        assert.equal(found.compare(bytes.subarray(kept, length)), 0);
      }
      removeDir(dataDir);
    }
  });

  test("does not disturb a reader before it is mended", async () => {
    await made;
    const dataDir = folder();
    mkdirSync(join(dataDir, "dead"), { recursive: true });
    writeFileSync(join(dataDir, "dead/t.ndjson"), textOf(whole).slice(0, -5));
    assert.deepEqual(await idsOf(dataDir), ["a 0", "a 1"]);
  });
});

describe("a disk in trouble", () => {
  const operations = ["makeFolder", "syncFolder", "append", "write", "sync"];
  for (const operation of operations) {
    test(`${operation} fails: a problem, then kept, each letter once and every line whole`, async () => {
      const dataDir = folder();
      let failing = 2;
      const files = watched((name) => {
        if (name === operation && failing-- > 0) throw diskError("EIO");
      });
      const letters = writerOf({ dataDir, files });
      const answers = [];
      for (let tries = 0; tries < 3; tries++) {
        answers.push(await letters.write(batch("b"), deadRows(0, 1), ["{}", "{}"]));
      }
      assert.deepEqual(answers.map((answer) => answer === DONE), [false, false, true]);
      assert.match((answers[0] as { problem: string }).problem, /dead letters .*EIO/);
      assert.ok(textOf(dataDir).split("\n").every((line) => line === "" || readLetter(line)));
      assert.deepEqual(await idsOf(dataDir), ["b 0", "b 1"]);
      assert.deepEqual(namesIn(dataDir), ["t.ndjson"]);
    });
  }

  test("at any operations: what is kept is there, what is torn is mended", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.boolean(), { maxLength: 60 }),
        fc.integer({ min: 1, max: 5 }),
        async (fails, batches) => {
          const dataDir = folder();
          const script = [...fails];
          const files = watched(() => {
            if (script.shift()) throw diskError("ENOSPC");
          });
          const letters = writerOf({ dataDir, files });
          const kept: string[] = [];
          for (let n = 0; n < batches; n++) {
            const answer = await letters.write(batch(`b${n}`), deadRows(0, 1), ["{}", "{}"]);
            if (answer === DONE) kept.push(`b${n} 0`, `b${n} 1`);
            const found = new Set(await idsOf(dataDir).catch(() => []));
            assert.deepEqual(kept.filter((id) => !found.has(id)), []);
          }
          script.length = 0;
          assert.equal(await letters.write(batch("last"), deadRows(0), ["{}"]), DONE);
          const found = await idsOf(dataDir);
          assert.deepEqual(kept.filter((id) => !found.includes(id)), []);
          assert.equal((await storeOf(dataDir).visit("t", () => {})).damaged, 0);
          removeDir(dataDir);
        },
      ),
      { numRuns: rounds(60) },
    );
  });

  test("kept means that a power cut cannot take it: data synced, then the name of a new file", async () => {
    const dataDir = folder();
    const done: string[] = [];
    const files = watched((operation, path) => void done.push(`${operation} ${basename(path)}`));
    const letters = writerOf({ dataDir, files });
    await letters.write(batch("a"), deadRows(0), ["{}"]);
    const first = done.splice(0).filter((operation) => /^(write|sync)/.test(operation));
    assert.deepEqual(first.slice(-3), ["write t.ndjson", "sync t.ndjson", "syncFolder dead"]);
    await letters.write(batch("b"), deadRows(0), ["{}"]);
    assert.deepEqual(done.filter((operation) => /^(write|sync)/.test(operation)), [
      "write t.ndjson",
      "sync t.ndjson",
    ]);
  });

  test("nor where a process was killed before it could sync the name", async () => {
    for (let seed = 0; seed < 20; seed++) {
      const files = new FaultyFiles(seed);
      await openSpool({ files, dataDir: "/data", log: memoryLog() });
      const file = await files.append("/data/dead/t.ndjson");
      await file.write(Buffer.from("{}\n"));
      await file.close();
      const after = files.crash("process");
      const letters = writerOf({ dataDir: "/data", files: after });
      assert.equal(await letters.write(batch("a"), deadRows(0), ["{}"]), DONE);
      const text = Buffer.from(after.crash("power").get("/data/dead/t.ndjson") ?? []).toString();
      assert.match(text, /"batch":"a"/, `seed ${seed}`);
    }
  });

  test("the data-dir goes away: made anew", async () => {
    const dataDir = folder();
    const letters = writerOf({ dataDir });
    await letters.write(batch("a"), deadRows(0), ["{}"]);
    rmSync(dataDir, { recursive: true });
    const first = await letters.write(batch("b"), deadRows(0), ["{}"]);
    assert.notEqual(first, DONE);
    assert.equal(await letters.write(batch("b"), deadRows(0), ["{}"]), DONE);
    assert.deepEqual(await idsOf(dataDir), ["b 0"]);
  });
});

describe("bounds", () => {
  test("full: a problem that names the way out, and room again once letters are gone", async () => {
    const dataDir = folder();
    const letters = writerOf({ dataDir, maxBytes: 2_000 });
    const row = "x".repeat(900);
    assert.equal(await letters.write(batch("a"), deadRows(0), [row]), DONE);
    assert.equal(await letters.write(batch("b", "other"), deadRows(0), [row]), DONE);
    const before = bytesIn(dataDir);
    assert.ok(before >= 2_000);
    const answer = await letters.write(batch("c"), deadRows(0), [row]);
    const { problem } = answer as { problem: string };
    assert.match(problem, /full: \d+ bytes, dead-max-bytes is 2000/);
    assert.match(problem, /shishi dead replay.*shishi dead purge/);
    assert.equal(bytesIn(dataDir), before);
    rmSync(join(dataDir, "dead/other.ndjson"));
    assert.equal(await letters.write(batch("c"), deadRows(0), [row]), DONE);
    assert.deepEqual(await idsOf(dataDir), ["a 0", "c 0"]);
  });

  test("what an earlier run left counts, once measured", async () => {
    const dataDir = folder();
    await writerOf({ dataDir }).write(batch("a"), deadRows(0), ["x".repeat(5_000)]);
    const letters = writerOf({ dataDir, maxBytes: 2_000 });
    assert.ok(bytesIn(dataDir) > 5_000);
    assert.notEqual(await letters.write(batch("b"), deadRows(0), ["{}"]), DONE);
  });

  test("a large file is set aside, and its letters are still read", async () => {
    const dataDir = folder();
    const letters = writerOf({ dataDir });
    const rows = Array.from({ length: 34 }, () => "x".repeat(1024 * 1024));
    await letters.write(batch("a"), deadRows(...rows.keys()), rows);
    assert.ok(bytesIn(dataDir) > ASIDE_BYTES);
    await letters.write(batch("b"), deadRows(0), ["{}"]);
    assert.equal(namesIn(dataDir).length, 2);
    const found = await lettersOf(dataDir);
    assert.equal(found.length, 35);
    assert.equal(found.at(-1)?.batch, "b");
  });
});

describe("in turn", () => {
  /** A disk on which writing waits until it is released. */
  function held() {
    const { promise, resolve } = Promise.withResolvers<void>();
    let writing = false;
    const files = watched(async (operation) => {
      if (operation !== "write") return;
      writing = true;
      await promise;
    });
    return { files, release: resolve, writing: () => writing };
  }

  test("a file is set aside between two writes, so that no line comes after it was read", async () => {
    const dataDir = folder();
    const { files, release, writing } = held();
    const writer = writerOf({ dataDir, files });
    const written = writer.write(batch("a"), deadRows(0), ["{}"]);
    await eventually(() => assert.ok(writing()), { withinMs: 5_000, everyMs: 1 });
    let over = false;
    const taking = setAside(dataDir, { writer }).finally(() => over = true);
    await pause(60);
    assert.equal(over, false);
    release();
    assert.equal(await written, DONE);
    const [name] = await taking;
    assert.equal((await storeOf(dataDir).read(name!)).lines.length, 1);
    assert.equal(await writer.write(batch("b"), deadRows(0), ["{}"]), DONE);
    assert.deepEqual(namesIn(dataDir), [name!, "t.ndjson"].sort());
  });

  test("while another collector writes there nothing is written", async () => {
    const dataDir = folder();
    const { promise, resolve } = Promise.withResolvers<void>();
    const writer = writerOf({ dataDir, alone: promise });
    const written = writer.write(batch("a"), deadRows(0), ["{}"]);
    await pause(30);
    assert.deepEqual(await idsOf(dataDir), []);
    await writerOf({ dataDir }).write(batch("of the other"), deadRows(0), ["{}"]);
    resolve();
    assert.equal(await written, DONE);
    assert.deepEqual(await idsOf(dataDir), ["a 0", "of the other 0"]);
  });

  test("at any pace: every letter that was written is met exactly once", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 200 }), async (ms) => {
        const dataDir = folder();
        const delays = [...ms];
        const files = watched(async () => {
          const delayMs = delays.shift() ?? 0;
          if (delayMs > 0) await pause(delayMs - 1);
        });
        const writer = writerOf({ dataDir, files });
        let writing = true;
        const kept: string[] = [];
        const writes = (async () => {
          for (let n = 0; n < 12; n++) {
            assert.equal(await writer.write(batch(`b${n}`), deadRows(0, 1), ["{}", "{}"]), DONE);
            kept.push(`b${n} 0`, `b${n} 1`);
          }
          writing = false;
        })();
        const found: string[] = [];
        const store = storeOf(dataDir, files);
        for (let last = false; !last;) {
          last = !writing;
          for (const name of await setAside(dataDir, { writer, files })) {
            const file = await store.read(name);
            for (const { letter } of file.lines) found.push(`${letter?.batch} ${letter?.index}`);
            await store.reduce(file, () => false, "goes");
          }
        }
        await writes;
        assert.deepEqual(found.sort(), kept.sort());
        removeDir(dataDir);
      }),
      { numRuns: 15 },
    );
  });
});
