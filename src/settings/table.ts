/**
 * The settings of Shishi: declared here and nowhere else. Flag, environment variable, TOML key, `--help`
 * and the table of docs/settings.md all come from these rows, in this order.
 */

import {
  boolean,
  clusterName,
  count,
  duration,
  durationOrOff,
  endpoint,
  endpoints,
  groupLabel,
  headers,
  insertSettings,
  keyRule,
  label,
  list,
  listenAddress,
  natsServers,
  nkeySeed,
  oneOf,
  origin,
  proxy,
  rateOrOff,
  share,
  size,
  subject,
  tableGlob,
  tableName,
  text,
  tokens,
  writeTokens,
} from "./kinds.ts";
import { exitUrls, sourceUrls } from "./source_urls.ts";
import { section, setting } from "./spec.ts";

const KIB = 1024;
const GIB = 1024 ** 3;
const HOUR_MS = 3_600_000;
const YEAR_MS = 366 * 24 * HOUR_MS;
const file = text("FILE", "the path of a file");

/** Those of remote control: they are also what the commands that go over NATS take. */
export const NATS = section("NATS", [
  setting({
    name: "nats-url",
    kind: natsServers,
    default: null,
    meaning:
      "address of NATS: nats://, tls://, or of its websocket, ws:// or wss://; unset = no remote " +
      "control",
  }),
  setting({
    name: "nats-subject",
    kind: subject,
    default: "shishi",
    meaning: "prefix of the control subjects",
  }),
  setting({
    name: "nats-creds",
    kind: file,
    default: null,
    meaning: "authenticate with a .creds file",
  }),
  setting({
    name: "nats-nkey",
    kind: nkeySeed,
    default: null,
    meaning: "authenticate with an NKey seed (SU...)",
    secret: true,
  }),
  setting({
    name: "nats-user",
    kind: text("NAME", "a user name"),
    default: null,
    meaning: "authenticate as this user",
  }),
  setting({
    name: "nats-password",
    kind: text("PASSWORD", "a password"),
    default: null,
    meaning: "password of nats-user",
    secret: true,
  }),
  setting({
    name: "nats-token",
    kind: text("TOKEN", "a token"),
    default: null,
    meaning: "authenticate with a token",
    secret: true,
  }),
  setting({
    name: "control-secret",
    kind: text("SECRET", "a secret"),
    default: null,
    meaning:
      "once set, commands over NATS and messages of exits are signed with it, and obeyed only " +
      "when they are",
    secret: true,
  }),
]);

