/** Two ends of a pair of pipes call each other. */
import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { createPeer, type Methods } from "../../src/runtime/handover.ts";

function pair(one: Methods, other: Methods) {
  const there = new PassThrough();
  const back = new PassThrough();
  const [left, right] = [createPeer(back, there, one), createPeer(there, back, other)];
  return { left, right, there, back };
}

test("either side calls, answers of any size come back to who asked", async () => {
  const long = "é".repeat(300_000);
  const { left, right, there, back } = pair(
    { double: (n: number) => n * 2 },
    { echo: (text: string) => Promise.resolve(text), nothing: () => undefined },
  );
  const answers = await Promise.all([
    left.call("echo", long),
    left.call("echo", "b"),
    right.call("double", 21),
    left.call("nothing"),
  ]);
  assert.deepEqual(answers, [long, "b", 42, null]);
  there.end();
  back.end();
});

test("an error travels by its message, also that there is nothing to call", async () => {
  const { left, there, back } = pair({}, {
    fail() {
      throw new Error("no disk");
    },
  });
  await assert.rejects(left.call("fail"), /^Error: no disk$/);
  await assert.rejects(left.call("other"), /nothing to call by the name other/);
  there.end();
  back.end();
});

test("calls end with the other side, those that come later too", async () => {
  const { left, back } = pair({}, { wait: () => new Promise(() => {}) });
  const waiting = assert.rejects(left.call("wait"), /has ended/);
  back.end();
  await left.gone;
  await waiting;
  await assert.rejects(left.call("wait"), /has ended/);
});

test("a call that has a time ends with it; a late answer and strange lines hurt nobody", async () => {
  let answer = (_text: string) => {};
  const { left, there, back } = pair({}, {
    slow: () => new Promise((resolve) => answer = resolve),
    ping: () => "pong",
  });
  await assert.rejects(left.call("slow", null, 5), /no answer within 5 ms/);
  answer("late");
  back.write('hello\n{"id":"x"}\n{broken\n\n{"id":99,"answer":1}\n');
  assert.equal(await left.call("ping"), "pong");
  there.end();
  back.end();
});
