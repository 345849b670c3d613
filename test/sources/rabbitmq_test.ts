/**
 * RabbitMQ as a source and as an exit channel: the suite of all sources, and what is AMQP's own. The connection, its
 * bytes and its end are tried on both runtimes; what the server says, and what is made of it, on one.
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createServer, type Server as NetServer } from "node:net";
import { after, describe, test } from "node:test";
import type { BrokerDeps, Feed, Message } from "../../src/contracts.ts";
import { openRabbitmq, openRabbitmqExit } from "../../src/sources/rabbitmq.ts";
import { CERTIFICATE } from "../kit/certificate.ts";
import { EDGE, EXPIRED, OTHER } from "../kit/client_certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { describeOnce, testOnce } from "../kit/once.ts";
import { type RabbitMq, startClickHouse, startRabbitMq } from "../kit/servers.ts";
import { ON_BUN, startShishi } from "../kit/shishi.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir, tempFile } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import {
  exitOf,
  newQueue,
  onChannel,
  publish,
  rabbitDeps,
  type Said,
  sourceOf,
} from "./rabbitmq_kit.ts";
import { testSource } from "./suite.ts";

/** One for all of this file: its start takes longer than most tests. */
let starting: Promise<RabbitMq> | null = null;
const rabbit = () => starting ??= startRabbitMq();
after(async () => await (await starting)?.close());

const NEVER = new AbortController().signal;

// Under one runtime: it starts the server three times, and what differs between them is the connection, below.
if (ON_BUN) {
  testSource("RabbitMQ", async () => {
    const server = await rabbit();
    return {
      async place() {
        const queue = await newQueue(server);
        return {
          open(member, prefetch = 1000) {
            const url = `${server.url}/?queue=${queue}&prefetch=${prefetch}&heartbeat=3s`;
            const address = sourceOf(url);
            return { address, broker: openRabbitmq(address, rabbitDeps(member)) };
          },
          publish: (bodies) => publish(server, queue, bodies),
          unacknowledged: () => server.messages(queue),
        };
      },
      server,
      traits: { once: true, shared: true, durable: true, againMs: 2000 },
      close: () => Promise.resolve(),
    };
  });
}

/** `amqp://…/?queue=…`. */
async function reading(parameters: string, deps: BrokerDeps = rabbitDeps()) {
  return openRabbitmq(sourceOf(`${(await rabbit()).url}/?${parameters}`), deps);
}

/** What a feed gives until there are `count`. */
async function given(feed: Feed, count: number): Promise<Message[]> {
  const messages: Message[] = [];
  while (messages.length < count) messages.push(...await feed.next());
  assert.equal(messages.length, count);
  return messages;
}

async function on(
  parameters: string,
  work: (feed: Feed, server: RabbitMq) => Promise<void>,
  deps?: BrokerDeps,
): Promise<void> {
  const feed = await (await reading(parameters, deps)).connect(NEVER);
  try {
    await work(feed, await rabbit());
  } finally {
    await feed.close();
  }
}

async function isSince(server: RabbitMq, major: number, minor: number): Promise<boolean> {
  const version: string = JSON.parse(await server.erlang("rabbit_misc:version()"));
  const [itsMajor = 0, itsMinor = 0] = version.split(".").map(Number);
  return itsMajor > major || itsMajor === major && itsMinor >= minor;
}

const text = ({ body }: Message) => new TextDecoder().decode(body);

