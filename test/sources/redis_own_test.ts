/**
 * What Redis alone has: lists of collectors that are gone, pending entries, old versions, rights, replicas, clusters.
 * Runs once: it is about what Redis does, and the connection is what `redis_test.ts` and
 * `redis_faults_test.ts` have on both runtimes.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Feed, Message } from "../../src/contracts.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { openRedis } from "../../src/sources/redis.ts";
import { listNames } from "../../src/sources/redis_list.ts";
import { freePort } from "../kit/free_port.ts";
import { eventually, pause } from "../kit/wait.ts";
import { type Redis, startOldRedis, startRedis } from "../servers/redis.ts";
import { connections, redisDeps, redisSource, take, texts } from "./redis_kit.ts";

/** What is read with it, and where, for an administrator; docs/sources.md has the same. */
const RIGHTS = {
  list: "~jobs ~{jobs}:shishi* +llen +lrange +lmove +blmove +lrem +set +del +exists +sadd +srem " +
    "+smembers",
  stream: "~clicks +xreadgroup +xack +xautoclaim +xclaim +xgroup|create +xinfo|groups +xdel",
  channel: "&news +subscribe",
};
/** Of the list's user, and what makes it faster. */
const WITH_SCRIPTS = `${RIGHTS.list} +eval`;
/** Every connection asks so much. */
const LOGIN_RIGHTS = "+ping +select +client|setname";

let redis: Redis;
/** 6.2, and 6.2 without what is new in it. */
let before7: Redis;
let old: Redis;
const { connect, closeAll } = connections();

before(async () => {
  const names = ["LMOVE", "BLMOVE", "XAUTOCLAIM"];
  [redis, before7, old] = await Promise.all([
    startRedis(
      Object.entries({ ...RIGHTS, scripts: WITH_SCRIPTS }).map(([what, rights]) =>
        `user ${what} on >geheim resetchannels -@all ${LOGIN_RIGHTS} ${rights}`
      ).join("\n"),
    ),
    startOldRedis(),
    startOldRedis(names.map((name) => `rename-command ${name} ""`).join("\n")),
  ]);
});

after(async () => {
  await closeAll();
  await Promise.all([redis, before7, old].map((server) => server.close()));
});

function feedOf(query: string, { member = "g.a", server = redis, over = {} } = {}): Promise<Feed> {
  return connect(openRedis(redisSource(`${server.url}?${query}`), redisDeps(member, {}, over)));
}

/** A feed that dies without a word, as far as Redis can tell: what it was to say at the end is not said. */
async function drop(server: Redis, feed: Feed): Promise<void> {
  await server.call("CLIENT", "KILL", "TYPE", "normal");
  await feed.close();
}

const VERSIONS: [name: string, server: () => Redis][] = [
  ["", () => redis],
  ["Redis 6.2: ", () => before7],
  ["Redis < 6.2: ", () => old],
];

// ── Lists.

test("list: names stay in one place of a cluster, and braces of a key count", () => {
  assert.deepEqual(listNames("flights", "shishi.x", null), {
    all: "{flights}:shishi",
    own: "{flights}:shishi:shishi.x",
  });
  assert.equal(listNames("a{b}c", "m", null).own, "a{b}c:shishi:m");
  assert.equal(listNames("a{}c", "m", null).own, "{a{}c}:shishi:m");
  assert.equal(listNames("flights", "m", "mine").own, "mine");
});

for (const [name, server] of VERSIONS) {
  test(`list: ${name}what was taken comes first, the oldest first, then what came since`, async () => {
    await server().call("LPUSH", "again", "1", "2", "3");
    const held: Message[] = [];
    const first = await feedOf("list=again&prefetch=2", { server: server() });
    assert.deepEqual(await take(first, 2, held), ["1", "2"]);
    await drop(server(), first);
    await server().call("LPUSH", "again", "4");
    const second = await feedOf("list=again&prefetch=2", { server: server() });
    assert.deepEqual(await take(second, 4), ["1", "2", "3", "4"]);
    assert.equal(await server().call("LLEN", "again"), 0);
    assert.equal(await server().call("LLEN", "{again}:shishi:g.a"), 0);
  });
}

