/**
 * Every source at once in the binary, where libraries are bundled and some stand-ins take the place of what they
 * never use: what each broker and database has is in ClickHouse, each is shown as running, and `check` finds
 * all of them well. Each kind of broker is an exit channel as well. Then all brokers and databases stand still for
 * a minute.
 * Runs once: the collector is the binary.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { after, before, test } from "node:test";
import {
  type ClickHouse,
  startClickHouse,
  startKafka,
  startRabbitMq,
  startRedis,
} from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { tempFile } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { joinKafka } from "../sources/kafka_kit.ts";
import { asAdmin, publish as publishNats, startJetStream } from "../sources/nats_kit.ts";
import {
  mariadbDatabase,
  postgresDatabase,
  sqliteDatabase,
  type TestDatabase,
} from "../sources/outbox_kit.ts";
import { newQueue, onChannel, publish as publishRabbit } from "../sources/rabbitmq_kit.ts";
import { says } from "./around.ts";

interface Place {
  /** Of the source. */
  readonly url: string;
  /** In this order; resolves when the server has them. */
  readonly publish: (bodies: readonly string[]) => Promise<unknown>;
  /** How often a message is stored that was given to the server while the source read. */
  readonly stores: "once" | "at least once" | "at most once";
}

/** What can be stopped where it stands. */
interface Freezer {
  freeze(): unknown;
  thaw(): unknown;
}

const SOON = { withinMs: 20_000 };
const closing: (() => Promise<unknown>)[] = [];
const freezers: Freezer[] = [];
/** The URL of an exit channel, by the broker's scheme. */
const exits = new Map<string, string>();
let clickhouse: ClickHouse;
let places: readonly Place[];

before(async () => {
  clickhouse = await startClickHouse();
  closing.push(clickhouse.close);
  for (const columns of ["all (n UInt32, what String)", "thawed (n UInt32, m UInt32)"]) {
    await clickhouse.query(
      `CREATE TABLE ${columns} ENGINE = MergeTree ORDER BY n ` +
        "SETTINGS non_replicated_deduplication_window = 1000",
    );
  }
  const made = await Promise.all([
    kafka(),
    rabbitmq(),
    redis(),
    nats(),
    outbox(postgresDatabase(), "postgres"),
    outbox(mariadbDatabase(), "mysql"),
    outbox(Promise.resolve(sqliteDatabase()), "sqlite"),
  ]);
  places = made.flat();
});
after(async () => {
  await Promise.all(closing.map((close) => close()));
});

async function kafka(): Promise<Place[]> {
  const server = await startKafka();
  const others = joinKafka(server);
  closing.push(async () => {
    await others.close();
    await server.close();
  });
  freezers.push(server);
  await others.makeTopic("exit-topic", 2);
  exits.set("kafka", `kafka://127.0.0.1:${server.port}/exit-topic`);
  return await Promise.all(["classic", "consumer"].map(async (protocol): Promise<Place> => {
    await others.makeTopic(protocol, 1);
    return {
      url: `kafka://127.0.0.1:${server.port}/${protocol}?protocol=${protocol}&group=${protocol}&`,
      publish: (bodies) => others.publish(protocol, bodies),
      stores: "once",
    };
  }));
}

async function rabbitmq(): Promise<Place[]> {
  const server = await startRabbitMq();
  closing.push(server.close);
  freezers.push(server);
  await onChannel(server, (channel) => channel.exchangeDeclare("exitEx", "fanout"));
  const { name, password } = server.user;
  const user = `user=${name}&password-file=${tempFile("password", password)}`;
  exits.set("amqp", `amqp://127.0.0.1:${server.port}?exchange=exitEx&${user}`);
  const queue = await newQueue(server);
  return [{
    url: `${server.url}?queue=${queue}&`,
    publish: (bodies) => publishRabbit(server, queue, bodies),
    stores: "once",
  }];
}

