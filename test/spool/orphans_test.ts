/** Orphaned spools, of a collector that followed another one and of the workers of 0.1, move to the data folder. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, test } from "node:test";
import { DONE, failed, type Result } from "../../src/kernel/result.ts";
import { type Hold, takeOrphans } from "../../src/spool/data_dir.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

const folders: string[] = [];
afterEach(() => folders.splice(0).forEach(removeDir));

interface Kit {
  readonly dataDir: string;
  readonly held: string[];
  readonly logged: string[];
  take(hold?: Hold): Promise<Result>;
  /** Every file of a spool, with what is in it. */
  spools(): Record<string, string>;
}

/** @param files by path below the data folder. */
function kit(files: Record<string, string>): Kit {
  const dataDir = tempDir("orphans");
  folders.push(dataDir);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dataDir, path)), { recursive: true });
    writeFileSync(join(dataDir, path), text);
  }
  const held: string[] = [];
  const logged: string[] = [];
  const at = (message: string) => void logged.push(message);
  const log = { debug: at, info: at, warn: at, error: at };
  const release = () => Promise.resolve();
  const holding: Hold = (folder) => {
    held.push(folder.slice(dataDir.length + 1));
    return Promise.resolve({ release });
  };
  return {
    dataDir,
    held,
    logged,
    take: (hold = holding) => takeOrphans({ files: nodeFiles, dataDir, log }, hold),
    spools() {
      const paths = readdirSync(dataDir, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name));
      return Object.fromEntries(
        paths.filter((path) => path.includes("/spool/")).sort()
          .map((path) => [path.slice(dataDir.length + 1), readFileSync(path, "utf8")]),
      );
    },
  };
}

const VERSION = "shishi spool 1\n";

test("the spools of all folders are taken", async () => {
  const { take, spools, held } = kit({
    "version": VERSION,
    "spool/clicks/a": "A",
    "worker-1/version": VERSION,
    "worker-1/spool/clicks/b": "B",
    "worker-12/version": VERSION,
    "worker-12/spool/views/c": "C",
    "worker-x/spool/views/d": "D",
  });
  assert.deepEqual(await take(), DONE);
  assert.deepEqual(spools(), {
    "spool/clicks/a": "A",
    "spool/clicks/b": "B",
    "spool/views/c": "C",
    "worker-x/spool/views/d": "D",
  });
  assert.deepEqual(held.sort(), ["worker-1", "worker-12"]);
});

test("nothing changes where there is nothing to move", async () => {
  const { take, dataDir } = kit({ "version": VERSION });
  assert.deepEqual(await take(), DONE);
  assert.deepEqual(readdirSync(dataDir), ["version"]);
});

test("a spool of another version stays as it is", async () => {
  const { take, spools, dataDir } = kit({
    "version": VERSION,
    "worker-2/version": "shishi spool 7\n",
    "worker-2/spool/clicks/b": "B",
  });
  assert.deepEqual(await take(), DONE);
  assert.deepEqual(spools(), {});
  assert.equal(readFileSync(join(dataDir, "worker-2/spool.7.kept/clicks/b"), "utf8"), "B");
});

test("a segment whose name is taken is not written over", async () => {
  const { take, spools } = kit({
    "version": VERSION,
    "spool/clicks/a": "mine",
    "worker-1/version": VERSION,
    "worker-1/spool/clicks/a": "theirs",
  });
  assert.deepEqual(await take(), DONE);
  assert.deepEqual(spools(), { "spool/clicks/a": "mine", "worker-1/spool/clicks/a": "theirs" });
});

test("a folder where a process still works is a reason not to start", async () => {
  const { take, spools } = kit({
    "version": VERSION,
    "worker-2/version": VERSION,
    "worker-2/spool/clicks/b": "B",
  });
  const taken = await take(() => Promise.resolve({ problem: "in use by pid 7" }));
  assert.deepEqual(taken, failed("in use by pid 7"));
  assert.deepEqual(spools(), { "worker-2/spool/clicks/b": "B" });
});
