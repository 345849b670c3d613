/**
 * The door knows the table, on a ClickHouse in another zone: what it takes is stored as it was sent,
 * under whatever name the table has; what the table cannot hold is an error of its row.
 * Runs once: test/admit/ has both runtimes.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { ClickHouse } from "../kit/servers.ts";
import { BUILDS, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { ENGINES } from "../servers/engines.ts";

const NAMES = ["my-events", "2026_log", "Ünï", "other.t"];

for (const { version, modern, start } of ENGINES) {
  describe(`ClickHouse ${version}`, () => {
    let clickhouse: ClickHouse;
    let shishi: Shishi;
    const window = modern ? "SETTINGS non_replicated_deduplication_window = 1000" : "";
    const create = (name: string, columns: string) =>
      clickhouse.query(
        `CREATE TABLE ${name} (${columns}) ENGINE = MergeTree ORDER BY tuple() ${window}`,
      );
    before(async () => {
      clickhouse = await start();
      await clickhouse.query("CREATE DATABASE other");
      for (const name of NAMES) {
        await create(name.split(".").map((part) => `\`${part}\``).join("."), "a UInt8");
      }
      await create("n", "u UInt8, i Int32, d Date, e Enum8('new' = 1, 'paid' = 2), t DateTime");
      shishi = await startShishi({
        args: [
          `--clickhouse-url=${clickhouse.url}`,
          "--tables=*,other.t",
          "--flush-interval=100ms",
        ],
      });
    });
    after(async () => {
      await shishi.close();
      await clickhouse.close();
    });

    const assertStored = (sql: string, wanted: string) =>
      eventually(async () => assert.equal(await clickhouse.query(sql), wanted), {
        withinMs: 15_000,
      });

    test("names", async () => {
      for (const name of NAMES) {
        const path = `/events/${encodeURIComponent(name)}`;
        assert.equal((await shishi.post('{"a":1}', { path })).status, 202, name);
        const quoted = name.split(".").map((part) => `\`${part}\``).join(".");
        await assertStored(`SELECT count() FROM ${quoted}`, "1");
      }
      assert.equal((await shishi.post("{}", { path: "/events/system.query_log" })).status, 404);
    });

    test("values", async () => {
      const rows = [
        '{"u":300}',
        '{"i":2147483648}',
        '{"i":-2147483649}',
        '{"d":"2026-13-01"}',
        '{"d":"2026-02-30"}',
        '{"e":null}',
        '{"t":1764400000123}',
        '{"u":7,"i":-5,"d":"2026-01-02","e":"paid","t":"2025-11-29 07:06:40"}',
        '{"u":8,"e":2,"t":1764400000.5,"d":"2026-01-02"}',
        '{"u":9,"e":"new","t":"2025-11-29T09:06:40+02:00","d":"2026-01-02"}',
      ];
      const answer = await shishi.post(rows.join("\n"), { path: "/events/n" });
      const { accepted, rejected, errors } = answer.json;
      assert.deepEqual([answer.status, accepted, rejected], [202, 3, 7]);
      assert.equal(errors[0].error, "u: 300 does not fit UInt8 (0 to 255)");
      await assertStored(
        "SELECT u, i, toString(d), toString(e), toUnixTimestamp(t) FROM n ORDER BY u",
        [
          "7\t-5\t2026-01-02\tpaid\t1764400000",
          "8\t0\t2026-01-02\tpaid\t1764400000",
          "9\t0\t2026-01-02\tnew\t1764400000",
        ].join("\n"),
      );
    });

    test("null is the default, and so is what a row leaves out", async () => {
      await create(
        "nulls",
        "k UInt8, f Float64, s String, a UInt8 DEFAULT 7, b UInt8 DEFAULT a + 1, d Date, t DateTime, " +
          "r Array(UInt8), z Enum8('z' = 0, 'y' = 1), u Nullable(UInt8) DEFAULT 9",
      );
      const names = [..."fsabdtrz"];
      const given = '"f":1.5,"s":"x","a":20,"b":30,"d":"2026-01-02","t":5,"r":[1],"z":"y","u":null';
      const rows = [
        `{"k":0,${given}}`,
        `{"k":1,${names.map((name) => `"${name}":null`).join(",")}}`,
        '{"k":2}',
        '{"k":3,"a":20}',
        '{"k":4,"b":30}',
      ];
      const { json } = await shishi.post(rows.join("\n"), { path: "/events/nulls" });
      assert.equal(json.accepted, rows.length);
      const none = "0\t\t7\t8\t0\t0\t[]\tz\t9";
      await assertStored(
        "SELECT k, f, s, a, b, toUInt16(d), toUInt32(t), r, z, u FROM nulls ORDER BY k",
        [
          "0\t1.5\tx\t20\t30\t20455\t5\t[1]\ty\t\\N",
          `1\t${none}`,
          `2\t${none}`,
          `3\t${none.replace("7\t8", "20\t21")}`,
          `4\t${none.replace("7\t8", "7\t30")}`,
        ].join("\n"),
      );
    });

    test("the last day that every ClickHouse knows", async () => {
      await create("late", "d Date, t DateTime");
      const { json } = await shishi.post(
        [
          '{"d":"2105-12-31","t":"2105-12-31 23:59:59"}',
          '{"d":"2106-01-01"}',
          '{"t":"2106-01-01 00:00:00"}',
        ].join("\n"),
        { path: "/events/late" },
      );
      assert.equal(json.accepted, modern ? 3 : 1);
      await assertStored(
        "SELECT toString(max(d)), toString(max(t)) FROM late",
        modern ? "2106-01-01\t2106-01-01 00:00:00" : "2105-12-31\t2105-12-31 23:59:59",
      );
    });

    test("an hour that clocks never show, and one that they show twice", async () => {
      await create("berlin", "id UInt8, t DateTime('Europe/Berlin')");
      const times = ['"2026-03-29T02:30"', '"2026-03-29 03:00:00"', '"2026-10-25 02:30:00"'];
      const body = times.map((time, id) => `{"id":${id},"t":${time}}`).join("\n");
      const { json } = await shishi.post(body, { path: "/events/berlin" });
      assert.match(json.errors[0].error, /^t: "2026-03-29T02:30" is no time in Europe\/Berlin/);
      await assertStored(
        "SELECT id, toUnixTimestamp(t) FROM berlin ORDER BY id",
        "1\t1774746000\n2\t1792888200",
      );
    });

    // 18.16 cannot hold events.
    if (modern) {
      test("events in a table of one's own", async () => {
        await create(
          "own",
          "id FixedString(36), timestamp DateTime('Europe/Berlin'), event_type Enum8('a' = 1, 'b' = 2), " +
            "user_id Nullable(UInt16), properties Map(LowCardinality(String), Decimal(6, 2))",
        );
        const own = await startShishi({
          args: [
            ...[`--clickhouse-url=${clickhouse.url}`, "--table=own", "--flush-interval=100ms"],
          ],
        });
        try {
          const id = "01890a5d-ac96-774b-bcce-b302099a805";
          const rows: [event: string, wrong: RegExp | null][] = [
            [`{"id":"${id}0","eventType":"a","userId":65535,"timestamp":1764400000123}`, null],
            [`{"id":"${id}1","eventType":"b","timestamp":"2025-11-29T09:06:40.999+02:00"}`, null],
            [
              `{"id":"${id}2","eventType":"2","timestamp":0,"properties":{"a":1.50,"b":"1e2"}}`,
              null,
            ],
            ['{"eventType":"c"}', /^eventType: "c" does not fit Enum8\('a' = 1, 'b' = 2\)/],
            [
              '{"eventType":"a","userId":"65536"}',
              /^userId: "65536" does not fit UInt16 \(0 to 65535\)$/,
            ],
            ['{"eventType":"a","userId":"x"}', /^userId: "x" does not fit UInt16/],
            [
              '{"eventType":"a","timestamp":"2106-02-07T06:28:16Z"}',
              /^timestamp: "2106-.* does not fit DateTime/,
            ],
            ['{"eventType":"a","timestamp":-1.5}', /^timestamp: -1500 does not fit DateTime/],
            [
              '{"eventType":"a","properties":{"a":1.239}}',
              /^properties.a: 1.239 does not fit Decimal\(6, 2\)/,
            ],
            ['{"eventType":"a","properties":{"a":"x"}}', /^properties.a: "x" does not fit/],
          ];
          // In an array too, and once the table is known.
          await eventually(async () => {
            assert.equal((await own.post('[{"eventType":"c"}]')).status, 400);
          }, { withinMs: 15_000 });
          const { json } = await own.post(rows.map(([event]) => event).join("\n"));
          const wrong = rows.flatMap(([, wrong], index) =>
            wrong === null ? [] : [{ index, wrong }]
          );
          assert.deepEqual([json.accepted, json.rejected], [
            rows.length - wrong.length,
            wrong.length,
          ]);
          for (const [at, { index, wrong: said }] of wrong.entries()) {
            assert.equal(json.errors[at].index, index);
            assert.match(json.errors[at].error, said);
          }
          await assertStored(
            "SELECT id, toUnixTimestamp(timestamp), event_type, user_id, properties FROM own ORDER BY id",
            [
              `${id}0\t1764400000\ta\t65535\t{}`,
              `${id}1\t1764400000\tb\t\\N\t{}`,
              `${id}2\t0\tb\t\\N\t{'a':1.5,'b':100}`,
            ].join("\n"),
          );
        } finally {
          await own.close();
        }
      });

      test("times of events", async () => {
        const old = ["-1.5", '"1969-12-31T23:59:58.500Z"', "-315619199750"]
          .map((time) => `{"eventType":"old","timestamp":${time}}`).join("\n");
        assert.equal((await shishi.post(old)).json.accepted, 3);
        await assertStored(
          "SELECT toUnixTimestamp64Milli(timestamp) AS ms FROM analytics_events WHERE event_type = 'old' ORDER BY ms",
          "-315619199750\n-1500\n-1500",
        );
        const times = ["1764400000123", "1764400000.123", '"2025-11-29T07:06:40.123Z"'];
        const body = times.map((time) => `{"eventType":"e","timestamp":${time}}`).join("\n");
        assert.equal((await shishi.post(`${body}\n{"eventType":"now"}`)).status, 202);
        await assertStored(
          "SELECT event_type, count(), uniqExact(timestamp), " +
            "any(if(event_type = 'e', toUnixTimestamp64Milli(timestamp) = 1764400000123, " +
            "abs(now() - timestamp) < 60)) FROM analytics_events WHERE event_type != 'old' GROUP BY event_type ORDER BY 1",
          "e\t3\t1\t1\nnow\t1\t1\t1",
        );
        const { json } = await shishi.get("/api/metrics?from=2025-11-29&to=2025-11-30");
        assert.deepEqual(json.counts, { e: 3 });
      });
    }
  });
}

describe("a window of times", () => {
  const HOUR_MS = 3_600_000;
  const event = (timestamp: unknown) => JSON.stringify({ eventType: "e", timestamp });
  const iso = (ms: number) => new Date(ms).toISOString();

  for (const binary of BUILDS) {
    test(`max-event-age and max-event-skew${binary ? " (binary)" : ""}`, async () => {
      const shishi = await startShishi({
        binary,
        args: ["--max-event-age=24h", "--max-event-skew=1h", "--clickhouse-url=http://127.0.0.1:9"],
      });
      try {
        const now = Date.now();
        const times: [timestamp: unknown, why: RegExp | null][] = [
          [undefined, null],
          [now - 23 * HOUR_MS, null],
          [iso(now - 23 * HOUR_MS), null],
          [(now - 23 * HOUR_MS) / 1000, null],
          [now + 0.9 * HOUR_MS, null],
          [now - 25 * HOUR_MS, /^timestamp: \d+ is older than max-event-age allows$/],
          [iso(now - 25 * HOUR_MS), /older than max-event-age/],
          [Math.floor((now - 25 * HOUR_MS) / 1000), /older than max-event-age/],
          ["1970-01-01T00:00:00Z", /older than max-event-age/],
          [now + 2 * HOUR_MS, /further ahead than max-event-skew allows$/],
          [iso(now + 2 * HOUR_MS), /further ahead than max-event-skew/],
          ["2299-01-01T00:00:00Z", /further ahead than max-event-skew/],
        ];
        const { status, json } = await shishi.post(times.map(([time]) => event(time)).join("\n"));
        assert.deepEqual([status, json.accepted, json.rejected], [202, 5, 7], JSON.stringify(json));
        for (const [at, { index, error }] of json.errors.entries()) {
          assert.equal(index, at + 5);
          assert.match(error, times[index]![1]!);
        }
        const one = await shishi.post(event(now - 25 * HOUR_MS));
        assert.deepEqual([one.status, one.json.rejected], [400, 1]);
        const { ledger } = await shishi.status();
        assert.deepEqual([ledger.received, ledger.rejected, ledger.held], [13, 8, 5]);
      } finally {
        await shishi.close();
      }
    });
  }
});
