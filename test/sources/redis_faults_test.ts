/** Redis: certificates, logins, what goes wrong with a connection, and leaving; exit channels. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { inspect } from "node:util";
import { openRedis, openRedisExit } from "../../src/sources/redis.ts";
import { CERTIFICATE } from "../kit/certificate.ts";
import { EDGE, OTHER } from "../kit/client_certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { pause } from "../kit/wait.ts";
import { type Redis, startRedis } from "../servers/redis.ts";
import { connections, redisDeps, redisExit, redisSource, take } from "./redis_kit.ts";

let redis: Redis;
const { connect, closeAll } = connections();

before(async () => {
  redis = await startRedis();
});

after(async () => {
  await closeAll();
  await redis.close();
});

const files = {
  "ca.pem": CERTIFICATE,
  "own.pem": EDGE.cert,
  "own.key": EDGE.key,
  "other.pem": OTHER.cert,
  "other.key": OTHER.key,
  "password": "geheim\n",
};

test("TLS: an authority, a certificate of ours, a password in a file that is read each time", async () => {
  const more = "ca=ca.pem&cert=own.pem&key=own.key&password-file=password&list=tls";
  const url = `rediss://shishi@127.0.0.1:${redis.tlsPort}/2?${more}`;
  const renewed: Record<string, string> = { ...files, password: "falsch" };
  const broker = openRedis(redisSource(url), redisDeps("g.a", renewed));
  await assert.rejects(connect(broker), /refuses user and password/);
  renewed.password = files.password;
  const feed = await connect(broker);
  await redis.call("LPUSH", "tls", "of another database");
  await redis.call("SELECT", 2);
  await redis.call("LPUSH", "tls", "1");
  await redis.call("SELECT", 0);
  assert.deepEqual(await take(feed, 1), ["1"]);
  const trusting = redisDeps("g.a", {}, { authorities: () => [CERTIFICATE] });
  const plain = `rediss://shishi:geheim@localhost:${redis.tlsPort}?list=tls`;
  await connect(openRedis(redisSource(plain), trusting));
});

test("every fault is a sentence that names it, for the loop and for check", async () => {
  const closed = await freePort();
  await redis.call("HSET", "hash", "a", "b");
  const at = (url: string) =>
    url.replace("PORT", String(redis.port)).replace("TLS", String(redis.tlsPort));
  const cases: [url: string, said: RegExp][] = [
    ["redis://x:y@127.0.0.1:PORT?list=l", /refuses user and password/],
    ["redis://:y@127.0.0.1:PORT?list=l", /the server has no password, and one was given/],
    ["redis://127.0.0.1:PORT/99?list=l", /no database of this number/],
    [`redis://127.0.0.1:${closed}?list=l`, /connection refused/],
    ["redis://nowhere.invalid?list=l", /host not found/],
    ["redis://127.0.0.1:TLS?list=l", /rediss:\/\/ instead/],
    ["rediss://127.0.0.1:TLS?list=l", /by an authority that is not trusted/],
    [
      "rediss://127.0.0.1:TLS?list=l&ca=ca.pem&cert=other.pem&key=other.key",
      /refuses the certificate that cert= shows/,
    ],
    ["rediss://127.0.0.1:TLS?list=l&ca=missing.pem", /ca: ENOENT/],
    ["redis://shishi@127.0.0.1:PORT?list=l&password-file=nowhere", /password-file: ENOENT/],
    ["redis://127.0.0.1:PORT?list=hash", /something of another kind|hash is a hash, and no list/],
    [
      "redis://127.0.0.1:PORT?stream=hash",
      /something of another kind|hash is a hash, and no stream/,
    ],
  ];
  for (const [url, said] of cases) {
    const broker = openRedis(redisSource(at(url)), redisDeps("g.a", files));
    await assert.rejects(connect(broker), said, url);
    const [finding] = await broker.inspect();
    assert.equal(finding?.state, "wrong", url);
    assert.match(finding!.text, said, url);
    assert.doesNotMatch(finding!.text, /geheim|:y@/);
    // A server that answers need not be started.
    assert.equal(
      /connection refused|not found/.test(finding!.text),
      /start it/.test(finding!.todo ?? ""),
      url,
    );
  }
});

test("a password that is asked for is named, and so is what is no Redis", async () => {
  const locked = await startRedis("requirepass sesam");
  const web = createServer((_, response) => void response.end("no Redis"));
  try {
    const broker = openRedis(redisSource(`${locked.url}?list=l`), redisDeps());
    await assert.rejects(connect(broker), /the server asks for a password/);
    const port = await new Promise<number>((resolve) =>
      web.listen(0, "127.0.0.1", () => resolve((web.address() as AddressInfo).port))
    );
    const other = openRedis(redisSource(`redis://127.0.0.1:${port}?list=l`), redisDeps());
    await assert.rejects(connect(other), /what answers there is no Redis/);
  } finally {
    web.close();
    await locked.close();
  }
});

test("a server that does not know AUTH repeats the password to nobody", async () => {
  const odd = await startRedis('rename-command AUTH ""');
  try {
    const url = `redis://:geheim@127.0.0.1:${odd.port}?list=l`;
    const refused = await connect(openRedis(redisSource(url), redisDeps())).catch((error) => error);
    assert.match(refused.message, /the server has no command AUTH/);
    assert.doesNotMatch(inspect(refused), /geheim/);
  } finally {
    await odd.close();
  }
});

test("exit: what one sends all hear that listen, on a connection that can be lost", async () => {
  const signal = new AbortController().signal;
  const exit = openRedisExit(redisExit(`${redis.url}?channel=exitCh`), redisDeps());
  const listening = await Promise.all([exit.connect(0, signal), exit.connect(0, signal)]);
  await exit.send("hello", signal);
  await exit.send("Exit", signal);
  for (const feed of listening) {
    assert.deepEqual([await feed.next(), await feed.next()], ["hello", "Exit"]);
  }
  const next = listening.map((feed) => feed.next());
  for (const lost of next) lost.catch(() => {});
  await redis.call("CLIENT", "KILL", "TYPE", "pubsub");
  await assert.rejects(next[0]!, /closed the connection|broken off/);
  await Promise.all(listening.map((feed) => feed.close()));
  const wrong = openRedisExit(
    redisExit(`redis://x:y@127.0.0.1:${redis.port}?channel=c`),
    redisDeps(),
  );
  await assert.rejects(wrong.send("Exit", signal), /refuses user and password/);
  await assert.rejects(wrong.connect(0, signal), /refuses user and password/);
});

test("leaves within 2 s, whatever the server does", async () => {
  const server = await startRedis();
  try {
    await server.call("XADD", "s", "*", "data", "1");
    for (const query of ["list=l", "stream=s", "channel=c"]) {
      const feed = await connect(openRedis(redisSource(`${server.url}?${query}`), redisDeps()));
      const next = feed.next().then(async (messages) => {
        await feed.acknowledge(messages);
        return await feed.next();
      });
      next.catch(() => {});
      await pause(100);
      server.freeze();
      const closed = feed.close().then(() => "closed");
      const late = pause(2_000).then(() => "late");
      assert.equal(await Promise.race([closed, late]), "closed", query);
      server.thaw();
      await assert.rejects(next);
    }
  } finally {
    server.thaw();
    await server.close();
  }
});
