/** A folder that another collector still has: what is used meanwhile, and what becomes ours when it has gone. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openDisk } from "../../src/spool/open.ts";
import type { takeLock } from "../../src/spool/lock.ts";
import { systemClock as clock } from "../../src/kernel/time.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { ManualClock } from "../kit/manual_clock.ts";
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
  let tellRefused = () => {};
  const lock = ((folder) => {
    if (!others.has(folder)) {
      return Promise.resolve({ release: () => Promise.resolve() });
    }
    tellRefused();
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
    const refusedAgain = async () => {
      await Promise.race([new Promise<void>((resolve) => tellRefused = resolve), disk.whole]);
      assert.equal(whole, undefined);
    };
    // Its process is known to end before the kernel has given up its lock.
    goes();
    await refusedAgain();
    // Others that keep rows in folders there have not ended.
    others.delete(dataDir);
    await refusedAgain();
    others.clear();
    assert.equal(await disk.whole, true);
    assert.ok(existsSync(join(dataDir, left)));
    await disk.close();
  } finally {
    removeDir(dataDir);
  }
});

test("a folder that another collector has taken meanwhile, and keeps, is left to it", async () => {
  const dataDir = tempDir("beside");
  const problems: string[] = [];
  const nobody = () => {};
  const log = {
    debug: nobody,
    info: nobody,
    warn: nobody,
    error: (text: string) => problems.push(text),
  };
  const manual = new ManualClock();
  let lost = 0;
  const lock = ((folder) =>
    Promise.resolve(
      folder === dataDir
        ? { problem: `${folder} is in use`, busy: true }
        : { release: () => Promise.resolve() },
    )) as typeof takeLock;
  try {
    const opened = await openDisk({
      dir: { files: nodeFiles, dataDir, log },
      clock: manual,
      vacated: Promise.resolve(),
      onLost: () => lost++,
      lock,
    });
    assert.ok(opened.ok);
    const disk = opened.value;
    await manual.advance(9_000);
    assert.equal(lost, 0);
    await manual.advance(2_000);
    assert.equal(await disk.whole, false);
    assert.equal(lost, 1);
    assert.deepEqual(problems, [`${dataDir} is in use`]);
    await disk.close();
  } finally {
    removeDir(dataDir);
  }
});
