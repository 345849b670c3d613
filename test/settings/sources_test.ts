/**
 * Every setting from each of its three places, from a file of its own, and who wins.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { SettingName, Settings } from "../../src/settings/settings.ts";
import { TABLE } from "../../src/settings/table.ts";
import { CERT, CREDS, endpoint, KEY, problemsOf, SEED, settingsOf } from "./kit.ts";

interface Case {
  readonly text: string;
  readonly other: string;
  readonly read: (settings: Settings) => unknown;
  readonly want: unknown;
  /** Settings that must be there too. */
  readonly with?: Readonly<Record<string, string>>;
}

const nats = { "nats-url": "ws://n:9222" };

const CASES: Record<Exclude<SettingName, "config">, Case> = {
  "listen": {
    text: "127.0.0.1:9,unix:/run/x.sock",
    other: "[::1]:8",
    read: (s) => s.listen,
    want: [{ hostname: "127.0.0.1", port: 9 }, { path: "/run/x.sock" }],
  },
  "admin-listen": {
    text: "[::1]:9,unix:/run/admin.sock",
    other: ":7",
    read: (s) => s.adminListen,
    want: [{ hostname: "::1", port: 9 }, { path: "/run/admin.sock" }],
  },
  "auth-tokens": {
    text: "aaaaaaaaaaaaaaaa,b",
    other: "c",
    read: (s) => s.authTokens,
    want: ["aaaaaaaaaaaaaaaa", "b"],
  },
  "write-tokens": {
    text: "web:aaaaaaaaaaaaaaaa=events,log_*;1000/s;5GiB/d bb==",
    other: "c",
    read: (s) => s.writeTokens,
    want: [
      {
        label: "web",
        hash: "0c0beacef8877bbf2416eb00f2b5dc96354e26dd1df5517320459b1236860f8c",
        chars: 16,
        tables: ["events", "log_*"],
        quotas: [
          { what: "rows", most: 1000, periodMs: 1000, text: "1000/s" },
          { what: "bytes", most: 5 * 2 ** 30, periodMs: 86_400_000, text: "5GiB/d" },
        ],
      },
      {
        label: "t-b8a5b8",
        hash: "58b18d0419c7fc31d7527cd70d2ff9b3da6b0097b4d26775abb04dfd1dbcc9a0",
        chars: 4,
        tables: null,
        quotas: [],
      },
    ],
  },
  "tls-cert": {
    text: "cert.pem",
    other: "other.pem",
    read: (s) => s.tls,
    want: { certFile: "cert.pem", keyFile: "key.pem", cert: CERT, key: KEY, clients: null },
    with: { "tls-key": "key.pem" },
  },
  "tls-client-auth": {
    text: "optional",
    other: "required",
    read: (s) => s.tls?.clients?.required,
    want: false,
    with: { "tls-cert": "cert.pem", "tls-key": "key.pem", "tls-client-ca": "cert.pem" },
  },
  "tls-client-ca": {
    text: "cert.pem",
    other: "other.pem",
    read: (s) => s.tls?.clients,
    want: { caFile: "cert.pem", ca: CERT, required: true },
    with: { "tls-cert": "cert.pem", "tls-key": "key.pem", "tls-client-auth": "required" },
  },
  "ca-file": { text: "cert.pem", other: "other.pem", read: (s) => s.authorities, want: CERT },
  "tls-key": {
    text: "key.pem",
    other: "other.pem",
    read: (s) => s.tls?.key,
    want: KEY,
    with: { "tls-cert": "cert.pem" },
  },
  "cors-origins": {
    text: "https://a.example, http://b:81",
    other: "*",
    read: (s) => s.corsOrigins,
    want: ["https://a.example", "http://b:81"],
  },
  "pixel": { text: "on", other: "off", read: (s) => s.pixel, want: true },
  "rate-limit": {
    text: "10_000/m",
    other: "off",
    read: (s) => s.rateLimit,
    want: { count: 10_000, periodMs: 60_000 },
  },
  "max-body-bytes": { text: "2MB", other: "1MiB", read: (s) => s.maxBodyBytes, want: 2_000_000 },
  "idle-timeout": { text: "10m", other: "2m", read: (s) => s.idleTimeoutMs, want: 600_000 },
  "trusted-proxies": {
    text: "10.0.0.0/8,unix",
    other: "127.0.0.1",
    read: (s) => s.trustedProxies,
    want: [{ bytes: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 0], bits: 104 }, "unix"],
  },
  "share-port": {
    text: "true",
    other: "false",
    read: (s) => s.sharePort,
    want: true,
    with: { id: "one" },
  },
  "clickhouse-url": {
    text: "http://h:1/db",
    other: "http://other",
    read: (s) => s.clickhouse,
    want: [endpoint("h:1", "default", "db")],
  },
  "clickhouse-headers": {
    text: "Authorization: Digest a, b=c,X-Tenant:one",
    other: "X-Tenant: two",
    read: (s) => s.clickhouse[0]?.headers,
    want: { Authorization: "Digest a, b=c", "X-Tenant": "one" },
  },
  "insert-settings": {
    text: "insert_quorum=2, logs_*:log_comment=a:b, db.t:max_threads=1",
    other: "insert_quorum=3",
    read: (s) => s.insertSettings,
    want: [
      { table: null, name: "insert_quorum", value: "2" },
      { table: "logs_*", name: "log_comment", value: "a:b" },
      { table: "db.t", name: "max_threads", value: "1" },
    ],
  },
  "table": { text: "t_1", other: "x", read: (s) => s.table, want: "t_1" },
  "create-table": { text: "false", other: "true", read: (s) => s.createTable, want: false },
  "tables": { text: "a,b_*", other: "c", read: (s) => s.tables, want: ["a", "b_*"] },
  "create-tables": { text: "a,b_*", other: "c", read: (s) => s.createTables, want: ["a", "b_*"] },
  "unknown-keys": {
    text: "skip, logs_*=column",
    other: "keep",
    read: (s) => s.unknownKeys,
    want: [{ table: null, policy: "skip" }, { table: "logs_*", policy: "column" }],
  },
  "max-new-columns": { text: "7", other: "8", read: (s) => s.maxNewColumns, want: 7 },
  "widen": { text: "on", other: "off", read: (s) => s.widen, want: true },
  "cluster": { text: "{cluster}", other: "c_1", read: (s) => s.cluster, want: "{cluster}" },
  "type-check": { text: "off", other: "strict", read: (s) => s.typeCheck, want: "off" },
  "max-event-age": {
    text: "30d",
    other: "1d",
    read: (s) => s.eventWindow.maxAgeMs,
    want: 30 * 86_400_000,
  },
  "max-event-skew": {
    text: "1h",
    other: "off",
    read: (s) => s.eventWindow.maxSkewMs,
    want: 3_600_000,
  },
  "concurrency": { text: "9", other: "8", read: (s) => s.concurrency, want: 9 },
  "insert-timeout": { text: "2s", other: "1s", read: (s) => s.insertTimeoutMs, want: 2000 },
  "compress": { text: "none", other: "gzip", read: (s) => s.compress, want: "none" },
  "max-block-size": { text: "1_000", other: "5", read: (s) => s.maxBlockSize, want: 1000 },
  "max-block-bytes": { text: "1MiB", other: "2MiB", read: (s) => s.maxBlockBytes, want: 2 ** 20 },
  "flush-interval": { text: "250ms", other: "2s", read: (s) => s.flushIntervalMs, want: 250 },
  "idle-interval": { text: "20ms", other: "off", read: (s) => s.idleIntervalMs, want: 20 },
  "ack": { text: "clickhouse", other: "memory", read: (s) => s.ack, want: "clickhouse" },
  "idempotency-window": {
    text: "5m",
    other: "2h",
    read: (s) => s.idempotencyWindowMs,
    want: 300_000,
  },
  "backlog": { text: "20000", other: "30000", read: (s) => s.backlog, want: 20000 },
  "backlog-bytes": { text: "16MiB", other: "1GiB", read: (s) => s.backlogBytes, want: 2 ** 24 },
  "drain-delay": { text: "5s", other: "3s", read: (s) => s.drainDelayMs, want: 5_000 },
  "table-share": { text: "20%", other: "30%", read: (s) => s.tableShare, want: 0.2 },
  "shutdown-timeout": { text: "1m", other: "2m", read: (s) => s.shutdownTimeoutMs, want: 60_000 },
  "data-dir": { text: "/a b/c", other: "/x", read: (s) => s.dataDir, want: "/a b/c" },
  "spool-max-bytes": {
    text: "2GiB",
    other: "3GiB",
    read: (s) => s.spoolMaxBytes,
    want: 2 ** 31,
  },
  "dead-max-bytes": { text: "1MiB", other: "3GiB", read: (s) => s.deadMaxBytes, want: 2 ** 20 },
  "sources": {
    text: "kafka://b1,b2:19092/flights?table=flights, redis://r?channel=c",
    other: "redis://r?list=l",
    read: (s) => s.sources.map(({ label, name, table }) => ({ label, name, table })),
    want: [
      { label: "kafka://b1:9092,b2:19092/flights", name: "kafka:flights", table: "flights" },
      { label: "redis://r:6379", name: "redis:c", table: null },
    ],
  },
  "exits": {
    text: "redis://r/2?channel=exitCh,amqp://u@h?exchange=exitEx",
    other: "nats://n?subject=exit",
    read: (s) => s.exits.map(({ label, name, user }) => ({ label, name, user })),
    want: [
      { label: "redis://r:6379/2", name: "redis:exitCh", user: null },
      { label: "amqp://h:5672", name: "amqp:exitEx", user: "u" },
    ],
  },
  "influx-url": {
    text: "http://i:8086",
    other: "http://other",
    read: (s) => s.influx,
    want: endpoint("i:8086", "", "shishi"),
  },
  "influx-interval": { text: "3s", other: "4s", read: (s) => s.influxIntervalMs, want: 3000 },
  "nats-url": {
    text: "ws://a:1,wss://b",
    other: "ws://c",
    read: (s) => s.nats,
    want: {
      servers: ["ws://a:1", "wss://b"],
      subject: "shishi",
      auth: { kind: "none" },
    },
  },
  "nats-subject": {
    text: "prod.shishi",
    other: "x",
    read: (s) => s.nats?.subject,
    want: "prod.shishi",
    with: nats,
  },
  "nats-creds": {
    text: "my.creds",
    other: "other.creds",
    read: (s) => s.nats?.auth,
    want: { kind: "creds", file: "my.creds", creds: CREDS },
    with: nats,
  },
  "nats-nkey": {
    text: SEED,
    other: SEED.replace("A", "B"),
    read: (s) => s.nats?.auth,
    want: { kind: "nkey", seed: SEED },
    with: nats,
  },
  "nats-user": {
    text: "u",
    other: "v",
    read: (s) => s.nats?.auth,
    want: { kind: "user", user: "u", password: "" },
    with: nats,
  },
  "nats-password": {
    text: "p w",
    other: "x",
    read: (s) => s.nats?.auth,
    want: { kind: "user", user: "u", password: "p w" },
    with: { ...nats, "nats-user": "u" },
  },
  "nats-token": {
    text: "tok",
    other: "x",
    read: (s) => s.nats?.auth,
    want: { kind: "token", token: "tok" },
    with: nats,
  },
  "control-secret": {
    text: "a secret of the fleet",
    other: "another secret of it",
    read: (s) => s.controlSecret,
    want: "a secret of the fleet",
  },
  "group": { text: "eu.west 1", other: "x", read: (s) => s.group, want: "eu-west-1" },
  "id": { text: "a/ü_9", other: "x", read: (s) => s.id, want: "a--_9" },
  "log-level": { text: "warn", other: "debug", read: (s) => s.logLevel, want: "warn" },
  "log-format": { text: "json", other: "text", read: (s) => s.logFormat, want: "json" },
};