test("list: what a collector left that is gone is taken over, and what a living one has is not", async () => {
  await redis.call("LPUSH", "left", "1", "2", "3", "4");
  const living = await feedOf("list=left&prefetch=2", { member: "g.living" });
  assert.deepEqual(await take(living, 2, []), ["1", "2"]);
  const gone = await feedOf("list=left&prefetch=2", { member: "g.gone" });
  assert.deepEqual(await take(gone, 2, []), ["3", "4"]);
  await gone.close();
  const heir = await feedOf("list=left", { member: "g.heir" });
  assert.deepEqual(await take(heir, 2), ["3", "4"]);
  await redis.call("LPUSH", "left", "5");
  assert.deepEqual(await take(heir, 1), ["5"]);
  assert.equal(await redis.call("LLEN", "{left}:shishi:g.living"), 2);
});

test("list: what is left is looked for again and again, and empty lists are forgotten", async () => {
  // Half minutes of half a second.
  const clock = {
    ...systemClock,
    after: (ms: number, task: () => void) => systemClock.after(ms / 60, task),
  };
  const feed = await feedOf("list=swept", { member: "g.here", over: { clock } });
  const next = take(feed, 2);
  await redis.call("SADD", "{swept}:shishi", "{swept}:shishi:g.gone");
  await redis.call("LPUSH", "{swept}:shishi:g.gone", "1", "2");
  assert.deepEqual(await next, ["1", "2"]);
  const more = take(feed, 1);
  await eventually(
    async () =>
      assert.deepEqual(await redis.call("SMEMBERS", "{swept}:shishi"), ["{swept}:shishi:g.here"]),
    { withinMs: 10_000 },
  );
  await redis.call("LPUSH", "swept", "3");
  assert.deepEqual(await more, ["3"]);
});

test("list: what a late command of an earlier connection moves is not removed unread", async () => {
  await redis.call("LPUSH", "late", "1");
  const clock = {
    ...systemClock,
    after: (ms: number, task: () => void) => systemClock.after(ms / 60, task),
  };
  const feed = await feedOf("list=late", { over: { clock } });
  const held: Message[] = [];
  assert.deepEqual(await take(feed, 1, held), ["1"]);
  // It lies in front of what is read next, and behind what was read before.
  await redis.call("RPUSH", "{late}:shishi:g.a", "stray");
  await redis.call("LPUSH", "late", "2");
  assert.deepEqual(await take(feed, 1, held), ["2"]);
  await feed.acknowledge([held[1]!]);
  assert.deepEqual(await redis.call("LRANGE", "{late}:shishi:g.a", 0, -1), ["stray"]);
  assert.deepEqual(await take(feed, 1), ["stray"]);
  assert.equal(await redis.call("LLEN", "{late}:shishi:g.a"), 0);
});

for (const what of ["list", "stream"]) {
  test(`${what}: two collectors of one id share it, and what each holds is its own`, async () => {
    const key = `twins-${what}`;
    // Half minutes of half a second.
    const clock = {
      ...systemClock,
      after: (ms: number, task: () => void) => systemClock.after(ms / 60, task),
    };
    const put = (n: string) =>
      what === "list" ? redis.call("LPUSH", key, n) : redis.call("XADD", key, "*", "data", n);
    const open = (folder: string) =>
      feedOf(`${what}=${key}&prefetch=2`, { over: { folder, clock } });
    for (const n of "1234") await put(n);
    const held: Message[] = [];
    const one = await open("a");
    const first = await take(one, 2, held);
    const other = await open("b");
    const kept: Message[] = [];
    assert.deepEqual([...first, ...await take(other, 2, kept)].toSorted(), [..."1234"]);
    // What each holds is looked for by neither, however often they look.
    const asked = [one.next(), other.next()];
    await pause(1_500);
    await other.acknowledge([kept[1]!]);
    await put("5");
    assert.deepEqual(texts(await asked[1]!), ["5"]);
    // Another process on the same folder begins with what this one held.
    const lost = assert.rejects(asked[0]!);
    await redis.call("CLIENT", "KILL", "TYPE", "normal");
    await lost;
    await Promise.all([one, other].map((feed) => feed.close()));
    assert.deepEqual(await take(await open("a"), 2, []), first);
  });
}

test("list: pop=left reads what RPUSH pushes in its order", async () => {
  await redis.call("RPUSH", "pushed", ..."123456789".split(""));
  const feed = await feedOf("list=pushed&pop=left&prefetch=4");
  assert.deepEqual(await take(feed, 9), "123456789".split(""));
  await assert.rejects(
    (await feedOf("list=pushed&pop=left", { server: old })).next(),
    /pop=left needs Redis 6\.2/,
  );
});

