/**
 * Reads partitions of topics from the brokers that lead them: one fetch at a time from each broker, ahead of
 * what is asked for within bounds, each partition in order. Whose partitions these are is decided above: a
 * group shares them, an exit channel reads all.
 *
 * Not the library's own stream: that one gives out what a transaction has aborted where its end is in
 * another answer, begins again at what was committed whenever the group changes, and holds 50 MB.
 */

import type { ConnectionPool, Consumer } from "@platformatic/kafka";
import type { BrokerDeps, Message, MetaValue } from "../contracts.ts";
import { sleep } from "../kernel/time.ts";
import { apiIdsOf, isNetworkError } from "./kafka_client.ts";

/** How long a broker may wait for something new before it answers that there is nothing. */
const MOST_WAIT_MS = 500;
/**
 * Of one answer; more only where a single batch is larger. What is unpacked of it may be more. It is asked for
 * less where messages are small: a message costs several times its bytes while it waits, and all that waits for
 * long enough outlives the collector's young objects, which are what garbage is looked for in most often.
 */
const ANSWER_BYTES = { least: 64 * 1024, first: 256 * 1024, most: 1024 * 1024 };
/** Messages of one answer, about: so many times what is fetched ahead. */
const ANSWER_AHEADS = 2;
/** Without an answer for so long a broker is gone, whatever its connection says. */
export const SILENT_MS = 10_000;
/** After an error of a partition (its leader moves): the pause, and how long it may last. */
const RETRY_MS = 100;
const TROUBLE_MS = 20_000;

const READ_COMMITTED = 1;
const IS_TRANSACTIONAL = 1 << 4;
const IS_CONTROL = 1 << 5;
/** What a broker says while partitions move from one to another. */
const MOVING = new Set([
  "NOT_LEADER_OR_FOLLOWER",
  "LEADER_NOT_AVAILABLE",
  "FENCED_LEADER_EPOCH",
  "UNKNOWN_LEADER_EPOCH",
  "REPLICA_NOT_AVAILABLE",
  "OFFSET_NOT_AVAILABLE",
  "KAFKA_STORAGE_ERROR",
  "FETCH_SESSION_ID_NOT_FOUND",
  "INVALID_FETCH_SESSION_EPOCH",
  "FETCH_SESSION_TOPIC_ID_ERROR",
  "UNKNOWN_TOPIC_ID",
  "UNKNOWN_TOPIC_OR_PARTITION",
  "INCONSISTENT_TOPIC_ID",
]);

/** A partition while it is read here; another object when it comes back. */
export interface Reading {
  readonly topic: string;
  readonly topicId: string;
  readonly index: number;
  /** As `partitionName` has it. */
  readonly partition: string;
  /** It is another's now: what is still here of it is dropped. */
  gone: boolean;
  /** What is fetched next. */
  next: bigint;
  /** Of what was fetched last. */
  leaderEpoch: number;
  /** Where the partition ends, as far as it is known; what comes next gets this offset. */
  end: bigint;
  /** Messages that were given out, since the beginning. */
  given: number;
}

/** What messages of a partition say: a topic that was made anew counts from 0 again, under another id. */
export function partitionName(topic: string, index: number, topicId: string): string {
  return `${topic}/${index}#${topicId}`;
}

export interface ReaderOptions {
  readonly consumer: Consumer;
  /** Of its own: a fetch holds its connection up, and heartbeats must not wait for it. */
  readonly pool: ConnectionPool;
  readonly clock: BrokerDeps["clock"];
  /** A partition does not have an offset any more. @returns where it goes on. */
  readonly onOutOfRange: (at: Reading, begin: bigint, end: bigint) => bigint;
  /** Messages that are fetched ahead, about. */
  readonly ahead: number;
  /** There is something to take, or nothing will come any more. */
  readonly onChange: () => void;
}

type FetchResponse = Awaited<ReturnType<Consumer["fetch"]>>;
type Answer = FetchResponse["responses"][number]["partitions"][number];
type Batch = NonNullable<Answer["records"]>[number];
type KafkaRecord = Batch["records"][number];

