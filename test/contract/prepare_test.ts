/**
 * A fresh machine gets what the tests run: the packages that they name are those that are installed.
 * Runs once: files of the repository are read, nothing runs.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const TESTS = fileURLToPath(new URL("../", import.meta.url));

test("every package that a test asks for is installed before", () => {
  const prepare = readFileSync(join(TESTS, "kit/prepare.mjs"), "utf8");
  const installed = [...prepare.matchAll(/^ {2}"([a-z0-9-]+)": \["\//gm)].map(([, name]) => name);
  const asked = readdirSync(TESTS, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .flatMap((path) => {
      const text = readFileSync(join(TESTS, path), "utf8");
      return [...text.matchAll(/programAt\(\s*\[[^\]]*\],\s*"([^"]+)"/g)].map(([, name]) => name!);
    });
  assert.ok(asked.includes("nats-server"));
  assert.deepEqual([...new Set(asked)].filter((name) => !installed.includes(name)), []);
});
