/**
 * Bad settings: each with a line that says where it came from, what was found and what was wanted.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Around, CERT, CREDS, KEY, linesOf, load, problemsOf, SEED } from "./kit.ts";

const WORKERS_GONE =
  "is gone; run several collectors with share-port instead, each with its own id and data-dir " +
  "(as a service: shishi@.service)";

/** The lines that the settings give, exactly; [what is given, the lines]. */
const LINES: [string, Around, string[]][] = [
  ["duration", { argv: ["--flush-interval", "fast"] }, [
    '--flush-interval: expected a duration such as 500ms, 1s or 5m, got "fast"',
  ]],
  ["environment", { env: { SHISHI_FLUSH_INTERVAL: "1" } }, [
    "flush-interval (environment SHISHI_FLUSH_INTERVAL): " +
    'expected a duration such as 500ms, 1s or 5m, got "1"',
  ]],
  ["file", { argv: ["--config=a.toml"], files: { "a.toml": 'flush-interval = "x"' } }, [
    'flush-interval (file a.toml): expected a duration such as 500ms, 1s or 5m, got "x"',
  ]],
  ["bounds", { argv: ["--flush-interval=2h", "--concurrency=0", "--max-body-bytes=2GiB"] }, [
    '--max-body-bytes: expected a size from 1KiB to 1GiB, got "2GiB"',
    '--concurrency: expected a whole number from 1 to 256, got "0"',
    '--flush-interval: expected a duration from 10ms to 1h, got "2h"',
  ]],
  ["off, where it can be", { argv: ["--idle-interval=no", "--insert-timeout=off"] }, [
    '--insert-timeout: expected a duration such as 500ms, 1s or 5m, got "off"',
    '--idle-interval: expected a duration such as 500ms, 1s or 5m, or off, got "no"',
  ]],
  ["words", { argv: ["--ack=tape", "--log-level=loud"] }, [
    '--ack: expected memory, disk or clickhouse, got "tape"',
    '--log-level: expected debug, info, warn or error, got "loud"',
  ]],
  ["listen", { argv: ["--listen=8080"] }, [
    '--listen: expected address:port such as 127.0.0.1:8080, [::1]:8080 or :8080, or unix:/path, got "8080"',
  ]],
  ["port", { argv: ["--listen=:65536"] }, [
    '--listen: expected address:port such as 127.0.0.1:8080, [::1]:8080 or :8080, or unix:/path, got ":65536"',
  ]],
  ["client certificates without TLS or authorities", { argv: ["--tls-client-auth=optional"] }, [
    "--tls-client-auth: expected tls-cert too, got optional alone",
    "--tls-client-auth: expected tls-client-ca too, got optional alone",
  ]],
  ["what is no authority's file", {
    argv: ["--tls-client-ca=f", "--tls-client-auth=maybe"],
    files: { f: "x" },
  }, [
    '--tls-client-auth: expected off, optional or required, got "maybe"',
    '--tls-client-ca: expected a PEM file with certificates, got "f" with something else in it',
  ]],
  ["one address for both", { argv: ["--listen=:0,:81", "--admin-listen=:0,:81"] }, [
    "--admin-listen: expected another address than those of listen, got :81",
  ]],
  ["table", { argv: ["--table=a/b"] }, [
    "--table: expected a table name such as events, my-events or db.events, " +
    '127 characters at most, got "a/b"',
  ]],
  ["list item", { argv: ["--tables=a,b;c,d"] }, [
    "--tables: expected table names, db.table, or patterns such as logs_* and db.logs_*, " +
    'separated by commas, got "b;c"',
  ]],
  ["group all", { argv: ["--group=all"] }, [
    "--group: expected a name of at most 128 characters other than all, " +
    'which means every collector, got "all"',
  ]],
  ["origin with a path", { argv: ["--cors-origins=https://a.example/x"] }, [
    "--cors-origins: expected origins such as https://app.example.com " +
    '(scheme, host and port only), or *, got "https://a.example/x"',
  ]],
  ...["null", "app.example", "https://u:p@a.example", "ftp://a.example", "https://*.example"].map(
    (text): [string, Around, string[]] => [`origin ${text}`, { argv: [`--cors-origins=${text}`] }, [
      "--cors-origins: expected origins such as https://app.example.com " +
      `(scheme, host and port only), or *, got "${text}"`,
    ]],
  ),
  ...["100", "0/s", "-1/s", "1.5/s", "1/d", "1/s/s", "1000001/s", "/s"].map(
    (text): [string, Around, string[]] => [`rate ${text}`, { argv: [`--rate-limit=${text}`] }, [
      "--rate-limit: expected a rate such as 100/s, 600/m or 10_000/h, from 1 to 1000000, or off, " +
      `got "${text}"`,
    ]],
  ),
  ["unknown flag", { argv: ["--flush-intervall", "1s", "--tabel=x"] }, [
    "--flush-intervall: unknown flag; did you mean --flush-interval?",
    "--tabel: unknown flag; did you mean --table?",
  ]],
  ["a Go flag", { argv: ["-backlog", "1000"] }, [
    "-backlog: unknown flag; did you mean --backlog?",
  ]],
  ["a setting that is gone", {
    argv: ["--workers", "2", "--config=a.toml"],
    env: { SHISHI_WORKERS: "2" },
    files: { "a.toml": "workers = 2" },
  }, [
    `--workers: ${WORKERS_GONE}`,
    `SHISHI_WORKERS: ${WORKERS_GONE}`,
    `workers (file a.toml): ${WORKERS_GONE}`,
  ]],
  ["one id for several collectors", { argv: ["--share-port"] }, [
    "--share-port: expected an id too: each collector on a port needs one of its own",
  ]],
  ["nothing like it", { argv: ["--xyzzy"] }, ["--xyzzy: unknown flag"]],
  ["two letters of another", { argv: ["-v", "--ab"] }, [
    "-v: unknown flag",
    "--ab: unknown flag",
  ]],
  ["one letter wrong of two", { argv: ["--di"] }, ["--di: unknown flag; did you mean --id?"]],
  ["unknown variable", { env: { SHISHI_BACKLOGS: "5", PATH: "/bin" } }, [
    "SHISHI_BACKLOGS: unknown environment variable; did you mean SHISHI_BACKLOG?",
  ]],
  ["a port is no setting", { env: { SHISHI_PORT: "9000" } }, [
    "SHISHI_PORT: unknown environment variable",
  ]],
  ["unknown key", { argv: ["--config=c"], files: { c: "flush_interval = 1\nconfig = 'd'" } }, [
    "flush_interval (file c): unknown key; did you mean flush-interval?",
    "config (file c): cannot be set in a file",
  ]],
  ["TOML tables", { argv: ["--config=c"], files: { c: '[nats]\nurl = "x"' } }, [
    'nats (file c): expected settings without tables, such as clickhouse-url = "…", got a table',
  ]],
  ["TOML types", {
    argv: ["--config=c"],
    files: { c: 'table = 5\ntables = "a"\nlisten = ["a"]\nack = 2020-01-01\nlog-level = true' },
  }, [
    "table (file c): expected a table name such as events, my-events or db.events, " +
    "127 characters at most, got 5",
    "ack (file c): expected memory, disk or clickhouse, got a date or time",
    "log-level (file c): expected debug, info, warn or error, got true",
    'listen (file c): expected address:port such as 127.0.0.1:8080, [::1]:8080 or :8080, or unix:/path, got "a"',
  ]],
  ["TOML fraction", { argv: ["--config=c"], files: { c: "concurrency = 1.5" } }, [
    'concurrency (file c): expected a whole number such as 1000 or 1_000_000, got "1.5"',
  ]],
  [
    "TOML syntax",
    { argv: ["--config=c.toml"], files: { "c.toml": 'table = "a"\nack = memory\n' } },
    [
      "c.toml:2:7: not TOML: invalid value",
    ],
  ],
  ["no such config", { argv: ["--config", "/no/x.toml"] }, [
    "--config: expected a readable TOML file, " +
    'got "/no/x.toml" (ENOENT: no such file or directory)',
  ]],
  ["no such secret file", { env: { SHISHI_NATS_TOKEN_FILE: "/no" } }, [
    "nats-token-file (environment SHISHI_NATS_TOKEN_FILE): expected a readable file, " +
    'got "/no" (ENOENT: no such file or directory)',
  ]],
  ["an empty secret file", { argv: ["--auth-tokens-file=f"], files: { f: " \n" } }, [
    "--auth-tokens-file: expected tokens of visible ASCII characters, separated by commas or one a " +
    'line, got the empty file "f"',
  ]],
  ["a token file of comments alone", { argv: ["--auth-tokens-file=f"], files: { f: "# a\n #b" } }, [
    "--auth-tokens-file: expected tokens of visible ASCII characters, separated by commas or one a " +
    "line, got ***",
  ]],
  ["an empty secret", { env: { SHISHI_AUTH_TOKENS: "" } }, [
    "auth-tokens (environment SHISHI_AUTH_TOKENS): expected tokens of visible ASCII characters, " +
    "separated by commas or one a line, got nothing (leave it out for none)",
  ]],
  ["no value", { argv: ["--table", "--ack"] }, [
    "--table: expected a table name such as events, my-events or db.events, " +
    "127 characters at most, got nothing",
    "--ack: expected memory, disk or clickhouse, got nothing",
  ]],
  ["twice", { argv: ["--table=a", "--table=b"] }, ["--table: expected once, got it 2 times"]],
  ["under both names", { argv: ["--clickhouse-dsn=http://a", "--clickhouse-url=http://b"] }, [
    "--clickhouse-dsn and --clickhouse-url: expected one of them, got both",
  ]],
  ["stray word", { argv: ["server", "--create-table", "maybe"] }, [
    'unexpected argument "server": expected a flag such as --listen',
    'unexpected argument "maybe": expected a flag such as --listen',
  ]],
  ...([
    ["a,b", "token 1: a comma or a second colon in the token (separate tokens by spaces)"],
    ["ok web:x:y", "token 2: a comma or a second colon in the token (separate tokens by spaces)"],
    ["web:", "token 1: nothing before = or ;"],
    ["=events", "token 1: nothing before = or ;"],
    ["a=events,", "token 1: table 2 has a name that no table has"],
    ["a=x y=b/c", "token 2: table 1 has a name that no table has"],
    ["a;1000", "token 1: quota 1 is not like 1000/s or 5GiB/d"],
    ["a;1/s;0/d", "token 1: quota 2 is not like 1000/s or 5GiB/d"],
    ["a;5GiB/w", "token 1: quota 1 is not like 1000/s or 5GiB/d"],
    ["a b a", "token 3: one that was given before"],
    ["é", "token 1: a sign that is no visible ASCII"],
    ["# none\n", "nothing but comments"],
    [
      "web:a;1/s web:b;2/s",
      "token 2: other quotas than those of another token with the label web",
    ],
  ] as const).map(([text, found]): [string, Around, string[]] => [
    `write-tokens ${text}`,
    { env: { SHISHI_WRITE_TOKENS: text } },
    [
      "write-tokens (environment SHISHI_WRITE_TOKENS): expected tokens such as " +
      "web:TOKEN=events,logs_*;1000/s;5GiB/d, one a line or separated by spaces, got " + found,
    ],
  ]),
  ["stray words that may be secrets", { argv: ["--auth-tokens", "a", "b", "-x", "c", "d"] }, [
    "unexpected argument *** after --auth-tokens: expected a flag such as --listen",
    "-x: unknown flag",
    "unexpected argument *** after -x: expected a flag such as --listen",
  ]],
  ["a value for --no", { argv: ["--no-create-table=x"] }, [
    '--no-create-table: expected no value, got "x"',
  ]],
  ["native port", { argv: ["--clickhouse-dsn=tcp://h:9000?database=x&password=topsecret"] }, [
    "--clickhouse-dsn: expected a URL of the HTTP interface (not of a native port) such as " +
    'http(s)://user:password@host:8123/database, got "tcp://h:9000?***"',
  ]],
  ["query string", { argv: ["--clickhouse-url=http://h:8123/?database=x&async_insert=1"] }, [
    "--clickhouse-url: expected http(s)://user:password@host:8123/database without a query string " +
    "other than ?database=, got the query parameters database, async_insert",
  ]],
  ["influx has no such query", { argv: ["--influx-url=http://h/p/?database=x"] }, [
    "--influx-url: expected http(s)://user:password@host:8086/database without a query string, " +
    "got the query parameters database",
  ]],
  ["path before ClickHouse", { argv: ["--clickhouse-url=http://h/ch/default"] }, [
    "--clickhouse-url: expected http(s)://user:password@host:8123/database with one database name as " +
    "its path, or http(s)://host/path/?database=database where a path leads to the server, got " +
    '"http://h/ch/default"',
  ]],
  ["header without a name", { argv: ["--clickhouse-headers=Bearer topsecret"] }, [
    "--clickhouse-headers: expected headers such as Authorization: Bearer abc, separated by commas, got ***",
  ]],
  ["header of HTTP", { argv: ["--clickhouse-headers=X-A: topsecret, Content-Length: 3"] }, [
    "--clickhouse-headers: expected headers other than those that HTTP itself needs, got " +
    '"Content-Length"',
  ]],
  ["header of ClickHouse", { argv: ["--clickhouse-headers=X-ClickHouse-Key: topsecret"] }, [
    "--clickhouse-headers: expected headers other than ClickHouse's own: clickhouse-url has user and " +
    'password, insert-settings has settings, got "X-ClickHouse-Key"',
  ]],
  ["setting without a value", { argv: ["--insert-settings=insert_quorum"] }, [
    "--insert-settings: expected settings of ClickHouse such as insert_quorum=2, or " +
    'logs_*:insert_quorum=2 for some tables, separated by commas, got "insert_quorum"',
  ]],
  ["setting for no table", { argv: ["--insert-settings=a%b:insert_quorum=2"] }, [
    "--insert-settings: expected settings of ClickHouse such as insert_quorum=2, or " +
    'logs_*:insert_quorum=2 for some tables, separated by commas, got "a%b:insert_quorum=2"',
  ]],
  ...["async_insert", "insert_deduplication_token", "wait_end_of_query", "database", "profile"].map(
    (name): [string, Around, string[]] => [
      `a setting of the collector itself: ${name}`,
      { argv: [`--insert-settings=max_threads=1,t:${name}=1`] },
      [
        "--insert-settings: expected settings other than those that the collector itself sets on " +
        `its INSERTs, got ${name}`,
      ],
    ],
  ),
  ["path", { argv: ["--influx-url=http://u:topsecret@h/a/b"] }, [
    "--influx-url: expected http(s)://user:password@host:8086/database with one database name as " +
    'its path, got "http://***@h/a/b"',
  ]],
  ["host without scheme", { argv: ["--influx-url=localhost:8086"] }, [
    "--influx-url: expected a URL of the HTTP interface (not of a native port) such as " +
    'http(s)://user:password@host:8086/database, got "localhost:8086"',
  ]],
  ["nats scheme", { argv: ["--nats-url=amqp://h:4222"] }, [
    "--nats-url: expected nats://host:port or tls://host:port of a NATS server, or ws:// or wss:// of " +
    'its websocket, got "amqp://h:4222"',
  ]],
  ["nats without scheme", { argv: ["--nats-url=ws://a,demo.nats.io"] }, [
    "--nats-url: expected nats://host:port or tls://host:port of a NATS server, or ws:// or wss:// of " +
    'its websocket, got "ws://a,demo.nats.io"',
  ]],
  ["nats credentials", { argv: ["--nats-url=ws://u:topsecret@h"] }, [
    "--nats-url: expected an address without credentials (nats-user, nats-password and " +
    'nats-token take them), got "ws://***@h"',
  ]],
  ["subject", { argv: ["--nats-subject=shishi.>"] }, [
    "--nats-subject: expected a NATS subject such as shishi or prod.shishi: letters, digits, - " +
    'and _ between dots, got "shishi.>"',
  ]],
  ["nkey", { argv: ["--nats-nkey=topsecret"] }, [
    "--nats-nkey: expected the seed of a NATS user: SU and 56 more capital letters and digits, " +
    "got ***",
  ]],
  ["half of TLS", { argv: ["--tls-cert=c"], files: { c: CERT } }, [
    "--tls-cert: expected tls-key too, got tls-cert alone",
  ]],
  ["PEM files", { argv: ["--tls-cert=k", "--tls-key=none"], files: { k: KEY } }, [
    '--tls-cert: expected a PEM file with a certificate, got "k" with something else in it',
    '--tls-key: expected a PEM file with a private key, got "none" ' +
    "(ENOENT: no such file or directory)",
  ]],
  ["block larger than backlog", { argv: ["--max-block-size=101", "--backlog=100"] }, [
    "--max-block-size: expected at most backlog (100), got 101",
  ]],
  ["block larger than the budget", { argv: ["--max-block-bytes=65MiB"] }, [
    "--max-block-bytes: expected at most backlog-bytes (64MiB), got 65MiB",
  ]],
  ["two ways to authenticate", {
    argv: ["--nats-creds=c", "--nats-user=u"],
    env: { SHISHI_NATS_NKEY: SEED },
    files: { c: CREDS },
  }, [
    "--nats-creds, nats-nkey (environment SHISHI_NATS_NKEY), --nats-user: " +
    "expected one way to authenticate, got 3",
  ]],
  ["password alone", { argv: ["--nats-password=topsecret"] }, [
    "--nats-password: expected nats-user too, got nats-password alone",
  ]],
  ["control characters stay on one line", { argv: ["--table=a\nb\u2028c\u009b"] }, [
    "--table: expected a table name such as events, my-events or db.events, " +
    '127 characters at most, got "a\\nb?c?"',
  ]],
  ["a very long value", { argv: [`--table=${"-".repeat(200)}`] }, [
    "--table: expected a table name such as events, my-events or db.events, " +
    `127 characters at most, got "${"-".repeat(77)}..."`,
  ]],
];

