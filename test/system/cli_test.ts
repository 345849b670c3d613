/**
 * The command line as people and their scripts meet it: help, mistakes, exit codes, where settings come
 * from, HTTPS, and that no secret is ever told.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { freePort } from "../kit/free_port.ts";
import {
  type ClickHouse,
  type Influx,
  type Nats,
  startClickHouse,
  startInflux,
  startNats,
  startOldClickHouse,
} from "../kit/servers.ts";
import { runShishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir, tempFile } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { holds, ready, says, stopBy } from "./around.ts";

const VERSION = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"))
  .version as string;
const COMMANDS = ["serve", "status", "flush", "pause", "resume", "stop", "check", "health"];

describe("help and mistakes", () => {
  for (const binary of [false, true]) {
    test(`--help, --version and help COMMAND${binary ? " (binary)" : ""}`, async () => {
      const [overview, version, bare, named] = await Promise.all([
        runShishi(["--help"], { binary }),
        runShishi(["--version"], { binary }),
        runShishi(["help"], { binary }),
        runShishi(["help", "stop"], { binary }),
      ]);
      assert.equal(overview.code, 0);
      for (const command of COMMANDS) {
        assert.match(overview.stdout, new RegExp(`^  ${command} `, "m"));
      }
      assert.equal(bare.stdout, overview.stdout);
      assert.match(version.stdout, new RegExp(`^shishi ${VERSION} \\((bun|deno) [0-9.]+\\)\n$`));
      assert.equal(named.code, 0);
      assert.match(named.stdout, /^Usage: shishi stop .*--target/);
    });
  }

  test("COMMAND --help: usage, what it does, exit codes, at most 100 columns", async () => {
    const pages = await Promise.all(COMMANDS.map((command) => runShishi([command, "--help"])));
    for (const [at, { code, stdout, stderr }] of pages.entries()) {
      assert.deepEqual([code, stderr], [0, ""]);
      assert.match(stdout, new RegExp(`^Usage: shishi ${COMMANDS[at]} `));
      assert.match(stdout, /exit code 0/i);
      assert.deepEqual(stdout.split("\n").filter((line) => line.length > 100), []);
    }
  });

  const toml = tempFile("c.toml", `clickhouse-ur = "x"\nconcurrency = "many"\n`);
  after(() => removeDir(join(toml, "..")));
  const mistakes: [string, string[], Record<string, string>, string[]][] = [
    ["command", ["stats"], {}, ['unknown command "stats"; did you mean status?']],
    ["command far from all", ["frobnicate"], {}, ["unknown command", "one of: serve, status"]],
    ["help of an unknown command", ["help", "sttop"], {}, ["did you mean stop?"]],
    ["flag", ["--flush-intervall", "1s"], {}, [
      "--flush-intervall: unknown flag; did you mean --flush-interval?",
      "see shishi serve --help",
    ]],
    ["flag of another command", ["stop", "--table", "t"], {}, [
      "--table: not a flag of this command",
      "see shishi stop --help",
    ]],
    ["target without its flag", ["stop", "eu"], {}, [
      'argument 1: expected a flag such as --target, got "eu"',
    ]],
    ["variable", ["check"], { SHISHI_TABEL: "t" }, [
      "SHISHI_TABEL: unknown environment variable; did you mean SHISHI_TABLE?",
    ]],
    ["key, and more, in one go", ["check", "--config", toml, "--listen=x", "--ack=no"], {}, [
      "clickhouse-ur",
      "did you mean clickhouse-url?",
      "concurrency (file ",
      '"many"',
      "--listen: expected address:port",
      "--ack: expected memory",
    ]],
    ["file that is not there", ["--config", "/nope.toml"], {}, [
      "--config",
      '"/nope.toml"',
      "ENOENT",
    ]],
  ];
  for (const [name, argv, env, wanted] of mistakes) {
    test(`unknown or wrong: ${name}`, async () => {
      const { code, stdout, stderr } = await runShishi(argv, { env });
      assert.deepEqual([code, stdout], [2, ""]);
      for (const part of wanted) assert.ok(stderr.includes(part), `${part}\n${stderr}`);
      for (const line of stderr.trimEnd().split("\n")) assert.match(line, /^shishi: /);
    });
  }
});

describe("starting", () => {
  for (const binary of [false, true]) {
    test(`an address in use: exit 1, and which one${binary ? " (binary)" : ""}`, async () => {
      const other = createServer();
      await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
      const { port } = other.address() as { port: number };
      try {
        const { code, stdout, stderr } = await runShishi(
          ["--listen", `127.0.0.1:${port}`, "--log-format", "text"],
          { binary },
        );
        assert.deepEqual([code, stdout], [1, ""]);
        assert.ok(stderr.includes(`cannot listen on 127.0.0.1:${port}`), stderr);
        assert.ok(stderr.includes("another program listens there already"), stderr);
        assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
      } finally {
        await new Promise((resolve) => other.close(resolve));
      }
    });
  }

  test("two collectors on one address: the second gives up, the first serves on", async () => {
    const first = await startShishi({});
    try {
      const address = first.url.replace("http://", "");
      const second = await runShishi(["--listen", address]);
      assert.equal(second.code, 1);
      assert.ok(second.stderr.includes(`cannot listen on ${address}`), second.stderr);
      assert.equal((await first.get("/healthz")).status, 200);
    } finally {
      await first.close();
    }
  });

  test("health: 0 while it is alive, 1 when nothing or something else is there", async () => {
    const shishi = await startShishi({});
    const listen = (url: string) => ({ SHISHI_LISTEN: url.replace("http://", "") });
    const something = await startFakeInflux(null);
    try {
      const alive = await runShishi(["health"], { env: listen(shishi.url) });
      assert.deepEqual([alive.code, alive.stdout, alive.stderr], [0, "", ""]);
      const other = await runShishi(["health"], { env: listen(something.url) });
      assert.equal(other.code, 1);
      assert.match(other.stderr, /^shishi: http:\S+\/healthz: answered 204\n$/);
      await shishi.kill();
      const dead = await runShishi(["health"], { env: listen(shishi.url), binary: true });
      assert.equal(dead.code, 1);
      assert.match(dead.stderr, /^shishi: http:\S+\/healthz: nothing listens there\n$/);
    } finally {
      await shishi.close();
      await something.close();
    }
  });
});

describe("HTTPS", () => {
  const dir = tempDir("tls");
  const path = (name: string) => join(dir, name);
  before(() => {
    for (const name of ["one", "two"]) {
      execFileSync("openssl", [
        ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(" "),
        ...["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        ...["-keyout", path(`${name}.key`), "-out", path(`${name}.crt`)],
      ], { stdio: "ignore" });
    }
  });
  after(() => removeDir(dir));

  for (const binary of [false, true]) {
    test(`with tls-cert and tls-key${binary ? " (binary)" : ""}`, async () => {
      const env = { SHISHI_TLS_CERT: path("one.crt"), SHISHI_TLS_KEY: path("one.key") };
      const shishi = await startShishi({ env, binary });
      try {
        assert.match(shishi.url, /^https:\/\/127\.0\.0\.1:\d+$/);
        const ca = readFileSync(path("one.crt"), "utf8");
        assert.equal((await overTls(`${shishi.url}/healthz`, ca)).status, 200);
        const written = await overTls(`${shishi.url}/events`, ca, '{"eventType":"a"}');
        assert.deepEqual([written.status, JSON.parse(written.body).accepted], [202, 1]);
        const listen = shishi.url.replace("https://", "");
        const health = await runShishi(["health"], {
          env: { ...env, SHISHI_LISTEN: listen },
          binary,
        });
        assert.deepEqual([health.code, health.stderr], [0, ""]);
      } finally {
        await shishi.close();
      }
    });
  }

  test("files that do not fit: exit 2, and which", async () => {
    const cases: [string, string, RegExp][] = [
      ["one.crt", "two.key", /tls-key: expected the key of ".*one\.crt", got ".*two\.key"/],
      ["one.key", "one.crt", /tls-cert: expected a PEM file with a certificate.*\n.*tls-key: /],
      ["none.crt", "one.key", /tls-cert: expected .*ENOENT/],
    ];
    for (const [cert, key, wanted] of cases) {
      const argv = ["--tls-cert", path(cert), "--tls-key", path(key)];
      const { code, stderr } = await runShishi(argv);
      assert.equal(code, 2, stderr);
      assert.match(stderr, wanted);
    }
    const alone = await runShishi(["--tls-cert", path("one.crt")]);
    assert.equal(alone.code, 2);
    assert.match(alone.stderr, /--tls-cert: expected tls-key too/);
  });
});

describe("with servers", () => {
  let clickhouse: ClickHouse;
  let nats: Nats;
  let influx: Influx;
  before(async () => {
    [clickhouse, nats, influx] = await Promise.all([
      startClickHouse(),
      startNats(`authorization { token: "token-of-nats" }`),
      startInflux(),
    ]);
  });
  after(async () => {
    await Promise.all([clickhouse.close(), nats.close(), influx.close()]);
  });
  const all = () => ({
    SHISHI_CLICKHOUSE_URL: clickhouse.url,
    SHISHI_NATS_URL: nats.url,
    SHISHI_NATS_TOKEN: "token-of-nats",
    SHISHI_INFLUX_URL: influx.url,
  });

  for (const binary of [false, true]) {
    test(`check: all is well${binary ? " (binary)" : ""}`, async () => {
      const { code, stdout, stderr } = await runShishi(["check"], { env: all(), binary });
      assert.deepEqual([code, stderr], [0, ""], stdout);
      const label = `${clickhouse.url}/default`;
      assert.deepEqual(stdout.replace(/: 26\.\S+/, ": 26").trimEnd().split("\n"), [
        "✓ settings are usable",
        `✓ clickhouse ${label}: 26`,
        `✓ table analytics_events on ${label}: not there; will be created`,
        `✓ influxdb ${influx.url}/shishi: answers`,
        `✓ nats 127.0.0.1:${nats.port}: connected`,
      ]);
    });
  }

  test("check: changes nothing", async () => {
    await runShishi(["check"], { env: all() });
    assert.equal(await clickhouse.query("EXISTS TABLE analytics_events"), "0");
    assert.deepEqual(await influx.query("", "SHOW DATABASES"), []);
  });

  test("check: each server that is not well has its line, exit 1", async () => {
    const refusing = await startFakeInflux(null);
    refusing.behave({ status: 401, body: `{"error":"authorization failed"}` });
    const away = await freePort();
    try {
      const wrongPassword = clickhouse.url.replace("http://", "http://default:wrong-password@");
      const { code, stdout, stderr } = await runShishi(["check"], {
        env: {
          SHISHI_CLICKHOUSE_URL:
            `http://127.0.0.1:${away},${wrongPassword},${clickhouse.url}/nowhere`,
          SHISHI_INFLUX_URL: refusing.url.replace("http://", "http://u:wrong-password@"),
          SHISHI_NATS_URL: `ws://127.0.0.1:${away},${nats.url}`,
          SHISHI_NATS_TOKEN: "wrong-token",
        },
      });
      assert.deepEqual([code, stderr], [1, ""]);
      const lines = stdout.trimEnd().split("\n");
      const wanted = [
        /^✓ settings are usable$/,
        /^✗ clickhouse http:\/\/127\.0\.0\.1:\d+\/default: connection refused$/,
        /^✗ clickhouse http:\S+\/default: .*[Aa]uthentication failed/,
        /^✓ clickhouse http:\S+\/nowhere: 26/,
        /^✗ database nowhere on http:\S+\/nowhere: not there; create it$/,
        /^✗ influxdb http:\S+\/shishi: HTTP 401 .*authorization failed/,
        /^✗ nats 127\.0\.0\.1:\d+: \S/,
        /^✗ nats 127\.0\.0\.1:\d+: the server refuses these credentials$/,
      ];
      assert.equal(lines.length, wanted.length, stdout);
      for (const [at, pattern] of wanted.entries()) assert.match(lines[at] ?? "", pattern);
      assert.ok(!/wrong-(password|token)/.test(stdout), stdout);
    } finally {
      await refusing.close();
    }
  });

  test("check: a table that cannot take events, exit 1", async () => {
    await clickhouse.query("CREATE TABLE odd (id UUID, x String) ENGINE = MergeTree ORDER BY id");
    const env = { SHISHI_CLICKHOUSE_URL: clickhouse.url };
    const [odd, none] = await Promise.all([
      runShishi(["check", "--table", "odd"], { env }),
      runShishi(["check", "--table", "none", "--no-create-table"], { env }),
    ]);
    assert.equal(odd.code, 1);
    assert.match(
      odd.stdout,
      /✗ table odd on \S+: lacks timestamp, event_type, user_id, properties/,
    );
    assert.equal(none.code, 1);
    assert.match(none.stdout, /✗ table none on \S+: not there; create it, or set create-table/);
  });

  test("check: a ClickHouse that is too old for events, exit 1", async () => {
    const old = await startOldClickHouse();
    try {
      const { code, stdout } = await runShishi(["check", "--clickhouse-url", old.url]);
      assert.equal(code, 1);
      assert.match(stdout, /✓ clickhouse \S+: 18\.16/);
      assert.match(stdout, /✗ table analytics_events on \S+: .*too old.*21\.8/);
    } finally {
      await old.close();
    }
  });

  test("flag beats environment beats file beats default", async () => {
    const file = tempFile(
      "shishi.toml",
      `clickhouse-url = "${clickhouse.url}"\ntable = "from_file"\ngroup = "from-file"
flush-interval = "1h"\ntables = ["one", "two"]\n`,
    );
    await clickhouse.query("CREATE TABLE two (n UInt32) ENGINE = MergeTree ORDER BY n");
    const shishi = await startShishi({
      args: ["--config", file, "--id", "from-flag", "--group=flag-group"],
      env: { SHISHI_ID: "from-env", SHISHI_TABLE: "from_env", SHISHI_GROUP: "env-group" },
    });
    try {
      await ready(shishi);
      const { id, group } = await shishi.status();
      assert.deepEqual([id, group], ["from-flag", "flag-group"]);
      assert.equal((await shishi.post({ eventType: "a" })).status, 202);
      assert.equal((await shishi.post({ n: 7 }, { path: "/events/two" })).status, 202);
      // The file's flush interval holds: nothing is sent by itself.
      await holds(shishi, 2);
      assert.equal((await stopBy(shishi)).code, 0);
      assert.equal(await clickhouse.query("SELECT count() FROM from_env"), "1");
      assert.equal(await clickhouse.query("SELECT n FROM two"), "7");
      assert.equal(await clickhouse.query("EXISTS TABLE from_file"), "0");
    } finally {
      await shishi.close();
      removeDir(join(file, ".."));
    }
  });

  test("no secret is ever printed, logged or answered", async () => {
    const names = ["clickhouse", "influx", "nats", "auth-one", "auth-two", "bad-try"];
    const [ch, inf, nat, one, two, bad] = names.map((name) => `s3cret-of-${name}-Zq7x`) as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    const withPassword = (url: string, user: string, password: string) =>
      url.replace("://", `://${user}:${password}@`);
    const tokens = tempFile("tokens", `${one},${two}\n`);
    const refusing = await startFakeInflux(null);
    refusing.behave({ status: 401, body: `{"error":"authorization failed"}` });
    const env = {
      SHISHI_CLICKHOUSE_URL: withPassword(clickhouse.url, "default", ch),
      SHISHI_INFLUX_URL: withPassword(refusing.url, "u", inf),
      SHISHI_NATS_URL: nats.url,
      SHISHI_NATS_TOKEN: nat,
      SHISHI_AUTH_TOKENS_FILE: tokens,
    };
    let heard = "";
    const shishi = await startShishi({
      args: [
        ..."--log-level debug --influx-interval 100ms --flush-interval 20ms".split(" "),
        ...["--shutdown-timeout", "300ms"],
      ],
      env,
    });
    try {
      const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
      const answers = [
        await shishi.post({ eventType: "a" }, { headers: bearer(bad) }),
        await shishi.post({ eventType: "a" }, { headers: bearer(one) }),
        await shishi.post({ eventType: "a", oops: 1 }, { headers: bearer(two) }),
        await shishi.get("/api/status", bearer(one)),
        await shishi.get("/metrics", bearer(two)),
        await shishi.get(`/nothing?token=${bad}`, bearer(bad)),
      ];
      assert.deepEqual(answers.map(({ status }) => status), [401, 202, 400, 200, 200, 404]);
      for (const { text, headers } of answers) heard += text + JSON.stringify([...headers]);
      await says(shishi, "nats: not connected, trying again in the background");
      await says(shishi, "InfluxDB does not take the counts; they are kept");
      await eventually(() => assert.match(shishi.stderr(), /Authentication failed/), {
        withinMs: 10_000,
      });
      const late = await shishi.get("/readyz");
      heard += late.text;
      const { code } = await stopBy(shishi);
      assert.equal(code, 1);
      heard += shishi.stderr();

      const runs = await Promise.all([
        runShishi(["check"], { env }),
        runShishi(["stop", "--timeout", "1s"], { env }),
        runShishi(["--ack", "nonsense", "--auth-tokens", `${one} ${two}`], { env }),
        runShishi(["--clickhouse-url", `tcp://u:${ch}@h:9000`, "--nats-tokn", nat]),
        runShishi(["--nats-password", nat, "--influx-url", `http://u:${inf}@h/a/b`]),
      ]);
      assert.deepEqual(runs.map(({ code }) => code), [1, 1, 2, 2, 2]);
      for (const { stdout, stderr } of runs) heard += stdout + stderr;
    } finally {
      await shishi.close();
      await refusing.close();
      removeDir(join(tokens, ".."));
    }
    assert.ok(heard.length > 3_000);
    for (const secret of [ch, inf, nat, one, two, bad]) {
      assert.ok(!heard.includes(secret), around(heard, secret));
    }
    for (const pair of [`default:${ch}`, `u:${inf}`]) {
      assert.ok(!heard.includes(Buffer.from(pair).toString("base64")), pair);
    }
  });
});

function around(text: string, part: string): string {
  const at = text.indexOf(part);
  return text.slice(Math.max(0, at - 200), at + part.length + 100);
}

/** GET, or POST where there is a body, trusting only `ca`. */
function overTls(
  url: string,
  ca: string,
  body?: string,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const method = body === undefined ? "GET" : "POST";
    const asked = request(url, { method, ca, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => text += part);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
    });
    asked.on("error", reject);
    asked.end(body);
  });
}
