/**
 * Stopping: one path for SIGTERM, SIGINT and NATS. What can be delivered is delivered at once, what
 * cannot is said, in time.
 */

import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { connect } from "nats.ws";
import { startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { freePort } from "../kit/free_port.ts";
import { testOnce } from "../kit/once.ts";
import { type ClickHouse, type Nats, startClickHouse, startNats } from "../kit/servers.ts";
import { BUILDS, type Shishi, startShishi } from "../kit/shishi.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, patient } from "../kit/wait.ts";
import { events, holds, ledgerAtEnd, rawClient, ready, says, stopBy } from "./around.ts";

/** Beyond a limit: starting timers, ending a process, two busy cores. */
const SLACK_MS = 1_000;

describe("stopping", () => {
  let clickhouse: ClickHouse;
  let nats: Nats;
  before(async () => {
    [clickhouse, nats] = await Promise.all([startClickHouse(), startNats()]);
  });
  after(async () => {
    await Promise.all([clickhouse.close(), nats.close()]);
  });

  const rowsIn = (table: string) => clickhouse.query(`SELECT count() FROM ${table}`);

  async function publishStop(): Promise<void> {
    const connection = await connect({ servers: nats.url });
    connection.publish("shishi.stop", "Exit");
    await connection.flush();
    await connection.close();
  }

  const ways: [string, (shishi: Shishi) => void | Promise<void>][] = [
    ["SIGTERM", (shishi) => shishi.signal("SIGTERM")],
    ["SIGINT", (shishi) => shishi.signal("SIGINT")],
    ["NATS", publishStop],
  ];
  for (const [name, stop] of ways) {
    test(`${name}: drains, refuses what is new, answers what is under way`, async () => {
      const table = `drain_${name.toLowerCase()}`;
      const proxy = await startTcpProxy(clickhouse.port);
      const shishi = await startShishi({
        args: ["--flush-interval", "1h", "--shutdown-timeout", "20s", "--log-level", "debug"],
        env: {
          SHISHI_CLICKHOUSE_URL: proxy.url,
          SHISHI_TABLE: table,
          SHISHI_NATS_URL: nats.url,
        },
      });
      const half = await rawClient(shishi.url);
      try {
        await ready(shishi);
        await says(shishi, "nats: connected");
        // Before the first row: once the columns are known, rows get a batch of their own.
        proxy.hang();
        assert.equal((await shishi.post(events(10))).status, 202);
        const waiting = shishi.post(events(1), { headers: { Prefer: "wait=30" } });
        waiting.catch(() => {});
        half.send(
          "POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: 21\r\nConnection: close\r\n\r\n{",
        );
        await holds(shishi, 11);

        await stop(shishi);
        await eventually(async () => {
          const answer = await shishi.get("/readyz");
          assert.equal(answer.status, 503);
          assert.ok(answer.json.reasons.includes("draining"), answer.text);
        }, { withinMs: 5_000 });
        const late = await shishi.post(events(1));
        assert.equal(late.status, 503, late.text);
        assert.match(late.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
        assert.match(late.json.error, /stopping/);
        assert.equal((await shishi.get("/healthz")).status, 200);
        assert.equal((await shishi.status()).state, "draining");
        half.send('"eventType":"click"}');
        await half.closed;
        assert.match(half.received(), /^HTTP\/1.1 503 [\s\S]*retry-after: \d/i);

        proxy.resume();
        const answered = await waiting;
        assert.equal(answered.status, 200, answered.text);
        assert.equal(answered.json.ack, "clickhouse");
        assert.deepEqual(await shishi.exited, { code: 0, signal: null });
        const { stored, held, lost } = ledgerAtEnd(shishi);
        assert.deepEqual([stored, held, lost], [11, 0, 0]);
        assert.equal(await rowsIn(table), "11");
      } finally {
        await half.close();
        await shishi.close();
        await proxy.close();
      }
    });
  }

  testOnce(
    "open batches of every table are sent at once, whatever the flush interval",
    async () => {
      await clickhouse.query("CREATE TABLE one (n UInt32) ENGINE = MergeTree ORDER BY n");
      await clickhouse.query("CREATE TABLE two (n UInt32) ENGINE = MergeTree ORDER BY n");
      const shishi = await startShishi({
        args: ["--clickhouse-url", clickhouse.url, "--flush-interval", "1h", "--tables", "*"],
        env: { SHISHI_TABLE: "at_once" },
      });
      try {
        await ready(shishi);
        await shishi.post(events(1000));
        await shishi.post({ n: 1 }, { path: "/events/one" });
        await shishi.post([{ n: 1 }, { n: 2 }], { path: "/events/two" });
        await holds(shishi, 1003);
        const { code, tookMs } = await stopBy(shishi);
        assert.equal(code, 0, shishi.stderr());
        assert.ok(tookMs < patient(2_000), `took ${tookMs} ms`);
        assert.equal(await rowsIn("at_once"), "1000");
        assert.equal(await rowsIn("one"), "1");
        assert.equal(await rowsIn("two"), "2");
      } finally {
        await shishi.close();
      }
    },
  );

  for (const binary of BUILDS) {
    test(`ClickHouse hangs: it ends in time, the rows wait on disk${binary ? " (binary)" : ""}`, async () => {
      const proxy = await startTcpProxy(clickhouse.port);
      const shishi = await startShishi({
        binary,
        args: ["--flush-interval", "1h", "--shutdown-timeout", "1s"],
        env: { SHISHI_CLICKHOUSE_URL: proxy.url, SHISHI_TABLE: "hanging" },
      });
      try {
        await ready(shishi);
        // Before the first row: once the columns are known these rows get a batch of their own.
        proxy.hang();
        await shishi.post(events(70));
        const waiting = shishi.post(events(7), { headers: { Prefer: "wait=60" } });
        waiting.catch(() => {});
        await holds(shishi, 77);
        const { code, tookMs } = await stopBy(shishi);
        assert.equal(code, 0);
        assert.ok(tookMs >= 900 && tookMs < patient(1_000 + SLACK_MS), `took ${tookMs} ms`);
        const last = ledgerAtEnd(shishi);
        assert.deepEqual([last["held"], last["lost"]], [77, 0]);
        assert.equal(last["message"], "stopped; 77 rows wait on disk");
        // Whoever still waited is not told that the rows are in ClickHouse.
        assert.notEqual((await waiting).status, 200);
      } finally {
        await shishi.close();
        await proxy.close();
      }
    });
  }

  for (const ack of ["disk", "memory"]) {
    test(`ClickHouse is down, ack=${ack}: the next start delivers what was acknowledged`, async () => {
      const dataDir = tempDir("stopping");
      const table = `down_${ack}`;
      const args = ["--flush-interval", "50ms", "--shutdown-timeout", "700ms", "--ack", ack];
      const env = { SHISHI_DATA_DIR: dataDir, SHISHI_TABLE: table };
      const away = `http://127.0.0.1:${await freePort()}`;
      const first = await startShishi({ args, env: { ...env, SHISHI_CLICKHOUSE_URL: away } });
      try {
        assert.equal((await first.post(events(5))).json.ack, ack);
        await says(first, "insert failed; will retry");
        const { code, tookMs } = await stopBy(first, "SIGINT");
        assert.equal(code, 0);
        assert.ok(tookMs < patient(700 + SLACK_MS), `took ${tookMs} ms`);
        const { lost, held, stored } = ledgerAtEnd(first);
        assert.deepEqual([lost, held, stored], [0, 5, 0]);
      } finally {
        await first.close();
      }
      const next = await startShishi({
        args,
        env: { ...env, SHISHI_CLICKHOUSE_URL: clickhouse.url },
      });
      try {
        await eventually(async () => assert.equal(await rowsIn(table), "5"), { withinMs: 10_000 });
        const { recovered, received } = (await next.status()).ledger;
        assert.deepEqual([recovered, received], [5, 0]);
      } finally {
        await next.close();
        removeDir(dataDir);
      }
    });
  }

  testOnce(
    "neither ClickHouse nor the disk takes the rows: the loss is told, exit code 1",
    async () => {
      const dataDir = tempDir("stopping");
      const shishi = await startShishi({
        args: ["--flush-interval", "1h", "--shutdown-timeout", "0s", "--ack", "memory"],
        env: {
          SHISHI_DATA_DIR: dataDir,
          SHISHI_CLICKHOUSE_URL: `http://127.0.0.1:${await freePort()}`,
        },
      });
      try {
        await shishi.post(events(5));
        // A file where the folder should be stops everybody, root too.
        rmSync(`${dataDir}/spool`, { recursive: true });
        writeFileSync(`${dataDir}/spool`, "");
        const { code, tookMs } = await stopBy(shishi);
        assert.equal(code, 1);
        assert.ok(tookMs < patient(SLACK_MS), `took ${tookMs} ms`);
        const last = ledgerAtEnd(shishi);
        assert.deepEqual([last["lost"], last["held"], last["level"]], [5, 0, "error"]);
        assert.equal(last["message"], "stopped; 5 rows were lost");
      } finally {
        await shishi.close();
        removeDir(dataDir);
      }
    },
  );

  testOnce("a backoff is not waited out, not even one that was asked for", async () => {
    const fake = await startFakeClickHouse();
    fake.createTable("t", { n: "UInt32" });
    fake.misbehave({ kind: "answer", status: 503, headers: { "Retry-After": "3600" } });
    const shishi = await startShishi({
      args: ["--flush-interval", "20ms", "--clickhouse-url", fake.url, "--tables", "t"],
    });
    try {
      await shishi.post({ n: 1 }, { path: "/events/t" });
      await says(shishi, "insert failed; will retry");
      const { code, tookMs } = await stopBy(shishi);
      assert.equal(code, 0, shishi.stderr());
      assert.ok(tookMs < patient(2_000), `took ${tookMs} ms`);
      assert.deepEqual(fake.rows("t"), [{ n: 1 }]);
    } finally {
      await shishi.close();
      await fake.close();
    }
  });

  testOnce("ClickHouse comes back during the drain: the rows land", async () => {
    const own = await startClickHouse();
    const shishi = await startShishi({
      args: ["--flush-interval", "100ms", "--clickhouse-url", own.url],
    });
    try {
      await ready(shishi);
      await own.kill();
      for (let n = 0; n < 10; n++) assert.equal((await shishi.post(events(10))).status, 202);
      await says(shishi, "insert failed; will retry");
      shishi.signal("SIGTERM");
      await says(shishi, "draining");
      await own.start();
      assert.deepEqual(await shishi.exited, { code: 0, signal: null }, shishi.stderr());
      assert.equal(await own.query("SELECT count() FROM analytics_events"), "100");
      assert.equal(ledgerAtEnd(shishi)["lost"], 0);
    } finally {
      await shishi.close();
      await own.close();
    }
  });

  for (const [first, second] of [["SIGTERM", "SIGTERM"], ["SIGINT", "SIGTERM"]] as const) {
    test(`${second} after ${first} ends at once`, async () => {
      const shishi = await startShishi({
        args: ["--flush-interval", "1h", "--shutdown-timeout", "1h"],
        env: { SHISHI_CLICKHOUSE_URL: `http://127.0.0.1:${await freePort()}` },
      });
      try {
        await shishi.post(events(3));
        shishi.signal(first);
        await says(shishi, "draining");
        const { code, tookMs } = await stopBy(shishi, second);
        assert.equal(code, 0);
        assert.ok(tookMs < patient(SLACK_MS), `took ${tookMs} ms`);
        const { lost, held } = ledgerAtEnd(shishi);
        assert.deepEqual([lost, held], [0, 3]);
      } finally {
        await shishi.close();
      }
    });
  }
});
