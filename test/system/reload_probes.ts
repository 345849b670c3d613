/**
 * For each setting that a reload takes: how to see that it has. A probe fails where the running
 * collector goes on as before.
 */
import assert from "node:assert/strict";
import { connect as connectTls } from "node:tls";
import { nkeys } from "nats.ws";
import {
  CERTIFICATE,
  CERTIFICATE_KEY,
  RENEWED_CERTIFICATE,
  RENEWED_KEY,
} from "../kit/certificate.ts";
import { CLIENT_CA, EDGE, OTHER, OTHER_CA, type Pair } from "../kit/client_certificate.ts";
import type { FakeClickHouse } from "../kit/fake_clickhouse.ts";
import type { FakeInflux } from "../kit/fake_influx.ts";
import { type ClickHouse, startNats } from "../kit/servers.ts";
import { eventually, pause } from "../kit/wait.ts";
import { operatorMode } from "../remote/jwt.ts";
import { asker } from "../remote/kit.ts";
import { freePort } from "../kit/free_port.ts";
import { bad, good } from "./rows.ts";
import { type Reloading, startReloading, type Wishes } from "./reloading.ts";

export interface Around {
  readonly at: Reloading;
  /** The one of the first settings; `fake` is another. */
  readonly real: ClickHouse;
  readonly fake: FakeClickHouse;
  readonly influx: FakeInflux;
}

type Probe = (around: Around) => Promise<void>;

const EVENT = { eventType: "click" };
const SOON = { withinMs: 20_000 };
const waits = (seconds: number) => ({ headers: { prefer: `wait=${seconds}` } });
const TOKEN = "a-token-of-some-length";

async function posts(at: Reloading, body: unknown, path = "/events", status = 202) {
  const answer = await at.shishi.post(body, { path });
  assert.equal(answer.status, status, answer.text);
  return answer;
}

/** An event of about so many bytes. */
const large = (bytes: number) => ({ ...EVENT, properties: { filler: "x".repeat(bytes) } });

/** A NATS with this configuration lets in the collector with these settings. */
function letsIn(config: string, wishes: (file: Reloading["file"]) => Wishes): Probe {
  return async ({ at }) => {
    const nats = await startNats(config);
    try {
      await at.set({ "nats-url": nats.url, "nats-subject": "let.in", ...wishes(at.file) });
      await eventually(() => {
        const { message, server } = at.shishi.lines().findLast(({ message }) =>
          /^nats: (connected|not connected)/.test(String(message))
        ) ?? {};
        assert.deepEqual([message, server], ["nats: connected", `127.0.0.1:${nats.port}`]);
      }, SOON);
    } finally {
      await at.set({});
      await nats.close();
    }
  };
}

/** What a collector answers on this subject, asked until it does. */
async function answerOn(url: string, subject: string): Promise<Record<string, unknown>> {
  const client = await asker(url);
  try {
    return await eventually(async () => {
      const answer = await client.ask(subject).next();
      assert.ok(!("noResponders" in answer), subject);
      return answer;
    }, SOON);
  } finally {
    await client.close();
  }
}

const renewsCertificate =
  (change: (file: Reloading["file"]) => Wishes): Probe => async ({ fake }) => {
    const at = await startReloading((file) => ({
      "clickhouse-url": fake.url,
      "tls-cert": file("cert", CERTIFICATE),
      "tls-key": file("key", CERTIFICATE_KEY),
    }));
    try {
      assert.equal(await subjectOf(at), "Shishi test");
      await at.set(change(at.file));
      assert.equal(await subjectOf(at), "Shishi renewed");
    } finally {
      await at.close();
    }
  };

export function subjectOf({ shishi }: Reloading): Promise<string> {
  return new Promise((resolve, reject) => {
    const { hostname: host, port } = new URL(shishi.url);
    const socket = connectTls({ host, port: Number(port), rejectUnauthorized: false }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.destroy();
    });
    socket.on("error", reject);
  });
}