describe("messages of RabbitMQ", () => {
  test("are bytes as they were sent, of any length", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    const large = new Uint8Array(300_000).map((_, at) => at % 251);
    const bodies = ['{"n":18446744073709551615}', Uint8Array.of(0xff, 0, 0xce, 0xfe), "", large];
    await publish(server, queue, bodies, { contentType: "application/json" });
    await on(`queue=${queue}`, async (feed) => {
      const bytes = bodies.map((body) =>
        typeof body === "string" ? new TextEncoder().encode(body) : body
      );
      const messages = await given(feed, 4);
      assert.deepEqual(messages.map(({ body }) => [...body]), bytes.map((body) => [...body]));
    });
  });

  test("say where they came from", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    const all = "_exchange,_routing_key,_message_id,_redelivered,_timestamp,_headers";
    await onChannel(server, async (channel) => {
      await channel.exchangeDeclare("meta", "topic");
      await channel.queueBind(queue, "meta", "a.#");
      await channel.basicPublish("meta", "a.b", "{}", {
        messageId: "id-1",
        timestamp: new Date("2026-11-30T08:00:00Z"),
        contentEncoding: "gzip",
        headers: {
          text: "ü",
          number: 5,
          nanos: 1764489600123456789n,
          yes: true,
          bytes: Uint8Array.of(104, 105),
          deep: { list: [1, "two", { three: 3n }] },
          at: new Date(0),
        },
      });
      await channel.basicPublish("", queue, "{}", { contentEncoding: "utf-8" });
    });
    await on(`queue=${queue}&meta=${all}`, async (feed) => {
      const [one, two] = await given(feed, 2);
      const meta = (message: Message) => all.split(",").map((name) => message.meta(name));
      assert.deepEqual(meta(one!), ["meta", "a.b", "id-1", 0, "2026-11-30T08:00:00.000Z", {
        text: "ü",
        number: "5",
        nanos: "1764489600123456789",
        yes: "true",
        bytes: "hi",
        deep: '{"list":[1,"two",{"three":3}]}',
        at: "1970-01-01T00:00:00.000Z",
      }]);
      assert.deepEqual(meta(two!), ["", queue, null, 0, null, {}]);
      assert.deepEqual([one!.id, one!.encoding, one!.address, one!.partition], [
        "id-1",
        "gzip",
        `amqp:${queue}@id-1`,
        queue,
      ]);
      assert.deepEqual([two!.id, two!.encoding, two!.address], [
        undefined,
        undefined,
        `amqp:${queue}`,
      ]);
    });
  });

  test("come again over the next connection, and are known to", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    await on(`queue=${queue}`, async (feed) => {
      await publish(server, queue, ["1", "2", "3"]);
      const messages = await given(feed, 3);
      assert.deepEqual(messages.map(({ again }) => again), [false, false, false]);
      await feed.acknowledge([messages[0]!]);
      assert.equal(await server.messages(queue), 2);
    });
    await on(`queue=${queue}`, async (feed) => {
      const messages = await given(feed, 2);
      assert.deepEqual(messages.map(text), ["2", "3"]);
      assert.deepEqual(messages.map(({ again }) => again), [true, true]);
      assert.deepEqual(messages.map((message) => message.meta("_redelivered")), [1, 1]);
      await feed.acknowledge([messages[1]!]);
      assert.equal(await server.messages(queue), 0);
      await publish(server, queue, ["4"]);
      assert.equal((await given(feed, 1))[0]!.again, false);
    });
  });

  testOnce("that waited when the connection began may have been given before a crash", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    await publish(server, queue, ["1", "2"]);
    await on(`queue=${queue}`, async (feed) => {
      assert.deepEqual((await given(feed, 2)).map(({ again }) => again), [undefined, undefined]);
    });
  });

  testOnce(
    "are not given beyond prefetch, and with an acknowledgement all before it are",
    async () => {
      const server = await rabbit();
      const queue = await newQueue(server);
      await publish(server, queue, Array.from({ length: 20 }, (_, at) => `${at}`));
      await on(`queue=${queue}&prefetch=7`, async (feed) => {
        const first = await given(feed, 7);
        const more = feed.next();
        await pause(200);
        assert.equal(await Promise.race([more, Promise.resolve("none")]), "none");
        await feed.acknowledge([first[4]!]);
        assert.equal(await server.messages(queue), 15);
        const next = [...await more];
        if (next.length < 5) next.push(...await given(feed, 5 - next.length));
        assert.deepEqual(next.map(text), ["7", "8", "9", "10", "11"]);
      });
      assert.equal(await server.messages(queue), 15);
    },
  );

  test("wait in the network where they are large, and the connection lives on", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    const body = new Uint8Array(2 * 1024 * 1024);
    await publish(server, queue, Array.from({ length: 16 }, () => body), { deliveryMode: 1 });
    await on(`queue=${queue}&heartbeat=1s`, async (feed) => {
      await pause(2_500);
      const first = await feed.next();
      assert.ok(first.length >= 8 && first.length < 16, `${first.length} were read`);
      await given(feed, 16 - first.length);
    });
  });

  testOnce("that were given back often are told of, once", async () => {
    const server = await rabbit();
    const queue = await newQueue(server, { "x-queue-type": "quorum" });
    await publish(server, queue, ["1", "2"]);
    const said: Said[] = [];
    const broker = await reading(`queue=${queue}`, rabbitDeps("g.a", said));
    const often = () => said.filter(({ message }) => /given back/.test(message)).length;
    for (let round = 0; round < 12; round++) {
      const feed = await broker.connect(NEVER);
      await given(feed, 2);
      assert.equal(often(), round < 10 ? 0 : 1, `round ${round}`);
      await feed.close();
    }
  });
});

