/** `shishi import`: files of any form and size, each row once, also when it is killed in the middle. */

import assert from "node:assert/strict";
import {
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { after, before, describe, test } from "node:test";
import zlib from "node:zlib";
import { freePort } from "../kit/free_port.ts";
import { testOnce } from "../kit/once.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import {
  BUILDS,
  ON_BUN,
  runShishi,
  type Shishi,
  startCommand,
  startShishi,
} from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

const DDL = "(n UInt32, s String) ENGINE = MergeTree ORDER BY n " +
  "SETTINGS non_replicated_deduplication_window = 1000";
const SOON = { withinMs: 30_000 };
const TABLES = ["forms", "killed", "killed_binary", "again", "bad", "halves"];

let clickhouse: ClickHouse;
let shishi: Shishi;
let dir: string;
before(async () => {
  clickhouse = await startClickHouse();
  for (const name of TABLES) await clickhouse.query(`CREATE TABLE ${name} ${DDL}`);
  shishi = await collect();
  dir = tempDir("import");
});
after(async () => {
  await shishi?.close();
  removeDir(dir);
  await clickhouse?.close();
});

function collect(args: readonly string[] = []): Promise<Shishi> {
  const usual = ["--clickhouse-url", clickhouse.url, "--tables=*", "--flush-interval=100ms"];
  return startShishi({ args: [...usual, ...args] });
}

function file(name: string, content: string | Uint8Array): string {
  const path = join(dir, name);
  writeFileSync(path, content);
  return path;
}

/** @param args files and flags. */
function runImport(table: string, ...args: string[]) {
  return runShishi(["import", "--url", shishi.url, "--table", table, ...args], {
    withinMs: 60_000,
  });
}

async function stored(table: string, wanted: string): Promise<void> {
  await eventually(async () => {
    const query = `SELECT count(), uniqExact(n), min(n), max(n) FROM ${table}`;
    assert.equal((await clickhouse.query(query)).replaceAll("\t", " "), wanted);
  }, SOON);
}

const lines = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, at) => `{"n":${from + at},"s":"row"}\n`).join("");
const fields = (from: number, to: number, delimiter = ",") =>
  `n${delimiter}s\n` +
  Array.from({ length: to - from }, (_, at) => `${from + at}${delimiter}"two\nlines"\n`).join("");

