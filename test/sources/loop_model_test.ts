/**
 * The loop of a source under random events, on a clock of its own: whatever comes in whatever order, nothing
 * is acknowledged before it is safe, nothing is lost, nothing becomes rows twice, nothing that is taken is left for
 * others, and in the end everything is acknowledged. The seed is printed; to repeat a run set SHISHI_SEED, and SHISHI_PATH to the path that
 * fast-check names. SHISHI_RUNS: how many, instead of 120.
 * Runs once: broker and time are the test's own; each source's test has its connection on both runtimes.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import fc from "fast-check";
import type { Ack, Log } from "../../src/contracts.ts";
import { Source } from "../../src/sources/source.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import { rounds } from "../kit/rounds.ts";
import { pause } from "../kit/wait.ts";
import { fakeAddress, FakeBroker } from "./fake_broker.ts";
import { Disk, JournalIntake } from "./journal_intake.ts";
import { PlainReader } from "./plain_reader.ts";

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const path = process.env.SHISHI_PATH;
const RUNS = Number(process.env.SHISHI_RUNS ?? rounds(120));

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };

interface Setting {
  readonly kind: "log" | "queue";
  readonly ack: Ack;
  readonly prefetch: number;
}

type Event =
  | { readonly do: "publish"; readonly bodies: readonly ("row" | "rows" | "poison" | "empty")[] }
  | { readonly do: "pass"; readonly ms: number }
  | { readonly do: "syncing" | "storing"; readonly open: boolean }
  | {
    readonly do: "full" | "paused" | "letters full" | "no table" | "away";
    readonly is: boolean;
  }
  | { readonly do: "cut" | "sync fails" | "kill" | "stop" };

/** A collector, its broker and its disk. */
class World {
  readonly clock = new ManualClock();
  readonly server: FakeBroker;
  readonly disk = new Disk();
  readonly reader = new PlainReader();
  readonly early: string[] = [];
  readonly leftTaken: string[] = [];
  left = 0;
  intake: JournalIntake;
  source: Source;
  rows = 0;
  poison = 0;
  #shut = { syncing: false, storing: false };

  constructor(readonly setting: Setting) {
    this.server = new FakeBroker({ kind: setting.kind, partitions: 3 });
    this.server.onAcknowledged = (body) => this.#check(new TextDecoder().decode(body));
    this.server.onUntaken = ({ body }) => this.#checkLeft(new TextDecoder().decode(body));
    [this.intake, this.source] = this.#start();
  }

  #start(): [JournalIntake, Source] {
    const { ack, prefetch } = this.setting;
    const intake = new JournalIntake(this.disk, ack);
    if (this.#shut.syncing) intake.syncing.shut();
    if (this.#shut.storing) intake.storing.shut();
    const source = new Source({
      address: fakeAddress({ prefetch }),
      broker: this.server.broker(prefetch),
      intake,
      reader: this.reader,
      keepLetters: (letters) => intake.keepLetters(letters),
      totals: { messages: 0, empty: 0, dead: 0, repeated: 0, dropped: 0, rows: 0, reconnects: 0 },
      died() {},
      eventsTable: () => "events",
      mayWrite: () => true,
      ack: () => ack,
      clock: this.clock,
      log: silent,
    });
    source.start();
    return [intake, source];
  }

  /** What is acknowledged has to be safe at that moment. */
  #check(body: string): void {
    const safe = this.setting.ack === "disk" ? new Set(this.disk.rows) : this.disk.stored;
    const letters = new Set(this.disk.letters.map(({ row }) => row));
    for (const row of body.match(/\{"n":\d+\}/g) ?? []) {
      if (!safe.has(row)) this.early.push(row);
    }
    if (body.startsWith("broken") && !letters.has(body)) this.early.push(body);
  }

