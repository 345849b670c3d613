/**
 * What the program runs is what the scanner's source says.
 * Runs once: releases are built by one runtime.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { COMPILED, compileScanner } from "../../.release/scanner.ts";

test("src/admit/scanner_wasm.ts is compiled from src/admit/scanner (npm run scanner)", async () => {
  assert.equal(readFileSync(COMPILED, "utf8"), await compileScanner());
});
