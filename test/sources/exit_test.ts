/**
 * Exit channels on a broker made of nothing: what is obeyed, and that nothing that a broker does harms.
 * Runs once: broker and time are the test's own; each source's test has its connection on both runtimes.
 */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, test } from "node:test";
import type { ExitAddress, ExitChannel, ExitFeed, Log, LogFields } from "../../src/contracts.ts";
import { createGate } from "../../src/kernel/signature.ts";
import { channelOf, Exits, exitText, judgeExit, type WantedExit } from "../../src/sources/exit.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import { settingsOf } from "../settings/kit.ts";

const SECRET = "a secret of the fleet";
const NOW_MS = 1_700_000_000_000;

function addressOf(url: string): ExitAddress {
  return settingsOf({ argv: [`--exit=${url}`] }).exits[0]!;
}
const REDIS = addressOf("redis://host?channel=exitCh");

describe("what an exit channel says", () => {
  const gate = (startedMs = NOW_MS) => createGate(SECRET, startedMs);
  const judge = (text: string, channel = "exitCh", of = gate(), nowMs = NOW_MS) =>
    judgeExit(text, channel, of, nowMs);

  for (const text of ["Exit", "Exit\n", "  Exit ", "Exit v1,1,n,ff"]) {
    test(`without a secret ${JSON.stringify(text)} is obeyed`, () => {
      assert.equal(judgeExit(text, "exitCh", null, NOW_MS).kind, "obey");
    });
  }

  const others = [
    "",
    "exit",
    "EXIT",
    '"Exit"',
    "Exit now",
    "Exit now please",
    "Exits",
    "xExit",
    '{"Exit":1}',
  ];
  for (const text of others) {
    test(`${JSON.stringify(text)} is no Exit, with a secret or without`, () => {
      assert.equal(judgeExit(text, "exitCh", null, NOW_MS).kind, "ignore");
      assert.equal(judge(text).kind, "ignore");
    });
  }

  test("the signature is that of the documentation", () => {
    const hex = createHmac("sha256", SECRET).update(`${NOW_MS}\nnonce\nexitCh\nExit`).digest("hex");
    assert.equal(exitText(REDIS, SECRET, NOW_MS, "nonce"), `Exit v1,${NOW_MS},nonce,${hex}`);
    assert.equal(exitText(REDIS, null, NOW_MS, "nonce"), "Exit");
  });

  test("signed it is obeyed once, on its own channel alone", () => {
    const text = exitText(REDIS, SECRET, NOW_MS, "nonce");
    const of = gate();
    const elsewhere = judge(text, "other", of);
    assert.ok(elsewhere.kind === "refuse" && /another secret, for another/.test(elsewhere.problem));
    const heard = judge(text, "exitCh", of);
    assert.ok(heard.kind === "obey");
    heard.spend();
    const again = judge(text, "exitCh", of);
    assert.ok(again.kind === "refuse" && /^replayed/.test(again.problem));
  });

  const refused: [string, string, number, number, RegExp][] = [
    ["not signed", "Exit", NOW_MS, NOW_MS, /^not signed/],
    ["malformed", "Exit v1,x", NOW_MS, NOW_MS, /^signature malformed/],
    [
      "with another secret",
      exitText(REDIS, "another secret", NOW_MS, "n"),
      NOW_MS,
      NOW_MS,
      /^signature wrong/,
    ],
    [
      "old",
      exitText(REDIS, SECRET, NOW_MS - 31_000, "n"),
      NOW_MS - 60_000,
      NOW_MS,
      /^too old: signed 31/,
    ],
    [
      "signed before the collector started",
      exitText(REDIS, SECRET, NOW_MS - 2_000, "n"),
      NOW_MS - 1_000,
      NOW_MS,
      /before this collector started/,
    ],
    ["of the future", exitText(REDIS, SECRET, NOW_MS + 31_000, "n"), NOW_MS, NOW_MS, /^too new/],
  ];
  for (const [what, text, startedMs, nowMs, why] of refused) {
    test(`with a secret it is refused: ${what}`, () => {
      const heard = judge(text, "exitCh", gate(startedMs), nowMs);
      assert.ok(heard.kind === "refuse");
      assert.match(heard.problem, why);
      assert.doesNotMatch(heard.problem, new RegExp(SECRET));
    });
  }

  test("a channel is what its broker calls it", () => {
    const urls = [
      "kafka://h/exit-topic",
      "nats://h?subject=a.exit",
      "amqp://h/v?exchange=exitEx",
      "redis://h/3?channel=exitCh",
    ];
    assert.deepEqual(urls.map((url) => channelOf(addressOf(url))), [
      "exit-topic",
      "a.exit",
      "exitEx",
      "exitCh",
    ]);
  });
});

