/**
 * The bill of materials and the notices: nothing differs from run to run, nothing is left out.
 * Runs once: releases are built by one runtime.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Bill, finishedBill } from "../../.release/bill.ts";
import { noticeOf, noticesText, packagesOf } from "../../.release/notices.ts";
import { bunVersion, integrityOf, readLock } from "../../.release/runtime.ts";
import { TARGETS } from "../../.release/targets.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const STAMP = { version: "0.1.0", commit: "0123456789ab", epochS: 1_700_000_000 };

function bill(): Bill {
  const { stdout, stderr, status } = spawnSync(
    "npm",
    ["sbom", "--sbom-format=cyclonedx", "--omit=dev", "--package-lock-only"],
    { cwd: ROOT, encoding: "utf8" },
  );
  assert.equal(status, 0, stderr);
  return finishedBill(JSON.parse(stdout), STAMP, "9.9.9");
}

test("two bills of one commit are the same, and name every dependency and Bun", () => {
  const first = bill();
  assert.deepEqual(bill(), first);
  assert.equal(first.metadata.timestamp, "2023-11-14T22:13:20.000Z");
  assert.match(
    first.serialNumber,
    /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
  );
  assert.equal(first.metadata.component.name, "shishi");
  const names = first.components.map(({ name }) => name);
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  for (const name of [...Object.keys(dependencies), "bun"]) assert.ok(names.includes(name), name);
  const refs = new Set(first.dependencies.map(({ ref }) => ref));
  for (const { dependsOn } of first.dependencies) {
    for (const ref of dependsOn) assert.ok(refs.has(ref), ref);
  }
});

test("packages are found in the bundler's list, scoped and nested ones too", () => {
  assert.deepEqual(
    packagesOf([
      "src/main.ts",
      "node_modules/hono/dist/hono.js",
      "node_modules/@clickhouse/client-web/dist/index.js",
      "../x/node_modules/hono/dist/router.js",
      "node_modules/influx/node_modules/deep/index.js",
    ]),
    [
      "../x/node_modules/hono",
      "node_modules/@clickhouse/client-web",
      "node_modules/hono",
      "node_modules/influx/node_modules/deep",
    ],
  );
});

test("a package without a licence stops the release", () => {
  assert.match(noticeOf(join(ROOT, "node_modules/hono")).text, /MIT License/);
  // At the end of its README.
  assert.match(
    noticeOf(join(ROOT, "node_modules/pgpass")).text,
    /^Copyright .*Permission is hereby granted/s,
  );
  assert.throws(() => noticeOf(join(ROOT, "node_modules/no-such-package")));
});

test("a text that several packages share stands there once", () => {
  const notice = (name: string, text: string) => ({ name, version: "1", license: "MIT", text });
  const text = noticesText(
    [notice("a", "words"), notice("b", "other"), notice("c", "words")],
    "1.0.0",
  );
  assert.equal(text.split("\nwords\n").length, 2);
  assert.match(text, /\na 1, MIT\nc 1, MIT\n\nwords\n/);
});

test("every target's Bun is pinned by its hash", () => {
  const lock = readLock(ROOT);
  for (const { name, runtime } of TARGETS) {
    const pinned = lock.packages[`node_modules/${runtime}`];
    assert.match(pinned?.integrity ?? "", /^sha512-/, name);
    assert.equal(pinned!.version, bunVersion(lock));
  }
  assert.equal(
    integrityOf(new TextEncoder().encode("abc")),
    "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==",
  );
});

test("the changelog tells of this version", () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  assert.ok(existsSync(join(ROOT, "CHANGELOG.md")));
  assert.ok(readFileSync(join(ROOT, "CHANGELOG.md"), "utf8").includes(`\n## ${version} `));
});
