/**
 * A queue of RabbitMQ as a source, and an exchange of it as an exit channel. AMQP 0-9-1, so LavinMQ and others
 * that speak it as RabbitMQ does serve as well.
 *
 * Nothing is declared: what is read must be there, and nothing is ever sent back into the queue (`nack`). What
 * was given and not acknowledged goes back when the connection ends, which a quorum queue counts; so a connection
 * is kept, and ended where messages would be held for long (`source.ts` does).
 */

import type { AMQPMessage } from "@cloudamqp/amqp-client/amqp-message";
import type {
  AmqpSource,
  Broker,
  BrokerDeps,
  ExitChannel,
  ExitFeed,
  ExitOf,
  Feed,
  Message,
  MetaValue,
} from "../contracts.ts";
import { type AMQPChannel, type AmqpConnection, openAmqp } from "./amqp.ts";

/** More than a frame can say are none. */
const MOST_PREFETCH = 65_535;
/** Of messages that were sent and not asked for: beyond, the network has to wait. */
const MOST_WAITING_BYTES = 16 * 1024 * 1024;
/** A queue may throw a message away that was returned 20 times. */
const MANY_RETURNS = 10;
const SAY_AGAIN_MS = 60_000;
/** Questions in a row at which a queue had no consumer, though it has this one. */
const MOST_UNCONSUMED = 3;

/** What senders write into `content-encoding` without having encoded anything: kombu and others, the charset. */
const PLAIN = /^(?:identity|utf-?8|us-ascii|ascii|binary|[78]bit)?$/i;

export function openRabbitmq(address: AmqpSource, deps: BrokerDeps): Broker {
  let toldMs = -Infinity;
  /** Says so once a minute, whatever the number of messages and connections. */
  const onReturned = (times: number): void => {
    const nowMs = deps.clock.monotonicMs();
    if (nowMs - toldMs < SAY_AGAIN_MS) return;
    toldMs = nowMs;
    deps.log.warn("a message was given back to its queue often, which may throw it away", {
      source: address.name,
      server: address.label,
      queue: address.queue,
      times,
      hint: "a delivery-limit, 20 in RabbitMQ 4, ends in the dead-letter exchange or nowhere",
    });
  };
  return {
    async connect(signal) {
      const connection = await openAmqp(address, deps, signal);
      try {
        return await QueueFeed.begin(connection, address, deps, onReturned);
      } catch (error) {
        await connection.close();
        throw error;
      }
    },
    async inspect() {
      return await (await import("./inspect_rabbitmq.ts")).inspectRabbitmq(address, deps);
    },
  };
}

class QueueFeed implements Feed {
  readonly #connection: AmqpConnection;
  readonly #address: AmqpSource;
  readonly #onReturned: (times: number) => void;
  #channel: AMQPChannel | null = null;
  readonly #wantsHeaders: boolean;
  #waiting: Delivery[] = [];
  #waitingBytes = 0;
  /** Resolves when something waits. */
  #arrived = Promise.withResolvers<void>();
  #lag: number | null = null;
  /**
   * So many of those that come next were in the queue before this connection, and the server may have given
   * them to another: after a crash it does not always know.
   */
  #old = 0;
  #unconsumed = 0;

  private constructor(
    connection: AmqpConnection,
    address: AmqpSource,
    onReturned: (times: number) => void,
  ) {
    this.#connection = connection;
    this.#address = address;
    this.#onReturned = onReturned;
    this.#wantsHeaders = address.meta.some(({ name }) => name === "_headers");
  }

