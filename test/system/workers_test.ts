/**
 * `--workers N`: several processes that are one collector to everybody outside, whichever of them
 * answers, also while one of them is killed, and whatever N was before.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, before, beforeEach, test } from "node:test";
import { createFetch } from "../../src/runtime/fetch.ts";
import { startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { freePort } from "../kit/free_port.ts";
import { compare, load, storedIds } from "../kit/load.ts";
import { createMemoryInflux } from "../kit/memory_influx.ts";
import { type ClickHouse, startClickHouse, startNats } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { asker } from "../remote/kit.ts";
import { events, ledgerAtEnd, ready, says, stopBy } from "./around.ts";
import { assertDelivered, metrics, sum, watch } from "./books.ts";
import { bad, good, postLines, refusals } from "./rows.ts";

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());
beforeEach(() => clickhouse.query("DROP TABLE IF EXISTS analytics_events SYNC"));

const collector = (workers: number, ...args: string[]) =>
  startShishi({
    args: [
      ...(args.includes("--clickhouse-url") ? [] : ["--clickhouse-url", clickhouse.url]),
      `--workers=${workers}`,
      ...args,
    ],
  });

/** Each on a connection of its own, so that every worker gets some. */
async function postEach(shishi: Shishi, count: number, path = "/events"): Promise<void> {
  for (const event of events(count)) {
    const { status, text } = await shishi.post(event, { path, headers: { connection: "close" } });
    assert.equal(status, 202, text);
  }
}

