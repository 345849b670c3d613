/** `shishi spool`: what waits on disk, seen beside a running collector and after its end, whole and damaged. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { nodeFiles } from "../../src/runtime/files.ts";
import { openSpool } from "../../src/spool/data_dir.ts";
import { openBatch, spoolIn, submit } from "../batch/spool_kit.ts";
import { events, memoryLog } from "../kit/chunks.ts";
import { freePort } from "../kit/free_port.ts";
import { testOnce } from "../kit/once.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

let dataDir: string;
let shishi: Shishi;

const spool = (...args: string[]) => runShishi(["spool", ...args, "--data-dir", dataDir]);
const rowsIn = (text: string) => text.split("\n").filter(Boolean).map((line) => JSON.parse(line));

before(async () => {
  dataDir = tempDir("spool");
  // Nothing is stored while nothing listens there.
  const url = `http://127.0.0.1:${await freePort()}`;
  const args = ["--clickhouse-url", url, "--data-dir", dataDir, "--tables", "flights,trains"];
  shishi = await startShishi({ args });
  for (let n = 0; n < 3; n++) {
    for (const table of ["flights", "trains"]) {
      const { status } = await shishi.post({ n, table }, { path: `/events/${table}` });
      assert.equal(status, 202);
    }
  }
});
after(async () => {
  await shishi.close();
  removeDir(dataDir);
});

async function assertAllThere(where: RegExp): Promise<void> {
  const [ls, cat, verify] = await Promise.all([
    spool("ls"),
    spool("cat", "flights"),
    spool("verify"),
  ]);
  assert.deepEqual(
    [ls.code, cat.code, verify.code],
    [0, 0, 0],
    ls.stderr + cat.stderr + verify.stderr,
  );
  const [head, ...lines] = ls.stdout.trimEnd().split("\n");
  assert.match(head!, /^TABLE +BATCHES +ROWS +BYTES +OLDEST +WHERE$/);
  assert.deepEqual(lines.map((line) => line.split(/ +/)[0]), ["flights", "trains"]);
  for (const line of lines) assert.match(line, where);
  assert.deepEqual(
    rowsIn(cat.stdout).map(({ n, table }) => [n, table]),
    [0, 1, 2].map((n) => [n, "flights"]),
  );
  assert.match(verify.stdout, /6 rows: every checksum agrees/);
}

test("a running collector's rows, then those that it left when it was killed", async () => {
  await assertAllThere(/ 3 +\d+ +20.*Z +journal$/);
  await shishi.kill();
  const before = readdirSync(dataDir, { recursive: true }).sort();
  await assertAllThere(/ 3 +\d+ +20.*Z +journal$/);
  assert.deepEqual(readdirSync(dataDir, { recursive: true }).sort(), before, "nothing is changed");
});

testOnce("damage is named, with exit code 1; the other rows are there", async () => {
  const folder = join(dataDir, "journal");
  const [name = ""] = readdirSync(folder);
  const path = join(folder, name);
  const bytes = readFileSync(path);
  const at = bytes.indexOf('"n":1');
  bytes[at + 4]! ^= 1;
  writeFileSync(path, bytes);
  const { mtimeMs } = statSync(path);
  const verify = await spool("verify");
  assert.equal(verify.code, 1);
  assert.match(verify.stdout, /journal\/\d+\.ndjson: \d+ bytes from \d+ on do not agree/);
  assert.match(verify.stdout, /rows are missing in the journal|bytes from/);
  const ls = await spool("ls");
  assert.match(ls.stderr, /not in order; see shishi spool verify/);
  const cat = await spool("cat", "trains");
  const flights = await spool("cat", "flights");
  assert.equal(rowsIn(cat.stdout).length + rowsIn(flights.stdout).length, 5);
  assert.equal(statSync(path).mtimeMs, mtimeMs);
});

testOnce("positions that a broker does not have yet are shown, beside rows and alone", async () => {
  const folder = tempDir("spool-marks");
  const look = async (verb: string, ...more: string[]) => {
    const { code, stdout, stderr } = await runShishi([
      "spool",
      verb,
      ...more,
      "--data-dir",
      folder,
    ]);
    assert.equal(code, 0, stderr);
    return { stdout, stderr };
  };
  try {
    const dir = { files: nodeFiles, dataDir: folder, log: memoryLog() };
    await openSpool(dir);
    const spool = spoolIn(dir);
    const batches = [17, 9, 100].map((position, at) => {
      const partition = at === 1 ? "flights/0\x1b[1m" : "flights/3";
      const marks = [{ partition, position: String(position) }];
      const messages = { source: "kafka:flights", marks, ids: [`m${position}`] };
      const chunk = { ...events(2, { table: "flights" }), messages };
      return { chunk, batch: openBatch(chunk) };
    });
    for (const { batch, chunk } of batches) assert.equal(await submit(spool, batch, chunk), null);
    const marks = [
      ["SOURCE", "PARTITION", "TAKEN UP TO"],
      ["kafka:flights", "flights/0?[1m", "9"],
      ["kafka:flights", "flights/3", "100"],
    ];
    const { stdout } = await look("ls");
    const words = (line: string) => line.split(/ {2,}/);
    const [head, rows, blank, ...rest] = stdout.trimEnd().split("\n");
    assert.match(`${head}\n${rows}`, /^TABLE .*\nflights +3 +6 /);
    assert.equal(blank, "");
    assert.deepEqual(rest.map(words), marks);
    assert.equal(rowsIn((await look("cat", "flights")).stdout).length, 6);
    assert.match((await look("verify")).stdout, /3 batches, 6 rows: every checksum agrees/);

    for (const { batch } of batches) spool.remove(batch.id);
    spool.reached("kafka:flights", { partition: "flights/3", position: "100" });
    await spool.close();
    const alone = await look("ls");
    assert.match(alone.stderr, /nothing is in the spool/);
    assert.deepEqual(alone.stdout.trimEnd().split("\n").map(words), marks.slice(0, 2));
  } finally {
    removeDir(folder);
  }
});

testOnce("a mistake is named, with exit code 2", async () => {
  for (
    const [found, ...args] of [
      ["nothing"],
      ['"look"', "look"],
      ['"cat"', "cat"],
      ['"verify flights"', "verify", "flights"],
      ['"set-aside"', "set-aside"],
    ] as const
  ) {
    const { code, stderr } = await spool(...args);
    assert.equal(code, 2);
    assert.match(stderr, new RegExp(`TABLE, verify or set-aside TABLE, got ${found};`));
  }
});
