/**
 * What the program runs is what the scanner's source says.
 * Runs once: releases are built by one runtime.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { COMPILED, sumWith } from "../../.release/scanner.ts";

test("src/admit/scanner_wasm.ts is compiled from src/admit/scanner (npm run scanner)", () => {
  const compiled = readFileSync(COMPILED, "utf8");
  const [, sum, wasm = ""] = /^ \* ([0-9a-f]{64})$[^]*"([^"]+)";$/m.exec(compiled) ?? [];
  assert.equal(sum, sumWith(wasm), "npm run scanner has not been run since");
});
