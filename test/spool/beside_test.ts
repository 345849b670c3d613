/** A folder that another collector still has: what is used meanwhile, and what becomes ours when it has gone. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openDisk } from "../../src/spool/open.ts";
import type { takeLock } from "../../src/spool/lock.ts";
import { systemClock as clock } from "../../src/kernel/time.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

test("a folder that is free is used; what others leave is taken over when each of them has let go", async () => {
  const dataDir = tempDir("beside");
  const nobody = () => {};
  const log = { debug: nobody, info: nobody, warn: nobody, error: nobody };
  const left = join("spool", "t", "01a2026e-08c7-7aa6-b2fa-9aa4b18fdeb7.row");
  mkdirSync(join(dataDir, "worker-2", "spool", "t"), { recursive: true });
  writeFileSync(join(dataDir, "worker-2", "version"), "shishi spool 1\n");
  writeFileSync(join(dataDir, "worker-2", left), "");
  const others = new Set([dataDir, join(dataDir, "worker-1"), join(dataDir, "worker-2")]);
  let refused = 0;
  let tellRefused = () => {};
  const lock = ((folder) => {
    if (!others.has(folder)) {
      return Promise.resolve({ release: () => Promise.resolve() });
    }
    if (++refused === 4) tellRefused();
    return Promise.resolve({ problem: `${folder} is in use`, busy: true });
  }) as typeof takeLock;
  let goes = () => {};
  try {
    const opened = await openDisk({
      dir: { files: nodeFiles, dataDir, log },
      clock,
      vacated: new Promise<void>((resolve) => goes = resolve),
      onLost: () => assert.fail("nobody takes it"),
      lock,
    });
    assert.ok(opened.ok);
    const disk = opened.value;
    assert.equal(disk.dataDir, join(dataDir, "worker-3"));
    let whole: boolean | undefined;
    void disk.whole.then((is) => whole = is);
    // Its process has ended; others that keep rows in folders there have not.
    others.delete(dataDir);
    const again = new Promise<void>((resolve) => tellRefused = resolve);
    goes();
    await Promise.race([again, disk.whole]);
    assert.equal(whole, undefined);
    others.clear();
    assert.equal(await disk.whole, true);
    assert.ok(existsSync(join(dataDir, left)));
    await disk.close();
  } finally {
    removeDir(dataDir);
  }
});
