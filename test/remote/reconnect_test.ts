/**
 * Control comes back, whatever NATS does; and nothing of it reaches the collector.
 * Runs once: tcp_test.ts and service_test.ts have connections on both runtimes.
 */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import process from "node:process";
import { describe, test } from "node:test";
import { done, failed } from "../../src/kernel/result.ts";
import { connectForever } from "../../src/remote/reconnect.ts";
import { startRemote } from "../../src/remote/remote.ts";
import type { Wire } from "../../src/kernel/nats.ts";
import { freePort } from "../kit/free_port.ts";
import { ManualClock, settle } from "../kit/manual_clock.ts";
import { startNats } from "../kit/servers.ts";
import { eventually, patient } from "../kit/wait.ts";
import { asker, clock, connected, fakeControl, remember, remoteOptions } from "./kit.ts";

const BACK_WITHIN_MS = 20_000;

describe("a NATS that comes and goes", () => {
  for (const servers of [1, 3]) {
    test(`away for an hour, ${servers} servers: no wait is longer than 5 s, the first ones are short`, async () => {
      const clock = new ManualClock();
      const triedMs: number[] = [];
      const link = connectForever({
        servers: Array.from({ length: servers }, (_, at) => `ws://away:${at + 1}`),
        auth: { kind: "none" },
        name: "x",
        setup: () => {},
        log: remember(),
        clock,
        dial: () => {
          triedMs.push(clock.monotonicMs());
          return Promise.resolve(failed("away"));
        },
      });
      await clock.advance(3_600_000);
      await link.close();
      const waitsMs = triedMs.slice(1).map((ms, at) => ms - triedMs[at]!);
      assert.ok(waitsMs.length > 3_600 / 5);
      assert.ok(waitsMs.every((ms) => ms > 0 && ms <= 5_000));
      assert.ok(waitsMs.slice(0, servers).every((ms) => ms <= 250), waitsMs.slice(0, 3).join());
      assert.equal(clock.pending, 0);
    });
  }

  test("absent at start, killed and restarted: control comes back, each command counts once", async () => {
    const nats = await startNats();
    await nats.kill();
    const control = fakeControl("eu", "a");
    const log = remember();
    const states: string[] = [];
    const remote = startRemote(
      remoteOptions([nats.url], control, { log, onState: (state) => states.push(state) }),
    );
    await eventually(() => assert.ok(log.lines.some((line) => line.includes("not connected"))), {
      withinMs: 5_000,
    });
    assert.equal(remote.server(), null);

    for (let round = 1; round <= 3; round++) {
      await nats.start();
      await connected(remote, BACK_WITHIN_MS);
      const client = await asker(nats.url);
      const answers = client.ask("shishi.pause");
      assert.equal((await answers.next())["ok"], true);
      assert.equal((await client.ask("shishi.status.eu.a").next())["ok"], true);
      assert.equal(answers.all.length, 1);
      assert.deepEqual(control.calls, Array.from({ length: round }, () => "pause"));
      await client.close();
      await nats.kill();
      await eventually(() => assert.equal(remote.server(), null), { withinMs: 5_000 });
    }
    assert.deepEqual(states, [1, 2, 3].flatMap(() => ["connected", "disconnected"]));
    await remote.close();
    await nats.close();
  });

  test("frozen: noticed, left, and control is back on a server that lives", async () => {
    const frozen = await startNats();
    const healthy = await startNats();
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions([frozen.url, healthy.url], control));
    await connected(remote);
    assert.equal(remote.server(), `127.0.0.1:${frozen.port}`);
    process.kill(frozen.pid, "SIGSTOP");
    await eventually(() => assert.equal(remote.server(), `127.0.0.1:${healthy.port}`), {
      withinMs: BACK_WITHIN_MS,
    });
    const client = await asker(healthy.url);
    assert.equal((await client.ask("shishi.status.eu").next())["ok"], true);
    await client.close();
    await remote.close();
    process.kill(frozen.pid, "SIGCONT");
    await frozen.close();
    await healthy.close();
  });

  test("stalled while it subscribes: connected is told when the server has answered", async () => {
    const log = remember();
    const clock = new ManualClock();
    const answers: ((taken: boolean) => void)[] = [];
    const ended = Promise.withResolvers<string>();
    const wire: Wire = {
      server: "stalled:1",
      closed: ended.promise,
      subscribe() {},
      publish: () => true,
      flush: () => new Promise((resolve) => answers.push(resolve)),
      close: () => Promise.resolve(ended.resolve("closed")),
    };
    const link = connectForever(
      {
        servers: ["ws://stalled:1"],
        auth: { kind: "none" },
        name: "x",
        setup: () => {},
        log,
        clock,
        dial: () => Promise.resolve(done(wire)),
      },
    );
    for (const taken of [false, false, true]) {
      await settle();
      assert.equal(link.server(), null);
      answers.shift()!(taken);
      await clock.advance(1_000);
    }
    assert.equal(link.server(), "stalled:1");
    assert.deepEqual(log.lines, ['info nats: connected {"server":"stalled:1"}']);
    const closing = link.close();
    answers.shift()!(true);
    await closing;
  });

  test("frozen and thawed: control comes back on the same server", async () => {
    const nats = await startNats();
    const remote = startRemote(remoteOptions([nats.url], fakeControl("eu", "a")));
    await connected(remote);
    process.kill(nats.pid, "SIGSTOP");
    await eventually(() => assert.equal(remote.server(), null), { withinMs: BACK_WITHIN_MS });
    process.kill(nats.pid, "SIGCONT");
    await connected(remote, BACK_WITHIN_MS);
    const client = await asker(nats.url);
    assert.equal((await client.ask("shishi.status.eu").next())["ok"], true);
    await client.close();
    await remote.close();
    await nats.close();
  });

  test("frozen at the moment of the stop: close does not wait for it", async () => {
    const nats = await startNats();
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions([nats.url], control));
    await connected(remote);
    const client = await asker(nats.url);
    await client.ask("shishi.stop.eu").next();
    process.kill(nats.pid, "SIGSTOP");
    const startedMs = performance.now();
    await remote.close();
    assert.ok(performance.now() - startedMs < patient(3_000));
    process.kill(nats.pid, "SIGCONT");
    await client.close();
    await nats.close();
  });

  test("away at the moment of the stop: close takes no time", async () => {
    const nats = await startNats();
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions([nats.url], control));
    await connected(remote);
    const client = await asker(nats.url);
    await client.ask("shishi.stop.eu").next();
    await client.close();
    await nats.kill();
    await eventually(() => assert.equal(remote.server(), null), { withinMs: 5_000 });
    const startedMs = performance.now();
    control.stopped();
    await remote.close();
    assert.ok(performance.now() - startedMs < patient(500));
    await nats.close();
  });

  test("a port that accepts and says nothing, a web server, a name that is none: the next is tried", async () => {
    const silent = createServer(() => {});
    const web = createServer((socket) => {
      socket.on("error", () => {});
      socket.end("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    const ports = await Promise.all(
      [silent, web].map((server) =>
        new Promise<number>((resolve) =>
          server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port))
        )
      ),
    );
    const nats = await startNats();
    const servers = [
      `ws://127.0.0.1:${await freePort()}`,
      "ws://no-such-host.invalid:9222",
      `ws://127.0.0.1:${ports[1]}`,
      `ws://127.0.0.1:${ports[0]}`,
      "localhost:4222",
      nats.url,
    ];
    const remote = startRemote(remoteOptions(servers, fakeControl("eu", "a")));
    await connected(remote, BACK_WITHIN_MS);
    assert.equal(remote.server(), `127.0.0.1:${nats.port}`);
    await remote.close();
    await nats.close();
    silent.close();
    web.close();
  });

  test("close while a connection is being made, or waited for, ends at once", async () => {
    const silent = createServer(() => {});
    const port = await new Promise<number>((resolve) =>
      silent.listen(0, "127.0.0.1", () => resolve((silent.address() as { port: number }).port))
    );
    for (const server of [`ws://127.0.0.1:${port}`, `ws://127.0.0.1:${await freePort()}`]) {
      const link = connectForever(
        {
          servers: [server],
          auth: { kind: "none" },
          name: "x",
          setup: () => {},
          log: remember(),
          clock,
        },
      );
      const startedMs = performance.now();
      await link.close();
      await link.close();
      assert.ok(performance.now() - startedMs < patient(200));
    }
    silent.close();
  });
});