test("NDJSON, CSV, TSV, plain, gzip and zstd, of several frames too, in one go", async () => {
  const half = (from: number, to: number) => zlib.zstdCompressSync(lines(from, to));
  const files = [
    file("a.ndjson", lines(0, 1000)),
    file("b.ndjson.gz", zlib.gzipSync(lines(1000, 2000))),
    file("c.jsonl.zst", Buffer.concat([half(2000, 2500), half(2500, 3000)])),
    file("d.csv", `\ufeff${fields(3000, 4000)}`),
    file("e.tsv.gz", zlib.gzipSync(fields(4000, 5000, "\t"))),
    file("f.csv.zst", zlib.zstdCompressSync(fields(5000, 6000).replaceAll("\n", "\r\n"))),
    file("empty.ndjson", ""),
  ];
  const { code, stderr } = await runImport("forms", ...files);
  assert.equal(code, 0, stderr);
  await stored("forms", "6000 6000 0 5999");
  const again = await runImport("forms", ...files);
  assert.equal(again.code, 0, again.stderr);
  assert.equal(again.stderr.match(/was imported before \(1,000 acknowledged/g)?.length, 6);
  // What was noted is gone: the keys tell.
  for (const name of readdirSync(dir)) if (name.endsWith("shishi-import")) rmSync(join(dir, name));
  assert.equal((await runImport("forms", ...files)).code, 0);
  await delay(500);
  await stored("forms", "6000 6000 0 5999");
});

testOnce(
  "a batch that is larger than the collector takes goes in halves; a row that is, is named",
  async () => {
    const small = await startShishi({
      args: ["--clickhouse-url", clickhouse.url, "--tables=*", "--max-body-bytes=2KiB"],
    });
    try {
      const large = `n,s\n7,"${"x".repeat(3000)}"\n`;
      const run = (...files: string[]) =>
        runShishi(["import", "--url", small.url, "--table", "halves", ...files]);
      const well = await run(
        file("halves.csv", fields(0, 500)),
        file("halves.ndjson", lines(500, 999)),
      );
      assert.equal(well.code, 0, well.stderr);
      await stored("halves", "999 999 0 998");
      const not = await run(file("large.csv", large));
      assert.equal(not.code, 1);
      assert.match(not.stderr, /large\.csv: the row at line 2: .* answers 413: .*2048/);
    } finally {
      await small.close();
    }
  },
);

testOnce("rows that are refused are told by file and line, over several batches", async () => {
  const broken = (text: string) =>
    text.replace(/^(\D*)77777\b/m, "$1-1").replace(/^(\D*)5\b/m, "$1-2");
  const json = file("bad.ndjson", `\n${broken(lines(0, 80_000))}`);
  const csv = file("bad.csv", broken(fields(0, 80_000)));
  const { code, stderr } = await runImport("bad", json, csv, "--state-dir", tempDirIn("states"));
  assert.equal(code, 1);
  const told = stderr.split("\n").filter((line) => /does not fit/.test(line)).map((line) =>
    line.slice(line.lastIndexOf("/") + 1)
  );
  assert.deepEqual(told, [
    "bad.ndjson:7: n: -2 does not fit UInt32 (0 to 4294967295)",
    "bad.ndjson:77779: n: -1 does not fit UInt32 (0 to 4294967295)",
    "bad.csv:12: n: -2 does not fit UInt32 (0 to 4294967295)",
    "bad.csv:155556: n: -1 does not fit UInt32 (0 to 4294967295)",
  ]);
  assert.equal(stderr.match(/79,998 acknowledged, 2 refused/g)?.length, 2);
  assert.ok(!readdirSync(dir).some((name) => /^bad.*shishi-import$/.test(name)));
});

function tempDirIn(name: string): string {
  const path = tempDir(name);
  states.push(path);
  return path;
}
const states: string[] = [];
after(() => states.forEach(removeDir));

for (const binary of BUILDS) {
  const table = binary ? "killed_binary" : "killed";
  describe(`killed in the middle, ${binary ? "binary" : "source"}`, () => {
    test("the import, and then the collector: each row once", async () => {
      // So many that it can be killed three times; the slower runtime takes longer for them.
      const ROWS = ON_BUN ? 300_000 : 200_000;
      const port = await freePort();
      const data = tempDir("import-data");
      const args = ["--listen", `127.0.0.1:${port}`, "--data-dir", data];
      let own = await collect(args);
      const path = file(`${table}.ndjson.gz`, zlib.gzipSync(lines(0, ROWS)));
      const state = `${path}.${table}.shishi-import`;
      const start = () =>
        startCommand(["import", path, "--table", table, "--url", own.url], { binary });
      const offset = () => existsSync(state) ? JSON.parse(readFileSync(state, "utf8")).offset : 0;
      let killed = 0;
      for (let kill = 1; kill <= 3; kill++) {
        const begun = offset();
        const command = start();
        // Once it has sent something.
        await eventually(() => assert.ok(offset() > begun), { ...SOON, everyMs: 1 });
        command.signal("SIGKILL");
        if ((await command.exited).code === null) killed++;
        // On a machine that is too busy to kill it in time there is nothing left to do.
        if (JSON.parse(readFileSync(state, "utf8")).done) break;
      }
      assert.ok(killed > 0);
      const last = start();
      await own.kill();
      await delay(300);
      own = await collect(args);
      assert.equal((await last.exited).code, 0, last.stderr());
      assert.match(last.stderr(), new RegExp(`${ROWS.toLocaleString("en")} acknowledged`));
      await stored(table, `${ROWS} ${ROWS} 0 ${ROWS - 1}`);
      await own.close();
      removeDir(data);
    });
  });
}

const UNUSABLE: readonly (readonly [string, string | Uint8Array, RegExp])[] = [
  ["cut.ndjson.gz", zlib.gzipSync(lines(0, 2000)).subarray(0, -50), /cannot be unpacked: /],
  ["cut.ndjson.zst", zlib.zstdCompressSync(lines(0, 2000)).subarray(0, -50), /is cut short/],
  ["array.json", `[${lines(0, 2).replace("\n", ",")}]`, /an array .*; jq -c '.\[\]' makes it so/],
  ["pretty.json", '{\n  "n": 1\n}\n', /objects over several lines .*; jq -c '.' makes it so/],
  ["header.csv", "n,zip\n1,2\n", /answers 400: the header line: zip: no column of again/],
];
for (const [name, content, says] of UNUSABLE) {
  testOnce(`what cannot be imported says why: ${name}`, async () => {
    const { code, stderr } = await runImport("again", file(name, content));
    assert.equal(code, 1);
    assert.match(stderr, says);
  });
}

testOnce("a file that has changed since is not taken for the same", async () => {
  const path = file("changing.ndjson", lines(0, 100));
  assert.equal((await runImport("again", path)).code, 0);
  writeFileSync(path, lines(100, 300));
  const changed = await runImport("again", path);
  assert.equal(changed.code, 1);
  assert.match(changed.stderr, /has changed since its import began; remove .*shishi-import/);
  // A note that was cut by a power failure is none.
  truncateSync(`${path}.again.shishi-import`, 10);
  assert.equal((await runImport("again", path)).code, 0);
});

testOnce("flags that cannot be used, and files that are not there", async () => {
  const none = await runShishi(["import", "--token", "t"]);
  assert.equal(none.code, 2);
  const missing = await runShishi(["import"]);
  assert.deepEqual([missing.code, missing.stderr.split("\n").slice(0, 2)], [2, [
    "shishi: import: expected one file or several",
    "shishi: --table: is needed, the table that the rows are for",
  ]]);
  const absent = await runImport("again", join(dir, "absent.csv"));
  assert.equal(absent.code, 1);
  assert.match(absent.stderr, /absent\.csv: .*ENOENT/);
});
