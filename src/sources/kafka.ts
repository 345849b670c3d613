/**
 * Kafka as a source: a member of a consumer group. Which partitions are this member's the library agrees on
 * with the others; what is read of them is `kafka_reader.ts`; here is what is acknowledged, and when that is
 * committed.
 *
 * *When partitions move*, a member stops, waits until what it has given out is safe (2 s at most), commits, and
 * only then gives them away: so nothing of it comes twice. What stays goes on where it was.
 */

import type { ConnectionPool, Consumer } from "@platformatic/kafka";
import type { Broker, BrokerDeps, Feed, KafkaSource, Message } from "../contracts.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { sleep, within } from "../kernel/time.ts";
import { assignFairly } from "./kafka_assign.ts";
import {
  apiIdsOf,
  type ClientOptions,
  clientOptions,
  type Library,
  loadLibrary,
  sentenceOf,
} from "./kafka_client.ts";
import { inspectKafka } from "./inspect_kafka.ts";
import {
  type KafkaMessage,
  partitionName,
  Reader,
  type Reading,
  SILENT_MS,
} from "./kafka_reader.ts";

/** For the answer to the first question. */
const CONNECT_MS = 10_000;
/** For all members of a group to join anew. */
const REBALANCE_MS = 60_000;
const MOST_HEARTBEAT_MS = 3_000;
/** Between two commits, unless what waits for one keeps messages back. */
const COMMIT_EVERY_MS = 1_000;
/** For what was given out to become safe before partitions go. */
const HAND_OVER_MS = 2_000;
/** For the last commit, and for leaving. */
const CLOSE_MS = 2_000;
const WATCH_MS = 1_000;
/** Partitions that were added to a topic are noticed so soon. */
const TOPICS_EVERY_MS = 30_000;
/** A commit that the broker could not take now is tried again. */
const PASSES = new Set([
  "REBALANCE_IN_PROGRESS",
  "ILLEGAL_GENERATION",
  "UNKNOWN_MEMBER_ID",
  "STALE_MEMBER_EPOCH",
  "FENCED_MEMBER_EPOCH",
  "COORDINATOR_LOAD_IN_PROGRESS",
  "COORDINATOR_NOT_AVAILABLE",
  "NOT_COORDINATOR",
  "REQUEST_TIMED_OUT",
]);

/** See `OpenBroker`. */
export function openKafka(address: KafkaSource, deps: BrokerDeps): Broker {
  return {
    async connect(signal) {
      const library = await loadLibrary(deps.log);
      const options = await clientOptions(address, deps, REBALANCE_MS + SILENT_MS);
      signal.throwIfAborted();
      const feed = new KafkaFeed(address, deps, library, options);
      const ended = Promise.withResolvers<never>();
      const end = () => ended.reject(signal.reason);
      signal.addEventListener("abort", end, { once: true });
      try {
        // An answer that the library cannot work on leaves its call without an end.
        await Promise.race([feed.join(), ended.promise]);
        return feed;
      } catch (error) {
        await feed.close();
        throw signal.aborted ? error : new Error(sentenceOf(error, address), { cause: error });
      } finally {
        signal.removeEventListener("abort", end);
      }
    },
    inspect: () => inspectKafka(address, deps),
  };
}

/** What of a partition is acknowledged and committed. */
interface Progress {
  /** Of the messages that were given out, how many are safe. */
  safe: number;
  /** What comes after the newest that is safe; null: nothing yet. */
  toCommit: bigint | null;
  /** -1: nothing is. */
  committed: bigint;
  /** Where reading began. */
  readonly begun: bigint;
}

class KafkaFeed implements Feed {
  readonly #consumer: Consumer;
  readonly #pool: ConnectionPool;
  readonly #reader: Reader;
  readonly #progress = new Map<Reading, Progress>();
  /** Resolved, and made anew, when anything has changed that a wait may be for. */
  #change = Promise.withResolvers<void>();
  #failure: Error | null = null;
  #closed = false;
  #joined = false;
  /** Partitions are being moved: no heartbeat is due. */
  #joiningSinceMs: number | null = null;
  #handingOver = false;
  #holdNext = false;
  #isLeader = false;
  #lastBeatMs: number;
  #lastCommitMs = -Infinity;
  #committing: Promise<void> | null = null;
  #partitionCounts = "";
  #assigning: Promise<void> = Promise.resolve();
  readonly #ended = new AbortController();

