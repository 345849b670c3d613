/** Lines to stderr: none is lost to a slow reader, and one that never reads stops nothing. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createLineWriter } from "../../src/runtime/log.ts";

/** A pipe of `size` bytes; `tick` lets its reader take `reads` bytes and runs what was put off. */
function pipe(size: number, reads: number) {
  let held = 0;
  let read = "";
  let sleeps = 0;
  let tasks: (() => void)[] = [];
  const state = { size, reads, broken: false };
  const take = () => held = Math.max(0, held - state.reads);
  const writer = createLineWriter({
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
      take();
    },
    after: (_, task) => void tasks.push(task),
  });
  return {
    writer,
    state,
    read: () => read,
    sleeps: () => sleeps,
    tick: () => {
      take();
      const due = tasks;
      tasks = [];
      for (const task of due) task();
      return due.length;
    },
  };
}

describe("stderr", () => {
  const lines = Array.from({ length: 50 }, (_, n) => `line ${n} ${"x".repeat(n)}\n`);

  test("a reader that keeps up has each line when the call returns", () => {
    const { writer, read, tick } = pipe(1_000_000, 0);
    for (const [at, line] of lines.entries()) {
      writer.write(line);
      assert.equal(read(), lines.slice(0, at + 1).join(""));
    }
    assert.equal(tick(), 0);
  });

  test("a slow reader gets every line whole and in order, and nobody waits for it", () => {
    const slow = pipe(16, 3);
    for (const line of lines) slow.writer.write(line);
    while (slow.tick() > 0);
    assert.equal(slow.read(), lines.join(""));
    assert.equal(slow.sleeps(), 0);
  });

  test("at the end a slow reader is waited for", () => {
    const slow = pipe(16, 3);
    for (const line of lines) slow.writer.write(line);
    slow.writer.drain();
    assert.equal(slow.read(), lines.join(""));
  });

  test("a reader that stopped: a bounded queue, the rest is dropped and counted; then whole lines again", () => {
    const stopped = pipe(16, 0);
    const long = `${"y".repeat(999)}\n`;
    const all = Array.from({ length: 2_000 }, () => stopped.writer.write(long));
    assert.ok(all.every((dropped) => dropped === 0));
    assert.equal(stopped.sleeps(), 0);
    stopped.writer.drain();
    assert.ok(stopped.sleeps() <= 600, `slept ${stopped.sleeps()} times`);
    stopped.state.size = Infinity;
    const dropped = stopped.writer.write("back\n");
    assert.ok(dropped > 900 && dropped < 1_000, `${dropped} dropped`);
    assert.equal(stopped.read(), `${long.repeat(2_000 - dropped)}back\n`);
    assert.equal(stopped.writer.write("and on\n"), 0);
  });

  test("a closed stderr is no error, and nothing is kept for it", () => {
    const closed = pipe(1000, 0);
    closed.state.broken = true;
    for (const line of lines) closed.writer.write(line);
    assert.equal(closed.read(), "");
    assert.equal(closed.tick(), 0);
  });
});
