/**
 * The defaults, and the many ways to write a value that is right.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Settings } from "../../src/settings/settings.ts";
import { endpoint, load, settingsOf } from "./kit.ts";

describe("defaults", () => {
  const settings = settingsOf({});
  test("are those of the contract", () => {
    assert.deepEqual(settings, {
      listen: [{ hostname: "127.0.0.1", port: 8080 }],
      adminListen: [],
      authTokens: [],
      writeTokens: [],
      tls: null,
      corsOrigins: [],
      pixel: false,
      rateLimit: null,
      authorities: null,
      trustedProxies: [],
      idleTimeoutMs: 255_000,
      maxBodyBytes: 10 * 2 ** 20,
      sharePort: false,
      clickhouse: [endpoint("127.0.0.1:8123", "default", "default")],
      table: "analytics_events",
      createTable: true,
      tables: [],
      createTables: [],
      unknownKeys: [{ table: null, policy: "error" }],
      maxNewColumns: 100,
      widen: false,
      cluster: null,
      typeCheck: "strict",
      eventWindow: { maxAgeMs: null, maxSkewMs: null },
      concurrency: 4,
      insertTimeoutMs: 30_000,
      compress: "auto",
      insertSettings: [],
      maxBlockSize: 10_000,
      maxBlockBytes: 8 * 2 ** 20,
      flushIntervalMs: 1000,
      idleIntervalMs: null,
      ack: "disk",
      backlog: 1_000_000,
      backlogBytes: 64 * 2 ** 20,
      tableShare: 0.5,
      shutdownTimeoutMs: 10_000,
      drainDelayMs: 0,
      idempotencyWindowMs: 3_600_000,
      dataDir: "./shishi-data",
      spoolMaxBytes: 2 ** 30,
      deadMaxBytes: 256 * 2 ** 20,
      sources: [],
      exits: [],
      sourceFiles: {},
      influx: null,
      influxIntervalMs: 10_000,
      nats: null,
      controlSecret: null,
      group: "default",
      id: "edge-7-example-com",
      logLevel: "info",
      logFormat: "auto",
    });
  });
  test("come without a warning", () => {
    const loaded = load({});
    assert.deepEqual(loaded.ok && loaded.warnings, []);
  });
  test("are frozen to the bottom", () => {
    const frozen = (value: unknown): boolean =>
      typeof value !== "object" || value === null ||
      (Object.isFrozen(value) && Object.values(value).every(frozen));
    assert.ok(frozen(settings));
    assert.throws(() => (settings.clickhouse as unknown[]).push(1), TypeError);
  });
});

describe("auth tokens", () => {
  const wanted = ["0123#456", "789=="];
  const file = "# the operators\n\n 0123#456  # Ann\r\n\t# 0000\n789==";
  test("by commas, by lines, as an array, and in a file with comments", () => {
    for (
      const around of [
        { argv: ["--auth-tokens", wanted.join(", ")] },
        { env: { SHISHI_AUTH_TOKENS: wanted.join("\n") } },
        { argv: ["--config=c"], files: { c: `auth-tokens = ${JSON.stringify(wanted)}` } },
        { argv: ["--auth-tokens-file=f"], files: { f: wanted.join(",") + "\n" } },
        { argv: ["--auth-tokens-file=f"], files: { f: file } },
        { argv: ["--config=c"], files: { c: 'auth-tokens-file = "f"', f: file } },
      ]
    ) assert.deepEqual(settingsOf(around).authTokens, wanted, JSON.stringify(around));
  });
});

/** Of each token: label, tables, quotas. */
const writersOf = (around: Parameters<typeof settingsOf>[0]) =>
  settingsOf(around).writeTokens.map(({ label, tables, quotas }) => [
    label,
    tables?.join() ?? "all",
    quotas.map(({ what, most, periodMs }) => `${most} ${what} in ${periodMs}`).join(),
  ]);

