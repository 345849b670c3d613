/** `app | shishi pipe`: every line once, whoever is killed, full or away meanwhile; refused ones by number. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { after, before, describe, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { testOnce } from "../kit/once.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import {
  BUILDS,
  type Command,
  runShishi,
  type Shishi,
  startCommand,
  startShishi,
} from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

const DDL = "(message String, n UInt32) ENGINE = MergeTree ORDER BY n " +
  "SETTINGS non_replicated_deduplication_window = 1000";
const SOON = { withinMs: 30_000 };

let clickhouse: ClickHouse;
before(async () => {
  clickhouse = await startClickHouse();
  for (const name of ["logs", "once", "waits", "last"]) {
    await clickhouse.query(`CREATE TABLE ${name} ${DDL}`);
  }
});
after(() => clickhouse.close());

function collect(args: readonly string[] = [], env: Record<string, string> = {}): Promise<Shishi> {
  const usual = ["--clickhouse-url", clickhouse.url, "--tables=*", "--flush-interval=100ms"];
  return startShishi({ args: [...usual, ...args], env });
}

/** Writes it all and ends stdin. */
async function finish(command: Command, text: string): Promise<number | null> {
  command.stdin.end(text);
  return (await command.exited).code;
}

for (const binary of BUILDS) {
  describe(`pipe, ${binary ? "binary" : "source"}`, () => {
    test("objects as they stand, other lines as messages, each refused line by its number", async () => {
      await clickhouse.query("TRUNCATE TABLE logs");
      const shishi = await collect();
      const command = startCommand(["pipe", "logs", "--url", shishi.url], { binary });
      const lines = [
        "plain text",
        '{"n":1,"message":"x"}',
        "",
        '{"n":-1}',
        "[3] {",
        '{"n":2}\r',
        "5",
      ];
      assert.equal(await finish(command, lines.join("\n")), 1);
      assert.match(command.stderr(), /line 4: n: -1 does not fit UInt32/);
      assert.match(command.stderr(), /6 lines: 5 acknowledged, 1 refused/);
      await eventually(async () => {
        const rows = await clickhouse.query(
          "SELECT toString(n) || '=' || message FROM logs ORDER BY n, message",
        );
        assert.equal(rows, "0=5\n0=[3] {\n0=plain text\n1=x\n2=");
      }, SOON);
      await shishi.close();
    });

    test("a line arrives while stdin stays open, and a signal sends what was read", async () => {
      await clickhouse.query("TRUNCATE TABLE last");
      const shishi = await collect();
      const count = async () => Number(await clickhouse.query("SELECT count() FROM last"));
      const soon = startCommand(["pipe", "last", "--url", shishi.url, "--flush-every=50ms"], {
        binary,
      });
      soon.stdin.write('{"n":1}\n');
      await eventually(async () => assert.equal(await count(), 1), SOON);
      soon.stdin.end();
      assert.equal((await soon.exited).code, 0);

      for (const signal of ["SIGTERM", "SIGINT"] as const) {
        const before = await count();
        const later = startCommand(["pipe", "last", "--url", shishi.url, "--flush-every=1h"], {
          binary,
        });
        // A full batch goes at once, and tells that it reads, and listens for signals.
        later.stdin.write('{"n":2}\n'.repeat(10_000));
        await eventually(async () => assert.equal(await count(), before + 10_000), SOON);
        later.stdin.write('{"n":2}\n{"n":3}\nunfinished');
        later.signal(signal);
        assert.equal((await later.exited).code, 0, later.stderr());
        assert.match(later.stderr(), /10,003 lines: 10,003 acknowledged, 0 refused/);
        await eventually(async () => assert.equal(await count(), before + 10_003), SOON);
      }
      await shishi.close();
    });
  });
}

test("a collector that is killed in the middle, and comes back: each line once", async () => {
  const port = await freePort();
  const dir = tempDir("pipe");
  const args = ["--listen", `127.0.0.1:${port}`, "--data-dir", dir];
  let shishi = await collect(args);
  const command = startCommand(["pipe", "once", "--url", shishi.url, "--flush-every=20ms"]);
  const LINES = 30_000;
  let killed = 0;
  for (let n = 0; n < LINES;) {
    let text = "";
    for (const end = n + 1000; n < end; n++) text += `{"n":${n}}\n`;
    if (!command.stdin.write(text)) {
      await new Promise((resolve) => command.stdin.once("drain", resolve));
    }
    await delay(20);
    if (n % 10_000 === 0) {
      await shishi.kill();
      killed++;
      await delay(300);
      shishi = await collect(args);
    }
  }
  assert.equal(await finish(command, ""), 0, command.stderr());
  assert.equal(killed, 3);
  await eventually(async () => {
    const counts = await clickhouse.query("SELECT count(), uniqExact(n), max(n) FROM once");
    assert.equal(counts, `${LINES}\t${LINES}\t${LINES - 1}`);
  }, SOON);
  await shishi.close();
  removeDir(dir);
});

testOnce("events, and tokens: from the environment or a file, never an argument", async () => {
  const token = "a-token-for-the-test";
  const shishi = await collect([], { SHISHI_AUTH_TOKENS: token });
  const url = ["--url", shishi.url];
  const dir = tempDir("token");
  writeFileSync(join(dir, "token"), `${token}\n`);
  const event = '{"eventType":"piped"}\n';
  const inEnv = startCommand(["pipe", "analytics_events", ...url], {
    env: { SHISHI_TOKEN: token },
  });
  assert.equal(await finish(inEnv, event), 0, inEnv.stderr());
  const inFile = startCommand([
    "pipe",
    "analytics_events",
    ...url,
    "--token-file",
    join(dir, "token"),
  ]);
  assert.equal(await finish(inFile, event), 0, inFile.stderr());
  const none = startCommand(["pipe", "analytics_events", ...url]);
  assert.equal(await finish(none, event), 1);
  assert.match(none.stderr(), /answers 401: a bearer token is needed/);
  assert.match(none.stderr(), /1 lines: 0 acknowledged, 0 refused, 1 not acknowledged/);
  const argument = await runShishi(["pipe", "logs", "--token", token]);
  assert.equal(argument.code, 2);
  assert.ok(!argument.stderr.includes(token), argument.stderr);
  removeDir(dir);
  await shishi.close();
});