export class Reader {
  readonly #options: ReaderOptions;
  #readings: Reading[] = [];
  /** Fetched and not yet given out, in order, by answers; of the first what comes after `#givenOfFirst`. */
  #waiting: KafkaMessage[][] = [];
  #givenOfFirst = 0;
  #waitingCount = 0;
  #waitingBytes = 0;
  /** Of the next answer. */
  #answerBytes = ANSWER_BYTES.first;
  /** Which partition is the first that is asked for: an answer may have no room for the others. */
  #turn = 0;
  /** Brokers that are asked at this moment, with when. */
  readonly #asked = new Map<number, number>();
  readonly #closing = new AbortController();
  #troubleSinceMs: number | null = null;
  #paused = false;
  /** Why no more will come. */
  failure: unknown = null;

  constructor(options: ReaderOptions) {
    this.#options = options;
  }

  /** What is read from now on; what is not among it any more is marked as gone. */
  read(readings: readonly Reading[]): void {
    for (const reading of this.#readings) reading.gone ||= !readings.includes(reading);
    this.#readings = [...readings];
    this.#fetch();
  }

  get readings(): readonly Reading[] {
    return this.#readings;
  }

  /** Gives nothing out until `resume`. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#fetch();
    this.#options.onChange();
  }

  /** Takes at most so many messages. */
  take(most: number): KafkaMessage[] {
    const taken: KafkaMessage[] = [];
    if (this.#paused) return taken;
    for (let first = this.#waiting[0]; first !== undefined && taken.length < most;) {
      const message = first[this.#givenOfFirst++]!;
      this.#waitingCount--;
      this.#waitingBytes -= message.size;
      if (this.#givenOfFirst === first.length) {
        this.#waiting.shift();
        this.#givenOfFirst = 0;
        first = this.#waiting[0];
      }
      if (message.reading.gone) continue;
      message.number = ++message.reading.given;
      taken.push(message);
    }
    this.#fetch();
    return taken;
  }

  /** When the answer that is waited for longest was asked for; null: none is. */
  askedSinceMs(): number | null {
    return this.#asked.size === 0 ? null : Math.min(...this.#asked.values());
  }

  close(): void {
    this.#closing.abort();
    for (const reading of this.#readings) reading.gone = true;
    this.#readings = [];
    this.#waiting = [];
    this.#givenOfFirst = this.#waitingCount = this.#waitingBytes = 0;
  }

  /** Asks each broker that is not being asked, unless there is enough already. */
  #fetch(): void {
    if (this.failure !== null || this.#closing.signal.aborted) return;
    if (this.#waitingCount >= this.#options.ahead || this.#waitingBytes >= ANSWER_BYTES.most) {
      return;
    }
    if (this.#readings.length === 0) return;
    void this.#fetchAll().catch((error: unknown) => this.#fail(error));
  }

  #fetching = false;

  async #fetchAll(): Promise<void> {
    if (this.#fetching) return;
    this.#fetching = true;
    let metadata;
    try {
      const topics = [...new Set(this.#readings.map(({ topic }) => topic))];
      metadata = await this.#options.consumer.metadata({ topics, autocreateTopics: false });
    } finally {
      this.#fetching = false;
    }
    const byBroker = new Map<number, Reading[]>();
    for (const reading of this.#readings) {
      const topic = metadata.topics.get(reading.topic);
      if (topic !== undefined && topic.id !== reading.topicId) {
        throw new Error(`the topic ${reading.topic} was made anew`);
      }
      const known = topic?.partitions[reading.index];
      if (known === undefined || reading.gone) continue;
      const list = byBroker.get(known.leader);
      if (list === undefined) byBroker.set(known.leader, [reading]);
      else list.push(reading);
    }
    for (const [broker, readings] of byBroker) {
      if (!this.#asked.has(broker)) void this.#ask(broker, readings);
    }
  }

  async #ask(broker: number, readings: readonly Reading[]): Promise<void> {
    const { consumer, pool, clock } = this.#options;
    this.#asked.set(broker, clock.monotonicMs());
    const asked = readings.map((reading) => ({ reading, from: reading.next }));
    const bytes = this.#answerBytes;
    let pauseMs = 0;
    try {
      const response = await consumer.fetch({
        node: broker,
        topics: requestOf(inTurn(readings, this.#turn++), bytes),
        maxWaitTime: MOST_WAIT_MS,
        maxBytes: bytes,
        isolationLevel: READ_COMMITTED,
        connectionPool: pool,
      });
      this.#troubleSinceMs = null;
      let messages = 0;
      for (const { reading, from } of asked) {
        messages += this.#takeIn(reading, from, answerFor(reading, response));
      }
      this.#size(bytes, messages);
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      pauseMs = RETRY_MS;
      if (!this.#isMoving(error, readings)) return this.#fail(error);
    } finally {
      this.#asked.delete(broker);
    }
    if (pauseMs > 0) await sleep(clock, pauseMs, this.#closing.signal);
    this.#fetch();
  }

  /** Whether an error is one that passes: of where partitions are, or of what a broker has no more. */
  #isMoving(error: unknown, readings: readonly Reading[]): boolean {
    const { consumer, clock } = this.#options;
    const said = apiIdsOf(error);
    if (said.includes("OFFSET_OUT_OF_RANGE")) return this.#moveIntoRange(error, readings);
    const several = (consumer.currentMetadata?.brokers.size ?? 0) > 1;
    const passes = said.length === 0
      ? several && isNetworkError(error)
      : said.every((id) => MOVING.has(id));
    if (!passes) return false;
    consumer.clearMetadata();
    const nowMs = clock.monotonicMs();
    this.#troubleSinceMs ??= nowMs;
    return nowMs - this.#troubleSinceMs < TROUBLE_MS;
  }

  #moveIntoRange(error: unknown, readings: readonly Reading[]): boolean {
    const { response } = error as { response?: FetchResponse };
    if (response === undefined) return false;
    let moved = false;
    for (const reading of readings) {
      const answer = answerFor(reading, response);
      if (answer?.errorCode !== OUT_OF_RANGE || reading.gone) continue;
      const { logStartOffset: begin, highWatermark: end } = answer;
      reading.next = this.#options.onOutOfRange(reading, begin, end);
      moved = true;
    }
    return moved;
  }

  /** The next answer is to have about as many messages as one should. */
  #size(bytes: number, messages: number): void {
    const { least, most } = ANSWER_BYTES;
    const wanted = ANSWER_AHEADS * this.#options.ahead;
    // One with few may have been all that there was.
    const fitting = Math.min(bytes * wanted / Math.max(1, messages), 2 * bytes);
    this.#answerBytes = Math.round(Math.max(least, Math.min(fitting, most)));
  }

  /** @returns how many messages there are in it. */
  #takeIn(reading: Reading, from: bigint, answer: Answer | undefined): number {
    // It may have been begun elsewhere meanwhile.
    if (answer === undefined || reading.gone || reading.next !== from) return 0;
    reading.end = answer.lastStableOffset >= 0n ? answer.lastStableOffset : answer.highWatermark;
    const messages: KafkaMessage[] = [];
    for (const batch of committed(answer)) {
      const after = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n;
      if (after > reading.next) reading.next = after;
      reading.leaderEpoch = batch.partitionLeaderEpoch;
      if (!batch.given) continue;
      const { firstOffset, firstTimestamp } = batch;
      // A batch is given whole, also where what is asked for is in its middle.
      const before = Number(from - firstOffset);
      for (const record of batch.records) {
        if (record.offsetDelta < before) continue;
        const message = new KafkaMessage(reading, firstOffset, firstTimestamp, record);
        messages.push(message);
        this.#waitingBytes += message.size;
      }
    }
    if (messages.length === 0) return 0;
    this.#waiting.push(messages);
    this.#waitingCount += messages.length;
    this.#options.onChange();
    return messages.length;
  }

  #fail(error: unknown): void {
    if (this.#closing.signal.aborted) return;
    this.failure ??= error;
    this.#options.onChange();
  }
}

const OUT_OF_RANGE = 1;

/** The same ones, beginning with another each time. */
function inTurn(readings: readonly Reading[], turn: number): readonly Reading[] {
  const first = turn % Math.max(1, readings.length);
  return [...readings.slice(first), ...readings.slice(0, first)];
}

/** Of one partition no more than half of an answer, so that two have a part of it. */
function requestOf(readings: readonly Reading[], bytes: number) {
  const topics = new Map<string, Reading[]>();
  for (const reading of readings) {
    topics.set(reading.topicId, [...topics.get(reading.topicId) ?? [], reading]);
  }
  return [...topics].map(([topicId, of]) => ({
    topicId,
    partitions: of.map(({ index, next }) => ({
      partition: index,
      fetchOffset: next,
      partitionMaxBytes: Math.ceil(bytes / 2),
      currentLeaderEpoch: -1,
      lastFetchedEpoch: -1,
    })),
  }));
}

function answerFor(reading: Reading, response: FetchResponse): Answer | undefined {
  return response.responses.find(({ topicId }) => topicId === reading.topicId)?.partitions
    .find(({ partitionIndex }) => partitionIndex === reading.index);
}

/**
 * The batches of an answer, each with whether its records count: those of a transaction that was aborted do
 * not, and the marks at the ends of transactions are none. As Kafka's own consumer does it
 * (`CompletedFetch.nextFetchedRecord`): the answer names the aborted ones by their producer and first offset, and
 * each ends at its mark.
 */
function* committed(answer: Answer): Generator<Batch & { readonly given: boolean }> {
  const aborted = [...answer.abortedTransactions ?? []]
    .sort((a, b) => a.firstOffset < b.firstOffset ? -1 : 1);
  const producers = new Set<bigint>();
  for (const batch of answer.records ?? []) {
    const last = batch.firstOffset + BigInt(batch.lastOffsetDelta);
    while (aborted.length > 0 && aborted[0]!.firstOffset <= last) {
      producers.add(aborted.shift()!.producerId);
    }
    const isMark = (batch.attributes & IS_CONTROL) !== 0;
    const isAborted = (batch.attributes & IS_TRANSACTIONAL) !== 0 &&
      producers.has(batch.producerId);
    if (isMark && batch.records[0]?.key?.readInt16BE(2) === 0) producers.delete(batch.producerId);
    yield Object.assign(batch, { given: !isMark && !isAborted });
  }
}

const NOTHING = new Uint8Array(0);
/** What an entry of a list costs beside its bytes, about. */
const ENTRY_BYTES = 200;

export class KafkaMessage implements Message {
  /** How many of its partition were given out up to this one. */
  number = 0;
  readonly encoding?: string;
  #position: string | null = null;

  /** @param firstOffset and time, of the batch. */
  constructor(
    readonly reading: Reading,
    readonly firstOffset: bigint,
    readonly batchMs: bigint,
    readonly record: KafkaRecord,
  ) {
    if (record.headers.length === 0) return;
    for (const [name, value] of record.headers) {
      if (/^content-encoding$/i.test(textOf(name))) this.encoding = textOf(value);
    }
  }

  /** Empty for a tombstone, which is acknowledged and becomes nothing. */
  get body(): Uint8Array {
    return this.record.value ?? NOTHING;
  }

  get size(): number {
    return this.body.length + ENTRY_BYTES;
  }

  get partition(): string {
    return this.reading.partition;
  }

  get offset(): bigint {
    return this.firstOffset + BigInt(this.record.offsetDelta);
  }

  get position(): string {
    return this.#position ??= String(this.offset);
  }

  get address(): string {
    return `kafka:${this.reading.topic}/${this.reading.index}@${this.offset}`;
  }

  meta(name: string): MetaValue {
    switch (name) {
      case "_topic":
        return this.reading.topic;
      case "_partition":
        return this.reading.index;
      case "_offset":
        return Number(this.offset);
      case "_key":
        return this.record.key == null ? null : textOf(this.record.key);
      case "_timestamp":
        return Number(this.batchMs + this.record.timestampDelta);
      case "_headers":
        return headersOf(this.record);
      default:
        return null;
    }
  }
}

/** A name that stands several times has its values joined, as HTTP does it. */
function headersOf({ headers }: KafkaRecord): Readonly<Record<string, string>> {
  const all = new Map<string, string>();
  for (const [key, bytes] of headers) {
    const name = textOf(key);
    const before = all.get(name);
    all.set(name, before === undefined ? textOf(bytes) : `${before}, ${textOf(bytes)}`);
  }
  return Object.fromEntries(all);
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** As UTF-8; in base64 where the bytes are none. */
function textOf(bytes: Uint8Array | null | undefined): string {
  if (bytes == null) return "";
  try {
    return utf8.decode(bytes);
  } catch {
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  }
}
