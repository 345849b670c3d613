/**
 * Tables that the first rows make, columns for new keys, and what other programs do to tables meanwhile.
 * Runs once: test/deliver/ and test/admit/ have both runtimes.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type ClickHouse, startClickHouse, startOldClickHouse, userXml } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { assertDelivered, say } from "./books.ts";
import { startIn, WAIT } from "./database.ts";

describe("made tables", () => {
  let clickhouse: ClickHouse;
  const running: Shishi[] = [];
  before(async () => {
    clickhouse = await startClickHouse({
      users: userXml("writer", ["SELECT ON *.*", "INSERT ON *.*"]),
    });
  });
  after(async () => {
    for (const shishi of running) await shishi.close();
    await clickhouse.close();
  });
  const collector = async (database: string, ...args: readonly string[]) => {
    const shishi = await startIn(clickhouse, database, "--flush-interval=50ms", ...args);
    running.push(shishi);
    return shishi;
  };
  const rows = (path: string) => ({ ...WAIT, path: `/events/${path}` });

  test("one curl makes the table, and the next ones use it", async () => {
    const shishi = await collector("one", "--create-tables=logs_*");
    const line = '{"time":"2026-11-29T10:00:00Z","path":"/","status":200}';
    const first = await shishi.post(line, rows("logs_web"));
    assert.deepEqual(first.json, {
      accepted: 1,
      rejected: 0,
      ack: "clickhouse",
      created: "logs_web",
      columns: [
        "time DateTime64(3, 'UTC')",
        "path Nullable(String)",
        "status Nullable(Int64)",
      ],
      errors: [],
    });
    const second = await shishi.post(line.replace("200", "404"), rows("logs_web"));
    assert.equal(second.json.created, undefined);
    assert.equal(await clickhouse.query("SELECT sum(status) FROM one.logs_web"), "604");
    assert.equal((await shishi.post(line, rows("web"))).status, 404);
    const made = shishi.lines().filter(({ message }) => message === "made a table");
    assert.deepEqual((await shishi.status()).table_changes, { created: 1, columns: 0, widened: 0 });
    assert.match(String(made[0]?.ddl), /^CREATE TABLE `one`.`logs_web` \( `time` DateTime64/);
    assert.equal(made.length, 1);
  });

  test("collectors and clients that come at once make one table, and no row is lost or doubled", async () => {
    const args = ["--create-tables=logs_*", "--unknown-keys=column"];
    const three = await Promise.all([1, 2, 3].map(() => collector("many", ...args)));
    const clients = Array.from({ length: 60 }, async (_, n) => {
      const row = { time: 1764410400 + n, n, [`k${n % 7}`]: "x" };
      return (await three[n % 3]!.post(row, rows("logs_web"))).json;
    });
    const answers = await Promise.all(clients);
    assert.equal(answers.filter(({ created }) => created !== undefined).length, 1);
    for (const answer of answers) assert.equal(answer.accepted, 1, JSON.stringify(answer));
    for (const shishi of three) {
      await eventually(() => assertDelivered(shishi), { withinMs: 20_000 });
    }
    assert.equal(
      await clickhouse.query("SELECT count(), uniqExact(n), sum(n) FROM many.logs_web"),
      "60\t60\t1770",
    );
    assert.equal(
      await clickhouse.query(
        "SELECT count() FROM system.columns WHERE database = 'many' AND table = 'logs_web'",
      ),
      "9",
    );
    assert.equal(
      await clickhouse.query("SELECT countIf(k0 = 'x'), countIf(k6 = 'x') FROM many.logs_web"),
      "9\t8",
    );
  });

  test("a column that another program adds or widens is noticed within a second of the first error", async () => {
    await clickhouse.query("CREATE DATABASE others");
    await clickhouse.query("CREATE TABLE others.t (a UInt8) ENGINE = MergeTree ORDER BY tuple()");
    const shishi = await collector("others", "--tables=t");
    for (
      const [ddl, row] of [
        ["ADD COLUMN b String", { a: 1, b: "x" }],
        ["MODIFY COLUMN a UInt32", { a: 70_000 }],
      ] as const
    ) {
      assert.equal((await shishi.post({ a: 1 }, rows("t"))).status, 200);
      await clickhouse.query(`ALTER TABLE others.t ${ddl}`);
      const from = performance.now();
      await eventually(async () => assert.equal((await shishi.post(row, rows("t"))).status, 200), {
        withinMs: 4_000,
        everyMs: 50,
      });
      say(ddl, { "noticed after ms": Math.round(performance.now() - from) });
    }
  });

  test("columns for what the collector knows are filled", async () => {
    await clickhouse.query("CREATE DATABASE stamps");
    await clickhouse.query(
      "CREATE TABLE stamps.`Ün` (a UInt8, _received_at DateTime64(3), _client_ip IPv6, " +
        "_user_agent LowCardinality(String), _collector String, _request_id UUID) " +
        "ENGINE = MergeTree ORDER BY a",
    );
    const shishi = await collector("stamps", "--tables=*", "--id=edge-3");
    for (const path of ["Ün", "%C3%9Cn"]) {
      const answer = await shishi.post({ a: 1 }, rows(path));
      assert.equal(answer.status, 200, answer.text);
      assert.equal(
        await clickhouse.query(
          "SELECT count(), any(abs(dateDiff('second', _received_at, now64())) < 60), any(_client_ip), " +
            `any(_collector), any(_user_agent != '') FROM stamps.\`Ün\` WHERE _request_id = '${
              answer.headers.get("x-request-id")
            }'`,
        ),
        "1\t1\t::ffff:127.0.0.1\tedge-3\t1",
      );
    }
  });

  test("what the user may not do is told as the GRANT that lets it", async () => {
    await clickhouse.query("CREATE DATABASE rights");
    await clickhouse.query(
      "CREATE TABLE rights.logs_t (a UInt8) ENGINE = MergeTree ORDER BY tuple()",
    );
    const shishi = await startShishi({
      args: ["--create-tables=logs_*", "--unknown-keys=column", "--flush-interval=50ms"],
      env: { SHISHI_CLICKHOUSE_URL: `${clickhouse.url.replace("://", "://writer:p@")}/rights` },
    });
    running.push(shishi);
    const made = await shishi.post({ a: 1 }, rows("logs_new"));
    assert.equal(made.status, 403, made.text);
    assert.equal(
      made.json.error,
      "the user of clickhouse-url may not create logs_new: GRANT CREATE TABLE ON `rights`.* TO `writer`",
    );
    const wider = await shishi.post('{"a":1}\n{"a":2,"b":1}', rows("logs_t"));
    assert.equal(wider.status, 200, wider.text);
    assert.equal(
      wider.json.errors[0].error,
      "b: no column of logs_t: the user of clickhouse-url may not add columns to logs_t: " +
        "GRANT ALTER ADD COLUMN ON `rights`.`logs_t` TO `writer`",
    );
  });
});

test("check says whether tables can be made, and columns added", async () => {
  const users = userXml("writer", ["SELECT ON *.*", "INSERT ON *.*", "CREATE TABLE ON default.*"]);
  const clickhouse = await startClickHouse({ users });
  const old = await startOldClickHouse();
  const check = async (url: string, ...args: readonly string[]) => {
    const env = { SHISHI_CLICKHOUSE_URL: url };
    const { stdout } = await runShishi(["check", ...args], { env });
    return stdout.split("\n").filter((line) => /create-tables|unknown-keys/.test(line))
      .map((line) => line.replace(/ on \S+:/, ":"));
  };
  const asWriter = clickhouse.url.replace("://", "://writer:p@");
  try {
    await clickhouse.query("CREATE TABLE logs_a (a UInt8) ENGINE = MergeTree ORDER BY a");
    await clickhouse.query("CREATE DATABASE other");
    assert.deepEqual(
      await check(asWriter, "--create-tables=logs_*,other.t", "--unknown-keys=logs_*=column"),
      [
        "✗ unknown-keys of logs_a: the user may not add columns → " +
        "GRANT ALTER ADD COLUMN ON default.logs_a TO writer",
        "✓ create-tables: tables can be made in default",
        "✗ create-tables: the user may not create tables in other → " +
        "GRANT CREATE TABLE ON other.* TO writer",
      ],
    );
    assert.deepEqual(await check(clickhouse.url, "--tables=*"), []);
    const [line] = await check(old.url, "--create-tables=logs_*");
    assert.match(line ?? "", /^✗ create-tables: this server finds no types in rows: .*22\.10/);
  } finally {
    await clickhouse.close();
    await old.close();
  }
});

test("a body that is refused as a whole leaves its table as it was", async () => {
  const clickhouse = await startClickHouse();
  const shishi = await startIn(
    clickhouse,
    "whole",
    "--create-tables=logs_*",
    "--tables=t",
    "--unknown-keys=t=column",
    "--widen",
    "--max-new-columns=3",
  );
  try {
    await clickhouse.query(
      "CREATE TABLE whole.t (u UInt8, i Int32, k Int32) ENGINE = MergeTree ORDER BY k",
    );
    const columns = () =>
      clickhouse.query(
        "SELECT groupArray(concat(table, '.', name, ' ', type)) FROM system.columns WHERE database = 'whole' AND table != 'analytics_events'",
      );
    const before = await columns();
    const strict = "?strict=1";
    const many = Array.from({ length: 30 }, (_, n) => ({ new: n }));
    const bodies: readonly [what: string, path: string, rows: readonly unknown[]][] = [
      ["a new key, and a value that no type of its column holds", "t", [{ new: 1, u: "x" }]],
      ["a value that a wider type holds, and one that none does", "t", [{ i: 1.5, u: "x" }]],
      ["a new key, and another row that is wrong", `t${strict}`, [{ new: 1 }, { u: "x" }]],
      ["a value for a wider type, and another row that is wrong", `t${strict}`, [
        { i: 1.5 },
        { u: "x" },
      ]],
      ["more new keys than there is room for", `t${strict}`, [{ a: 1, b: 1, c: 1, d: 1 }]],
      ["values of a new key of which the last is none", `t${strict}`, [...many, { new: "x" }]],
      [
        "a new table, whose last row does not fit",
        `logs_a${strict}`,
        [...many, { new: "x" }]
          .flatMap((row) => Array(40).fill(row)),
      ],
    ];
    for (const [what, path, rows] of bodies) {
      const body = rows.map((row) => JSON.stringify(row)).join("\n");
      const { status, text } = await shishi.post(body, { path: `/events/${path}` });
      assert.equal(await columns(), before, `${what}: ${text}`);
      assert.equal(status, 400, `${what}: ${text}`);
      assert.doesNotMatch(text, /created|columns":/, what);
    }
    // And where nothing is wrong, it is changed.
    const good = await shishi.post('{"new":1}\n{"i":1.5}', { path: `/events/t${strict}` });
    assert.deepEqual([good.status, good.json.columns], [
      202,
      ["new Nullable(Int64)", "i Float64"],
    ]);
  } finally {
    await shishi.close();
    await clickhouse.close();
  }
});

test("rows that were taken unseen and of which no table can be made are dead letters; the others make it", async () => {
  const clickhouse = await startClickHouse();
  const shishi = await startIn(
    clickhouse,
    "unmade",
    "--create-tables=logs_*",
    "--flush-interval=50ms",
    "--max-new-columns=20",
  );
  try {
    await clickhouse.kill();
    const wide = Object.fromEntries(Array.from({ length: 21 }, (_, at) => [`k${at}`, at]));
    const large = '{"n":1e999}'.replace("1e999", "9".repeat(30));
    const good = Array.from({ length: 50 }, (_, n) => JSON.stringify({ n }));
    const bodies: readonly [table: string, rows: readonly string[]][] = [
      ["logs_none", Array.from({ length: 2500 }, () => "{}")],
      ["logs_large", [large, large]],
      ["logs_wide", good.with(17, JSON.stringify(wide)).with(40, "{}")],
      ["logs_only_wide", [JSON.stringify(wide), JSON.stringify(wide)]],
    ];
    for (const [table, rows] of bodies) {
      const answer = await shishi.post(rows.join("\n"), { path: `/events/${table}` });
      assert.equal(answer.json.accepted, rows.length, answer.text);
    }
    await clickhouse.start();
    await eventually(() => assertDelivered(shishi), { withinMs: 60_000 });
    await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 200), {
      withinMs: 30_000,
    });
    const dead = async (table: string) => (await shishi.get(`/api/dead?table=${table}`)).json;
    assert.equal((await dead("logs_none")).total, 2500);
    assert.match(
      (await dead("logs_none")).letters[0].message,
      /^cannot create logs_none: its rows have no keys/,
    );
    assert.match((await dead("logs_large")).letters[0].message, /too large for any$/);
    assert.equal((await dead("logs_only_wide")).total, 2);
    const { total, letters } = await dead("logs_wide");
    assert.deepEqual([total, letters[0].message], [
      1,
      "k0: no column of logs_wide, which has n",
    ]);
    assert.equal(
      await clickhouse.query("SELECT count(), sum(n), countIf(n IS NULL) FROM unmade.logs_wide"),
      `49\t${49 * 25 - 17 - 40}\t1`,
    );
    assert.equal(
      await clickhouse.query(
        "SELECT name FROM system.tables WHERE database = 'unmade' AND name LIKE 'logs%'",
      ),
      "logs_wide",
    );
  } finally {
    await shishi.close();
    await clickhouse.close();
  }
});

test("while ClickHouse is away rows for a table that it has not got wait, and make it", async () => {
  const clickhouse = await startClickHouse();
  const shishi = await startIn(
    clickhouse,
    "away",
    "--create-tables=logs_*",
    "--unknown-keys=logs_*=column",
    "--flush-interval=50ms",
  );
  try {
    await clickhouse.kill();
    for (const row of [{ n: 1 }, { n: 2, b: "x" }, { n: 3, c: [1] }]) {
      const { status, text } = await shishi.post(row, { path: "/events/logs_late" });
      assert.equal(status, 202, text);
    }
    await clickhouse.start();
    await eventually(() => assertDelivered(shishi), { withinMs: 60_000 });
    assert.equal(
      await clickhouse.query("SELECT count(), sum(n), max(b), max(c) FROM away.logs_late"),
      "3\t6\tx\t[1]",
    );
  } finally {
    await shishi.close();
    await clickhouse.close();
  }
});
