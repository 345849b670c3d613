/**
 * ClickHouse goes away, hangs, or loses its answers: what was acknowledged is there exactly once.
 * Runs once: main_job_test.ts has the whole of it on both runtimes.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { after, afterEach, before, describe, test } from "node:test";
import { type Books, compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { startTcpProxy, type TcpProxy } from "../kit/tcp_proxy.ts";
import { eventually } from "../kit/wait.ts";
import { assertDelivered, insertsSent, metrics, say, sum, watch } from "./books.ts";
import { bad, createPlain, DEDUPLICATED, good, postLines, refusals } from "./rows.ts";

/** The longest backoff, and time to deliver. */
const RECOVERS_WITHIN_MS = 35_000;

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
});
after(() => clickhouse.close());
afterEach(() => clickhouse.query("DROP TABLE IF EXISTS analytics_events SYNC"));

/** Every acknowledged event once, nothing that was refused, nothing that was not asked for. */
async function assertExactlyOnce(books: Books): Promise<void> {
  const stored = await storedIds(clickhouse);
  assert.deepEqual(compare(books, stored), { missing: 0, doubled: 0, uninvited: 0 });
  assert.equal(books.unanswered.size, 0, "requests without an answer");
  assert.equal(stored.size, books.acknowledged.size);
}

function assertStatuses(books: Books, allowed: readonly number[]): void {
  const seen = [...books.statuses.keys()].sort();
  assert.ok(seen.every((status) => allowed.includes(status)), `statuses ${seen}`);
}

