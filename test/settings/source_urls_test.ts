/**
 * The URLs of sources and exits: what is read of each, and everything that is wrong with one, at once.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ExitAddress, SourceAddress } from "../../src/contracts.ts";
import { problemsOf, settingsOf } from "./kit.ts";

/** Those that the URLs name. */
const FILES = { x: "CA", t: "TOKEN", "/run/secrets/rabbit": "geheim" };

function source(url: string): SourceAddress {
  const { sources } = settingsOf({ argv: [`--source=${url}`], files: FILES });
  assert.equal(sources.length, 1);
  return sources[0]!;
}

function exit(url: string): ExitAddress {
  return settingsOf({ argv: [`--exit=${url}`] }).exits[0]!;
}

const LOGIN = { user: null, password: null, ca: null, cert: null, key: null };
const OPTIONS = { ...LOGIN, table: null, prefetch: 1000, meta: [], onError: "dead" };
const at = (host: string, port: number) => [{ host, port }];
const STREAM = {
  what: "stream",
  stream: "EVENTS",
  consumer: "shishi",
  create: true,
  filter: null,
  from: "first",
  ackWaitMs: 30_000,
};

const READ: [string, Record<string, unknown>][] = [
  [
    "kafka://broker1:9092,broker2/flights?table=flights&meta=_topic,_offset:kafka_offset",
    {
      ...OPTIONS,
      broker: "kafka",
      scheme: "kafka",
      label: "kafka://broker1:9092,broker2:9092/flights",
      name: "kafka:flights",
      hosts: [...at("broker1", 9092), ...at("broker2", 9092)],
      tls: false,
      table: "flights",
      meta: [{ name: "_topic", column: "_topic" }, { name: "_offset", column: "kafka_offset" }],
      topics: ["flights"],
      group: "shishi",
      from: "earliest",
      sasl: null,
      token: null,
      member: null,
      protocol: "classic",
      sessionMs: 30_000,
    },
  ],
  [
    "kafka+ssl://u:p%40ss@[::1]:1?topic=a,b&sasl=plain&member=off&protocol=consumer&session=6s&ca=x",
    {
      ...OPTIONS,
      broker: "kafka",
      scheme: "kafka+ssl",
      label: "kafka+ssl://[::1]:1",
      name: "kafka:a-b",
      hosts: at("::1", 1),
      tls: true,
      user: "u",
      password: { text: "p@ss" },
      ca: "x",
      topics: ["a", "b"],
      group: "shishi",
      from: "earliest",
      sasl: "plain",
      token: null,
      member: "off",
      protocol: "consumer",
      sessionMs: 6000,
    },
  ],
  [
    "nats://127.0.0.1?stream=EVENTS",
    {
      ...OPTIONS,
      broker: "nats",
      scheme: "nats",
      label: "nats://127.0.0.1:4222",
      name: "nats:EVENTS",
      hosts: at("127.0.0.1", 4222),
      path: "",
      tls: false,
      creds: null,
      nkey: null,
      token: null,
      read: STREAM,
    },
  ],
  [
    "wss://h/ws?subject=a.*.%3E&queue=q&token-file=t&name=core",
    {
      ...OPTIONS,
      broker: "nats",
      scheme: "wss",
      label: "wss://h:443/ws",
      name: "core",
      hosts: at("h", 443),
      path: "/ws",
      tls: true,
      creds: null,
      nkey: null,
      token: { file: "t" },
      read: { what: "subject", subject: "a.*.>", queue: "q" },
    },
  ],
  [
    "amqp://shishi@rabbit:5672/my%2Fhost?queue=events&password-file=/run/secrets/rabbit&on-error=stop",
    {
      ...OPTIONS,
      broker: "amqp",
      scheme: "amqp",
      label: "amqp://rabbit:5672/my%2Fhost",
      name: "amqp:events",
      hosts: at("rabbit", 5672),
      tls: false,
      user: "shishi",
      password: { file: "/run/secrets/rabbit" },
      onError: "stop",
      vhost: "my/host",
      queue: "events",
      heartbeatMs: 10_000,
    },
  ],
  [
    "rediss://redis/3?stream=clicks&table=clicks&trim=true&claim=5m&prefetch=10",
    {
      ...OPTIONS,
      broker: "redis",
      scheme: "rediss",
      label: "rediss://redis:6379/3",
      name: "redis:clicks",
      hosts: at("redis", 6379),
      tls: true,
      table: "clicks",
      prefetch: 10,
      database: 3,
      read: {
        what: "stream",
        key: "clicks",
        group: "shishi",
        field: "data",
        claimMs: 300_000,
        from: "first",
        trim: true,
      },
    },
  ],
  [
    "postgres://u:p@db/app?outbox=public.outbox&table-column=target&done=sent_at&poll=5s&tls=on",
    {
      ...OPTIONS,
      broker: "outbox",
      scheme: "postgres",
      label: "postgres://db:5432/app",
      name: "postgres:public.outbox",
      hosts: at("db", 5432),
      tls: true,
      user: "u",
      password: { text: "p" },
      kind: "postgres",
      database: "app",
      outbox: "public.outbox",
      id: "id",
      payload: "payload",
      tableColumn: "target",
      done: "sent_at",
      pollMs: 5000,
    },
  ],
  [
    "sqlite:///var/lib/my%3Fapp.db?outbox=o",
    {
      ...OPTIONS,
      broker: "outbox",
      scheme: "sqlite",
      label: "sqlite:/var/lib/my?app.db",
      name: "sqlite:o",
      hosts: [],
      tls: false,
      kind: "sqlite",
      database: "/var/lib/my?app.db",
      outbox: "o",
      id: "id",
      payload: "payload",
      tableColumn: null,
      done: null,
      pollMs: 1000,
    },
  ],
];

