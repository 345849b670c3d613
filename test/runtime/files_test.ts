/** What the disk of another system is asked for. */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { nodeFiles } from "../../src/runtime/files.ts";

test("Windows cannot sync a folder and is not asked to", async () => {
  const there = Object.getOwnPropertyDescriptor(process, "platform")!;
  await assert.rejects(nodeFiles.syncFolder("/no/such/folder"), { code: "ENOENT" });
  Object.defineProperty(process, "platform", { configurable: true, value: "win32" });
  try {
    await nodeFiles.syncFolder("/no/such/folder");
  } finally {
    Object.defineProperty(process, "platform", there);
  }
});
