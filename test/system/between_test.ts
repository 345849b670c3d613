/**
 * What stands between the collector and ClickHouse: a path, headers and proxies that are wanted; proxies that
 * drop what an INSERT relies on, and profiles that forbid it, which are told and store nothing else.
 * Runs once: the collector is the binary.
 */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { startForwardProxy, startReverseProxy } from "../kit/http_proxy.ts";
import { type ClickHouse, startClickHouse, userXml } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";

const SOON = { withinMs: 15_000 };
/** A constant of the profile that would store less than it was told; and one that changes nothing. */
const PROFILES = ["harmful", "harmless"].map((name) => {
  const [setting, value] = name === "harmful"
    ? ["input_format_allow_errors_num", 10]
    : ["async_insert", 0];
  return `<${name}><${setting}>${value}</${setting}>` +
    `<constraints><${setting}><readonly/></${setting}></constraints></${name}>`;
}).join("");

describe("between the collector and ClickHouse", () => {
  let clickhouse: ClickHouse;
  let databases = 0;
  const closing: { close(): Promise<void> }[] = [];
  before(async () => {
    clickhouse = await startClickHouse({
      profiles: PROFILES,
      users: userXml("harmful", undefined, "harmful") + userXml("harmless", undefined, "harmless"),
    });
  });
  after(async () => {
    for (const one of closing.reverse()) await one.close();
    await clickhouse.close();
  });
  const open = <T extends { close(): Promise<void> }>(one: T): T => {
    closing.push(one);
    return one;
  };

  async function database(): Promise<string> {
    const name = `between${databases++}`;
    await clickhouse.query(`CREATE DATABASE ${name}`);
    await clickhouse.query(
      `CREATE TABLE ${name}.t (a UInt32) ENGINE = MergeTree ORDER BY a ` +
        "SETTINGS non_replicated_deduplication_window = 1000",
    );
    return name;
  }

  async function collector(env: Record<string, string>): Promise<Shishi> {
    const args = ["--tables=t", "--flush-interval=100ms"];
    return open(await startShishi({ binary: true, args, env }));
  }

  const checked = async (env: Record<string, string>) => {
    const { code, stdout } = await runShishi(["check", "--tables=t"], {
      binary: true,
      env: { ...env, SHISHI_LISTEN: "127.0.0.1:0" },
    });
    return { code, text: stdout };
  };

  /** Events, rows, a bad row, and the questions of the API all get there. */
  async function assertWorks(env: Record<string, string>, db: string): Promise<void> {
    const shishi = await collector(env);
    const rows = Array.from({ length: 500 }, (_, a) => `{"a":${a}}`).join("\n");
    assert.equal((await shishi.post(rows, { path: "/events/t" })).status, 202);
    assert.equal((await shishi.post({ eventType: "e" })).status, 202);
    await eventually(async () => {
      assert.equal(await clickhouse.query(`SELECT count() FROM ${db}.t`), "500");
      assert.deepEqual((await shishi.get("/api/metrics")).json.counts, { e: 1 });
    }, SOON);
    assert.equal((await shishi.get("/readyz")).status, 200);
    const { code, text } = await checked(env);
    assert.equal(code, 0, text);
  }

  for (const queriesOnly of [false, true]) {
    test(`a path, and a header that a proxy wants${queriesOnly ? "; no ping" : ""}`, async () => {
      const db = await database();
      const header = ["Authorization", "Bearer s3cret, with a comma"] as const;
      const proxy = open(
        await startReverseProxy(clickhouse.url, { path: "/click/house/", header, queriesOnly }),
      );
      const url = `${proxy.url}/click/house/?database=${db}`;
      await assertWorks({
        SHISHI_CLICKHOUSE_URL: url,
        SHISHI_CLICKHOUSE_HEADERS: header.join(": "),
      }, db);
      const without = await checked({ SHISHI_CLICKHOUSE_URL: url });
      assert.equal(without.code, 1);
      assert.match(without.text, /✗ clickhouse \S+: HTTP 401 .*the proxy says 401/);
      const wrong = await checked({ SHISHI_CLICKHOUSE_URL: `${proxy.url}/click/house/${db}` });
      assert.equal(wrong.code, 2);
    });
  }

  test("a proxy of the environment, and none to this host", async () => {
    const db = await database();
    const proxy = open(await startForwardProxy(clickhouse.url));
    const env = {
      HTTP_PROXY: proxy.url.replace("://", "://user:pass@"),
      SHISHI_CLICKHOUSE_URL: `http://clickhouse.test:8123/${db}`,
    };
    await assertWorks(env, db);
    assert.ok(proxy.seen.length > 0);
    for (const line of proxy.seen) {
      assert.match(line, /^(GET|POST) http:\/\/clickhouse\.test:8123\/.* Basic dXNlcjpwYXNz$/);
    }
    const away = { HTTP_PROXY: `http://127.0.0.1:${await freePort()}` };
    const other = await database();
    await assertWorks({ ...away, SHISHI_CLICKHOUSE_URL: `${clickhouse.url}/${other}` }, other);
    const told = await checked({ ...env, ...away });
    assert.match(
      told.text,
      /✗ clickhouse \S+: connection refused, through the proxy http:\/\/127\.0\.0\.1:\d+ \(HTTP_PROXY\)/,
    );
    const shishi = await collector({ ...away, SHISHI_CLICKHOUSE_URL: clickhouse.url });
    const health = await runShishi(["health", `--listen=${new URL(shishi.url).host}`], {
      binary: true,
      env: away,
    });
    assert.deepEqual([health.code, health.stderr], [0, ""]);
  });

  for (
    const [what, drops, why] of [
      ["settings, as chproxy does", "as chproxy", /settings do not arrive: \w+ is "/],
      [
        "the token",
        ["insert_deduplication_token"],
        /settings do not arrive: insert_deduplication_token is "" there, sent as/,
      ],
      [
        "one setting",
        ["async_insert"],
        /settings do not arrive: async_insert is "1" there, sent as/,
      ],
    ] as const
  ) {
    test(`a proxy that drops ${what}`, async () => {
      const db = await database();
      const proxy = open(await startReverseProxy(clickhouse.url, { drops }));
      const env = { SHISHI_CLICKHOUSE_URL: `${proxy.url}/${db}` };
      await assertTold(env, db, why);
      assert.match((await checked(env)).text, /→ let the proxy pass on every parameter, or/);
    });
  }

  test("a profile that forbids what rows rely on, and one that does not", async () => {
    const db = await database();
    const as = (user: string) => ({
      SHISHI_CLICKHOUSE_URL: `${clickhouse.url.replace("://", `://${user}:p@`)}/${db}`,
    });
    const why =
      /profile of this user forbids .*input_format_allow_errors_num should not be changed/;
    await assertTold(as("harmful"), db, why);
    assert.match(
      (await checked(as("harmful"))).text,
      /→ give this user a profile without that con/,
    );
    await clickhouse.query(`TRUNCATE TABLE ${db}.t`);
    await assertWorks(as("harmless"), db);
  });

  test("what answers 200 to everything and is no ClickHouse stores nothing", async () => {
    const db = await database();
    const asked: string[] = [];
    const foreign = createServer((request, answer) => {
      asked.push(request.url ?? "");
      request.resume();
      request.on("end", () => answer.writeHead(200, { "content-length": 0 }).end());
    });
    await new Promise<void>((resolve) => foreign.listen(0, "127.0.0.1", resolve));
    open({
      close: () => {
        foreign.closeAllConnections();
        return new Promise((resolve) => foreign.close(() => resolve()));
      },
    });
    const url = `http://127.0.0.1:${(foreign.address() as AddressInfo).port}`;
    const shishi = await collector({
      SHISHI_CLICKHOUSE_URL: url,
      SHISHI_SHUTDOWN_TIMEOUT: "200ms",
    });
    for (
      const [body, path] of [[{ eventType: "e" }, "/events"], ['{"a":1}', "/events/t"]] as const
    ) {
      assert.equal((await shishi.post(body, { path })).status, 202);
    }
    await eventually(async () => {
      assert.ok(asked.filter((url) => url.includes("query=INSERT")).length >= 2);
      const ready = await shishi.get("/readyz");
      assert.equal(ready.status, 503);
      assert.match(ready.text, /no ClickHouse/);
    }, SOON);
    const { ledger } = await shishi.status();
    assert.deepEqual([ledger.stored, ledger.dead, ledger.held, ledger.lost], [0, 0, 2, 0]);
    assert.match((await shishi.get("/api/metrics")).text, /no ClickHouse/);
    const { code, text } = await checked({ SHISHI_CLICKHOUSE_URL: url });
    assert.equal(code, 1);
    assert.match(text, /✗ clickhouse \S+: .*no ClickHouse/);
    // What is held is kept for the next start, at the right address.
    shishi.signal("SIGTERM");
    assert.equal((await shishi.exited).code, 0);

    const both = await collector({ SHISHI_CLICKHOUSE_URL: `${url}/${db},${clickhouse.url}/${db}` });
    assert.equal((await both.post('{"a":1}', { path: "/events/t" })).status, 202);
    await eventually(async () => {
      assert.equal(await clickhouse.query(`SELECT count() FROM ${db}.t`), "1");
    }, SOON);
    assert.equal((await both.get("/readyz")).status, 200);
  });

  /** `check` and `/readyz` say why; rows are kept, and nothing is stored. */
  async function assertTold(env: Record<string, string>, db: string, why: RegExp): Promise<void> {
    const { code, text } = await checked(env);
    assert.equal(code, 1, text);
    const wrong = text.split("\n").filter((line) => line.startsWith("✗ clickhouse"));
    assert.equal(wrong.length, 1, text);
    assert.match(wrong[0]!, why);
    const shishi = await collector(env);
    const rows = Array.from({ length: 100 }, (_, a) => `{"a":${a}}`);
    rows[50] = '{"a":"no number"}';
    const { status, json } = await shishi.post(rows.join("\n"), { path: "/events/t" });
    assert.equal(status, 202, JSON.stringify(json));
    await eventually(async () => {
      const ready = await shishi.get("/readyz");
      assert.equal(ready.status, 503);
      assert.match(JSON.stringify(ready.json.reasons).replaceAll('\\"', '"'), why);
    }, SOON);
    const { ledger } = await shishi.status();
    assert.deepEqual([ledger.stored, ledger.dead, ledger.held], [0, 0, json.accepted]);
    assert.equal(await clickhouse.query(`SELECT count() FROM ${db}.t`), "0");
  }
});
