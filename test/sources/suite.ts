/**
 * What every source promises, whatever its broker: one suite for the fake and for each real one. The loop and
 * the broker's file are the real ones; behind them is an intake in memory that can be held up, killed and
 * looked into (`journal_intake.ts`).
 *
 * A broker's own test file makes a harness and calls `testSource`. Each test opens a place of its own (a topic,
 * queue, key, table) that is empty.
 */

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Ack, Broker, Feed, Log, SourceAddress, SourceTotals } from "../../src/contracts.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { Source } from "../../src/sources/source.ts";
import { eventually } from "../kit/wait.ts";
import { Disk, Gate, JournalIntake } from "./journal_intake.ts";
import { PlainReader } from "./plain_reader.ts";

/** Somewhere to read from. */
export interface Place {
  /**
   * A broker as one member of those that read this place together.
   * @param member `GROUP.ID`. @param prefetch as the parameter of the URL.
   */
  open(
    member: string,
    prefetch?: number,
  ): { readonly address: SourceAddress; readonly broker: Broker };
  /** In this order; resolves when the broker has them for good. */
  publish(bodies: readonly (string | Uint8Array)[]): Promise<void>;
  /** Messages that are not acknowledged, given or not. */
  unacknowledged(): Promise<number>;
  /** Members share it from now on as it was: removes what only the test needs. */
  remove?(): Promise<void>;
}

export interface SourceHarness {
  place(): Promise<Place>;
  readonly server: {
    /** kill -9. */
    kill(): Promise<void>;
    /** Again, with its data; resolves when it takes messages. */
    start(): Promise<void>;
    /** SIGSTOP. */
    freeze(): void;
    /** SIGCONT. */
    thaw(): void;
    /** Ends every connection of clients, not the server. */
    cut(): Promise<void> | void;
  };
  readonly traits: {
    /** A message that was taken and not acknowledged is known when it comes again, after kill -9 too. */
    readonly once: boolean;
    /** Several members may read a place together. */
    readonly shared: boolean;
    /** What was published survives the kill of the server. */
    readonly durable: boolean;
    /** Until a killed member's messages come again, at most. */
    readonly againMs: number;
  };
  close(): Promise<void>;
}

const FAST = { withinMs: 15_000 };

