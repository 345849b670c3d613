/**
 * Brokers beside a machine whose power fails: a log whose messages have positions, and a queue whose messages
 * have ids. What they had given, and had as acknowledged, is known of each moment; so they can be brought back
 * to what they were when the power failed.
 */
import assert from "node:assert/strict";
import type { FakeClickHouse } from "../kit/fake_clickhouse.ts";
import { eventually, pause } from "../kit/wait.ts";
import { FakeBroker } from "../sources/fake_broker.ts";
import { startTcpBroker, type TcpBroker } from "./tcp_broker.ts";

export const MESSAGES_TABLE = "messages";
const KINDS = ["log", "queue"] as const;
const ROWS = 3;
const MOST_UNREAD = 500;

type Stored = FakeBroker["partitions"][number][number];

/** At which positions of the disk's log something happened to a message; Infinity: never. */
interface Times {
  readonly publishedAt: number;
  givenAt: number;
  acknowledgedAt: number;
}

class WatchedBroker extends FakeBroker {
  readonly times = new Map<Stored, Times>();

  constructor(readonly position: () => number, kind: "log" | "queue") {
    super({ kind });
  }

  override publish(bodies: readonly string[]): void {
    const publishedAt = this.position();
    super.publish(bodies);
    for (const message of this.partitions.flat()) {
      if (this.times.has(message)) continue;
      this.times.set(message, { publishedAt, givenAt: Infinity, acknowledgedAt: Infinity });
    }
    this.#look();
  }

  override acknowledge(...given: Parameters<FakeBroker["acknowledge"]>): void {
    super.acknowledge(...given);
    this.#look();
  }

  override give(...asked: Parameters<FakeBroker["give"]>): ReturnType<FakeBroker["give"]> {
    const messages = super.give(...asked);
    this.#look();
    return messages;
  }

  #look(): void {
    const position = this.position();
    for (const [{ deliveries, acknowledged }, times] of this.times) {
      if (deliveries > 0) times.givenAt = Math.min(times.givenAt, position);
      if (acknowledged) times.acknowledgedAt = Math.min(times.acknowledgedAt, position);
    }
  }

  /** What it was at this position. */
  at(position: number): FakeBroker {
    const before = new FakeBroker({ kind: this.kind, partitions: this.partitions.length });
    for (const [at, messages] of this.partitions.entries()) {
      for (const message of messages) {
        const { publishedAt, givenAt, acknowledgedAt } = this.times.get(message)!;
        if (publishedAt > position) continue;
        const acknowledged = acknowledgedAt <= position;
        const deliveries = givenAt <= position ? 1 : 0;
        before.partitions[at]!.push({ body: message.body, to: null, acknowledged, deliveries });
      }
    }
    return before;
  }
}

/** The settings of sources that read these. */
export function sourceArgs(brokers: readonly TcpBroker[]): string[] {
  return brokers.flatMap(({ port, broker: { kind } }) => [
    "--source",
    `amqp://127.0.0.1:${port}/?queue=${kind}&table=${MESSAGES_TABLE}`,
  ]);
}

/** Brokers to which messages come all the time. */
export class MessageLoad {
  #next = 0;
  #running = true;
  readonly #publisher: Promise<void>;

  private constructor(readonly brokers: readonly TcpBroker[]) {
    this.#publisher = this.#publish();
  }

  /** @param any false: none, for a collector that has no library for these. */
  static async start(position: () => number, any: boolean): Promise<MessageLoad> {
    const kinds = any ? KINDS : [];
    return new MessageLoad(
      await Promise.all(kinds.map((kind) => startTcpBroker(new WatchedBroker(position, kind)))),
    );
  }

  async #publish(): Promise<void> {
    while (this.#running) {
      for (const { broker } of this.brokers) {
        if (broker.unacknowledged > MOST_UNREAD) continue;
        broker.publish(Array.from({ length: 5 }, () => this.#body()));
      }
      await pause(15);
    }
  }

  #body(): string {
    const rows = Array.from({ length: ROWS }, () => ({ id: `m${this.#next++}`, n: 1, text: "" }));
    return rows.map((row) => JSON.stringify(row)).join("\n");
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#publisher;
    await Promise.all(this.brokers.map((broker) => broker.close()));
  }

  /** The brokers as they were at this position: at the same addresses, or they would be others. */
  at(position: number): Promise<TcpBroker[]> {
    return Promise.all(
      this.brokers.map(({ broker, port }) =>
        startTcpBroker((broker as WatchedBroker).at(position), port)
      ),
    );
  }
}

/** All that they have is acknowledged in the end. */
export async function allRead(brokers: readonly TcpBroker[]): Promise<void> {
  await eventually(() => {
    for (const { broker } of brokers) assert.equal(broker.unacknowledged, 0);
  }, { withinMs: 30_000 });
}

/** Each row of each message is there, once, and no other one. */
export function checkMessages(fake: FakeClickHouse, brokers: readonly TcpBroker[]): void {
  const times = new Map<unknown, number>();
  for (const { id } of fake.rows(MESSAGES_TABLE)) times.set(id, (times.get(id) ?? 0) + 1);
  const messages = brokers.flatMap(({ broker }) => broker.partitions.flat());
  const ids = messages.flatMap(({ body }) =>
    new TextDecoder().decode(body).split("\n").map((line) => JSON.parse(line).id)
  );
  const missing = ids.filter((id) => !times.has(id)).length;
  const doubled = [...times.values()].filter((count) => count > 1).length;
  const uninvited = times.size - (ids.length - missing);
  assert.deepEqual({ missing, doubled, uninvited }, { missing: 0, doubled: 0, uninvited: 0 });
}