async function redis(): Promise<Place[]> {
  const server = await startRedis();
  closing.push(server.close);
  freezers.push(server);
  exits.set("redis", `redis://127.0.0.1:${server.port}?channel=exitCh`);
  // A stream is the affair of those who write into it.
  await server.call("XGROUP", "CREATE", "stream", "shishi", "$", "MKSTREAM");
  const each = (command: (body: string) => string[]) => (bodies: readonly string[]) =>
    Promise.all(bodies.map((body) => server.call(...command(body))));
  return [
    {
      url: `${server.url}?list=list&`,
      publish: each((body) => ["LPUSH", "list", body]),
      stores: "at least once",
    },
    {
      url: `${server.url}?stream=stream&`,
      publish: each((body) => ["XADD", "stream", "*", "data", body]),
      stores: "once",
    },
    {
      url: `${server.url}?channel=channel&`,
      publish: each((body) => ["PUBLISH", "channel", body]),
      stores: "at most once",
    },
  ];
}

async function nats(): Promise<Place[]> {
  const server = await startJetStream();
  closing.push(server.close);
  freezers.push({
    freeze: () => process.kill(server.pid, "SIGSTOP"),
    thaw: () => process.kill(server.pid, "SIGCONT"),
  });
  await asAdmin(server, (_, api) => api.streams.add({ name: "ALL", subjects: ["all.>"] }));
  return [
    {
      url: `nats://127.0.0.1:${server.natsPort}?stream=ALL&`,
      publish: (bodies) => publishNats(server, "all.one", bodies),
      stores: "once",
    },
    {
      url: `nats://127.0.0.1:${server.natsPort}?subject=core&`,
      publish: (bodies) =>
        asAdmin(server, (connection) => {
          for (const body of bodies) connection.publish("core", new TextEncoder().encode(body));
          return connection.flush();
        }),
      stores: "at most once",
    },
  ];
}

async function outbox(
  made: Promise<TestDatabase>,
  kind: "postgres" | "mysql" | "sqlite",
): Promise<Place[]> {
  const database = await made;
  closing.push(database.close);
  freezers.push(database.server);
  const { stdout, code } = await runShishi(["outbox", "ddl", kind], { binary: true });
  assert.equal(code, 0);
  await database.sql(stdout);
  return [{
    url: `${database.url("outbox")}&`,
    publish: (bodies) => {
      const values = bodies.map((body) => `('${body}')`);
      return database.sql(`INSERT INTO outbox (payload) VALUES ${values.join(", ")}`);
    },
    stores: "once",
  }];
}

const argumentsOf = (table: string) => [
  "--clickhouse-url",
  clickhouse.url,
  `--tables=${table}`,
  ...places.map(({ url }, n) => `--source=${url}table=${table}&name=s${n}`),
];

interface SourceState {
  readonly name: string;
  readonly state: string;
  readonly why: string | null;
}

/** How each source is. */
async function statesOf(shishi: Shishi): Promise<SourceState[]> {
  const { sources } = await shishi.status();
  return sources.map(({ name, state, why }: SourceState) => ({ name, state, why }));
}

const areRunning = (shishi: Shishi, within = SOON) =>
  eventually(async () => {
    const wanted = places.map((_, n) => ({ name: `s${n}`, state: "running", why: null }));
    assert.deepEqual(await statesOf(shishi), wanted);
  }, within);

test("all of them in one binary", { timeout: 170_000 }, async () => {
  const args = argumentsOf("all");
  const shishi = await startShishi({ binary: true, args });
  try {
    await areRunning(shishi);
    await Promise.all(places.map(({ publish }, n) => publish([`{"n":${n},"what":"ü😀"}`])));
    await eventually(async () => {
      const found = await clickhouse.query(
        "SELECT groupArray((n, what)) FROM (SELECT * FROM all ORDER BY n)",
      );
      assert.equal(found, `[${places.map((_, n) => `(${n},'ü😀')`).join(",")}]`);
    }, SOON);
    const found = await runShishi(["check", ...args], { binary: true, withinMs: 60_000 });
    for (const n of places.keys()) {
      assert.match(found.stdout, new RegExp(`^[✓!] source s${n}\\b`, "m"), found.stdout);
      assert.doesNotMatch(found.stdout, new RegExp(`^✗ source s${n}\\b`, "m"), found.stdout);
    }
  } finally {
    await shishi.close();
  }
});

