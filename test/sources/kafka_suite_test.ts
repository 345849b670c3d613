/**
 * What every source promises, on a real Kafka, as a member of a classic group. And Kafka into ClickHouse: 100,000
 * messages, while ClickHouse goes and comes back and the collector is killed over and over. All of them are there,
 * each once, with where it came from. One Kafka for both, whose start takes four seconds of a processor.
 * Runs once: what may differ between the runtimes, connections and codecs, is in kafka_test.ts.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openKafka } from "../../src/sources/kafka.ts";
import { drained } from "../crash/drained.ts";
import { type ClickHouse, type Kafka, startClickHouse, startKafka } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { startTcpProxy, type TcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { joinKafka, kafkaAddress, kafkaDeps, makeGroups, type Others } from "./kafka_kit.ts";
import { testSource } from "./suite.ts";

const MESSAGES = 100_000;
/** Of messages that are published together. */
const BATCH = 2000;

let clickhouse: ClickHouse;
let proxy: TcpProxy;
let kafka: Kafka;
let others: Others;

before(async () => {
  [clickhouse, kafka] = await Promise.all([
    startClickHouse(),
    startKafka({ front: async (port) => (proxy = await startTcpProxy(port)).port }),
  ]);
  others = joinKafka(kafka);
  await makeGroups(others);
});

after(async () => {
  await others.close();
  await Promise.all([clickhouse.close(), kafka.close()]);
  await proxy.close();
});

let places = 0;
testSource("Kafka", () =>
  Promise.resolve({
    async place() {
      const topic = `t${++places}`;
      await others.makeTopic(topic, 2);
      return {
        open(member, prefetch = 1000) {
          const read = { topics: [topic], group: topic, prefetch, sessionMs: 3_000 };
          const address = kafkaAddress(kafka.port, read);
          return { address, broker: openKafka(address, kafkaDeps({ member })) };
        },
        publish: (bodies) => others.publish(topic, bodies),
        unacknowledged: () => others.unread(topic, topic),
      };
    },
    server: {
      kill: () => kafka.kill(),
      start: () => kafka.start(),
      freeze: () => kafka.freeze(),
      thaw: () => kafka.thaw(),
      cut: () => proxy.cut(),
    },
    // A member with a name that is killed is missed when its session is over.
    traits: { once: true, shared: true, durable: true, againMs: 10_000 },
    close: () => Promise.resolve(),
  }));

test("100,000 messages are there once, whatever dies on the way", async () => {
  await others.makeTopic("flights", 4);
  await clickhouse.query(
    "CREATE TABLE flights " +
      "(n UInt32, text String, _partition UInt8, _offset UInt64, at DateTime64(3), ms UInt64) " +
      "ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000",
  );
  const dataDir = tempDir("kafka-data");
  const source =
    `${kafka.url}/flights?table=flights&meta=_partition,_offset,_timestamp:at&session=3s`;
  const start = () =>
    startShishi({
      binary: true,
      args: [
        ...["--source", source, "--clickhouse-url", clickhouse.url, "--data-dir", dataDir],
        ...["--flush-interval", "100ms", "--id", "edge-1"],
      ],
    });
  const publishing = publish(0, MESSAGES - BATCH);
  let shishi: Shishi = await start();
  try {
    for (let round = 0; round < 5; round++) {
      await pause(700);
      if (round === 1) await clickhouse.kill();
      if (round === 3) await clickhouse.start();
      await shishi.close();
      shishi = await start();
    }
    await publishing;
    // The one that lives has something to read, however fast the others were.
    await publish(MESSAGES - BATCH, MESSAGES);
    await eventually(
      async () => assert.equal(await others.unread("flights", "shishi"), 0),
      { withinMs: 60_000, everyMs: 200 },
    );
    await drained(shishi);
    assert.equal(
      await clickhouse.query(
        "SELECT count(), uniqExact(n), max(n), uniqExact(_partition, _offset), " +
          "min(abs(toUnixTimestamp64Milli(at) - toInt64(ms)) < 60000) FROM flights",
      ),
      `${MESSAGES}\t${MESSAGES}\t${MESSAGES - 1}\t${MESSAGES}\t1`,
    );
    await eventually(async () => {
      const { ledger, sources: [status] } = await shishi.status();
      assert.deepEqual([ledger.lost, status.state, status.lag], [0, "running", 0]);
    }, { withinMs: 20_000 });
  } finally {
    await publishing.catch(() => {});
    await shishi.close();
    removeDir(dataDir);
  }
});

async function publish(from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += BATCH) {
    const bodies = Array.from(
      { length: BATCH },
      (_, n) =>
        JSON.stringify({ n: at + n, text: `message ${at + n} of a flight`, ms: Date.now() }),
    );
    await others.publish("flights", bodies);
    // As long as the collector dies.
    await pause(80);
  }
}

test("check says what it finds, and exit code 1 when something is wrong", async () => {
  await others.makeTopic("checked", 1);
  const check = (source: string) =>
    runShishi(["check", "--source", source, "--clickhouse-url", clickhouse.url], {
      binary: true,
      env: { SHISHI_LISTEN: "127.0.0.1:0" },
    });
  const good = await check(`${kafka.url}/checked`);
  assert.match(good.stdout, /topic checked: 1 partition, group shishi has read nothing yet/);
  assert.equal(good.code, 0, good.stdout + good.stderr);
  const bad = await check(`${kafka.url}/nowhere`);
  assert.match(bad.stdout, /there is no topic nowhere/);
  assert.equal(bad.code, 1);
});
