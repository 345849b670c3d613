/**
 * What pages load is what its source says.
 * Runs once: releases are built by one runtime.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { compileSnippet, SNIPPET } from "../../.release/snippet.ts";

test("src/page/shishi_js.ts is made of src/page/web/shishi.ts (npm run snippet)", () => {
  assert.equal(readFileSync(SNIPPET, "utf8"), compileSnippet());
});
