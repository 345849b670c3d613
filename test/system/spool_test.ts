/** `shishi spool`: what waits on disk, seen beside a running collector and after its end, whole and damaged. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
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

test("damage is named, with exit code 1; the other rows are there", async () => {
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

test("a mistake is named, with exit code 2", async () => {
  for (
    const [found, ...args] of [
      ["nothing"],
      ['"look"', "look"],
      ['"cat"', "cat"],
      ['"ls flights"', "ls", "flights"],
    ] as const
  ) {
    const { code, stderr } = await spool(...args);
    assert.equal(code, 2);
    assert.match(stderr, new RegExp(`expected ls, cat TABLE or verify, got ${found};`));
  }
});
