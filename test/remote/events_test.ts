/** What a collector tells of itself: each change once, never a flood, and nothing lost in silence. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { State } from "../../src/contracts.ts";
import { changes, Events } from "../../src/remote/events.ts";
import { startRemote } from "../../src/remote/remote.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { startNats } from "../kit/servers.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { eventually } from "../kit/wait.ts";
import { asker, fakeControl, remoteOptions } from "./kit.ts";

type Json = Record<string, unknown>;

/** Events without a server; `here.is` says whether NATS is there. */
function alone() {
  const clock = new ManualClock();
  const control = fakeControl("eu", "a");
  const told: Json[] = [];
  const here = { is: true };
  const events = new Events({
    status: () => control.status(),
    reasons: () => control.unready(),
    clock,
    publish(payload) {
      if (here.is) told.push(JSON.parse(new TextDecoder().decode(payload)));
      return here.is;
    },
  });
  control.watch(() => events.look());
  const names = () => told.map((each) => each["event"]);
  return { clock, control, told, here, events, names };
}

describe("events", () => {
  test("every change has its name, and leads where it says", () => {
    const states: State[] = ["running", "paused", "degraded", "draining", "stopped"];
    for (const from of states) {
      for (const to of states) {
        assert.equal(
          changes(from, to).length === 0,
          from === to || to === "running" &&
              (from === "draining" || from === "stopped"),
          `${from} to ${to}`,
        );
      }
    }
    assert.deepEqual(changes("running", "degraded"), ["degraded"]);
    assert.deepEqual(changes("degraded", "running"), ["recovered"]);
    assert.deepEqual(changes("paused", "running"), ["resumed"]);
    assert.deepEqual(changes("paused", "degraded"), ["resumed", "degraded"]);
    assert.deepEqual(changes("degraded", "paused"), ["paused"]);
    assert.deepEqual(changes("degraded", "draining"), ["draining"]);
    assert.deepEqual(changes("draining", "stopped"), ["stopped"]);
  });

  test("trouble that comes and goes is told at most once a second, and its end always", async () => {
    const { clock, control, told, events, names } = alone();
    events.connected();
    for (let turn = 0; turn < 1_000; turn++) {
      control.become(turn % 2 === 0 ? "degraded" : "running");
      events.look();
      await clock.advance(10);
    }
    assert.ok(told.length <= 11, `${told.length} in 10 s`);
    control.become("degraded");
    await clock.advance(1_000);
    assert.equal(names().at(-1), "degraded");
    assert.deepEqual(told.at(-1)?.["reasons"], ["clickhouse: away"]);
    control.become("running");
    await clock.advance(1_000);
    assert.equal(names().at(-1), "recovered");
    assert.equal("reasons" in (told.at(-1) ?? {}), false);
    events.close();
    assert.equal(clock.pending, 0);
  });

  test("pausing and resuming is told at once; a flood of it is not, but its end is", async () => {
    const { clock, control, told, events, names } = alone();
    events.connected();
    control.pause();
    control.resume();
    assert.deepEqual(names(), ["started", "paused", "resumed"]);
    for (let turn = 0; turn < 500; turn++) turn % 2 === 0 ? control.resume() : control.pause();
    assert.ok(told.length <= 8, `${told.length} at once`);
    await clock.advance(1_000);
    assert.equal(told.at(-1)?.["state"], "paused");
    events.close();
  });

  test("stopping is told at once, whatever came before", () => {
    const { control, told, events, names } = alone();
    events.connected();
    for (let turn = 0; turn < 100; turn++) turn % 2 === 0 ? control.pause() : control.resume();
    void control.stop("SIGTERM");
    control.stopped();
    assert.deepEqual(names().slice(-2), ["draining", "stopped"]);
    assert.deepEqual(told.at(-1)?.["ledger"], control.status().ledger);
    events.close();
  });

  test("NATS away: the state of the moment afterwards, and how many were missed", async () => {
    const { clock, control, told, here, events, names } = alone();
    here.is = false;
    control.become("degraded");
    await clock.advance(5_000);
    here.is = true;
    events.connected();
    assert.deepEqual(names(), ["started"]);
    assert.deepEqual(told[0]?.["reasons"], ["clickhouse: away"]);
    assert.equal("missed" in (told[0] ?? {}), false, "nothing was to be told before the first");

    here.is = false;
    control.become("running");
    await clock.advance(1_000);
    control.pause();
    control.resume();
    control.become("degraded");
    here.is = true;
    events.connected();
    assert.deepEqual(names(), ["started", "reconnected"]);
    assert.deepEqual([told[1]?.["state"], told[1]?.["missed"]], ["degraded", 4]);
    await clock.advance(5_000);
    assert.equal(told.length, 2);
    events.close();
  });

  test("whatever happens, the last word is the state, and no state is told twice", async () => {
    const step = fc.constantFrom("pause", "resume", "degraded", "running", "gone", "back", "wait");
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const { clock, control, told, here, events } = alone();
        events.connected();
        for (const each of steps) {
          if (each === "pause") control.pause();
          else if (each === "resume") control.resume();
          else if (each === "wait") await clock.advance(700);
          else if (each === "gone") here.is = false;
          else if (each === "back" && !here.is) {
            here.is = true;
            events.connected();
          } else if (each === "degraded" || each === "running") control.become(each);
        }
        if (!here.is) {
          here.is = true;
          events.connected();
        }
        await clock.advance(1_000);
        assert.equal(told.at(-1)?.["state"], control.status().state);
        events.close();
      }),
      { numRuns: 200 },
    );
  });

  test("on the wire: PREFIX.event.GROUP.ID, from the start to the end, once each", async () => {
    const nats = await startNats();
    const client = await asker(nats.url);
    const heard = await client.listen("ops.shishi.event.>");
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions([nats.url], control, { subject: "ops.shishi" }));
    const started = await heard.next();
    assert.match(String(started["at"]), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    const { group, id, version, uptime_s, ledger } = control.status();
    const rest = { group, id, version, uptime_s, ledger };
    const at = started["at"];
    assert.deepEqual(started, { event: "started", state: "running", at, ...rest });
    control.become("degraded");
    const degraded = await heard.next();
    assert.equal(degraded["event"], "degraded");
    assert.deepEqual(degraded["reasons"], ["clickhouse: away"]);
    control.become("running");
    assert.equal((await heard.next())["event"], "recovered");
    const answers = client.ask("ops.shishi.stop.eu.a");
    assert.equal((await heard.next())["event"], "draining");
    control.stopped();
    await remote.close();
    assert.equal((await heard.next())["event"], "stopped");
    await answers.next();
    assert.equal((await answers.next())["state"], "stopped");
    assert.equal(heard.all.length, 5);
    await client.close();
    await nats.close();
  });

  test("NATS out of reach and back: the state of the moment, and what was missed", async () => {
    const nats = await startNats();
    const proxy = await startTcpProxy(nats.port);
    const client = await asker(nats.url);
    const heard = await client.listen("shishi.event.eu.a");
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions([`ws://127.0.0.1:${proxy.port}`], control));
    assert.equal((await heard.next())["event"], "started");
    proxy.hang();
    proxy.cut();
    await eventually(() => assert.equal(remote.server(), null), { withinMs: 20_000 });
    control.pause();
    proxy.resume();
    const told = await heard.next();
    assert.deepEqual([told["event"], told["state"], told["missed"]], ["reconnected", "paused", 1]);
    control.resume();
    assert.equal((await heard.next())["event"], "resumed");
    await remote.close();
    await client.close();
    await proxy.close();
    await nats.close();
  });
});
