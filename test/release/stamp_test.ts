/**
 * Which commit a build says it is of: the project's own, or none.
 * Runs once: releases are built by one runtime.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { readStamp } from "../../.release/stamp.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

const WHEN = "2024-02-03T04:05:06Z";

test("a folder's own repository tells the commit, one around it does not", () => {
  const around = tempDir("stamp");
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=a", "-c", "user.email=a@example.com", ...args], {
      cwd: around,
      encoding: "utf8",
      env: { PATH: process.env["PATH"] ?? "", GIT_COMMITTER_DATE: WHEN },
    }).trim();
  try {
    assert.deepEqual(stampOf(around), { commit: "unknown", epochS: 0 });

    git("init", "--quiet");
    writeFileSync(join(around, "file"), "one");
    git("add", "file");
    git("commit", "--quiet", "--message=one");
    const commit = git("rev-parse", "--short=12", "HEAD");
    const epochS = Date.parse(WHEN) / 1000;
    assert.deepEqual(stampOf(around), { commit, epochS });
    writeFileSync(join(around, "file"), "two");
    assert.deepEqual(stampOf(around), { commit: `${commit}-dirty`, epochS });

    const unpacked = join(around, "shishi-0.1.0");
    mkdirSync(unpacked);
    assert.deepEqual(stampOf(unpacked), { commit: "unknown", epochS: 0 });
    const env = { SOURCE_COMMIT: "0123456789ab", SOURCE_DATE_EPOCH: "5" };
    assert.deepEqual(stampOf(unpacked, env), { commit: "0123456789ab", epochS: 5 });
  } finally {
    removeDir(around);
  }
});

function stampOf(folder: string, env: Record<string, string> = {}) {
  const { commit, epochS } = readStamp(folder, env);
  return { commit, epochS };
}
