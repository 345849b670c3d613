/**
 * The INSERT of rows names the columns that they have, on each age of ClickHouse.
 * Runs once: what servers answer is compared; servers_test.ts and broken_off_test.ts have the way to them on both runtimes.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Batch, Delivery } from "../../src/contracts.ts";
import type { Deliver } from "../../src/deliver/deliver.ts";
import { ShortQuestions } from "../../src/deliver/plan.ts";
import { systemClock } from "../../src/kernel/time.ts";
import type { ClickHouse } from "../kit/servers.ts";
import { ENGINES } from "../servers/engines.ts";
import { createJudge } from "../../src/admit/judge.ts";
import { batchOf, deliverTo, never } from "./kit.ts";

for (const { version, modern, start } of ENGINES) {
  describe(`ClickHouse ${version}`, () => {
    let server: ClickHouse;
    let deliver: Deliver;
    let statements: string[] = [];
    /** Where `DEFAULT`s are confused, rows go apart by what others are made of. */
    const confused = version === "25.5";
    const window = modern ? "SETTINGS non_replicated_deduplication_window = 1000" : "";
    const create = (table: string, columns: string) =>
      server.query(`CREATE TABLE ${table} (${columns}) ENGINE = MergeTree ORDER BY id ${window}`);
    before(async () => {
      server = await start();
      deliver = deliverTo([server.url], {
        judge: createJudge(),
        fetch(url, init) {
          const query = new URL(url).searchParams.get("query");
          if (query?.startsWith("INSERT")) statements.push(query);
          return fetch(url, init);
        },
      });
    });
    after(async () => {
      await deliver.close();
      await server.close();
    });

    /** As the door knows it, or as a start finds it. */
    async function deliverBoth(
      table: string,
      lines: readonly string[],
      rows: string,
      inserts = 1,
    ) {
      const keys = new Set(lines.flatMap((line) => Object.keys(JSON.parse(line))));
      for (const known of [true, false]) {
        statements = [];
        const batch: Batch = { ...batchOf(lines, { table }), keys: known ? keys : null };
        assert.deepEqual(deadOf(await deliver.sink.deliver(batch, never)), []);
        assert.equal(statements.length, inserts);
        assert.equal(await server.query(rows), "1", `keys known: ${known}`);
        await server.query(`TRUNCATE TABLE ${table}`);
      }
      return statements[0]!;
    }

    function deadOf(delivery: Delivery): number[] {
      assert.equal(delivery.kind, "settled", JSON.stringify(delivery));
      return delivery.kind === "settled" ? delivery.dead.map(({ index }) => index) : [];
    }

    test("of several tables in one question", async () => {
      await create("one_of_two", "id UInt32, a Array(String) DEFAULT ['x']");
      await create("two_of_two", "id UInt32, b String MATERIALIZED 'y'");
      const { query } = deliver;
      const deps = { query, clock: systemClock, database: "default", signal: never };
      const questions = new ShortQuestions(deps);
      const tables = ["one_of_two", "none_of_two", "two_of_two"];
      const together = await Promise.all(tables.map((table) => questions.ask(table)));
      for (const [at, table] of tables.entries()) {
        const alone = await questions.ask(table);
        const bare = (told: typeof alone) =>
          told.ok && told.value.map((row) => [row["name"], row["type"], row["default_kind"]]);
        assert.deepEqual(bare(together[at]!), bare(alone));
        assert.equal(alone.ok && alone.value.length, table === "none_of_two" ? 0 : 2);
      }
    });

    test("those that its rows have, and no others", async () => {
      await create("some", "id UInt32, a UInt32 DEFAULT 7, b UInt32 DEFAULT a + 1, s String");
      const statement = await deliverBoth(
        "some",
        ['{"id":1,"a":20}', '{"a":30,"id":2}'],
        "SELECT sum(a) = 50 AND sum(b) = 52 FROM some",
      );
      assert.match(statement, /\(`a`, `id`\) FORMAT JSONEachRow$/);
    });

    test("rows with different keys, and rows of nothing", async () => {
      await create("mixed", "id UInt32, a UInt32 DEFAULT 7, b UInt32 DEFAULT a + 1, s String");
      const lines = ['{"id":1}', '{"id":2,"a":20}', '{"id":3,"b":30}', '{"id":4,"a":null}', "{}"];
      await deliverBoth(
        "mixed",
        lines,
        "SELECT arraySort(groupArray((id, a, b))) = [(0,7,8),(1,7,8),(2,20,21),(3,7,30),(4,7,8)] FROM mixed",
        // 18.16 makes zeros of what other rows give.
        confused ? 2 : modern ? 1 : 3,
      );
      const statement = await deliverBoth(
        "mixed",
        ["{}", "{}"],
        "SELECT count() = 2 AND sum(a) = 14 AND sum(b) = 16 FROM mixed",
      );
      assert.match(statement, /\(`id`\) FORMAT/);
    });

    // Elsewhere they are one INSERT, or have no token.
    if (confused) {
      test("rows with different keys, once, whatever is lost, after a restart too", async () => {
        await create("again", "id UInt32, a UInt32 DEFAULT 7, b UInt32 DEFAULT a + 1");
        const rows = Array.from({ length: 60 }, (_, id) => id);
        const lines = rows.map((id) => id % 3 === 0 ? `{"id":${id}}` : `{"id":${id},"a":${id}}`);
        lines[30] = '{"id":"no"}';
        lines[31] = '{"id":31,"a":"no"}';
        const batch = batchOf(lines, { table: "again" });
        const trail: string[] = [];
        const note = (line: string) => Promise.resolve(void trail.push(line));
        // Each is lost in the middle of another INSERT.
        for (let stored = 1; stored <= 3; stored++) {
          const losing = deliverTo([server.url], {
            async fetch(url, init) {
              const answer = await fetch(url, init);
              if (!/[?&]query=INSERT/.test(url) || --left > 0) return answer;
              await answer.arrayBuffer();
              throw new TypeError("the connection was reset");
            },
          });
          let left = stored;
          const delivery = await losing.sink.deliver(batch, never, {
            ...{ trail: [...trail], note, begin: () => true },
          });
          await losing.close();
          assert.equal(delivery.kind, "transient");
        }
        assert.match(trail[1]!, /^\{"is":"apart"/);
        const delivery = await deliver.sink.deliver(batch, never, {
          ...{ trail: [...trail], note, begin: () => true },
        });
        assert.deepEqual(deadOf(delivery), [30, 31]);
        assert.equal(
          await server.query(
            "SELECT count(), uniqExact(id), countIf(a != if(id % 3 = 0, 7, id) OR b != a + 1) FROM again",
          ),
          "58\t58\t0",
        );
      });
    }

    test("MATERIALIZED and ALIAS columns beside", async () => {
      await create("made", "id UInt32, m UInt32 MATERIALIZED id + 100, al UInt32 ALIAS id + 5");
      await deliverBoth("made", ['{"id":1}'], "SELECT m = 101 AND al = 6 FROM made");
    });

    test("columns of any name", async () => {
      await create(
        "named",
        'id UInt32, n Nested(a UInt32, b String), `Ünï` UInt8, `we``ird \\\\ x"` UInt8, `A` UInt8, `a` UInt8, `x.y` UInt8',
      );
      const row = {
        ...{ id: 1, "n.a": [1, 2], "n.b": ["x", "y"], "Ünï": 3, 'we`ird \\ x"': 4 },
        ...{ A: 5, a: 6, "x.y": 7 },
      };
      await deliverBoth(
        "named",
        // A key may be written with escapes.
        [JSON.stringify(row), JSON.stringify(row).replace('"A"', '"\\u0041"')],
        'SELECT count() = 2 AND sum(`Ünï`) = 6 AND sum(`we``ird \\\\ x"`) = 8 AND sum(A) = 10 AND' +
          " sum(a) = 12 AND sum(`x.y`) = 14 AND sum(n.a[2]) = 4 AND max(n.b[1]) = 'x' FROM named",
      );
    });

    test("a column that has gone since is not named, and rows that have it are set aside", async () => {
      await create("gone", "id UInt32, b UInt32");
      const known = await deliver.tables.refresh("gone");
      await server.query("ALTER TABLE gone DROP COLUMN b");
      assert.ok(typeof known === "object");
      const lines = ['{"id":1}', '{"id":2,"b":3}', '{"id":3}'];
      const { fingerprint } = known;
      const batch = {
        ...batchOf(lines, { table: "gone", fingerprint }),
        keys: new Set(["id", "b"]),
      };
      assert.deepEqual(deadOf(await deliver.sink.deliver(batch, never)), [1]);
      assert.equal(await server.query("SELECT groupArray(id) FROM gone"), "[1,3]");
    });

    if (!modern) return;

    test("EPHEMERAL", async () => {
      const columns = "id UInt32, raw String EPHEMERAL, len UInt32 DEFAULT length(raw)";
      await create("e", columns);
      const many = Array.from({ length: 10_000 }, (_, id) => `{"id":${id},"raw":"abcd"}`);
      const statement = await deliverBoth(
        "e",
        many,
        "SELECT count() = 10000 AND min(len) = 4 AND max(len) = 4 FROM e",
      );
      assert.match(statement, /\(`id`, `raw`\)/);
      const odd = [
        '{"id":1,"raw":"abcd"}',
        '{"id":2}',
        '{"id":3,"raw":"x","len":9}',
        '{"raw":null}',
      ];
      await deliverBoth(
        "e",
        odd,
        "SELECT arraySort(groupArray((id, len))) = [(0,0),(1,4),(2,0),(3,9)] FROM e",
        confused ? 2 : 1,
      );
      await deliverBoth("e", ['{"raw":"xy"}'], "SELECT len = 2 FROM e");
      await deliverBoth("e", ["{}"], "SELECT len = 0 FROM e");
      // With bad rows between, found by questions that know no EPHEMERAL columns.
      const lines = many.slice(0, 300).map((line, at) => at % 7 === 3 ? '{"id":"no"}' : line);
      const delivery = await deliver.sink.deliver(batchOf(lines, { table: "e" }), never);
      assert.equal(deadOf(delivery).length, 43);
      assert.equal(await server.query("SELECT count(), min(len) FROM e"), "257\t4");
    });
  });
}
