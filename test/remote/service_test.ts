/** One collector under remote control, on a real nats-server. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Remote, startRemote } from "../../src/remote/remote.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { eventually, pause } from "../kit/wait.ts";
import {
  type Asker,
  asker,
  clock,
  connected,
  countCommands,
  fakeControl,
  remember,
  remoteOptions,
} from "./kit.ts";

describe("remote control", () => {
  let nats: Nats;
  let client: Asker;
  before(async () => {
    nats = await startNats();
    client = await asker(nats.url);
  });
  after(async () => {
    await client.close();
    await nats.close();
  });

  async function start(more: Parameters<typeof remoteOptions>[2] = {}) {
    const control = fakeControl(more.group ?? "eu", more.id ?? "a");
    const ledger = countCommands();
    const log = remember();
    const options = remoteOptions([nats.url], control, { ledger, log, ...more });
    const remote = startRemote(options);
    await connected(remote);
    return { control, ledger, log, remote };
  }

  for (const where of ["", ".eu", ".eu.a"]) {
    test(`pause, status and resume on shishi.COMMAND${where}`, async () => {
      const { control, ledger, remote } = await start();
      const paused = await client.ask(`shishi.pause${where}`).next();
      assert.deepEqual(paused, {
        group: "eu",
        id: "a",
        command: "pause",
        ok: true,
        state: "paused",
        ledger: control.status().ledger,
      });
      const status = await client.ask(`shishi.status${where}`).next();
      assert.deepEqual(status, { ...control.status(), command: "status", ok: true });
      assert.equal(status["state"], "paused");
      assert.equal((await client.ask(`shishi.resume${where}`).next())["state"], "running");
      assert.deepEqual(control.calls, ["pause", "resume"]);
      assert.deepEqual(ledger.counted, ["pause true", "status true", "resume true"]);
      await remote.close();
    });

    test(`stop on shishi.stop${where} answers twice`, async () => {
      const { control, remote } = await start();
      const answers = client.ask(`shishi.stop${where}`, '{"anything"}');
      assert.equal((await answers.next())["state"], "draining");
      assert.deepEqual(control.calls, ["stop nats"]);
      assert.equal(answers.all.length, 1);
      control.stopped();
      const last = await answers.next();
      assert.equal(`${last["state"]} ${last["ok"]}`, "stopped true");
      await remote.close();
    });
  }

  for (
    const subject of [
      "shishi.pause.us",
      "shishi.pause.eu.b",
      "shishi.explode",
      "shishi",
      "other.pause",
    ]
  ) {
    test(`nobody listens on ${subject}`, async () => {
      const { control, remote } = await start();
      assert.deepEqual(await client.ask(subject).next(), { noResponders: true });
      assert.deepEqual(control.calls, []);
      await remote.close();
    });
  }

  test("a command without a reply subject is obeyed", async () => {
    const { control, remote } = await start({ subject: "ops.shishi" });
    client.connection.publish("ops.shishi.stop", "Exit");
    await eventually(() => assert.deepEqual(control.calls, ["stop nats"]), { withinMs: 5_000 });
    control.stopped();
    await remote.close();
  });

  test("any payload is ignored: bytes that are no text, and 1 MB", async () => {
    const { control, remote } = await start();
    const bytes = [new Uint8Array([0, 255, 13, 10]), new Uint8Array(1024 * 1024)];
    for (const payload of bytes) {
      assert.equal((await client.ask("shishi.pause.eu", payload).next())["ok"], true);
    }
    assert.deepEqual(control.calls, ["pause", "pause"]);
    await remote.close();
  });

  test("an answer never becomes a command", async () => {
    const { control, remote } = await start();
    client.connection.publish("shishi.status.eu", "", { reply: "shishi.stop" });
    await client.ask("shishi.status.eu").next();
    await client.ask("shishi.status.eu").next();
    assert.deepEqual(control.calls, []);
    await remote.close();
  });

  test("flush answers twice, and a slow one holds up no other command", async () => {
    const { control, ledger, remote } = await start();
    const slow = client.ask("shishi.flush.eu");
    assert.equal((await slow.next())["state"], "flushing");
    assert.deepEqual(control.calls, ["flush 1234"]);
    assert.equal((await client.ask("shishi.pause.eu").next())["ok"], true);
    control.flushed(true);
    const last = await slow.next();
    assert.equal(`${last["state"]} ${last["ok"]}`, "flushed true");
    assert.deepEqual(ledger.counted, ["pause true", "flush true"]);
    await remote.close();
  });

  test("a flush that ran out of time says so", async () => {
    const { control, remote } = await start();
    const answers = client.ask("shishi.flush.eu");
    await answers.next();
    control.flushed(false);
    const last = await answers.next();
    assert.equal(last["ok"], false);
    assert.equal(last["error"], "rows were still held after 1234 ms");
    assert.equal(last["state"], "running");
    await remote.close();
  });

  test("a stop while draining gets both answers too, and stop is idempotent", async () => {
    const { control, remote } = await start();
    const first = client.ask("shishi.stop.eu");
    await first.next();
    const second = client.ask("shishi.stop.eu.a");
    assert.equal((await second.next())["state"], "draining");
    control.stopped();
    assert.equal((await first.next())["state"], "stopped");
    assert.equal((await second.next())["state"], "stopped");
    await remote.close();
  });

  test("status is answered while draining", async () => {
    const { control, remote } = await start();
    await client.ask("shishi.stop.eu").next();
    assert.equal((await client.ask("shishi.status.eu").next())["state"], "draining");
    control.stopped();
    await remote.close();
  });

  test("the last answer is on the wire when close ends, also when stop waits for close", async () => {
    const control = fakeControl("eu", "a");
    let ended = false;
    const stopping = {
      ...control,
      // As a collector does that takes down its remote control as the last step of its stop.
      stop: async (why: string) => {
        void control.stop(why);
        await remote.close();
        ended = true;
      },
    };
    const remote: Remote = startRemote(remoteOptions([nats.url], stopping));
    await connected(remote);
    const answers = client.ask("shishi.stop.eu");
    assert.equal((await answers.next())["state"], "draining");
    assert.equal((await answers.next())["state"], "stopped");
    await eventually(() => assert.ok(ended), { withinMs: 2_000 });
    await pause(50);
    assert.equal(answers.all.length, 2);
  });

  test("close gives a waiting flush its answer", async () => {
    const { remote } = await start();
    const answers = client.ask("shishi.flush.eu");
    await answers.next();
    await remote.close();
    const last = await answers.next();
    assert.equal(last["ok"], false);
    assert.equal(last["error"], "the collector stopped before the flush was done");
  });

  test("the server shows who is connected", async () => {
    const monitored = await startNats('http: "127.0.0.1:-1"\nsystem_account: SYS\n' + SYS);
    const system = await asker(monitored.url, { user: "sys", pass: "sys" });
    const control = fakeControl("eu", "a");
    const remote = startRemote(
      remoteOptions([monitored.url], control, { auth: { kind: "user", user: "u", password: "p" } }),
    );
    await connected(remote);
    const answer = await system.ask("$SYS.REQ.SERVER.PING.CONNZ").next();
    assert.match(JSON.stringify(answer), /"name":"shishi eu\.a"/);
    await remote.close();
    await system.close();
    await monitored.close();
  });

  test("at most 64 flushes wait; the next is refused, and other commands go on", async () => {
    let shiftMs = 0;
    const shifted = { ...clock, monotonicMs: () => clock.monotonicMs() + shiftMs };
    const { control, remote } = await start({ clock: shifted });
    for (let at = 0; at < 64; at++) {
      shiftMs += 1_000;
      assert.equal((await client.ask("shishi.flush.eu").next())["state"], "flushing");
    }
    shiftMs += 1_000;
    const refused = await client.ask("shishi.flush.eu").next();
    assert.equal(refused["ok"], false);
    assert.match(String(refused["error"]), /^64 flushes are under way/);
    assert.equal(control.calls.length, 64);
    assert.equal((await client.ask("shishi.status.eu").next())["ok"], true);
    control.flushed(true);
    shiftMs += 1_000;
    assert.equal((await client.ask("shishi.flush.eu").next())["state"], "flushing");
    control.flushed(true);
    await remote.close();
  });

  test("10,000 commands at once are bounded, counted, warned of, and stop still works", async () => {
    const { control, ledger, log, remote } = await start();
    const flood = client.ask("shishi.status.eu");
    await flood.next();
    for (let at = 0; at < 10_000; at++) {
      client.connection.publish("shishi.status.eu", "", { reply: "_INBOX.flood" });
      client.connection.publish("shishi.flush.eu", "");
    }
    const stop = client.ask("shishi.stop.eu");
    assert.equal((await stop.next())["state"], "draining");
    await eventually(
      () => assert.equal(ledger.counted.length + control.calls.filter(isFlush).length, 20_002),
      {
        withinMs: 5_000,
      },
    );
    // What lasts longer than a second lets a few more through.
    assert.ok(control.calls.filter(isFlush).length <= 64);
    assert.ok(ledger.counted.filter((each) => each === "status true").length <= 2_000);
    // One kind of line for each command, which the log folds.
    const warnings = log.lines.filter((line) => line.includes("commands a second"));
    assert.deepEqual(new Set(warnings).size, 2);
    control.stopped();
    assert.equal((await stop.next())["state"], "stopped");
    await remote.close();
  });

  test("what the collector does wrong stays in the answer and the log", async () => {
    const control = fakeControl("eu", "a");
    const log = remember();
    const broken = {
      ...control,
      pause: () => {
        throw new Error("a bug");
      },
      flush: () => Promise.reject(new Error("another")),
    };
    const remote = startRemote(remoteOptions([nats.url], broken, { log }));
    await connected(remote);
    client.connection.publish("shishi.pause.eu", "");
    const flush = client.ask("shishi.flush.eu");
    await flush.next();
    assert.equal((await flush.next())["ok"], false);
    assert.equal((await client.ask("shishi.status.eu").next())["ok"], true);
    assert.equal(log.lines.filter((line) => line.startsWith("error")).length, 2);
    await remote.close();
  });
});

const isFlush = (call: string) => call.startsWith("flush");

const SYS = `accounts {
  SYS { users: [{ user: "sys", password: "sys" }] }
  APP { users: [{ user: "u", password: "p" }] }
}`;
