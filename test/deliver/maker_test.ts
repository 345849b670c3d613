/**
 * Tables that their first rows make, and columns that later ones ask for, on each age of ClickHouse.
 * Runs once: what servers answer is compared; servers_test.ts and broken_off_test.ts have the way to them on both runtimes.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Remade } from "../../src/contracts.ts";
import type { Deliver, DeliverSettings } from "../../src/deliver/deliver.ts";
import { createMaker } from "../../src/deliver/maker.ts";
import type { TablePlan } from "../../src/deliver/plan.ts";
import type { Query } from "../../src/deliver/query.ts";
import { behindDistributed } from "../../src/deliver/sql.ts";
import { type ClickHouse, startClickHouse, userXml } from "../kit/servers.ts";
import { ENGINES } from "../servers/engines.ts";
import { columnsOf } from "../kit/columns.ts";
import { batchOf, deliverTo, never, realClock, silent } from "./kit.ts";

const SETTINGS: Partial<DeliverSettings> = {
  createTables: ["logs_*", "we ird", "other.*"],
  unknownKeys: [{ table: null, policy: "column" }],
};

const bytesOf = (...rows: readonly unknown[]) =>
  new TextEncoder().encode(rows.map((row) => JSON.stringify(row) + "\n").join(""));

function okOf(remade: Remade): Remade & { readonly ok: true } {
  return remade.ok ? remade : assert.fail(`${remade.why}: ${remade.problem}`);
}

for (const { version, modern, whole, start } of ENGINES) {
  describe(`ClickHouse ${version}`, () => {
    let server: ClickHouse;
    const rooms: Deliver[] = [];
    const room = (settings: Partial<DeliverSettings> = {}) => {
      const deliver = deliverTo([server.url], { settings: { ...SETTINGS, ...settings } });
      rooms.push(deliver);
      return deliver;
    };
    before(async () => {
      server = await start();
    });
    after(async () => {
      await Promise.all(rooms.map((deliver) => deliver.close()));
      await server.close();
    });

    if (!modern) {
      test("says that it cannot, and what can", async () => {
        const { maker } = room();
        await server.query("CREATE TABLE old (a UInt8) ENGINE = MergeTree ORDER BY a");
        const said = [
          await maker.make("logs_old", bytesOf({ a: 1 })),
          await maker.extend("old", new Set(["b"]), bytesOf({ b: 1 })),
        ];
        for (const [at, wanted] of ["create logs_old", "add columns to old"].entries()) {
          const remade = said[at]!;
          assert.equal(!remade.ok && remade.why, "kind");
          assert.equal(
            !remade.ok && remade.problem.replace(/18\.16\.\d+/, "18.16"),
            `cannot ${wanted}: it takes ClickHouse 22.10 or newer to find types in rows, and this ` +
              "server is 18.16; do it by hand",
          );
        }
        assert.equal(await server.query("EXISTS TABLE logs_old"), "0");
      });
      return;
    }

    test("first rows make a table that keeps them as that of events does", async () => {
      const { maker, sink } = room();
      const row = { "@time": "2026-11-29T10:00:00.25Z", "a'b`c\\": 1, "n.x": true, l: [0.5] };
      const made = okOf(await maker.make("logs_a", bytesOf(row, { ...row, l: [1] })));
      assert.equal(made.created, true);
      assert.deepEqual(made.added, [
        "@time DateTime64(3, 'UTC')",
        "a'b`c\\ Nullable(Int64)",
        "n.x Nullable(Bool)",
        "l Array(Nullable(Float64))",
      ]);
      const delivery = await sink.deliver(
        batchOf([JSON.stringify(row), "{}"], { table: "logs_a" }),
        never,
      );
      assert.equal(delivery.kind === "settled" && delivery.dead.length, 0);
      assert.equal(
        await server.query(
          "SELECT toString(`@time`), `a\\'b\\`c\\\\`, `n.x`, l FROM logs_a WHERE l != []",
        ),
        "2026-11-29 10:00:00.250\t1\ttrue\t[0.5]",
      );
      const ddl = await server.query(
        "SELECT engine_full FROM system.tables WHERE name = 'logs_a' FORMAT TSVRaw",
      );
      assert.match(
        ddl,
        /^MergeTree PARTITION BY toYYYYMM\(`@time`\) ORDER BY `@time` SETTINGS .*non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1/,
      );
      // A row without its time is of now.
      assert.equal(
        await server.query(
          "SELECT abs(dateDiff('minute', `@time`, now())) < 5 FROM logs_a WHERE l = []",
        ),
        "1",
      );
    });

    test("many collectors at once make one table, and one of them has made it", async () => {
      const makers = Array.from({ length: whole ? 25 : 4 }, () => room().maker);
      const all = await Promise.all(
        makers.flatMap((maker, who) =>
          Array.from(
            { length: 8 },
            () => maker.make("logs_race", bytesOf({ a: 1, [`k${who}`]: who })),
          )
        ),
      );
      assert.equal(all.filter((remade) => okOf(remade).created).length, 1);
      const names = await server.query(
        "SELECT count(), countIf(name = 'a') FROM system.columns WHERE table = 'logs_race'",
      );
      assert.equal(names, "2\t1");
      for (const remade of all) assert.equal(okOf(remade).columns.names.size, 2);
    });

    test("keys of many collectors at once become columns, each once", async () => {
      await server.query("CREATE TABLE logs_keys (a UInt8) ENGINE = MergeTree ORDER BY a");
      const makers = Array.from({ length: 4 }, () => room().maker);
      const all = await Promise.all(makers.map((maker, who) => {
        const row = { a: 1, shared: who, [`k${who}`]: "x" };
        return maker.extend("logs_keys", new Set(["shared", `k${who}`]), bytesOf(row));
      }));
      for (const [who, remade] of all.entries()) {
        const { columns } = okOf(remade);
        assert.ok(columns.names.has("shared") && columns.names.has(`k${who}`));
      }
      assert.equal(
        await server.query("SELECT count() FROM system.columns WHERE table = 'logs_keys'"),
        "6",
      );
    });

    test("as many columns as max-new-columns, whoever adds them", async () => {
      await server.query("CREATE TABLE logs_most (a UInt8) ENGINE = MergeTree ORDER BY a");
      const row = { b: 1, c: 2, d: 3, e: 4 };
      const keys = new Set(Object.keys(row));
      const [one, other] = [room({ maxNewColumns: 3 }), room({ maxNewColumns: 3 })];
      const first = okOf(await one.maker.extend("logs_most", keys, bytesOf(row)));
      assert.deepEqual(first.added, ["b", "c", "d"].map((name) => `${name} Nullable(Int64)`));
      const more = await other.maker.extend("logs_most", keys, bytesOf(row));
      assert.match(
        more.ok ? "" : more.problem,
        /^its rows have been given 3 columns, and max-new-columns is 3$/,
      );
      const wide = await one.maker.make("logs_wide", bytesOf(row));
      assert.match(wide.ok ? "" : wide.problem, /its rows have 4 keys, and max-new-columns is 3/);
    });

    test("a table that came meanwhile is taken as it is", async () => {
      const { maker } = room();
      await server.query("CREATE TABLE logs_there (a String) ENGINE = MergeTree ORDER BY a");
      const made = okOf(await maker.make("logs_there", bytesOf({ b: 1 })));
      assert.deepEqual([made.created, made.added, [...made.columns.names]], [false, [], ["a"]]);
    });

    test("rows that no table can be made of say so", async () => {
      const { maker } = room();
      for (const row of [{}, { "": 1 }]) {
        const remade = await maker.make("logs_none", bytesOf(row));
        assert.equal(!remade.ok && remade.why, "rows");
      }
      assert.equal(await server.query("EXISTS TABLE logs_none"), "0");
    });

    test("columns become wider, whoever else widens them, and keep what they have", async () => {
      await server.query(
        "CREATE TABLE logs_narrow (k UInt8, a Nullable(Int64) DEFAULT 7, d Date, big Int64) ENGINE = MergeTree ORDER BY k",
      );
      await server.query("INSERT INTO logs_narrow VALUES (1, 5, '2026-11-29', 9007199254740993)");
      const makers = await Promise.all(Array.from({ length: 4 }, async () => {
        const { tables, maker } = room({ widen: true });
        await tables.lookUp("logs_narrow", 5000);
        return maker;
      }));
      const misfits = new Map([
        ["a", ["1.5"]],
        ["d", ['"2026-11-29 10:00:00"']],
        ["big", ["0.5"]],
      ]);
      const all = await Promise.all(makers.map((maker) => maker.widen("logs_narrow", misfits)));
      const added = all.flatMap((remade) => okOf(remade).added).sort();
      assert.deepEqual(added, ["a Nullable(Float64)", "d DateTime64(3, 'UTC')"]);
      assert.equal(
        await server.query("SELECT a, d, big FROM logs_narrow"),
        "5\t2026-11-29 00:00:00.000\t9007199254740993",
      );
      assert.equal(
        await server.query(
          "SELECT type, default_expression FROM system.columns WHERE table = 'logs_narrow' AND name = 'a'",
        ),
        "Nullable(Float64)\t7",
      );
      const key = await makers[0]!.widen("logs_narrow", new Map([["k", ["300"]]]));
      assert.match(key.ok ? "" : key.problem, /^cannot widen columns of logs_narrow: .*key column/);
      const never = await room().maker.widen("logs_narrow", misfits);
      assert.equal(!never.ok && never.why, "rows");
    });

    test("a column that cannot be changed is no reason against the others", async () => {
      await server.query(
        "CREATE TABLE logs_apart (k UInt8, a Int32, b Int32) ENGINE = MergeTree ORDER BY k",
      );
      const { tables, maker } = room({ widen: true });
      await tables.lookUp("logs_apart", 5000);
      const key: [string, string[]] = ["k", ["300"]];
      const widen = (...misfits: [string, string[]][]) =>
        maker.widen("logs_apart", new Map(misfits));
      assert.equal((await widen(key)).ok, false);
      assert.deepEqual(okOf(await widen(key, ["a", ["1.5"]])).added, ["a Float64"]);
      assert.equal((await widen(key)).ok, false);
      assert.deepEqual(okOf(await widen(["b", ["1.5"]])).added, ["b Float64"]);
      const extend = (row: Record<string, unknown>) =>
        maker.extend("logs_apart", new Set(Object.keys(row)), bytesOf(row));
      assert.equal((await widen(key)).ok, false);
      // ClickHouse has this name for itself.
      const own = { _row_exists: 1 };
      const both = okOf(await extend({ ...own, c: 1 }));
      assert.deepEqual(both.added, ["c Nullable(Int64)"]);
      const refused = await extend(own);
      assert.match(refused.ok ? "" : refused.problem, /^cannot add _row_exists to logs_apart: /);
      assert.deepEqual(okOf(await extend({ ...own, d: 1 })).added, ["d Nullable(Int64)"]);
    });

    test("a key whose values are of many types becomes text, with all that it says", async () => {
      const { maker, sink } = room();
      const rows = [
        { a: 1, b: [1], c: true, d: "x", "e'`\\": [1] },
        { a: [1], b: [[1]], c: [], d: { a: [1.5] }, "e'`\\": "x", n: 7, l: [[1]] },
        { l: [] },
      ];
      const made = okOf(await maker.make("logs_mixed", bytesOf(...rows)));
      assert.deepEqual(made.added, [
        ...["a", "b", "c", "d", "e'`\\"].map((name) => `${name} Nullable(String)`),
        "n Nullable(Int64)",
        "l Array(Array(Nullable(Int64)))",
      ]);
      const lines = rows.map((row) => JSON.stringify(row));
      const delivery = await sink.deliver(batchOf(lines, { table: "logs_mixed" }), never);
      assert.equal(delivery.kind === "settled" && delivery.dead.length, 0);
      assert.equal(
        await server.query("SELECT a, b, c, d, n FROM logs_mixed WHERE a IS NOT NULL ORDER BY n"),
        '[1]\t[[1]]\t[]\t{"a":[1.5]}\t7\n1\t[1]\ttrue\tx\t\\N',
      );
      const extended = await maker.extend(
        "logs_mixed",
        new Set(["f"]),
        bytesOf({ f: 1 }, { f: [] }),
      );
      assert.deepEqual(okOf(extended).added, ["f Nullable(String)"]);
    });

    test("a row of which no table can be made costs itself", async () => {
      const { sink, maker } = room();
      const lines = ['{"n":1}', '{"a\\nb":1,"n":2}', '{"n":3}'];
      const delivery = await sink.deliver(batchOf(lines, { table: "logs_odd" }), never);
      assert.equal(
        delivery.kind === "settled" && delivery.dead.length,
        1,
        JSON.stringify(delivery),
      );
      assert.equal(await server.query("SELECT groupArray(n) FROM logs_odd"), "[1,3]");
      const large = '{"n":18446744073709551616,"m":[-99999999999999999999]}';
      const rows = new TextEncoder().encode(`{"n":1}\n${large}\n{"n":3,"o":"x"}\n`);
      // 26.9 makes n text.
      assert.match(
        okOf(await maker.make("logs_large", rows)).added.join(),
        /^n Nullable\((?:Int64|String)\),m (?:Array\(Nullable|Nullable)\(String\)+,o Nullable\(String\)$/,
      );
    });

    test("rows that were taken unseen make their table, and its columns, at the INSERT", async () => {
      const { sink } = room();
      const deliver = (...lines: string[]) =>
        sink.deliver(batchOf(lines, { table: "logs_late" }), never);
      assert.equal((await deliver('{"a":1}')).kind, "settled");
      const delivery = await deliver('{"a":2}', '{"a":3,"b":"x"}');
      assert.equal(
        delivery.kind === "settled" && delivery.dead.length,
        0,
        JSON.stringify(delivery),
      );
      assert.equal(await server.query("SELECT sum(a), max(b) FROM logs_late"), "6\tx");
    });
  });
}

describe("rights", () => {
  let server: ClickHouse;
  let deliver: Deliver;
  before(async () => {
    const users = userXml("writer", ["SELECT ON default.*", "INSERT ON default.*"]);
    server = await startClickHouse({ users });
    deliver = deliverTo([server.url.replace("://", "://writer:p@")], { settings: SETTINGS });
  });
  after(async () => {
    await deliver.close();
    await server.close();
  });

  test("what is missing is named as the statement that gives it", async () => {
    await server.query("CREATE TABLE logs_his (a UInt8) ENGINE = MergeTree ORDER BY a");
    const { maker } = deliver;
    const wanted = new Map([
      [
        maker.make("logs_my", bytesOf({ a: 1 })),
        "the user of clickhouse-url may not create logs_my: GRANT CREATE TABLE ON `default`.* TO `writer`",
      ],
      [
        maker.extend("logs_his", new Set(["b"]), bytesOf({ b: 1 })),
        "the user of clickhouse-url may not add columns to logs_his: " +
        "GRANT ALTER ADD COLUMN ON `default`.`logs_his` TO `writer`",
      ],
    ]);
    for (const [asked, problem] of wanted) {
      const remade = await asked;
      assert.deepEqual(remade, { ok: false, problem, why: "right" });
    }
  });

  test("a server that is away is no word about the table", async () => {
    const away = deliverTo(["http://127.0.0.1:9"], { settings: SETTINGS });
    const remade = await away.maker.make("logs_x", bytesOf({ a: 1 }));
    assert.equal(!remade.ok && remade.why, "away");
    await away.close();
  });
});

describe("tables of a cluster", () => {
  /** What is sent about a table of this engine, and what is answered. */
  async function extended(engine: string, cluster: string | null, full = "") {
    const sent: string[] = [];
    const query: Query = {
      rows: (sql) =>
        Promise.resolve({
          ok: true,
          value: sql.startsWith("SELECT engine_full") ? [{ engine_full: full }] : [{ n: 0 }],
        }),
      word: () => Promise.resolve({ ok: true, value: "" }),
      command(sql) {
        sent.push(sql);
        return Promise.resolve({ ok: true, value: null });
      },
      ping: () => Promise.resolve(true),
    };
    const more = { engine, window: 0, partitionKey: "", views: false };
    let known: TablePlan = { ...columnsOf(["a UInt8"]), ...more };
    const maker = createMaker({
      query,
      ask: () => Promise.resolve({ ok: true, value: '{"name":"b","type":"Nullable(Int64)"}\n' }),
      plans: {
        plan: () => known,
        refresh: () => {
          if (sent.length > 0) known = { ...columnsOf(["a UInt8", "b Int64"]), ...more };
          return Promise.resolve(known);
        },
        lookUp: () => Promise.resolve(known),
        current: () => Promise.resolve(known),
        earlier: () => null,
        columns: () => known,
        doubt() {},
      },
      endpoint: { database: "db", user: "u" },
      clock: realClock,
      log: silent,
      ...{ createTables: [], unknownKeys: [], maxNewColumns: 9, widen: false, cluster },
    });
    const remade = await maker.extend("t", new Set(["b"]), bytesOf({ b: 1 }));
    return { sent, remade };
  }
  const ADD = "ADD COLUMN IF NOT EXISTS `b` Nullable(Int64) COMMENT 'added by shishi'";

  test("a Distributed one gets columns after the tables behind it", async () => {
    assert.equal(behindDistributed("Distributed('c', 'd', 't')"), "d.t");
    assert.equal(behindDistributed("MergeTree ORDER BY a"), null);
    const { sent } = await extended("Distributed", "c", "Distributed('c', 'd', 't_local', rand())");
    assert.deepEqual(sent, [
      `ALTER TABLE \`d\`.\`t_local\` ON CLUSTER \`c\` ${ADD}`,
      `ALTER TABLE \`db\`.\`t\` ON CLUSTER \`c\` ${ADD}`,
    ]);
    const told = await extended("Distributed", "c", "Distributed('c', 'd', 'lo\\'cal')");
    assert.deepEqual(told.sent, [], "what is behind it has no name that may be sent");
    assert.match(
      told.remade.ok ? "" : told.remade.problem,
      /does not tell what is behind it; by hand: ALTER/,
    );
  });

  test("a Replicated one gets them on the cluster, or is told what to type", async () => {
    const { sent, remade } = await extended("ReplicatedMergeTree", "{cluster}");
    assert.deepEqual(sent, [`ALTER TABLE \`db\`.\`t\` ON CLUSTER \`{cluster}\` ${ADD}`]);
    assert.equal(remade.ok, true);
    for (const engine of ["ReplicatedMergeTree", "Distributed"]) {
      const told = await extended(engine, null);
      assert.deepEqual(told.sent, []);
      const problem = told.remade.ok ? "" : told.remade.problem;
      assert.ok(problem.endsWith(`: ALTER TABLE \`db\`.\`t\` ${ADD}`), problem);
      assert.match(problem, new RegExp(`^t is a ${engine} table and cluster is not set; on `));
    }
  });
});