const SOURCE = "source (kafka://h:9092/t): ";

/** What is given, and what is said of it. */
const WRONG: [string, string[]][] = [
  ["http://h", [
    "source (***): expected a URL with one of the schemes kafka, kafkas, kafka+ssl, nats, tls, ws, " +
    "wss, amqp, amqps, redis, rediss, postgres, postgresql, mysql, mariadb, sqlite",
  ]],
  ["kafka://h", ["source (kafka://h:9092): expected a topic, as the path or as topic=, got none"]],
  ["kafka://h/t?gruop=x&prefetch=0&from=first&group=", [
    `${SOURCE}gruop: unknown parameter; did you mean group?`,
    `${SOURCE}prefetch: expected a whole number from 1 to 100000, got "0"`,
    `${SOURCE}group: expected a name without control characters, got nothing`,
    `${SOURCE}from: expected earliest or latest, got "first"`,
  ]],
  ["kafka://h/t?password=geheim&geheim=1", [
    `${SOURCE}a secret is no parameter: a password stands before the @, or in a password-file`,
  ]],
  ["kafka://h/t?ca=x&sasl=oauthbearer&prefetch=1&prefetch=2", [
    `${SOURCE}prefetch: expected it once, got it 2 times`,
    `${SOURCE}expected token-file= together with sasl=oauthbearer, got one of them`,
    `${SOURCE}ca: has no effect without TLS`,
  ]],
  ["kafka://h/t?meta=_offset,_subject", [
    `${SOURCE}meta: expected names among _topic, _partition, _offset, _key, _timestamp, _headers, ` +
    'got "_subject"',
  ]],
  ["nats://h?stream=S&subject=s", [
    "source (nats://h:4222): expected one of subject=, stream=, got subject and stream",
  ]],
  ["nats://u@h?stream=S&queue=q&creds=c", [
    "source (nats://h:4222): queue: has no effect with stream=",
    "source (nats://h:4222): expected one of user, creds, nkey-file and token-file, got 2 of them",
  ]],
  ["amqp://u:a/b@h?queue=q", [
    "source (amqp://***): expected a URL with special characters percent-encoded " +
    "(@ is %40, / is %2F, ? is %3F, # is %23)",
  ]],
  ["amqp://u:p@h?password-file=f", [
    "source (amqp://h:5672): expected queue=, got none",
    "source (amqp://h:5672): password-file: expected one way to give the password, got one in the URL too",
  ]],
  ["redis://h/x?list=l&group=g", [
    "source (redis://h:6379/x): group: has no effect with list=",
    "source (redis://h:6379/x): expected the number of a database as the path, got another one",
  ]],
  ["mysql://h?outbox=a;drop", [
    "source (mysql://h:3306): outbox: expected the name of a table or schema.table: letters, digits and _, got something else",
    "source (mysql://h:3306): expected mysql://host/DATABASE, got no database",
  ]],
  ["redis://h?list=l,redis://other?list=l,redis://h?lits=l", [
    "source 2 (redis://other:6379): expected a name of its own (&name=), got redis:l, which another " +
    "source has",
    "source 3 (redis://h:6379): lits: unknown parameter; did you mean list?",
    "source 3 (redis://h:6379): expected one of list=, stream=, channel=, got none",
  ]],
];

