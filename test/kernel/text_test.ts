/**
 * Texts for people: what comes from outside is fit for one line.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { excerpt } from "../../src/kernel/text.ts";

test("an excerpt is short and whole", () => {
  assert.equal(excerpt("abc"), "abc");
  assert.equal(excerpt("a".repeat(64)), "a".repeat(64));
  assert.equal(excerpt("a".repeat(65)), "a".repeat(64) + "…");
  assert.equal(excerpt("a".repeat(63) + "😀" + "b"), "a".repeat(63) + "…");
});
