/**
 * `shishi try`: what would become of the rows of a file, of a table that is there and of one that is not.
 * Runs once: what would become of rows is said by the code that the door has; row_test.ts and message_test.ts have both runtimes.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { type ClickHouse, startClickHouse, startOldClickHouse } from "../kit/servers.ts";
import { runShishi, startCommand } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

let clickhouse: ClickHouse;
const dir = tempDir("try");
before(async () => {
  clickhouse = await startClickHouse();
});
after(async () => {
  await clickhouse.close();
  removeDir(dir);
});

async function tried(name: string, content: string | Uint8Array, ...args: readonly string[]) {
  const path = join(dir, name);
  writeFileSync(path, content);
  const env = { SHISHI_CLICKHOUSE_URL: clickhouse.url };
  const { code, stdout, stderr } = await runShishi(["try", path, ...args], { env });
  return { code, text: stdout + stderr };
}

const ROWS = [
  { time: "2026-11-29T10:00:00Z", path: "/", ms: 1, n: 1 },
  { time: "2026-11-29T10:00:01Z", path: "/a", ms: 2, n: null },
];

test("a table that is not there: its columns with values, the statement, all rows taken", async () => {
  const { code, text } = await tried("a.json", JSON.stringify(ROWS), "--table=logs_a");
  assert.equal(
    text,
    `logs_a is not there, and create-tables does not name it; with it, its first rows would make it
  time  DateTime64(3, 'UTC')  "2026-11-29T10:00:00Z", "2026-11-29T10:00:01Z"
  path  Nullable(String)      "/", "/a"
  ms    Nullable(Int64)       1, 2
  n     Nullable(Int64)       1

CREATE TABLE \`default\`.\`logs_a\` (
  \`time\` DateTime64(3, 'UTC') DEFAULT now64(),
  \`path\` Nullable(String),
  \`ms\` Nullable(Int64),
  \`n\` Nullable(Int64)
) ENGINE = MergeTree
PARTITION BY toYYYYMM(\`time\`)
ORDER BY \`time\`
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1

2 rows would be taken, 0 refused
`,
  );
  assert.equal(code, 0);
  assert.equal(await clickhouse.query("EXISTS TABLE logs_a"), "0");
});

test("rows beyond the sample that do not fit are told, packed CSV too", async () => {
  const lines = Array.from({ length: 1500 }, (_, n) => `${n},x${n}`);
  lines[1400] = "soon,y";
  const csv = gzipSync(["n,s", ...lines].join("\n"));
  const { code, text } = await tried("b.csv.gz", csv, "--table=logs_b", "--create-tables=logs_*");
  assert.equal(code, 1, text);
  assert.match(
    text,
    /^logs_b is not there; its first rows would make it\n {2}n {2}Nullable\(Int64\) {3}0, 1, 2\n/,
  );
  assert.match(
    text,
    /\n1499 rows would be taken, 1 refused:\nrow 1401: n: "soon" does not fit Int64 /,
  );
});

test("a table that is there, for each policy", async () => {
  await clickhouse.query(
    "CREATE TABLE there (a UInt8, m UInt8 MATERIALIZED 1) ENGINE = MergeTree ORDER BY a",
  );
  const rows = '{"a":1}\n{"a":300}\n{"a":2,"b":"x"}\n';
  const of = async (policy: string) =>
    (await tried("c.ndjson", rows, "--table=there", `--unknown-keys=${policy}`)).text;
  assert.match(
    await of("error"),
    /^there is there\n.*\n {2}b {2}no column {2}"x"\n\n1 row would .*, 2 refused:\n/s,
  );
  assert.match(
    await of("skip"),
    /\n2 rows would be taken, 1 refused:\nrow 2: a: 300 does not fit UInt8/,
  );
  const column = await of("column");
  assert.match(column, /^there is there, and would get 1 column\n/);
  assert.match(column, /\n {2}b {2}Nullable\(String\), new {2}"x"\n/);
  assert.match(
    column,
    /\nALTER TABLE `default`.`there` ADD COLUMN IF NOT EXISTS `b` Nullable\(String\)/,
  );
  assert.match(column, /\n2 rows would be taken, 1 refused:/);
  const keep = await of("keep");
  assert.match(keep, /ADD COLUMN IF NOT EXISTS `_rest` Map\(String, String\)/);
  assert.match(keep, /\n2 rows would be taken, 1 refused:/);
  assert.equal(
    await clickhouse.query("SELECT count() FROM system.columns WHERE table = 'there'"),
    "2",
  );
});

const KAFKA = "--source=kafka://nowhere.invalid/flights?table=flights&meta=_offset,_key:k";

test("a message of a source: its rows with its metadata, what is refused, and nothing is changed", async () => {
  await clickhouse.query(
    "CREATE TABLE flights (n UInt8, _offset UInt64) ENGINE = MergeTree ORDER BY n",
  );
  const good = await tried("m.json", gzipSync('[{"n":1},{"n":2}]'), KAFKA);
  assert.match(
    good.text,
    /^flights is there\n[^]*\n\{"_offset":0,"n":1\}\n\{"_offset":0,"n":2\}\n2 rows would be taken, 0 refused\n$/,
  );
  assert.equal(good.code, 0);
  const bad = await tried("m.json", '[{"n":1},{"n":300},{"n":2,"x":1}]', KAFKA);
  assert.match(
    bad.text,
    /\n1 row would be taken, 2 refused:\nrow 2: n: 300 does not fit UInt8 .*\nrow 3: x: no column of flights.*\nwhat is refused would become a dead letter\n$/,
  );
  assert.equal(bad.code, 1);
  const broken = await tried("m.json", '{"n":1', `${KAFKA}&on-error=stop`);
  assert.match(
    broken.text,
    /0 rows would be taken, 1 refused:\nnot JSON: \{"n":1\n.*\(on-error=stop\)/,
  );
  const wider = await tried("m.json", '{"n":1,"x":"y"}', KAFKA, "--unknown-keys=column");
  assert.match(wider.text, /^flights is there, and would get 2 columns\n/);
  assert.match(wider.text, /ADD COLUMN IF NOT EXISTS `k` Nullable\(String\)/);
  assert.match(
    wider.text,
    /\n\{"_offset":0,"k":"kafka:flights","n":1,"x":"y"\}\n1 row would be taken/,
  );
  assert.equal(
    await clickhouse.query("SELECT count() FROM system.columns WHERE table = 'flights'"),
    "2",
  );
});

test("a message for a table that is not there, of events, of nothing, and from stdin", async () => {
  const made = await tried("m.json", '{"a":1}', "--source=redis://h?list=l&table=l&meta=_key");
  assert.match(made.text, /^l is not there, and create-tables does not name it/);
  assert.match(made.text, /CREATE TABLE `default`.`l` [^]*`_key` [^]*1 row would be taken/);
  assert.equal(await clickhouse.query("EXISTS TABLE l"), "0");
  const event = '{"eventType":"a"}\n{"eventType":1,"userId":[]}';
  const events = await tried("m.json", event, "--source=redis://h?list=l");
  assert.match(events.text, /^events, as of POST \/events\n\n\{.*"eventType":"a"/);
  assert.match(events.text, /\n1 row would be taken, 1 refused:\nrow 2: /);
  const none = await tried("m.json", "[]", "--source=redis://h?list=l");
  assert.deepEqual([none.code, /would be acknowledged/.test(none.text)], [0, true]);
  const env = { SHISHI_CLICKHOUSE_URL: clickhouse.url };
  const piped = startCommand(["try", "-", "--table=flights"], { env });
  piped.stdin.end('{"n":9}');
  assert.equal((await piped.exited).code, 0, piped.stderr());
});

test("what cannot be tried is told", async () => {
  const missing = await tried("d.ndjson", "");
  assert.deepEqual([missing.code, /--table is needed/.test(missing.text)], [2, true]);
  assert.match((await tried("e.ndjson", "", "--table=t")).text, /empty/);
  const old = await startOldClickHouse();
  const path = join(dir, "f.ndjson");
  writeFileSync(path, '{"a":1}');
  const env = { SHISHI_CLICKHOUSE_URL: old.url };
  const { code, stderr } = await runShishi(["try", path, "--table=t"], { env });
  await old.close();
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^shishi: cannot create t: it takes ClickHouse 22\.10 or newer .* is 18\.16/,
  );
});