const PEMS = { "cert.pem": CERT, "key.pem": KEY, "my.creds": CREDS };
const variable = (name: string) => `SHISHI_${name.toUpperCase().replaceAll("-", "_")}`;
const toml = (values: Record<string, string>) =>
  Object.entries(values).map(([name, text]) => `${name} = ${JSON.stringify(text)}\n`).join("");
const flags = (values: Record<string, string>) =>
  Object.entries(values).flatMap(([name, text]) => [`--${name}`, text]);

describe("every setting", () => {
  test("is in this test", () => {
    assert.deepEqual(
      Object.keys(CASES).sort(),
      TABLE.map(({ name }) => name).filter((name) => name !== "config").sort(),
    );
  });

  for (const [name, { text, other, read, want, with: more = {} }] of Object.entries(CASES)) {
    const companions = flags(more);
    const fromFile = { "c.toml": toml({ [name]: text }), ...PEMS };
    const otherFile = { "c.toml": toml({ [name]: other }), ...PEMS };

    test(`${name}: flag`, () => {
      const apart = settingsOf({ argv: [`--${name}`, text, ...companions], files: PEMS });
      const joined = settingsOf({ argv: [`--${name}=${text}`, ...companions], files: PEMS });
      assert.deepEqual(read(apart), want);
      assert.deepEqual(read(joined), want);
    });
    test(`${name}: environment`, () => {
      const env = { [variable(name)]: text };
      assert.deepEqual(read(settingsOf({ argv: companions, env, files: PEMS })), want);
    });
    test(`${name}: file`, () => {
      const argv = ["--config", "c.toml", ...companions];
      assert.deepEqual(read(settingsOf({ argv, files: fromFile })), want);
    });
    test(`${name}: flag beats environment beats file`, () => {
      const env = { SHISHI_CONFIG: "c.toml", [variable(name)]: other };
      const flag = { argv: [`--${name}=${text}`, ...companions], env, files: otherFile };
      assert.deepEqual(read(settingsOf(flag)), want);
      const environment = {
        argv: companions,
        env: { ...env, [variable(name)]: text },
        files: otherFile,
      };
      assert.deepEqual(read(settingsOf(environment)), want);
    });
  }

  for (const spec of TABLE.filter((row) => "secret" in row && row.secret)) {
    const { text, read, want, with: more = {} } = CASES[spec.name as keyof typeof CASES];
    const companions = flags(more);
    const files = { secret: `${text}\n`, "c.toml": `${spec.name}-file = "secret"`, ...PEMS };

    test(`${spec.name}: from a file of its own, named in each place`, () => {
      const flag = { argv: [`--${spec.name}-file`, "secret", ...companions], files };
      const env = { [`${variable(spec.name)}_FILE`]: "secret" };
      const key = { argv: ["--config=c.toml", ...companions], files };
      for (const around of [flag, { argv: companions, env, files }, key]) {
        assert.deepEqual(read(settingsOf(around)), want);
      }
    });
    test(`${spec.name}: both forms in one place is an error, in two places the first wins`, () => {
      const both = [`--${spec.name}=${text}`, `--${spec.name}-file=secret`, ...companions];
      const [problem = ""] = problemsOf({ argv: both, files });
      assert.match(problem, new RegExp(`--${spec.name} and --${spec.name}-file: .* got both`));
      const env = { [variable(spec.name)]: "http://lost" };
      const argv = [`--${spec.name}-file=secret`, ...companions];
      assert.deepEqual(read(settingsOf({ argv, env, files })), want);
    });
  }
});
