/**
 * A broker in memory, with what the real ones have: partitions whose messages have positions, and a queue
 * whose messages have ids; groups of members that share them; messages that come again when a connection is
 * lost; a server that is away, killed, frozen, or cuts its connections. It survives the kill of its clients and,
 * with what was published and acknowledged, its own.
 *
 * It watches what it is told: an acknowledgement of what its connection was never given is an error.
 */

import type { Broker, Feed, Message, MetaValue, SourceAddress } from "../../src/contracts.ts";

interface Stored {
  readonly body: Uint8Array;
  readonly encoding?: string;
  /** Given to this connection, and not acknowledged. */
  to: FakeFeed | null;
  acknowledged: boolean;
  deliveries: number;
}

export interface FakeOptions {
  /** `log`: positions, and each partition belongs to one member. `queue`: ids, and members take turns. */
  readonly kind: "log" | "queue";
  readonly partitions?: number;
}

export class FakeBroker {
  readonly kind: "log" | "queue";
  readonly partitions: Stored[][];
  /** Members that are connected, in the order in which they came. */
  readonly feeds: FakeFeed[] = [];
  /** Why there is no connection. */
  away: string | null = null;
  /** Nothing moves; connections stay. */
  frozen = false;
  connections = 0;
  /** What was done to it that the contract forbids. */
  readonly broken: string[] = [];
  /** Called with each message that a member says it has not taken when it leaves. */
  onUntaken = (_message: Message) => {};
  /** Called with each message that is acknowledged for the first time. */
  onAcknowledged = (_body: Uint8Array) => {};
  #next = 0;

  constructor({ kind, partitions = kind === "log" ? 4 : 1 }: FakeOptions) {
    this.kind = kind;
    this.partitions = Array.from({ length: partitions }, () => []);
  }

  publish(bodies: readonly (string | Uint8Array)[], encoding?: string): void {
    for (const body of bodies) {
      const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
      const partition = this.partitions[this.#next++ % this.partitions.length]!;
      const message = { body: bytes, to: null, acknowledged: false, deliveries: 0 };
      partition.push(encoding === undefined ? message : { ...message, encoding });
    }
    this.wake();
  }

  get unacknowledged(): number {
    return this.partitions.flat().filter(({ acknowledged }) => !acknowledged).length;
  }

  /** Of the partitions, how much of each is acknowledged: of a log it is its beginning. */
  get committed(): readonly number[] {
    return this.partitions.map((messages) => {
      const open = messages.findIndex(({ acknowledged }) => !acknowledged);
      return open < 0 ? messages.length : open;
    });
  }

  broker(prefetch = 1000): Broker {
    return {
      connect: async (signal) => {
        await Promise.resolve();
        if (signal.aborted) throw new Error("aborted");
        if (this.away !== null) throw new Error(this.away);
        if (this.frozen) {
          await new Promise((_, reject) =>
            signal.addEventListener("abort", () => reject(new Error("aborted")))
          );
        }
        this.connections++;
        const feed = new FakeFeed(this, prefetch);
        this.feeds.push(feed);
        this.#rebalance();
        return feed;
      },
      inspect: () => Promise.resolve([]),
    };
  }

  /** Every connection ends. */
  cut(why = "the connection was cut"): void {
    for (const feed of [...this.feeds]) this.leave(feed, why);
  }

  leave(feed: FakeFeed, why: string): void {
    const at = this.feeds.indexOf(feed);
    if (at < 0) return;
    this.feeds.splice(at, 1);
    this.#release(feed);
    feed.lost(why);
    this.#rebalance();
  }

  #release(feed: FakeFeed): void {
    for (const message of this.partitions.flat()) if (message.to === feed) message.to = null;
  }