describe("a connection to RabbitMQ", () => {
  const rejects = async (work: Promise<unknown>, sentence: RegExp | string) => {
    const error = await work.then(() => null, (error: Error) => error);
    assert.ok(error instanceof Error, "it was not rejected");
    if (typeof sentence === "string") assert.equal(error.message, sentence);
    else assert.match(error.message, sentence);
    assert.ok(!/\.$/.test(error.message));
    // An error of the library's would hold the connection, and that the password.
    assert.equal(error.cause, undefined);
  };

  async function refusal(change: (url: string) => string, queue = "nowhere"): Promise<string> {
    const server = await rabbit();
    const broker = openRabbitmq(sourceOf(change(`${server.url}/?queue=${queue}`)), rabbitDeps());
    const [error] = await Promise.all([
      broker.connect(NEVER).then((feed) => feed.close(), (error: Error) => error.message),
    ]);
    return error ?? "";
  }

  test("says in plain words what is wrong", async () => {
    const server = await rabbit();
    const away = await freePort();
    const login =
      "login refused: user or password are wrong, or the user may not come in from here";
    const cases: [(url: string) => string, string][] = [
      [(url) => url, "there is no queue nowhere in the vhost /"],
      [(url) => url.replace("geheim", "falsch"), login],
      [(url) => url.replace("shishi:geheim@", ""), login],
      [(url) => url.replace("/?", "/elsewhere?"), "there is no vhost elsewhere"],
      [(url) => url.replace(String(server.port), String(away)), "connection refused"],
      [
        (url) => url.replace(String(server.port), String(server.tlsPort)),
        "the server ended the connection before it said a word; is that its port for TLS (amqps)?",
      ],
      [(url) => url.replace("amqp:", "amqps:"), "what answers there speaks no TLS"],
      [
        (url) => url.replace("amqp:", "amqps:").replace(String(server.port), `${server.tlsPort}`),
        "the server's certificate is by an authority that is not trusted; ca= names the file of one",
      ],
    ];
    for (const [change, sentence] of cases) assert.equal(await refusal(change), sentence);
  });

  testOnce("says what the user may not do", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    await server.erlang(
      'rabbit_auth_backend_internal:add_user(<<"poor">>, <<"arm">>, <<"test">>)',
    );
    const poor = (url: string) => url.replace("shishi:geheim", "poor:arm");
    assert.equal(await refusal(poor, queue), "the user poor may not enter the vhost /");
    await server.erlang(
      'rabbit_auth_backend_internal:set_permissions(<<"poor">>, <<"/">>, <<"">>, <<"">>, <<"x">>, <<"test">>)',
    );
    assert.match(
      await refusal(poor, queue),
      new RegExp(
        `^the user poor (is refused access to|may not (read|configure)) the queue ${queue}$`,
      ),
    );
  });

  testOnce("needs one right, to read", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    await addUser(server, "one", "", "", `^${queue}$`);
    await publish(server, queue, ["1"]);
    const url = server.url.replace("shishi:geheim", "one:x");
    const feed = await openRabbitmq(sourceOf(`${url}/?queue=${queue}`), rabbitDeps())
      .connect(NEVER);
    await feed.acknowledge(await given(feed, 1));
    assert.equal(await server.messages(queue), 0);
    await feed.close();
  });

  testOnce("says that a queue is another's", async () => {
    const server = await rabbit();
    await onChannel(server, async (channel) => {
      await channel.queueDeclare("alone", { exclusive: true, autoDelete: true, durable: false });
      assert.equal(
        await refusal((url) => url, "alone"),
        "the queue alone is one connection's alone (exclusive)",
      );
      const queue = await newQueue(server);
      await channel.basicConsume(queue, { exclusive: true, noAck: false }, () => {});
      assert.equal(
        await refusal((url) => url, queue),
        `the queue ${queue} has a consumer already that shares with no other`,
      );
    });
  });

  test("speaks TLS, and shows its certificate", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    await publish(server, queue, ["over TLS"]);
    const file = (text: string) => encodeURIComponent(tempFile("a.pem", text));
    const url = (more: string, host = "127.0.0.1") =>
      `amqps://shishi:geheim@${host}:${server.tlsPort}/?queue=${queue}&ca=${
        file(CERTIFICATE)
      }${more}`;
    const open = (url: string) => openRabbitmq(sourceOf(url), rabbitDeps()).connect(NEVER);
    const certificate = `&cert=${file(EDGE.cert)}&key=${file(EDGE.key)}`;
    const feed = await open(url(certificate, "localhost"));
    assert.deepEqual((await given(feed, 1)).map(text), ["over TLS"]);
    assert.match(
      await server.erlang(
        "[binary_to_list(S) || P <- rabbit_networking:local_connections(), " +
          "{_, S} <- rabbit_networking:connection_info(P, [peer_cert_subject])]",
      ),
      /CN=edge/,
    );
    await feed.close();
    for (const other of [OTHER, EXPIRED]) {
      await rejects(
        open(url(`&cert=${file(other.cert)}&key=${file(other.key)}`)),
        /^the server refuses the certificate that cert= shows it$|^the server ended the connection before it said a word$/,
      );
    }
    await rejects(
      open(url(`&cert=${file(EDGE.cert)}&key=${file(OTHER.key)}`)),
      "cert= and key= do not belong together",
    );
    await rejects(
      open(url("").replace(/&ca=.*/, `&ca=${encodeURIComponent("/nowhere/ca.pem")}`)),
      /^ca: .*nowhere/,
    );
  });

  test("reads the password's file each time", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    const path = tempFile("password", "falsch\n");
    const address = sourceOf(
      `amqp://shishi@127.0.0.1:${server.port}/?queue=${queue}&password-file=${
        encodeURIComponent(path)
      }`,
    );
    const broker = openRabbitmq(address, rabbitDeps());
    await rejects(broker.connect(NEVER), /^login refused/);
    writeFileSync(path, "geheim\n");
    await (await broker.connect(NEVER)).close();
  });

  testOnce("begins with any server, and goes to the next that is there", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    const [one, two] = [await freePort(), await freePort()];
    const at = (chance: number, ...ports: number[]) => {
      const hosts = ports.map((port) => `127.0.0.1:${port}`).join(",");
      const deps = rabbitDeps();
      return openRabbitmq(sourceOf(`amqp://shishi:geheim@${hosts}/?queue=${queue}`), {
        ...deps,
        clock: { ...deps.clock, random: () => chance },
      }).connect(NEVER);
    };
    for (const chance of [0, 0.5, 0.99]) await (await at(chance, one, server.port)).close();
    const refused = (port: number) => `127.0.0.1:${port}: connection refused`;
    await rejects(at(0, one, two), `${refused(one)}; ${refused(two)}`);
    await rejects(at(0.99, one, two), `${refused(two)}; ${refused(one)}`);
  });

  testOnce(
    "ends in words when its queue is deleted, and when the server takes messages back",
    async () => {
      const server = await rabbit();
      const queue = await newQueue(server);
      await on(`queue=${queue}`, async (feed) => {
        const next = feed.next();
        next.catch(() => {});
        await onChannel(server, (channel) => channel.queueDelete(queue));
        // Whichever comes first: the server says so by itself, and it is asked every second.
        await rejects(
          next,
          /^the server has ended the consumer: its queue is gone|^there is no queue q\d+ in the vhost/,
        );
      });
      // Of old a channel did so, whatever the queue; then quorum queues alone do, and end the consumer.
      const byQueue = await isSince(server, 4, 3);
      const other = await newQueue(server, byQueue ? { "x-queue-type": "quorum" } : {});
      await publish(server, other, ["1"]);
      const set = (timeout: string, tick: number) =>
        server.erlang(
          `application:set_env(rabbit, consumer_timeout, ${timeout}), ` +
            `application:set_env(rabbit, channel_tick_interval, ${tick}), ` +
            `application:set_env(rabbit, quorum_tick_interval, ${byQueue ? tick : 5_000})`,
        );
      await set("300", 200);
      try {
        await on(`queue=${other}`, async (feed) => {
          const [message] = await given(feed, 1);
          await rejects(
            feed.next(),
            byQueue
              ? "the server has ended the consumer: its queue is gone, or consumer_timeout has passed"
              : "the server took back what was not acknowledged within 300 ms (consumer_timeout)",
          );
          // Its tag is good no more.
          await rejects(feed.acknowledge([message!]), /consumer_timeout/);
        });
      } finally {
        await set("1800000", 60_000);
      }
      await eventually(async () => assert.equal(await server.messages(other), 1), {
        withinMs: 10_000,
      });
    },
  );

  test("is not lost, and acknowledges, while the server takes no messages", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    await publish(server, queue, ["1", "2"]);
    await blocked(server, async () => {
      await on(`queue=${queue}&heartbeat=1s`, async (feed) => {
        const messages = await given(feed, 2);
        await pause(1_500);
        await feed.acknowledge([messages[1]!]);
        assert.equal(await server.messages(queue), 0);
      });
    });
  });

  test("is left when the server is silent, and when it is cut", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    await publish(server, queue, ["1"]);
    await on(`queue=${queue}&heartbeat=1s`, async (feed) => {
      const [message] = await given(feed, 1);
      server.freeze();
      try {
        await rejects(feed.next(), "the server has not answered for 1 s");
        await rejects(feed.acknowledge([message!]), "the server has not answered for 1 s");
      } finally {
        server.thaw();
      }
    });
    const proxy = await startTcpProxy(server.port);
    try {
      const address = sourceOf(
        `${server.url.replace(String(server.port), String(proxy.port))}/?queue=${queue}`,
      );
      const feed = await openRabbitmq(address, rabbitDeps()).connect(NEVER);
      const [message] = await given(feed, 1);
      const next = feed.next();
      next.catch(() => {});
      proxy.cut();
      await rejects(next, "the server ended the connection");
      await rejects(feed.acknowledge([message!]), "the server ended the connection");
      await feed.close();
    } finally {
      await proxy.close();
    }
    // It has them again.
    await eventually(async () => assert.equal(await server.messages(queue), 1), {
      withinMs: 5_000,
    });
  });

  if (ON_BUN) {
    test("is left when the server has forgotten the consumer", async () => {
      const server = await rabbit();
      const queue = await newQueue(server);
      await on(`queue=${queue}`, async (feed) => {
        const next = feed.next();
        next.catch(() => {});
        const cancel = await isSince(server, 4, 0)
          ? "{stop_consumer, #{pid => Channel, consumer_tag => Tag, user => <<>>}}"
          : "{basic_cancel, Channel, Tag, undefined, <<>>}";
        await server.erlang(
          `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"${queue}">>)), ` +
            `[gen_server2:call(amqqueue:get_pid(Q), ${cancel}) || ` +
            "{Channel, Tag, _, _, _, _, _, _} <- rabbit_amqqueue:consumers(Q)]",
        );
        await rejects(next, "the server has forgotten this consumer");
      });
    });
  }

  testOnce("reads no stream", async () => {
    const server = await rabbit();
    const queue = await newQueue(server, { "x-queue-type": "stream" });
    await on(`queue=${queue}`, async (feed) => {
      const next = feed.next();
      next.catch(() => {});
      await publish(server, queue, ["1"]);
      await rejects(next, new RegExp(`^${queue} is a stream`));
    });
  });

  test("next rejects when it is closed", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    const feed = await (await reading(`queue=${queue}`)).connect(NEVER);
    const next = feed.next();
    next.catch(() => {});
    await feed.close();
    await rejects(next, "the connection is closed");
    await feed.close();
  });

  test("is given up when it is not wanted any more", async () => {
    const aborting = new AbortController();
    const silent = await listening(() => {});
    try {
      const address = sourceOf(`amqp://127.0.0.1:${silent.port}/?queue=q`);
      const connecting = openRabbitmq(address, rabbitDeps()).connect(aborting.signal);
      connecting.catch(() => {});
      await pause(50);
      aborting.abort();
      // Not only when its time is over, which is 10 s.
      const late = pause(8_000).then(() => Promise.reject(new Error("late")));
      await rejects(Promise.race([connecting, late]), "not wanted any more");
    } finally {
      silent.server.close();
    }
  });

  for (
    const [what, answer, sentence] of [
      ["HTTP", "HTTP/1.1 400 Bad Request\r\n".repeat(9000), /^cannot be read: what answers there/],
      ["a broken frame", "\x01\x00\x00\x00\x00\x00\x01AB", /^cannot be read: what answers there/],
      ["another version", "AMQP\x00\x01\x00\x00", /^the server ended the connection/],
    ] as const
  ) {
    test(`survives a server of ${what}`, async () => {
      const server = await listening((socket) => socket.end(answer, "latin1"));
      try {
        const address = sourceOf(`amqp://127.0.0.1:${server.port}/?queue=q`);
        await rejects(openRabbitmq(address, rabbitDeps()).connect(NEVER), sentence);
      } finally {
        server.server.close();
      }
    });
  }
});

