/**
 * The command line as people and their scripts meet it: help, mistakes, exit codes, an address in use,
 * health, HTTPS.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { testOnce } from "../kit/once.ts";
import { EVERY_BUILD, runShishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir, tempFile } from "../kit/temp.ts";

const VERSION = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"))
  .version as string;
const COMMANDS = ["serve", "status", "flush", "pause", "resume", "stop", "check", "health"];

describe("help and mistakes", () => {
  for (const binary of EVERY_BUILD) {
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
      assert.match(
        version.stdout,
        new RegExp(
          `^shishi ${VERSION} \\(commit (unknown|[0-9a-f]{12}(-dirty)?), (bun|deno) [0-9.]+, ` +
            `${process.platform}-${process.arch}\\)\n$`,
        ),
      );
      if (binary) assert.doesNotMatch(version.stdout, /unknown/);
      assert.equal(named.code, 0);
      assert.match(named.stdout, /^Usage: shishi stop .*--target/);
    });
  }

  testOnce("COMMAND --help: usage, what it does, exit codes, at most 100 columns", async () => {
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
      'unexpected argument "eu": expected a flag such as --target',
    ]],
    ["word behind others that a command takes", ["dead", "ls", "clicks", "--json", "views"], {}, [
      'unexpected argument "views": expected a flag such as --json',
      "see shishi dead --help",
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
    testOnce(`unknown or wrong: ${name}`, async () => {
      const { code, stdout, stderr } = await runShishi(argv, { env });
      assert.deepEqual([code, stdout], [2, ""]);
      for (const part of wanted) assert.ok(stderr.includes(part), `${part}\n${stderr}`);
      for (const line of stderr.trimEnd().split("\n")) assert.match(line, /^shishi: /);
    });
  }
});

describe("starting", () => {
  for (const binary of EVERY_BUILD) {
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

  for (const binary of EVERY_BUILD) {
    test(`with tls-cert and tls-key${binary ? " (binary)" : ""}`, async () => {
      const env = { SHISHI_TLS_CERT: path("one.crt"), SHISHI_TLS_KEY: path("one.key") };
      const shishi = await startShishi({ env, binary });
      try {
        assert.match(shishi.url, /^https:\/\/127\.0\.0\.1:\d+$/);
        const ca = readFileSync(path("one.crt"), "utf8");
        assert.equal((await overTls(`${shishi.url}/healthz`, ca)).status, 200);
        const written = await overTls(`${shishi.url}/events`, ca, '{"eventType":"a"}');
        assert.deepEqual([written.status, JSON.parse(written.body).accepted], [202, 1]);
        const metrics = (await overTls(`${shishi.url}/metrics`, ca)).body;
        assert.match(metrics, /^shishi_certificate_end_timestamp_seconds [1-9]\d{9}$/m);
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
