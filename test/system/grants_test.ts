/**
 * Users who may not do everything: the door takes what they may write and refuses the rest with the reason,
 * and `check` says what is missing.
 * Runs once: the collector is the binary.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type ClickHouse, startClickHouse, userXml } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";

const USERS = [
  // Sees what it may write, and nothing else.
  userXml("writer", ["INSERT(id, a) ON default.g"]),
  // Sees all of it.
  userXml("seer", ["SELECT ON default.g", "INSERT(id, a) ON default.g", "INSERT ON default.plain"]),
  userXml("reader", ["SELECT ON default.*"]),
  userXml("bound", undefined, "bound"),
  userXml("settled", undefined, "settled"),
].join("");
const PROFILES = "<bound><readonly>1</readonly></bound><settled><readonly>2</readonly></settled>";

describe("rights", () => {
  let clickhouse: ClickHouse;
  const running: Shishi[] = [];
  before(async () => {
    clickhouse = await startClickHouse({ users: USERS, profiles: PROFILES });
    const window = "SETTINGS non_replicated_deduplication_window = 1000";
    for (
      const sql of [
        "CREATE TABLE g (id UInt32, a String, secret String DEFAULT 'x', m UInt8 MATERIALIZED 1)" +
        ` ENGINE = MergeTree ORDER BY id ${window}`,
        `CREATE TABLE e (id UInt32, raw String EPHEMERAL, len UInt32 DEFAULT length(raw)) ENGINE = MergeTree ORDER BY id ${window}`,
        "CREATE TABLE plain (id UInt32) ENGINE = MergeTree ORDER BY id",
        "CREATE VIEW v AS SELECT id FROM g",
        "CREATE DICTIONARY d (id UInt64, a String) PRIMARY KEY id SOURCE(CLICKHOUSE(TABLE 'g')) LAYOUT(FLAT()) LIFETIME(0)",
      ]
    ) await clickhouse.query(sql);
  });
  after(async () => {
    for (const shishi of running) await shishi.close();
    await clickhouse.close();
  });

  const urlOf = (user: string) => clickhouse.url.replace("://", `://${user}:p@`);
  async function collector(user: string): Promise<Shishi> {
    const shishi = await startShishi({
      binary: true,
      args: ["--tables=*", "--flush-interval=100ms"],
      env: { SHISHI_CLICKHOUSE_URL: user === "" ? clickhouse.url : urlOf(user) },
    });
    running.push(shishi);
    return shishi;
  }
  const checked = async (user: string, table: string) => {
    const { code, stdout } = await runShishi(["check", "--tables", table], {
      binary: true,
      env: { SHISHI_CLICKHOUSE_URL: urlOf(user), SHISHI_LISTEN: "127.0.0.1:0" },
    });
    return { code, line: stdout.split("\n").filter((line) => line.includes(`table ${table} `)) };
  };

  for (
    const [user, why] of [["writer", /no column of g/], [
      "seer",
      /no right to insert it into g/,
    ]] as const
  ) {
    test(`some columns: ${user}`, async () => {
      const shishi = await collector(user);
      const body = [
        `{"id":1,"a":"${user}"}`,
        `{"id":2,"a":"${user}","secret":"s"}`,
        '{"id":3,"m":2}',
        `{"a":"${user}"}`,
      ];
      const { status, json } = await shishi.post(body.join("\n"), { path: "/events/g" });
      assert.deepEqual([status, json.accepted, json.rejected], [202, 2, 2], JSON.stringify(json));
      assert.match(json.errors[0].error, why);
      // Where all rows are refused for it, the client has no right; a mistake among them is a mistake.
      const secret = `{"id":5,"a":"${user}","secret":"s"}`;
      for (
        const [rows, query, expected] of [
          [[secret, secret], "", user === "seer" ? 403 : 400],
          [[secret, '{"id":6}'], "?strict=1", user === "seer" ? 403 : 400],
          [[secret, '{"id":"x"}'], "", 400],
        ] as const
      ) {
        const none = await shishi.post(rows.join("\n"), { path: `/events/g${query}` });
        assert.deepEqual([none.status, none.json.accepted], [expected, 0], none.text);
      }
      await eventually(async () => {
        assert.equal(
          await clickhouse.query(`SELECT id, secret FROM g WHERE a = '${user}' ORDER BY id`),
          "0\tx\n1\tx",
        );
      }, { withinMs: 15_000 });
      const { json: { ready } } = await shishi.get("/readyz");
      assert.equal(ready ?? true, true);
    });
  }

  for (
    const [user, why] of [
      ["reader", /no right to insert into g/],
      ["bound", /may only read/],
      ["settled", /may only read/],
    ] as const
  ) {
    test(`none: ${user}`, async () => {
      const shishi = await collector(user);
      const { status, json } = await shishi.post('{"id":1}', { path: "/events/g" });
      assert.equal(status, 403, JSON.stringify(json));
      assert.match(json.error, why);
      assert.equal((await shishi.status()).ledger.held, 0);
    });
  }

  test("views and dictionaries, and what an EPHEMERAL column costs", async () => {
    const shishi = await collector("");
    for (const [table, kind] of [["v", "View"], ["d", "Dictionary"]]) {
      const { status, json } = await shishi.post('{"id":1}', { path: `/events/${table}` });
      assert.deepEqual([status, json.error], [409, `${table} is a ${kind}, which takes no rows`]);
    }
    const rows = Array.from({ length: 10_000 }, (_, id) => `{"id":${id},"raw":"abcd"}`);
    assert.equal((await shishi.post(rows.join("\n"), { path: "/events/e" })).status, 202);
    await eventually(async () => {
      assert.equal(await clickhouse.query("SELECT count(), min(len) FROM e"), "10000\t4");
    }, { withinMs: 15_000 });
    const metrics = (await shishi.get("/metrics")).text;
    const inserts = /^shishi_insert_duration_seconds_count (\d+)/m.exec(metrics)?.[1];
    assert.ok(Number(inserts) <= 3, `${inserts} INSERTs`);
    assert.doesNotMatch(metrics, /^shishi_insert_errors_total\{/m);
    assert.doesNotMatch(
      (await shishi.post('{"id":1,"m":1}', { path: "/events/g" })).text,
      /no column/,
    );
  });

  test("check", async () => {
    const some = await checked("seer", "g");
    assert.equal(some.code, 1, "no events there");
    assert.match(some.line[0]!, /^✓ table g on \S+: takes rows with a, id alone/);
    const unseen = await checked("seer", "plain");
    assert.match(
      unseen.line[1] ?? "",
      /^! .*cannot be seen.* → GRANT SELECT ON system\.merge_tree_settings TO seer$/,
    );
    const none = await checked("reader", "g");
    assert.match(
      none.line[0]!,
      /^✗ table g on \S+: the user of clickhouse-url has no right to insert into g → GRANT INSERT ON default\.g TO reader$/,
    );
  });
});