async function listening(
  onConnection: Parameters<typeof createServer>[1],
): Promise<{ server: NetServer; port: number }> {
  const server = createServer(onConnection);
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return { server, port };
}

/** With the password `x`, and patterns of what it may configure, write and read. */
async function addUser(server: RabbitMq, name: string, ...rights: string[]): Promise<void> {
  const texts = [name, "/", ...rights, "test"].map((text) => `<<"${text}">>`);
  await server.erlang(
    `rabbit_auth_backend_internal:add_user(<<"${name}">>, <<"x">>, <<"test">>), ` +
      `rabbit_auth_backend_internal:set_permissions(${texts.join(", ")})`,
  );
}

/** While the server has no memory for more messages. */
async function blocked(server: RabbitMq, work: () => Promise<void>): Promise<void> {
  const limit = (value: string) =>
    server.erlang(`vm_memory_monitor:set_vm_memory_high_watermark(${value})`);
  await limit("0.00001");
  try {
    await eventually(
      async () => assert.notEqual(await server.erlang("rabbit_alarm:get_alarms()"), "[]"),
      { withinMs: 5_000 },
    );
    await work();
  } finally {
    await limit("0.4");
  }
  await eventually(
    async () => assert.equal(await server.erlang("rabbit_alarm:get_alarms()"), "[]"),
    { withinMs: 5_000 },
  );
}

