/**
 * What is Kafka's own: every way in and the words for what is wrong with it, codecs, tombstones and headers,
 * transactions, both protocols with members that come and go, exit channels, and what `shishi check` says. Ways in, codecs
 * and connections are tried on both runtimes; what the broker says, and what is made of it, on one.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Producer } from "@platformatic/kafka";
import type { Feed, KafkaSource, Message } from "../../src/contracts.ts";
import type { Finding } from "../../src/kernel/finding.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { openKafka } from "../../src/sources/kafka.ts";
import { openKafkaExit } from "../../src/sources/kafka_exit.ts";
import { CERTIFICATE, RENEWED_CERTIFICATE } from "../kit/certificate.ts";
import { EDGE } from "../kit/client_certificate.ts";
import { testOnce } from "../kit/once.ts";
import { type Kafka, startKafka } from "../kit/servers.ts";
import { ON_BUN } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { joinKafka, kafkaAddress, kafkaDeps, makeGroups, type Others } from "./kafka_kit.ts";

let kafka: Kafka;
let others: Others;
let dir: string;
let ca: string;
let file: (name: string, text: string) => string;

let firstLook: readonly Finding[];

before(async () => {
  dir = tempDir("kafka-files");
  file = (name, text) => {
    writeFileSync(join(dir, name), text);
    return join(dir, name);
  };
  ca = file("ca.pem", CERTIFICATE);
  kafka = await startKafka();
  others = joinKafka(kafka);
  // Before any other group asks for a place.
  await others.makeTopic("unasked", 1);
  firstLook = await openKafka(kafkaAddress(kafka.port, { topics: ["unasked"] }), kafkaDeps())
    .inspect();
  await makeGroups(others);
});

after(async () => {
  await others?.close();
  await kafka?.close();
  removeDir(dir);
});

const never = new AbortController().signal;

function connect(topic: string, more: Partial<KafkaSource> = {}, port = kafka.port): Promise<Feed> {
  const address = kafkaAddress(port, { topics: [topic], group: topic, member: "off", ...more });
  return openKafka(address, kafkaDeps()).connect(never);
}

/** So many messages of a feed, acknowledged. */
async function take(feed: Feed, count: number): Promise<Message[]> {
  const taken: Message[] = [];
  while (taken.length < count) taken.push(...await feed.next());
  await feed.acknowledge([...new Map(taken.map((one) => [one.partition, one])).values()]);
  return taken;
}

const textOf = ({ body }: Message) => new TextDecoder().decode(body);

/** A token as the test's broker takes it: signed by nobody. */
function token(forMs: number): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Date.now() / 1000;
  const claims = { sub: "shishi", iat: now - 10, exp: now + forMs / 1000 };
  return `${part({ alg: "none" })}.${part(claims)}.`;
}

