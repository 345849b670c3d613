/**
 * What the programs of this example share: queues of numbers and of squares, and the channel on which all of
 * them hear `Exit`, on Redis or on Kafka. The listener of the exit channel is a connection of its own: that of
 * the work is busy when it matters.
 */
import {
  Consumer,
  MessagesStreamFallbackModes,
  MessagesStreamModes,
  Producer,
} from "@platformatic/kafka";
import { Redis } from "ioredis";
import process from "node:process";

export const NUMBERS = "numbers";
export const SQUARES = "squares";
export const EXIT_CHANNEL = "exitCh";

export interface Work {
  /** Puts texts into a queue; resolves when they are there. */
  give(queue: string, texts: readonly string[]): Promise<void>;
  /**
   * Begins to turn each text of one queue into one of another. What was taken by a worker that died is another's
   * work; where it dies between the two steps of Kafka, the square comes twice.
   */
  turn(from: string, to: string, how: (text: string) => string): Promise<void>;
  /** Listens for `Exit`; the inner promise resolves when it comes. */
  listen(): Promise<{ readonly exit: Promise<void> }>;
  close(): Promise<void>;
}

/** @param url `redis://host:port` or `kafka://host:port`. */
export function openWork(url: string): Work {
  return url.startsWith("kafka:") ? new KafkaWork(new URL(url).host) : new RedisWork(url);
}

class RedisWork implements Work {
  readonly #redis: Redis;
  readonly #others: Redis[] = [];
  #closed = false;
  #turning: Promise<void> = Promise.resolve();

  constructor(readonly url: string) {
    this.#redis = new Redis(url);
  }

  async give(queue: string, texts: readonly string[]): Promise<void> {
    await this.#redis.lpush(queue, ...texts);
  }

  turn(from: string, to: string, how: (text: string) => string): Promise<void> {
    const waiting = this.#another();
    // A message in hand is in a list of this worker's own.
    const own = `${from}:${process.pid}`;
    this.#turning = (async () => {
      while (!this.#closed) {
        const text = await waiting.blmove(from, own, "RIGHT", "LEFT", 1);
        // Both or none of it: a square is never there twice.
        if (text !== null) await this.#redis.multi().lpush(to, how(text)).lrem(own, 1, text).exec();
      }
    })();
    return Promise.resolve();
  }

  async listen(): Promise<{ readonly exit: Promise<void> }> {
    const listener = this.#another();
    const { promise, resolve } = Promise.withResolvers<void>();
    listener.on("message", (_, text) => text === "Exit" && resolve());
    await listener.subscribe(EXIT_CHANNEL);
    return { exit: promise };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#turning;
    for (const redis of [this.#redis, ...this.#others]) redis.disconnect();
  }

  #another(): Redis {
    const redis = new Redis(this.url);
    this.#others.push(redis);
    return redis;
  }
}

class KafkaWork implements Work {
  readonly #options: { clientId: string; bootstrapBrokers: string[] };
  readonly #producer: Producer;
  readonly #consumers: Consumer[] = [];

  constructor(broker: string) {
    this.#options = { clientId: "squares", bootstrapBrokers: [broker] };
    this.#producer = new Producer(this.#options);
  }

  async give(queue: string, texts: readonly string[]): Promise<void> {
    const messages = texts.map((text) => ({ topic: queue, value: Buffer.from(text) }));
    await this.#producer.send({ messages, acks: -1 });
  }

  async turn(from: string, to: string, how: (text: string) => string): Promise<void> {
    const messages = await this.#read(from, "workers", MessagesStreamModes.COMMITTED);
    void (async () => {
      for await (const message of messages) {
        await this.give(to, [how(String(message.value))]);
        await message.commit();
      }
    })().catch(() => {});
  }

  async listen(): Promise<{ readonly exit: Promise<void> }> {
    const group = `exit-${process.pid}`;
    const messages = await this.#read(EXIT_CHANNEL, group, MessagesStreamModes.LATEST);
    const { promise, resolve } = Promise.withResolvers<void>();
    messages.on("data", ({ value }) => String(value) === "Exit" && resolve());
    return { exit: promise };
  }

  async close(): Promise<void> {
    await Promise.all(this.#consumers.map((consumer) => consumer.close(true)));
    await this.#producer.close();
  }

  async #read(topic: string, groupId: string, mode: "committed" | "latest") {
    const consumer = new Consumer({ ...this.#options, groupId, autocommit: false });
    this.#consumers.push(consumer);
    return await consumer.consume({
      topics: [topic],
      mode,
      fallbackMode: MessagesStreamFallbackModes.EARLIEST,
      maxWaitTime: 500,
    });
  }
}