describe("an exit channel of RabbitMQ", () => {
  const exit = async (exchange: string, more = "") =>
    openRabbitmqExit(
      exitOf(`${(await rabbit()).url}/?exchange=${exchange}${more}`),
      rabbitDeps(),
    );

  for (const [type, key] of [["fanout", ""], ["topic", ""], ["direct", "&routing-key=bye"]]) {
    test(`reaches all who listen on a ${type} exchange`, async () => {
      const server = await rabbit();
      const exchange = `exit-${type}`;
      await onChannel(server, (channel) => channel.exchangeDeclare(exchange, type!));
      const channel = await exit(exchange, key);
      const feeds = [await channel.connect(0, NEVER), await channel.connect(0, NEVER)];
      await channel.send("Exit", NEVER);
      await channel.send("Exit v1,ü", NEVER);
      for (const feed of feeds) {
        assert.equal(await feed.next(), "Exit");
        assert.equal(await feed.next(), "Exit v1,ü");
      }
      await Promise.all(feeds.map((feed) => feed.close()));
      await eventually(
        async () =>
          assert.equal(
            await server.erlang(
              `length(rabbit_binding:list_for_source(rabbit_misc:r(<<"/">>, exchange, <<"${exchange}">>)))`,
            ),
            "0",
          ),
        { withinMs: 5_000 },
      );
    });
  }

  testOnce("needs the right to a queue of its own, and to read the exchange", async () => {
    const server = await rabbit();
    await onChannel(server, (channel) => channel.exchangeDeclare("exit-poor", "fanout"));
    await addUser(server, "listener", "^amq[.]gen", "^amq[.]gen", "^(amq[.]gen|exit-poor$)");
    const url = server.url.replace("shishi:geheim", "listener:x");
    const channel = openRabbitmqExit(exitOf(`${url}/?exchange=exit-poor`), rabbitDeps());
    const feed = await channel.connect(0, NEVER);
    await assert.rejects(
      channel.send("Exit", NEVER),
      /^Error: the user listener (?:is refused|may not)/,
    );
    await (await exit("exit-poor")).send("Exit", NEVER);
    assert.equal(await feed.next(), "Exit");
    await feed.close();
  });

  test("loses none that come at once, and looks at the beginning of a long one", async () => {
    const server = await rabbit();
    await onChannel(server, (channel) => channel.exchangeDeclare("exit-many", "fanout"));
    const feed = await (await exit("exit-many")).connect(0, NEVER);
    await onChannel(server, async (channel) => {
      for (let at = 0; at < 300; at++) await channel.basicPublish("exit-many", "", `${at}`);
      await channel.basicPublish("exit-many", "", "x".repeat(10_000));
    });
    for (let at = 0; at < 300; at++) assert.equal(await feed.next(), `${at}`);
    assert.equal((await feed.next()).length, 4096);
    await feed.close();
  });

  testOnce("says that the server takes no messages", async () => {
    const server = await rabbit();
    await onChannel(server, (channel) => channel.exchangeDeclare("exit-blocked", "fanout"));
    const channel = await exit("exit-blocked");
    await blocked(server, async () => {
      await assert.rejects(channel.send("Exit", NEVER), {
        message: "the server takes no messages now: low on memory",
      });
    });
    await channel.send("Exit", NEVER);
  });

  testOnce("says what is wrong", async () => {
    const server = await rabbit();
    const nowhere = await exit("nowhere");
    const sentence = { message: "there is no exchange nowhere in the vhost /" };
    await assert.rejects(nowhere.connect(0, NEVER), sentence);
    await assert.rejects(nowhere.send("Exit", NEVER), sentence);
    await onChannel(server, (channel) => channel.exchangeDeclare("exit-late", "fanout"));
    const channel = await exit("exit-late");
    const feed = await channel.connect(0, NEVER);
    const next = feed.next();
    next.catch(() => {});
    await server.cut();
    await assert.rejects(next, { message: "the server closed the connection: cut by the test" });
    await feed.close();
  });
});

