/** Streams of JetStream: what a connection gives and holds, who gets what again, and what is said of faults. */
import assert from "node:assert/strict";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { AckPolicy, type ConsumerConfig, headers, type NatsConnection } from "nats.ws";
import type { Feed, Message } from "../../src/contracts.ts";
import type { NatsLink } from "../../src/kernel/nats.ts";
import { openStream, readDelivery, type StreamAddress } from "../../src/sources/jetstream.ts";
import { openNats } from "../../src/sources/nats_source.ts";
import { freePort } from "../kit/free_port.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import type { Nats } from "../kit/servers.ts";
import { eventually, pause } from "../kit/wait.ts";
import { asAdmin, depsOf, natsSource, publish, startJetStream } from "./nats_kit.ts";

const never = new AbortController().signal;
const decode = (messages: readonly Message[]) =>
  messages.map(({ body }) => new TextDecoder().decode(body));
const numbers = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, at) => String(from + at));

/** Messages until there are so many. */
async function read(feed: Feed, count: number): Promise<Message[]> {
  const all: Message[] = [];
  while (all.length < count) all.push(...await feed.next());
  return all;
}

describe("JetStream", () => {
  let server: Nats;
  let streams = 0;
  before(async () => {
    server = await startJetStream();
  });
  after(() => server.close());

  /** An empty stream, with one message for each body. */
  async function stream(bodies: readonly (string | Uint8Array)[] = []): Promise<string> {
    const name = `T${++streams}`;
    await asAdmin(server, (_, api) => api.streams.add({ name, subjects: [`${name}.>`] }));
    if (bodies.length > 0) await publish(server, `${name}.a`, bodies);
    return name;
  }
  const urlOf = (name: string, more = "") =>
    `nats://127.0.0.1:${server.natsPort}?stream=${name}${more}` +
    (more.includes("ack-wait") ? "" : "&ack-wait=1s");
  const open = (name: string, more = "", member = "g.a") =>
    openNats(natsSource(urlOf(name, more)), depsOf(member)).connect(never);
  const info = (name: string) => asAdmin(server, (_, api) => api.consumers.info(name, "shishi"));
  const consumer = (name: string, config: Partial<ConsumerConfig>) =>
    asAdmin(server, (_, api) =>
      api.consumers.add(name, {
        durable_name: "shishi",
        ack_policy: AckPolicy.Explicit,
        ...config,
      }));

  test("a message says what it is", async () => {
    const name = await stream();
    const h = headers();
    h.append("Nats-Msg-Id", "order-7");
    h.append("X", "one");
    h.append("X", "two");
    h.append("content-Encoding", "GZIP");
    await asAdmin(
      server,
      (connection) => connection.jetstream().publish(`${name}.eu`, "{}", { headers: h }),
    );
    const beforeMs = Date.now();
    const feed = await open(name);
    const [message] = await read(feed, 1);
    assert.equal(message!.encoding, "gzip");
    assert.equal(message!.address, `nats:${name}@1`);
    assert.equal(message!.partition, name);
    assert.equal(message!.position, undefined);
    assert.match(message!.id!, /^[0-9a-z]{8}\/1$/);
    assert.equal(message!.meta("_subject"), `${name}.eu`);
    assert.equal(message!.meta("_stream"), name);
    assert.equal(message!.meta("_sequence"), 1);
    assert.deepEqual(message!.meta("_headers"), {
      "Nats-Msg-Id": "order-7",
      "X": "one, two",
      "content-Encoding": "GZIP",
    });
    const stored = String(message!.meta("_timestamp"));
    assert.match(stored, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.ok(Math.abs(Date.parse(stored) - beforeMs) < 60_000);
    assert.equal(message!.meta("_else"), null);
    await feed.close();
  });

  test("a stream made anew under the old name has other ids", async () => {
    const name = await stream(["1"]);
    const first = await open(name);
    const [old] = await read(first, 1);
    await first.close();
    await asAdmin(server, async (_, api) => {
      await api.streams.delete(name);
      await api.streams.add({ name, subjects: [`${name}.>`] });
    });
    await publish(server, `${name}.a`, ["1"]);
    const second = await open(name);
    const [young] = await read(second, 1);
    assert.equal(young!.address, old!.address);
    assert.notEqual(young!.id, old!.id);
    await second.close();
  });

  test("what is held does not come again: the server hears that it is being worked on", async () => {
    const name = await stream(numbers(1, 50));
    const [one, other] = [await open(name, "&ack-wait=3s"), await open(name, "", "g.b")];
    const held = await read(one, 50);
    await pause(4_500);
    const { num_redelivered: again, num_ack_pending: pending } = await info(name);
    assert.deepEqual([again, pending], [0, 50]);
    await one.acknowledge([held.at(-1)!]);
    assert.equal((await info(name)).num_ack_pending, 0);
    await Promise.all([one.close(), other.close()]);
  });

  test("acknowledged is what was given up to the newest, and nothing behind it", async () => {
    const name = await stream(numbers(1, 10));
    const feed = await open(name);
    const all = await read(feed, 10);
    await feed.acknowledge([all[3]!]);
    const { num_ack_pending: pending, ack_floor: floor } = await info(name);
    assert.deepEqual([pending, floor.stream_seq], [6, 4]);
    await feed.acknowledge([all[3]!]);
    await feed.acknowledge([]);
    assert.equal((await info(name)).num_ack_pending, 6);
    await feed.close();
  });

  test("what a member was given comes again when it has gone, with the same id, and says so", async () => {
    const name = await stream(numbers(1, 20));
    const first = await open(name);
    const given = await read(first, 20);
    await first.close();
    const second = await open(name, "", "g.b");
    await publish(server, `${name}.a`, ["new"]);
    const all = await read(second, 21);
    const old = all.filter((message) => decode([message])[0] !== "new");
    assert.deepEqual(new Set(old.map(({ id }) => id)), new Set(given.map(({ id }) => id)));
    assert.ok(old.every(({ again }) => again));
    assert.ok(all.filter((message) => !old.includes(message)).every(({ again }) => !again));
    await second.close();
  });

  test("what was never looked at need not wait for ack_wait when a member leaves", async () => {
    const name = await stream();
    await consumer(name, { ack_wait: 3_600e9 });
    const first = await open(name);
    await publish(server, `${name}.a`, numbers(1, 20));
    await eventually(async () => assert.equal((await info(name)).num_ack_pending, 20), {
      withinMs: 10_000,
    });
    await first.close();
    const second = await open(name, "", "g.b");
    assert.deepEqual(decode(await read(second, 20)).toSorted(), numbers(1, 20).toSorted());
    await second.close();
  });

  test("what a member has looked at and not taken goes to another at once, and what it may have taken stays", async () => {
    const name = await stream(numbers(1, 20));
    await consumer(name, { ack_wait: 3_600e9 });
    const first = await open(name);
    const given = await read(first, 20);
    await first.close(given.slice(5));
    const second = await open(name, "", "g.b");
    assert.deepEqual(decode(await read(second, 15)).toSorted(), numbers(6, 20).toSorted());
    const { num_ack_pending: pending, num_pending: waits } = await info(name);
    assert.deepEqual([pending, waits], [20, 0]);
    await second.close();
  });

  test("after a crash of the server no message passes for one that was never given", async () => {
    const own = await startJetStream();
    const name = "CRASH";
    await asAdmin(own, (_, api) => api.streams.add({ name, subjects: [name] }));
    await publish(own, name, numbers(1, 30));
    const url = `nats://127.0.0.1:${own.natsPort}?stream=${name}&ack-wait=1s`;
    const broker = openNats(natsSource(url), depsOf());
    const first = await broker.connect(never);
    await read(first, 30);
    // Its notes of what was given may not be on disk yet: it counts from one again.
    await own.kill();
    await assert.rejects(first.next(), /the connection is lost/);
    await first.close();
    await own.start();
    const second = await eventually(() => broker.connect(never), { withinMs: 20_000 });
    const all = await read(second, 30);
    assert.ok(all.every(({ again }) => again), "one claims to be new");
    await second.close();
    await own.close();
  });

  for (const members of [2, 5]) {
    test(`${members} members come and go: none is lost, and what comes twice says that it comes again`, async () => {
      const name = await stream();
      const seen = new Set<string>();
      const silent: string[] = [];
      const leaving: AbortController[] = [];
      const work = Array.from({ length: members }, async (_, at) => {
        const leave = new AbortController();
        leaving.push(leave);
        await pause(at * 40);
        while (!leave.signal.aborted) {
          const feed = await open(name, "&prefetch=30&ack-wait=10s", `g.${at}`);
          const gone = new Promise<null>((resolve) => {
            leave.signal.addEventListener("abort", () => resolve(null));
          });
          // Each leaves now and then, with all that it was given acknowledged.
          for (let turn = 0; turn < 4 && !leave.signal.aborted; turn++) {
            const messages = await Promise.race([feed.next().catch(() => null), gone]);
            if (messages === null) break;
            for (const [at, body] of decode(messages).entries()) {
              const { again } = messages[at]!;
              if (seen.has(body) && again !== true) silent.push(body);
              seen.add(body);
            }
            await feed.acknowledge([messages.at(-1)!]);
          }
          await feed.close();
        }
      });
      for (let from = 1; from <= 600; from += 100) {
        await publish(server, `${name}.a`, numbers(from, from + 99));
      }
      await eventually(() => assert.equal(seen.size, 600), { withinMs: 20_000 });
      await eventually(async () => {
        const { num_pending: waits, num_ack_pending: pending } = await info(name);
        assert.deepEqual([waits, pending], [0, 0]);
      }, { withinMs: 20_000 });
      for (const leave of leaving) leave.abort();
      await Promise.all(work);
      // A message that came while its member left was not looked at by it. NATS 2.9 may give one that went back
      // twice at once, as returned and as new.
      assert.deepEqual(silent, []);
    });
  }

  test("no more is held than prefetch, nor than max_ack_pending allows", async () => {
    const name = await stream(numbers(1, 100));
    await consumer(name, { max_ack_pending: 7 });
    const feed = await open(name, "&prefetch=20");
    const all = await read(feed, 7);
    await pause(300);
    assert.equal((await info(name)).num_ack_pending, 7);
    await feed.acknowledge([all.at(-1)!]);
    await read(feed, 7);
    await feed.close();
  });

  test("large messages: no more bytes are held than 32 MiB and one message", async () => {
    const large = new Uint8Array(900_000).fill(32);
    const name = await stream(Array.from({ length: 60 }, () => large));
    const feed = await open(name);
    const first = await feed.next();
    await eventually(async () => assert.ok((await info(name)).num_ack_pending > 30), {
      withinMs: 10_000,
    });
    await pause(300);
    const { num_ack_pending: held } = await info(name);
    assert.ok(held <= 38, `${held} are held`);
    let count = first.length;
    let newest = first.at(-1)!;
    while (count < 60) {
      await feed.acknowledge([newest]);
      const next = await feed.next();
      count += next.length;
      newest = next.at(-1)!;
    }
    await feed.acknowledge([newest]);
    assert.equal((await info(name)).num_ack_pending, 0);
    await feed.close();
  });

  test("from=new and filter= are of a consumer that is made", async () => {
    const name = await stream(["old"]);
    const feed = await open(name, `&from=new&filter=${name}.b.*`);
    await publish(server, `${name}.a`, ["other"]);
    await publish(server, `${name}.b.x`, ["wanted"]);
    assert.deepEqual(decode(await read(feed, 1)), ["wanted"]);
    const { config } = await info(name);
    assert.equal(config.ack_policy, "explicit");
    assert.equal(config.ack_wait, 1e9);
    assert.equal(config.max_deliver, -1);
    assert.equal(config.max_ack_pending, 10_000);
    await feed.close();
    const again = await open(name, `&filter=${name}.b.*`);
    await again.close();
  });

  for (const what of ["consumer", "stream"] as const) {
    test(`the ${what} is deleted: the connection ends with a sentence`, async () => {
      const name = await stream();
      const feed = await open(name);
      const next = feed.next();
      next.catch(() => {});
      await asAdmin(
        server,
        (_, api) =>
          what === "stream" ? api.streams.delete(name) : api.consumers.delete(name, "shishi"),
      );
      await assert.rejects(next, /the consumer shishi of the stream T\d+ was deleted/);
      await assert.rejects(feed.next(), /was deleted/);
      await feed.close();
    });
  }

  const MUST: readonly [string, Partial<ConsumerConfig> | null, string, RegExp][] = [
    [
      "a push consumer",
      { deliver_subject: "to.me" },
      "",
      /is a push consumer \(it delivers to to\.me\)/,
    ],
    [
      "ack policy all",
      { ack_policy: AckPolicy.All },
      "",
      /has the ack policy all, and .* needs explicit/,
    ],
    ["ack policy none", { ack_policy: AckPolicy.None }, "", /has the ack policy none/],
    ["headers only", { headers_only: true }, "", /delivers headers without messages/],
    [
      "another filter",
      { filter_subject: "*.x" },
      "&filter=T1.y",
      /reads \*\.x, and filter= says T1\.y/,
    ],
    ["a filter that it has not", {}, "&filter=T1.y", /reads every subject, and filter= says/],
    ["none, and create=false", null, "&create=false", /has no consumer shishi, and none is made/],
  ];
  for (const [what, config, more, why] of MUST) {
    test(`a consumer that cannot be read from is refused: ${what}`, async () => {
      const name = await stream();
      if (config !== null) {
        const filter = config.filter_subject === undefined
          ? {}
          : { filter_subject: config.filter_subject.replace("*", name) };
        await consumer(name, { ...config, ...filter });
      }
      const of = (text: string) => text.replace("T1", name);
      await assert.rejects(
        open(name, of(more)),
        new RegExp(of(why.source).replace("\\*\\.x", `${name}\\.x`)),
      );
      const found = await openNats(natsSource(urlOf(name, of(more))), depsOf()).inspect();
      assert.equal(found.at(-1)?.state === "wrong" || found[1]?.state === "wrong", true);
    });
  }

  test("a stream that is missing is said, and not made", async () => {
    await assert.rejects(
      open("NOWHERE"),
      /the stream NOWHERE is not there, and a source makes none/,
    );
    const names = await asAdmin(server, (_, api) => api.streams.names().next());
    assert.ok(!names.includes("NOWHERE"));
  });

  test("check says how the consumer is, and changes nothing", async () => {
    const name = await stream(numbers(1, 3));
    const inspect = async (more = "") => {
      const found = await openNats(natsSource(urlOf(name, more)), depsOf()).inspect();
      return found.map(({ state, text }) => `${state} ${text}`);
    };
    const missing = await inspect();
    assert.match(missing[0]!, /^ok 2\.\d+\.\d+, connected$/);
    assert.match(missing[1]!, /^ok .*shishi will be made, and begins with the first of 3 messages/);
    assert.match(missing[2]!, /^warning the stream \S+ has one replica, .*sync_interval/);
    await assert.rejects(info(name), /consumer not found/);
    await consumer(name, { max_deliver: 5, ack_wait: 2e9, max_ack_pending: 10 });
    const [, ...there] = await inspect();
    assert.match(
      there[0]!,
      /^ok .* 3 messages wait, 0 are not acknowledged; explicit, ack_wait 2 s/,
    );
    assert.match(there[1]!, /^warning .*given 5 times at most \(max_deliver\)/);
    assert.match(there[2]!, /^warning .*within 2 s comes again/);
    assert.match(there[3]!, /^warning all members together may hold 10 messages/);
    assert.equal((await info(name)).num_pending, 3);
  });

  test("several servers: the one that is there is found", async () => {
    const name = await stream(["1"]);
    const away = await freePort();
    const url = urlOf(name).replace("nats://", `nats://127.0.0.1:${away},`);
    const broker = openNats(natsSource(url), depsOf());
    for (let round = 0; round < 2; round++) await (await broker.connect(never)).close();
    const none = openNats(natsSource(`nats://127.0.0.1:${away}?stream=S`), depsOf());
    await assert.rejects(
      none.connect(never),
      new RegExp(`^Error: 127.0.0.1:${away}: connection refused`),
    );
  });

  test("a connection that is given up ends at once", async () => {
    const giveUp = new AbortController();
    process.kill(server.pid, "SIGSTOP");
    try {
      const connecting = openNats(natsSource(urlOf("S")), depsOf()).connect(giveUp.signal);
      setTimeout(() => giveUp.abort(), 50);
      const beganMs = performance.now();
      await assert.rejects(connecting);
      assert.ok(performance.now() - beganMs < 4_000);
    } finally {
      process.kill(server.pid, "SIGCONT");
    }
  });
});

/** A server that a test plays: what was asked for, and what it answers. */
class PlayedServer {
  readonly clock = new ManualClock();
  readonly published: {
    readonly subject: string;
    readonly text: string;
    readonly reply: string;
  }[] = [];
  readonly link: NatsLink;
  #deliver: (error: null, message: unknown) => void = () => {};

  constructor(config: Partial<ConsumerConfig> = {}) {
    const consumer = {
      num_pending: 0,
      config: { ack_wait: 30e9, max_ack_pending: 1000, ack_policy: "explicit", ...config },
    };
    const stream = { created: "2026-01-01T00:00:00Z", state: { last_seq: 100 }, config: {} };
    const decoder = new TextDecoder();
    const connection = {
      info: { max_payload: 1024 * 1024 },
      jetstreamManager: () =>
        Promise.resolve({
          streams: { info: () => Promise.resolve(stream) },
          consumers: { info: () => Promise.resolve(consumer) },
        }),
      subscribe: (
        _: string,
        { callback }: { callback: (error: null, message: unknown) => void },
      ) => {
        this.#deliver = callback;
        return { drain: () => Promise.resolve() };
      },
      publish: (subject: string, data: Uint8Array, { reply = "" } = {}) => {
        this.published.push({ subject, text: decoder.decode(data), reply });
      },
      flush: () => Promise.resolve(),
      isClosed: () => false,
    };
    this.link = {
      connection: connection as unknown as NatsConnection,
      server: "played:4222",
      closed: new Promise(() => {}),
      close: () => Promise.resolve(),
    };
  }

  async open(): Promise<Feed> {
    const address = natsSource("nats://h?stream=S") as StreamAddress;
    return await openStream(this.link, address, { clock: this.clock }, () => null);
  }

  /** Time passes, and the server shows that it lives. */
  async live(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 1_000) {
      this.status(100);
      await this.clock.advance(Math.min(left, 1_000));
    }
  }

  get pulls() {
    return this.published.filter(({ subject }) => subject.includes(".MSG.NEXT."));
  }

  message(sequence: number, times = 1): void {
    const reply = `$JS.ACK.S.shishi.${times}.${sequence}.${sequence}.1700000000000000000.0`;
    this.#deliver(null, { subject: "s", data: new Uint8Array([48]), reply });
  }

  /** A word about the newest pull, or about another one. */
  status(code: number, description = "", inbox = this.pulls.at(-1)!.reply): void {
    const headers = { code, description };
    this.#deliver(null, { subject: inbox, data: new Uint8Array(), headers });
  }
}