describe("ways in", () => {
  before(async () => {
    await others.makeTopic("ways", 1);
    await others.publish("ways", ['{"n":1}']);
  });

  const login = (): Partial<KafkaSource> => ({
    tls: true,
    ca,
    user: kafka.user.name,
    password: { text: kafka.user.password },
  });
  const withCertificate = (): Partial<KafkaSource> => ({
    tls: true,
    ca,
    cert: file("client.pem", EDGE.cert),
    key: file("client.key", EDGE.key),
  });
  const ways: [string, () => [Partial<KafkaSource>, number]][] = [
    ["SCRAM-SHA-512", () => [{ ...login(), sasl: "scram-sha-512" }, kafka.saslPort]],
    ["SCRAM-SHA-256, password in a file", () => [{
      ...login(),
      sasl: "scram-sha-256",
      password: { file: file("password", `${kafka.user.password}\n`) },
    }, kafka.saslPort]],
    ["PLAIN over TLS", () => [{ ...login(), sasl: "plain" }, kafka.saslPort]],
    ["a client's certificate", () => [withCertificate(), kafka.tlsPort]],
    ["OAUTHBEARER", () => [
      { sasl: "oauthbearer", token: { file: file("token", token(60_000)) } },
      kafka.oauthPort,
    ]],
  ];
  for (const [name, way] of ways) {
    test(`${name}: reads`, async () => {
      const [more, port] = way();
      const feed = await connect("ways", { ...more, group: name.replaceAll(/\W/g, "-") }, port);
      try {
        assert.deepEqual((await take(feed, 1)).map(textOf), ['{"n":1}']);
      } finally {
        await feed.close();
      }
      const address = kafkaAddress(port, { topics: ["ways"], ...more });
      const found = await openKafka(address, kafkaDeps()).inspect();
      assert.deepEqual(found.map(({ state }) => state), ["ok"], JSON.stringify(found));
    });
  }

  const wrong: [string, () => [Partial<KafkaSource>, number], RegExp][] = [
    ["a wrong password", () => [
      { ...login(), sasl: "scram-sha-512", password: { text: "secret" } },
      kafka.saslPort,
    ], /^login refused \(scram-sha-512\): wrong user or password$/],
    ["a mechanism that is not offered", () => [
      { sasl: "plain", user: "shishi", password: { text: "geheim" } },
      kafka.oauthPort,
    ], /^the broker does not take this sasl= mechanism$/],
    ["an old token", () => [
      { sasl: "oauthbearer", token: { file: file("old", token(-60_000)) } },
      kafka.oauthPort,
    ], /^login refused \(oauthbearer\): the broker refuses the token: invalid_token$/],
    ["no login", () => [{ tls: true, ca }, kafka.saslPort], /may want a login .* or a certificate/],
    [
      "no certificate",
      () => [{ tls: true, ca }, kafka.tlsPort],
      /may want a login .* or a certifi/,
    ],
    ["another authority", () => [
      { ...login(), sasl: "plain", ca: file("other.pem", RENEWED_CERTIFICATE) },
      kafka.saslPort,
    ], /^the server's certificate is by an authority that is not trusted; ca= names/],
    ["no TLS where there is some", () => [{}, kafka.saslPort], /^the broker wants TLS/],
    ["TLS where there is none", () => [{ tls: true, ca }, kafka.port], /^the broker takes no TLS/],
    ["no such topic", () => [{ topics: ["nowhere"] }, kafka.port], /^there is no topic nowhere$/],
    ["nobody there", () => [{}, 1], /^connection refused$/],
  ];
  for (const [name, way, sentence] of wrong) {
    test(`${name}: says so, and so does check`, async () => {
      const [more, port] = way();
      const problem = await connect("ways", more, port).then(
        (feed) => feed.close().then(() => "it connects"),
        (error: Error) => error.message,
      );
      assert.match(problem, sentence);
      assert.doesNotMatch(problem, /geheim|secret/);
      const address = kafkaAddress(port, { topics: ["ways"], ...more });
      const found = await openKafka(address, kafkaDeps()).inspect();
      assert.ok(found.some(({ state }) => state === "wrong"), JSON.stringify(found));
      assert.doesNotMatch(JSON.stringify(found), /"secret/);
    });
  }

  test("a file that cannot be read is named", async () => {
    const more = { tls: true, ca: join(dir, "missing.pem") };
    await assert.rejects(connect("ways", more, kafka.saslPort), /missing\.pem/);
  });

  test("a token is renewed before its time is over, on the same connection", async () => {
    await others.makeTopic("renewed", 1);
    const path = file("renewed", token(2_500));
    const more = { sasl: "oauthbearer", token: { file: path } } as const;
    const feed = await connect("renewed", more, kafka.oauthPort);
    try {
      file("renewed", token(60_000));
      await others.publish("renewed", ['{"n":1}']);
      await take(feed, 1);
      await new Promise((resolve) => setTimeout(resolve, 3_500));
      await others.publish("renewed", ['{"n":2}']);
      assert.deepEqual((await take(feed, 1)).map(textOf), ['{"n":2}']);
    } finally {
      await feed.close();
    }
  });
});

for (const codec of ["gzip", "snappy", "lz4", "zstd"]) {
  test(`${codec}: unpacked, byte for byte`, async () => {
    const topic = `codec-${codec}`;
    // The broker packs what it is sent plain, with Kafka's own code.
    await others.makeTopic(topic, 1, { "compression.type": codec });
    const bytes = Uint8Array.from({ length: 3000 }, (_, at) => (at * 7 + (at >> 8)) & 0xff);
    const bodies = [...Array.from({ length: 200 }, (_, n) => JSON.stringify({ n })), bytes];
    await others.publish(topic, bodies);
    const feed = await connect(topic);
    try {
      const taken = await take(feed, 201);
      assert.deepEqual(taken.slice(0, 200).map(textOf), bodies.slice(0, 200));
      assert.deepEqual(new Uint8Array(taken[200]!.body), bytes);
    } finally {
      await feed.close();
    }
  });
}

for (const codec of ["gzip", "zstd"] as const) {
  test(`${codec}: a batch that would fill the memory is not unpacked, and that is said`, async () => {
    const topic = `bomb-${codec}`;
    await others.makeTopic(topic, 1);
    const value = Buffer.alloc(66 * 1024 * 1024);
    const messages = [{ topic, value, partition: 0 }];
    await others.producer.send({ messages, acks: -1, compression: codec });
    const feed = await connect(topic);
    try {
      await assert.rejects(feed.next(), /unpacks to more than 64 MiB/);
    } finally {
      await feed.close();
    }
  });
}

test("key, headers and time of a message; a tombstone is empty", async () => {
  await others.makeTopic("meta", 1);
  const value = Buffer.from('{"n":1}');
  const key = Buffer.from("k1");
  const headers = new Map([["trace", "a"], ["Content-Encoding", "gzip"], ["bytes", "\xff"]]
    .map(([name = "", text = ""]) => [Buffer.from(name), Buffer.from(text, "latin1")]));
  headers.set(Buffer.from("trace"), Buffer.from("b"));
  const timestamp = 1_764_500_000_123n;
  await others.producer.send({
    messages: [{ topic: "meta", key, value, headers, timestamp, partition: 0 }],
    acks: -1,
  });
  await others.publish("meta", [null]);
  const feed = await connect("meta");
  try {
    const [first, tombstone] = await take(feed, 2) as [Message, Message];
    const names = ["_topic", "_partition", "_offset", "_key", "_timestamp", "_headers", "_other"];
    assert.deepEqual(names.map((name) => first.meta(name)), [
      "meta",
      0,
      0,
      "k1",
      Number(timestamp),
      { "trace": "a, b", "Content-Encoding": "gzip", "bytes": "/w==" },
      null,
    ]);
    assert.equal(first.encoding, "gzip");
    assert.equal(first.position, "0");
    assert.equal(first.address, "kafka:meta/0@0");
    assert.equal(tombstone.body.length, 0);
    assert.equal(tombstone.meta("_key"), null);
    assert.equal(tombstone.encoding, undefined);
  } finally {
    await feed.close();
  }
});

testOnce("what a transaction has aborted is not read, however long it was", async () => {
  await others.makeTopic("tx", 1);
  const producer = new Producer({
    clientId: "tx",
    bootstrapBrokers: [`127.0.0.1:${kafka.port}`],
    transactionalId: "tx",
    idempotent: true,
    retries: 20,
    retryDelay: 100,
  });
  const transaction = async (bodies: string[], end: "commit" | "abort") => {
    const begun = await producer.beginTransaction();
    for (const body of bodies) {
      const messages = [{ topic: "tx", value: Buffer.from(body), partition: 0 }];
      await begun.send({ messages, acks: -1 });
    }
    await begun[end]();
  };
  // Its end is in another answer than its beginning.
  const large = Array.from({ length: 4 }, () => JSON.stringify({ aborted: "x".repeat(700_000) }));
  try {
    await transaction(['{"n":1}'], "commit");
    await transaction(large, "abort");
    await transaction(['{"n":2}'], "commit");
    await transaction(['{"aborted":1}'], "abort");
    await transaction(['{"n":3}'], "commit");
  } finally {
    await producer.close();
  }
  const feed = await connect("tx");
  try {
    const taken = await take(feed, 3);
    assert.deepEqual(taken.map(textOf), ['{"n":1}', '{"n":2}', '{"n":3}']);
    await eventually(() => assert.ok((feed.lag() ?? 9) <= 1, `${feed.lag()}`), { withinMs: 5000 });
  } finally {
    await feed.close();
  }
});

testOnce(
  "from=latest: what came before is not read, and what comes during a restart is",
  async () => {
    await others.makeTopic("late", 1);
    await others.publish("late", ['{"n":1}']);
    const first = await connect("late", { from: "latest" });
    // Known at once, though nothing was read.
    await eventually(async () => assert.equal(await others.unread("late", "late"), 0), {
      withinMs: 10_000,
    });
    await first.close();
    await others.publish("late", ['{"n":2}']);
    const second = await connect("late", { from: "latest" });
    try {
      assert.deepEqual((await take(second, 1)).map(textOf), ['{"n":2}']);
    } finally {
      await second.close();
    }
  },
);

testOnce("never gives more than prefetch says, and commits in time for more", async () => {
  await others.makeTopic("ahead", 2);
  await others.publish("ahead", Array.from({ length: 100 }, (_, n) => `{"n":${n}}`));
  const feed = await connect("ahead", { prefetch: 10 });
  try {
    const given: Message[] = [];
    while (given.length < 10) given.push(...await feed.next());
    assert.equal(given.length, 10);
    const more = feed.next();
    const which = await Promise.race([
      more.then(() => "more"),
      new Promise((resolve) => setTimeout(() => resolve("none"), 500)),
    ]);
    assert.equal(which, "none");
    // One of a partition stands for those before it.
    const newest = [...new Map(given.map((one) => [one.partition, one])).values()];
    await feed.acknowledge(newest);
    assert.ok((await more).length <= 10);
    assert.equal(await others.unread("ahead", "ahead"), 90);
  } finally {
    await feed.close();
  }
});

/** How partitions are shared does not depend on the runtime: one of them tries it. */
const PROTOCOLS = ON_BUN ? ["classic", "consumer"] as const : [];

/** A member that reads and acknowledges as the loop of a source does. */
class Member {
  readonly seen: string[] = [];
  error = "";
  #stopped = false;
  #newest = new Map<string, Message>();
  #acknowledging: Promise<void> | null = null;

  constructor(readonly feed: Feed) {
    void this.#read().catch((error) => this.error ||= (error as Error).message);
  }

  async #read(): Promise<void> {
    while (true) {
      const messages = await this.feed.next();
      if (this.#stopped) return;
      this.seen.push(...messages.map(textOf));
      for (const message of messages) this.#newest.set(message.partition, message);
      this.#acknowledging ??= this.#acknowledge().finally(() => this.#acknowledging = null);
    }
  }

  async #acknowledge(): Promise<void> {
    try {
      while (this.#newest.size > 0) {
        const newest = [...this.#newest.values()];
        this.#newest.clear();
        await this.feed.acknowledge(newest);
      }
    } catch (error) {
      this.error ||= (error as Error).message;
    }
  }

  async leave(): Promise<void> {
    this.#stopped = true;
    await this.#acknowledging;
    await this.feed.close();
  }
}

for (const protocol of PROTOCOLS) {
  test(`${protocol}: five members come and go under load, and nothing is missing or twice`, async () => {
    const topic = `crowd-${protocol}`;
    await others.makeTopic(topic, 6);
    let published = 0;
    let loading = true;
    const load = (async () => {
      while (loading) {
        const bodies = Array.from({ length: 20 }, () => `{"n":${published++}}`);
        await others.publish(topic, bodies);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    })();
    const members: Member[] = [];
    const join = async () => {
      // A short session: members hear of each other in their heartbeats.
      const member = new Member(await connect(topic, { protocol, sessionMs: 3_000 }));
      members.push(member);
      return member;
    };
    try {
      const [first] = await Promise.all([join(), join()]);
      await join();
      await first!.leave();
      await Promise.all([join(), members[1]!.leave()]);
      await join();
      const reading = () => members.slice(2).filter(({ seen }) => seen.length > 0).length;
      await eventually(() => assert.equal(reading(), 3), { withinMs: 20_000 });
    } finally {
      loading = false;
      await load;
    }
    const seen = () => members.flatMap(({ seen }) => seen);
    try {
      await eventually(() => assert.equal(new Set(seen()).size, published), { withinMs: 20_000 });
      await eventually(async () => assert.equal(await others.unread(topic, topic), 0), {
        withinMs: 10_000,
      });
      const left = members.slice(2);
      assert.deepEqual(left.map(({ error }) => error), ["", "", ""]);
      assert.equal(seen().length, published, "some came twice");
    } finally {
      await Promise.all(members.map((member) => member.leave()));
    }
  });

  test(`${protocol}: a member with a name takes up at once where a killed one was`, async () => {
    const topic = `named-${protocol}`;
    await others.makeTopic(topic, 2);
    await others.publish(topic, ['{"n":1}', '{"n":2}']);
    const more = { protocol, member: "edge.1" } as const;
    const killed = await connect(topic, more);
    await killed.next();
    const beganMs = performance.now();
    const next = await connect(topic, more);
    try {
      assert.deepEqual((await take(next, 2)).map(textOf).sort(), ['{"n":1}', '{"n":2}']);
      // Without a name its partitions would wait for the end of the session.
      assert.ok(performance.now() - beganMs < 6_000);
    } finally {
      await next.close();
      await killed.close();
    }
  });
}

test("what answers with nonsense ends nothing but its own connection", async () => {
  const answers: ((request: Buffer) => Buffer)[] = [
    // Of no request that was made.
    () => Buffer.from([0, 0, 0, 8, 9, 9, 9, 9, 1, 2, 3, 4]),
    // Of this one, and not a word of it is true.
    (request) =>
      Buffer.concat([Buffer.from([0, 0, 0, 40]), request.subarray(8, 12), Buffer.alloc(36, 0xff)]),
    (request) =>
      Buffer.concat([Buffer.from([0, 0, 0, 6]), request.subarray(8, 12), Buffer.alloc(2)]),
    () => Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"),
  ];
  for (const answer of answers) {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.on("data", (request) => {
        socket.write(answer(request));
        if (answer === answers.at(-1)) socket.end();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await assert.rejects(connect("t", {}, port));
    await new Promise((resolve) => server.close(resolve));
  }
});

test("what the client throws where nobody waits is logged; what others throw so ends the process", () => {
  const script = fileURLToPath(new URL("./kafka_stray.ts", import.meta.url));
  const run = (program: string) => {
    const before = ON_BUN ? [] : ["run", "-A", "-q"];
    const runs = [[], ["own"]].map((args) =>
      spawnSync(process.execPath, [...before, program, ...args], { encoding: "utf8" })
    );
    for (const { stdout, stderr } of runs) {
      assert.equal(stdout, "logged: kafka: the client has failed\nalive\n", stderr);
    }
    assert.deepEqual(runs.map(({ status }) => status), [0, 1]);
  };
  run(script);
  // Bundles are for Deno.
  if (ON_BUN) return;
  const bundle = join(dir, "stray.js");
  const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
  const made = spawnSync(
    path("node_modules/.bin/bun"),
    [path(".release/bundle.ts"), script, bundle],
    { encoding: "utf8" },
  );
  assert.equal(made.status, 0, made.stderr);
  run(bundle);
});

testOnce(
  "consumer: a member that leaves at any point of its way in leaves nothing behind",
  async () => {
    await others.makeTopic("brief", 2);
    for (let waitMs = 0; waitMs < 60; waitMs += 2) {
      const address = kafkaAddress(kafka.port, {
        topics: ["brief"],
        group: "brief",
        protocol: "consumer",
      });
      const ending = new AbortController();
      const joining = openKafka(address, kafkaDeps()).connect(ending.signal);
      joining.catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      ending.abort();
      await joining.then((feed) => feed.close(), () => {});
    }
  },
);

if (PROTOCOLS.length > 0) {
  test("partitions that are added to a topic are read, by all members", async () => {
    await others.makeTopic("grown", 1);
    const { after } = systemClock;
    // What is looked at twice a minute is looked at often.
    const clock = {
      ...systemClock,
      after: (ms: number, task: () => void) => after(ms > 20_000 ? 200 : ms, task),
    };
    const address = kafkaAddress(kafka.port, {
      topics: ["grown"],
      group: "grown",
      member: "off",
      sessionMs: 3_000,
    });
    const join = async () =>
      new Member(await openKafka(address, kafkaDeps({ clock })).connect(never));
    const members = [await join(), await join()];
    try {
      await others.addPartitions("grown", 4);
      await eventually(async () => {
        await others.publish("grown", ['{"n":1}', '{"n":2}', '{"n":3}', '{"n":4}']);
        assert.ok(members.every(({ seen }) => seen.length > 0));
      }, { withinMs: 20_000, everyMs: 200 });
      await eventually(async () => assert.equal(await others.unread("grown", "grown"), 0), {
        withinMs: 10_000,
      });
    } finally {
      await Promise.all(members.map((member) => member.leave()));
    }
  });
}

testOnce("a topic that is made anew begins at 0, under another name for marks", async () => {
  await others.makeTopic("anew", 1);
  await others.publish("anew", ['{"n":1}']);
  const before = await connect("anew");
  const [old] = await take(before, 1);
  await before.close();
  await others.deleteTopic("anew");
  await eventually(() => others.makeTopic("anew", 1), { withinMs: 10_000 });
  await others.publish("anew", ['{"n":2}']);
  const after = await connect("anew");
  try {
    const [fresh] = await take(after, 1);
    assert.equal(fresh!.position, old!.position);
    assert.notEqual(fresh!.partition, old!.partition);
  } finally {
    await after.close();
  }
});

describe("exit channels", () => {
  const open = () => {
    const { topics: [topic = ""], ...address } = kafkaAddress(kafka.port, { topics: ["exit"] });
    return openKafkaExit({ ...address, broker: "kafka", topic, name: "kafka:exit" }, kafkaDeps());
  };
  before(() => others.makeTopic("exit", 2));

  test("what was sent before counts for nobody, what comes counts for all", async () => {
    const channel = open();
    await channel.send("of yesterday", never);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const sinceMs = Date.now();
    const feeds = [await channel.connect(sinceMs, never), await channel.connect(sinceMs, never)];
    try {
      await channel.send("Exit", never);
      assert.deepEqual(await Promise.all(feeds.map((feed) => feed.next())), ["Exit", "Exit"]);
    } finally {
      await Promise.all(feeds.map((feed) => feed.close()));
    }
    // Sent while the connection was away: it counts, since it came after the start.
    const again = await channel.connect(sinceMs, never);
    try {
      assert.equal(await again.next(), "Exit");
      const next = assert.rejects(again.next(), /closed/);
      await again.close();
      await next;
    } finally {
      await again.close();
    }
  });

  test("what is wrong is said", async () => {
    const address = kafkaAddress(1);
    const channel = openKafkaExit({ ...address, broker: "kafka", topic: "exit" }, kafkaDeps());
    await assert.rejects(channel.connect(Date.now(), never), /^Error: connection refused$/);
    await assert.rejects(channel.send("Exit", never), /^Error: connection refused$/);
  });
});

testOnce("check waits until a new broker has a place for groups", () => {
  assert.deepEqual(firstLook.map(({ state, text }) => `${state}: ${text}`), [
    "ok: topic unasked: 1 partition, group shishi has read nothing yet and begins at earliest, " +
    "0 messages wait",
  ]);
});

testOnce("check says where the group is, and what it has lost", async () => {
  await others.makeTopic("checked", 2, { "retention.ms": "-1" });
  await others.publish("checked", ['{"n":1}', '{"n":2}', '{"n":3}']);
  const inspect = () =>
    openKafka(kafkaAddress(kafka.port, { topics: ["checked"], group: "checked" }), kafkaDeps())
      .inspect();
  const said = async () => (await inspect()).map(({ state, text }) => `${state}: ${text}`);
  assert.deepEqual(await said(), [
    "ok: topic checked: 2 partitions, group checked has read nothing yet and begins at earliest, " +
    "3 messages wait",
  ]);
  const feed = await connect("checked");
  await take(feed, 3);
  await feed.close();
  await others.publish("checked", ['{"n":4}']);
  assert.deepEqual(await said(), [
    "ok: topic checked: 2 partitions, group checked is known in all, 1 message waits",
  ]);
});
