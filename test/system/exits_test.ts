/**
 * Exit channels of a running collector: an Exit stops it as SIGTERM does, and `shishi stop --via` is what says
 * it; over NATS here, over the other brokers in every_source_test.ts.
 * Runs once: test/sources/ has both runtimes.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { connect } from "nats.ws";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, type Nats, startClickHouse, startNats } from "../kit/servers.ts";
import { BUILDS, runShishi, startShishi } from "../kit/shishi.ts";
import { tempFile } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { events, ledgerAtEnd, says } from "./around.ts";

const SECRET = "a secret of the fleet";
const LISTENED = "an exit channel is listened to";

describe("exits", () => {
  let nats: Nats;
  let clickhouse: ClickHouse;
  before(async () => {
    [nats, clickhouse] = await Promise.all([startNats(), startClickHouse()]);
  });
  after(async () => {
    await Promise.all([nats.close(), clickhouse.close()]);
  });

  const urlOf = (subject: string) => `nats://127.0.0.1:${nats.natsPort}?subject=${subject}`;
  async function say(subject: string, ...texts: string[]): Promise<void> {
    await sayAt(nats, subject, ...texts);
  }
  async function sayAt(server: Nats, subject: string, ...texts: string[]): Promise<void> {
    const connection = await connect({ servers: server.url });
    for (const text of texts) connection.publish(subject, text);
    await connection.flush();
    await connection.close();
  }
  const start = (exits: string, binary: boolean, env: Record<string, string> = {}) =>
    startShishi({
      binary,
      args: ["--flush-interval=1h"],
      env: { SHISHI_CLICKHOUSE_URL: clickhouse.url, SHISHI_EXITS: exits, ...env },
    });

  for (const binary of BUILDS) {
    const build = binary ? "the binary" : "from source";
    test(`an Exit stops, and what is held is delivered first; other texts do nothing: ${build}`, async () => {
      const subject = `exit.${binary}`;
      const shishi = await start(urlOf(subject), binary);
      try {
        await says(shishi, LISTENED);
        assert.equal((await shishi.post(events(10))).status, 202);
        await say(subject, "hello", "exit", '{"Exit":true}', "");
        await says(shishi, "an exit channel: what is no Exit is ignored");
        assert.equal((await shishi.status()).state, "running");
        await say(subject, "Exit\n");
        assert.deepEqual(await shishi.exited, { code: 0, signal: null });
        const { stored, held } = ledgerAtEnd(shishi);
        assert.deepEqual([stored, held], [10, 0]);
      } finally {
        await shishi.close();
      }
    });

    test(`with control-secret only what is signed stops: ${build}`, async () => {
      const subject = `signed.${binary}`;
      const secret = tempFile("control-secret", SECRET);
      const env = { SHISHI_CONTROL_SECRET_FILE: secret };
      const shishi = await start(urlOf(subject), binary, env);
      try {
        await says(shishi, LISTENED);
        await say(subject, "Exit");
        const stop = (env: Record<string, string>) =>
          runShishi(["stop", "--via", urlOf(subject)], { env, binary });
        assert.equal((await stop({ SHISHI_CONTROL_SECRET: "a secret of another fleet" })).code, 0);
        await eventually(async () => {
          const { text } = await shishi.get("/metrics");
          assert.match(text, /shishi_control_commands_total\{command="stop",ok="false"\} 2/);
        }, { withinMs: 10_000 });
        // Lines of one kind are folded; the first is there.
        const refused = shishi.lines().find(({ message }) =>
          message === "an exit channel: an Exit is refused"
        );
        assert.match(String(refused?.error), /^not signed/);
        assert.equal((await shishi.status()).state, "running");
        const stopped = await stop(env);
        assert.equal(stopped.code, 0, stopped.stderr);
        assert.match(
          stopped.stdout,
          /^sent on nats:signed\.\w+ \(nats:\/\/127\.0\.0\.1:\d+\): every/,
        );
        assert.equal((await shishi.exited).code, 0);
        assert.doesNotMatch(shishi.stderr(), new RegExp(SECRET));
      } finally {
        await shishi.close();
      }
    });
  }

  test("a broker that is away harms nothing, and is heard when it comes", async () => {
    const late = await startNats();
    await late.kill();
    const exits = [
      `nats://127.0.0.1:${late.natsPort}?subject=exit`,
      `redis://127.0.0.1:${await freePort()}?channel=exit`,
    ];
    const shishi = await start(exits.join(","), false);
    try {
      await says(shishi, "an exit channel is away, trying again in the background");
      assert.equal((await shishi.post(events(1))).status, 202);
      assert.equal((await shishi.get("/readyz")).status, 200);
      assert.equal((await shishi.status()).state, "running");
      await late.start();
      await says(shishi, LISTENED);
      await sayAt(late, "exit", "Exit");
      assert.equal((await shishi.exited).code, 0);
    } finally {
      await shishi.close();
      await late.close();
    }
  });

  test("a reload takes a channel, and lets another go", async () => {
    const file = tempFile("exits", urlOf("reload.one"));
    const shishi = await startShishi({
      args: ["--exits-file", file],
      env: { SHISHI_CLICKHOUSE_URL: clickhouse.url },
    });
    try {
      await says(shishi, LISTENED);
      writeFileSync(file, `${urlOf("reload.two")}\n`);
      shishi.signal("SIGHUP");
      await eventually(() => {
        const there = shishi.lines().filter(({ message }) => message === LISTENED);
        assert.deepEqual(there.map(({ exit }) => exit), ["nats:reload.one", "nats:reload.two"]);
      }, { withinMs: 10_000 });
      await say("reload.one", "Exit");
      await pause(300);
      assert.equal((await shishi.status()).state, "running");
      await say("reload.two", "Exit");
      assert.equal((await shishi.exited).code, 0);
    } finally {
      await shishi.close();
    }
  });

  test("while a new process takes over one of the two always listens", async () => {
    const shishi = await start(urlOf("upgrade"), BUILDS.at(-1)!);
    let follower = 0;
    try {
      await says(shishi, LISTENED);
      shishi.signal("SIGUSR2");
      await says(shishi, "starting a new process to follow this one");
      const started = shishi.lines().find(({ message }) => /^starting a new/.test(String(message)));
      follower = Number(started!.pid);
      // Each says it before the old one begins to leave.
      await eventually(() => {
        const order = shishi.lines().map(({ message }) => message)
          .filter((message) => message === LISTENED || message === "draining");
        assert.deepEqual(order, [LISTENED, LISTENED, "draining"]);
      }, { withinMs: 20_000 });
      await say("upgrade", "Exit");
      await eventually(() => {
        const last = shishi.lines().findLast(({ message }) => message === "draining");
        assert.equal(last?.reason, "exit nats:upgrade");
      }, { withinMs: 20_000 });
      await eventually(() => assert.throws(() => process.kill(follower, 0)), { withinMs: 20_000 });
      follower = 0;
    } finally {
      if (follower > 0) process.kill(follower, "SIGKILL");
      await shishi.close();
    }
  });

  test("check says of each channel whether it can be listened to", async () => {
    const away = await freePort();
    const exits = `${urlOf("check")},redis://127.0.0.1:${away}?channel=exitCh`;
    const { stdout, code } = await runShishi(["check", "--json"], {
      env: { SHISHI_EXITS: exits, SHISHI_CLICKHOUSE_URL: clickhouse.url },
    });
    const found = stdout.trim().split("\n").map((line) => JSON.parse(line))
      .filter((line) => line.check.startsWith("exit "));
    assert.deepEqual(found.map(({ check, state }) => [check, state]), [
      [`exit nats:check (nats://127.0.0.1:${nats.natsPort})`, "ok"],
      [`exit redis:exitCh (redis://127.0.0.1:${away})`, "wrong"],
    ]);
    assert.equal(code, 1);
  });

  const WRONG: [string[], RegExp][] = [
    [["--via=redis://:geheim@h?channel=c"], /without a secret, .*\(password-file= takes it\)/],
    [["--via=nats://geheim@h?subject=s"], /without a secret, .*\(token-file= takes it\)/],
    [["--via=redis://h?channel=c", "--target=eu"], /--target: has no effect with --via/],
    [["--via=redis://h?channel=c", "--batch=2"], /--batch: has no effect with --via/],
    [["--via=redis://h?chanel=c"], /--via: exit \(redis:\/\/h:6379\): chanel: unknown parameter/],
  ];
  for (const [argv, why] of WRONG) {
    test(`stop ${argv.join(" ")}`, async () => {
      const { code, stderr } = await runShishi(["stop", ...argv]);
      assert.equal(code, 2);
      assert.match(stderr, why);
      assert.doesNotMatch(stderr, /geheim/);
    });
  }

  test("stop --via to a broker that is away fails with a sentence", async () => {
    const port = await freePort();
    const via = `nats://127.0.0.1:${port}?subject=s`;
    const { code, stderr } = await runShishi(["stop", "--via", via, "--timeout=3s"]);
    assert.equal(code, 1);
    assert.match(stderr, /not sent on nats:s \(nats:\/\/127\.0\.0\.1:\d+\): .*connection refused/);
  });
});
