/** Lines to stderr: none is lost to a slow reader, and one that never reads stops nothing. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createLineWriter } from "../../src/runtime/stderr.ts";

/** A pipe of `size` bytes; `sleep` lets its reader take `reads` bytes. */
function pipe(size: number, reads: number) {
  let held = 0;
  let read = "";
  let sleeps = 0;
  const state = { size, reads, broken: false };
  const line = createLineWriter({
    write(bytes) {
      if (state.broken) throw Object.assign(new Error("broken pipe"), { code: "EPIPE" });
      const room = Math.min(bytes.length, state.size - held);
      if (room === 0) throw Object.assign(new Error("try again"), { code: "EAGAIN" });
      held += room;
      read += new TextDecoder().decode(bytes.subarray(0, room));
      return room;
    },
    sleep: () => {
      sleeps++;
      held = Math.max(0, held - state.reads);
    },
    patienceMs: 100,
  });
  return { line, state, read: () => read, sleeps: () => sleeps, drain: () => held = 0 };
}

describe("stderr", () => {
  const lines = Array.from({ length: 50 }, (_, n) => `line ${n} ${"x".repeat(n)}\n`);

  test("a slow reader gets every line whole and in order", () => {
    const slow = pipe(16, 3);
    for (const line of lines) slow.line(line);
    assert.equal(slow.read(), lines.join(""));
  });

  test("a reader that stopped is waited for once; when it reads again, lines are whole again", () => {
    const stopped = pipe(16, 0);
    for (const line of lines) stopped.line(line);
    assert.ok(stopped.sleeps() <= 50, `slept ${stopped.sleeps()} times`);
    stopped.drain();
    stopped.line("back\n");
    assert.match(stopped.read(), /\nback\n$/);
  });

  test("a closed stderr is no error", () => {
    const closed = pipe(1000, 0);
    closed.state.broken = true;
    closed.line("nobody reads this\n");
    assert.equal(closed.read(), "");
  });
});
