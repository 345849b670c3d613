/** Dead letters on disk: kept means kept, once, byte for byte; trouble is told and nothing is lost. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import type { LogFields } from "../../src/contracts.ts";
import { readLetter } from "../../src/dead/letter.ts";
import { openSpool } from "../../src/spool/data_dir.ts";
import { ASIDE_BYTES } from "../../src/dead/letters.ts";
import { memoryLog } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import {
  batch,
  boxOf,
  deadRows,
  diskError,
  idsOf,
  lettersIn,
  lettersOf,
  namesIn,
  textOf,
  watched,
} from "./letters_kit.ts";

const folders: string[] = [];
function folder(): string {
  folders.push(tempDir("letters"));
  return join(folders.at(-1)!, "data");
}
after(() => folders.forEach(removeDir));

test("a letter is one line with everything that is known of the row", async () => {
  const dataDir = folder();
  const letters = lettersIn({ dataDir });
  assert.equal(
    await letters.bury(batch("b-1"), deadRows(3, 9), ['{"n":"x"}', '{"n":"y"}']),
    "kept",
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
  assert.equal(letters.bytes(), textOf(dataDir).length);
  assert.deepEqual(namesIn(dataDir), ["t.ndjson"]);
  assert.equal(statSync(join(dataDir, "dead")).mode & 0o777, 0o700);
  assert.equal(statSync(join(dataDir, "dead", "t.ndjson")).mode & 0o777, 0o600);
});

test("rows come back byte for byte", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.string({ unit: "binary" }), { maxLength: 20 }), async (rows) => {
      const dataDir = folder();
      await lettersIn({ dataDir }).bury(batch("b"), deadRows(...rows.keys()), rows);
      assert.deepEqual((await lettersOf(dataDir)).map(({ row }) => row), rows);
    }),
    { numRuns: 50 },
  );
});

test("a long message is cut, a batch without bad rows leaves nothing", async () => {
  const dataDir = folder();
  const letters = lettersIn({ dataDir });
  assert.equal(await letters.bury(batch("b"), [], []), "kept");
  await letters.bury(batch("b"), [{ index: 0, code: 1, message: "é".repeat(10_000) }], ["{}"]);
  assert.ok((await lettersOf(dataDir))[0]!.error.length < 5_000);
});

test("a table that is no file's name is a problem, not a path", async () => {
  const dataDir = folder();
  const answer = await lettersIn({ dataDir }).bury(batch("b", "../x"), deadRows(0), ["{}"]);
  assert.match((answer as { problem: string }).problem, /\.\.\/x/);
});

test("the same letter written twice counts once", async () => {
  const dataDir = folder();
  await lettersIn({ dataDir }).bury(batch("b"), deadRows(1, 2), ["{}", "{}"]);
  await lettersIn({ dataDir }).bury(batch("b"), deadRows(1, 2), ["{}", "{}"]);
  await lettersIn({ dataDir }).bury(batch("c"), deadRows(1), ["{}"]);
  assert.deepEqual(await idsOf(dataDir), ["b 1", "b 2", "c 1"]);
});

test("the log gets a shortened line a row, of the first ones", async () => {
  const told: { message: string; fields: LogFields }[] = [];
  const letters = lettersIn({ dataDir: folder(), told });
  const rows = Array.from({ length: 50 }, () => "x".repeat(1000));
  await letters.bury(batch("b"), deadRows(...rows.keys()), rows);
  assert.equal(told.filter(({ message }) => message === "row refused by ClickHouse").length, 10);
  assert.equal(told.at(-1)?.fields["rows"], 40);
  assert.ok(JSON.stringify(told).length < 10_000);
});

describe("a torn tail", () => {
  const whole = folder();
  const rows = ['{"s":"é"}', '{"s":"2"}', '{"s":"3"}'];
  const made = lettersIn({ dataDir: whole }).bury(batch("a"), deadRows(0, 1, 2), rows);

  test("at every byte: whole letters stay, the rest goes to quarantine, the next is whole", async () => {
    await made;
    const bytes = readFileSync(join(whole, "dead/t.ndjson"));
    for (let length = 0; length <= bytes.length; length++) {
      const dataDir = folder();
      mkdirSync(join(dataDir, "dead"), { recursive: true });
      writeFileSync(join(dataDir, "dead/t.ndjson"), bytes.subarray(0, length));
      const letters = lettersIn({ dataDir });
      await letters.open();
      assert.equal(await letters.bury(batch("z"), deadRows(7), ["{}"]), "kept");
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
  const operations = ["makeFolder", "syncFolder", "create", "append", "write", "sync"];
  for (const operation of operations) {
    test(`${operation} fails: a problem, then kept, each letter once and every line whole`, async () => {
      const dataDir = folder();
      let failing = 2;
      const files = watched((name) => {
        if (name === operation && failing-- > 0) throw diskError("EIO");
      });
      const letters = lettersIn({ dataDir, files });
      const answers = [];
      for (let tries = 0; tries < 3; tries++) {
        answers.push(await letters.bury(batch("b"), deadRows(0, 1), ["{}", "{}"]));
      }
      assert.deepEqual(answers.map((answer) => answer === "kept"), [false, false, true]);
      assert.match((answers[0] as { problem: string }).problem, /dead letters .*EIO/);
      assert.ok(textOf(dataDir).split("\n").every((line) => line === "" || readLetter(line)));
      assert.deepEqual(await idsOf(dataDir), ["b 0", "b 1"]);
      assert.deepEqual(namesIn(dataDir), ["t.ndjson"], "no mark is left");
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
          const letters = lettersIn({ dataDir, files });
          await letters.open();
          const kept: string[] = [];
          for (let n = 0; n < batches; n++) {
            const answer = await letters.bury(batch(`b${n}`), deadRows(0, 1), ["{}", "{}"]);
            if (answer === "kept") kept.push(`b${n} 0`, `b${n} 1`);
            const found = new Set(await idsOf(dataDir).catch(() => []));
            assert.deepEqual(kept.filter((id) => !found.has(id)), []);
          }
          script.length = 0;
          assert.equal(await letters.bury(batch("last"), deadRows(0), ["{}"]), "kept");
          const found = await idsOf(dataDir);
          assert.deepEqual(kept.filter((id) => !found.includes(id)), []);
          assert.equal((await boxOf(dataDir).visit("t", () => {})).damaged, 0);
          removeDir(dataDir);
        },
      ),
      { numRuns: 150 },
    );
  });

  test("kept means that a power cut cannot take it: data synced, then the name of a new file", async () => {
    const dataDir = folder();
    const done: string[] = [];
    const files = watched((operation, path) => void done.push(`${operation} ${basename(path)}`));
    const letters = lettersIn({ dataDir, files });
    await letters.bury(batch("a"), deadRows(0), ["{}"]);
    const first = done.splice(0).filter((operation) => /^(write|sync)/.test(operation));
    assert.deepEqual(first.slice(-3), ["write t.ndjson", "sync t.ndjson", "syncFolder dead"]);
    await letters.bury(batch("b"), deadRows(0), ["{}"]);
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
      const letters = lettersIn({ dataDir: "/data", files: after });
      assert.equal(await letters.bury(batch("a"), deadRows(0), ["{}"]), "kept");
      const text = Buffer.from(after.crash("power").get("/data/dead/t.ndjson") ?? []).toString();
      assert.match(text, /"batch":"a"/, `seed ${seed}`);
    }
  });

  test("the data-dir goes away: made anew", async () => {
    const dataDir = folder();
    const letters = lettersIn({ dataDir });
    await letters.bury(batch("a"), deadRows(0), ["{}"]);
    rmSync(dataDir, { recursive: true });
    const first = await letters.bury(batch("b"), deadRows(0), ["{}"]);
    assert.notEqual(first, "kept");
    assert.equal(await letters.bury(batch("b"), deadRows(0), ["{}"]), "kept");
    assert.deepEqual(await idsOf(dataDir), ["b 0"]);
  });
});

describe("bounds", () => {
  test("full: a problem that names the way out, and room again once letters are gone", async () => {
    const dataDir = folder();
    const letters = lettersIn({ dataDir, maxBytes: 2_000 });
    const row = "x".repeat(900);
    assert.equal(await letters.bury(batch("a"), deadRows(0), [row]), "kept");
    assert.equal(await letters.bury(batch("b", "other"), deadRows(0), [row]), "kept");
    const before = letters.bytes();
    assert.ok(before >= 2_000);
    const answer = await letters.bury(batch("c"), deadRows(0), [row]);
    const { problem } = answer as { problem: string };
    assert.match(problem, /full: \d+ bytes, dead-max-bytes is 2000/);
    assert.match(problem, /shishi dead replay.*shishi dead purge/);
    assert.equal(letters.bytes(), before);
    rmSync(join(dataDir, "dead/other.ndjson"));
    assert.equal(await letters.bury(batch("c"), deadRows(0), [row]), "kept");
    assert.deepEqual(await idsOf(dataDir), ["a 0", "c 0"]);
  });

  test("what an earlier run left counts, once measured", async () => {
    const dataDir = folder();
    await lettersIn({ dataDir }).bury(batch("a"), deadRows(0), ["x".repeat(5_000)]);
    const letters = lettersIn({ dataDir, maxBytes: 2_000 });
    await letters.open();
    assert.ok(letters.bytes() > 5_000);
    assert.notEqual(await letters.bury(batch("b"), deadRows(0), ["{}"]), "kept");
  });

  test("a large file is set aside, and its letters are still read", async () => {
    const dataDir = folder();
    const letters = lettersIn({ dataDir });
    const rows = Array.from({ length: 34 }, () => "x".repeat(1024 * 1024));
    await letters.bury(batch("a"), deadRows(...rows.keys()), rows);
    assert.ok(letters.bytes() > ASIDE_BYTES);
    await letters.bury(batch("b"), deadRows(0), ["{}"]);
    assert.equal(namesIn(dataDir).length, 2);
    const found = await lettersOf(dataDir);
    assert.equal(found.length, 35);
    assert.equal(found.at(-1)?.batch, "b");
  });
});

test("marks that a crash left are cleared at the start", async () => {
  const dataDir = folder();
  mkdirSync(join(dataDir, "dead"), { recursive: true });
  writeFileSync(join(dataDir, "dead/.burying-x"), "");
  await lettersIn({ dataDir }).open();
  assert.deepEqual(namesIn(dataDir), []);
});
