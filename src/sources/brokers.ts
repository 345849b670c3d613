/**
 * The brokers that there are, one line each: the file that knows its library, loaded when an address of it
 * is opened for the first time. It stands on its own because another broker is a line here, and nothing
 * else.
 */

import type {
  Broker,
  BrokerDeps,
  BrokerKind,
  ExitAddress,
  ExitChannel,
  ExitKind,
  OpenBroker,
  OpenExit,
  SourceAddress,
} from "../contracts.ts";

const BROKERS: { readonly [K in BrokerKind]?: () => Promise<OpenBroker<K>> } = {
  kafka: async () => (await import("./kafka.ts")).openKafka,
  redis: async () => (await import("./redis.ts")).openRedis,
  nats: async () => (await import("./nats_source.ts")).openNats,
  amqp: async () => (await import("./rabbitmq.ts")).openRabbitmq,
  outbox: async () => (await import("./outbox.ts")).openOutbox,
};

const EXITS: { readonly [K in ExitKind]?: () => Promise<OpenExit<K>> } = {
  kafka: async () => (await import("./kafka_exit.ts")).openKafkaExit,
  redis: async () => (await import("./redis.ts")).openRedisExit,
  nats: async () => (await import("./nats_source.ts")).openNatsExit,
  amqp: async () => (await import("./rabbitmq.ts")).openRabbitmqExit,
};

/** Rejects for a broker that this build does not have. */
export async function openBroker(address: SourceAddress, deps: BrokerDeps): Promise<Broker> {
  const load = BROKERS[address.broker] as (() => Promise<OpenBroker<BrokerKind>>) | undefined;
  if (load === undefined) throw new Error(`this build has no sources of ${address.broker}`);
  return (await load())(address, deps);
}

/** As `openBroker`. */
export async function openExit(address: ExitAddress, deps: BrokerDeps): Promise<ExitChannel> {
  const load = EXITS[address.broker] as (() => Promise<OpenExit<ExitKind>>) | undefined;
  if (load === undefined) throw new Error(`this build has no exits of ${address.broker}`);
  return (await load())(address, deps);
}