  constructor(
    readonly address: KafkaSource,
    readonly deps: BrokerDeps,
    library: Library,
    options: ClientOptions,
  ) {
    const { group, prefetch, protocol, sessionMs } = address;
    const { clock } = deps;
    this.#lastBeatMs = clock.monotonicMs();
    const consumer = new library.Consumer({
      ...options,
      groupId: group,
      metadataMaxAge: 5 * TOPICS_EVERY_MS,
      // Its types know no session of the other protocol, where the broker has it; it compares the times all the same.
      groupProtocol: protocol as "classic",
      ...(protocol === "classic" ? this.#static() : {}),
      sessionTimeout: sessionMs,
      rebalanceTimeout: Math.max(REBALANCE_MS, sessionMs + 1),
      heartbeatInterval: Math.min(MOST_HEARTBEAT_MS, Math.floor(sessionMs / 3)),
      autocommit: false,
      partitionAssigner: assignFairly,
      protocolsMetadata: () => this.#beforeJoin(),
    });
    this.#consumer = consumer;
    this.#pool = new library.ConnectionPool(options.clientId, { ...options });
    this.#reader = new Reader({
      consumer,
      pool: this.#pool,
      clock,
      ahead: prefetch,
      onOutOfRange: (at, begin, end) => this.#onOutOfRange(at, begin, end),
      onChange: () => this.#onChange(),
    });
    // The library's own word for what no call waits for.
    (consumer as unknown as { on(event: "error", fn: (error: unknown) => void): void })
      .on("error", (error) => this.#onStray(error));
    consumer.on("consumer:heartbeat:start", () => this.#dropMoved());
    consumer.on("consumer:heartbeat:end", () => this.#onBeat());
    consumer.on("consumer:heartbeat:error", ({ error }) => this.#onBeatError(error));
    consumer.on("consumer:group:join", ({ isLeader }) => this.#onJoin(isLeader === true));
    consumer.on("consumer:group:rebalance", () => this.#onRebalance());
    if (protocol === "consumer") this.#holdRevocations();
  }

  /** Of this source alone: two members of one name put each other out. */
  #static(): { groupInstanceId?: string } {
    const name = this.#memberName();
    return name === null ? {} : { groupInstanceId: name };
  }

  #memberName(): string | null {
    const { member, name } = this.address;
    if (member === "off") return null;
    // What Kafka allows.
    return (member ?? `${this.deps.member}.${name}`).replace(/[^A-Za-z0-9._-]/g, "-").slice(0, 249);
  }

  // ── Joining.

  /** Rejects with whatever the library has thrown. */
  async join(): Promise<void> {
    const { topics } = this.address;
    const { clock } = this.deps;
    const found = await within(
      clock,
      CONNECT_MS,
      this.#consumer.metadata({ topics: [...topics], autocreateTopics: false }),
      null,
    );
    if (found === null) throw new Error(`no answer within ${CONNECT_MS / 1000} s`);
    await this.#findCoordinator();
    this.#joiningSinceMs = clock.monotonicMs();
    if (this.address.protocol === "consumer") await this.#joinConsumer([...topics]);
    else {
      this.#consumer.topics.trackAll(...topics);
      await this.#joinClassic();
    }
    this.#joiningSinceMs = null;
    this.#joined = true;
    this.#lastBeatMs = clock.monotonicMs();
    await this.#assigning;
    if (this.#failure !== null) throw this.#failure;
    void this.#watch();
    void this.#watchTopics();
  }

  /** A cluster makes the place for its groups when it is asked for the first one. */
  async #findCoordinator(): Promise<void> {
    const { clock } = this.deps;
    const untilMs = clock.monotonicMs() + CONNECT_MS;
    while (true) {
      try {
        await this.#consumer.findGroupCoordinator();
        return;
      } catch (error) {
        if (!isPassing(error) || clock.monotonicMs() > untilMs) throw error;
        await sleep(clock, 200, this.#ended.signal);
      }
    }
  }

  /** While others come and go a join is refused, and tried again. */
  async #joinClassic(): Promise<void> {
    const { clock } = this.deps;
    const untilMs = clock.monotonicMs() + REBALANCE_MS;
    while (!this.#closed) {
      try {
        await this.#consumer.joinGroup({});
        return;
      } catch (error) {
        if (!isPassing(error) || clock.monotonicMs() > untilMs) throw error;
        await sleep(clock, 100, this.#ended.signal);
      }
    }
  }

  /** The library's own attempt to join anew has failed, or something of which no call knows. */
  #onStray(error: unknown): void {
    if (this.address.protocol === "consumer" || !this.#joined || !isPassing(error)) {
      return this.#fail(error);
    }
    void this.#joinClassic().catch((error) => this.#fail(error));
  }

  /**
   * The library joins such a group only for a stream of its own, which is let go at once: `kafka_reader.ts`
   * reads. The topics are tracked once more, since the stream takes its own with it.
   */
  async #joinConsumer(topics: string[]): Promise<void> {
    const consumer = this.#consumer;
    const name = this.#memberName();
    // The same id again takes up where a process was killed, without waiting for its session to end.
    if (name !== null) consumer.memberId = uuidOf(`${this.address.group} ${name}`);
    const stream = await consumer.consume({ topics, mode: "committed", fallbackMode: "latest" });
    consumer.topics.trackAll(...topics);
    stream.destroy();
    this.#onBeat();
  }

  /** The library asks for this before each join, the first one too. @returns what other members get to see. */
  async #beforeJoin(): Promise<Buffer> {
    if (this.#joined) {
      if (this.#consumer.memberId === null) {
        const why =
          "the group has put this member out: it was silent for longer than session=, or " +
          `another one has its name (${this.#memberName() ?? "none"})`;
        this.#fail(new Error(why));
        throw new Error(why);
      }
      this.#joiningSinceMs = this.deps.clock.monotonicMs();
      await this.#handOver();
    }
    return Buffer.alloc(0);
  }

  /** What was given out becomes safe, and is committed, or 2 s pass. */
  async #handOver(): Promise<void> {
    this.#reader.pause();
    const { clock } = this.deps;
    const untilMs = clock.monotonicMs() + HAND_OVER_MS;
    while (this.#outstanding() > 0 && this.#failure === null) {
      const leftMs = untilMs - clock.monotonicMs();
      if (leftMs <= 0) break;
      await within(clock, leftMs, this.#change.promise, undefined);
    }
    await within(clock, HAND_OVER_MS, this.#commit().catch(() => {}), undefined);
  }

  #onJoin(isLeader: boolean): void {
    this.#isLeader = isLeader;
    this.#joiningSinceMs = null;
    this.#onBeat();
  }

  /** With the classic protocol `#beforeJoin` follows. */
  #onRebalance(): void {
    if (this.address.protocol === "consumer") this.#holdNext = true;
  }