describe("write tokens", () => {
  const wanted = [
    ["web", "events,logs_*", "1000 rows in 1000,5368709120 bytes in 86400000"],
    ["app", "all", ""],
    ["ci", "Ünï,db.t", "10000 rows in 3600000,512 bytes in 60000"],
  ];
  const texts = [
    "web:0123=events,logs_*;1000/s;5GiB/d",
    "app:456==",
    "ci:789=Ünï,db.t;10_000/h;512B/m",
  ];
  const file = [
    "# who may append\r",
    "",
    `  ${texts[0]}   # the shop`,
    `${texts[1]}\r`,
    `#${texts[0]}`,
    texts[2],
  ].join("\n");
  test("by spaces, by lines, by flags, as an array, and in a file with comments", () => {
    for (
      const around of [
        { env: { SHISHI_WRITE_TOKENS: texts.join(" ") } },
        { env: { SHISHI_WRITE_TOKENS: texts.join("\n") } },
        { argv: texts.flatMap((text) => ["--write-tokens", text]) },
        { argv: ["--config=c"], files: { c: `write-tokens = ${JSON.stringify(texts)}` } },
        { argv: ["--config=c"], files: { c: `write-tokens = "${texts.join(" ")}"` } },
        { argv: ["--write-tokens-file=f"], files: { f: file } },
        { argv: ["--config=c"], files: { c: 'write-tokens-file = "f"', f: file } },
      ]
    ) assert.deepEqual(writersOf(around), wanted, JSON.stringify(around));
  });

  test("without a label it has a short one of its own, that stays", () => {
    const [[one], [two], [three]] = writersOf({ argv: ["--write-tokens=abc== abd== abc="] }) as [
      [string],
      [string],
      [string],
    ];
    for (const label of [one, two, three]) assert.match(label!, /^t-[0-9a-f]{6}$/);
    assert.equal(new Set([one, two, three]).size, 3);
    assert.deepEqual(writersOf({ argv: ["--write-tokens=abc=="] })[0]![0], one);
  });

  test("two of one label may be there at a time, with the same quotas", () => {
    const argv = ["--write-tokens", "web:old;5/s web:new;5/s"];
    assert.deepEqual(writersOf({ argv }).map(([label]) => label), ["web", "web"]);
  });

  test("nothing of the token is kept", () => {
    const settings = settingsOf({ argv: ["--write-tokens=web:a-very-secret-token"] });
    assert.doesNotMatch(JSON.stringify(settings), /secret/);
  });
});