test("a write token for events is good for the table of events; HTTPS by the system's store", async () => {
  const dir = tempDir("store");
  const [key, cert] = [join(dir, "key.pem"), join(dir, "cert.pem")];
  execFileSync("openssl", [
    ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(" "),
    ...["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
    ...["-keyout", key, "-out", cert],
  ], { stdio: "ignore" });
  const token = "a-token-of-a-web-page";
  const shishi = await collect(["--tls-cert", cert, "--tls-key", key], {
    SHISHI_WRITE_TOKENS: `web:${token}=events`,
  });
  const { port } = new URL(shishi.url);
  const args = ["pipe", "analytics_events", "--url", `https://127.0.0.1:${port}`];
  const env = { SHISHI_TOKEN: token, SSL_CERT_FILE: cert };
  const piped = startCommand(args, { env });
  assert.equal(await finish(piped, '{"eventType":"piped"}\n'), 0, piped.stderr());
  const distrustful = startCommand(args, { env: { SHISHI_TOKEN: token } });
  distrustful.stdin.write('{"eventType":"piped"}\n');
  await eventually(() => assert.match(distrustful.stderr(), /waiting: .*--ca-file names a file/), {
    withinMs: 20_000,
  });
  distrustful.signal("SIGKILL");
  await distrustful.exited;
  removeDir(dir);
  await shishi.close();
});

testOnce("without a table, with a table too many", async () => {
  for (const args of [["pipe"], ["pipe", "a", "b"]]) {
    const { code, stderr } = await runShishi(args);
    assert.equal(code, 2);
    assert.match(stderr, /see shishi pipe --help/);
  }
});

/** A collector that does what a test wants. */
async function scripted(
  answer: (body: string, request: IncomingMessage) => readonly [number, object, object?] | null,
) {
  const server = createServer((request, response) => {
    const pieces: Uint8Array[] = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      const answered = answer(new TextDecoder().decode(Buffer.concat(pieces)), request);
      if (answered === null) return void request.socket.destroy();
      const [status, body, headers = {}] = answered;
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(JSON.stringify(body));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

testOnce(
  "full, stopping, a lost answer: the same batch under the same key, until it is acknowledged",
  async () => {
    const seen: [string | undefined, string][] = [];
    const fake = await scripted((body, { headers }) => {
      seen.push([String(headers["idempotency-key"]), body]);
      if (seen.length === 1) return [429, { error: "the backlog is full" }, { "retry-after": "1" }];
      if (seen.length === 2) return null;
      if (seen.length === 3) return [503, { error: "stopping" }, { "retry-after": "1" }];
      return [202, { accepted: 2, rejected: 0, ack: "disk", errors: [] }];
    });
    const command = startCommand(["pipe", "t", "--url", fake.url]);
    assert.equal(await finish(command, "a\nb\n"), 0, command.stderr());
    assert.equal(seen.length, 4);
    assert.equal(new Set(seen.map(([key, body]) => `${key} ${body}`)).size, 1);
    assert.match(command.stderr(), /waiting: .* answers 429: the backlog is full/);
    fake.close();
  },
);

testOnce(
  "a batch that is too large goes in halves, and a single line that is, not at all",
  async () => {
    let largest = 0;
    const fake = await scripted((body) => {
      const rows = body.trimEnd().split("\n");
      if (body.length > 1000) return [413, { error: "the body is larger than 1000 bytes" }];
      largest = Math.max(largest, rows.length);
      return [202, { accepted: rows.length, rejected: 0, ack: "disk", errors: [] }];
    });
    const command = startCommand(["pipe", "t", "--url", fake.url]);
    const lines = Array.from({ length: 200 }, (_, n) => n === 50 ? "x".repeat(2000) : `line ${n}`);
    assert.equal(await finish(command, lines.join("\n")), 1);
    assert.match(command.stderr(), /line 51: .* answers 413: the body is larger than 1000 bytes/);
    assert.match(command.stderr(), /200 lines: 199 acknowledged, 1 refused/);
    assert.ok(largest > 5);
    fake.close();
  },
);

test("while nothing is acknowledged stdin is not read any further", async () => {
  const fake = await scripted(() => [503, { error: "paused" }, { "retry-after": "60" }]);
  const command = startCommand(["pipe", "t", "--url", fake.url]);
  const piece = `${"x".repeat(999)}\n`.repeat(256);
  let taken = 0;
  for (let quiet = false; !quiet;) {
    taken += piece.length;
    assert.ok(taken < 32 * 1024 * 1024, "it reads on");
    if (command.stdin.write(piece)) continue;
    const drained = new Promise((resolve) => command.stdin.once("drain", resolve));
    quiet = await Promise.race([drained.then(() => false), delay(3000).then(() => true)]);
  }
  // The second one ends it at once.
  let ended = false;
  const exited = command.exited.finally(() => ended = true);
  for (; !ended; await delay(100)) {
    try {
      command.signal("SIGTERM");
    } catch {
      // It has just gone.
    }
  }
  assert.equal((await exited).code, 1);
  assert.match(command.stderr(), /not acknowledged/);
  fake.close();
});