const seconds = (sinceMs: number) => `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;

test("30,000 events from 50 clients, ClickHouse killed for 10 s in the middle", async () => {
  const shishi = await startShishi({ args: ["--clickhouse-url", clickhouse.url] });
  const watching = watch(shishi);
  const began = performance.now();
  try {
    const loading = load({
      url: shishi.url,
      clients: 50,
      events: 30_000,
      eventsPerRequest: 10,
      rowsPerSecond: 2_500,
    });
    await eventually(async () => {
      assert.ok((await shishi.status()).ledger.stored > 1_000);
    }, { withinMs: 10_000 });
    await clickhouse.kill();
    const killed = performance.now();
    // The outage's length is the thing to be tested: nothing happens that could be waited for.
    await eventually(() => assert.ok(performance.now() - killed >= 10_000), { withinMs: 11_000 });
    assert.equal((await shishi.get("/readyz")).status, 503);
    assert.equal((await shishi.get("/healthz")).status, 200);
    await clickhouse.start();
    const back = performance.now();
    const books = await loading;
    await eventually(() => assertDelivered(shishi), { withinMs: RECOVERS_WITHIN_MS });
    const recovered = seconds(back);
    const watched = await watching.end();
    await assertExactlyOnce(books);
    assertStatuses(books, [202, 429, 503]);
    assert.equal(books.acknowledged.size, 30_000, "the default backlog has room for them");
    assert.ok(watched.mostHeld > 5_000, `held at most ${watched.mostHeld}`);
    assert.ok(watched.states.has("degraded"), [...watched.states].join());
    assert.ok(watched.rssMiB.most < 400, `${watched.rssMiB.most} MiB resident`);
    const samples = await metrics(shishi);
    say("outage", {
      took: seconds(began),
      "delivered after the restart within": recovered,
      scrapes: watched.scrapes,
      "held at most": watched.mostHeld,
      "RSS MiB first/most": `${watched.rssMiB.first}/${watched.rssMiB.most}`,
      "INSERTs stored": sum(samples, "shishi_insert_rows_count"),
      "INSERTs failed": sum(samples, "shishi_insert_errors_total"),
      statuses: JSON.stringify([...books.statuses]),
    });
  } finally {
    await watching.end().catch(() => {});
    await shishi.close();
    if (clickhouse.pid === 0) await clickhouse.start();
  }
});

test("a full backlog refuses, what was refused is not stored, and room comes back", async () => {
  const shishi = await startShishi({
    args: ["--clickhouse-url", clickhouse.url, "--backlog=2000", "--max-block-size=500"],
  });
  const watching = watch(shishi);
  const send = () => load({ url: shishi.url, clients: 20, events: 5_000, eventsPerRequest: 10 });
  try {
    await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 200), {
      withinMs: 5_000,
    });
    await clickhouse.kill();
    const books = await send();
    assert.deepEqual(Object.fromEntries(books.statuses), { 202: 200, 429: 300 });
    const refused = await shishi.post({ eventType: "one more" });
    assert.equal(refused.status, 429, refused.text);
    assert.match(refused.json.error, /backlog is full: 2000 of 2000 rows/);
    assert.ok(Number(refused.headers.get("retry-after")) >= 1);
    assert.equal((await shishi.status()).ledger.held, 2000);
    await clickhouse.start();
    await eventually(() => assertDelivered(shishi), { withinMs: RECOVERS_WITHIN_MS });
    await assertExactlyOnce(books);
    await watching.end();
    assert.equal((await shishi.post({ eventType: "room again" })).status, 202);
  } finally {
    await watching.end().catch(() => {});
    await shishi.close();
    if (clickhouse.pid === 0) await clickhouse.start();
  }
});

test("ClickHouse hangs: every attempt ends at insert-timeout, and nothing is there twice", async () => {
  const shishi = await startShishi({
    args: ["--clickhouse-url", clickhouse.url, "--insert-timeout=2s", "--flush-interval=100ms"],
  });
  const watching = watch(shishi);
  let stopped = false;
  try {
    const loading = load({
      url: shishi.url,
      clients: 10,
      events: 8_000,
      eventsPerRequest: 10,
      rowsPerSecond: 2_000,
    });
    await eventually(async () => assert.ok((await shishi.status()).ledger.stored > 500), {
      withinMs: 10_000,
    });
    process.kill(clickhouse.pid, "SIGSTOP");
    stopped = true;
    await eventually(async () => {
      const ready = await shishi.get("/readyz");
      assert.equal(ready.status, 503);
      assert.match(ready.json.reasons.join(), /clickhouse: no answer within 2000 ms/);
    }, { withinMs: 6_000 });
    await eventually(async () => {
      const errors = sum(await metrics(shishi), "shishi_insert_errors_total", 'code="0"');
      assert.ok(errors >= 5, `${errors} attempts given up`);
    }, { withinMs: 10_000 });
    process.kill(clickhouse.pid, "SIGCONT");
    stopped = false;
    const books = await loading;
    await eventually(() => assertDelivered(shishi), { withinMs: RECOVERS_WITHIN_MS });
    await assertExactlyOnce(books);
    assertStatuses(books, [202]);
    const watched = await watching.end();
    say("hang", {
      INSERTs: await insertsSent(shishi),
      "held at most": watched.mostHeld,
      "RSS MiB most": watched.rssMiB.most,
    });
  } finally {
    if (stopped) process.kill(clickhouse.pid, "SIGCONT");
    await watching.end().catch(() => {});
    await shishi.close();
  }
});

describe("a bad network in front of ClickHouse", () => {
  let proxy: TcpProxy;
  let shishi: Shishi;
  before(async () => {
    proxy = await startTcpProxy(clickhouse.port);
    shishi = await startShishi({
      args: [
        `--clickhouse-url=${proxy.url}`,
        "--tables=sifted",
        "--type-check=off",
        "--insert-timeout=2s",
        "--max-block-size=10",
      ],
    });
    assert.equal((await shishi.post({ eventType: "first" }, WAIT)).status, 200);
  });
  after(async () => {
    await shishi.close();
    await proxy.close();
  });
  const WAIT = { headers: { prefer: "wait=30" } };

  test("the answer is lost after the INSERT went through, 20 times: exactly once", async () => {
    const began = performance.now();
    const cutAtStart = await failures();
    let events = 0;
    while (await failures() - cutAtStart < 20) {
      proxy.cutAnswers(4);
      const rows = Array.from({ length: 40 }, () => ({
        id: crypto.randomUUID(),
        eventType: "cut",
      }));
      const answer = await shishi.post(rows, WAIT);
      assert.equal(answer.status, 200, answer.text);
      assert.equal(answer.json.ack, "clickhouse");
      events += rows.length;
    }
    proxy.cutAnswers(0);
    assert.equal(
      await clickhouse.query(
        "SELECT count(), uniqExact(id) FROM analytics_events WHERE event_type = 'cut'",
      ),
      `${events}\t${events}`,
    );
    const ledger = await assertDelivered(shishi);
    assert.equal(ledger.stored, events + 1);
    say("cut answers", { cut: await failures() - cutAtStart, events, took: seconds(began) });
  });

  test("the answers are lost while bad rows are sifted out: the good ones are there exactly once", async () => {
    await createPlain(clickhouse, "sifted", DEDUPLICATED);
    const rounds = 8;
    for (let round = 0; round < rounds; round++) {
      // The row's refusal is lost, or the INSERT of the others, or the sieve's answer.
      proxy.cutAnswers(1 + round % 3);
      const lines = Array.from({ length: 20 }, (_, at) => {
        const isBad = at === round || (round % 2 === 1 && at % 4 === 3);
        return (isBad ? bad : good)(round * 20 + at);
      });
      const answer = await postLines(shishi, "sifted", lines, WAIT.headers);
      assert.equal(answer.json.dead, lines.filter((line) => line.includes("bad row")).length);
    }
    proxy.cutAnswers(0);
    const { dead } = (await shishi.status()).tables.sifted;
    const there = `${rounds * 20 - dead}`;
    assert.equal(
      await clickhouse.query("SELECT count(), uniqExact(n) FROM sifted"),
      `${there}\t${there}`,
    );
    assert.equal(new Set(refusals(shishi).map((letter) => letter.row)).size, dead);
    assert.equal(refusals(shishi).length, dead);
  });

  async function failures(): Promise<number> {
    return sum(await metrics(shishi), "shishi_insert_errors_total", 'code="0"');
  }

  test("connections are cut, then nothing moves, then all is well", async () => {
    proxy.hang();
    proxy.cut();
    const rows = Array.from({ length: 100 }, () => ({ eventType: "hung" }));
    const answer = await shishi.post(rows, { headers: { prefer: "wait=1" } });
    assert.equal(answer.status, 202, answer.text);
    assert.equal(answer.json.ack, "disk");
    await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 503), {
      withinMs: 6_000,
    });
    proxy.resume();
    await eventually(() => assertDelivered(shishi), { withinMs: RECOVERS_WITHIN_MS });
    await eventually(async () => assert.equal((await shishi.get("/readyz")).status, 200), {
      withinMs: 5_000,
    });
    const count = "SELECT count() FROM analytics_events WHERE event_type = 'hung'";
    assert.equal(await clickhouse.query(count), "100");
  });
});