/** @param label as given. @param more a further way. */
function inTheOpen(label: string, name: string, more = ""): string {
  const variable = `SHISHI_${name.toUpperCase().replaceAll("-", "_")}`;
  return `--${label}: every user of this host can read a secret on a command line (ps): instead ` +
    `${name}-file, ${variable} or a settings file${more}`;
}

const IN_URL = ", or password-file= in the URL";
const WARNINGS: [string, Around, string[]][] = [
  ["secrets on the command line", {
    argv: [
      "--clickhouse-url=http://u:p@h",
      "--clickhouse-headers=Authorization: Bearer abc",
      "--influx-url=http://u:p@h/d",
      "--source=redis://:p@h?list=l",
      "--source=redis://h2?list=m",
      "--exits=amqp://u:p@h?exchange=e",
      "--nats-url=nats://h",
      "--nats-token=t",
    ],
  }, [
    inTheOpen("clickhouse-url", "clickhouse-url"),
    inTheOpen("clickhouse-headers", "clickhouse-headers"),
    inTheOpen("source", "sources", IN_URL),
    inTheOpen("exits", "exits", IN_URL),
    inTheOpen("influx-url", "influx-url"),
    inTheOpen("nats-token", "nats-token"),
  ]],
  ["URLs without passwords, and secrets elsewhere", {
    argv: [
      "--clickhouse-url=http://h",
      "--influx-url=http://h/d",
      "--source=redis://u@h?list=l&password-file=/p",
      "--auth-tokens-file=/p",
    ],
    env: { SHISHI_EXITS: "amqp://u:p@h?exchange=e" },
    files: { "/p": "0123456789abcdef" },
  }, []],
  ["open to others", { argv: ["--listen=[::]:80"] }, [
    "listen: [::]:80 can be reached by others and auth-tokens is not set: " +
    "every client that reaches it can write",
  ]],
  ["open, with tokens", {
    argv: ["--listen=:80"],
    env: { SHISHI_AUTH_TOKENS: "0123456789abcdef" },
  }, []],
  ["loopback", { argv: ["--listen=127.9.0.1:80"] }, []],
  ["open, with write tokens", {
    argv: ["--listen=:80"],
    env: { SHISHI_WRITE_TOKENS: "0123456789abcdef", SHISHI_AUTH_TOKENS: "0123456789abcdef" },
  }, []],
  ["authorities of nobody", { argv: ["--tls-client-ca=f"], files: { f: CERT } }, [
    "--tls-client-ca: has no effect while tls-client-auth is off",
  ]],
  ["an open admin port", { argv: ["--admin-listen=:81,127.0.0.1:82"] }, [
    "admin-listen: :81 can be reached by others and auth-tokens is not set: every client that " +
    "reaches it can read, and delete dead letters",
  ]],
  ["write tokens and an admin port", {
    argv: ["--admin-listen=127.0.0.1:82"],
    env: { SHISHI_WRITE_TOKENS: "0123456789abcdef" },
  }, []],
  ["write tokens alone, a short one", { env: { SHISHI_WRITE_TOKENS: "web:short" } }, [
    "write-tokens: web is shorter than 16 characters and may be guessed",
    "write-tokens: auth-tokens is not set: the page, metrics, status and queries are refused",
  ]],
  ["short token", { env: { SHISHI_AUTH_TOKENS: "0123456789abcdef,short" } }, [
    "auth-tokens: token 2 of 2 is shorter than 16 characters and may be guessed",
  ]],
  ["short control secret", {
    argv: ["--nats-url=ws://h"],
    env: { SHISHI_CONTROL_SECRET: "short" },
  }, [
    "control-secret (environment SHISHI_CONTROL_SECRET): is shorter than 16 characters and may be " +
    "guessed",
  ]],
  ["control secret without NATS", { env: { SHISHI_CONTROL_SECRET: "0123456789abcdef" } }, [
    "control-secret (environment SHISHI_CONTROL_SECRET): has no effect without nats-url or exits",
  ]],
  ["control secret for exits", {
    argv: ["--exit=redis://h?channel=c"],
    env: { SHISHI_CONTROL_SECRET: "0123456789abcdef" },
  }, []],
  ["idle longer than flush", { argv: ["--idle-interval=5s"] }, [
    "idle-interval: 5s has no effect, because flush-interval (1s) always comes first",
  ]],
  ["NATS credentials without NATS", { env: { SHISHI_NATS_TOKEN: "topsecret" } }, [
    "nats-token (environment SHISHI_NATS_TOKEN): has no effect without nats-url",
  ]],
];