export function testSource(name: string, make: () => Promise<SourceHarness>): void {
  describe(`a source: ${name}`, () => {
    let made: Promise<SourceHarness> | null = null;
    const harness = () => made ??= make();
    after(async () => await (await made)?.close());

    /** A test with a place of its own and the collectors that read it, which all end with it. */
    function on(
      what: string,
      work: (world: World, harness: SourceHarness) => Promise<void>,
    ): void {
      test(what, async () => {
        const ready = await harness();
        const world = new World(await ready.place(), ready);
        try {
          await work(world, ready);
        } finally {
          await world.close();
        }
      });
    }

    on("reads rows of every form, and acknowledges them", async (world) => {
      await world.place.publish(['{"n":1}', '[{"n":2},{"n":3}]', '{"n":4}\n{"n":5}\n', '{"n":6}']);
      const { source } = world.start();
      await world.hasRows(6);
      await world.hasUnacknowledged(0);
      assert.equal(source.status().state, "running");
      await eventually(() => assert.equal(source.status().unacked, 0), FAST);
      await world.place.publish(rows(7, 300));
      await world.hasRows(300);
      await world.hasUnacknowledged(0);
      world.isWhole(300, "once");
    });

    on("acknowledges every message, also one without rows", async (world) => {
      await world.place.publish(["null", "[]", '{"n":1}', " \n", "[ ]"]);
      const { totals } = world.start();
      await world.hasRows(1);
      await world.hasUnacknowledged(0);
      assert.equal(totals.empty, 4);
      assert.equal(totals.messages, 1);
    });

    on("acknowledges nothing before it is synced", async (world) => {
      const { intake } = world.start();
      intake.syncing.shut();
      await world.place.publish(rows(1, 20));
      await eventually(() => assert.ok(intake.syncing.waiting > 0), FAST);
      await quiet();
      assert.equal(await world.place.unacknowledged(), 20);
      intake.syncing.open();
      await world.hasRows(20);
      await world.hasUnacknowledged(0);
    });

    for (const ack of ["clickhouse", "memory"] as const) {
      on(`ack=${ack}: acknowledges nothing before it is stored`, async (world) => {
        const { intake } = world.start({ ack });
        intake.storing.shut();
        await world.place.publish(rows(1, 20));
        await world.hasRows(20);
        await quiet();
        assert.equal(await world.place.unacknowledged(), 20);
        intake.storing.open();
        await world.hasUnacknowledged(0);
        world.isWhole(20, "once");
      });
    }

    on("poison is a dead letter, and what is around it rows", async (world) => {
      const bytes = Uint8Array.of(0xff, 0x00, 0xfe);
      await world.place.publish([
        ...rows(1, 5),
        "{broken",
        bytes,
        '[{"n":6},{"m":1}]',
        ...rows(7, 10),
      ]);
      const { totals } = world.start();
      await world.hasRows(10);
      await world.hasUnacknowledged(0);
      world.isWhole(10, "once");
      const letters = world.disk.letters.map(({ row, base64 }) => ({ row, base64 }));
      assert.deepEqual(letters.toSorted((a, b) => a.row < b.row ? -1 : 1), [
        { row: "/wD+", base64: true },
        { row: '{"m":1}', base64: false },
        { row: "{broken", base64: false },
      ]);
      assert.equal(totals.dead, 3);
      assert.ok(world.disk.letters.every(({ address }) => address !== ""));
    });

    on("full: reads no more than it may hold, and goes on by itself", async (world) => {
      const { intake, source } = world.start({ prefetch: 10 });
      intake.full = "no room";
      await world.place.publish(rows(1, 100));
      await eventually(() => assert.equal(source.status().state, "full"), FAST);
      await quiet(1000);
      assert.ok(source.status().unacked <= 10, `${source.status().unacked} are held`);
      assert.equal(world.disk.rows.length, 0);
      assert.equal(await world.place.unacknowledged(), 100);
      intake.full = null;
      await world.hasRows(100);
      await world.hasUnacknowledged(0);
      world.isWhole(100, "once");
    });

    on("paused: takes nothing, and goes on when it is resumed", async (world) => {
      const { intake, source } = world.start();
      await world.place.publish(rows(1, 1));
      await world.hasRows(1);
      intake.state = "paused";
      await world.place.publish(rows(2, 20));
      await quiet(600);
      assert.equal(source.status().state, "paused");
      assert.equal(world.disk.rows.length, 1);
      intake.state = null;
      await world.hasRows(20);
      await world.hasUnacknowledged(0);
      world.isWhole(20, "once");
    });

    on("a stop acknowledges what is taken, and the next start reads on", async (world) => {
      await world.place.publish(rows(1, 50));
      const first = world.start();
      await world.hasRows(50);
      await first.source.stop(Promise.resolve());
      assert.equal(await world.place.unacknowledged(), 0);
      await world.place.publish(rows(51, 100));
      const second = world.start();
      await world.hasRows(100);
      await world.hasUnacknowledged(0);
      world.isWhole(100, "once");
      assert.equal(second.totals.repeated, 0);
    });

    on("a stop waits until what it took is stored, with ack=clickhouse", async (world) => {
      const { intake, source } = world.start({ ack: "clickhouse" });
      intake.storing.shut();
      await world.place.publish(rows(1, 10));
      await world.hasRows(10);
      const drained = Promise.withResolvers<void>();
      const stopped = source.stop(drained.promise);
      await quiet();
      assert.equal(await world.place.unacknowledged(), 10);
      intake.storing.open();
      drained.resolve();
      await stopped;
      await world.hasUnacknowledged(0);
    });

    for (const point of ["before the sync", "before the acknowledgement", "after it"] as const) {
      on(`killed ${point}: loses nothing`, async (world, { traits }) => {
        const first = world.start();
        if (point === "before the sync") first.intake.syncing.shut();
        if (point === "before the acknowledgement") first.acknowledging.shut();
        await world.place.publish(rows(1, 30));
        if (point === "before the sync") {
          await eventually(() => assert.ok(first.intake.syncing.waiting > 0), FAST);
        } else if (point === "after it") {
          await world.hasRows(30);
          await eventually(() => assert.ok(first.acknowledged > 0), FAST);
        } else {
          await world.hasRows(30);
          await eventually(() => assert.ok(first.acknowledging.waiting > 0), FAST);
        }
        await first.kill();
        await world.place.publish(rows(31, 40));
        world.start();
        await world.hasRows(40, traits.againMs);
        await world.hasUnacknowledged(0, traits.againMs);
        world.isWhole(40, traits.once ? "once" : "at least once");
      });
    }

    on("killed over and over: loses nothing", async (world, { traits }) => {
      let published = 0;
      for (let round = 0; round < 4; round++) {
        const { kill } = world.start();
        await world.place.publish(rows(published + 1, published += 50));
        await quiet(20 + 40 * round);
        await kill();
      }
      world.start();
      await world.hasRows(published, traits.againMs * 2);
      await world.hasUnacknowledged(0, traits.againMs);
      world.isWhole(published, traits.once ? "once" : "at least once");
    });

    on("connections are cut: loses nothing, and reads on", async (world, { server, traits }) => {
      const { totals } = world.start();
      for (let round = 0; round < 3; round++) {
        await world.place.publish(rows(1 + round * 20, (round + 1) * 20));
        if (round < 2) {
          await quiet(30);
          await server.cut();
        }
      }
      await world.hasRows(60, 30_000 + traits.againMs);
      await world.hasUnacknowledged(0, traits.againMs);
      world.isWhole(60, traits.once ? "once" : "at least once");
      assert.ok(totals.reconnects >= 0);
    });

    // One end of the server for both: the start of some takes five seconds of a processor.
    on(
      "the server is killed and comes back: reads on, also what began meanwhile",
      async (world, harness) => {
        const { server, traits } = harness;
        const late = new World(await harness.place(), harness);
        try {
          const { source } = world.start();
          await late.place.publish(rows(1, 10));
          await world.place.publish(rows(1, 20));
          await world.hasRows(20);
          await world.hasUnacknowledged(0);
          await server.kill();
          const began = late.start();
          try {
            for (const each of [source, began.source]) {
              await eventually(() => assert.equal(each.status().state, "waiting"), {
                withinMs: 30_000,
              });
            }
            assert.notEqual(source.status().why, null);
          } finally {
            await server.start();
          }
          await world.place.publish(rows(21, 40));
          await world.hasRows(40, 60_000);
          await world.hasUnacknowledged(0, traits.againMs);
          world.isWhole(40, traits.once ? "once" : "at least once");
          await late.hasRows(10, 60_000);
          await late.hasUnacknowledged(0);
          late.isWhole(10, traits.once ? "once" : "at least once");
        } finally {
          await late.close();
        }
      },
    );

    on(
      "the server freezes: that is noticed, and its thaw too",
      async (world, { server, traits }) => {
        const { source } = world.start();
        await world.place.publish(rows(1, 10));
        await world.hasRows(10);
        server.freeze();
        try {
          await eventually(() => assert.equal(source.status().state, "waiting"), {
            withinMs: 30_000,
          });
        } finally {
          server.thaw();
        }
        await world.place.publish(rows(11, 20));
        await world.hasRows(20, 60_000);
        await world.hasUnacknowledged(0, traits.againMs);
        world.isWhole(20, traits.once ? "once" : "at least once");
      },
    );

    on("members come and go: loses nothing", async (world, { traits }) => {
      if (!traits.shared) return;
      const first = world.start({ member: "g.a" });
      await world.place.publish(rows(1, 50));
      await world.hasRows(1);
      const second = world.start({ member: "g.b" });
      await world.place.publish(rows(51, 150));
      await quiet(500);
      await first.source.stop(Promise.resolve());
      await world.place.publish(rows(151, 200));
      await quiet(200);
      await second.kill();
      world.start({ member: "g.c" });
      await world.hasRows(200, traits.againMs + 30_000);
      await world.hasUnacknowledged(0, traits.againMs);
      // Another member's disk does not know what was taken: a partition that moves may repeat a little.
      world.isWhole(200, "at least once");
    });

    on("says how much waits at the broker", async (world) => {
      const { intake, source } = world.start({ prefetch: 5 });
      intake.full = "no room";
      await world.place.publish(rows(1, 50));
      await eventually(() => {
        const { lag } = source.status();
        assert.ok(lag !== null && lag >= 45 && lag <= 50, `a lag of ${lag}`);
      }, FAST);
      intake.full = null;
      await world.hasRows(50);
      await eventually(() => assert.equal(source.status().lag, 0), FAST);
    });
  });
}

