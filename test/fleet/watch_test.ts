/**
 * `status --watch`: the fleet over time, and the few lines of a terminal that are drawn over.
 * Runs once: collectors and the bus are made of nothing; servers_test.ts has real ones on both runtimes.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createRegion } from "../../src/fleet/screen.ts";
import { Bus, collector, run } from "./bus.ts";

/** A table in what was written: its rows by name and state. */
const tables = (out: readonly string[]) =>
  out.join("\n").split("\n\n").map((table) =>
    table.split("\n").slice(2).map((line) => line.split(/ +/).slice(0, 3).join(" "))
  );

function watch(bus: Bus, more: Parameters<typeof run>[2] = {}) {
  const interrupted = new AbortController();
  const running = run(bus, "status", { watch: true, signal: interrupted.signal, ...more });
  return {
    ...running,
    stop: async () => {
      interrupted.abort();
      await bus.clock.advance(1_000);
      return await running.code;
    },
  };
}

test("off a terminal a table is appended every two seconds; Ctrl-C ends it with 0", async () => {
  const bus = new Bus();
  collector(bus, "us.b");
  collector(bus, "eu.a");
  const { out, err, stop } = watch(bus);
  await bus.clock.advance(6_500);
  assert.equal(await stop(), 0);
  assert.deepEqual(err, []);
  assert.deepEqual(tables(out), Array(3).fill(["eu a running", "us b running"]));
  assert.match(out[0]!, /^00:00:02Z {2}2 collectors: 2 running; 200 rows held$/);
});

test("one that comes is there, one that goes is silent and then forgotten", async () => {
  const bus = new Bus();
  const gone = collector(bus, "eu.a");
  collector(bus, "eu.b");
  const { out, stop } = watch(bus);
  await bus.clock.advance(2_500);
  gone.leave();
  collector(bus, "eu.c");
  await bus.clock.advance(60_000);
  assert.equal(await stop(), 0);
  const seen = tables(out).map((rows) => rows.join(", "));
  const all = [...new Set(seen)];
  assert.deepEqual(all, [
    "eu a running, eu b running",
    "eu a running, eu b running, eu c running",
    "eu a silent, eu b running, eu c running",
    "eu b running, eu c running",
  ]);
  assert.ok(seen.filter((rows) => rows.includes("silent")).length > 5);
});

test("one that restarts takes its own place, without a word of namesakes", async () => {
  const bus = new Bus();
  const old = collector(bus, "eu.a");
  const { out, err, stop } = watch(bus);
  await bus.clock.advance(4_500);
  old.leave();
  collector(bus, "eu.a");
  await bus.clock.advance(20_000);
  assert.equal(await stop(), 0);
  assert.deepEqual(tables(out).at(-1), ["eu a running"]);
  assert.ok(tables(out).every((rows) => rows.join() === "eu a running"));
  assert.deepEqual(err, []);
});

for (const anonymous of [false, true]) {
  test(`namesakes are two lines, warned of once${anonymous ? ", also nameless ones" : ""}`, async () => {
    const bus = new Bus();
    collector(bus, "eu.a", { anonymous });
    collector(bus, "eu.a", { anonymous });
    const { out, err, stop } = watch(bus);
    await bus.clock.advance(9_000);
    assert.equal(await stop(), 0);
    assert.ok(tables(out).every((rows) => rows.length === 2));
    assert.deepEqual(err, ["eu.a is the name of 2 collectors: each needs an id of its own"]);
  });
}

test("an answer to a question that was not asked is none", async () => {
  const bus = new Bus();
  collector(bus, "eu.a");
  bus.subscribe("shishi.status", ({ reply }) => {
    const answer = { group: "eu", id: "x", command: "status", ok: true, state: "running" };
    for (const round of ["99", "0", "-1", "x", "1e9"]) {
      const words = new TextEncoder().encode(JSON.stringify(answer));
      bus.publish(reply.replace(/[^.]+$/, round), words);
    }
  });
  const { out, stop } = watch(bus);
  await bus.clock.advance(5_000);
  assert.equal(await stop(), 0);
  assert.ok(tables(out).every((rows) => rows.join() === "eu a running"), out.join("\n"));
});