/** The process of a worker, as the lock of its folder tells. */
function workerPid(shishi: Shishi, worker: number): number {
  const lock = join(shishi.dir, "shishi-data", `worker-${worker}`, "lock");
  return JSON.parse(readFileSync(lock, "utf8")).pid;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A process that nobody has buried yet is dead all the same.
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

for (const binary of [false, true]) {
  test(`whoever answers, it is for all; each has its own spool (${binary ? "binary" : "source"})`, async () => {
    const counts = createMemoryInflux();
    const influx = await startFakeInflux(counts);
    const shishi = await startShishi({
      args: [
        "--clickhouse-url",
        clickhouse.url,
        "--influx-url",
        influx.url,
        "--workers=2",
        "--flush-interval=1h",
      ],
      binary,
    });
    try {
      await ready(shishi);
      await postEach(shishi, 40);
      for (let n = 0; n < 8; n++) {
        const answer = await shishi.get("/api/status", { connection: "close" });
        const { received, held, stored } = answer.json.ledger;
        assert.equal(received, 40, "what was acknowledged is in every answer");
        // Rows that came before a worker knew the columns share no batch with later ones, and may leave.
        assert.equal(held + stored, 40);
      }
      const samples = await metrics(shishi);
      assert.equal(sum(samples, "analytics_events_total"), 40);
      assert.equal(sum(samples, "shishi_http_requests_total", 'status="202"'), 40);
      assert.equal(sum(samples, "analytics_processing_duration_seconds_count"), 40);
      for (const worker of [1, 2]) {
        const spool = join(shishi.dir, "shishi-data", `worker-${worker}`, "spool/analytics_events");
        assert.notEqual(readdirSync(spool).length, 0, `worker ${worker} has rows of its own`);
      }
      const pids = [1, 2].map((worker) => workerPid(shishi, worker));
      // As systemd and terminals do: to every process. The workers leave it to the first one.
      process.kill(-shishi.pid, "SIGTERM");
      assert.equal((await shishi.exited).code, 0, shishi.stderr());
      assert.equal(ledgerAtEnd(shishi)["stored"], 40);
      assert.deepEqual(pids.map(isAlive), [false, false]);
      assert.equal((await storedIds(clickhouse)).size, 40);
      const mirrored = counts.series("shishi", "shishi_events").map(({ sums }) => sums);
      assert.deepEqual(mirrored, [{ accepted: 40, stored: 40 }], "one mirror, with all in it");
    } finally {
      await shishi.close();
      await influx.close();
    }
  });
}

test("a worker is killed twice under load: nothing is missing or doubled, the books balance", async () => {
  const shishi = await collector(2, "--flush-interval=100ms");
  try {
    await ready(shishi);
    const watching = watch(shishi);
    const loading = load({
      url: shishi.url,
      clients: 8,
      events: 12_000,
      eventsPerRequest: 10,
      rowsPerSecond: 3_000,
      // One that pools sends a request once more, by itself, when its worker is killed.
      fetch: createFetch({ pooled: false }),
    });
    for (const stored of [2_000, 6_000]) {
      await eventually(async () => {
        assert.ok((await shishi.status()).ledger.stored > stored);
      }, { withinMs: 20_000 });
      const pid = workerPid(shishi, 2);
      process.kill(pid, "SIGKILL");
      await eventually(() => assert.notEqual(workerPid(shishi, 2), pid), { withinMs: 10_000 });
    }
    const books = await loading;
    await ready(shishi);
    await eventually(() => assertDelivered(shishi), { withinMs: 20_000 });
    await watching.end();
    const { missing, doubled, uninvited } = compare(books, await storedIds(clickhouse));
    assert.deepEqual({ missing, doubled, uninvited }, { missing: 0, doubled: 0, uninvited: 0 });
    assert.ok(books.acknowledged.size > 10_000, `${books.acknowledged.size}`);
    const { code } = await stopBy(shishi);
    assert.equal(code, 0);
    assert.equal(ledgerAtEnd(shishi)["lost"], 0);
  } finally {
    await shishi.close();
  }
});

test("spools are found by whoever comes next: 3 workers, then 1, then 2", async () => {
  const dir = tempDir("workers");
  const away = await startFakeClickHouse();
  await away.close();
  const leave = ["--data-dir", dir, "--shutdown-timeout=0s", "--clickhouse-url", away.url];
  const run = (workers: number, ...args: string[]) =>
    startShishi({ args: [`--workers=${workers}`, ...args] });
  try {
    for (const [workers, rows, found] of [[3, 30, 0], [1, 5, 30], [2, 10, 35]] as const) {
      const shishi = await run(workers, ...leave);
      await eventually(async () => {
        const { ledger } = await shishi.status();
        assert.equal(ledger.recovered, found);
      }, { withinMs: 10_000 });
      await postEach(shishi, rows);
      const { code } = await stopBy(shishi);
      assert.equal(code, 0, shishi.stderr());
      assert.equal(ledgerAtEnd(shishi)["held"], found + rows);
      await shishi.close();
    }
    const last = await run(1, "--data-dir", dir, "--clickhouse-url", clickhouse.url);
    await eventually(async () => {
      assert.equal((await last.status()).ledger.stored, 45);
    }, { withinMs: 20_000 });
    await last.close();
    assert.equal((await storedIds(clickhouse)).size, 45);
  } finally {
    removeDir(dir);
  }
});

test("with the supervisor go its workers; the next one has the port and the rows at once", async () => {
  const port = await freePort();
  const dir = tempDir("workers");
  const args = ["--data-dir", dir, `--listen=127.0.0.1:${port}`, "--flush-interval=1h"];
  const first = await collector(2, ...args);
  try {
    await postEach(first, 20);
    const pids = [1, 2].map((worker) =>
      JSON.parse(readFileSync(join(dir, `worker-${worker}`, "lock"), "utf8")).pid
    );
    await first.kill();
    const second = await collector(2, ...args);
    assert.deepEqual(pids.map(isAlive), [false, false]);
    await eventually(async () => {
      assert.equal((await second.status()).recovering, false);
    }, { withinMs: 10_000 });
    assert.equal((await stopBy(second)).code, 0, second.stderr());
    assert.deepEqual([...(await storedIds(clickhouse)).values()], Array(20).fill(1));
    await second.close();
  } finally {
    await first.close();
    removeDir(dir);
  }
});

test("dead letters of all workers lie in one place, and one command replays them", async () => {
  await clickhouse.query("DROP TABLE IF EXISTS plain SYNC");
  await clickhouse.query(
    "CREATE TABLE plain (n UInt32, s String) ENGINE = MergeTree ORDER BY s",
  );
  const shishi = await collector(2, "--tables=plain", "--flush-interval=50ms");
  try {
    for (let n = 0; n < 8; n++) {
      await postLines(shishi, "plain", [good(n), bad(n)], { connection: "close" });
    }
    await eventually(() => assertDelivered(shishi), { withinMs: 20_000 });
    assert.equal(refusals(shishi).length, 8);
    assert.equal((await shishi.status()).ledger.dead, 8);
    for (const worker of [1, 2]) {
      const own = join(shishi.dir, "shishi-data", `worker-${worker}`, "dead");
      assert.deepEqual(existsSync(own) ? readdirSync(own) : [], []);
    }
    await clickhouse.query("ALTER TABLE plain MODIFY COLUMN n String");
    const replayed = await runShishi([
      "dead",
      "replay",
      "plain",
      "--url",
      shishi.url,
      "--data-dir",
      join(shishi.dir, "shishi-data"),
    ]);
    assert.equal(replayed.code, 0, replayed.stderr + replayed.stdout);
    assert.equal((await clickhouse.query("SELECT count() FROM plain")).trim(), "16");
    assert.equal(refusals(shishi).length, 0);
  } finally {
    await shishi.close();
  }
});

test("to NATS it is one collector: paused, resumed, flushed and stopped as a whole", async () => {
  const nats = await startNats();
  const shishi = await collector(
    2,
    "--nats-url",
    nats.url,
    "--group=g",
    "--id=one",
    "--flush-interval=1h",
  );
  const ask = await asker(nats.url);
  try {
    await says(shishi, "nats: connected");
    await postEach(shishi, 10);
    const flush = ask.ask("shishi.flush.g");
    assert.equal((await flush.next())["state"], "flushing");
    const { ok, state, ledger } = await flush.next();
    const { stored, held } = ledger as Record<string, number>;
    assert.deepEqual([ok, state, stored, held], [true, "flushed", 10, 0]);
    assert.equal((await ask.ask("shishi.pause").next())["state"], "paused");
    await eventually(async () => {
      for (let n = 0; n < 6; n++) {
        const { status } = await shishi.post(events(1), { headers: { connection: "close" } });
        assert.equal(status, 503);
      }
    }, { withinMs: 5_000 });
    assert.equal((await shishi.get("/readyz")).status, 503);
    assert.equal((await ask.ask("shishi.resume").next())["ok"], true);
    await eventually(() => postEach(shishi, 6), { withinMs: 5_000 });
    const stop = ask.ask("shishi.stop");
    assert.equal((await stop.next())["state"], "draining");
    assert.equal((await stop.next())["state"], "stopped");
    assert.equal((await shishi.exited).code, 0);
    assert.equal(stop.all.length, 2, "one collector answers");
    assert.equal(ledgerAtEnd(shishi)["held"], 0);
  } finally {
    await ask.close();
    await shishi.close();
    await nats.close();
  }
});

test("a port that another collector has is not shared, and says so", async () => {
  const first = await collector(2);
  try {
    const port = new URL(first.url).port;
    const second = await runShishi(["--workers=2", `--listen=127.0.0.1:${port}`]);
    assert.equal(second.code, 1);
    assert.match(second.stderr, /another program listens there already/);
    assert.equal((await first.get("/healthz")).status, 200);
  } finally {
    await first.close();
  }
});

test("more workers than INSERTs in flight are refused, with both numbers", async () => {
  const { code, stderr } = await runShishi(["--workers=5"]);
  assert.equal(code, 2);
  assert.match(stderr, /--workers: expected at most concurrency \(4\), got 5/);
});

test("a second signal ends all at once; the rows wait on disk", async () => {
  const away = await startFakeClickHouse();
  await away.close();
  const shishi = await collector(2, "--clickhouse-url", away.url, "--shutdown-timeout=1h");
  try {
    await postEach(shishi, 20);
    const pids = [1, 2].map((worker) => workerPid(shishi, worker));
    shishi.signal("SIGTERM");
    await says(shishi, "draining");
    shishi.signal("SIGTERM");
    assert.equal((await shishi.exited).code, 0, shishi.stderr());
    assert.equal(ledgerAtEnd(shishi)["held"], 20);
    await eventually(() => assert.deepEqual(pids.map(isAlive), [false, false]), {
      withinMs: 5_000,
    });
  } finally {
    await shishi.close();
  }
});

test("what memory held of a killed worker is counted as lost", async () => {
  const away = await startFakeClickHouse();
  await away.close();
  const shishi = await collector(2, "--clickhouse-url", away.url, "--ack=memory");
  try {
    await postEach(shishi, 40);
    const before = (await shishi.status()).ledger;
    assert.equal(before.held, 40);
    const pid = workerPid(shishi, 2);
    process.kill(pid, "SIGKILL");
    await says(shishi, "a worker runs again");
    await eventually(async () => {
      const { held, lost } = (await shishi.status()).ledger;
      assert.ok(lost > 0 && held > 0 && held + lost === 40, `${held} ${lost}`);
    }, { withinMs: 10_000 });
  } finally {
    await shishi.close();
  }
});