describe("the URL of a source", () => {
  for (const [url, want] of READ) {
    test(url, () => assert.deepEqual({ ...source(url) }, want));
  }
  for (const [url, lines] of WRONG) {
    test(`wrong: ${url}`, () => {
      assert.deepEqual(
        problemsOf({ argv: [`--source=${url}`] }),
        lines.map((line) => `--source: ${line}`),
      );
    });
  }

  test("a file that it names is read at once, or is a problem", () => {
    const argv = ["--source=amqps://h?queue=q&password-file=/p&ca=/ca"];
    const { sourceFiles } = settingsOf({ argv, files: { "/p": "geheim\n", "/ca": "CA" } });
    assert.deepEqual(sourceFiles, { "/p": "geheim\n", "/ca": "CA" });
  });

  test("of each file that cannot be read, the parameter is named", () => {
    const urls = [
      "amqps://h?queue=q&password-file=/p&ca=/ca&cert=/c&key=/k",
      "nats://h?stream=S&creds=/creds",
      "nats://h?stream=T&nkey-file=/seed",
      "kafka://h/t?token-file=/token",
    ];
    assert.deepEqual(
      problemsOf({ argv: urls.map((url) => `--source=${url}`) }),
      [
        'amqp:q: ca: expected a readable file, got "/ca"',
        'amqp:q: cert: expected a readable file, got "/c"',
        'amqp:q: key: expected a readable file, got "/k"',
        'amqp:q: password-file: expected a readable file, got "/p"',
        'nats:S: creds: expected a readable file, got "/creds"',
        'nats:T: nkey-file: expected a readable file, got "/seed"',
        'kafka:t: token-file: expected a readable file, got "/token"',
      ].map((line) => `--source: ${line} (ENOENT: no such file or directory)`),
    );
  });

  test("by repeated flags, by lines of a file with comments, and as an array", () => {
    const urls = ["kafka://a,b/t", "redis://h?list=l"];
    const names = ["kafka:t", "redis:l"];
    for (
      const around of [
        { argv: urls.map((url) => `--source=${url}`) },
        { argv: [`--sources=${urls.join(",")}`] },
        { argv: ["--sources-file=f"], files: { f: `# ours\n${urls.join("  # one\n\n")}\n` } },
        { argv: ["--config=c"], files: { c: `sources = ${JSON.stringify(urls)}` } },
        { env: { SHISHI_SOURCES: urls.join(" , ") } },
      ]
    ) {
      assert.deepEqual(settingsOf(around).sources.map(({ name }) => name), names);
    }
  });
});

describe("the URL of an exit", () => {
  const EXITS: [string, Record<string, unknown>][] = [
    ["redis://host?channel=exitCh", { broker: "redis", channel: "exitCh", database: 0 }],
    ["kafka://host:9092/exit", { broker: "kafka", topic: "exit", sasl: null }],
    ["amqp://host?exchange=exitEx", {
      broker: "amqp",
      exchange: "exitEx",
      routingKey: "#",
      vhost: "/",
    }],
    ["nats://host?subject=exit", { broker: "nats", subject: "exit", creds: null }],
  ];
  for (const [url, want] of EXITS) {
    test(url, () => {
      const read: Record<string, unknown> = { ...exit(url) };
      for (const [name, value] of Object.entries(want)) assert.deepEqual(read[name], value, name);
    });
  }

  test("a parameter of a source is none of an exit, and a database has none", () => {
    assert.deepEqual(problemsOf({ argv: ["--exit=redis://h?channel=c&table=t,mysql://h/d"] }), [
      "--exit: exit 1 (redis://h:6379): table: unknown parameter",
      "--exit: exit 2 (mysql://h:3306/d): a database has no exit channel",
    ]);
  });

  test("what is sent to has no wildcard", () => {
    assert.deepEqual(problemsOf({ argv: ["--exit=nats://h?subject=exit.>"] }), [
      "--exit: exit (nats://h:4222): subject: expected a NATS subject without * and >, got " +
      "something else",
    ]);
  });
});