test("list: its messages have no id, and the key as meta", async () => {
  await redis.call("LPUSH", "meta", "{}");
  const feed = await feedOf("list=meta");
  const [message] = await feed.next();
  assert.equal(message?.id, undefined);
  assert.equal(message?.position, undefined);
  assert.equal(message?.address, "redis:meta");
  assert.deepEqual([message?.meta("_key"), message?.meta("_id")], ["meta", null]);
});

for (const user of ["list", "scripts"]) {
  test(`list: the user ${user} takes many in one go, and equal ones leave one by one`, async () => {
    await redis.call("DEL", "jobs", "{jobs}:shishi:g.a");
    await redis.call("CONFIG", "RESETSTAT");
    const url = `redis://${user}:geheim@127.0.0.1:${redis.port}/?list=jobs&prefetch=10`;
    const feed = await connect(openRedis(redisSource(url), redisDeps()));
    await redis.call("LPUSH", "jobs", "a", "a", "b", "a", "a");
    const held: Message[] = [];
    assert.deepEqual(await take(feed, 5, held), ["a", "a", "b", "a", "a"]);
    const left = () => redis.call("LRANGE", "{jobs}:shishi:g.a", 0, -1);
    assert.deepEqual(await left(), ["a", "a", "b", "a", "a"]);
    await feed.acknowledge([held[1]!]);
    assert.deepEqual(await left(), ["a", "a", "b"]);
    await feed.acknowledge([held[4]!]);
    assert.deepEqual(await left(), []);
    const calls = String(await redis.call("INFO", "commandstats"));
    const [, ran] = /^cmdstat_eval:calls=(\d+)/m.exec(calls) ?? [];
    assert.notEqual(ran, undefined, "a script is tried");
    assert.equal(ran === "0", user === "list", "and refused where the user may run none");
    await feed.close();
  });
}

test("list: where there is more, it is read ahead within prefetch, and comes first when that was for nothing", async () => {
  const all = Array.from({ length: 2_000 }, (_, n) => String(n));
  await redis.call("LPUSH", "ahead", ...all);
  const first = await feedOf("list=ahead&prefetch=1000");
  // One that was waited for, and a whole read.
  const given = [...await first.next(), ...await first.next()];
  const held = async () => Number(await redis.call("LLEN", "{ahead}:shishi:g.a"));
  await eventually(async () => assert.equal(await held() > given.length, true), {
    withinMs: 5_000,
  });
  while (given.length < 1_000) given.push(...await first.next());
  const more = first.next().then(texts, () => []);
  await first.close();
  assert.deepEqual(await more, []);
  assert.equal(await held(), 1_000);
  const second = await feedOf("list=ahead&prefetch=1000");
  assert.deepEqual(await take(second, 2_000), all);
});

test("list: large messages behind small ones are not read all in one go", async () => {
  const large = new Uint8Array(1024 * 1024);
  await redis.call("LPUSH", "sizes", ...Array.from({ length: 40 }, () => "small"));
  await redis.call("LPUSH", "sizes", ...Array.from({ length: 12 }, () => large));
  const feed = await feedOf("list=sizes");
  for (let left = 52; left > 0;) {
    const messages = await feed.next();
    left -= messages.length;
    const many = messages.filter(({ body }) => body.length === large.length);
    assert.equal(many.length <= 4, true, `${many.length} MiB in one go`);
  }
});

// ── Streams.

test("stream: one that is missing is not made; from=new has it from its first entry", async () => {
  const broker = openRedis(
    redisSource(`${redis.url}?stream=later&from=new`),
    redisDeps(),
  );
  await assert.rejects(connect(broker), /there is no stream later yet/);
  assert.equal(await redis.call("EXISTS", "later"), 0);
  await redis.call("XADD", "later", "*", "data", "1");
  assert.deepEqual(await take(await connect(broker), 1), ["1"]);
});

test("stream: from=new leaves out what was there, from=first does not", async () => {
  await redis.call("XADD", "from", "*", "data", "1");
  const fresh = await feedOf("stream=from&group=new&from=new");
  const all = await feedOf("stream=from&group=all");
  await redis.call("XADD", "from", "*", "data", "2");
  assert.deepEqual(await take(fresh, 1), ["2"]);
  assert.deepEqual(await take(all, 2), ["1", "2"]);
});

