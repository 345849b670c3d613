/** What stands for a data folder: the same as long as it is there, and no other's. */

import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { standFor } from "../../src/runtime/for_brokers.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

test("a folder is told from others, and from one that is made anew in its place", async () => {
  const dir = tempDir("folders");
  const [one, other] = ["one", "other"].map((name) => join(dir, name)) as [string, string];
  try {
    for (const path of [one, other]) mkdirSync(path);
    const name = await standFor(one);
    assert.match(name, /^[0-9a-f]{8}$/);
    assert.notEqual(await standFor(other), name);
    writeFileSync(join(one, "file"), "");
    renameSync(one, `${one}.moved`);
    assert.equal(await standFor(`${one}.moved`), name);
    mkdirSync(one);
    assert.notEqual(await standFor(one), name);
    rmSync(one, { recursive: true });
    await assert.rejects(standFor(one), /ENOENT/);
  } finally {
    removeDir(dir);
  }
});
