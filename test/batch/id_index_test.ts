/** Ids by the chunk they came in, against a map. Runs once: it is arithmetic. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { IdIndex } from "../../src/batch/id_index.ts";

/** Few, so that many chunks have the same ones. */
const id = fc.oneof(fc.nat(30).map((n) => `1764400000000-${n}`), fc.string({ maxLength: 3 }));
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ add: fc.uniqueArray(id, { maxLength: 40 }) }) },
  { weight: 2, arbitrary: fc.record({ forget: fc.nat() }) },
  { weight: 1, arbitrary: fc.constant({ clear: true } as const) },
);

test("each id has the newest chunk that has it and is not forgotten, also when numbers run out", () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), fc.array(id), (steps, asked) => {
    const index = new IdIndex<readonly string[]>((chunk) => chunk, 20);
    let model: (readonly string[])[] = [];
    for (const step of steps) {
      if ("add" in step) {
        index.add(step.add, step.add);
        model.push(step.add);
      } else if ("clear" in step) {
        index.clear();
        model = [];
      } else if (model.length > 0) {
        const which = step.forget % model.length;
        index.forget([...index.chunks()][which]![0]);
        model.splice(which, 1);
      }
    }
    assert.deepEqual([...index.chunks()].map(([, chunk]) => chunk), model);
    const found = index.find(asked);
    for (const id of asked) {
      assert.equal(found.get(id), model.findLast((chunk) => chunk.includes(id)), id);
    }
  }));
});

test("the oldest go and new ones come, far more than it has room for, and it stays small", () => {
  const index = new IdIndex<readonly string[]>((chunk) => chunk);
  for (let from = 0; from < 500_000; from += 500) {
    const ids = Array.from({ length: 500 }, (_, at) => `1764400000000-${from + at} 2s.1x2y3z`);
    index.add(ids, ids);
    if (from < 50_000) continue;
    const [[oldest]] = index.chunks() as unknown as [[number]];
    index.forget(oldest);
  }
  assert.ok(index.bytes <= 4 * 1024 * 1024, `${index.bytes} bytes for 50,000 ids`);
  const ask = (n: number) => `1764400000000-${n} 2s.1x2y3z`;
  const found = index.find([ask(449_999), ask(450_000), ask(499_999), ask(500_000)]);
  assert.deepEqual([...found.keys()], [ask(450_000), ask(499_999)]);
});