test("stream: what an entry is, and is called", async () => {
  await redis.call("XADD", "entry", "1-1", "other", "x", "data", '{"n":1}');
  await redis.call("XADD", "entry", "1-2", "n", "17", 'q"', "a\nb", "raw", Uint8Array.of(0xff));
  const feed = await feedOf("stream=entry");
  const messages: Message[] = [];
  await take(feed, 2, messages);
  assert.equal(texts(messages)[0], '{"n":1}');
  assert.deepEqual(
    [...messages[1]!.body],
    [...new TextEncoder().encode('{"n":"17","q\\"":"a\\nb","raw":"'), 0xff, 0x22, 0x7d],
  );
  const { id, again, address, partition, position } = messages[1]!;
  assert.deepEqual({ id, again, address, partition, position }, {
    id: "1-2",
    again: false,
    address: "redis:entry@1-2",
    partition: "entry",
    position: undefined,
  });
  assert.deepEqual([messages[0]!.meta("_key"), messages[0]!.meta("_id")], ["entry", "1-1"]);
  const named = await feedOf("stream=entry&group=g2&field=other");
  assert.equal((await take(named, 2))[0], "x");
});

for (const [name, server] of VERSIONS) {
  test(`stream: ${name}own entries first, then those that another has left, then new ones`, async () => {
    for (const n of "123456") await server().call("XADD", "order", "*", "data", n);
    const query = "stream=order&claim=1s&prefetch=2";
    const one = await feedOf(query, { server: server(), member: "g.a" });
    assert.deepEqual(await take(one, 2, []), ["1", "2"]);
    const other = await feedOf(query, { server: server(), member: "g.b" });
    const held: Message[] = [];
    assert.deepEqual(await take(other, 2, held), ["3", "4"]);
    await drop(server(), one);
    await other.close();
    await pause(1_100);
    const next = await feedOf(query, { server: server(), member: "g.b" });
    const messages: Message[] = [];
    while (messages.length < 6) {
      messages.push(...await next.next());
      await next.acknowledge([messages.at(-1)!]);
    }
    assert.deepEqual(texts(messages), ["3", "4", "1", "2", "5", "6"]);
    assert.deepEqual(messages.map(({ again }) => again), [true, true, true, true, false, false]);
    assert.equal(messages[0]!.id, held[0]!.id);
  });

  test(`stream: ${name}entries that were deleted while pending are acknowledged`, async () => {
    const ids: string[] = [];
    for (const n of "1234") {
      ids.push(String(await server().call("XADD", "deleted", "*", "data", n)));
    }
    const connected = (claim: string, member: string) =>
      feedOf(`stream=deleted&claim=${claim}&prefetch=2`, { server: server(), member });
    const one = await connected("1h", "g.a");
    await take(one, 2, []);
    const other = await connected("1h", "g.b");
    await take(other, 2, []);
    await drop(server(), one);
    await other.close();
    await server().call("XDEL", "deleted", ids[0]!, ids[2]!);
    assert.deepEqual(await take(await connected("1h", "g.a"), 1), ["2"]);
    const pending = async () =>
      (await server().call("XPENDING", "deleted", "shishi") as [number])[0];
    assert.equal(await pending(), 2);
    await pause(1_100);
    const heir = await connected("1s", "g.a");
    assert.deepEqual(await take(heir, 1), ["4"]);
    heir.next().catch(() => {});
    await eventually(async () => assert.equal(await pending(), 0), { withinMs: 5_000 });
  });
}

test("stream: what is held for long is not claimed by another member, nor given twice", async () => {
  await redis.call("XADD", "held", "*", "data", "1");
  const one = await feedOf("stream=held&claim=1s", { member: "g.a" });
  const held: Message[] = [];
  await take(one, 1, held);
  const other = await feedOf("stream=held&claim=1s", { member: "g.b" });
  const both = Promise.race([one.next(), other.next()]);
  await pause(3_000);
  await redis.call("XADD", "held", "*", "data", "2");
  assert.deepEqual(texts(await both), ["2"]);
  await one.acknowledge([held[0]!]);
  const [pending] = await redis.call("XPENDING", "held", "shishi") as [number];
  assert.equal(pending, 1);
});

test("stream: trim=true deletes what is acknowledged, and nothing else", async () => {
  for (const n of "123") await redis.call("XADD", "trimmed", "*", "data", n);
  const feed = await feedOf("stream=trimmed&trim=true");
  const held: Message[] = [];
  await take(feed, 3, held);
  await feed.acknowledge([held[1]!]);
  assert.equal(await redis.call("XLEN", "trimmed"), 1);
  const kept = await feedOf("stream=trimmed&group=other");
  assert.deepEqual(await take(kept, 1), ["3"]);
  assert.equal(await redis.call("XLEN", "trimmed"), 1);
});

