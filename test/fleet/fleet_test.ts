/**
 * Commands to many collectors at once: who answers how, dry runs, questions, progress.
 * Runs once: collectors and the bus are made of nothing; servers_test.ts has real ones on both runtimes.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Bus, collector, run } from "./bus.ts";

const names = (lines: readonly string[]) =>
  lines.map((line) => line.trim().split(/ +/).slice(0, 2).join("."));
const fifty = Array.from({ length: 50 }, (_, n) => `eu.c-${String(n + 1).padStart(2, "0")}`);

test("status: fifty answers in one moment are fifty lines, by group and then by id", async () => {
  const bus = new Bus();
  const all = ["eu-1.a", "eu.b", ...fifty, "eu.a", "Eu.z"];
  for (const name of [...all].reverse()) collector(bus, name);
  const { out, err, end } = run(bus, "status");
  assert.equal(await end(), 0);
  assert.deepEqual(err, []);
  assert.deepEqual(names(out.slice(1)), ["Eu.z", "eu.a", "eu.b", ...fifty, "eu-1.a"]);
});

test("an answer that arrives twice is one collector; two of one name are two, and named", async () => {
  const bus = new Bus();
  collector(bus, "eu.a", { times: 3 });
  collector(bus, "eu.b", { times: 2 });
  collector(bus, "eu.b");
  const status = run(bus, "status");
  assert.equal(await status.end(), 0);
  assert.deepEqual(names(status.out.slice(1)), ["eu.a", "eu.b", "eu.b"]);
  assert.deepEqual(status.err, ["eu.b is the name of 2 collectors: each needs an id of its own"]);
  const stop = run(bus, "stop");
  assert.equal(await stop.end(), 0);
  assert.equal(stop.out.at(-1), "3 of 3 stopped");
  assert.equal(stop.out.length, 7);
});

test("collectors that do not say which process they are: every one that begins counts", async () => {
  const bus = new Bus();
  for (let n = 0; n < 2; n++) collector(bus, "eu.a", { anonymous: true, drainMs: 100 });
  const { out, err, end } = run(bus, "stop");
  assert.equal(await end(), 0);
  assert.equal(out.at(-1), "2 of 2 stopped");
  assert.match(err.join(), /^eu\.a is the name of 2 collectors/);
});

test("answers of hostile shape: escaped, bounded, and few words lost over them", async () => {
  const bus = new Bus();
  collector(bus, "eu.a");
  const evil = "\u001b[2J\u009b31m\u202e\nx";
  const good = { group: "eu", id: "evil", command: "status", ok: true, state: evil };
  const words = [
    JSON.stringify({
      ...good,
      version: evil.repeat(1_000),
      uptime_s: 1e300,
      ledger: { held: 1e21 },
    }),
    `{"group":"eu","id":"deep","command":"status","ok":true,"state":"x","y":${"[".repeat(200_000)}${
      "]".repeat(200_000)
    }}`,
    ...Array.from({ length: 5_000 }, (_, n) => `nonsense ${n}`),
    JSON.stringify({ ...good, group: evil }),
    JSON.stringify({ ...good, id: "x".repeat(300) }),
  ];
  bus.subscribe("shishi.status", ({ reply }) => {
    for (const each of words) bus.publish(reply, new TextEncoder().encode(each));
  });
  for (const json of [false, true]) {
    const { out, err, end } = run(bus, "status", { json });
    assert.equal(await end(), 0);
    const shown = [...out, ...err];
    // deno-lint-ignore no-control-regex
    assert.ok(shown.every((line) => !/[\u0000-\u001f\u007f-\u009f\u202e]/.test(line)));
    assert.ok(err.length <= 11, `${err.length} lines`);
    assert.ok(out.some((line) => line.includes("evil")));
    assert.ok(out.some((line) => /eu\W+(id\W+)?a\W/.test(line)));
    if (json) { for (const line of out) JSON.parse(line); }
    else assert.ok(out.every((line) => line.length < 300));
  }
});

for (const command of ["stop", "pause", "resume", "flush"] as const) {
  test(`${command} --dry-run: lists the collectors that would obey and does nothing`, async () => {
    const bus = new Bus();
    const fleet = ["us.b", "eu.a"].map((name) => collector(bus, name));
    const { out, err, end } = run(bus, command, { dryRun: true });
    assert.equal(await end(), 0);
    assert.deepEqual(err, []);
    assert.deepEqual(names(out.slice(1, -1)), ["eu.a", "us.b"]);
    assert.equal(out.at(-1), `2 collectors would ${command}; nothing was sent but status`);
    assert.deepEqual(fleet.map(({ told }) => told), [[], []]);
    assert.deepEqual(bus.published, ["shishi.status"]);
  });
}

test("--dry-run --json: the answers to status; nobody there: exit 1", async () => {
  const bus = new Bus();
  const { err, end } = run(bus, "stop", { dryRun: true, target: "eu" });
  assert.equal(await end(), 1);
  assert.match(err.join(), /^no collector listens on shishi\.status\.eu: /);
  collector(bus, "eu.a");
  const json = run(bus, "stop", { dryRun: true, json: true });
  assert.equal(await json.end(), 0);
  assert.deepEqual(json.out.map((line) => JSON.parse(line).id), ["a"]);
});

const questions: string[] = [];
const says = (answer: boolean) => (question: string) => {
  questions.push(question);
  return Promise.resolve(answer);
};

for (const [answer, code, told] of [[true, 0, ["stop"]], [false, 1, []]] as const) {
  test(`stop of all asks first, with the number; the answer is ${answer}`, async () => {
    const bus = new Bus();
    const fleet = ["eu.a", "us.b"].map((name) => collector(bus, name));
    questions.length = 0;
    const { out, end } = run(bus, "stop", { confirm: says(answer) });
    assert.equal(await end(), code);
    assert.deepEqual(questions, ["Stop all: 2 collectors in 2 groups? [y/N] "]);
    for (const each of fleet) assert.deepEqual(each.told, told);
    assert.equal(out.at(-1), answer ? "2 of 2 stopped" : "nothing stopped");
  });
}

test("a group is stopped without a question, and so is a pause of all", async () => {
  const bus = new Bus();
  collector(bus, "eu.a");
  questions.length = 0;
  assert.equal(await run(bus, "pause", { confirm: says(false) }).end(), 0);
  assert.equal(await run(bus, "stop", { target: "eu", confirm: says(false) }).end(), 0);
  assert.deepEqual(questions, []);
});

test("off a terminal: one that drains long is told of every few seconds, with what it holds", async () => {
  const bus = new Bus();
  collector(bus, "eu.slow", { held: 1_000, drainMs: 20_000 });
  collector(bus, "eu.quick");
  const { out, err, end } = run(bus, "stop");
  assert.equal(await end(), 0);
  assert.deepEqual(err, []);
  const held = out.filter((line) => line.startsWith("eu.slow  draining"))
    .map((line) => Number(/held (\d+)/.exec(line)?.[1]));
  assert.equal(held[0], 1_000);
  assert.ok(held.length >= 3 && held.length <= 5, out.join("\n"));
  assert.ok(held.every((rows, at) => at === 0 || rows < held[at - 1]!), held.join());
  assert.equal(out.filter((line) => line.startsWith("eu.quick")).length, 2);
  assert.equal(out.at(-1), "2 of 2 stopped");
});

test("off a terminal: fifty that drain long do not flood the log", async () => {
  const bus = new Bus();
  for (const [at, name] of fifty.entries()) {
    collector(bus, name, { held: 100 * (at + 1), drainMs: 8_000 });
  }
  const { out, end } = run(bus, "stop");
  assert.equal(await end(), 0);
  assert.equal(out.filter((line) => /^40 collectors more: held \d+$/.test(line)).length, 1);
  assert.equal(out.length, 50 + 10 + 1 + 50 + 1);
});

test("one that is late is named with what it holds; the exit code is 1", async () => {
  const bus = new Bus();
  collector(bus, "eu.a");
  collector(bus, "eu.stuck", { held: 7, drainMs: Infinity });
  const { out, err, end } = run(bus, "stop", { timeoutMs: 8_000 });
  assert.equal(await end(), 1);
  assert.deepEqual(err, ["eu.stuck is not done after 8 s (draining, 7 rows held when last asked)"]);
  assert.equal(out.at(-1), "1 of 2 stopped");
});

test("on a terminal: each collector has a line that is drawn over, and its rows go down", async () => {
  const bus = new Bus();
  collector(bus, "eu.a", { held: 1_000, drainMs: 6_000 });
  collector(bus, "eu.long-name");
  const { out, end } = run(bus, "stop", { screen: { rows: () => 24 } });
  assert.equal(await end(), 0);
  const frames = out.filter((text) => text.includes("rows held"));
  assert.ok(frames.length >= 4, `${frames.length} frames`);
  for (const frame of frames) {
    const lines = frame.split("\n");
    assert.equal(lines.length, 3);
    assert.match(lines[0]!, /eu\.a {10}(draining|stopped ) {2}held /);
    assert.match(lines[1]!, /^eu\.long-name {2}/);
  }
  const bars = frames.map((frame) => /eu\.a .*\[(#*)/.exec(frame)?.[1]?.length ?? -1);
  assert.deepEqual(bars, [...bars].sort((a, b) => a - b));
  assert.ok(bars[0] === 0 && bars.at(-1)! >= 15, bars.join());
  assert.deepEqual(out.slice(-3), [
    "eu.a  stopped   held 0  stored 1000  dead 0  lost 0",
    "eu.long-name  stopped   held 0  stored 100  dead 0  lost 0",
    "2 of 2 stopped",
  ]);
});

test("Ctrl-C ends the waiting and says how far it got", async () => {
  const bus = new Bus();
  collector(bus, "eu.a");
  collector(bus, "eu.stuck", { drainMs: Infinity });
  const interrupted = new AbortController();
  const { err, end } = run(bus, "stop", { signal: interrupted.signal });
  await bus.clock.advance(4_000);
  interrupted.abort();
  assert.equal(await end(), 1);
  assert.deepEqual(err, ["interrupted: 1 of 2 stopped; those that got the command go on with it"]);
});
