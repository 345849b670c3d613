/** SQLite of each runtime, as `SqliteFile` wants it: every digit, every byte, and no waiting. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { openSqlite } from "../../src/runtime/sqlite.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

test("values come back as they were, integers with every digit", () => {
  const dir = tempDir("sqlite");
  const file = openSqlite(join(dir, "a.db"), true);
  try {
    file.run(
      "CREATE TABLE t (a); INSERT INTO t VALUES (9223372036854775807), ('é'), (1.5), (NULL)",
    );
    file.run("INSERT INTO t VALUES (x'ff00fe')");
    const found = file.all("SELECT a FROM t ORDER BY rowid").map(([value]) => value);
    assert.deepEqual(found.slice(0, 4), [9223372036854775807n, "é", 1.5, null]);
    assert.deepEqual(Array.from(found[4] as Uint8Array), [0xff, 0x00, 0xfe]);
    assert.deepEqual(file.all("SELECT a FROM t WHERE a = ?", 9223372036854775807n), [[
      9223372036854775807n,
    ]]);
    const bytes = Uint8Array.of(0xff, 0, 0xfe);
    assert.equal(file.each("DELETE FROM t WHERE a = ?", ["é", bytes, "none"]), 2);
    assert.deepEqual(file.all("SELECT count(*) FROM t"), [[3n]]);
  } finally {
    file.close();
    removeDir(dir);
  }
});

test("what is locked throws at once, with a code; so does a file that is not there", () => {
  const dir = tempDir("sqlite");
  const path = join(dir, "a.db");
  const [one, two] = [openSqlite(path, true), openSqlite(path, true)];
  try {
    one.run("CREATE TABLE t (a)");
    one.run("BEGIN IMMEDIATE");
    const begun = performance.now();
    assert.throws(() => two.run("BEGIN IMMEDIATE"), { code: "SQLITE_BUSY" });
    assert.ok(performance.now() - begun < 3000, "it waited for the lock");
    one.run("COMMIT");
    two.run("BEGIN IMMEDIATE; COMMIT");
    assert.throws(() => two.all("SELECT b FROM t"), /no such column: b/);
    assert.throws(() => openSqlite(join(dir, "none.db"), false), { code: "SQLITE_CANTOPEN" });
  } finally {
    one.close();
    two.close();
    removeDir(dir);
  }
});
