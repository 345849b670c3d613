/** When garbage is looked for while sources read. Runs once: it is arithmetic. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HeapWatch } from "../../src/sources/heap_watch.ts";

const MB = 1024 * 1024;

/** A heap in which what was read becomes garbage, which takes half as much again as the bytes. */
class Flood {
  held = 20 * MB;
  garbage = 0;
  most = 0;
  looks = 0;
  collected = 0;
  readonly watch = new HeapWatch({
    bytes: () => {
      this.looks++;
      return this.held + this.garbage;
    },
    collect: () => {
      this.collected++;
      this.garbage = 0;
    },
  });

  read(messages: number, bytes: number): void {
    this.garbage += 1.5 * bytes + 400 * messages;
    this.most = Math.max(this.most, this.garbage);
    this.watch.read(messages, bytes);
  }
}

test("a flood of messages leaves little garbage, however small they are, and is looked at seldom", () => {
  for (const bytes of [10, 100, 1000, 100_000]) {
    const flood = new Flood();
    for (let at = 0; at < 2000; at++) flood.read(100, 100 * bytes);
    const all = 2000 * 100 * (1.5 * bytes + 400);
    assert.ok(flood.most < 60 * MB, `${bytes}: ${flood.most}`);
    assert.ok(flood.collected <= all / (38 * MB), `${bytes}: ${flood.collected} times`);
    assert.ok(flood.looks <= all / (0.5 * MB), `${bytes}: ${flood.looks} looks`);
  }
});

test("what is really held is not looked for again and again", () => {
  const flood = new Flood();
  for (let at = 0; at < 100; at++) {
    flood.held += 2 * MB;
    flood.read(1, 1);
    flood.watch.read(0, 2 * MB);
  }
  // 200 MB more, at 40 each.
  assert.ok(flood.collected <= 5, `${flood.collected} times`);
});
