/** `shishi status|flush|pause|resume|stop` against real servers and collectors made of nothing. */
import assert from "node:assert/strict";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { controlFleet } from "../../src/fleet/fleet.ts";
import type { FleetIo } from "../../src/fleet/talk.ts";
import type { Command } from "../../src/contracts.ts";
import { type Remote, startRemote } from "../../src/remote/remote.ts";
import { freePort } from "../kit/free_port.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { eventually, patient } from "../kit/wait.ts";
import {
  clock,
  connected,
  type FakeControl,
  fakeControl,
  freeze,
  remoteOptions,
} from "../remote/kit.ts";

interface Collector {
  control: FakeControl;
  remote: Remote;
}

describe("commands of the fleet", () => {
  let nats: Nats;
  let fleet: Collector[] = [];
  before(async () => {
    nats = await startNats();
  });
  after(() => nats.close());

  /** Collectors by `GROUP.ID`. */
  async function collectors(...names: string[]): Promise<Collector[]> {
    fleet = names.map((name) => {
      const [group = "", id = ""] = name.split(".");
      const control = fakeControl(group, id);
      const remote = startRemote(remoteOptions([nats.url], control, { group, id }));
      return { control, remote };
    });
    await Promise.all(fleet.map((each) => connected(each.remote)));
    return fleet;
  }

  function dismiss(): Promise<unknown> {
    return Promise.all(fleet.map((each) => each.remote.close()));
  }

  function run(command: Command, more: Partial<FleetIo> = {}) {
    const out: string[] = [];
    const err: string[] = [];
    const code = controlFleet(command, {
      servers: [nats.url],
      auth: { kind: "none" },
      subject: "shishi",
      target: "all",
      timeoutMs: 15_000,
      json: false,
      clock,
      out: (line) => out.push(line),
      err: (line) => err.push(line),
      ...more,
    });
    return { out, err, code };
  }

  test("status shows all, sorted, one line each", async () => {
    await collectors("us.b", "eu.b", "eu.a");
    const { out, err, code } = run("status");
    assert.equal(await code, 0);
    assert.deepEqual(err, []);
    assert.deepEqual(out.map((line) => line.split(/\s+/).slice(0, 3).join(" ")), [
      "GROUP ID STATE",
      "eu a running",
      "eu b running",
      "us b running",
    ]);
    await dismiss();
  });

  test("status --json prints the answers themselves, one a line", async () => {
    const [eu] = await collectors("eu.a", "us.b");
    const { out, code } = run("status", { json: true, target: "eu" });
    assert.equal(await code, 0);
    assert.deepEqual(out.map((line) => JSON.parse(line)), [
      { ...eu?.control.status(), command: "status", ok: true },
    ]);
    await dismiss();
  });

  test("stop --target all: each drains, the slow one is waited for, exit 0", async () => {
    const [a, b, c] = await collectors("eu.a", "eu.b", "us.c");
    const clock = new ManualClock();
    const { out, err, code } = run("stop", { clock });
    await eventually(() => assert.equal(out.length, 3), { withinMs: 5_000 });
    a?.control.stopped();
    b?.control.stopped();
    await eventually(() => assert.equal(out.length, 5), { withinMs: 5_000 });
    // Longer than the silence after which nobody new is waited for.
    await clock.advance(2_500);
    assert.equal(out.length, 5);
    c?.control.stopped();
    assert.equal(await code, 0);
    assert.deepEqual(err, []);
    const changes = out.map((line) => line.split(/\s+/).slice(0, 2).join(" "));
    assert.deepEqual(changes.slice(0, 3).sort(), [
      "eu.a draining",
      "eu.b draining",
      "us.c draining",
    ]);
    assert.deepEqual(changes.slice(5), ["us.c stopped", "3 of"]);
    assert.equal(out.at(-1), "3 of 3 stopped");
    await dismiss();
  });

  test("one that does not stop in time is named, exit 1", async () => {
    const [a] = await collectors("eu.a", "eu.b");
    const { out, err, code } = run("stop", { target: "eu", timeoutMs: 700 });
    await eventually(() => assert.equal(out.length, 2), { withinMs: 5_000 });
    a?.control.stopped();
    assert.equal(await code, 1);
    assert.deepEqual(err, ["eu.b is not done after 0.7 s (draining, 2 rows held when it began)"]);
    assert.equal(out.at(-1), "1 of 2 stopped");
    await dismiss();
  });

  test("two collectors of one name are two", async () => {
    const [first, second] = await collectors("eu.a", "eu.a");
    const clock = new ManualClock();
    const { out, code } = run("stop", { target: "eu.a", clock });
    await eventually(() => assert.equal(out.length, 2), { withinMs: 5_000 });
    first?.control.stopped();
    await eventually(() => assert.equal(out.length, 3), { withinMs: 5_000 });
    // Longer than a second one of that name is waited for: the result would be told by then.
    await clock.advance(500);
    assert.equal(out.length, 3);
    second?.control.stopped();
    assert.equal(await code, 0);
    assert.equal(out.at(-1), "2 of 2 stopped");
    await dismiss();
  });

  test("flush: one is done, one runs out of time, exit 1", async () => {
    const [a, b] = await collectors("eu.a", "eu.b");
    const { out, err, code } = run("flush");
    await eventually(() => assert.equal(out.length, 2), { withinMs: 5_000 });
    a?.control.flushed(true);
    b?.control.flushed(false);
    assert.equal(await code, 1);
    assert.deepEqual(err, ["eu.b: rows were still held after 1234 ms"]);
    assert.equal(out.at(-1), "1 of 2 flushed");
    await dismiss();
  });

  test("pause and resume one, named exactly: no waiting for others", async () => {
    const [a, b] = await collectors("eu.a", "eu.b");
    const startedMs = performance.now();
    const paused = run("pause", { target: "eu.a" });
    assert.equal(await paused.code, 0);
    assert.ok(performance.now() - startedMs < patient(1_500));
    assert.deepEqual(paused.out, [
      "eu.a  paused    held 2  stored 4  dead 1  lost 0",
      "1 of 1 paused",
    ]);
    assert.equal(await run("resume", { target: "eu.a" }).code, 0);
    assert.deepEqual(a?.control.calls, ["pause", "resume"]);
    assert.deepEqual(b?.control.calls, []);
    await dismiss();
  });

  test("nobody listens: said at once, exit 1", async () => {
    const startedMs = performance.now();
    const { out, err, code } = run("stop", { target: "eu" });
    assert.equal(await code, 1);
    assert.ok(performance.now() - startedMs < patient(1_500));
    assert.deepEqual(out, []);
    assert.deepEqual(err, [
      "no collector listens on shishi.stop.eu: is nats-url right, does the target exist?",
    ]);
  });

  test("somebody listens and says nothing, or nonsense: exit 1 after 2 s", async () => {
    const { connect } = await import("nats.ws");
    const other = await connect({ servers: nats.url });
    other.subscribe("shishi.stop.eu", {
      callback: (_, message) => {
        message.respond("nonsense");
        message.respond(
          '{"group":"\\u001b[2J","id":"x","command":"stop","ok":true,"state":"stopped"}',
        );
        message.respond('{"group":"eu","id":"x","command":"status","ok":true,"state":"running"}');
      },
    });
    await other.flush();
    const { out, err, code } = run("stop", { target: "eu" });
    assert.equal(await code, 1);
    assert.deepEqual(out, []);
    assert.deepEqual(err, [
      "an answer is ignored: not JSON",
      "an answer is ignored: no group and id",
      "an answer is ignored: it is for status",
      "no collector answered on shishi.stop.eu within 2 s: is nats-url right, does the target exist?",
    ]);
    await other.close();
  });

  test("NATS unreachable: the server is named, the password is not, exit 1", async () => {
    const port = await freePort();
    const { err, code } = run("status", { servers: [`ws://u:s3cret@127.0.0.1:${port}`] });
    assert.equal(await code, 1);
    assert.equal(err.length, 1);
    assert.match(
      err[0] ?? "",
      new RegExp(`^cannot reach NATS: 127\\.0\\.0\\.1:${port}: (?!.*(${port}|WebSocket)).+`),
    );
    assert.doesNotMatch(err.join(), /s3cret/);
  });

  test("the second server is used when the first is away", async () => {
    await collectors("eu.a");
    const away = `ws://127.0.0.1:${await freePort()}`;
    const { out, code } = run("status", { servers: [away, nats.url], target: "eu.a" });
    assert.equal(await code, 0);
    assert.equal(out.length, 2);
    await dismiss();
  });

  test("NATS killed while a stop is under way: said, exit 1, and soon", async () => {
    const mortal = await startNats();
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions([mortal.url], control));
    await connected(remote);
    const { out, err, code } = run("stop", { servers: [mortal.url] });
    await eventually(() => assert.equal(out.length, 1), { withinMs: 5_000 });
    await mortal.kill();
    assert.equal(await code, 1);
    assert.match(err[0] ?? "", /^connection to NATS lost \(.+\): 0 of 1 stopped$/);
    await remote.close();
    await mortal.close();
  });

  test("NATS frozen: ends at the timeout, exit 1", async () => {
    const frozen = await startNats();
    await freeze(frozen.pid);
    const { err, code } = run("status", { servers: [frozen.url], timeoutMs: 500 });
    assert.equal(await code, 1);
    // Of the 500 ms some may be gone before it dials.
    assert.match(err[0] ?? "", /^cannot reach NATS: .+ no answer within (4\d\d|500) ms$/);
    process.kill(frozen.pid, "SIGCONT");
    await frozen.close();
  });

  test("a target that cannot be one: exit 2, nothing is sent", async () => {
    const { err, code } = run("stop", { target: "eu.*" });
    assert.equal(await code, 2);
    assert.match(err[0] ?? "", /^target: expected all, GROUP or GROUP\.ID .+ got "eu\.\*"$/);
  });
});
