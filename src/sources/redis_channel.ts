/**
 * A channel of Redis (pub/sub): every listener hears a message, once, and the server does not keep it. So nothing is
 * acknowledged, and what comes while there is no room, or no connection, is lost.
 */

import type { BrokerDeps, ExitFeed, Feed, Message, RedisSource } from "../contracts.ts";
import { repeat } from "../kernel/time.ts";
import type { RedisConnection } from "./redis_client.ts";
import { HELD_BYTES } from "./redis_feed.ts";

/** A connection that only listens says nothing by itself when it is over. */
const PING_MS = 3_000;
/** The loss of messages is said so often, not for each. */
const SAY_MS = 10_000;

/** Rejects as `Broker.connect` does; the connection is not closed then. */
export async function readChannel(
  connection: RedisConnection,
  address: RedisSource,
  deps: BrokerDeps,
): Promise<Feed> {
  if (address.read.what !== "channel") throw new Error("no channel");
  const feed = new ChannelFeed(connection, address, deps, address.read.channel);
  await connection.subscribe(address.read.channel, (body) => feed.heard(body));
  return feed;
}

/** As `readChannel`, for messages that end the collector. */
export async function listenForExit(
  connection: RedisConnection,
  channel: string,
  deps: BrokerDeps,
): Promise<ExitFeed> {
  const heard = new Heard<string>(connection, deps);
  const decoder = new TextDecoder();
  await connection.subscribe(channel, (body) => {
    // The oldest go: the last word counts.
    if (heard.waiting.push(decoder.decode(body)) > MOST_EXITS) heard.waiting.shift();
    heard.wake();
  });
  return {
    async next() {
      await heard.something();
      return heard.waiting.shift()!;
    },
    close: () => heard.close(),
  };
}

const MOST_EXITS = 1_000;

/** What was heard and is not fetched yet, over one connection. */
class Heard<T> {
  readonly waiting: T[] = [];
  readonly #connection: RedisConnection;
  readonly #endPings: () => void;
  #failure: Error | null = null;
  #woken = Promise.withResolvers<void>();

  constructor(connection: RedisConnection, { clock }: BrokerDeps) {
    this.#connection = connection;
    this.#endPings = repeat(clock, PING_MS, () => connection.ping().catch(() => {}));
    void connection.lost.then((why) => this.#fail(why));
  }

  wake(): void {
    this.#woken.resolve();
    this.#woken = Promise.withResolvers();
  }

  /** Resolves when something is there; rejects when nothing more will be. */
  async something(): Promise<void> {
    while (this.waiting.length === 0) {
      if (this.#failure !== null) throw this.#failure;
      await this.#woken.promise;
    }
  }

  close(): Promise<void> {
    this.#fail(new Error("the connection is closed"));
    this.#connection.close();
    return Promise.resolve();
  }

  #fail(why: Error): void {
    this.#failure ??= why;
    this.#endPings();
    this.wake();
  }
}

class ChannelFeed implements Feed {
  readonly #heard: Heard<Message>;
  readonly #channel: string;
  readonly #address: string;
  readonly #prefetch: number;
  readonly #deps: BrokerDeps;
  /** Given and not acknowledged, oldest first. */
  #given: Message[] = [];
  /** Of all that is not acknowledged. */
  #bytes = 0;
  #lost = 0;
  #saidMs = -Infinity;

  constructor(
    connection: RedisConnection,
    address: RedisSource,
    deps: BrokerDeps,
    channel: string,
  ) {
    this.#heard = new Heard(connection, deps);
    this.#channel = channel;
    this.#address = `redis:${channel}`;
    this.#prefetch = address.prefetch;
    this.#deps = deps;
  }

  heard(body: Uint8Array): void {
    const full = this.#given.length + this.#heard.waiting.length >= this.#prefetch;
    if (full || this.#bytes >= HELD_BYTES) return this.#lose();
    this.#bytes += body.length;
    const meta = (name: string) => name === "_key" ? this.#channel : null;
    this.#heard.waiting.push({ body, partition: this.#channel, address: this.#address, meta });
    this.#heard.wake();
  }

  async next(): Promise<readonly Message[]> {
    await this.#heard.something();
    const messages = this.#heard.waiting.splice(0);
    this.#given.push(...messages);
    return messages;
  }

  acknowledge(newest: readonly Message[]): Promise<void> {
    const count = 1 + Math.max(...newest.map((message) => this.#given.indexOf(message)));
    for (const { body } of this.#given.splice(0, count)) this.#bytes -= body.length;
    return Promise.resolve();
  }

  /** Nothing waits at the broker. */
  lag(): number {
    return 0;
  }

  /** So many messages there was no room for. */
  dropped(): number {
    return this.#lost;
  }

  close(): Promise<void> {
    return this.#heard.close();
  }

  #lose(): void {
    const { clock, log } = this.#deps;
    this.#lost++;
    if (clock.monotonicMs() - this.#saidMs < SAY_MS) return;
    this.#saidMs = clock.monotonicMs();
    log.warn("messages of a channel are lost: there is no room for them (prefetch=)", {
      source: this.#address,
      lost: this.#lost,
    });
  }
}