/** Whether a client with this certificate gets an answer. */
function letsInWith({ shishi }: Reloading, shown: Pair): Promise<boolean> {
  return new Promise((resolve) => {
    const { hostname: host, port } = new URL(shishi.url);
    const socket = connectTls(
      { host, port: Number(port), rejectUnauthorized: false, ...shown },
      () => socket.write("GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
    );
    let answered = false;
    socket.on("data", () => answered = true);
    socket.on("error", () => {});
    socket.once("close", () => resolve(answered));
  });
}

const user = nkeys.createUser();
const operator = operatorMode();
const withPassword = (password: string) =>
  letsIn(
    `authorization { user: "edge", password: "${password}" }`,
    () => ({ "nats-user": "edge", "nats-password": password }),
  );

export const PROBES: Readonly<Record<string, Probe>> = {
  async "auth-tokens"({ at }) {
    await at.set({ "auth-tokens": [TOKEN] });
    await posts(at, EVENT, "/events", 401);
    const headers = { authorization: `Bearer ${TOKEN}` };
    assert.equal((await at.shishi.post(EVENT, { headers })).status, 202);
    assert.ok(!at.shishi.stderr().includes(TOKEN));
  },
  "tls-cert": renewsCertificate((file) => {
    file("key", RENEWED_KEY);
    return { "tls-cert": file("cert2", RENEWED_CERTIFICATE) };
  }),
  "tls-key": renewsCertificate((file) => {
    file("cert", RENEWED_CERTIFICATE);
    return { "tls-key": file("key2", RENEWED_KEY) };
  }),
  async "pixel"({ at }) {
    const status = async () => (await at.shishi.get("/events?eventType=open")).status;
    assert.equal(await status(), 405);
    await at.set({ pixel: true });
    assert.equal(await status(), 200);
  },
  async "tls-client-ca"({ fake }) {
    const at = await startReloading((file) => ({
      "clickhouse-url": fake.url,
      "tls-cert": file("cert", CERTIFICATE),
      "tls-key": file("key", CERTIFICATE_KEY),
      "tls-client-auth": "required",
      "tls-client-ca": file("ca", CLIENT_CA),
    }));
    try {
      assert.deepEqual([await letsInWith(at, EDGE), await letsInWith(at, OTHER)], [true, false]);
      await at.set({ "tls-client-ca": at.file("ca2", OTHER_CA) });
      assert.deepEqual([await letsInWith(at, EDGE), await letsInWith(at, OTHER)], [false, true]);
      // Without a restart clients are asked for certificates as before.
      await at.set({ "tls-client-auth": "off", "tls-client-ca": at.file("ca3", CLIENT_CA) });
      assert.deepEqual([await letsInWith(at, EDGE), await letsInWith(at, OTHER)], [false, true]);
    } finally {
      await at.close();
    }
  },
  async "cors-origins"({ at }) {
    await at.set({ "cors-origins": ["https://app.example"] });
    const answer = await at.shishi.get("/healthz", { origin: "https://app.example" });
    assert.equal(answer.headers.get("access-control-allow-origin"), "https://app.example");
  },
  async "write-tokens"({ at }) {
    const statusWith = async (token: string, path = "/events") =>
      (await at.shishi.post(EVENT, { path: `${path}?token=${token}` })).status;
    await at.set({ "write-tokens": ["web:old=events;2/d", "gone=events"] });
    assert.equal(await statusWith("old"), 202);
    await at.set({ "write-tokens": ["web:old=events;2/d", "web:new=events;2/d"] });
    assert.equal(await statusWith("gone"), 401);
    assert.equal(await statusWith("new", "/events/plain"), 403);
    assert.equal(await statusWith("new"), 202);
    // The one takes the other's place with what is left of its quota.
    assert.equal(await statusWith("old"), 429);
    assert.doesNotMatch(at.shishi.stderr(), /web:old|web:new|token=/);
  },
  async "rate-limit"({ at }) {
    await at.set({ "rate-limit": "2/h", "max-block-size": 7 });
    await posts(at, EVENT);
    // What was let in counts on, also after another change.
    await at.set({ "rate-limit": "2/h", "max-block-size": 8 });
    await posts(at, EVENT);
    await posts(at, EVENT, "/events", 429);
    await at.set({ "rate-limit": "off" });
    await posts(at, EVENT);
  },
  async "trusted-proxies"({ at }) {
    const behind = async (client: string) =>
      (await at.shishi.post(EVENT, { headers: { "x-forwarded-for": client } })).status;
    await at.set({ "rate-limit": "1/h", "trusted-proxies": ["127.0.0.1"] });
    for (const client of ["192.0.2.1", "192.0.2.2"]) assert.equal(await behind(client), 202);
    assert.equal(await behind("192.0.2.1"), 429);
    // Both are now the address of the connection.
    await at.set({ "rate-limit": "1/h" });
    await behind("192.0.2.3");
    assert.equal(await behind("192.0.2.4"), 429);
  },
  async "max-body-bytes"({ at }) {
    await at.set({ "max-body-bytes": "1KiB" });
    await posts(at, large(2000), "/events", 413);
  },
  async "clickhouse-url"({ at, fake }) {
    const before = fake.inserts.length;
    await at.set({ "clickhouse-url": fake.url });
    await posts(at, EVENT);
    await eventually(() => assert.ok(fake.inserts.length > before), SOON);
  },
  async table({ at, real }) {
    await at.set({ table: "other_events" });
    assert.equal((await at.shishi.post(EVENT, waits(20))).status, 200);
    assert.equal((await real.query("SELECT count() FROM other_events")).trim(), "1");
  },
  async "clickhouse-headers"({ at, fake }) {
    const before = fake.inserts.length;
    await at.set({ "clickhouse-url": fake.url, "clickhouse-headers": [`Authorization: ${TOKEN}`] });
    await posts(at, EVENT);
    await eventually(() => assert.ok(fake.inserts.length > before), SOON);
    assert.equal(fake.inserts.at(-1)!.headers["authorization"], TOKEN);
    assert.equal(fake.inserts.at(-1)!.headers["x-clickhouse-user"], undefined);
    assert.ok(!at.shishi.stderr().includes(TOKEN));
  },
  async "insert-settings"({ at, fake }) {
    const before = fake.inserts.length;
    await at.set({ "clickhouse-url": fake.url, "insert-settings": ["insert_quorum=2"] });
    await posts(at, EVENT);
    await eventually(() => assert.ok(fake.inserts.length > before), SOON);
    assert.equal(fake.inserts.at(-1)!.settings.get("insert_quorum"), "2");
  },
  async "create-table"({ at, real }) {
    await at.set({ table: "not_made", "create-table": false });
    await posts(at, EVENT);
    const { shishi } = at;
    await eventually(async () => {
      assert.equal((await shishi.status()).tables.not_made.state, "trouble");
    }, SOON);
    await at.set({ table: "not_made", "create-table": true });
    await eventually(async () => {
      assert.equal((await shishi.status()).tables.not_made.stored, 1);
    }, SOON);
    assert.equal((await real.query("SELECT count() FROM not_made")).trim(), "1");
  },
  async tables({ at }) {
    await posts(at, good(1), "/events/plain", 404);
    await at.set({ tables: ["pl*"], "flush-interval": "1h" });
    await posts(at, good(1), "/events/plain");
    await at.set({});
    await posts(at, good(2), "/events/plain", 404);
    await eventually(async () => {
      assert.equal((await at.shishi.status()).tables.plain.stored, 1, "what was held flows");
    }, SOON);
  },
  async concurrency({ at, fake }) {
    const before = fake.inserts.length;
    const one = { "clickhouse-url": fake.url, "max-block-size": 1, "insert-timeout": "2s" };
    await at.set({ ...one, concurrency: 1 });
    fake.misbehave(...Array(3).fill({ kind: "hang" }));
    for (let n = 0; n < 6; n++) await posts(at, EVENT);
    await eventually(() => assert.equal(fake.inserts.length, before + 1), SOON);
    await at.set({ ...one, concurrency: 4, "insert-timeout": "3s" });
    await eventually(() => assert.ok(fake.inserts.length >= before + 3), SOON);
  },
  async "insert-timeout"({ at, fake }) {
    await at.set({ "clickhouse-url": fake.url, "insert-timeout": "123ms" });
    fake.misbehave({ kind: "hang" });
    await posts(at, EVENT);
    await eventually(() => assert.match(at.shishi.stderr(), /no answer within 123 ms/), SOON);
  },
  async compress({ at, fake }) {
    // Of different sizes: one that was sent before the reload may come once more after it.
    for (const [compress, bytes] of [["gzip", 5000], ["none", 9000]] as const) {
      const before = fake.inserts.length;
      await at.set({ "clickhouse-url": fake.url, compress });
      await posts(at, large(bytes));
      const insert = await eventually(() => {
        const insert = fake.inserts.slice(before).find(({ lines }) => lines[0]!.length > bytes);
        assert.ok(insert !== undefined);
        return insert;
      }, SOON);
      assert.equal(insert.headers["content-encoding"], compress === "gzip" ? "gzip" : undefined);
    }
  },
  async "max-block-size"({ at, fake }) {
    const before = fake.inserts.length;
    await at.set({ "clickhouse-url": fake.url, "max-block-size": 2 });
    await posts(at, Array(5).fill(EVENT));
    await eventually(() => assert.ok(fake.inserts.length >= before + 3), SOON);
    assert.ok(fake.inserts.slice(before).every(({ lines }) => lines.length <= 2));
  },
  async "max-block-bytes"({ at, fake }) {
    const before = fake.inserts.length;
    await at.set({ "clickhouse-url": fake.url, "max-block-bytes": "1KiB" });
    await posts(at, Array(4).fill(large(600)));
    await eventually(() => assert.ok(fake.inserts.length >= before + 4), SOON);
  },
  async "flush-interval"({ at }) {
    await at.set({ "flush-interval": "1h" });
    assert.equal((await at.shishi.post(EVENT, waits(1))).status, 202, "not yet");
    await at.set({ "flush-interval": "20ms" });
    assert.equal((await at.shishi.post(EVENT, waits(20))).status, 200);
  },
  async "idle-interval"({ at }) {
    await at.set({ "flush-interval": "1h", "idle-interval": "20ms" });
    assert.equal((await at.shishi.post(EVENT, waits(20))).status, 200);
  },
  async ack({ at }) {
    for (const ack of ["memory", "clickhouse", "disk"]) {
      await at.set({ ack, "insert-timeout": "30s" });
      assert.equal((await at.shishi.post(EVENT)).json.ack, ack);
    }
  },
  async backlog({ at }) {
    await at.set({ backlog: 2 });
    await eventually(async () => {
      assert.equal((await at.shishi.status()).ledger.held, 0);
    }, SOON);
    const { text } = await posts(at, Array(3).fill(EVENT), "/events", 429);
    assert.match(text, /backlog is 2/);
  },
  async "backlog-bytes"({ at }) {
    await at.set({ "backlog-bytes": "64KiB" });
    const { text } = await posts(at, large(70_000), "/events", 429);
    assert.match(text, /backlog-bytes is 65536/);
  },
  async "spool-max-bytes"({ at }) {
    await at.set({ "spool-max-bytes": "64KiB" });
    const { text } = await posts(at, large(70_000), "/events", 429);
    assert.match(text, /spool-max-bytes is 65536/);
  },
  async "dead-max-bytes"({ at }) {
    const tables = { tables: ["plain"], "type-check": "off" };
    const dead = async () => (await at.shishi.status()).tables.plain;
    await at.set(tables);
    await posts(at, `{"n":"none","s":"${"x".repeat(70_000)}"}`, "/events/plain");
    await eventually(async () => assert.equal((await dead()).dead, 1), SOON);
    await at.set({ ...tables, "dead-max-bytes": "64KiB" });
    await posts(at, bad(2), "/events/plain");
    await eventually(async () => {
      assert.match((await dead()).trouble ?? "", /dead-max-bytes is 65536/);
    }, SOON);
    await at.set(tables);
    await eventually(async () => assert.equal((await dead()).dead, 2), SOON);
  },
  async "type-check"({ at }) {
    await at.set({ tables: ["plain"] });
    await posts(at, bad(1), "/events/plain", 400);
    await at.set({ tables: ["plain"], "type-check": "off" });
    await posts(at, bad(1), "/events/plain");
  },
  async "create-tables"({ at }) {
    await at.set({ tables: ["made_*"] });
    await posts(at, { a: 1 }, "/events/made_one", 404);
    await at.set({ "create-tables": ["made_*"] });
    await eventually(() => posts(at, { a: 1 }, "/events/made_one"), SOON);
  },
  async "unknown-keys"({ at }) {
    await at.set({ tables: ["plain"] });
    await posts(at, { strange: 1 }, "/events/plain", 400);
    await at.set({ tables: ["plain"], "unknown-keys": ["plain=skip"] });
    await posts(at, { strange: 1 }, "/events/plain");
  },
  async "max-new-columns"({ at }) {
    await at.set({ "create-tables": ["wide"], "max-new-columns": 1 });
    const { text } = await posts(at, { a: 1, b: 1 }, "/events/wide", 400);
    assert.match(text, /max-new-columns is 1/);
    await at.set({ "create-tables": ["wide"], "max-new-columns": 2 });
    await posts(at, { a: 1, b: 1 }, "/events/wide");
  },
  async "widen"({ at, real }) {
    await real.query("CREATE TABLE narrow (a UInt8) ENGINE = MergeTree ORDER BY tuple()");
    await at.set({ tables: ["narrow"] });
    await posts(at, { a: 300 }, "/events/narrow", 400);
    await at.set({ tables: ["narrow"], widen: true });
    await posts(at, { a: 300 }, "/events/narrow");
  },
  async "cluster"({ at }) {
    await at.set({ "create-tables": ["spread"], cluster: "no_such" });
    const { text } = await posts(at, { a: 1 }, "/events/spread", 404);
    assert.match(text, /no_such/);
    await at.set({ "create-tables": ["spread"] });
    await posts(at, { a: 1 }, "/events/spread");
  },
  async "idempotency-window"({ at }) {
    const again = async () => {
      const headers = { "idempotency-key": "probe" };
      return (await at.shishi.post({ eventType: "keyed" }, { headers })).json.duplicate === true;
    };
    await at.set({});
    assert.equal(await again(), false);
    await pause(1100);
    assert.equal(await again(), true);
    await at.set({ "idempotency-window": "1s" });
    assert.equal(await again(), false);
  },
  async "table-share"({ at, real }) {
    const settings = { tables: ["share"], backlog: 1000 };
    await real.query("CREATE TABLE share (n UInt32) ENGINE = MergeTree ORDER BY n");
    await real.query("CREATE TABLE share_to (n UInt32) ENGINE = MergeTree ORDER BY n");
    await real.query("CREATE MATERIALIZED VIEW share_view TO share_to AS SELECT n FROM share");
    await real.query("DROP TABLE share_to SYNC");
    await at.set(settings);
    await posts(at, { n: 1 }, "/events/share");
    await eventually(async () => {
      assert.equal((await at.shishi.status()).tables.share.state, "trouble");
    }, SOON);
    await at.set({ ...settings, "table-share": "1%" });
    const { text } = await posts(at, Array(20).fill({ n: 3 }), "/events/share", 429);
    assert.match(text, /table-share/);
    await real.query("DROP VIEW share_view");
    await eventually(async () => {
      assert.equal((await at.shishi.status()).tables.share.held, 0);
    }, SOON);
  },
  async "max-event-age"({ at }) {
    const old = { ...EVENT, timestamp: "2020-01-01T00:00:00Z" };
    await posts(at, old);
    await at.set({ "max-event-age": "24h" });
    await posts(at, old, "/events", 400);
  },
  async "max-event-skew"({ at }) {
    const early = { ...EVENT, timestamp: Date.now() + 3_600_000 };
    await posts(at, early);
    await at.set({ "max-event-skew": "1m" });
    await posts(at, early, "/events", 400);
  },
  async "influx-url"({ at, influx }) {
    const before = influx.seen.length;
    await at.set({ "influx-url": influx.url, "influx-interval": "100ms" });
    await eventually(() => assert.ok(influx.seen.length > before), SOON);
  },
  async "influx-interval"({ at, influx }) {
    await at.set({ "influx-url": influx.url, "influx-interval": "1h" });
    const before = influx.seen.length;
    await at.set({ "influx-url": influx.url, "influx-interval": "100ms" });
    await eventually(() => assert.ok(influx.seen.length > before + 1), SOON);
  },
  async "nats-url"({ at }) {
    const nats = await startNats();
    await at.set({ "nats-url": nats.url });
    assert.equal((await answerOn(nats.url, "shishi.status"))["ok"], true);
    await at.set({});
    await nats.close();
  },
  async "nats-subject"({ at }) {
    const nats = await startNats();
    await at.set({ "nats-url": nats.url });
    await answerOn(nats.url, "shishi.status");
    await at.set({ "nats-url": nats.url, "nats-subject": "moved" });
    assert.equal((await answerOn(nats.url, "moved.status"))["ok"], true);
    await at.set({});
    await nats.close();
  },
  async "control-secret"({ at }) {
    const nats = await startNats();
    await at.set({ "nats-url": nats.url, "control-secret": TOKEN });
    assert.equal((await answerOn(nats.url, "shishi.status"))["ok"], false);
    await at.set({});
    await nats.close();
  },
  "nats-creds": letsIn(
    operator.config,
    (file) => ({ "nats-creds": file("creds", operator.creds) }),
  ),
  "nats-nkey": letsIn(
    `authorization { users: [{ nkey: ${user.getPublicKey()} }] }`,
    () => ({ "nats-nkey": new TextDecoder().decode(user.getSeed()) }),
  ),
  "nats-user": withPassword("one-password"),
  "nats-password": withPassword("another-password"),
  "nats-token": letsIn('authorization { token: "s3cret" }', () => ({ "nats-token": "s3cret" })),
  async sources({ at }) {
    const names = async () => {
      const { sources = [] } = await at.shishi.status();
      return sources.map(({ name }: { readonly name: string }) => name);
    };
    await at.set({ sources: ["redis://127.0.0.1:1?list=one", "nats://127.0.0.1:1?subject=s"] });
    await eventually(async () => assert.deepEqual(await names(), ["redis:one", "nats:s"]), SOON);
    await at.set({});
    await eventually(async () => assert.deepEqual(await names(), []), SOON);
  },
  async exits({ at }) {
    const tried = (line: Record<string, unknown>) => line["exit"] === "nats:no-such-exit";
    assert.ok(!at.shishi.lines().some(tried));
    await at.set({ exits: ["nats://127.0.0.1:1?subject=no-such-exit"] });
    await eventually(() => assert.ok(at.shishi.lines().some(tried)), SOON);
    await at.set({});
  },
  async "log-level"({ at }) {
    await at.set({ "log-level": "error" });
    at.write({ "log-level": "error", tables: ["plain"] });
    at.shishi.signal("SIGHUP");
    const before = at.shishi.lines().length;
    await eventually(() => posts(at, good(3), "/events/plain"), SOON);
    assert.equal(at.shishi.lines().length, before, "it says no more how it goes");
    at.write({ "log-level": "info" });
    at.shishi.signal("SIGHUP");
    await eventually(() => posts(at, good(4), "/events/plain", 404), SOON);
    await at.set({ "max-block-size": 9 });
  },
  async "log-format"({ at }) {
    await at.set({ "log-format": "text" });
    at.write({ "log-format": "json" });
    at.shishi.signal("SIGHUP");
    await eventually(
      () => assert.match(at.shishi.stderr(), /INFO .*reloaded.*log-format text -> json/),
      SOON,
    );
  },
  async "drain-delay"({ fake }) {
    const port = await freePort();
    const own = await startReloading(() => ({
      listen: `127.0.0.1:${port}`,
      "clickhouse-url": fake.url,
      "shutdown-timeout": "0s",
    }), { listens: true });
    try {
      await own.set({ "drain-delay": "1h" });
      own.shishi.signal("SIGTERM");
      await eventually(async () => {
        assert.equal((await own.shishi.get("/readyz")).json.reasons[0], "draining");
      }, SOON);
      await posts(own, EVENT);
      own.shishi.signal("SIGTERM");
      assert.equal((await own.shishi.exited).code, 0);
    } finally {
      await own.close();
    }
  },
  async "shutdown-timeout"({ at, fake }) {
    await at.set({
      "clickhouse-url": fake.url,
      "shutdown-timeout": "7ms",
      "insert-timeout": "1h",
      "log-level": "warn",
    });
    fake.misbehave({ kind: "hang" });
    await posts(at, EVENT);
    at.shishi.signal("SIGTERM");
    assert.equal((await at.shishi.exited).code, 0);
    assert.match(at.shishi.stderr(), /"shutdown_timeout_ms":7\b/);
    assert.match(at.shishi.stderr(), /"message":"stopped; \d+ rows wait on disk","received":.*\n$/);
  },
};