describeOnce("a check of RabbitMQ", () => {
  const inspect = async (queue: string, change = (url: string) => url) => {
    const server = await rabbit();
    const url = change(`${server.url}/?queue=${queue}`);
    return (await openRabbitmq(sourceOf(url), rabbitDeps()).inspect())
      .map(({ state, text }) => `${state}: ${text}`.replace(/ \d+\.\d+\.\d+/, ""));
  };
  const welcome = "ok: RabbitMQ, logged in as shishi";

  test("looks at a queue without changing it", async () => {
    const server = await rabbit();
    const classic = await newQueue(server, { "x-max-length": 1000, "x-message-ttl": 60_000 });
    await publish(server, classic, ["1", "2"]);
    assert.deepEqual(await inspect(classic), [
      welcome,
      "ok: classic, durable, 2 messages wait, 0 consumers",
    ]);
    await on(`queue=${classic}`, async (feed) => {
      assert.deepEqual((await given(feed, 2)).map((message) => message.meta("_redelivered")), [
        0,
        0,
      ]);
    });
    const lettered = await newQueue(server, {
      "x-queue-type": "quorum",
      "x-dead-letter-exchange": "dlx",
      "x-delivery-limit": 5,
    });
    assert.deepEqual(await inspect(lettered), [
      welcome,
      "ok: quorum, durable, 0 messages wait, 0 consumers",
    ]);
  });

  test("warns of what will hurt", async () => {
    const server = await rabbit();
    const quorum = await newQueue(server, { "x-queue-type": "quorum" });
    const [, , warning, ...more] = await inspect(quorum);
    assert.match(warning!, /^warning: no dead-letter exchange is among its arguments: /);
    assert.deepEqual(more, []);
    await onChannel(
      server,
      (channel) =>
        channel.queueDeclare("passing", { durable: false, autoDelete: false, exclusive: false }),
    );
    assert.deepEqual((await inspect("passing")).slice(1), [
      "ok: classic, not durable, 0 messages wait, 0 consumers",
      "warning: it is not durable: a restart of the server loses it",
    ]);
    const stream = await newQueue(server, { "x-queue-type": "stream" });
    assert.match((await inspect(stream))[1]!, /^wrong: it is a stream/);
    assert.match(
      (await inspect(quorum, (url) => `${url}&prefetch=70000`)).at(-1)!,
      /^warning: prefetch=70000 counts as 65535/,
    );
  });

  test("says what is wrong, and what cannot be seen", async () => {
    const server = await rabbit();
    const queue = await newQueue(server);
    assert.deepEqual(await inspect("nowhere"), [
      welcome,
      "wrong: there is no queue nowhere in the vhost /",
    ]);
    assert.deepEqual(await inspect(queue, (url) => url.replace("geheim", "falsch")), [
      "wrong: login refused: user or password are wrong, or the user may not come in from here",
    ]);
    await addUser(server, "reader", "", "", ".*");
    await addUser(server, "blind", "", "", "");
    const as = (name: string) => (url: string) => url.replace("shishi:geheim", `${name}:x`);
    const [, counts, hidden, ...more] = await inspect(queue, as("reader"));
    assert.equal(counts, "ok: 0 messages wait, 0 consumers");
    assert.match(
      hidden!,
      /^warning: its type and its dead-letter exchange cannot be seen: .*reader/,
    );
    assert.deepEqual(more, []);
    assert.match(
      (await inspect(queue, as("blind"))).at(-1)!,
      /^wrong: the user blind (?:is refused|may not)/,
    );
  });
});

