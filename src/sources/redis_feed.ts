/**
 * What a list and a stream have in common when they are read: two connections, one of which waits for messages
 * while the other acknowledges; what was given and is not acknowledged, oldest first; how much waits.
 */

import type { BrokerDeps, Feed, Message, RedisSource } from "../contracts.ts";
import { repeat, within } from "../kernel/time.ts";
import { type RedisConnection, RedisRefusal } from "./redis_client.ts";

/** How often it is asked how much waits, which is also a sign of life of the connection that acknowledges. */
const LAG_MS = 2_000;
/** Of the 2 s that an end may take. */
const LEAVE_MS = 1_500;
/**
 * Messages of one read, whatever `prefetch` allows: half of its default, so that the other half is read while the
 * first becomes safe; of the first one, before their size is known; and bytes.
 */
const AT_ONCE = { most: 500, first: 32, bytes: 4 * 1024 * 1024 };
/** Of messages that are given and not acknowledged; beyond it nothing is read. */
export const HELD_BYTES = 32 * 1024 * 1024;

/** A message that was given, and what Redis knows it by. */
export interface Given<K> {
  readonly message: Message;
  readonly key: K;
}

/** Whose what is not acknowledged is: of one collector alone, also where another has its id. */
export function memberOf({ member, folder }: BrokerDeps): string {
  return folder === undefined ? member : `${member}.${folder}`;
}

interface Reading<K> {
  /** 0: there was no room. */
  readonly most: number;
  readonly work: Promise<readonly Given<K>[] | null>;
  /** Resolves when something was acknowledged since the reading began. */
  readonly changed: Promise<void>;
}

/** What a feed reads over. */
export interface RedisLines {
  /** Waits for messages. */
  readonly reader: RedisConnection;
  /** Acknowledges, and asks. */
  readonly writer: RedisConnection;
}

export abstract class RedisFeed<K> implements Feed {
  protected readonly reader: RedisConnection;
  protected readonly writer: RedisConnection;
  protected readonly deps: BrokerDeps;
  /** Given and not acknowledged, oldest first. */
  protected given: Given<K>[] = [];
  readonly #prefetch: number;
  #atOnce = AT_ONCE.first;
  #heldBytes = 0;
  readonly #repeated: (() => void)[] = [];
  #failure: Error | null = null;
  /** What is read before it is asked for. */
  #ahead: Reading<K> | null = null;
  #changed = Promise.withResolvers<void>();
  #acknowledging: Promise<unknown> = Promise.resolve();
  #lag: number | null = null;

  constructor({ reader, writer }: RedisLines, address: RedisSource, deps: BrokerDeps) {
    this.reader = reader;
    this.writer = writer;
    this.deps = deps;
    this.#prefetch = address.prefetch;
    void reader.lost.then((why) => this.fail(why));
    void writer.lost.then((why) => this.fail(why));
    this.every(LAG_MS, () => this.#count());
  }

  /**
   * Reads up to so many messages, and waits for 1 s at most where there are none.
   * @returns null: nothing more can be read before what was given is acknowledged.
   */
  protected abstract read(most: number): Promise<readonly Given<K>[] | null>;
  /** Has Redis forget these. */
  protected abstract forget(given: readonly Given<K>[]): Promise<void>;
  /** How many messages no reader was given yet; null: not known. */
  protected abstract countWaiting(): Promise<number | null>;
  /** Said to Redis at the end. */
  protected leave(): Promise<unknown> {
    return Promise.resolve();
  }

  async next(): Promise<readonly Message[]> {
    for (;;) {
      if (this.#failure !== null) throw this.#failure;
      const { most, work, changed } = this.#ahead ?? this.#begin();
      this.#ahead = null;
      const read = await work;
      if (read === null) await changed;
      else if (read.length > 0) {
        const messages = read.map(({ message }) => message);
        this.given.push(...read);
        this.#size(messages);
        // There is more, so Redis looks for it while these become safe.
        if (read.length === most) this.#ahead = this.#begin();
        return messages;
      }
    }
  }

  #begin(): Reading<K> {
    const room = this.#heldBytes < HELD_BYTES ? this.#prefetch - this.given.length : 0;
    const most = Math.min(room, this.#atOnce);
    const { promise: changed } = this.#changed;
    const work = this.#failure === null && most > 0 ? this.read(most) : Promise.resolve(null);
    // It may be for nothing: the feed may have ended.
    work.catch(() => {});
    return { most, work, changed };
  }

  async acknowledge(newest: readonly Message[]): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    const count = 1 + Math.max(
      ...newest.map((message) => this.given.findIndex((given) => given.message === message)),
    );
    if (count === 0) return;
    const work = this.forget(this.given.slice(0, count));
    this.#acknowledging = work.catch(() => {});
    await work;
    for (const { message } of this.given.splice(0, count)) this.#heldBytes -= message.body.length;
    this.#change();
    if (this.#ahead?.most === 0) this.#ahead = this.#begin();
  }

  lag(): number | null {
    return this.#lag;
  }

  async close(): Promise<void> {
    this.fail(new Error("the connection is closed"));
    this.reader.close();
    const left = this.#acknowledging.then(() => this.leave()).catch(() => {});
    await within(this.deps.clock, LEAVE_MS, left, undefined);
    this.writer.close();
  }

  /** Nothing more is read or acknowledged. */
  protected fail(why: Error): void {
    if (this.#failure !== null) return;
    this.#failure = why;
    for (const end of this.#repeated) end();
    this.#change();
  }

  /** As long as the feed lives; at once for the first time. A task that rejects ends the feed. */
  protected every(ms: number, task: () => Promise<unknown>): void {
    // Not before the fields of a class above this one are there.
    const run = () => Promise.resolve().then(task).catch((why) => this.fail(why));
    void run();
    this.#repeated.push(repeat(this.deps.clock, ms, run));
  }

  /** A user that may not ask reads without knowing. */
  async #count(): Promise<void> {
    try {
      this.#lag = await this.countWaiting();
    } catch (error) {
      if (!(error instanceof RedisRefusal)) throw error;
      this.#lag = null;
    }
  }

  /** The next read is of about as many bytes as one should be: nothing is known of its messages before. */
  #size(messages: readonly Message[]): void {
    const bytes = messages.reduce((sum, { body }) => sum + body.length, 0);
    this.#heldBytes += bytes;
    const fitting = Math.floor(AT_ONCE.bytes * messages.length / Math.max(1, bytes));
    this.#atOnce = Math.max(1, Math.min(fitting, 4 * this.#atOnce, AT_ONCE.most));
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}
