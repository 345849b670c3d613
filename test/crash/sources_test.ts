/**
 * A message becomes rows once: the collector dies at every step that it takes on disk, while it reads a log
 * whose messages have positions and a queue whose messages have ids, from a broker that has only some of
 * what was acknowledged. Started again, it takes what comes again for what it is: in the end each row is there,
 * once, and everything is acknowledged.
 * Runs once: points_test.ts and random_test.ts have the collector on both runtimes.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { SourceStatus } from "../../src/contracts.ts";
import { type FakeClickHouse, startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { BUILDS, ON_BUN, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { FakeBroker } from "../sources/fake_broker.ts";
import { say } from "../system/books.ts";
import { crashBinary } from "./binary.ts";
import { drained } from "./drained.ts";
import { startTcpBroker, type TcpBroker } from "./tcp_broker.ts";

/** What the disk was asked, which time, and where in it the process dies. */
const ALL_POINTS = [
  "overwrite:1:before",
  "write:1:half",
  "write:3:before",
  "write:20:half",
  "write:20:after",
  "sync:1:before",
  "sync:9:before",
  "sync:9:after",
  "rename:1:before",
  "rename:2:after",
  "syncFolder:3:after",
  "close:1:after",
  "remove:1:before",
  "read:1:after",
];
/** One runtime dies at all of them, the other at one of each kind. */
const POINTS = ALL_POINTS.filter((_, at) => ON_BUN || at % 2 === 0);
/** Rows in a message, and messages that come every 10 ms. */
const ROWS = 3;
const MESSAGES = 12;
const TEXT = "x".repeat(300);

for (const binary of BUILDS) {
  describe(`killed while it reads, ${binary ? "the binary" : "from source"}`, () => {
    const dataDir = tempDir("sources");
    const seen = { lives: 0, messages: 0, repeated: 0 };
    let clickhouse: FakeClickHouse;
    let log: TcpBroker;
    let queue: TcpBroker;
    let how: { binary: string } | { entry: string };
    let next = 0;
    let publishing = true;
    let publisher: Promise<void>;

    before(async () => {
      how = binary ? { binary: crashBinary() } : { entry: "test/crash/main.ts" };
      clickhouse = await startFakeClickHouse();
      clickhouse.createTable("numbers", { n: "UInt32", text: "String" });
      log = await startTcpBroker(new FakeBroker({ kind: "log" }));
      queue = await startTcpBroker(new FakeBroker({ kind: "queue" }));
      publisher = publish();
    });
    after(async () => {
      publishing = false;
      await publisher;
      await Promise.all([clickhouse.close(), log.close(), queue.close()]);
      removeDir(dataDir);
    });

    const body = () => {
      const rows = Array.from({ length: ROWS }, () => ({ n: next++, text: TEXT }));
      return rows.map((row) => JSON.stringify(row)).join("\n");
    };
    const publish = async () => {
      while (publishing) {
        // More than that waits only while nothing reads.
        if (log.broker.unacknowledged + queue.broker.unacknowledged < 3_000) {
          for (const { broker } of [log, queue]) {
            broker.publish(Array.from({ length: MESSAGES }, body));
          }
        }
        await pause(10);
      }
    };

    const start = (ack: string, killAt = "") =>
      startShishi({
        ...how,
        env: { KILL_AT: killAt },
        args: [
          ...["--clickhouse-url", clickhouse.url, "--data-dir", dataDir, "--ack", ack],
          ...["--flush-interval", "30ms", "--max-block-size", "400", "--type-check", "off"],
          // So little that ids are written again, for files are wanted.
          ...["--backlog-bytes", "1MiB"],
          ...["--source", `amqp://127.0.0.1:${log.port}/?queue=log&table=numbers`],
          ...["--source", `amqp://127.0.0.1:${queue.port}/?queue=queue&table=numbers`],
        ],
      });

    const assertNoneTwice = () => {
      const times = new Map<unknown, number>();
      for (const { n } of clickhouse.rows("numbers")) times.set(n, (times.get(n) ?? 0) + 1);
      const twice = [...times].filter(([, count]) => count > 1).map(([n]) => n);
      assert.deepEqual(twice, []);
      return times;
    };

    const repeatedOf = async (shishi: Shishi): Promise<number> => {
      const { sources } = await shishi.status();
      return sources.reduce((sum: number, { repeated }: SourceStatus) => sum + repeated, 0);
    };

    /** What came again is counted as long as it lives. */
    const untilDead = async (shishi: Shishi) => {
      let [dead, repeated] = [false, 0];
      void shishi.exited.then(() => dead = true);
      const untilMs = performance.now() + 20_000;
      while (!dead && performance.now() < untilMs) {
        repeated = await repeatedOf(shishi).catch(() => repeated);
        await Promise.race([shishi.exited, pause(50)]);
      }
      seen.repeated += repeated;
      await shishi.close();
      assert.ok(dead, "it has not come to its end");
    };

    for (const [at, point] of POINTS.entries()) {
      const ack = at % 3 === 2 ? "clickhouse" : "disk";
      test(`${point}, ack=${ack}`, { timeout: 60_000 }, async () => {
        seen.lives++;
        try {
          await untilDead(await start(ack, point));
        } catch (problem) {
          // It may die before it can say that it listens.
          assert.match((problem as Error).message, /it ended/);
        }
        assertNoneTwice();
      });
    }

    test("in the end all is there, once, and acknowledged", { timeout: 60_000 }, async () => {
      const shishi = await start("disk");
      await pause(500);
      publishing = false;
      await publisher;
      await eventually(() => {
        assert.equal(log.broker.unacknowledged, 0);
        assert.equal(queue.broker.unacknowledged, 0);
      }, { withinMs: 30_000 });
      await drained(shishi);
      seen.repeated += await repeatedOf(shishi);
      const times = assertNoneTwice();
      assert.equal(times.size, next, "each row is there");
      shishi.signal("SIGTERM");
      assert.equal((await shishi.exited).code, 0);
      await shishi.close();
      seen.messages = next / ROWS;
      assert.ok(seen.repeated > POINTS.length, "messages came again, and were known");
      say(`killed while it reads, ${binary ? "the binary" : "from source"}`, seen);
    });
  });
}
