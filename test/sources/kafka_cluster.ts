/**
 * Kafka of three brokers under load: the one that leads a partition and coordinates the groups is killed, another
 * one ends in order, and a partition is without a leader for a while. Whatever moves where, nothing is missing and
 * nothing is there twice.
 * Runs once: what may differ between the runtimes is in kafka_test.ts.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Admin, Consumer, Producer } from "@platformatic/kafka";
import type { KafkaSource } from "../../src/contracts.ts";
import { openKafka } from "../../src/sources/kafka.ts";
import { loadLibrary } from "../../src/sources/kafka_client.ts";
import { freePort } from "../kit/free_port.ts";
import { type KafkaNode, startKafkaCluster } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { kafkaAddress, kafkaDeps } from "./kafka_kit.ts";
import { type Reading, startLoad, startReading } from "./reading.ts";

const SOON = { withinMs: 30_000, everyMs: 100 };
const PARTITIONS = 6;
const PROTOCOLS = ["classic", "consumer"] as const;

let nodes: readonly KafkaNode[];
let admin: Admin;
let producer: Producer;
let watcher: Consumer;
/** All brokers, and before them one that is not there. */
let hosts: KafkaSource["hosts"];

before(async () => {
  // Connections of the test's own clients end as well.
  await loadLibrary(kafkaDeps().log);
  nodes = await startKafkaCluster(3);
  const options = {
    clientId: "test",
    bootstrapBrokers: nodes.map(({ port }) => `127.0.0.1:${port}`),
    retries: 50,
    retryDelay: 100,
    connectTimeout: 2_000,
    requestTimeout: 5_000,
  };
  admin = new Admin(options);
  producer = new Producer(options);
  watcher = new Consumer({ ...options, groupId: "classic" });
  const ports = [await freePort(), ...nodes.map(({ port }) => port)];
  hosts = ports.map((port) => ({ host: "127.0.0.1", port }));
  await admin.createTopics({ topics: ["load"], partitions: PARTITIONS, replicas: 3 });
  const assignments = [{ partition: 0, brokers: [3] }];
  await admin.createTopics({ topics: ["alone"], partitions: -1, replicas: -1, assignments });
  await eventually(() => isWhole("load"), SOON);
  await eventually(() => isWhole("alone"), SOON);
});

after(async () => {
  const clients = [admin, producer, watcher].filter((client) => client !== undefined);
  await Promise.all(clients.map((client) => client.close().catch(() => {})));
  await Promise.all((nodes ?? []).map((node) => node.close()));
});

async function partitionsOf(topic: string) {
  return (await watcher.metadata({ topics: [topic], forceUpdate: true })).topics.get(topic)!
    .partitions;
}

/** Every partition has a leader, and all replicas are where it is. */
async function isWhole(topic: string): Promise<void> {
  for (const { leader, replicas, isr } of await partitionsOf(topic)) {
    assert.ok(leader > 0 && isr.length === replicas.length, `${leader} ${isr} ${replicas}`);
  }
}

/** Messages that a topic has. */
async function inTopic(topic: string): Promise<number> {
  const ends = await watcher.listOffsets({ topics: [topic], timestamp: -1n });
  return Number(ends.get(topic)!.reduce((sum, end) => sum + end, 0n));
}

function send(topic: string, partitions: number) {
  let sent = 0;
  return (bodies: readonly string[]) =>
    producer.send({
      messages: bodies.map((body) => ({
        topic,
        partition: sent++ % partitions,
        value: Buffer.from(body),
      })),
      acks: -1,
    });
}

function read(topic: string, more: Partial<KafkaSource>): Reading {
  const address = kafkaAddress(hosts[1]!.port, { topics: [topic], hosts, ...more });
  return startReading(address, openKafka(address, kafkaDeps({ member: `g.${more.group}` })));
}

const node = (id: number) => nodes.find((one) => one.id === id)!;

test("leaders and the coordinator move, by a kill and in order", { timeout: 170_000 }, async () => {
  const readings = PROTOCOLS.map((protocol) => read("load", { protocol, group: protocol }));
  const load = startLoad(send("load", PARTITIONS));
  /** What is published from now on is read. */
  const goesOn = async () => {
    const { published } = load;
    await eventually(() => assert.ok(load.published > published + 200), SOON);
    const upTo = load.published;
    await eventually(() => {
      for (const { rows, states } of readings) {
        const found = new Set(rows);
        for (let n = published; n <= upTo; n++) {
          assert.ok(n === 0 || found.has(`{"n":${n}}`), `${n}: ${states.join(" → ")}`);
        }
      }
    }, SOON);
  };
  try {
    await goesOn();
    const killed = node(await watcher.findGroupCoordinator());
    const led = (await partitionsOf("load")).filter(({ leader }) => leader === killed.id);
    assert.ok(led.length > 0, "it leads nothing");
    await killed.kill();
    await goesOn();
    await killed.start();
    await eventually(() => isWhole("load"), SOON);
    const leader = node((await partitionsOf("load"))[0]!.leader);
    await leader.stop();
    await goesOn();
    await leader.start();
    await goesOn();
    await load.stop();
    const all = await inTopic("load");
    await eventually(() => {
      for (const { rows, states } of readings) {
        assert.ok(rows.length >= all, `${rows.length} of ${all}: ${states.join(" → ")}`);
      }
    }, SOON);
    for (const { rows } of readings) {
      assert.equal(rows.length, all);
      const found = new Set(rows);
      for (let n = 1; n <= load.published; n++) assert.ok(found.has(`{"n":${n}}`), `${n}`);
    }
    await eventually(() => {
      for (const { status } of readings) assert.deepEqual([status().lag, status().unacked], [0, 0]);
    }, SOON);
  } finally {
    await load.stop();
    await Promise.all(readings.map((reading) => reading.stop()));
  }
});

test("a partition without a leader: that is said, and it is read when it has one", {
  timeout: 170_000,
}, async () => {
  await eventually(() => isWhole("alone"), SOON);
  const publish = send("alone", 1);
  const reading = read("alone", { group: "alone" });
  try {
    await publish(['{"n":1}', '{"n":2}']);
    await eventually(() => assert.equal(reading.rows.length, 2), SOON);
    await node(3).kill();
    await eventually(() => assert.match(reading.states.join("\n"), /has no leader/), {
      withinMs: 60_000,
    });
    assert.notEqual(reading.status().state, "running");
    await node(3).start();
    await publish(['{"n":3}']);
    const all = await inTopic("alone");
    await eventually(() => assert.equal(reading.rows.length, all), { withinMs: 60_000 });
    assert.deepEqual([...new Set(reading.rows)], ['{"n":1}', '{"n":2}', '{"n":3}']);
  } finally {
    await reading.stop();
  }
});