describe("problems", () => {
  for (const [name, around, want] of LINES) {
    test(name, () => assert.deepEqual(problemsOf(around), want));
  }

  test("all at once, from every source", () => {
    const problems = problemsOf({
      argv: ["--ack=never", "--wat", "--max-block-size=5", "--backlog=4", "--tls-key=k"],
      env: { SHISHI_LISTEN: "x", SHISHI_WAT: "1", SHISHI_CONFIG: "c" },
      files: { c: 'concurrency = 1000\nwat = 1\ntable = "a/1"' },
    });
    const about = [
      "--ack",
      "--wat",
      "SHISHI_LISTEN",
      "SHISHI_WAT",
      "concurrency (file c)",
      "wat (file c)",
    ];
    for (
      const start of [...about, "table (file c)", "--max-block-size", "--tls-key: expected tls"]
    ) {
      assert.ok(problems.some((line) => line.includes(start)), `${start}\n${problems.join("\n")}`);
    }
    assert.equal(problems.length, 10, problems.join("\n"));
  });

  test("what a winner hides is no problem", () => {
    const env = { SHISHI_TABLE: "1", SHISHI_CONFIG: "c" };
    assert.ok(load({ argv: ["--table=t"], env, files: { c: 'table = "a/2"' } }).ok);
  });
});

describe("warnings", () => {
  for (const [name, around, want] of WARNINGS) {
    test(name, () => {
      assert.ok(load(around).ok);
      assert.deepEqual(linesOf(around), want);
    });
  }
});