test("nobody there, NATS lost and back again: the watch goes on", async () => {
  const bus = new Bus();
  const { out, err, stop } = watch(bus);
  await bus.clock.advance(2_500);
  assert.match(out.at(-1)!, /no collector answers on shishi\.status at bus:1$/);
  bus.reachable = false;
  bus.cut();
  await bus.clock.advance(30_000);
  collector(bus, "eu.a");
  bus.reachable = true;
  await bus.clock.advance(10_000);
  assert.deepEqual(tables(out).at(-1), ["eu a running"]);
  assert.deepEqual(err, ["connection to NATS lost (cut), trying again"]);
  assert.equal(await stop(), 0);
});

test("however long NATS is away, waiting for it gathers nothing", async () => {
  const bus = new Bus();
  const { signal } = new AbortController();
  let listeners = 0;
  const counting = {
    aborted: false,
    addEventListener: (...given: Parameters<AbortSignal["addEventListener"]>) => {
      listeners++;
      signal.addEventListener(...given);
    },
    removeEventListener: (...given: Parameters<AbortSignal["removeEventListener"]>) => {
      listeners--;
      signal.removeEventListener(...given);
    },
  };
  const running = run(bus, "status", { watch: true, signal: counting as unknown as AbortSignal });
  await bus.clock.advance(2_500);
  bus.reachable = false;
  bus.cut();
  await bus.clock.advance(600_000);
  assert.ok(listeners <= 1, `${listeners} listeners`);
  counting.aborted = true;
  await bus.clock.advance(1_000);
  assert.equal(await running.code, 0);
});

test("NATS unreachable at the start: exit 1; a target that cannot be one: exit 2", async () => {
  const bus = new Bus();
  bus.reachable = false;
  assert.equal(await watch(bus).code, 1);
  assert.equal(await watch(bus, { target: "eu.*" }).code, 2);
});

test("--json: every answer a line, as it comes", async () => {
  const bus = new Bus();
  collector(bus, "eu.a");
  const { out, stop } = watch(bus, { json: true });
  await bus.clock.advance(3_000);
  assert.equal(await stop(), 0);
  assert.deepEqual(out.map((line) => JSON.parse(line).id), ["a", "a"]);
});

test("on a terminal the table is drawn over, cut to its height, and stays at the end", async () => {
  const bus = new Bus();
  for (let n = 10; n < 30; n++) collector(bus, `eu.c${n}`, { held: n });
  const { out, stop } = watch(bus, { screen: { rows: () => 10 } });
  await bus.clock.advance(2_500);
  collector(bus, "eu.zz");
  await bus.clock.advance(4_000);
  assert.equal(await stop(), 0);
  assert.equal(out.length, 3);
  for (const frame of out) assert.equal(frame.split("\n").length, 9);
  assert.ok(!out[0]!.startsWith("\x1b[9A"));
  assert.ok(out[2]!.startsWith("\x1b[9A\x1b[J"));
  assert.ok(out[2]!.endsWith("… and 15 more\x1b[?7h"));
});

/** What a terminal of endless height shows after all that was written to it. */
function screenAfter(written: readonly string[]): string[] {
  const lines: string[] = [""];
  let row = 0;
  // deno-lint-ignore no-control-regex
  const token = /\x1b\[(\??\d*)([A-Za-z])|\n|[^\x1b\n]+/g;
  const text = written.map((each) => `${each}\n`).join("");
  for (const [all, number, letter] of text.matchAll(token)) {
    if (all === "\n") lines[++row] ??= "";
    else if (letter === undefined) lines[row] = all;
    else if (letter === "A") row -= Number(number || 1);
    else if (letter === "J") lines.splice(row, lines.length, "");
  }
  return lines.slice(0, -1);
}

test("a region: drawn over, moved below what is written above, taken away", () => {
  const written: string[] = [];
  const out = (text: string) => void written.push(text);
  const region = createRegion({ rows: () => 24 }, out);
  out("before");
  region.draw(["a", "b", "c"]);
  assert.deepEqual(screenAfter(written), ["before", "a", "b", "c"]);
  region.draw(["d"]);
  region.draw(["d"]);
  assert.deepEqual(screenAfter(written), ["before", "d"]);
  region.draw(["e", "f"]);
  region.above(() => out("above"));
  assert.deepEqual(screenAfter(written), ["before", "above", "e", "f"]);
  region.clear();
  region.clear();
  out("after");
  assert.deepEqual(screenAfter(written), ["before", "above", "after"]);
});
