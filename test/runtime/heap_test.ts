/** The heap of this process, as sources are given it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ownHeap } from "../../src/runtime/for_brokers.ts";
import { ON_BUN } from "../kit/shishi.ts";

test("what has become garbage is found when it is looked for; V8 needs no word for that", async () => {
  const heap = await ownHeap();
  if (!ON_BUN) return assert.equal(heap, null);
  let held: object[] | null = Array.from({ length: 100_000 }, (_, at) => ({ at, more: [at] }));
  heap!.collect();
  const before = heap!.bytes();
  assert.equal(held.length, 100_000);
  held = null;
  heap!.collect();
  assert.ok(heap!.bytes() < before, `${before} → ${heap!.bytes()}`);
});