/** A broker whose connections a test makes, ends and holds up. */
class FakeExits {
  /** Why there is no connection; `hangs`: it says neither yes nor no. */
  away: string | null = null;
  connects = 0;
  sinceMs: number[] = [];
  readonly feeds: FakeExitFeed[] = [];

  readonly open = (_address: ExitAddress): Promise<ExitChannel> =>
    Promise.resolve({
      connect: (sinceMs, signal) => {
        this.connects++;
        this.sinceMs.push(sinceMs);
        if (this.away === "hangs") {
          return new Promise((_, reject) =>
            signal.addEventListener("abort", () => reject(new Error("given up")))
          );
        }
        if (this.away !== null) return Promise.reject(new Error(this.away));
        const feed = new FakeExitFeed();
        this.feeds.push(feed);
        return Promise.resolve(feed);
      },
      send: () => Promise.resolve(),
    });

  get last(): FakeExitFeed {
    return this.feeds.at(-1)!;
  }
}

class FakeExitFeed implements ExitFeed {
  closed = 0;
  closeHangs = false;
  readonly #texts: string[] = [];
  #waiting: PromiseWithResolvers<string> | null = null;

  next(): Promise<string> {
    const text = this.#texts.shift();
    if (text !== undefined) return Promise.resolve(text);
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  say(text: string): void {
    if (this.#waiting === null) return void this.#texts.push(text);
    this.#waiting.resolve(text);
    this.#waiting = null;
  }

  cut(why: string): void {
    this.#waiting?.reject(new Error(why));
  }

  close(): Promise<void> {
    this.closed++;
    return this.closeHangs ? new Promise(() => {}) : Promise.resolve();
  }
}

class World {
  readonly clock = new ManualClock();
  readonly broker = new FakeExits();
  readonly stops: string[] = [];
  readonly counted: boolean[] = [];
  readonly lines: string[] = [];
  readonly exits: Exits;

  constructor() {
    const at = (level: string) => (message: string, fields?: LogFields) =>
      void this.lines.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
    const log: Log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
    this.exits = new Exits({
      broker: {
        clock: this.clock,
        log,
        member: "g.a",
        readFile: () => Promise.reject(new Error("no file")),
        authorities: () => [],
        openSocket: () => {
          throw new Error("no socket");
        },
        openSqlite: () => {
          throw new Error("no database");
        },
      },
      startedMs: this.clock.nowMs(),
      stop: (why) => void this.stops.push(why),
      count: (ok) => void this.counted.push(ok),
      clock: this.clock,
      log,
      open: this.broker.open,
    });
  }

  async listen(secret: string | null = null, wanted: readonly WantedExit[] = [one()]) {
    this.exits.adopt(wanted, secret);
    await settle();
  }

  linesWith(text: string): string[] {
    return this.lines.filter((line) => line.includes(text));
  }
}

function one(url = "redis://host?channel=exitCh", texts: readonly string[] = []): WantedExit {
  return { address: addressOf(url), texts };
}

describe("exit channels", () => {
  test("an Exit stops, anything else is ignored and logged, in bounds", async () => {
    const world = new World();
    await world.listen();
    for (let at = 0; at < 100; at++) world.broker.last.say(`hello ${at}\n\x1b[2J`);
    await settle();
    assert.deepEqual(world.stops, []);
    const ignored = world.linesWith("ignored");
    assert.ok(ignored.length > 0 && ignored.length <= 5, `${ignored.length} lines`);
    assert.match(ignored[0]!, /hello 0/);
    assert.doesNotMatch(ignored.join(), /\\u001b/);
    world.broker.last.say("Exit");
    await settle();
    assert.deepEqual(world.stops, ["exit redis:exitCh"]);
    assert.deepEqual(world.counted, [true]);
    await world.exits.close();
  });

  test("with a secret only what is signed stops; the rest is counted and logged", async () => {
    const world = new World();
    await world.listen(SECRET);
    for (let at = 0; at < 20; at++) world.broker.last.say("Exit");
    await settle();
    assert.deepEqual(world.stops, []);
    assert.equal(world.counted.filter((ok) => !ok).length, 20);
    assert.equal(world.linesWith("refused").length, 5);
    const text = exitText(REDIS, SECRET, world.clock.nowMs(), "n1");
    world.broker.last.say(text);
    world.broker.last.say(text);
    await settle();
    assert.deepEqual(world.stops, ["exit redis:exitCh"]);
    assert.doesNotMatch(world.lines.join(), new RegExp(SECRET));
    await world.exits.close();
  });

  test("a channel that is away is tried again for ever, and said once", async () => {
    const world = new World();
    world.broker.away = "host:6379: connection refused";
    await world.listen();
    await world.clock.advance(3_600_000);
    assert.ok(world.broker.connects > 300, `${world.broker.connects} attempts`);
    assert.equal(world.linesWith("is away").length, 1);
    assert.match(world.lines[0]!, /^warn .*redis:\/\/host:6379.*connection refused/);
    world.broker.away = null;
    await world.clock.advance(11_000);
    assert.equal(world.linesWith("is listened to").length, 1);
    world.broker.last.say("Exit");
    await settle();
    assert.equal(world.stops.length, 1);
    await world.exits.close();
  });

  test("a connection that is lost is made again, since the start of the collector", async () => {
    const world = new World();
    await world.listen();
    const startedMs = world.clock.nowMs();
    for (let round = 1; round <= 5; round++) {
      await world.clock.advance(60_000);
      world.broker.last.cut("the connection is lost");
      await world.clock.advance(600);
      assert.equal(world.broker.connects, round + 1);
      assert.equal(world.broker.feeds.at(-2)!.closed, 1);
    }
    assert.deepEqual(new Set(world.broker.sinceMs), new Set([startedMs]));
    assert.equal(world.linesWith("is away").length, 5);
    await world.exits.close();
  });

  test("a broker that says neither yes nor no is left, and tried again", async () => {
    const world = new World();
    world.broker.away = "hangs";
    await world.listen();
    await world.clock.advance(29_000);
    assert.equal(world.broker.connects, 1);
    await world.clock.advance(2_000);
    assert.ok(world.broker.connects > 1);
    assert.match(world.lines.join(), /no answer within 30 s/);
    await world.exits.close();
  });

  test("it is known when each channel is there, or away", async () => {
    const world = new World();
    world.broker.away = "hangs";
    await world.listen();
    let tried = false;
    void world.exits.tried().then(() => tried = true);
    await world.clock.advance(29_000);
    assert.equal(tried, false);
    await world.clock.advance(2_000);
    assert.equal(tried, true);
    world.broker.away = null;
    await world.listen(null, [one("redis://host?channel=there")]);
    await world.exits.tried();
    await world.exits.close();
  });

  test("a reload touches what has changed alone", async () => {
    const world = new World();
    const [a, b] = [one(), one("redis://host?channel=other")];
    await world.listen(null, [a, b]);
    const [first, second] = world.broker.feeds;
    await world.listen(null, [one(), one("redis://host?channel=third")]);
    assert.equal(first!.closed, 0);
    assert.equal(second!.closed, 1);
    assert.equal(world.broker.feeds.length, 3);
    await world.listen(null, [one(undefined, ["a new password"])]);
    assert.equal(first!.closed, 1);
    assert.equal(world.broker.feeds.length, 4);
    await world.listen(null, []);
    assert.ok(world.broker.feeds.every(({ closed }) => closed === 1));
    second!.say("Exit");
    await settle();
    assert.deepEqual(world.stops, []);
  });

  test("a secret that a reload sets counts at once, for connections that live on", async () => {
    const world = new World();
    await world.listen(null);
    await world.listen(SECRET);
    assert.equal(world.broker.connects, 1);
    world.broker.last.say("Exit");
    await settle();
    assert.deepEqual(world.stops, []);
    await world.listen(null);
    world.broker.last.say("Exit");
    await settle();
    assert.equal(world.stops.length, 1);
    await world.exits.close();
  });

  test("an end waits 2 s at most, whatever a broker does", async () => {
    const world = new World();
    await world.listen();
    world.broker.last.closeHangs = true;
    let done = false;
    void world.exits.close().then(() => done = true);
    await world.clock.advance(1_900);
    assert.equal(done, false);
    await world.clock.advance(200);
    assert.equal(done, true);
    await world.listen(null, [one("redis://host?channel=late")]);
    assert.equal(world.broker.connects, 1, "nothing begins after the end");
  });
});