  /** What another member may have at once must not be here. */
  #checkLeft(body: string): void {
    this.left++;
    const rows = new Set(this.disk.rows);
    for (const row of body.match(/\{"n":\d+\}/g) ?? []) {
      if (rows.has(row)) this.leftTaken.push(row);
    }
    if (this.disk.letters.some(({ row }) => row === body)) this.leftTaken.push(body);
  }

  async obey(event: Event): Promise<void> {
    switch (event.do) {
      case "publish":
        this.server.publish(event.bodies.map((kind) => this.#body(kind)));
        break;
      case "pass":
        await this.clock.advance(event.ms);
        break;
      case "syncing":
      case "storing":
        this.#shut[event.do] = !event.open;
        if (event.open) this.intake[event.do].open();
        else this.intake[event.do].shut();
        break;
      case "full":
        this.intake.full = event.is ? "no room" : null;
        break;
      case "paused":
        this.intake.state = event.is ? "paused" : null;
        break;
      case "letters full":
        this.intake.lettersFull = event.is ? "no room for letters" : null;
        break;
      case "no table":
        this.reader.waits = event.is ? "there is no table t" : null;
        break;
      case "away":
        this.server.away = event.is ? "connection refused" : null;
        if (event.is) this.server.cut();
        break;
      case "cut":
        this.server.cut();
        break;
      case "sync fails":
        this.intake.failingSyncs++;
        break;
      case "kill":
        this.intake.kill();
        this.server.cut("the process is gone");
        void this.source.stop(Promise.resolve());
        [this.intake, this.source] = this.#start();
        break;
      case "stop": {
        const { intake, source } = this;
        const drained = Promise.withResolvers<void>();
        const stopped = source.stop(drained.promise);
        intake.state = "stopping";
        await this.clock.advance(100);
        drained.resolve();
        await this.clock.advance(10_000);
        await stopped;
        intake.kill();
        [this.intake, this.source] = this.#start();
      }
    }
    await settle();
    assert.deepEqual(this.early, [], "acknowledged before it was safe");
    assert.deepEqual(this.leftTaken, [], "left for others though it is taken");
    assert.deepEqual(this.server.broken, []);
    const { unacked } = this.source.status();
    assert.ok(unacked <= this.setting.prefetch, `${unacked} are held`);
  }

  #body(kind: "row" | "rows" | "poison" | "empty"): string {
    switch (kind) {
      case "row":
        return `{"n":${++this.rows}}`;
      case "rows":
        return `[{"n":${++this.rows}},{"n":${++this.rows}}]`;
      case "poison":
        return `broken ${++this.poison}`;
      case "empty":
        return "[]";
    }
  }

  /** All trouble ends; then everything has to be done in bounded time. */
  async finish(): Promise<void> {
    for (const what of ["full", "paused", "letters full", "no table", "away"] as const) {
      await this.obey({ do: what, is: false });
    }
    await this.obey({ do: "syncing", open: true });
    await this.obey({ do: "storing", open: true });
    this.intake.failingSyncs = 0;
    // As long as it may stay away from a broker, and then some.
    for (let turn = 0; turn < 40 && this.server.unacknowledged > 0; turn++) {
      await this.clock.advance(600_000);
      // A flood of wrong messages lets others have their turn, by the real clock.
      await pause(1);
    }
    await this.clock.advance(600_000);
    assert.deepEqual(this.early, []);
    assert.equal(this.server.unacknowledged, 0, `${JSON.stringify(this.source.status())}`);
    const numbers = this.disk.rows.map((row) => JSON.parse(row).n as number);
    assert.deepEqual(
      numbers.toSorted((a, b) => a - b),
      Array.from({ length: this.rows }, (_, at) => at + 1),
    );
    assert.equal(this.disk.letters.length, this.poison);
    assert.equal(this.source.status().unacked, 0);
    const stopped = this.source.stop(Promise.resolve());
    await this.clock.advance(10_000);
    await stopped;
  }
}

const setting: fc.Arbitrary<Setting> = fc.record({
  kind: fc.constantFrom("log" as const, "queue" as const),
  ack: fc.constantFrom<Ack>("disk", "disk", "clickhouse", "memory"),
  prefetch: fc.constantFrom(1, 3, 10, 1000),
});

const body = fc.constantFrom(
  ...["row", "row", "row", "rows", "poison", "empty"] as const,
);
const event: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.array(body, { minLength: 1, maxLength: 8 }).map((bodies) => ({
      do: "publish" as const,
      bodies,
    })),
  },
  {
    weight: 5,
    arbitrary: fc.constantFrom(1, 300, 2000, 70_000).map((ms) => ({ do: "pass" as const, ms })),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom("syncing" as const, "storing" as const),
      open: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "full" as const,
        "paused" as const,
        "letters full" as const,
        "no table" as const,
        "away" as const,
      ),
      is: fc.boolean(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom("cut" as const, "sync fails" as const, "kill" as const, "stop" as const),
    }),
  },
);

test("whatever happens, a source keeps its promises", { timeout: 120_000 }, async () => {
  console.log(`loop of a source: seed ${seed}, ${RUNS} runs`);
  let rows = 0;
  let letters = 0;
  let left = 0;
  const property = fc.asyncProperty(
    setting,
    fc.array(event, { minLength: 1, maxLength: 60, size: "max" }),
    async (setting, events) => {
      const world = new World(setting);
      for (const each of events) await world.obey(each);
      await world.finish();
      rows += world.rows;
      letters += world.poison;
      left += world.left;
    },
  );
  try {
    await fc.assert(property, { numRuns: RUNS, seed, ...(path === undefined ? {} : { path }) });
  } catch (problem) {
    console.log(`loop of a source: failed with seed ${seed}`);
    throw problem;
  }
  // A model that takes nothing proves nothing.
  if (path !== undefined) return;
  assert.ok(rows > RUNS && letters > RUNS / 4 && left > 0, `${rows}, ${letters}, ${left}`);
});