test("stream: one that is deleted while it is read is a lost connection, and found again", async () => {
  await redis.call("XADD", "gone", "*", "data", "1");
  const broker = openRedis(redisSource(`${redis.url}?stream=gone`), redisDeps());
  const feed = await connect(broker);
  await take(feed, 1);
  const next = feed.next();
  next.catch(() => {});
  await redis.call("DEL", "gone");
  await assert.rejects(next, /the stream or its group is gone/);
  await assert.rejects(connect(broker), /no stream gone yet/);
  await redis.call("XADD", "gone", "*", "data", "2");
  assert.deepEqual(await take(await connect(broker), 1), ["2"]);
});

test("of large messages no more is held than fits, whatever prefetch says", async () => {
  const large = new Uint8Array(1024 * 1024).fill(0x78);
  for (let n = 0; n < 80; n++) {
    await redis.call("XADD", "large", "*", "data", large);
  }
  const feed = await feedOf("stream=large");
  const held: Message[] = [];
  let next = feed.next();
  for (;;) {
    const messages = await Promise.race([next, pause(1_500).then(() => null)]);
    if (messages === null) break;
    held.push(...messages);
    next = feed.next();
  }
  assert.ok(held.length >= 32 && held.length < 64, `${held.length} MiB`);
  await feed.acknowledge([held.at(-1)!]);
  const more = await next;
  assert.ok(more.length > 0 && more.length <= 4, `${more.length} MiB at once`);
  await redis.call("DEL", "large");
});

// ── Channels.

test("channel: what comes is given, and what there is no room for is lost and said", async () => {
  const warned: unknown[] = [];
  const log = { ...redisDeps().log, warn: (...said: unknown[]) => void warned.push(said) };
  // Every loss is said: it comes long after the last one.
  let nowMs = 0;
  const clock = { ...systemClock, monotonicMs: () => nowMs += 60_000 };
  const feed = await feedOf("channel=news&prefetch=3", { over: { log, clock } });
  const haveLost = (count: number) =>
    eventually(() => assert.match(JSON.stringify(warned.at(-1)), new RegExp(`"lost":${count}`)), {
      withinMs: 5_000,
    });
  for (const n of "12345") await redis.call("PUBLISH", "news", n);
  await haveLost(2);
  const held: Message[] = [];
  assert.deepEqual(await take(feed, 3, held), ["1", "2", "3"]);
  await redis.call("PUBLISH", "news", "6");
  await haveLost(3);
  await feed.acknowledge([held[2]!]);
  await redis.call("PUBLISH", "news", "7");
  assert.deepEqual(await take(feed, 1), ["7"]);
  assert.deepEqual([held[0]!.meta("_key"), held[0]!.address], ["news", "redis:news"]);
});

test("channel: a connection that is cut is lost, also while nothing comes", async () => {
  const feed = await feedOf("channel=quiet");
  const next = feed.next();
  next.catch(() => {});
  await redis.call("CLIENT", "KILL", "TYPE", "pubsub");
  await assert.rejects(next, /closed the connection|broken off/);
});

// ── Servers.

test("a user who may do no more than docs/sources.md says can be read as", async () => {
  await redis.call("XADD", "clicks", "*", "data", "1");
  await redis.call("LPUSH", "jobs", "1");
  const url = (what: string, query: string) =>
    redisSource(`redis://${what}:geheim@127.0.0.1:${redis.port}/?${query}`);
  await Promise.all([["list", "list=jobs"], ["stream", "stream=clicks&trim=true"]].map(
    async ([what, query]) => {
      const feed = await connect(openRedis(url(what!, query!), redisDeps()));
      assert.deepEqual(await take(feed, 1), ["1"], what);
      await eventually(() => assert.equal(feed.lag(), 0), { withinMs: 5_000 });
      const other = query!.replace(/=(jobs|clicks)/, "=other");
      await assert.rejects(
        connect(openRedis(url(what!, other), redisDeps())),
        /not permitted: .*(keys|key)/i,
      );
    },
  ));
  // How much waits is no reason to read nothing.
  await redis.call("ACL", "SETUSER", "stream", "-xinfo|groups");
  const clock = {
    ...systemClock,
    after: (ms: number, task: () => void) => systemClock.after(ms / 60, task),
  };
  const blind = await connect(
    openRedis(url("stream", "stream=clicks"), redisDeps("g.b", {}, { clock })),
  );
  await pause(200);
  await redis.call("XADD", "clicks", "*", "data", "2");
  assert.deepEqual(await take(blind, 1), ["2"]);
  assert.equal(blind.lag(), null);
  const feed = await connect(openRedis(url("channel", "channel=news"), redisDeps()));
  await redis.call("PUBLISH", "news", "1");
  assert.deepEqual(await take(feed, 1), ["1"]);
});

