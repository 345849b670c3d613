/**
 * Every source at once in the binary, where libraries are bundled and some stand-ins take the place of what they
 * never use: what each broker and database has is in ClickHouse, each is shown as running, and `check` finds
 * all of them well.
 * Runs once: the collector is the binary.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  type ClickHouse,
  startClickHouse,
  startKafka,
  startRabbitMq,
  startRedis,
} from "../kit/servers.ts";
import { runShishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { joinKafka } from "../sources/kafka_kit.ts";
import { asAdmin, publish as publishNats, startJetStream } from "../sources/nats_kit.ts";
import {
  mariadbDatabase,
  postgresDatabase,
  sqliteDatabase,
  type TestDatabase,
} from "../sources/outbox_kit.ts";
import { newQueue, publish as publishRabbit } from "../sources/rabbitmq_kit.ts";

interface Place {
  /** Of the source. */
  readonly url: string;
  readonly publish: (body: string) => Promise<unknown>;
}

const SOON = { withinMs: 20_000 };
const closing: (() => Promise<unknown>)[] = [];
let clickhouse: ClickHouse;
let places: readonly Place[];

before(async () => {
  clickhouse = await startClickHouse();
  closing.push(clickhouse.close);
  await clickhouse.query(
    "CREATE TABLE all (n UInt32, what String) ENGINE = MergeTree ORDER BY n " +
      "SETTINGS non_replicated_deduplication_window = 1000",
  );
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
  await others.makeTopic("all", 1);
  return [{
    url: `kafka://127.0.0.1:${server.port}/all?`,
    publish: (body) => others.publish("all", [body]),
  }];
}

async function rabbitmq(): Promise<Place[]> {
  const server = await startRabbitMq();
  closing.push(server.close);
  const queue = await newQueue(server);
  return [{
    url: `${server.url}?queue=${queue}&`,
    publish: (body) => publishRabbit(server, queue, [body]),
  }];
}

async function redis(): Promise<Place[]> {
  const server = await startRedis();
  closing.push(server.close);
  // A stream is the affair of those who write into it.
  await server.call("XGROUP", "CREATE", "stream", "shishi", "$", "MKSTREAM");
  return [
    { url: `${server.url}?list=list&`, publish: (body) => server.call("LPUSH", "list", body) },
    {
      url: `${server.url}?stream=stream&`,
      publish: (body) => server.call("XADD", "stream", "*", "data", body),
    },
    {
      url: `${server.url}?channel=channel&`,
      publish: (body) => server.call("PUBLISH", "channel", body),
    },
  ];
}

async function nats(): Promise<Place[]> {
  const server = await startJetStream();
  closing.push(server.close);
  await asAdmin(server, (_, api) => api.streams.add({ name: "ALL", subjects: ["all.>"] }));
  return [
    {
      url: `nats://127.0.0.1:${server.natsPort}?stream=ALL&`,
      publish: (body) => publishNats(server, "all.one", [body]),
    },
    {
      url: `nats://127.0.0.1:${server.natsPort}?subject=core&`,
      publish: (body) =>
        asAdmin(server, (connection) => {
          connection.publish("core", new TextEncoder().encode(body));
          return connection.flush();
        }),
    },
  ];
}

async function outbox(
  made: Promise<TestDatabase>,
  kind: "postgres" | "mysql" | "sqlite",
): Promise<Place[]> {
  const database = await made;
  closing.push(database.close);
  const { stdout, code } = await runShishi(["outbox", "ddl", kind], { binary: true });
  assert.equal(code, 0);
  await database.sql(stdout);
  return [{
    url: `${database.url("outbox")}&`,
    publish: (body) => database.sql(`INSERT INTO outbox (payload) VALUES ('${body}')`),
  }];
}

test("all of them in one binary", { timeout: 170_000 }, async () => {
  const sources = places.map(({ url }, n) => `--source=${url}table=all&name=s${n}`);
  const args = ["--clickhouse-url", clickhouse.url, ...sources];
  const shishi = await startShishi({ binary: true, args });
  try {
    await eventually(async () => {
      const { sources } = await shishi.status();
      assert.deepEqual(
        // deno-lint-ignore no-explicit-any
        sources.map(({ name, state, why }: any) => ({ name, state, why })),
        places.map((_, n) => ({ name: `s${n}`, state: "running", why: null })),
      );
    }, SOON);
    await Promise.all(places.map(({ publish }, n) => publish(`{"n":${n},"what":"ü😀"}`)));
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
