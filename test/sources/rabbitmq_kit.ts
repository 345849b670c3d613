/** A RabbitMQ to read from, and what tests of it publish with. */

import { AMQPClient } from "@cloudamqp/amqp-client/amqp-socket-client";
import type { AMQPChannel } from "@cloudamqp/amqp-client/amqp-channel";
import type { AMQPProperties } from "@cloudamqp/amqp-client/amqp-properties";
import { readFile } from "node:fs/promises";
import type { AmqpSource, BrokerDeps, ExitOf, Log } from "../../src/contracts.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { exitUrls, sourceUrls } from "../../src/settings/source_urls.ts";
import type { RabbitMq } from "../kit/servers.ts";

export interface Said {
  readonly level: string;
  readonly message: string;
  readonly fields: unknown;
}

/** What a broker is handed. @param said what it logs. */
export function rabbitDeps(member = "g.a", said: Said[] = []): BrokerDeps {
  const level = (level: string) => (message: string, fields?: unknown) =>
    void said.push({ level, message, fields });
  const log = Object.fromEntries(
    ["debug", "info", "warn", "error"].map((name) => [name, level(name)]),
  ) as unknown as Log;
  return {
    clock: systemClock,
    log,
    member,
    readFile: (path) => readFile(path, "utf8"),
    authorities: () => [],
    // The rest is other brokers'.
  } as Partial<BrokerDeps> as BrokerDeps;
}

/** What is read of a URL. */
export function sourceOf(url: string): AmqpSource {
  const read = sourceUrls.parse(url);
  if (!read.ok) throw new Error(JSON.stringify(read));
  return read.value[0] as AmqpSource;
}

export function exitOf(url: string): ExitOf<"amqp"> {
  const read = exitUrls.parse(url);
  if (!read.ok) throw new Error(JSON.stringify(read));
  return read.value[0] as ExitOf<"amqp">;
}

/** A connection of a test's own, for as long as `work` lasts. */
export async function onChannel<T>(
  server: RabbitMq,
  work: (channel: AMQPChannel) => Promise<T>,
): Promise<T> {
  const client = new AMQPClient(server.url, undefined, null);
  client.onerror = () => {};
  await client.connect();
  try {
    return await work(await client.channel());
  } finally {
    await client.close().catch(() => {});
  }
}

let queues = 0;

/** A new queue, durable and empty. */
export async function newQueue(server: RabbitMq, args: object = {}): Promise<string> {
  const queue = `q${++queues}`;
  await onChannel(server, (channel) => channel.queueDeclare(queue, { durable: true }, args));
  return queue;
}

let messages = 0;

/** In this order, each under an id of its own; resolves when the server has them on its disk. */
export async function publish(
  server: RabbitMq,
  queue: string,
  bodies: readonly (string | Uint8Array)[],
  properties: AMQPProperties = {},
): Promise<void> {
  await onChannel(server, async (channel) => {
    await channel.confirmSelect();
    await Promise.all(bodies.map((body) =>
      channel.basicPublish("", queue, body, {
        deliveryMode: 2,
        messageId: `m${++messages}`,
        ...properties,
      })
    ));
  });
}
