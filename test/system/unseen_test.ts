/**
 * Rows that were taken while nothing was known of their table, or while its columns were others: each is held
 * against the columns that it is sent to. What does not fit is a dead letter, never another value.
 * Runs once: test/deliver/ and test/admit/ have both runtimes.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { ClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { ENGINES } from "../servers/engines.ts";

/** The longest backoff, and a start of ClickHouse. */
const SOON = { withinMs: 40_000 };
/** Long enough for an ALTER. */
const HELD = "3s";

const ROWS = [
  '{"id":1,"u":300}',
  '{"id":2,"i":2147483648}',
  '{"id":3,"d":"2026-13-01"}',
  '{"id":4,"d":"2026-02-30"}',
  '{"id":5,"e":null}',
  '{"id":6,"t":1764400000123}',
  '{"id":7,"nope":1}',
  '{"id":8,"u":8,"i":-5,"d":"2026-01-02","e":"paid","t":1764400000}',
  '{"id":9,"u":9,"e":2,"t":1764400000.5}',
  '{"id":10,"u":10,"e":"new","t":"2025-11-29T09:06:40+02:00"}',
];
const COLUMNS = "id UInt32, u UInt8, i Int32, d Date, e Enum8('new' = 1, 'paid' = 2), t DateTime";
const STORED = [
  "8\t8\t-5\t20455\tpaid\t1764400000",
  "9\t9\t0\t0\tpaid\t1764400000",
  "10\t10\t0\t0\tnew\t1764400000",
].join("\n");