describe("a connection to JetStream, played", () => {
  test("silence for 10 s ends it though the connection lives; a heartbeat is a sign of life", async () => {
    const server = new PlayedServer();
    const feed = await server.open();
    let why = "";
    feed.next().catch((error) => why = String(error));
    for (let at = 0; at < 10; at++) {
      await server.clock.advance(4_000);
      server.status(100);
    }
    assert.equal(why, "");
    await server.clock.advance(9_000);
    assert.equal(why, "");
    await server.clock.advance(3_000);
    assert.match(why, /no sign of life for 10 s/);
    await feed.close();
  });

  test("a pull that has ended is followed by the next, at once or, when it was refused, later", async () => {
    const server = new PlayedServer();
    const feed = await server.open();
    server.status(408, "Request Timeout");
    assert.equal(server.pulls.length, 2);
    server.status(408, "Request Timeout", server.pulls[0]!.reply);
    assert.equal(server.pulls.length, 2, "a word about an old pull is not one about this");
    server.status(409, "Exceeded MaxWaiting");
    assert.equal(server.pulls.length, 2);
    await server.clock.advance(2_000);
    assert.equal(server.pulls.length, 3);
    await feed.close();
  });

  test("a pull is for what may still be held", async () => {
    const server = new PlayedServer({ max_ack_pending: 3, max_batch: 2, max_expires: 5e9 });
    const feed = await server.open();
    assert.deepEqual(JSON.parse(server.pulls[0]!.text), {
      batch: 2,
      max_bytes: 32 * 1024 * 1024,
      expires: 5e9,
      idle_heartbeat: 2.5e9,
    });
    server.message(101);
    server.message(102);
    await feed.next();
    assert.equal(server.pulls.length, 1);
    await feed.close();
  });

  test("new is what was published after the connection was made, and given once", async () => {
    const server = new PlayedServer();
    const feed = await server.open();
    server.message(100);
    server.message(101);
    server.message(102, 2);
    assert.deepEqual((await feed.next()).map(({ again }) => again), [true, false, true]);
    server.status(409, "Leadership Change");
    server.message(103);
    assert.deepEqual((await feed.next()).map(({ again }) => again), [true]);
    await feed.close();
  });

  test("a third of ack_wait passes before what is held is said to be worked on, or of a shorter backoff", async () => {
    for (
      const [config, ms] of [[{ ack_wait: 30e9 }, 10_000], [
        { backoff: [3e9, 60e9] },
        1_000,
      ]] as const
    ) {
      const server = new PlayedServer(config as Partial<ConsumerConfig>);
      const feed = await server.open();
      const said = () => server.published.filter(({ text }) => text === "+WPI").length;
      server.message(101);
      await server.live(ms - 100);
      assert.equal(said(), 0);
      await server.live(200);
      assert.equal(said(), 1);
      await server.live(ms);
      assert.equal(said(), 2);
      await feed.close();
    }
  });

  test("what waits for a message is told of the end", async () => {
    const server = new PlayedServer();
    const feed = await server.open();
    const told = assert.rejects(feed.next(), /closed/);
    await feed.close();
    await told;
    await settle();
    server.message(101);
    await assert.rejects(feed.next(), /closed/);
  });
});

describe("the reply subject of a message", () => {
  const NS = "1700000000000000000";
  const want = { times: 2, sequence: 17, sequenceText: "17", storedNs: NS, pending: 4 };
  for (
    const reply of [
      `$JS.ACK.S.c.2.17.9.${NS}.4`,
      `$JS.ACK.hub.ACCOUNT.S.c.2.17.9.${NS}.4`,
      `$JS.ACK._.ACCOUNT.S.c.2.17.9.${NS}.4.random`,
    ]
  ) {
    test(reply, () => assert.deepEqual(readDelivery(reply), want));
  }
  for (const reply of ["", "_INBOX.x", `$JS.ACK.S.c.2.17.9.${NS}`, `$JS.ACK.S.c.x.17.9.${NS}.4`]) {
    test(`none: ${JSON.stringify(reply)}`, () => assert.equal(readDelivery(reply), null));
  }
});