test("of several servers the primary is read; a replica alone is refused by name", async () => {
  const replica = await startRedis(`replicaof 127.0.0.1 ${redis.port}`);
  try {
    const both = `127.0.0.1:${replica.port},127.0.0.1:${redis.port}`;
    const feed = await connect(openRedis(redisSource(`redis://${both}?list=several`), redisDeps()));
    await redis.call("LPUSH", "several", "1");
    assert.deepEqual(await take(feed, 1), ["1"]);
    const alone = openRedis(redisSource(`${replica.url}?list=several`), redisDeps());
    await assert.rejects(connect(alone), /a replica, which takes nothing: name the primary/);
    assert.ok(
      (await alone.inspect()).some(({ state, text }) =>
        state === "wrong" && /is a replica/.test(text)
      ),
    );
  } finally {
    await replica.close();
  }
});

test("a node of a cluster that does not have the key says which one has it", async () => {
  const nodes = await Promise.all(
    [freePort(), freePort()].map(async (bus) =>
      await startRedis(`cluster-enabled yes\ncluster-port ${await bus}`)
    ),
  );
  try {
    const [one, other] = nodes as [Redis, Redis];
    await one.call("CLUSTER", "ADDSLOTSRANGE", 0, 8191);
    await other.call("CLUSTER", "ADDSLOTSRANGE", 8192, 16383);
    const bus = String(await other.call("CONFIG", "GET", "cluster-port")).split(",")[1]!;
    await one.call("CLUSTER", "MEET", "127.0.0.1", other.port, bus);
    await eventually(async () => {
      for (const node of nodes) {
        assert.match(String(await node.call("CLUSTER", "INFO")), /cluster_state:ok/);
      }
    }, { withinMs: 20_000 });
    // CRC16 of `foo` is 12182.
    const moved = openRedis(redisSource(`${one.url}?list=foo`), redisDeps());
    await assert.rejects(
      connect(moved),
      new RegExp(`one of a cluster, and 127.0.0.1:${other.port} has`),
    );
    const here = openRedis(redisSource(`${other.url}?list=foo`), redisDeps());
    await other.call("LPUSH", "foo", "1");
    assert.deepEqual(await take(await connect(here), 1), ["1"]);
    assert.ok((await here.inspect()).some(({ text }) => /one of a cluster/.test(text)));
  } finally {
    await Promise.all(nodes.map((node) => node.close()));
  }
});

test("check says what is read and how much waits, and changes nothing", async () => {
  await redis.call("LPUSH", "looked", "1", "2");
  await redis.call("XADD", "seen", "*", "data", "1");
  const inspect = async (query: string) => {
    const broker = openRedis(redisSource(`${redis.url}?${query}`), redisDeps());
    return (await broker.inspect()).map(({ state, text }) => `${state}: ${text}`);
  };
  assert.match(
    (await inspect("list=looked")).join(),
    /^ok: \d+\.[\d.]+, 2 messages wait in the list looked$/,
  );
  assert.match(
    (await inspect("stream=seen")).join(),
    /^ok: .* the group shishi .* is made at the start$/,
  );
  assert.match((await inspect("stream=unseen")).join(), /^warning: .* no stream unseen yet/);
  assert.match((await inspect("channel=c")).join(), /^ok: .* at most once$/);
  assert.deepEqual(await redis.call("XINFO", "GROUPS", "seen"), []);
  assert.equal(await redis.call("EXISTS", "{looked}:shishi", "{looked}:shishi:g.a", "unseen"), 0);
  await redis.call("XGROUP", "CREATE", "seen", "shishi", "0");
  assert.match((await inspect("stream=seen")).join(), /1 entries wait, 0 not acknowledged/);
});

test("check warns of a server that may throw away or lose what it has", async () => {
  const careless = await startRedis(
    "appendonly no\nmaxmemory 100mb\nmaxmemory-policy allkeys-lru",
  );
  try {
    const broker = openRedis(redisSource(`${careless.url}?list=l`), redisDeps());
    const warned = (await broker.inspect()).filter(({ state }) => state === "warning");
    assert.deepEqual(warned.map(({ todo }) => todo), [
      "set it to noeviction",
      "set appendonly yes",
    ]);
  } finally {
    await careless.close();
  }
});