  /** Partitions of a log move; what was given of them and not acknowledged comes again to their new member. */
  #rebalance(): void {
    if (this.kind === "log") {
      for (const [at, messages] of this.partitions.entries()) {
        const owner = this.#ownerOf(at);
        for (const message of messages) if (message.to !== owner) message.to = null;
      }
    }
    this.wake();
  }

  #ownerOf(partition: number): FakeFeed | null {
    return this.feeds[partition % Math.max(1, this.feeds.length)] ?? null;
  }

  thaw(): void {
    this.frozen = false;
    this.wake();
  }

  wake(): void {
    for (const feed of this.feeds) feed.wake();
  }

  /** What a member gets now. */
  give(feed: FakeFeed, most: number): readonly Message[] {
    if (this.frozen) return [];
    const given: Message[] = [];
    for (const [at, messages] of this.partitions.entries()) {
      if (this.kind === "log" && this.#ownerOf(at) !== feed) continue;
      for (const [offset, stored] of messages.entries()) {
        if (given.length >= most) return given;
        if (stored.acknowledged || stored.to !== null) continue;
        stored.to = feed;
        stored.deliveries++;
        given.push(messageOf(this.kind, at, offset, stored));
      }
    }
    return given;
  }

  acknowledge(feed: FakeFeed, newest: readonly Message[]): void {
    for (const message of newest) {
      const [, at = "", offset = ""] = /^fake:(\d+)@(\d+)$/.exec(message.address) ?? [];
      const messages = this.partitions[Number(at)]!;
      const mine = this.kind === "queue" || this.#ownerOf(Number(at)) === feed;
      // A partition that moved is another member's.
      if (!mine) continue;
      for (const stored of messages.slice(0, Number(offset) + 1)) {
        if (stored.to !== feed) {
          if (this.kind === "log" && !stored.acknowledged) {
            this.broken.push(`acknowledged what was not given: ${message.address}`);
          }
          continue;
        }
        if (!stored.acknowledged) this.onAcknowledged(stored.body);
        stored.acknowledged = true;
        stored.to = null;
      }
    }
    this.wake();
  }

  held(feed: FakeFeed): number {
    return this.partitions.flat().filter(({ to }) => to === feed).length;
  }
}

function messageOf(
  kind: "log" | "queue",
  partition: number,
  offset: number,
  { body, encoding, deliveries }: Stored,
): Message {
  const known: Readonly<Record<string, MetaValue>> = { _partition: partition, _offset: offset };
  return {
    body,
    ...(encoding === undefined ? {} : { encoding }),
    partition: `fake/${partition}`,
    ...(kind === "log"
      ? { position: String(offset) }
      : { id: `m-${offset}`, again: deliveries > 1 }),
    address: `fake:${partition}@${offset}`,
    meta: (name) => known[name] ?? null,
  };
}

class FakeFeed implements Feed {
  readonly #server: FakeBroker;
  readonly #prefetch: number;
  #waiting: PromiseWithResolvers<readonly Message[]> | null = null;
  #ended: string | null = null;
  #acknowledging = false;

  constructor(server: FakeBroker, prefetch: number) {
    this.#server = server;
    this.#prefetch = prefetch;
  }

  next(): Promise<readonly Message[]> {
    if (this.#ended !== null) return Promise.reject(new Error(this.#ended));
    if (this.#waiting !== null) throw new Error("next is under way");
    this.#waiting = Promise.withResolvers();
    const { promise } = this.#waiting;
    this.wake();
    return promise;
  }

  wake(): void {
    if (this.#waiting === null) return;
    const messages = this.#server.give(this, this.#prefetch - this.#server.held(this));
    if (messages.length === 0) return;
    this.#waiting.resolve(messages);
    this.#waiting = null;
  }

  lost(why: string): void {
    this.#ended ??= why;
    this.#waiting?.reject(new Error(why));
    this.#waiting = null;
  }

  async acknowledge(newest: readonly Message[]): Promise<void> {
    if (this.#acknowledging) this.#server.broken.push("two acknowledgements at once");
    if (newest.length === 0) this.#server.broken.push("acknowledged nothing");
    this.#acknowledging = true;
    await Promise.resolve();
    this.#acknowledging = false;
    if (this.#ended !== null) throw new Error(this.#ended);
    this.#server.acknowledge(this, newest);
  }

  lag(): number {
    return this.#server.partitions.flat().filter(({ acknowledged, to }) => !acknowledged && !to)
      .length;
  }

  close(untaken: readonly Message[] = []): Promise<void> {
    if (this.#ended === null) untaken.forEach(this.#server.onUntaken);
    this.#server.leave(this, "closed");
    return Promise.resolve();
  }
}

/** The address of a source that only tests have; a broker's own parts are never looked at. */
export function fakeAddress(options: Partial<SourceAddress> = {}): SourceAddress {
  return {
    broker: "amqp",
    scheme: "fake",
    label: "fake://h:1",
    hosts: [{ host: "h", port: 1 }],
    tls: false,
    user: null,
    password: null,
    ca: null,
    cert: null,
    key: null,
    name: "fake:t",
    table: "t",
    prefetch: 1000,
    meta: [],
    onError: "dead",
    vhost: "/",
    queue: "q",
    heartbeatMs: 10_000,
    ...options,
  } as SourceAddress;
}
