/** An end beside other work: it rejects what is waited for, and keeps nothing of what is over. */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { Ending } from "../../src/kernel/time.ts";
import { pause } from "../kit/wait.ts";

test("an ending rejects all that is raced with it, before and after it came", async () => {
  const ending = new Ending();
  assert.equal(await ending.race(Promise.resolve(5)), 5);
  await assert.rejects(ending.race(Promise.reject(new Error("own"))), /^Error: own$/);
  const before = [0, 1].map(() => ending.race(new Promise(() => {})));
  ending.end(new Error("lost"));
  ending.end(new Error("again"));
  for (const race of before) await assert.rejects(race, /^Error: lost$/);
  await assert.rejects(ending.race(new Promise(() => {})), /^Error: lost$/);
  // Work that fails later is nobody's.
  await assert.rejects(ending.race(pause(1).then(() => Promise.reject(new Error("late")))), /lost/);
  await pause(5);
});

test("an ending keeps nothing of a race that is over", async () => {
  const ending = new Ending();
  const bytes = 1024 * 1024;
  const beforeBytes = process.memoryUsage().rss;
  for (let race = 0; race < 1000; race++) {
    const work = pause(0).then(() => new Uint8Array(bytes).fill(1));
    assert.equal((await ending.race(work)).length, bytes);
  }
  const grown = process.memoryUsage().rss - beforeBytes;
  assert.ok(grown < 600 * bytes, `${Math.round(grown / bytes)} of 1000 MiB are kept`);
  ending.end(null);
});
