/**
 * Remote control when things are not as they should be: a stop that lasts, a loss, nobody there, and a
 * NATS that comes and goes without ingest noticing.
 * Runs once: test/fleet/ and test/remote/ have both runtimes.
 */

import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, type Nats, startClickHouse, startNats } from "../kit/servers.ts";
import { runShishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, patient } from "../kit/wait.ts";
import { holds, ready, says } from "./around.ts";

describe("remote control in trouble", () => {
  let clickhouse: ClickHouse;
  let nats: Nats;
  before(async () => {
    [clickhouse, nats] = await Promise.all([startClickHouse(), startNats()]);
  });
  after(async () => {
    await Promise.all([clickhouse.close(), nats.close()]);
  });

  const shishi = (...argv: string[]) => runShishi(argv, { env: { SHISHI_NATS_URL: nats.url } });
  const settings = (table: string) => ({
    SHISHI_CLICKHOUSE_URL: clickhouse.url,
    SHISHI_NATS_URL: nats.url,
    SHISHI_TABLE: table,
    SHISHI_FLUSH_INTERVAL: "200ms",
  });

  test("a stop that takes longer than --timeout: exit 1, and who is not done", async () => {
    const dead = `http://127.0.0.1:${await freePort()}`;
    const slow = await startShishi({
      args: ["--shutdown-timeout", "1h", "--flush-interval", "1h"],
      env: { ...settings("slow"), SHISHI_CLICKHOUSE_URL: dead, SHISHI_ID: "slow" },
    });
    try {
      await says(slow, "nats: connected");
      await slow.post({ eventType: "stuck" });
      const { code, stdout, stderr } = await shishi("stop", "--timeout", "1s");
      assert.equal(code, 1);
      assert.match(stdout, /^default\.slow +draining .*\n0 of 1 stopped\n$/);
      assert.match(stderr, /^shishi: default\.slow is not done after 1 s \(draining, 1 rows? held/);
    } finally {
      await slow.close();
    }
  });

  test("a collector that stops with a loss: the loss is said", async () => {
    const dead = `http://127.0.0.1:${await freePort()}`;
    const dataDir = tempDir("lossy");
    const lossy = await startShishi({
      args: ["--shutdown-timeout", "200ms", "--flush-interval", "1h", "--ack", "memory"],
      env: {
        ...settings("lossy"),
        SHISHI_CLICKHOUSE_URL: dead,
        SHISHI_ID: "lossy",
        SHISHI_DATA_DIR: dataDir,
      },
    });
    try {
      await says(lossy, "nats: connected");
      await lossy.post([{ eventType: "a" }, { eventType: "b" }]);
      rmSync(`${dataDir}/spool`, { recursive: true });
      writeFileSync(`${dataDir}/spool`, "");
      const { code, stdout, stderr } = await shishi("stop", "--target", "default.lossy");
      assert.match(stdout, /^default\.lossy +stopped .* lost 2\n1 of 1 stopped\n/m);
      assert.equal(stderr, "shishi: default.lossy lost 2 rows: see its log\n");
      assert.equal(code, 0);
      assert.equal((await lossy.exited).code, 1);
    } finally {
      await lossy.close();
      removeDir(dataDir);
    }
  });

  test("nobody there, no NATS, no nats-url, no such target: each its sentence and exit code", async () => {
    const nobody = await shishi("status");
    assert.deepEqual([nobody.code, nobody.stdout], [1, ""]);
    assert.match(nobody.stderr, /^shishi: no collector listens on shishi\.status: .+\n$/);

    const away = `ws://127.0.0.1:${await freePort()}`;
    const noNats = await runShishi(["stop", "--nats-url", away]);
    assert.deepEqual([noNats.code, noNats.stdout], [1, ""]);
    assert.match(noNats.stderr, /^shishi: cannot reach NATS: 127\.0\.0\.1:\d+: .+\n$/);

    const noUrl = await runShishi(["stop"]);
    assert.deepEqual([noUrl.code, noUrl.stdout], [2, ""]);
    assert.match(noUrl.stderr, /^shishi: nats-url: expected .+--nats-url or SHISHI_NATS_URL/);

    const noTarget = await shishi("stop", "--target", "a.b.c");
    assert.deepEqual([noTarget.code, noTarget.stdout], [2, ""]);
    assert.match(noTarget.stderr, /target: expected all, GROUP or GROUP\.ID .+"a\.b\.c"/);
  });

  test("NATS absent at start, killed under load, back again: ingest never notices", async () => {
    const own = await startNats();
    await own.kill();
    const enough = new AbortController();
    const collector = await startShishi({ env: { ...settings("away"), SHISHI_NATS_URL: own.url } });
    const status = () => runShishi(["status", "--json"], { env: { SHISHI_NATS_URL: own.url } });
    const connections = () =>
      collector.lines().filter(({ message }) => message === "nats: connected").length;
    try {
      await ready(collector);
      const loading = load({
        url: collector.url,
        clients: 8,
        events: 1_000_000,
        eventsPerRequest: 10,
        rowsPerSecond: 1_000,
        signal: enough.signal,
      });
      await says(collector, "nats: not connected, trying again in the background");
      for (const times of [1, 2]) {
        await own.start();
        const startedMs = performance.now();
        await eventually(() => assert.equal(connections(), times, collector.stderr()), {
          withinMs: 20_000,
        });
        const { code, stdout } = await status();
        assert.equal(code, 0);
        assert.equal(JSON.parse(stdout).state, "running");
        assert.ok(performance.now() - startedMs < patient(20_000 + 3_000));
        await own.kill();
        await eventually(() => {
          const lost = collector.lines().filter((line) =>
            line["message"] === "nats: connection lost"
          );
          assert.equal(lost.length, times);
        }, { withinMs: 20_000 });
      }
      enough.abort();
      const books = await loading;
      assert.deepEqual([...books.statuses.keys()], [202]);
      assert.equal(books.unanswered.size, 0);
      await holds(collector, 0);
      const stored = await storedIds(clickhouse, "away");
      assert.deepEqual(compare(books, stored), { missing: 0, doubled: 0, uninvited: 0 });
      assert.equal(stored.size, books.acknowledged.size);
    } finally {
      enough.abort();
      await collector.close();
      await own.close();
    }
  });
});
