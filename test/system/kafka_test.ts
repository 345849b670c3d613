/**
 * Kafka into ClickHouse: 100,000 messages, while ClickHouse goes and comes back and the collector is killed
 * over and over. All of them are there, each once, with where it came from.
 * Runs once: the collector is the binary.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { drained } from "../crash/drained.ts";
import { type ClickHouse, type Kafka, startClickHouse, startKafka } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { joinKafka, makeGroups, type Others } from "../sources/kafka_kit.ts";

const MESSAGES = 100_000;

let clickhouse: ClickHouse;
let kafka: Kafka;
let others: Others;

before(async () => {
  [clickhouse, kafka] = await Promise.all([startClickHouse(), startKafka()]);
  others = joinKafka(kafka);
  await makeGroups(others);
});

after(async () => {
  await others.close();
  await Promise.all([clickhouse.close(), kafka.close()]);
});

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
  const publishing = publish();
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
    const { ledger, sources: [status] } = await shishi.status();
    assert.equal(ledger.lost, 0);
    assert.equal(status.state, "running");
    assert.equal(status.lag, 0);
  } finally {
    await publishing.catch(() => {});
    await shishi.close();
    removeDir(dataDir);
  }
});

async function publish(): Promise<void> {
  for (let at = 0; at < MESSAGES; at += 2000) {
    const bodies = Array.from(
      { length: 2000 },
      (_, n) =>
        JSON.stringify({ n: at + n, text: `message ${at + n} of a flight`, ms: Date.now() }),
    );
    await others.publish("flights", bodies);
    await pause(50);
  }
}

test("check says what it finds, and exit code 1 when something is wrong", async () => {
  await others.makeTopic("checked", 1);
  const check = (source: string) =>
    runShishi(["check", "--source", source, "--clickhouse-url", clickhouse.url], { binary: true });
  const good = await check(`${kafka.url}/checked`);
  assert.match(good.stdout, /topic checked: 1 partition, group shishi has read nothing yet/);
  assert.equal(good.code, 0, good.stdout + good.stderr);
  const bad = await check(`${kafka.url}/nowhere`);
  assert.match(bad.stdout, /there is no topic nowhere/);
  assert.equal(bad.code, 1);
});
