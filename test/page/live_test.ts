/** Viewers come, read slowly, go, or are too many: on the real server of the runtime. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { createLive, type Live } from "../../src/page/live.ts";
import { type Listening, serve } from "../../src/runtime/server.ts";
import { eventually } from "../kit/wait.ts";
import { eventsOf, ScriptedSource } from "./kit.ts";

const WITHIN = { withinMs: 10_000 };

function start(source: ScriptedSource, mostViewers = 32): { live: Live; listening: Listening } {
  const live = createLive({ source, mostViewers });
  const listening = serve({
    hostname: "127.0.0.1",
    port: 0,
    handler: () => live.open(),
    onError: (error) => assert.fail(String(error)),
  });
  return { live, listening };
}

const open = ({ port }: Listening) => fetch(`http://127.0.0.1:${port}/`);

async function names(events: ReturnType<typeof eventsOf>, many: number): Promise<string[]> {
  const told: string[] = [];
  while (told.length < many) told.push((await events.next())?.name ?? "the end");
  return told;
}

test("a viewer is told who, what was, what is, and then each moment; problems when they change", async () => {
  const source = new ScriptedSource();
  const { live, listening } = start(source);
  const answer = await open(listening);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-type") ?? "", /^text\/event-stream/);
  assert.equal(answer.headers.get("cache-control"), "no-store");
  const events = eventsOf(answer);
  assert.deepEqual(await names(events, 4), ["about", "past", "now", "problems"]);
  await eventually(() => assert.ok(source.tell('{"n":1}')), WITHIN);
  assert.deepEqual(await events.next(), { name: "now", data: { n: 1 } });
  await eventually(() => assert.ok(source.tell('{"n":2}')), WITHIN);
  assert.deepEqual(await events.next(), { name: "now", data: { n: 2 } });
  source.problems = '[{"text":"x"}]';
  await eventually(() => assert.ok(source.tell('{"n":3}')), WITHIN);
  assert.deepEqual(await names(events, 2), ["now", "problems"]);
  live.close();
  assert.deepEqual(await names(events, 2), ["end", "the end"]);
  await listening.stop();
});

test("nobody is asked for moments without a viewer, and once for several", async () => {
  const source = new ScriptedSource();
  const { live, listening } = start(source);
  assert.equal(source.asked, 0);
  const [one, other] = [eventsOf(await open(listening)), eventsOf(await open(listening))];
  await names(one, 4);
  await names(other, 4);
  await eventually(() => assert.equal(live.viewers(), 2), WITHIN);
  assert.equal(source.asked, 1);
  source.tell("{}");
  assert.deepEqual([await names(one, 1), await names(other, 1)], [["now"], ["now"]]);
  await one.close();
  await other.close();
  await eventually(() => assert.equal(live.viewers(), 0), WITHIN);
  source.tell("{}");
  const asked = source.asked;
  assert.equal(source.tell("{}"), false, "a moment was wanted by nobody");
  assert.equal(source.asked, asked);
  await listening.stop();
});

test("one viewer too many gets 503, until another has gone", async () => {
  const source = new ScriptedSource();
  const { live, listening } = start(source, 1);
  const events = eventsOf(await open(listening));
  await names(events, 4);
  const refused = await open(listening);
  assert.equal(refused.status, 503);
  assert.match(refused.headers.get("retry-after") ?? "", /^\d+$/);
  assert.match((await refused.json()).error, /^no more than 1 viewers at a time$/);
  await events.close();
  await eventually(() => assert.equal(live.viewers(), 0), WITHIN);
  const again = eventsOf(await open(listening));
  assert.deepEqual(await names(again, 4), ["about", "past", "now", "problems"]);
  live.close();
  assert.equal((await open(listening)).status, 503);
  await again.close();
  await listening.stop();
});

test("a viewer that does not read is cut off after a while, and the others are not held up", async () => {
  const source = new ScriptedSource();
  const { live, listening } = start(source);
  const idle = connect({ host: "127.0.0.1", port: listening.port });
  await new Promise<void>((resolve) => idle.once("connect", () => resolve()));
  idle.pause();
  idle.on("error", () => {});
  idle.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  await eventually(() => assert.equal(live.viewers(), 1), WITHIN);
  const events = eventsOf(await open(listening));
  await names(events, 4);
  const large = JSON.stringify({ padding: "x".repeat(256 * 1024) });
  for (let moment = 0; live.viewers() > 1; moment++) {
    assert.ok(moment < 200, "it is never cut off");
    await eventually(() => assert.ok(source.tell(large)), WITHIN);
    let told = await events.next();
    while (told !== null && told.name !== "now") told = await events.next();
    assert.equal(told?.data.padding.length, 256 * 1024);
  }
  assert.equal(live.viewers(), 1);
  idle.destroy();
  live.close();
  await events.close();
  await listening.stop();
});

test("who missed the moment at which the problems changed is told them at the next", async () => {
  const source = new ScriptedSource();
  const live = createLive({ source });
  const events = eventsOf(await live.open());
  await names(events, 4);
  const tell = (moment: string) => eventually(() => assert.ok(source.tell(moment)), WITHIN);
  // More than may wait for one that does not read.
  for (let n = 0; n < 4; n++) await tell(JSON.stringify({ padding: "x".repeat(512 * 1024) }));
  source.problems = '[{"text":"x"}]';
  await tell("{}");
  let told = await events.next();
  for (let more = 0; more < 20 && told?.name !== "problems"; more++) {
    await tell("{}");
    told = await events.next();
  }
  assert.deepEqual(told, { name: "problems", data: [{ text: "x" }] });
  live.close();
});

test("where the figures come from is gone: viewers are let go, to come again", async () => {
  const source = new ScriptedSource();
  const { live, listening } = start(source);
  const events = eventsOf(await open(listening));
  await names(events, 4);
  await eventually(() => assert.equal(source.asked, 1), WITHIN);
  source.fail();
  assert.equal(await events.next(), null);
  assert.equal(live.viewers(), 0);
  await listening.stop();
});

test("let go, viewers come to an end that is none of the collector; let in again, they come", async () => {
  const source = new ScriptedSource();
  const { live, listening } = start(source);
  const events = eventsOf(await open(listening));
  await names(events, 4);
  live.again();
  assert.equal(await events.next(), null, "an end was told, or nothing");
  const more = eventsOf(await open(listening));
  await names(more, 4);
  live.letGo(true);
  assert.equal(await more.next(), null, "an end was told, or nothing");
  live.again();
  const refused = await open(listening);
  assert.equal(refused.status, 503);
  assert.equal((await refused.json()).error, "another process takes over");
  live.letGo(false);
  const again = eventsOf(await open(listening));
  assert.deepEqual(await names(again, 4), ["about", "past", "now", "problems"]);
  live.close();
  await again.close();
  await listening.stop();
});
