/**
 * The tables of the programs that Shishi comes from, with their own flags, on the new server and the
 * old one. They are plain MergeTree as they always were: no window, so a lost answer may store twice.
 * Runs once: what ClickHouse takes is no affair of the runtime.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type ClickHouse, startClickHouse, startOldClickHouse } from "../kit/servers.ts";
import { AGES } from "../servers/engines.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually, pause } from "../kit/wait.ts";
import { assertDelivered, insertsSent, say, watch } from "./books.ts";

const ADVERTISING = "EventServiceAdvertisingLoggerRequest";

for (const modern of AGES) {
  const version = modern ? "26.7" : "18.16";
  describe(`ClickHouse ${version}`, () => {
    let clickhouse: ClickHouse;
    before(async () => {
      clickhouse = await (modern ? startClickHouse() : startOldClickHouse());
      await clickhouse.query(
        "CREATE TABLE test_go_worker (Time DateTime, Value String) " +
          "ENGINE = MergeTree PARTITION BY toYYYYMM(Time) ORDER BY Time",
      );
      await clickhouse.query(
        `CREATE TABLE ${ADVERTISING} (
          idRequest UUID, createdAt DateTime, ip UInt32, bid Float64, eventId UInt64,
          siteId UInt16, isMobile UInt8, regions Array(UInt16), salary Nullable(UInt32),
          keywords String, referer String
        ) ENGINE = MergeTree PARTITION BY toYYYYMM(createdAt) ORDER BY (createdAt, idRequest)`,
      );
    });
    after(() => clickhouse.close());

    test("the Go worker: single events, a backlog of 1000, ClickHouse away for a while", async () => {
      const shishi = await startShishi({
        args: [
          `--clickhouse-dsn=${clickhouse.url}/default`,
          "--tables=test_go_worker",
          "--backlog=1000",
          "--max-block-size=500",
          "--flush-interval=1s",
        ],
      });
      const watching = watch(shishi);
      try {
        const statuses = new Set<number>();
        const events = 4_000;
        let sent = 0;
        const producer = async () => {
          for (let n = sent++; n < events; n = sent++) {
            const line = goWorkerRow(n);
            // A full backlog makes the producer wait, as the full channel did.
            for (let status = 0; status !== 202; await pause(status === 202 ? 0 : 20)) {
              status = (await shishi.post(line, { path: "/events/test_go_worker" })).status;
              statuses.add(status);
            }
          }
        };
        const producers = Promise.all(Array.from({ length: 20 }, producer));
        producers.catch(() => {});
        await eventually(async () => assert.ok((await shishi.status()).ledger.stored >= 500), {
          withinMs: 10_000,
        });
        await clickhouse.kill();
        await eventually(() => assert.ok(statuses.has(429), "the backlog is never full"), {
          withinMs: 10_000,
        });
        await clickhouse.start();
        await producers;
        shishi.signal("SIGTERM");
        await watching.end().catch(() => {});
        const { code } = await shishi.exited;
        const last = shishi.lines().at(-1);
        assert.equal(code, 0, JSON.stringify(last));
        assert.equal(last?.stored, events);
        const stored = await clickhouse.query(
          "SELECT uniqExact(Value), count() FROM test_go_worker",
        );
        const [different, rows] = stored.split("\t").map(Number);
        assert.equal(different, events);
        // Without a window the INSERTs whose answers the kill cut off may be there twice.
        assert.ok(rows! - different! <= 4 * 500, `${rows! - different!} rows twice`);
        assert.equal(
          await clickhouse.query(
            "SELECT toUnixTimestamp(min(Time)), toUnixTimestamp(max(Time)) FROM test_go_worker",
          ),
          `${FIRST_S}\t${FIRST_S + events - 1}`,
        );
        assert.deepEqual([...statuses].sort(), [202, 429]);
        say(`${version}, Go worker`, { events, "stored twice": rows! - different! });
      } finally {
        await watching.end().catch(() => {});
        await shishi.close();
        if (clickhouse.pid === 0) await clickhouse.start();
      }
    });

    test("the job board: rows of 220 bytes, sent in a moment of silence", async () => {
      const shishi = await startShishi({
        args: [
          `--clickhouse-dsn=${clickhouse.url}`,
          `--tables=${ADVERTISING}`,
          "--idle-interval=300ms",
          "--flush-interval=1m",
        ],
      });
      try {
        // Two minutes of its traffic, one request a search.
        const rows = Array.from({ length: 4_940 }, (_, n) => advertisingRow(n));
        const bytes = rows.reduce((sum, row) => sum + row.length, 0) / rows.length;
        let next = 0;
        // Each is a moment of silence too, where the machine is busy.
        let pauses = 0;
        let answeredMs = performance.now();
        const client = async () => {
          for (let n = next++; n < rows.length; n = next++) {
            const answer = await shishi.post(rows[n], { path: `/events/${ADVERTISING}` });
            assert.equal(answer.status, 202, answer.text);
            if (performance.now() - answeredMs > 150) pauses++;
            answeredMs = performance.now();
          }
        };
        await Promise.all(Array.from({ length: 10 }, client));
        const totals = await eventually(() => assertDelivered(shishi), { withinMs: 5_000 });
        assert.deepEqual([totals.stored, totals.dead], [rows.length, 0]);
        const inserts = await insertsSent(shishi);
        assert.ok(inserts <= 3 + pauses, `${inserts} INSERTs, ${pauses} pauses`);
        assert.equal(
          await clickhouse.query(
            `SELECT count(), uniqExact(idRequest), sum(ip), sum(length(regions)), countIf(isNull(salary)), max(eventId) FROM ${ADVERTISING}`,
          ),
          expectedAdvertising(rows),
        );
        const one = JSON.parse(rows[1]!);
        assert.deepEqual(
          JSON.parse(
            await clickhouse.query(
              `SELECT keywords, referer, bid, siteId FROM ${ADVERTISING} WHERE idRequest = '${one.idRequest}' FORMAT JSONEachRow`,
            ),
          ),
          { keywords: one.keywords, referer: one.referer, bid: one.bid, siteId: one.siteId },
        );
        say(`${version}, job board`, {
          rows: rows.length,
          "bytes a row": Math.round(bytes),
          INSERTs: inserts,
        });
      } finally {
        await shishi.close();
      }
    });
  });
}

describe("ClickHouse 18.16 and analytics events", () => {
  let clickhouse: ClickHouse;
  let shishi: Shishi;
  before(async () => {
    clickhouse = await startOldClickHouse();
    await clickhouse.query("CREATE TABLE plain (n UInt32) ENGINE = MergeTree ORDER BY n");
    shishi = await startShishi({
      args: [
        `--clickhouse-dsn=${clickhouse.url}`,
        "--tables=plain",
        "--flush-interval=100ms",
        "--shutdown-timeout=500ms",
      ],
    });
  });
  after(async () => {
    await shishi.close();
    await clickhouse.close();
  });

  const SENTENCE = "analytics_events needs ClickHouse 21.8 or newer for Map columns; this server " +
    "is 18.16.1; POST /events/TABLE works";

  test("a clear sentence at the start, in /readyz and in the status; other tables work", async () => {
    await eventually(() => assert.ok(shishi.lines().some((line) => line.message === SENTENCE)), {
      withinMs: 5_000,
    });
    assert.equal((await shishi.get("/readyz")).status, 200, "nobody has posted an event");
    assert.equal((await shishi.post({ eventType: "click" })).status, 202);
    await eventually(async () => {
      const ready = await shishi.get("/readyz");
      assert.deepEqual(ready.json.reasons, [`table analytics_events: ${SENTENCE}`]);
    }, { withinMs: 5_000 });
    assert.equal((await shishi.status()).tables.analytics_events.trouble, SENTENCE);
    for (let n = 1; n <= 5; n++) {
      const headers = { prefer: "wait=2" };
      const answer = await shishi.post({ n }, { path: "/events/plain", headers });
      assert.equal(answer.status, 200, answer.text);
    }
    assert.equal(await clickhouse.query("SELECT count() FROM plain"), "5");
  });

  test("at the stop it says how many events wait for a newer server", async () => {
    shishi.signal("SIGTERM");
    assert.deepEqual(await shishi.exited, { code: 0, signal: null });
    const last = shishi.lines().at(-1);
    assert.equal(last?.message, "stopped; 1 rows wait on disk");
    assert.deepEqual([last?.received, last?.stored, last?.held, last?.lost], [6, 5, 1, 0]);
  });
});

const FIRST_S = Date.UTC(2018, 4, 4, 12) / 1000;

/** The three ways in which a time is written. */
function goWorkerRow(n: number): string {
  const iso = new Date((FIRST_S + n) * 1000).toISOString();
  const time = [iso, iso.slice(0, 19).replace("T", " "), FIRST_S + n][n % 3];
  return JSON.stringify({ Time: time, Value: `value ${n}` });
}

function advertisingRow(n: number): string {
  const id = `61f0c404-5cb3-11e7-907b-${n.toString(16).padStart(12, "0")}`;
  const createdAt = new Date(Date.UTC(2018, 0, 31, 23, 59) + n * 24).toISOString();
  return JSON.stringify({
    idRequest: id,
    createdAt: createdAt.slice(0, 19).replace("T", " "),
    ip: 3232235777 + n,
    bid: (n % 40) / 8,
    eventId: n,
    siteId: n % 300,
    isMobile: n % 2,
    regions: [n % 80, 1000 + n % 7],
    salary: n % 5 === 0 ? null : 1000 * (n % 90),
    keywords: `водитель "категории ${n % 4}"`,
    referer: `https://jobs.example/search?q=${n}`,
  });
}

function expectedAdvertising(rows: readonly string[]): string {
  const all = rows.map((row) => JSON.parse(row));
  const sum = (of: (row: { ip: number; regions: number[]; salary: number | null }) => number) =>
    all.reduce((total, row) => total + of(row), 0);
  return [
    all.length,
    all.length,
    sum((row) => row.ip),
    sum((row) => row.regions.length),
    sum((row) => row.salary === null ? 1 : 0),
    all.length - 1,
  ].join("\t");
}