/** `{"n":FROM}` to `{"n":TO}`. */
export function rows(from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, at) => `{"n":${from + at}}`);
}

/** Long enough for something to happen that must not. */
function quiet(ms = 400): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

interface Collector {
  readonly source: Source;
  readonly intake: JournalIntake;
  readonly totals: SourceTotals;
  /** Acknowledgements wait here. */
  readonly acknowledging: Gate;
  /** How many of them have got through. */
  readonly acknowledged: number;
  readonly killed: boolean;
  /** kill -9, as far as a broker can tell: its connections end. */
  kill(): Promise<void>;
}

/** One place, and the collectors that read it, each member with a disk of its own. */
class World {
  /** All rows and letters. */
  readonly disk = new Disk();
  /** Of each member, what it remembers. */
  readonly #disks = new Map<string, Disk>();
  readonly #collectors: Collector[] = [];

  constructor(readonly place: Place, readonly harness: SourceHarness) {}

  start(
    { ack = "disk", member = "g.a", prefetch }: {
      ack?: Ack;
      member?: string;
      prefetch?: number;
    } = {},
  ): Collector {
    const disk = this.#disks.get(member) ?? new Disk(this.disk.rows, this.disk.letters);
    this.#disks.set(member, disk);
    const intake = new JournalIntake(disk, ack);
    const { address, broker } = this.place.open(member, prefetch);
    const watched = new Watched(broker);
    const totals = {
      messages: 0,
      empty: 0,
      dead: 0,
      repeated: 0,
      dropped: 0,
      rows: 0,
      reconnects: 0,
    };
    const source = new Source({
      address: { ...address, table: "t" },
      broker: watched,
      intake,
      reader: new PlainReader(),
      keepLetters: (letters) => intake.keepLetters(letters),
      totals,
      died() {},
      eventsTable: () => "events",
      mayWrite: () => true,
      ack: () => ack,
      clock: systemClock,
      log: silent,
    });
    source.start();
    let killed = false;
    const collector: Collector = {
      source,
      intake,
      totals,
      acknowledging: watched.acknowledging,
      get acknowledged() {
        return watched.acknowledged;
      },
      get killed() {
        return killed;
      },
      async kill() {
        intake.kill();
        await watched.kill();
        killed = true;
        void source.stop(Promise.resolve());
      },
    };
    this.#collectors.push(collector);
    return collector;
  }