for (const { version, modern, start } of ENGINES) {
  describe(`ClickHouse ${version}`, () => {
    let clickhouse: ClickHouse;
    let shishi: Shishi;
    let dataDir: string;
    const window = modern ? "SETTINGS non_replicated_deduplication_window = 1000" : "";
    const create = (name: string, columns: string) =>
      clickhouse.query(
        `CREATE TABLE ${name} (${columns}) ENGINE = MergeTree ORDER BY tuple() ${window}`,
      );
    const collector = (flush = "100ms", ...args: string[]) =>
      startShishi({
        args: [
          ...["--clickhouse-url", clickhouse.url, "--data-dir", dataDir, "--tables=*"],
          ...["--flush-interval", flush, ...args],
        ],
      });
    before(async () => {
      clickhouse = await start();
    });
    after(() => clickhouse.close());
    beforeEach(() => {
      dataDir = tempDir("unseen");
    });
    afterEach(async () => {
      await shishi?.close();
      removeDir(dataDir);
      if (await clickhouse.query("SELECT 1").catch(() => "") !== "1") await clickhouse.start();
    });

    const settled = (rows: number) =>
      eventually(async () => {
        const { stored, dead, held, lost } = (await shishi.status()).ledger;
        assert.deepEqual([stored + dead, held, lost], [rows, 0, 0]);
      }, SOON);
    /** Message by `id` of the row. */
    const letters = async (table: string) => {
      const { json } = await shishi.get(`/api/dead?table=${table}&limit=100`);
      return new Map<number, string>(
        // deno-lint-ignore no-explicit-any
        json.letters.map((letter: any) => [JSON.parse(letter.row).id, letter.message]),
      );
    };

    const assertValues = async (table: string) => {
      const stored = await clickhouse.query(
        `SELECT id, u, i, toUInt16(d), toString(e), toUnixTimestamp(t) FROM ${table} ORDER BY id`,
      );
      assert.equal(stored, STORED);
      const said = await letters(table);
      assert.deepEqual([...said.keys()].sort(), [1, 2, 3, 4, 5, 6, 7]);
      assert.equal(said.get(1), "u: 300 does not fit UInt8 (0 to 255)");
      assert.match(said.get(6)!, /^t: 1764400000123 does not fit DateTime/);
      assert.match(said.get(7)!, /^nope: no column of \w+, which has/);
    };

    test("ClickHouse was away since the start", async () => {
      await create("away", COLUMNS);
      await clickhouse.kill();
      shishi = await collector();
      const answer = await shishi.post(ROWS.join("\n"), { path: "/events/away" });
      assert.deepEqual([answer.status, answer.json.accepted], [202, ROWS.length]);
      await clickhouse.start();
      await settled(ROWS.length);
      await assertValues("away");
    });

    test("and the collector was killed", async () => {
      await create("killed", COLUMNS);
      await clickhouse.kill();
      shishi = await collector();
      await shishi.post(ROWS.join("\n"), { path: "/events/killed" });
      await shishi.kill();
      shishi = await collector();
      await clickhouse.start();
      await settled(ROWS.length);
      await assertValues("killed");
    });

    test("type-check off leaves them to ClickHouse", async () => {
      await create("off", "id UInt32, u UInt8");
      await clickhouse.kill();
      shishi = await collector("100ms", "--type-check=off");
      await shishi.post('{"id":1,"u":300}', { path: "/events/off" });
      await clickhouse.start();
      await settled(1);
      assert.equal(await clickhouse.query("SELECT u FROM off"), "44");
    });

    test("a column is made narrower while rows wait", async () => {
      await create("narrowed", "id UInt32, u UInt16, t DateTime");
      shishi = await collector(HELD);
      await shishi.post('{"id":0,"u":1}', { path: "/events/narrowed" });
      await settled(1);
      const rows = ['{"id":1,"u":300}', '{"id":2,"u":200}', '{"id":3,"u":-0}'];
      const answer = await shishi.post(rows.join("\n"), { path: "/events/narrowed" });
      assert.equal(answer.json.accepted, 2);
      await clickhouse.query("ALTER TABLE narrowed MODIFY COLUMN u UInt8");
      await settled(3);
      assert.equal(
        await clickhouse.query("SELECT id, u FROM narrowed ORDER BY id"),
        "0\t1\n2\t200",
      );
      assert.deepEqual([...await letters("narrowed")], [
        [1, "u: 300 does not fit UInt8 (0 to 255)"],
      ]);
    });

    test("a column was made narrower a moment before", async () => {
      shishi = await collector("20ms");
      const said: string[] = [];
      let known = 0;
      let taken = 0;
      for (const table of ["stale_0", "stale_1", "stale_2", "stale_3"]) {
        await create(table, "id UInt32, u UInt16");
        const path = `/events/${table}`;
        await shishi.post('{"id":1,"u":10}', { path });
        await eventually(async () => {
          assert.equal(await clickhouse.query(`SELECT count() FROM ${table}`), "1");
        }, SOON);
        await clickhouse.query(`ALTER TABLE ${table} MODIFY COLUMN u UInt8`);
        const answer = await shishi.post('{"id":2,"u":300}\n{"id":3,"u":30}', { path });
        if (answer.json.rejected > 0) known++;
        taken += 1 + answer.json.accepted;
        await settled(taken);
        assert.equal(
          await clickhouse.query(`SELECT id, u FROM ${table} ORDER BY id`),
          "1\t10\n3\t30",
        );
        said.push(...(await letters(table)).values());
      }
      assert.equal(said.length + known, 4);
      assert.ok(said.length > 0, "the door knew every time");
      assert.deepEqual([...new Set(said)], ["u: 300 does not fit UInt8 (0 to 255)"]);
    });

    test("a column is narrower and no row fits it: they wait", async () => {
      await create("waits", "id UInt32, u UInt16");
      shishi = await collector(HELD);
      await shishi.post('{"id":0,"u":1}', { path: "/events/waits" });
      await settled(1);
      await shishi.post('{"id":1,"u":300}\n{"id":2,"u":301}', { path: "/events/waits" });
      await clickhouse.query("ALTER TABLE waits MODIFY COLUMN u UInt8");
      await eventually(async () => {
        const { json } = await shishi.get("/readyz");
        assert.match(
          json.reasons?.join() ?? "",
          /the columns changed and no row fits them: u: 300 /,
        );
      }, SOON);
      await clickhouse.query("ALTER TABLE waits MODIFY COLUMN u UInt32");
      await settled(3);
      assert.equal(await clickhouse.query("SELECT u FROM waits ORDER BY id"), "1\n300\n301");
    });

    if (modern) {
      test("times are put in words that every version reads alike", async () => {
        await create("times", "id UInt32, t DateTime64(3, 'UTC')");
        await clickhouse.kill();
        shishi = await collector();
        const times = [
          ...["1764400000", "1764400000123", "1764400000.5", '"2025-11-29T07:06:40.123Z"'],
          ...['"2025-11-29"', '"1960-01-01T00:00:00.25Z"', "-1500"],
        ];
        const rows = times.map((time, id) => `{"id":${id},"t":${time}}`);
        await shishi.post(rows.join("\n"), { path: "/events/times" });
        await clickhouse.start();
        await settled(times.length);
        assert.equal(
          await clickhouse.query("SELECT id, toUnixTimestamp64Milli(t) FROM times ORDER BY id"),
          [
            ...["0\t1764400000000", "1\t1764400000123", "2\t1764400000500", "3\t1764400000123"],
            ...["4\t1764374400000", "5\t-315619199750"],
          ].join("\n"),
        );
        assert.match((await letters("times")).get(6)!, /^t: -1500 may be seconds, or parts/);
      });

      test("events, into a table of one's own", async () => {
        const events = [
          '{"eventType":"a","userId":300}',
          '{"eventType":"a","userId":"x"}',
          '{"eventType":"a","timestamp":"2150-01-01T00:00:00Z"}',
          '{"eventType":"a","timestamp":-1.5,"userId":"3"}',
          '{"eventType":"a","timestamp":"2025-11-29T07:06:40.123Z","userId":"4"}',
          '{"eventType":"a","timestamp":1764400000,"properties":{"a":"1"}}',
        ];
        const columns = (time: string, user: string) =>
          `id UUID, timestamp ${time}, event_type LowCardinality(String), user_id ${user},` +
          " properties Map(String, String)";
        const said = async (table: string) =>
          (await shishi.get(`/api/dead?table=${table}`)).json.letters
            .map(({ message }: { message: string }) => message).sort();
        const stored = (table: string) =>
          clickhouse.query(
            `SELECT toUnixTimestamp(timestamp), user_id FROM ${table} ORDER BY user_id`,
          );
        await create("own", columns("DateTime", "UInt8"));
        shishi = await collector("100ms", "--table=own", "--create-table=false");
        // The columns are asked because of it.
        assert.equal((await shishi.post(events.join("\n"))).json.accepted, 6);
        await settled(6);
        assert.equal(await stored("own"), "1764400000\t0\n1764400000\t4");
        const misfits = await said("own");
        assert.equal(misfits.length, 4);
        assert.match(misfits[0], /^timestamp: "2150-01-01T00:00:00Z" does not fit DateTime/);
        assert.match(misfits[1], /^timestamp: -1500 does not fit DateTime/);
        assert.deepEqual(misfits.slice(2), [
          'userId: "300" does not fit UInt8 (0 to 255)',
          'userId: "x" does not fit UInt8 (0 to 255)',
        ]);

        // The table that was made changes while events wait.
        await shishi.close();
        await create("later", columns("DateTime64(3, 'UTC')", "String"));
        shishi = await collector(HELD, "--table=later");
        assert.equal((await shishi.post(events.join("\n"))).json.accepted, 6);
        await clickhouse.query("ALTER TABLE later MODIFY COLUMN user_id Nullable(UInt8)");
        await settled(6);
        assert.deepEqual(await said("later"), misfits.slice(2));
        assert.equal(
          await clickhouse.query(
            "SELECT groupArray(ms) FROM (SELECT toUnixTimestamp64Milli(timestamp) AS ms FROM later ORDER BY ms)",
          ),
          "[-1500,1764400000000,1764400000123,5680281600000]",
        );
      });

      test("many rows, now and then one that does not fit", async () => {
        await create("many", "id UInt32, u UInt8, t DateTime64(3, 'UTC')");
        await clickhouse.kill();
        shishi = await collector("100ms", "--max-block-size=20000");
        const rows = Array.from(
          { length: 30_000 },
          (_, id) => `{"id":${id},"u":${id % 1000 === 7 ? 256 : id % 200},"t":${1764400000 + id}}`,
        );
        await shishi.post(rows.join("\n"), { path: "/events/many" });
        await clickhouse.start();
        await settled(rows.length);
        assert.equal(
          await clickhouse.query(
            "SELECT count(), uniqExact(id), sum(u != id % 200), sum(toUnixTimestamp(t) != 1764400000 + id) FROM many",
          ),
          "29970\t29970\t0\t0",
        );
        assert.deepEqual(
          [...(await letters("many")).keys()].sort((a, b) => a - b),
          Array.from({ length: 30 }, (_, at) => at * 1000 + 7),
        );
      });
    }
  });
}