  /**
   * With KIP-848 the library gives partitions back in the heartbeat that follows its `rebalance` event, and asks
   * for a topic's metadata in between, which nothing else does there: that answer is held until what was given
   * out is safe. A library that does it otherwise would repeat a little, which a test notices.
   */
  #holdRevocations(): void {
    type Metadata = (options: unknown, callback: (...answer: unknown[]) => void) => void;
    const base = Object.getPrototypeOf(Object.getPrototypeOf(this.#consumer));
    const symbol = Object.getOwnPropertySymbols(base)
      .find(({ description }) => description === "plt.kafka.base.metadata");
    if (symbol === undefined) return;
    const consumer = this.#consumer as unknown as Record<symbol, Metadata>;
    const ask = consumer[symbol]!.bind(this.#consumer);
    consumer[symbol] = (options, callback) => {
      if (!this.#holdNext) return ask(options, callback);
      this.#holdNext = false;
      this.#handingOver = true;
      void this.#handOver().finally(() => {
        this.#handingOver = false;
        ask(options, callback);
      }).catch((error) => this.#fail(error));
    };
  }

  // ── Assignments.

  /** With KIP-848 the library may have given partitions back before it is looked what is left. */
  #dropMoved(): void {
    const { assignments } = this.#consumer;
    if (this.address.protocol !== "consumer" || assignments === null) return;
    const kept = this.#reader.readings.filter(({ topic, index }) =>
      assignments.some((own) => own.topic === topic && own.partitions.includes(index))
    );
    if (kept.length < this.#reader.readings.length) this.#readOnly(kept);
  }

  /** What moved is forgotten: what of it becomes safe later is not committed any more. */
  #readOnly(readings: readonly Reading[]): void {
    this.#reader.read(readings);
    for (const reading of this.#progress.keys()) {
      if (reading.gone) this.#progress.delete(reading);
    }
    this.#onChange();
  }