describe("ways to write", () => {
  const readsTo: [string, Partial<Record<keyof Settings, unknown>>, Parameters<typeof load>[0]][] =
    [
      ["--create-table", { createTable: true }, { argv: ["--create-table"] }],
      ["--no-create-table", { createTable: false }, { argv: ["--no-create-table"] }],
      ["--create-table false", { createTable: false }, { argv: ["--create-table", "false"] }],
      ["--create-table --table", { createTable: true, table: "t" }, {
        argv: ["--create-table", "--table", "t"],
      }],
      ["repeated list flags add up", { tables: ["a", "b", "c"] }, {
        argv: ["--tables=a,b", "--tables=c"],
      }],
      ["clickhouse-dsn", { clickhouse: [endpoint("h", "default", "default")] }, {
        argv: ["--clickhouse-dsn=http://h"],
      }],
      ["SHISHI_CLICKHOUSE_DSN", { clickhouse: [endpoint("h", "default", "default")] }, {
        env: { SHISHI_CLICKHOUSE_DSN: "http://h" },
      }],
      ["spaces around a value", { table: "t", concurrency: 3 }, {
        env: { SHISHI_TABLE: " t\n", SHISHI_CONCURRENCY: "3 " },
      }],
      ["an empty variable counts as not set", { table: "analytics_events" }, {
        env: { SHISHI_TABLE: "", SHISHI_CONFIG: "", SHISHI_NATS_URL: "" },
      }],
      ["an empty flag takes a list back", { tables: [] }, {
        argv: ["--tables="],
        env: { SHISHI_TABLES: "a" },
      }],
      ["a small backlog lowers the default block", { backlog: 10, maxBlockSize: 10 }, {
        argv: ["--backlog=10"],
      }],
      ["so does a small budget of bytes", { backlogBytes: 2 ** 20, maxBlockBytes: 2 ** 20 }, {
        argv: ["--backlog-bytes=1MiB"],
      }],
      ["rates", { rateLimit: { count: 3, periodMs: 3_600_000 } }, { argv: ["--rate-limit=3/h"] }],
      ["port alone", { listen: [{ hostname: "", port: 8080 }] }, { argv: ["--listen=:8080"] }],
      ["a name to listen on", { listen: [{ hostname: "localhost", port: 0 }] }, {
        argv: ["--listen=localhost:0"],
      }],
      ["IPv6", { listen: [{ hostname: "::1", port: 80 }] }, { argv: ["--listen=[::1]:80"] }],
      ["variables of a Kubernetes service named shishi", {}, {
        env: {
          SHISHI_SERVICE_HOST: "10.0.0.1",
          SHISHI_SERVICE_PORT: "8080",
          SHISHI_SERVICE_PORT_HTTP: "8080",
          SHISHI_PORT: "tcp://10.0.0.1:8080",
          SHISHI_PORT_8080_TCP: "tcp://10.0.0.1:8080",
          SHISHI_PORT_8080_TCP_ADDR: "10.0.0.1",
        },
      }],
      ["TOML numbers, booleans, arrays", {
        concurrency: 7,
        maxBodyBytes: 4096,
        createTable: false,
        tables: ["a", "b_*"],
      }, {
        argv: ["--config=c"],
        files: {
          c: 'concurrency = 7\nmax-body-bytes = 4_096\ncreate-table = false\ntables = ["a", "b_*"]',
        },
      }],
      ["ack=disk", { ack: "disk" }, { argv: ["--ack=disk"] }],
      ["systemd's folder for state", { dataDir: "/var/lib/shishi" }, {
        env: { STATE_DIRECTORY: "/var/lib/shishi" },
      }],
      ["the first of several", { dataDir: "/var/lib/a" }, {
        env: { STATE_DIRECTORY: "/var/lib/a:/var/lib/b" },
      }],
      ["a folder that is named beats systemd's", { dataDir: "/data" }, {
        env: { STATE_DIRECTORY: "/var/lib/shishi", SHISHI_DATA_DIR: "/data" },
      }],
      ["a secret that begins with dashes", { authTokens: ["--0123456789abcdef"] }, {
        argv: ["--auth-tokens", "--0123456789abcdef"],
      }],
    ];
  for (const [name, want, around] of readsTo) {
    test(name, () => {
      const settings = settingsOf(around);
      for (const [key, value] of Object.entries(want)) {
        assert.deepEqual(settings[key as keyof Settings], value, key);
      }
    });
  }

  test("a ClickHouse URL is taken apart, percent-encoding undone", () => {
    const url = "https://us%40er:p%2Cw%3A%2F@db.example:8443/my%20db/, http://[::1]:8123";
    assert.deepEqual(settingsOf({ argv: ["--clickhouse-url", url] }).clickhouse, [
      {
        url: "https://db.example:8443",
        user: "us@er",
        password: "p,w:/",
        database: "my db",
        label: "https://db.example:8443/my%20db",
      },
      endpoint("[::1]:8123", "default", "default"),
    ]);
  });
  test("with ?database= the path leads to ClickHouse, as it is written", () => {
    const urls = [
      "http://u:p@h/click%20house/?database=db",
      "http://h/ch?database=",
      "http://h:1/?database=x",
    ];
    const found = settingsOf({ argv: ["--clickhouse-url", urls.join()] }).clickhouse;
    assert.deepEqual(found.map(({ url, database, label }) => [url, database, label]), [
      ["http://h/click%20house/", "db", "http://h/click%20house/?database=db"],
      ["http://h/ch", "default", "http://h/ch?database=default"],
      ["http://h:1", "x", "http://h:1/x"],
    ]);
  });
  test("spaces belong to a password", () => {
    const argv = ["--nats-url=ws://n", "--nats-user= u ", "--nats-password= p "];
    const auth = { kind: "user", user: "u", password: " p " };
    assert.deepEqual(settingsOf({ argv }).nats?.auth, auth);
  });
  test("a comma in a password does not end the URL", () => {
    const [one, ...more] = settingsOf({ argv: ["--clickhouse-url", "http://u:a,b@h"] }).clickhouse;
    assert.deepEqual([one?.password, more], ["a,b", []]);
  });
});