describe("a collector that reads RabbitMQ", () => {
  test("stores each message once, killed -9 over and over", async () => {
    const [server, clickhouse] = await Promise.all([rabbit(), startClickHouse()]);
    const dataDir = tempDir("data");
    const queue = await newQueue(server);
    const start = () =>
      startShishi({
        // As it is shipped, and on the other runtime.
        binary: ON_BUN,
        args: [
          ...["--clickhouse-url", clickhouse.url, "--data-dir", dataDir],
          ...["--flush-interval", "50ms"],
          ...["--source", `${server.url}/?queue=${queue}&table=t&meta=_message_id:id`],
        ],
      });
    try {
      await clickhouse.query(
        "CREATE TABLE t (n UInt32, id String) ENGINE = MergeTree ORDER BY n " +
          "SETTINGS non_replicated_deduplication_window = 1000",
      );
      let published = 0;
      for (let round = 0; round < (ON_BUN ? 4 : 2); round++) {
        const shishi = await start();
        try {
          for (let part = 0; part < 10; part++) {
            const bodies = Array.from({ length: 50 }, (_, at) => `{"n":${published + at}}`);
            await publish(server, queue, bodies);
            published += bodies.length;
          }
          await eventually(
            async () => assert.ok(await server.messages(queue) < 500, "it reads nothing"),
            { withinMs: 15_000, everyMs: 5 },
          );
        } finally {
          await shishi.kill();
        }
      }
      const shishi = await start();
      try {
        const counts = "SELECT count(), uniqExact(n), uniqExact(id) FROM t";
        const wanted = `${published}\t${published}\t${published}`;
        await eventually(
          async () => {
            assert.equal(await clickhouse.query(counts), wanted);
            // Those that come again are acknowledged as well, maybe after the last row is there.
            assert.equal(await server.messages(queue), 0);
          },
          { withinMs: 20_000 },
        );
        shishi.signal("SIGTERM");
        assert.equal((await shishi.exited).code, 0, shishi.stderr());
        assert.equal(await clickhouse.query(counts), wanted);
      } finally {
        await shishi.close();
      }
    } finally {
      await clickhouse.close();
      removeDir(dataDir);
    }
  });
});
