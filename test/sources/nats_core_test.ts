/** Core NATS: a subject as a source, at most once, and as an exit channel. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Feed, Message } from "../../src/contracts.ts";
import { openNats, openNatsExit } from "../../src/sources/nats_source.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { asAdmin, depsOf, natsExit, natsSource } from "./nats_kit.ts";

const never = new AbortController().signal;
const decode = (messages: readonly Message[]) =>
  messages.map(({ body }) => new TextDecoder().decode(body));

describe("core NATS", () => {
  let server: Nats;
  before(async () => {
    server = await startNats();
  });
  after(() => server.close());

  const open = (more: string, deps = depsOf()) =>
    openNats(natsSource(`nats://127.0.0.1:${server.natsPort}?${more}`), deps).connect(never);
  /** Resolves when the server has them. */
  const publish = (subject: string, bodies: readonly string[]) =>
    asAdmin(server, async (connection) => {
      for (const body of bodies) connection.publish(subject, body);
      await connection.flush();
    });
  const dropped = (feed: Feed) => (feed as Feed & { dropped(): number }).dropped();
  async function read(feed: Feed, count: number): Promise<Message[]> {
    const all: Message[] = [];
    while (all.length < count) all.push(...await feed.next());
    return all;
  }

  test("messages of a subject and those below it; what each says of itself", async () => {
    const feed = await open("subject=a.>&queue=q");
    await publish("a.b.c", ['{"n":1}']);
    const [message] = await feed.next();
    assert.equal(new TextDecoder().decode(message!.body), '{"n":1}');
    assert.equal(message!.address, "nats:a.b.c");
    assert.equal(message!.meta("_subject"), "a.b.c");
    for (const name of ["_stream", "_sequence", "_timestamp", "_headers"]) {
      assert.equal(message!.meta(name), null);
    }
    assert.deepEqual([message!.id, message!.position, message!.again], [
      undefined,
      undefined,
      false,
    ]);
    await feed.close();
  });

  test("members of a queue group share, another group has them all", async () => {
    const feeds = await Promise.all(
      ["queue=one", "queue=one", "queue=two"].map((queue) => open(`subject=shared&${queue}`)),
    );
    const counts = feeds.map(() => 0);
    feeds.forEach((feed, at) => {
      const listen = async (): Promise<void> => {
        const messages = await feed.next();
        counts[at]! += messages.length;
        await feed.acknowledge([messages.at(-1)!]);
        return await listen();
      };
      listen().catch(() => {});
    });
    await publish("shared", Array.from({ length: 100 }, (_, at) => String(at)));
    await eventually(() => {
      assert.equal(counts[0]! + counts[1]!, 100);
      assert.equal(counts[2], 100);
    }, { withinMs: 10_000 });
    assert.ok(counts[0]! > 0 && counts[1]! > 0, String(counts));
    await Promise.all(feeds.map((feed) => feed.close()));
  });

  test("what comes while there is no room is dropped, counted and said; then it goes on", async () => {
    const deps = depsOf();
    const feed = await open("subject=full&prefetch=10", deps);
    await publish("full", Array.from({ length: 25 }, (_, at) => String(at)));
    await eventually(() => assert.equal(dropped(feed), 15), { withinMs: 10_000 });
    const held = await read(feed, 10);
    assert.deepEqual(decode(held), Array.from({ length: 10 }, (_, at) => String(at)));
    assert.match(deps.log.lines.join(), /^warn a source drops messages: .*"dropped":/);
    assert.equal(deps.log.lines.length, 1);
    // Given is not yet acknowledged.
    await publish("full", ["lost"]);
    await eventually(() => assert.equal(dropped(feed), 16), { withinMs: 10_000 });
    await feed.acknowledge([held[3]!]);
    await publish("full", ["a", "b", "c", "d", "lost"]);
    assert.deepEqual(decode(await read(feed, 4)), ["a", "b", "c", "d"]);
    await eventually(() => assert.equal(dropped(feed), 17), { withinMs: 10_000 });
    await feed.close();
  });

  test("a server that is killed ends it with a sentence; the next connection reads on", async () => {
    const own = await startNats();
    const broker = openNats(natsSource(`nats://127.0.0.1:${own.natsPort}?subject=s`), depsOf());
    const feed = await broker.connect(never);
    const next = feed.next();
    next.catch(() => {});
    await own.kill();
    await assert.rejects(next, /the connection is lost/);
    await assert.rejects(feed.next(), /the connection is lost/);
    await assert.rejects(feed.acknowledge([]), /the connection is lost/);
    await feed.close();
    await assert.rejects(broker.connect(never), /connection refused/);
    await own.start();
    const again = await broker.connect(never);
    await again.close();
    await own.close();
  });

  test("check says that it is at most once", async () => {
    const broker = openNats(natsSource(`nats://127.0.0.1:${server.natsPort}?subject=s`), depsOf());
    const found = await broker.inspect();
    assert.deepEqual(found.map(({ state }) => state), ["ok", "warning"]);
    assert.match(found[1]!.text, /gives a message once/);
  });
});

describe("an exit channel on NATS", () => {
  test("each that listens hears it, the ones that come later do not", async () => {
    const server = await startNats();
    const channel = openNatsExit(
      natsExit(`nats://127.0.0.1:${server.natsPort}?subject=fleet.exit`),
      depsOf(),
    );
    const [one, other] = await Promise.all([channel.connect(0, never), channel.connect(0, never)]);
    await channel.send("Exit", never);
    await channel.send("é".repeat(5_000), never);
    for (const feed of [one!, other!]) {
      assert.equal(await feed.next(), "Exit");
      assert.ok((await feed.next()).length <= 1_024, "a long text is cut");
    }
    const late = await channel.connect(0, never);
    const next = late.next();
    next.catch(() => {});
    await channel.send("again", never);
    assert.equal(await next, "again");
    await Promise.all([one, other, late].map((feed) => feed!.close()));
    await assert.rejects(late.next(), /closed/);
    await server.close();
  });

  test("a flood is bounded, and a server that is lost is told", async () => {
    const server = await startNats();
    const url = `nats://127.0.0.1:${server.natsPort}?subject=x`;
    const feed = await openNatsExit(natsExit(url), depsOf()).connect(0, never);
    await asAdmin(server, async (connection) => {
      for (let at = 0; at < 5_000; at++) connection.publish("x", String(at));
      await connection.flush();
    });
    await openNatsExit(natsExit(url), depsOf()).send("last", never);
    await eventually(async () => assert.equal(await feed.next(), "999"), {
      withinMs: 10_000,
      everyMs: 0,
    });
    const next = feed.next();
    next.catch(() => {});
    await server.kill();
    await assert.rejects(next, /the connection is lost/);
    await assert.rejects(openNatsExit(natsExit(url), depsOf()).send("x", never), /refused/);
    await feed.close();
    await server.close();
  });

  test("a user that may not publish there is told, not left to believe that it was sent", async () => {
    const server = await startNats(`authorization { users: [
      { user: "u", password: "p", permissions: { publish: { deny: "exit" } } } ] }`);
    const url = `nats://u:p@127.0.0.1:${server.natsPort}?subject=exit`;
    await assert.rejects(
      openNatsExit(natsExit(url), depsOf()).send("Exit", never),
      /does not permit this user the publish on exit/,
    );
    await server.close();
  });
});
