/** `shishi check` against real servers, disks and ports: what it says of each, and what to do. */

import assert from "node:assert/strict";
import { chmodSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { CERTIFICATE, CERTIFICATE_KEY } from "../kit/certificate.ts";
import { mountSmallDisk } from "../crash/small_disk.ts";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { freePort } from "../kit/free_port.ts";
import { testOnce } from "../kit/once.ts";
import {
  type ClickHouse,
  type Influx,
  type Nats,
  startClickHouse,
  startInflux,
  startNats,
  startOldClickHouse,
} from "../kit/servers.ts";
import { BUILDS, runShishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempFile } from "../kit/temp.ts";
import { stopBy } from "./around.ts";
import { startFront } from "./check_front.ts";

const USERS = `authorization { users: [
  { user: "all", password: "p" },
  { user: "some", password: "p", permissions: { subscribe: ["shishi.status.>", "_INBOX.>"] } }
] }`;

/** The lines of a run that ended as expected and told nothing on stderr. */
async function check(
  wantedCode: number,
  env: Record<string, string>,
  args: readonly string[] = [],
  binary = true,
): Promise<string[]> {
  const run = await runShishi(["check", ...args], { env, binary });
  assert.deepEqual([run.code, run.stderr], [wantedCode, ""], run.stdout);
  return run.stdout.trimEnd().split("\n");
}

const aboutServers = (lines: readonly string[]) =>
  lines.filter((line) => /^. (settings|clickhouse|database|tables?|influxdb|nats)\b/.test(line));

function assertLines(lines: readonly string[], wanted: readonly RegExp[]): void {
  assert.equal(lines.length, wanted.length, lines.join("\n"));
  for (const [at, pattern] of wanted.entries()) assert.match(lines[at]!, pattern);
}

describe("check", () => {
  let clickhouse: ClickHouse;
  let nats: Nats;
  let influx: Influx;
  before(async () => {
    [clickhouse, nats, influx] = await Promise.all([
      startClickHouse(),
      startNats(USERS),
      startInflux("auth-enabled = true"),
    ]);
    await asInflux(`CREATE USER "root" WITH PASSWORD 'p' WITH ALL PRIVILEGES`);
  });
  after(async () => {
    await Promise.all([clickhouse.close(), nats.close(), influx.close()]);
  });
  const asInflux = async (q: string) => {
    const answer = await fetch(`${influx.url}/query?u=root&p=p`, {
      method: "POST",
      body: new URLSearchParams({ q }),
    });
    assert.equal(answer.status, 200, await answer.text());
  };
  const influxAs = (user: string) => influx.url.replace("://", `://${user}:p@`);
  const only = (url: string) => ({ SHISHI_CLICKHOUSE_URL: url, SHISHI_LISTEN: "127.0.0.1:0" });
  const all = () => ({
    ...only(clickhouse.url),
    SHISHI_NATS_URL: nats.url,
    SHISHI_NATS_USER: "all",
    SHISHI_NATS_PASSWORD: "p",
    SHISHI_INFLUX_URL: influxAs("root"),
  });

  for (const binary of BUILDS) {
    test(`all is well, and nothing is changed${binary ? " (binary)" : ""}`, async () => {
      const label = `${clickhouse.url}/default`;
      const lines = await check(0, all(), [], binary);
      assertLines(lines.slice(0, 8), [
        /^✓ settings: usable$/,
        new RegExp(`^✓ clickhouse ${label}: 26\\.\\S+$`),
        new RegExp(`^✓ table analytics_events on ${label}: not there; will be created$`),
        new RegExp(
          `^✓ influxdb ${influx.url}/shishi: 1\\.6\\.\\S+, database shishi is not there; will be`,
        ),
        new RegExp(`^✓ nats 127\\.0\\.0\\.1:${nats.port}: 2\\.\\S+, connected$`),
        /^✓ data-dir .*shishi-data: not there; will be made in \/.+$/,
        /^[✓!] disk of .*: [\d.]+ GiB free/,
        /^[✓!] disk of .*: \d+ syncs\/s, [\d.]+ ms each/,
      ]);
      assert.ok(lines.includes("✓ listen 127.0.0.1:0: any free port"), lines.join("\n"));
      assert.equal(await clickhouse.query("EXISTS TABLE analytics_events"), "0");
    });
  }

  testOnce(
    "a source: its table is looked at too, and its name stands in its lines, however short",
    async () => {
      const source = ["--source", "redis://127.0.0.1:1/0?list=l&table=nosuch&name=r"];
      const about = (lines: readonly string[]) =>
        lines.filter((line) => /^. (table nosuch|create-tables|source)\b/.test(line));
      const away =
        /^✗ source r \(redis:\/\/127\.0\.0\.1:1\/0\): 127\.0\.0\.1:1: connection refused/;
      assertLines(about(await check(1, only(clickhouse.url), source, false)), [
        /^✗ table nosuch on \S+: not there, or this user may not see it → create it/,
        away,
      ]);
      const making = [...source, "--create-tables", "nos*"];
      assertLines(about(await check(1, only(clickhouse.url), making, false)), [
        /^✓ create-tables on \S+: tables can be made in default$/,
        away,
      ]);
    },
  );

  test("--json: a line of JSON for each finding; a certificate has one too", async () => {
    const cert = tempFile("cert.pem", CERTIFICATE);
    const key = tempFile("key.pem", CERTIFICATE_KEY);
    chmodSync(key, 0o644);
    const lines = await check(0, only(clickhouse.url), [
      "--json",
      ...["--tls-cert", cert, "--tls-key", key],
    ], false);
    const found = lines.map((line) => JSON.parse(line) as Record<string, string>);
    assert.deepEqual(found[0], { check: "settings", state: "ok", text: "usable" });
    const tls = found.filter(({ check }) => check?.startsWith("tls-"));
    assert.deepEqual(tls, [
      { check: `tls-cert ${cert}`, state: "ok", text: "valid until 2120-01-01" },
      {
        check: `tls-key ${key}`,
        state: "warning",
        text: "every user of this host may read it",
        todo: `chmod 600 ${key}`,
      },
    ]);
    for (const file of [cert, key]) removeDir(join(file, ".."));
  });

  testOnce("unusable settings: every problem, exit 2; as JSON too", async () => {
    const args = ["check", "--ack", "no", "--table", "a%b"];
    const [plain, json] = await Promise.all([runShishi(args), runShishi([...args, "--json"])]);
    assert.deepEqual([plain.code, plain.stdout], [2, ""]);
    assert.match(plain.stderr, /--table: expected a table name[^]+--ack: expected memory/);
    assert.equal(json.code, 2);
    const found = json.stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(found.map(({ check, state }) => [check, state]), [
      ["settings", "wrong"],
      ["settings", "wrong"],
    ]);
  });

  testOnce("each server that is not well has its line, exit 1, and no secret is told", async () => {
    const refusing = await startFakeInflux(null);
    refusing.behave({ status: 401, body: `{"error":"authorization failed"}` });
    const away = await freePort();
    try {
      const wrongPassword = clickhouse.url.replace("http://", "http://default:wrong-password@");
      const lines = await check(1, {
        ...only(`http://127.0.0.1:${away},${wrongPassword},${clickhouse.url}/nowhere`),
        SHISHI_INFLUX_URL: refusing.url.replace("http://", "http://u:wrong-password@"),
        SHISHI_NATS_URL: `ws://127.0.0.1:${away},${nats.url}`,
        SHISHI_NATS_TOKEN: "wrong-token",
      });
      assertLines(aboutServers(lines), [
        /^✓ settings: usable$/,
        /^✗ clickhouse http:\/\/127\.0\.0\.1:\d+\/default: connection refused → start it/,
        /^✗ clickhouse http:\S+\/default: .*[Aa]uthentication failed.* → correct user \(default\)/,
        /^✓ clickhouse http:\S+\/nowhere: 26/,
        /^✗ database nowhere on http:\S+\/nowhere: not there.* → create it$/,
        /^✗ influxdb http:\S+\/shishi: .*HTTP 401 .*authorization failed.* → correct user and pass/,
        /^✗ nats 127\.0\.0\.1:\d+: \S.* → start it/,
        /^✗ nats 127\.0\.0\.1:\d+: the server refuses these credentials → correct /,
      ]);
      assert.ok(!/wrong-(password|token)/.test(lines.join("\n")), lines.join("\n"));
    } finally {
      await refusing.close();
    }
  });

  testOnce("a dropped column and no window: the statements that are told repair it", async () => {
    await clickhouse.query(
      `CREATE TABLE short (id UUID, timestamp DateTime64(3, 'UTC'), event_type String)
       ENGINE = MergeTree ORDER BY id`,
    );
    const args = ["--table", "short"];
    const toDo = async (code: number, wanted: RegExp) => {
      const lines = aboutServers(await check(code, only(clickhouse.url), args));
      const line = lines.at(-1)!;
      assert.match(line, wanted);
      await clickhouse.query(line.split(" → ")[1]!);
    };
    await toDo(
      1,
      /^✗ table short on \S+: lacks user_id, properties → ALTER TABLE default\.short ADD/,
    );
    await toDo(
      0,
      /^! table short on \S+: fsync_after_insert is 0: a power cut .* → ALTER TABLE default\.short M/,
    );
    await toDo(
      0,
      /^! table short on \S+: non_replicated_dedup\w+ is 0: a retry can store .* twice →/,
    );
    const lines = aboutServers(await check(0, only(clickhouse.url), args));
    assert.match(lines.at(-1)!, /^✓ table short on \S+: takes events; deduplication window 1000$/);
  });

  testOnce(
    "columns of other types: what cannot be is wrong, what may hurt is warned of",
    async () => {
      await clickhouse.query(
        `CREATE TABLE odd (id UInt8, timestamp DateTime, event_type Enum8('a' = 1), user_id String,
       properties String, more String) ENGINE = MergeTree ORDER BY user_id
       SETTINGS non_replicated_deduplication_window = 5`,
      );
      await clickhouse.query("CREATE TABLE plain (n UInt32) ENGINE = Log");
      const args = ["--table", "odd", "--tables", "plain,gone,logs_*"];
      assertLines(aboutServers(await check(1, only(clickhouse.url), args)).slice(2), [
        /^✗ table odd on \S+: id is UInt8, not UUID: .+ → ALTER TABLE default\.odd MODIFY COLUMN id UUID/,
        /^! table odd on \S+: timestamp is DateTime, not DateTime64\(3, 'UTC'\): milliseconds are lost →/,
        /^! table odd on \S+: event_type is Enum8\('a' = 1\), not .+ become dead letters →/,
        /^. table odd on \S+: /,
        /^✗ table gone on \S+: not there.* → create it/,
        /^! tables logs_\* on \S+: no table matches$/,
        /^✓ table plain on \S+: takes rows$/,
        /^! table plain on \S+: engine Log has no deduplication window of its own/,
      ]);
      assert.equal(await clickhouse.query("SELECT count() FROM odd"), "0");
      const none = ["--table", "none", "--no-create-table"];
      const lines = aboutServers(await check(1, only(clickhouse.url), none));
      assert.match(
        lines.at(-1)!,
        /^✗ table none on \S+: not there → create it, or set create-table$/,
      );
    },
  );

  testOnce("no right to create, none to insert: the GRANT to run", async () => {
    await clickhouse.query("CREATE TABLE there (n UInt32) ENGINE = MergeTree ORDER BY n");
    const denied =
      "Code: 497. DB::Exception: default: Not enough privileges. To execute this query, " +
      "it's necessary to have the grant INSERT(n) ON default.there. (ACCESS_DENIED)";
    const front = await startFront(
      clickhouse.url,
      (sql) =>
        sql.startsWith("CHECK GRANT CREATE")
          ? { body: "0\n" }
          : sql.startsWith("INSERT")
          ? { status: 403, code: 497, body: denied }
          : null,
    );
    try {
      const args = ["--tables", "there"];
      assertLines(aboutServers(await check(1, only(front.url), args)).slice(2), [
        /^✗ table analytics_events .* no right to CREATE TABLE → GRANT CREATE TABLE ON default\.analyti/,
        /^✗ table there on .* refused: .*Not enough.* → GRANT INSERT ON default\.there TO default$/,
      ]);
    } finally {
      await front.close();
    }
  });

  testOnce("clock skew, ahead and behind", async () => {
    for (
      const [byMs, wanted] of [[90_000, /9\d\.\d s ahead of/], [
        -90_000,
        /[89]\d\.\d s behind/,
      ]] as const
    ) {
      const front = await startFront(
        clickhouse.url,
        (sql) => sql.includes("now64") ? { body: `{"now_ms":"${Date.now() + byMs}"}\n` } : null,
      );
      try {
        const lines = aboutServers(await check(0, only(front.url)));
        assert.match(
          lines[2]!,
          /^! clickhouse \S+: its clock is .+ this host's → let both be set by NTP/,
        );
        assert.match(lines[2]!, wanted);
      } finally {
        await front.close();
      }
    }
  });

  testOnce(
    "ClickHouse 18.16: no table of events, but others; a user that may only read",
    async () => {
      const old = await startOldClickHouse();
      try {
        await old.query("CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n");
        const reader = old.url.replace("://", "://reader:r@");
        const lines = await check(1, only(`${old.url},${reader}`), ["--tables", "t"]);
        const event =
          /^✗ table analytics_events on \S+: .*needs ClickHouse 21\.8.*this server is 18\.16/;
        assertLines(aboutServers(lines).slice(1), [
          /^✓ clickhouse \S+: 18\.16/,
          event,
          /^✓ table t on \S+: takes rows$/,
          /^! table t on \S+: this server remembers no INSERTs .*: a retry can store a batch twice$/,
          /^✗ clickhouse \S+: Cannot override setting .* in readonly mode → give this user a profile/,
        ]);
      } finally {
        await old.close();
      }
    },
  );

  testOnce("InfluxDB: a user that may not write, or not create the database", async () => {
    for (const q of ["CREATE DATABASE made", `CREATE USER "weak" WITH PASSWORD 'p'`]) {
      await asInflux(q);
    }
    const said = async (code: number, path: string) => {
      const url = `${influxAs("weak")}/${path}`;
      const lines = await check(code, { ...only(clickhouse.url), SHISHI_INFLUX_URL: url });
      return lines.find((line) => line.includes("influxdb"))!;
    };
    assert.match(
      await said(1, "unmade"),
      /^✗ .*not there, and this user may not create it → CREATE DATA/,
    );
    assert.match(await said(1, "made"), /^✗ .*HTTP 403.* → GRANT WRITE ON "made" TO "weak"$/);
    await asInflux(`GRANT WRITE ON "made" TO "weak"`);
    assert.match(await said(0, "made"), /^✓ .*takes counts$/);
  });

  testOnce("NATS: a user that may not hear every command", async () => {
    const lines = await check(1, { ...all(), SHISHI_NATS_USER: "some" });
    assert.match(
      lines.find((line) => line.includes(" nats "))!,
      /^✗ nats \S+: 2\.\S+ the server does not permit .* on shishi\.\w+ \(and \d+ more\) → permit subscr/,
    );
  });

  test("data-dir: of a running collector, of others, full, read-only, a file", async () => {
    const disk = mountSmallDisk("4m");
    const shishi = await startShishi({ env: { SHISHI_CLICKHOUSE_URL: clickhouse.url } });
    const listen = shishi.url.replace("http://", "");
    const at = async (code: number, dataDir: string, more: readonly string[] = []) => {
      const args = ["--data-dir", dataDir, ...more];
      const lines = await check(code, only(clickhouse.url), args, false);
      return lines.filter((line) => /^. (data-dir|disk|lock|listen)/.test(line));
    };
    try {
      const held = await at(0, join(shishi.dir, "shishi-data"), ["--listen", listen]);
      assert.match(held[0]!, /^✓ data-dir \S+: mine, mode 700$/);
      assert.match(held[1]!, new RegExp(`^✓ lock of \\S+: held by .*, pid ${shishi.pid}$`));
      assert.match(
        held.at(-1)!,
        new RegExp(
          `^✓ listen ${listen}: a collector .*, and one runs in .* \\(pid ${shishi.pid}\\)$`,
        ),
      );
      const other = await at(1, disk.path, ["--listen", listen]);
      assert.match(other.at(-1)!, /^✗ listen \S+: a collector with another data-dir listens there/);
      assert.match(other[1]!, /^! disk of \S+: 0\.00 GiB free, less than .* → make room/);
      disk.fill();
      assert.match(
        (await at(1, disk.path))[2]!,
        /^✗ disk .*cannot be written: ENOSPC.* → make room/,
      );
      disk.makeRoom();
      await disk.readOnly();
      assert.match(
        (await at(1, disk.path)).at(-2)!,
        /^✗ disk .*cannot be written: EROFS.* → mount that disk writable/,
      );
      assert.match((await at(1, join(disk.path, "x", "y"))).at(-2)!, /^✗ .* written: EROFS/);
      assert.match(
        (await at(1, "/etc/passwd"))[0]!,
        /^✗ data-dir \S+: is no folder → name another/,
      );
      assert.equal((await stopBy(shishi)).code, 0);
    } finally {
      await shishi.close();
      disk.close();
    }
  });
});