  /** Each row at least once. */
  async hasRows(count: number, withinMs = 0): Promise<void> {
    await eventually(() => {
      const found = new Set(this.disk.rows).size;
      assert.ok(found >= count, `${found} of ${count} rows are there`);
    }, { withinMs: FAST.withinMs + withinMs });
  }

  async hasUnacknowledged(count: number, withinMs = 0): Promise<void> {
    await eventually(
      async () => assert.equal(await this.place.unacknowledged(), count),
      { withinMs: FAST.withinMs + withinMs, everyMs: 100 },
    );
  }

  isWhole(count: number, how: "once" | "at least once"): void {
    const numbers = this.disk.rows.map((row) => JSON.parse(row).n as number);
    const found = how === "once" ? numbers : [...new Set(numbers)];
    const wanted = Array.from({ length: count }, (_, at) => at + 1);
    assert.deepEqual(found.toSorted((a, b) => a - b), wanted);
  }

  async close(): Promise<void> {
    for (const { intake } of this.#collectors) {
      intake.syncing.open();
      intake.storing.open();
    }
    const living = this.#collectors.filter(({ killed }) => !killed);
    await Promise.all(living.map(({ source }) => source.stop(Promise.resolve())));
    await this.place.remove?.();
  }
}

/** A broker whose acknowledgements can be held up, and whose connections end as those of a killed process. */
class Watched implements Broker {
  readonly acknowledging = new Gate();
  acknowledged = 0;
  readonly #broker: Broker;
  readonly #feeds = new Set<Feed>();
  #killed = false;

  constructor(broker: Broker) {
    this.#broker = broker;
  }

  inspect() {
    return this.#broker.inspect();
  }

  async connect(signal: AbortSignal): Promise<Feed> {
    if (this.#killed) return await new Promise<never>(() => {});
    const feed = await this.#broker.connect(signal);
    if (this.#killed) {
      await feed.close();
      return await new Promise<never>(() => {});
    }
    this.#feeds.add(feed);
    const never = <T>(work: Promise<T>) =>
      work.then(
        (value) => this.#killed ? new Promise<never>(() => {}) : value,
        (error) => this.#killed ? new Promise<never>(() => {}) : Promise.reject(error),
      );
    return {
      next: () => never(feed.next()),
      acknowledge: async (newest) => {
        await this.acknowledging.pass();
        if (this.#killed) return await new Promise<never>(() => {});
        await never(feed.acknowledge(newest));
        this.acknowledged++;
      },
      lag: () => feed.lag(),
      close: async (untaken) => {
        if (this.#feeds.delete(feed)) await feed.close(untaken);
      },
    };
  }

  async kill(): Promise<void> {
    this.#killed = true;
    const feeds = [...this.#feeds];
    this.#feeds.clear();
    await Promise.all(feeds.map((feed) => feed.close()));
  }
}

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
