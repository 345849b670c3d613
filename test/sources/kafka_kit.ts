/** What the tests of Kafka share: addresses, what a collector hands over, topics, and what a group has read. */
import { readFile } from "node:fs/promises";
import { Admin, Consumer, Producer } from "@platformatic/kafka";
import type { BrokerDeps, KafkaSource } from "../../src/contracts.ts";
import { systemClock } from "../../src/kernel/time.ts";
import type { Kafka } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";

/** As `kafka://127.0.0.1:PORT/TOPIC?group=…` is read. */
export function kafkaAddress(port: number, more: Partial<KafkaSource> = {}): KafkaSource {
  const { topics = ["t"] } = more;
  return {
    broker: "kafka",
    scheme: "kafka",
    label: `kafka://127.0.0.1:${port}/${topics.join(",")}`,
    name: `kafka:${topics.join(",")}`,
    hosts: [{ host: "127.0.0.1", port }],
    tls: false,
    user: null,
    password: null,
    ca: null,
    cert: null,
    key: null,
    table: "t",
    prefetch: 1000,
    meta: [],
    onError: "dead",
    topics,
    group: "shishi",
    from: "earliest",
    sasl: null,
    token: null,
    member: null,
    protocol: "classic",
    sessionMs: 6_000,
    ...more,
  };
}

export function kafkaDeps(more: Partial<BrokerDeps> = {}): BrokerDeps {
  const silent = () => {};
  return {
    clock: systemClock,
    log: { debug: silent, info: silent, warn: silent, error: silent },
    member: "default.here",
    readFile: (path) => readFile(path, "utf8"),
    authorities: () => [],
    openSocket: () => {
      throw new Error("no socket is wanted");
    },
    openSqlite: () => {
      throw new Error("no database");
    },
    ...more,
  } as BrokerDeps;
}

/** Somebody else at the same broker: makes topics, fills them, and knows what groups have committed. */
export interface Others {
  makeTopic(
    topic: string,
    partitions: number,
    settings?: Readonly<Record<string, string>>,
  ): Promise<void>;
  /** @param partitions how many it has then. */
  addPartitions(topic: string, partitions: number): Promise<void>;
  deleteTopic(topic: string): Promise<void>;
  /** In this order, round and round the partitions; resolves when the broker has them. */
  publish(topic: string, bodies: readonly (string | Uint8Array | null)[]): Promise<void>;
  readonly producer: Producer;
  /** What a group has not committed of a topic. */
  unread(topic: string, group: string): Promise<number>;
  close(): Promise<void>;
}

export function joinKafka(kafka: Pick<Kafka, "port">): Others {
  const options = {
    clientId: "test",
    bootstrapBrokers: [`127.0.0.1:${kafka.port}`],
    retries: 20,
    retryDelay: 100,
    connectTimeout: 2_000,
  };
  const admin = new Admin(options);
  const producer = new Producer(options);
  let sent = 0;
  const groups = new Map<string, Consumer>();
  const consumerOf = (group: string) => {
    const consumer = groups.get(group) ?? new Consumer({ ...options, groupId: group });
    groups.set(group, consumer);
    return consumer;
  };
  const ends = (topic: string) =>
    consumerOf("ends").listOffsets({ topics: [topic], timestamp: -1n });
  return {
    producer,
    async makeTopic(topic, partitions, settings = {}) {
      const configs = Object.entries(settings).map(([name, value]) => ({ name, value }));
      await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs });
      // It is there before its partitions take anything, and a message that is sent again may be there twice.
      const ready = () => producer.metadata({ topics: [topic], forceUpdate: true });
      await eventually(async () => {
        const found = (await ready()).topics.get(topic)?.partitions ?? [];
        if (found.length < partitions || found.some(({ leader }) => leader < 0)) {
          throw new Error(topic);
        }
        await ends(topic);
      }, { withinMs: 10_000 });
    },
    async addPartitions(name, count) {
      const before = (await admin.metadata({ topics: [name] })).topics.get(name)!.partitionsCount;
      const assignments = Array.from({ length: count - before }, () => ({ brokerIds: [1] }));
      await admin.createPartitions({ topics: [{ name, count, assignments }] });
    },
    async deleteTopic(topic) {
      await admin.deleteTopics({ topics: [topic] });
    },
    async publish(topic, bodies) {
      const metadata = await producer.metadata({ topics: [topic] });
      const partitions = metadata.topics.get(topic)!.partitionsCount;
      const all = bodies.map((body) => ({
        topic,
        partition: sent++ % partitions,
        // Null is what a tombstone is.
        value: (body === null ? null : Buffer.from(body as string)) as Buffer,
      }));
      // Each by itself: where one of them has no leader yet, what the others took would be sent again.
      const parts = Map.groupBy(all, ({ partition }) => partition).values();
      await Promise.all([...parts].map((messages) => producer.send({ messages, acks: -1 })));
    },
    async unread(topic, group) {
      const consumer = consumerOf(group);
      const metadata = await consumer.metadata({ topics: [topic], forceUpdate: true });
      const partitions = metadata.topics.get(topic)!.partitions.map((_, index) => index);
      const committed = await consumer.listCommittedOffsets({ topics: [{ topic, partitions }] });
      const [begins, ends] = [
        await consumer.listOffsets({ topics: [topic], timestamp: -2n }),
        await consumer.listOffsets({ topics: [topic], timestamp: -1n }),
      ];
      return partitions.reduce((sum, index) => {
        const at = committed.get(topic)?.[index] ?? -1n;
        const from = at >= 0n ? at : begins.get(topic)![index]!;
        return sum + Number(ends.get(topic)![index]! - from);
      }, 0);
    },
    async close() {
      const clients = [admin, producer, ...groups.values()];
      await Promise.all(clients.map((client) => client.close().catch(() => {})));
    },
  };
}

/** The first group of a broker waits until there is a place for groups. */
export async function makeGroups(others: Others): Promise<void> {
  await others.makeTopic("first", 1);
  await eventually(() => others.unread("first", "first"), { withinMs: 20_000, everyMs: 100 });
}