for (const broker of ["redis", "amqp", "kafka"]) {
  test(`stop --via ${broker}: the binary stops, signed`, async () => {
    const url = exits.get(broker)!;
    const env = { SHISHI_CONTROL_SECRET: "a secret of the fleet" };
    const shishi = await startShishi({
      binary: true,
      args: ["--clickhouse-url", clickhouse.url],
      env: { SHISHI_EXITS: url, ...env },
    });
    try {
      await says(shishi, "an exit channel is listened to", 40_000);
      const stopped = await runShishi(["stop", "--via", url], { env, binary: true });
      assert.equal(stopped.code, 0, stopped.stderr);
      assert.equal((await shishi.exited).code, 0);
    } finally {
      await shishi.close();
    }
  });
}

const FROZEN_MS = 60_000;
/** The first thing that a source says of it. */
const SILENCE = /no answer|not answered|not confirm an acknowledgement for|locked for/;
/** Pauses between attempts grow to 30 s. */
const AGAIN = { withinMs: 60_000, everyMs: 200 };
/** Of a place, before the frost and again behind it. */
const MESSAGES = 200;
/** The number under which rows come over HTTP. */
const HTTP = 99;

test("all brokers stand still for a minute: noticed, HTTP goes on, and each reads on", {
  timeout: 400_000,
}, async () => {
  const shishi = await startShishi({ binary: true, args: argumentsOf("thawed") });
  const publish = (from: number, to: number) =>
    Promise.all(places.map(({ publish }, n) => publish(messages(n, from, to))));
  const post = async (m: number) => {
    const { status, text } = await shishi.post({ n: HTTP, m }, { path: "/events/thawed" });
    assert.equal(status, 202, text);
  };
  const seen = new Map<string, SourceState[]>(places.map((_, n) => [`s${n}`, []]));
  let posted = 0;
  try {
    await areRunning(shishi);
    // The frost comes while they are read.
    await publish(1, MESSAGES);
    for (const { freeze } of freezers) freeze();
    try {
      const untilMs = performance.now() + FROZEN_MS;
      while (performance.now() < untilMs) {
        await post(++posted);
        for (const state of await statesOf(shishi)) seen.get(state.name)!.push(state);
        assert.equal((await shishi.get("/readyz")).status, 200);
        await pause(250);
      }
      await eventually(async () => {
        assert.equal(await counted(`n = ${HTTP}`), `${posted}\t${posted}`);
      }, SOON);
    } finally {
      for (const { thaw } of freezers) thaw();
    }
    for (const [name, states] of seen) {
      const noticed = states.findIndex(({ why }) => why !== null);
      assert.match(states[noticed]?.why ?? "nothing", SILENCE, name);
      for (const { state, why } of states.slice(noticed)) {
        assert.ok(["waiting", "connecting"].includes(state) && why !== null, `${name}: ${state}`);
      }
    }
    await areRunning(shishi, AGAIN);
    await publish(MESSAGES + 1, 2 * MESSAGES);
    const last = `m > ${MESSAGES}`;
    for (const [n, { stores }] of places.entries()) {
      const [which, count] = stores === "at most once" ? [last, MESSAGES] : ["1", 2 * MESSAGES];
      await eventually(async () => {
        const [, different] = (await counted(`n = ${n} AND ${which}`)).split("\t");
        assert.equal(different, `${count}`, `s${n}`);
      }, AGAIN);
    }
    await eventually(async () => {
      const { sources, ledger } = await shishi.status();
      for (const { name, unacked } of sources) assert.equal(unacked, 0, name);
      assert.deepEqual([ledger.held, ledger.dead], [0, 0]);
    }, AGAIN);
    for (const [n, { stores }] of places.entries()) {
      if (stores === "at least once") continue;
      const [rows, different] = (await counted(`n = ${n}`)).split("\t");
      assert.equal(rows, different, `s${n}: some are there twice`);
    }
    await post(++posted);
  } finally {
    await shishi.close();
  }
});

const messages = (n: number, from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, at) => `{"n":${n},"m":${from + at}}`);

/** Rows, and rows that differ. */
const counted = (where: string) =>
  clickhouse.query(`SELECT count(), uniqExact(n, m) FROM thawed WHERE ${where}`);
