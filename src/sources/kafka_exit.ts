/**
 * Exit channels on Kafka: a topic that every collector reads alone and from the time at which it has started,
 * so that a message of yesterday ends no collector today, and one that comes while the connection is away does. No
 * group is joined, and nothing committed.
 */

import type { BrokerDeps, ExitChannel, ExitFeed, ExitOf } from "../contracts.ts";
import { within } from "../kernel/time.ts";
import { clientOptions, type Library, loadLibrary, sentenceOf } from "./kafka_client.ts";
import { partitionName, Reader, type Reading, SILENT_MS } from "./kafka_reader.ts";

const CONNECT_MS = 10_000;
const CLOSE_MS = 2_000;
const WATCH_MS = 1_000;
const AHEAD = 100;
const LATEST = -1n;
/** The library wants a name for what is no member of a group. */
const NO_GROUP = "shishi-exit";

/** See `OpenExit`. */
export function openKafkaExit(address: ExitOf<"kafka">, deps: BrokerDeps): ExitChannel {
  const told = async <T>(work: Promise<T>, signal: AbortSignal): Promise<T> => {
    try {
      const ended = Promise.withResolvers<never>();
      const end = () => ended.reject(signal.reason);
      signal.addEventListener("abort", end, { once: true });
      if (signal.aborted) end();
      return await Promise.race([work, ended.promise])
        .finally(() => signal.removeEventListener("abort", end));
    } catch (error) {
      throw signal.aborted ? error : new Error(sentenceOf(error, address), { cause: error });
    }
  };
  return {
    async connect(sinceMs, signal) {
      const library = await loadLibrary(deps.log);
      const feed = new KafkaExitFeed(address, deps);
      try {
        await told(feed.begin(library, sinceMs), signal);
        return feed;
      } catch (error) {
        await feed.close();
        throw error;
      }
    },
    send: (text, signal) => told(send(address, deps, text), signal),
  };
}

async function send(address: ExitOf<"kafka">, deps: BrokerDeps, text: string): Promise<void> {
  const library = await loadLibrary(deps.log);
  const producer = new library.Producer(await clientOptions(address, deps, CONNECT_MS));
  try {
    const value = Buffer.from(text);
    await producer.send({ messages: [{ topic: address.topic, value }], acks: -1 });
  } finally {
    await within(deps.clock, CLOSE_MS, producer.close().catch(() => {}), undefined);
  }
}

class KafkaExitFeed implements ExitFeed {
  #reader: Reader | null = null;
  #change = Promise.withResolvers<void>();
  #failure: Error | null = null;
  #leave: () => Promise<unknown> = () => Promise.resolve();
  #unwatch: () => void = () => {};

  constructor(readonly address: ExitOf<"kafka">, readonly deps: BrokerDeps) {}

  async begin({ Consumer, ConnectionPool }: Library, sinceMs: number): Promise<void> {
    const { topic } = this.address;
    const options = await clientOptions(this.address, this.deps, CONNECT_MS);
    const consumer = new Consumer({ ...options, groupId: NO_GROUP, autocommit: false });
    const pool = new ConnectionPool(options.clientId, { ...options });
    this.#leave = () => Promise.all([pool.close(), consumer.close(true)]);
    consumer.topics.track(topic);
    const topics = [topic];
    const metadata = await consumer.metadata({ topics: [...topics], autocreateTopics: false });
    const { id: topicId = "" } = metadata.topics.get(topic) ?? {};
    const [since, ends] = await Promise.all([
      consumer.listOffsetsWithTimestamps({ topics: [...topics], timestamp: BigInt(sinceMs) }),
      consumer.listOffsets({ topics: [...topics], timestamp: LATEST }),
    ]);
    const readings = (ends.get(topic) ?? []).map((end, index): Reading => {
      const first = since.get(topic)?.get(index)?.offset ?? -1n;
      const next = first >= 0n ? first : end;
      const partition = partitionName(topic, index, topicId);
      return {
        topic,
        topicId,
        index,
        partition,
        gone: false,
        next,
        leaderEpoch: -1,
        end,
        given: 0,
      };
    });
    this.#reader = new Reader({
      consumer,
      pool,
      clock: this.deps.clock,
      ahead: AHEAD,
      onOutOfRange: (at, begin) => at.next < begin ? begin : at.end,
      onChange: () => this.#onChange(),
    });
    this.#reader.read(readings);
    this.#watch();
  }

  async next(): Promise<string> {
    while (true) {
      if (this.#failure !== null) throw this.#failure;
      const [message] = this.#reader?.take(1) ?? [];
      if (message !== undefined) return new TextDecoder().decode(message.body);
      const failure = this.#reader?.failure ?? null;
      if (failure !== null) this.#fail(sentenceOf(failure, this.address));
      else await this.#change.promise;
    }
  }

  /** A connection that is there is not yet one that works. */
  #watch(): void {
    this.#unwatch = this.deps.clock.after(WATCH_MS, () => {
      const askedMs = this.#reader?.askedSinceMs() ?? null;
      if (askedMs === null || this.deps.clock.monotonicMs() - askedMs <= SILENT_MS) {
        return this.#watch();
      }
      this.#fail(`no answer to a fetch for ${SILENT_MS / 1000} s`);
    });
  }

  #fail(sentence: string): void {
    this.#failure ??= new Error(sentence);
    this.#onChange();
  }

  #onChange(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  async close(): Promise<void> {
    this.#unwatch();
    this.#reader?.close();
    this.#fail("closed");
    await within(this.deps.clock, CLOSE_MS, this.#leave().catch(() => {}), undefined);
  }
}