  static async begin(
    connection: AmqpConnection,
    address: AmqpSource,
    { member }: BrokerDeps,
    onReturned: (times: number) => void,
  ): Promise<QueueFeed> {
    const feed = new QueueFeed(connection, address, onReturned);
    const watching = await connection.channel();
    await feed.#look(watching);
    feed.#old = feed.#lag ?? 0;
    const channel = await connection.channel();
    feed.#channel = channel;
    await feed.#limit();
    const consumer = await connection.ask(
      channel.basicConsume(
        address.queue,
        { noAck: false, tag: `shishi ${member}` },
        (message) => feed.#receive(message),
      ),
    );
    consumer.wait().catch((error) => connection.lose(error));
    connection.watch(() => feed.#look(watching));
    return feed;
  }

  /** How many messages wait, and whether the server still counts this consumer. */
  async #look(channel: AMQPChannel): Promise<void> {
    const { queue } = this.#address;
    const passive = channel.queueDeclare(queue, { passive: true });
    const { messageCount, consumerCount } = await this.#connection.ask(passive);
    this.#lag = messageCount;
    this.#unconsumed = this.#channel === null || consumerCount > 0 ? 0 : this.#unconsumed + 1;
    if (this.#unconsumed > MOST_UNCONSUMED) {
      throw new Error("the server has forgotten this consumer");
    }
  }

  /** Also asks whether the server has all that was written on the channel before. */
  async #limit(): Promise<void> {
    const prefetch = Math.min(this.#address.prefetch, MOST_PREFETCH);
    await this.#connection.ask(this.#channel!.basicQos(prefetch));
  }

  #receive(message: AMQPMessage): void {
    const { headers = {} } = message.properties;
    if ("x-stream-offset" in headers) {
      return this.#connection.lose(
        new Error(
          `${this.#address.queue} is a stream, which remembers no acknowledgement; bind a queue ` +
            "to its exchange and read that",
        ),
      );
    }
    const returns = headers["x-delivery-count"];
    if (typeof returns === "number" && returns >= MANY_RETURNS) this.#onReturned(returns);
    const first = !message.redelivered && this.#old === 0;
    if (this.#old > 0) this.#old--;
    const delivery = new Delivery(message, this.#address.queue, {
      again: message.redelivered ? true : first ? false : undefined,
      headers: this.#wantsHeaders ? textsOf(headers) : null,
    });
    this.#waiting.push(delivery);
    this.#waitingBytes += delivery.body.length;
    if (this.#waitingBytes > MOST_WAITING_BYTES) this.#connection.pause();
    this.#arrived.resolve();
  }

  async next(): Promise<readonly Message[]> {
    await this.#connection.ask(this.#arrived.promise);
    const messages = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#arrived = Promise.withResolvers();
    this.#connection.resume();
    return messages;
  }

  async acknowledge(newest: readonly Message[]): Promise<void> {
    const tags = newest.map((message) => (message as Delivery).tag);
    if (tags.length === 0) return;
    await this.#connection.ask(this.#channel!.basicAck(Math.max(...tags), true));
    await this.#limit();
  }

  lag(): number | null {
    return this.#lag;
  }

  async close(): Promise<void> {
    await this.#connection.close();
    this.#waiting = [];
  }
}

/** One that was given. */
class Delivery implements Message {
  readonly body: Uint8Array;
  readonly encoding?: string;
  readonly partition: string;
  readonly id?: string;
  readonly again?: boolean;
  readonly address: string;
  /** Good on the channel that it came over. */
  readonly tag: number;
  readonly #message: AMQPMessage;
  readonly #headers: Readonly<Record<string, string>> | null;

  constructor(message: AMQPMessage, queue: string, { again, headers }: {
    readonly again: boolean | undefined;
    readonly headers: Readonly<Record<string, string>> | null;
  }) {
    const { contentEncoding = "", messageId = "" } = message.properties;
    this.#message = message;
    this.#headers = headers;
    this.body = message.body ?? new Uint8Array(0);
    this.partition = queue;
    this.tag = message.deliveryTag;
    this.address = `amqp:${queue}${messageId === "" ? "" : `@${messageId}`}`;
    if (!PLAIN.test(contentEncoding)) this.encoding = contentEncoding;
    if (messageId !== "") this.id = messageId;
    if (again !== undefined) this.again = again;
  }

  meta(name: string): MetaValue {
    const { exchange, routingKey, redelivered, properties } = this.#message;
    switch (name) {
      case "_exchange":
        return exchange;
      case "_routing_key":
        return routingKey;
      case "_message_id":
        return properties.messageId ?? null;
      case "_redelivered":
        return redelivered ? 1 : 0;
      case "_timestamp":
        return timeText(properties.timestamp);
      case "_headers":
        return this.#headers;
    }
    return null;
  }
}