  #onBeat(): void {
    this.#lastBeatMs = this.deps.clock.monotonicMs();
    this.#dropMoved();
    this.#assigning = this.#assigning.then(() => this.#assign()).catch((error) => {
      // The group has moved on meanwhile: the next heartbeat says to where.
      if (!isPassing(error)) this.#fail(error);
    });
  }

  #onBeatError(error: unknown): void {
    const said = apiIdsOf(error);
    if (said.includes("FENCED_MEMBER_EPOCH") || said.includes("UNKNOWN_MEMBER_ID")) {
      // It rejoins by itself, and what it had may have been another's meanwhile.
      this.#fail(
        new Error(
          "the group has put this member out: it was silent for longer than its session, or " +
            `another one has its name (${this.#memberName() ?? "none"})`,
        ),
      );
    } else if (said.length > 0 && !isPassing(error)) this.#fail(error);
  }

  #assignedBefore: unknown = null;

  /** Reads what is this member's by now: from what is committed, and what it had already from where it is. */
  async #assign(): Promise<void> {
    const consumer = this.#consumer;
    const { assignments } = consumer;
    if (this.#closed || this.#failure !== null || assignments === null) return;
    if (this.#joiningSinceMs !== null && this.#joined || this.#handingOver) return;
    const key = JSON.stringify([consumer.generationId, assignments]);
    if (key === this.#assignedBefore) return this.#reader.resume();
    const wanted = assignments.filter(({ partitions }) => partitions.length > 0);
    const readings = wanted.length === 0 ? [] : await this.#readingsOf(wanted);
    this.#readOnly(readings);
    this.#assignedBefore = key;
    this.#reader.resume();
    if (this.address.from === "latest") void this.#commit().catch(() => {});
    this.deps.log.debug("kafka: partitions", {
      source: this.address.name,
      partitions: readings.map(({ topic, index }) => `${topic}/${index}`).join(" "),
    });
  }

  async #readingsOf(wanted: NonNullable<Consumer["assignments"]>): Promise<Reading[]> {
    const consumer = this.#consumer;
    const topics = wanted.map(({ topic }) => topic);
    const [metadata, committed, ends] = await Promise.all([
      consumer.metadata({ topics: [...topics], autocreateTopics: false }),
      consumer.listCommittedOffsets({ topics: wanted }),
      this.#bounds(topics, LATEST),
    ]);
    const begins = this.address.from === "latest" ? ends : await this.#bounds(topics, EARLIEST);
    return wanted.flatMap(({ topic, partitions }) =>
      partitions.map((index): Reading => {
        const end = ends.get(topic)?.[index] ?? 0n;
        const at = committed.get(topic)?.[index] ?? -1n;
        const next = at >= 0n ? at : begins.get(topic)?.[index] ?? 0n;
        const topicId = metadata.topics.get(topic)?.id ?? "";
        const before = this.#reader.readings.find((reading) =>
          !reading.gone && reading.topicId === topicId && reading.index === index
        );
        // Unless it was another's meanwhile, who has come further.
        if (before !== undefined && before.next >= next) return before;
        const reading = {
          topic,
          topicId,
          index,
          partition: partitionName(topic, index, topicId),
          gone: false,
          next,
          leaderEpoch: -1,
          end,
          given: 0,
        };
        this.#progress.set(reading, {
          safe: 0,
          // Where a group begins at the end it must be known, or a restart would leave out what came before it.
          toCommit: at < 0n && this.address.from === "latest" ? next : null,
          committed: at,
          begun: next,
        });
        return reading;
      })
    );
  }

  #bounds(topics: readonly string[], timestamp: bigint) {
    return this.#consumer.listOffsets({ topics: [...topics], timestamp });
  }

  #onOutOfRange(at: Reading, begin: bigint, end: bigint): bigint {
    const to = this.address.from === "latest" ? end : at.next > end ? end : begin;
    this.deps.log.warn("kafka: messages are gone that were not read; goes on behind them", {
      source: this.address.name,
      partition: `${at.topic}/${at.index}`,
      wanted: String(at.next),
      from: String(to),
    });
    return to;
  }

  // ── Messages.

  async next(): Promise<readonly Message[]> {
    while (true) {
      if (this.#failure !== null) throw this.#failure;
      const messages = this.#reader.take(this.address.prefetch - this.#outstanding());
      if (messages.length > 0) {
        // An acknowledgement that waits for its second may have to hurry now.
        if (this.#isPressed()) this.#onChange();
        return messages;
      }
      if (this.#reader.failure !== null) this.#fail(this.#reader.failure);
      else await this.#change.promise;
    }
  }

  #outstanding(): number {
    let count = 0;
    for (const [{ given }, { safe }] of this.#progress) count += given - safe;
    return count;
  }

  async acknowledge(newest: readonly Message[]): Promise<void> {
    for (const message of newest as readonly KafkaMessage[]) {
      const progress = this.#progress.get(message.reading);
      if (progress === undefined) continue;
      progress.safe = Math.max(progress.safe, message.number);
      progress.toCommit = message.offset + 1n;
    }
    this.#onChange();
    const wanted = newest as readonly KafkaMessage[];
    while (wanted.some((message) => this.#isUncommitted(message))) {
      if (this.#failure !== null) throw this.#failure;
      const waitMs = this.#lastCommitMs + COMMIT_EVERY_MS - this.deps.clock.monotonicMs();
      if (waitMs > 0 && !this.#isPressed()) {
        await within(this.deps.clock, waitMs, this.#change.promise, undefined);
      } else if (!await this.#commit()) await sleep(this.deps.clock, 100, this.#ended.signal);
    }
  }

  #isUncommitted({ reading, offset }: KafkaMessage): boolean {
    const progress = this.#progress.get(reading);
    return progress !== undefined && progress.committed <= offset;
  }

  /** What is given out, or about to, is kept back by what could be acknowledged after a commit. */
  #isPressed(): boolean {
    return this.#outstanding() * 2 > this.address.prefetch || this.#joiningSinceMs !== null ||
      this.#handingOver;
  }

  /** @returns whether what was safe when it began is committed; rejects with what ends the feed. */
  async #commit(): Promise<boolean> {
    await this.#committing;
    const work = this.#commitNow();
    this.#committing = work.then(() => {}, () => {});
    return await work;
  }

  async #commitNow(): Promise<boolean> {
    const going = [...this.#progress].flatMap(([reading, progress]) =>
      progress.toCommit !== null && progress.toCommit > progress.committed
        ? [{ reading, progress, offset: progress.toCommit }]
        : []
    );
    if (going.length === 0) return true;
    this.#lastCommitMs = this.deps.clock.monotonicMs();
    try {
      await this.#consumer.commit({
        offsets: going.map(({ reading: { topic, index, leaderEpoch }, offset }) => ({
          topic,
          partition: index,
          offset,
          leaderEpoch,
        })),
      });
    } catch (error) {
      if (isPassing(error)) return false;
      this.#fail(error);
      throw this.#failure;
    }
    for (const { progress, offset } of going) progress.committed = offset;
    this.#onChange();
    return true;
  }

  lag(): number | null {
    if (!this.#joined) return null;
    let lag = 0;
    for (const [{ end }, { begun, committed }] of this.#progress) {
      lag += Math.max(0, Number(end - (committed >= 0n ? committed : begun)));
    }
    return lag;
  }

  // ── The end.

  #onChange(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  #fail(error: unknown): void {
    if (this.#failure !== null) return;
    const sentence = sentenceOf(error, this.address, this.#joined);
    this.#failure = new Error(sentence, { cause: error });
    this.#onChange();
  }

  /** A connection that is there is not yet one that works. */
  async #watch(): Promise<void> {
    const { clock } = this.deps;
    const { signal } = this.#ended;
    while (!signal.aborted && this.#failure === null) {
      await sleep(clock, WATCH_MS, signal);
      const nowMs = clock.monotonicMs();
      const askedMs = this.#reader.askedSinceMs();
      if (askedMs !== null && nowMs - askedMs > SILENT_MS) {
        this.#fail(new Error(`no answer to a fetch for ${SILENT_MS / 1000} s`));
      }
      if (askedMs === null) await this.#lookAtEnds();
      const joiningMs = this.#joiningSinceMs;
      const mostMs = joiningMs === null ? SILENT_MS : REBALANCE_MS + SILENT_MS;
      if (nowMs - (joiningMs ?? this.#lastBeatMs) > mostMs) {
        this.#fail(new Error(`no answer to a heartbeat for ${mostMs / 1000} s`));
      }
    }
  }

  /** A fetch says where its partitions end; while nothing is fetched, because nothing is taken, they are asked for. */
  async #lookAtEnds(): Promise<void> {
    const { readings } = this.#reader;
    if (readings.length === 0 || this.#joiningSinceMs !== null) return;
    const topics = [...new Set(readings.map(({ topic }) => topic))];
    const work = this.#bounds(topics, LATEST).catch(() => null);
    const ends = await within(this.deps.clock, SILENT_MS / 2, work, null);
    for (const reading of readings) {
      reading.end = ends?.get(reading.topic)?.[reading.index] ?? reading.end;
    }
  }

  /** Partitions that are added to a topic get a reader: the leader of a classic group has it shared anew. */
  async #watchTopics(): Promise<void> {
    if (this.address.protocol === "consumer") return;
    const { signal } = this.#ended;
    while (!signal.aborted && this.#failure === null) {
      const topics = [...this.address.topics];
      const metadata = await this.#consumer.metadata({
        topics,
        autocreateTopics: false,
        forceUpdate: this.#partitionCounts !== "",
      }).catch(() => null);
      const counts = metadata === null ? this.#partitionCounts : JSON.stringify(
        topics.map((topic) => metadata.topics.get(topic)?.partitionsCount),
      );
      const changed = this.#partitionCounts !== "" && counts !== this.#partitionCounts;
      this.#partitionCounts = counts;
      if (changed && this.#isLeader && !this.#closed) {
        await this.#joinClassic().catch((error) => this.#fail(error));
      }
      await sleep(this.deps.clock, TOPICS_EVERY_MS, signal);
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { clock } = this.deps;
    const healthy = this.#failure === null && this.#joined;
    if (healthy) await within(clock, CLOSE_MS / 2, this.#commit().catch(() => {}), undefined);
    this.#failure ??= new Error("closed");
    this.#ended.abort();
    this.#reader.close();
    this.#onChange();
    await within(clock, CLOSE_MS / 2, this.#leave(), undefined);
  }

  /** A member with a name is not missed while its session lasts, so that a restart moves nothing. */
  async #leave(): Promise<void> {
    const consumer = this.#consumer;
    try {
      await this.#pool.close();
      const stays = this.address.protocol === "classic" && this.#memberName() !== null;
      if (stays) await consumer.connections.close();
      await consumer.close(true);
    } catch (error) {
      this.deps.log.debug("kafka: left without a word", { error: sentenceOf(error, this.address) });
    }
  }
}

const EARLIEST = -2n;
const LATEST = -1n;

function isPassing(error: unknown): boolean {
  const said = apiIdsOf(error);
  return said.length > 0 && said.every((id) => PASSES.has(id));
}

/** The same text has the same one; in the form of version 8 (RFC 9562). */
function uuidOf(text: string): string {
  const hex = nodeCrypto().createHash("sha256").update(text).digest("hex");
  const parts = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
  ];
  return [...parts, hex.slice(20, 32)].join("-");
}
