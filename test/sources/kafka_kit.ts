/** What the tests of Kafka sources share: addresses, a feed that is read as the loop would, producing. */
import type { BrokerDeps, Feed, KafkaSource, Message } from "../../src/contracts.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { readFile } from "node:fs/promises";
import { openKafka } from "../../src/sources/kafka.ts";
import type { Kafka } from "../kit/servers.ts";

export function kafkaAddress(kafka: Kafka, more: Partial<KafkaSource>): KafkaSource {
  return {
    broker: "kafka",
    scheme: "kafka",
    label: `${kafka.url}/t`,
    name: "kafka:t",
    hosts: [{ host: "127.0.0.1", port: kafka.port }],
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
    topics: ["t"],
    group: "g",
    from: "earliest",
    sasl: null,
    token: null,
    member: "off",
    protocol: "classic",
    sessionMs: 6000,
    ...more,
  };
}

export const silentLog = { debug() {}, info() {}, warn() {}, error() {} };

export function kafkaDeps(more: Partial<BrokerDeps> = {}): BrokerDeps {
  return {
    clock: systemClock,
    log: silentLog,
    member: "default.here",
    readFile: (path) => readFile(path, "utf8"),
    authorities: () => [],
    openSocket: () => {
      throw new Error("no socket");
    },
    openSqlite: () => {
      throw new Error("no database");
    },
    ...more,
  };
}
export { openKafka };
export type { Feed, Message };