/** Null for what is no time that can be written. */
function timeText(time: Date | undefined): string | null {
  return time === undefined || Number.isNaN(time.getTime()) ? null : time.toISOString();
}

/** At once: bytes in it are those of a frame that is written over. */
function textsOf(headers: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, textOf(value)]));
}

function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  if (value instanceof Date) return timeText(value) ?? "";
  if (value instanceof Uint8Array) return new TextDecoder().decode(value);
  if (typeof value !== "object" || value === null) return String(value ?? "");
  return JSON.stringify(
    value,
    (_, inner) =>
      typeof inner === "bigint"
        ? String(inner)
        : inner instanceof Uint8Array
        ? new TextDecoder().decode(inner)
        : inner,
  );
}

// ── Exit.

/** How long a server may take to say that it has a message. */
const CONFIRM_MS = 10_000;
/** Messages that are sent here before the last one was looked at; and what is looked at of one. */
const MOST_EXITS = 100;
const MOST_EXIT_BYTES = 4096;

export function openRabbitmqExit(address: ExitOf<"amqp">, deps: BrokerDeps): ExitChannel {
  const { exchange, routingKey } = address;
  /** A connection on which the exchange is known to be there. */
  async function open(signal: AbortSignal): Promise<[AmqpConnection, AMQPChannel]> {
    const connection = await openAmqp(address, deps, signal);
    try {
      const channel = await connection.channel();
      // The type does not count where nothing is declared.
      await connection.ask(channel.exchangeDeclare(exchange, "", { passive: true }));
      return [connection, channel];
    } catch (error) {
      await connection.close();
      throw error;
    }
  }
  return {
    /** What was sent before is nowhere: RabbitMQ keeps nothing for a queue that is not there yet. */
    async connect(_sinceMs, signal) {
      const [connection, channel] = await open(signal);
      try {
        return await listen(connection, channel, address);
      } catch (error) {
        await connection.close();
        throw error;
      }
    },
    async send(text, signal) {
      const [connection, channel] = await open(signal);
      const late = deps.clock.after(
        CONFIRM_MS,
        () => connection.lose(new Error(`no answer within ${CONFIRM_MS / 1000} s`)),
      );
      connection.onBlocked = (why) =>
        connection.lose(new Error(`the server takes no messages now: ${why}`));
      const abort = () => connection.lose(new Error("not wanted any more"));
      signal.addEventListener("abort", abort, { once: true });
      try {
        await connection.ask(channel.confirmSelect());
        // A key that is its own pattern: whatever queues are bound with it get the message.
        await connection.ask(channel.basicPublish(exchange, routingKey, text));
      } finally {
        signal.removeEventListener("abort", abort);
        late();
        await connection.close();
      }
    },
  };
}

async function listen(
  connection: AmqpConnection,
  channel: AMQPChannel,
  { exchange, routingKey }: ExitOf<"amqp">,
): Promise<ExitFeed> {
  // The server names it, and deletes it with the connection.
  const { name } = await connection.ask(
    channel.queueDeclare("", { exclusive: true, autoDelete: true, durable: false }),
  );
  await connection.ask(channel.queueBind(name, exchange, routingKey));
  const waiting: AMQPMessage[] = [];
  let arrived = Promise.withResolvers<void>();
  await connection.ask(channel.basicQos(MOST_EXITS));
  const consumer = await connection.ask(
    channel.basicConsume(name, { noAck: false, exclusive: true }, (message) => {
      waiting.push(message);
      arrived.resolve();
    }),
  );
  consumer.wait().catch((error) => connection.lose(error));
  const watching = await connection.channel();
  connection.watch(() => connection.ask(watching.queueDeclare(name, { passive: true })));
  return {
    async next() {
      await connection.ask(arrived.promise);
      const message = waiting.shift()!;
      if (waiting.length === 0) arrived = Promise.withResolvers();
      await connection.ask(channel.basicAck(message.deliveryTag));
      return new TextDecoder().decode(message.body?.subarray(0, MOST_EXIT_BYTES));
    },
    close: () => connection.close(),
  };
}
