/** An outbox and the collector as users run it: rows of several tables, what is no row, and `shishi check`. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { openSqlite } from "../../src/runtime/sqlite.ts";
import { startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { BUILDS, runShishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

for (const binary of BUILDS) {
  test(`an outbox of several tables, ${binary ? "the binary" : "from source"}`, async () => {
    const fake = await startFakeClickHouse();
    for (const table of ["orders", "visits", "secrets"]) fake.createTable(table, { n: "UInt32" });
    const dir = tempDir("outbox");
    const path = join(dir, "app.db");
    const ddl = await runShishi(["outbox", "ddl", "sqlite", "--table-column", "target"], {
      binary,
    });
    assert.equal(ddl.code, 0, ddl.stderr);
    const file = openSqlite(path, true);
    file.run(`PRAGMA journal_mode = WAL; ${ddl.stdout}`);
    const rows = [
      ["orders", '{"n":1}'],
      ["visits", '{"n":2}'],
      ["secrets", '{"n":3}'],
      ["no table", '{"n":4}'],
      ["orders", '{"n":"x"}'],
      ["orders", '[{"n":5},{"n":6}]'],
    ];
    for (const [target, payload] of rows) {
      file.all("INSERT INTO outbox (target, payload) VALUES (?, ?)", target!, payload!);
    }
    const flags = [
      ...["--clickhouse-url", fake.url, "--data-dir", join(dir, "data")],
      ...["--tables=visits", "--flush-interval=50ms"],
      `--source=sqlite:${path}?outbox=outbox&table=orders&table-column=target`,
    ];
    try {
      const { stdout } = await runShishi(["check", ...flags], { binary });
      assert.match(stdout, /✓ source sqlite:outbox sqlite:\S+: SQLite 3\S+, journal_mode wal/);
      assert.match(
        stdout,
        /✓ source sqlite:outbox outbox: SQLite: id integer, target text, payload text/,
      );
      const shishi = await startShishi({ binary, args: flags });
      try {
        await eventually(() => {
          assert.deepEqual(file.all("SELECT count(*) FROM outbox"), [[0n]]);
          // Two batches of a table may go in any order.
          assert.deepEqual(fake.rows("orders").map(({ n }) => n).toSorted(), [1, 5, 6]);
          assert.deepEqual(fake.rows("visits").map(({ n }) => n), [2]);
        }, { withinMs: 15_000 });
        assert.deepEqual(fake.rows("secrets"), []);
        const { sources: [source] } = await shishi.status();
        assert.deepEqual([source.rows, source.dead, source.lag], [4, 3, 0]);
        const { json } = await shishi.get("/api/dead");
        const letters = json.letters as { address: string; row: string }[];
        assert.deepEqual(letters.map(({ address }) => address).toSorted(), [
          "sqlite:outbox/3",
          "sqlite:outbox/4",
          "sqlite:outbox/5",
        ]);
      } finally {
        await shishi.close();
      }
    } finally {
      file.close();
      await fake.close();
      removeDir(dir);
    }
  });
}