export const TABLE = [
  ...section("HTTP", [
    setting({
      name: "listen",
      kind: list(listenAddress),
      default: "127.0.0.1:8080",
      meaning: "where the HTTP server listens, one or several; :8080 is every IPv6 and IPv4 " +
        "address, localhost both loopbacks, port 0 any free port, unix:/PATH a socket in the file " +
        "system; an address that others can reach prints a warning unless auth-tokens are set",
      restart: true,
    }),
    setting({
      name: "admin-listen",
      kind: list(listenAddress),
      default: null,
      meaning:
        "where the page, metrics, status, queries and dead letters are served instead, one " +
        "or several as for listen: the addresses of listen then take events alone; health is on both",
      restart: true,
    }),
    setting({
      name: "auth-tokens",
      kind: tokens,
      default: null,
      meaning:
        "bearer tokens; once set, every request but those for /, /shishi.js, /healthz and /readyz needs one",
      secret: true,
    }),
    setting({
      name: "write-tokens",
      kind: writeTokens,
      default: null,
      meaning:
        "bearer tokens that may only append, such as web:TOKEN=events,logs_*;1000/s;5GiB/d: " +
        "a label, the tables (all unless given; events is POST /events) and how many rows or bytes " +
        "of them a second, minute, hour or day; several by spaces or lines",
      secret: true,
    }),
    setting({
      name: "tls-cert",
      kind: file,
      default: null,
      meaning: "PEM file with the certificate chain: serve HTTPS (together with tls-key)",
    }),
    setting({
      name: "tls-key",
      kind: file,
      default: null,
      meaning: "PEM file with the private key of tls-cert",
    }),
    setting({
      name: "tls-client-auth",
      kind: oneOf(["off", "optional", "required"]),
      default: "off",
      meaning: "ask clients for a certificate: optional = one that is shown has to be good, " +
        "required = every client shows a good one",
      restart: true,
    }),
    setting({
      name: "tls-client-ca",
      kind: file,
      default: null,
      meaning: "PEM file with the authorities whose client certificates are good",
    }),
    setting({
      name: "ca-file",
      kind: file,
      default: null,
      meaning:
        "PEM file with authorities to trust besides the runtime's and the system's, wherever " +
        "the program connects with TLS: ClickHouse, InfluxDB, NATS, a collector",
      restart: true,
    }),
    setting({
      name: "cors-origins",
      kind: list(origin),
      default: null,
      meaning: "origins whose pages may post events, such as https://app.example.com, or *; " +
        "what a browser sends for any other page is refused",
    }),
    setting({
      name: "pixel",
      kind: boolean,
      default: "false",
      meaning: "GET /events?eventType=open&userId=u1 takes an event too and answers a picture of " +
        "one pixel, for mails and <img>; pages of every site may use it",
    }),
    setting({
      name: "rate-limit",
      kind: rateOrOff({ min: 1, max: 1_000_000 }),
      default: "off",
      meaning:
        "requests of one token, or of one address (IPv6: one /64) that comes without, such as " +
        "100/s or 600/m; as many may come at once; more are refused with 429; health is free",
    }),
    setting({
      name: "trusted-proxies",
      kind: list(proxy),
      default: null,
      meaning: "proxies in front: from these alone, X-Forwarded-For or Forwarded " +
        "says whose request it is, for rate-limit and the log",
    }),
    setting({
      name: "max-body-bytes",
      kind: size({ min: KIB, max: GIB }),
      default: "10MiB",
      meaning: "largest request body, as sent and again after decompression",
    }),
    setting({
      name: "idle-timeout",
      kind: duration({ min: 60_000, max: HOUR_MS }),
      default: "255s",
      meaning:
        "a connection on which nothing moves is closed after this (over 255s: never); set it " +
        "longer than a proxy in front keeps its connections",
      restart: true,
    }),
    setting({
      name: "share-port",
      kind: boolean,
      default: "false",
      meaning: "several collectors, each with an id and a data-dir of its own, may listen on " +
        "this address; the system distributes the connections (Linux only)",
      restart: true,
    }),
  ]),
  ...section("ClickHouse", [
    setting({
      name: "clickhouse-url",
      kind: endpoints({ user: "default", database: "default", port: 8123, behind: true }),
      default: "http://127.0.0.1:8123",
      meaning:
        "http(s)://user:password@host:port/database, or, where a path leads to ClickHouse, " +
        "http(s)://user:password@host/path/?database=database; several = failover in order of health",
      secret: true,
      aliases: ["clickhouse-dsn"],
    }),
    setting({
      name: "clickhouse-headers",
      kind: headers,
      default: null,
      meaning: "headers of every request to ClickHouse, for what stands before it, such as " +
        "Authorization: Bearer abc",
      secret: true,
    }),
    setting({
      name: "table",
      kind: tableName,
      default: "analytics_events",
      meaning: "the table behind POST /events",
    }),
    setting({
      name: "create-table",
      kind: boolean,
      default: "true",
      meaning: "create that table when it is missing",
    }),
    setting({
      name: "tables",
      kind: list(tableGlob),
      default: null,
      meaning: "other tables behind POST /events/TABLE: names or globs (* and ?)",
    }),
    setting({
      name: "create-tables",
      kind: list(tableGlob),
      default: null,
      meaning:
        "tables that are made when they are missing, of the first rows that come for them; " +
        "they need not stand in tables too",
    }),
    setting({
      name: "unknown-keys",
      kind: list(keyRule),
      default: "error",
      meaning: "a key that is no column: error = of its row, skip = left out, column = the table " +
        "gets one, keep = all of them go into the column _rest; for some tables such as " +
        "error,logs_*=column",
    }),
    setting({
      name: "max-new-columns",
      kind: count({ min: 1, max: 10_000 }),
      default: "100",
      meaning:
        "columns that create-tables makes a table of at most, and that unknown-keys adds to " +
        "one at most",
    }),
    setting({
      name: "widen",
      kind: boolean,
      default: "false",
      meaning:
        "a value that its column cannot hold widens it where that is safe: an integer to a " +
        "wider one or to Float64, Date to DateTime64; nothing becomes text",
    }),
    setting({
      name: "cluster",
      kind: clusterName,
      default: null,
      meaning: "tables are made and given columns ON CLUSTER this one, those that are made as " +
        "ReplicatedMergeTree",
    }),
    setting({
      name: "type-check",
      kind: oneOf(["strict", "off"]),
      default: "strict",
      meaning: "strict = a value that its column cannot hold is an error of its row; off = " +
        "only ClickHouse checks, and silently changes some values",
    }),
    setting({
      name: "max-event-age",
      kind: durationOrOff({ min: 1000, max: 100 * YEAR_MS }),
      default: "off",
      meaning: "an event whose time is longer ago is refused, such as 30d",
    }),
    setting({
      name: "max-event-skew",
      kind: durationOrOff({ min: 1000, max: 100 * YEAR_MS }),
      default: "off",
      meaning: "an event whose time is further ahead is refused, such as 1h",
    }),
    setting({
      name: "concurrency",
      kind: count({ min: 1, max: 256 }),
      default: "4",
      meaning: "INSERTs in flight, all tables together",
    }),
    setting({
      name: "insert-timeout",
      kind: duration({ min: 100, max: HOUR_MS }),
      default: "30s",
      meaning: "of one attempt to insert, body included",
    }),
    setting({
      name: "insert-settings",
      kind: insertSettings,
      default: null,
      meaning:
        "settings of ClickHouse for every INSERT, such as insert_quorum=2, or for those into " +
        "some tables, such as logs_*:insert_quorum=2; those that the collector itself relies on are refused",
    }),
    setting({
      name: "compress",
      kind: oneOf(["auto", "gzip", "none"]),
      default: "auto",
      meaning:
        "how INSERTs travel; auto = gzip, but plain to a ClickHouse on this host that has deduplication " +
        "tokens (one without them may keep a part of a plain INSERT that breaks off: never choose none for it)",
    }),
  ]),
  ...section("Batches", [
    setting({
      name: "max-block-size",
      kind: count({ min: 1, max: 100_000_000 }),
      default: "10000",
      meaning:
        "rows in a batch at most; never more than backlog; a write with an Idempotency-Key is not cut, " +
        "nor what is read of a source together",
    }),
    setting({
      name: "max-block-bytes",
      kind: size({ min: KIB, max: GIB }),
      default: "8MiB",
      meaning: "bytes in a batch at most; never more than backlog-bytes",
    }),
    setting({
      name: "flush-interval",
      kind: duration({ min: 10, max: HOUR_MS }),
      default: "1s",
      meaning:
        "a batch is sent when it is full or its oldest row has waited this long; later while " +
        "ClickHouse is slow or away",
    }),
    setting({
      name: "idle-interval",
      kind: durationOrOff({ min: 10, max: HOUR_MS }),
      default: "off",
      meaning: "send a batch as soon as nothing has arrived for this long",
    }),
  ]),
  ...section("Safety", [
    setting({
      name: "ack",
      kind: oneOf(["memory", "disk", "clickhouse"]),
      default: "disk",
      meaning: "when a write is answered: memory = buffered, disk = synced to the spool, " +
        "clickhouse = inserted (spooled first; not inserted within insert-timeout: 202)",
    }),
    setting({
      name: "idempotency-window",
      kind: duration({ min: 1_000, max: 7 * 24 * HOUR_MS }),
      default: "1h",
      meaning:
        "how long a write with an Idempotency-Key, and a source's message with an id, is remembered: " +
        "the same one again is answered and not stored; of very many the oldest are forgotten earlier",
    }),
    setting({
      name: "backlog",
      kind: count({ min: 1, max: 1_000_000_000 }),
      default: "1000000",
      meaning: "rows held, in memory and on disk, before writes are refused with 429",
    }),
    setting({
      name: "backlog-bytes",
      kind: size({ min: 64 * KIB, max: 1024 * GIB }),
      default: "64MiB",
      meaning: "bytes of rows in memory; what is more waits on disk only",
    }),
    setting({
      name: "table-share",
      kind: share({ min: 1, max: 100 }),
      default: "50%",
      meaning:
        "of backlog and of spool-max-bytes that tables in trouble may hold together before " +
        "they alone are refused with 429",
    }),
    setting({
      name: "shutdown-timeout",
      kind: duration({ min: 0, max: HOUR_MS }),
      default: "10s",
      meaning: "how long a stopping collector tries to deliver; the rest waits in the spool",
    }),
    setting({
      name: "drain-delay",
      kind: duration({ min: 0, max: HOUR_MS }),
      default: "0s",
      meaning:
        "at a stop, how long events are still taken while /readyz says 503 already, so that " +
        "balancers look elsewhere first; a second signal skips it",
    }),
  ]),
  ...section("Disk", [
    setting({
      name: "data-dir",
      kind: text("FOLDER", "the path of a folder"),
      default: {
        shown: "$STATE_DIRECTORY, else ./shishi-data",
        from: ({ env }) => env["STATE_DIRECTORY"]?.split(":")[0] || "./shishi-data",
      },
      meaning: "spool, dead letters and lock; of one collector alone",
      restart: true,
    }),
    setting({
      name: "spool-max-bytes",
      kind: size({ min: 64 * KIB, max: 1024 * GIB }),
      default: "1GiB",
      meaning: "bytes of the spool on disk before writes are refused with 429",
    }),
    setting({
      name: "dead-max-bytes",
      kind: size({ min: 64 * KIB, max: 1024 * GIB }),
      default: "256MiB",
      meaning: "bytes of dead letters on disk before batches with bad rows wait in the spool",
    }),
  ]),
  ...section("Sources", [
    setting({
      name: "sources",
      kind: sourceUrls,
      default: null,
      meaning: "brokers and outboxes whose messages become rows, such as " +
        "kafka://host:9092/flights?table=flights, several by commas before a scheme, by lines or " +
        "by repeating the flag; docs/sources.md has every parameter",
      secret: true,
      aliases: ["source"],
    }),
    setting({
      name: "exits",
      kind: exitUrls,
      default: null,
      meaning: "channels on which the message Exit stops the collector, such as " +
        "redis://host?channel=exitCh; several as for sources",
      secret: true,
      aliases: ["exit"],
    }),
  ]),
  ...section("InfluxDB", [
    setting({
      name: "influx-url",
      kind: endpoint({ user: "", database: "shishi", port: 8086 }),
      default: null,
      meaning: "http(s)://user:password@host:port/database, database shishi where none is given; " +
        "unset = no mirror",
      secret: true,
    }),
    setting({
      name: "influx-interval",
      kind: duration({ min: 100, max: HOUR_MS }),
      default: "10s",
      meaning: "how often counts are mirrored",
    }),
  ]),
  ...NATS,
  ...section("Identity and log", [
    setting({
      name: "group",
      kind: groupLabel,
      default: "default",
      meaning: "the group of this collector, on NATS, in metrics and in logs; " +
        "anything but letters, digits, - and _ becomes -",
      restart: true,
    }),
    setting({
      name: "id",
      kind: label,
      default: {
        shown: "the host's name",
        from: (host) => host.hostname().slice(0, 128) || "host",
      },
      meaning: "the name of this collector within its group",
      restart: true,
    }),
    setting({
      name: "log-level",
      kind: oneOf(["debug", "info", "warn", "error"]),
      default: "info",
      meaning: "the least important lines that are logged; logs go to stderr",
    }),
    setting({
      name: "log-format",
      kind: oneOf(["auto", "text", "json"]),
      default: "auto",
      meaning: "auto = text on a terminal, JSON lines elsewhere",
    }),
    setting({
      name: "config",
      kind: text("FILE", "the path of a TOML file"),
      default: null,
      meaning: "TOML file whose keys are the names above, without the dashes in front",
      notInFile: true,
      restart: true,
    }),
  ]),
] as const;

/** The name of a setting. */
export type SettingName = (typeof TABLE)[number]["name"];
