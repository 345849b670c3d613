/**
 * One suite for everything that is a disk to the spool: the real one, and the faulty one of other
 * tests as long as no fault is asked for. What the faulty one loses is tested below.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import type { Files } from "../../src/contracts.ts";
import { MAX_READ_BYTES, nodeFiles } from "../../src/runtime/files.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

const realDir = tempDir("files");
after(() => removeDir(realDir));
const faulty = new FaultyFiles();
let folders = 0;

const subjects: {
  readonly name: string;
  readonly files: Files;
  readonly root: string;
  readonly deleteTree: (path: string) => void;
}[] = [
  {
    name: "the real disk",
    files: nodeFiles,
    root: realDir,
    deleteTree: (path) => rmSync(path, { recursive: true }),
  },
  {
    name: "the faulty disk",
    files: faulty,
    root: "/data",
    deleteTree: (path) => faulty.deleteTree(path),
  },
];

const rejects = (work: Promise<unknown>, code: string) => assert.rejects(work, { code });

for (const { name, files, root, deleteTree } of subjects) {
  /** A fresh folder. */
  const folder = async (): Promise<string> => {
    const path = join(root, `f${folders++}`);
    await files.makeFolder(path);
    return path;
  };

  const put = async (path: string, text: string): Promise<void> => {
    const file = await files.create(path);
    await file.write(encode(text));
    await file.close();
  };

  describe(name, () => {
    test("makes folders with their parents, again without an error", async () => {
      const path = join(await folder(), "a/b/c");
      await files.makeFolder(path);
      await files.makeFolder(path);
      assert.deepEqual(await files.list(path), []);
      await put(join(path, "x"), "");
      await rejects(files.makeFolder(join(path, "x")), "EEXIST");
      await rejects(files.makeFolder(join(path, "x/y")), "ENOTDIR");
    });

    test("appends, counts bytes, reads back", async () => {
      const path = join(await folder(), "x");
      const file = await files.create(path);
      assert.equal(file.bytes, 0);
      await file.write(encode("one "));
      await file.write(new Uint8Array(0));
      await file.write(encode("größe"));
      assert.equal(file.bytes, 11);
      await file.sync();
      assert.equal(decode(await files.read(path)), "one größe");
      await file.close();
      const again = await files.append(path);
      assert.equal(again.bytes, 11);
      await again.write(encode("!"));
      await again.close();
      assert.equal(decode(await files.read(path)), "one größe!");
    });

    test("a large write gets there whole", async () => {
      const path = join(await folder(), "x");
      const data = new Uint8Array(3_000_000).map((_, at) => at * 7);
      const file = await files.create(path);
      await file.write(data);
      await file.sync();
      await file.close();
      assert.equal(Buffer.compare(await files.read(path), data), 0);
    });

    test("truncates, and goes on appending at the new end", async () => {
      const path = join(await folder(), "x");
      const file = await files.create(path);
      await file.write(encode("keep, drop"));
      await file.truncate(4);
      assert.equal(file.bytes, 4);
      await file.write(encode("!"));
      await file.sync();
      await file.close();
      assert.equal(decode(await files.read(path)), "keep!");
    });

    test("creates only what is not there; append makes it", async () => {
      const path = join(await folder(), "x");
      await (await files.append(path)).close();
      await rejects(files.create(path), "EEXIST");
      assert.equal((await files.read(path)).length, 0);
    });

    test("lists sorted, folders with a slash", async () => {
      const path = await folder();
      for (const entry of ["b", "B", "a.2", "a.10", "é"]) await put(join(path, entry), "");
      await files.makeFolder(join(path, "c"));
      assert.deepEqual(await files.list(path), ["B", "a.10", "a.2", "b", "c/", "é"]);
    });

    test("renames over a file, and moves a folder with what is in it", async () => {
      const path = await folder();
      await put(join(path, "a"), "new");
      await put(join(path, "b"), "old");
      await files.rename(join(path, "a"), join(path, "b"));
      assert.equal(decode(await files.read(join(path, "b"))), "new");
      await files.makeFolder(join(path, "from"));
      await put(join(path, "from/x"), "inside");
      await files.makeFolder(join(path, "there"));
      await files.rename(join(path, "from"), join(path, "there/to"));
      assert.equal(decode(await files.read(join(path, "there/to/x"))), "inside");
      assert.deepEqual(await files.list(path), ["b", "there/"]);
    });

    test("an open file follows its rename", async () => {
      const path = await folder();
      const file = await files.create(join(path, "a"));
      await files.rename(join(path, "a"), join(path, "b"));
      await file.write(encode("x"));
      await file.sync();
      await file.close();
      assert.equal(decode(await files.read(join(path, "b"))), "x");
    });

    test("removes, syncs folders", async () => {
      const path = await folder();
      await put(join(path, "x"), "");
      await files.syncFolder(path);
      await files.remove(join(path, "x"));
      await files.syncFolder(path);
      assert.deepEqual(await files.list(path), []);
    });

    const gone: [string, (path: string) => Promise<unknown>][] = [
      ["create", (path) => files.create(path)],
      ["append", (path) => files.append(path)],
      ["list", (path) => files.list(path)],
      ["read", (path) => files.read(path)],
      ["rename", (path) => files.rename(path, `${path}2`)],
      ["remove", (path) => files.remove(path)],
      ["syncFolder", (path) => files.syncFolder(path)],
    ];
    for (const [operation, run] of gone) {
      test(`${operation} where there is nothing: ENOENT`, async () => {
        await rejects(run(join(await folder(), "no/x")), "ENOENT");
      });
    }

    const wrongKind: [string, string, (folder: string, file: string) => Promise<unknown>][] = [
      ["reading a folder", "EISDIR", (folder) => files.read(folder)],
      ["appending to a folder", "EISDIR", (folder) => files.append(folder)],
      ["creating a folder's name", "EEXIST", (folder) => files.create(folder)],
      ["listing a file", "ENOTDIR", (_, file) => files.list(file)],
      ["syncing a file as a folder", "ENOTDIR", (_, file) => files.syncFolder(file)],
      ["renaming a file over a folder", "EISDIR", (folder, file) => files.rename(file, folder)],
      ["renaming a folder over a file", "ENOTDIR", (folder, file) => files.rename(folder, file)],
    ];
    for (const [what, code, run] of wrongKind) {
      test(`${what}: ${code}`, async () => {
        const path = await folder();
        await files.makeFolder(join(path, "folder"));
        await put(join(path, "file"), "");
        await rejects(run(join(path, "folder"), join(path, "file")), code);
      });
    }

    test("renaming over a folder that is not empty: ENOTEMPTY", async () => {
      const path = await folder();
      await files.makeFolder(join(path, "a"));
      await files.makeFolder(join(path, "b/c"));
      await rejects(files.rename(join(path, "a"), join(path, "b")), "ENOTEMPTY");
    });

    test("a sync of a file that was removed, or whose folder was, says so", async () => {
      const path = await folder();
      const one = await files.create(join(path, "one"));
      const two = await files.create(join(path, "two"));
      await files.remove(join(path, "one"));
      await one.write(encode("x"));
      await rejects(one.sync(), "ENOENT");
      await two.sync();
      deleteTree(path);
      await two.write(encode("x"));
      await rejects(two.sync(), "ENOENT");
      await one.close();
      await two.close();
    });

    test("writes safely at places, and never to a file that is gone or another one", async () => {
      const path = join(await folder(), "x");
      await put(path, "abcdef");
      const file = await files.overwrite(path);
      await file.write(encode("1"), 1);
      await file.writeSafe(encode("45"), 4);
      await file.writeSafe(encode("678"), 6);
      assert.equal(decode(await files.read(path)), "a1cd45678");
      assert.equal(file.bytes, 9);
      await files.remove(path);
      await rejects(file.writeSafe(encode("x"), 0), "ENOENT");
      await put(path, "another");
      await rejects(file.writeSafe(encode("x"), 0), "ENOENT");
      await file.close();
      const closed = await files.overwrite(path);
      await files.remove(path);
      await put(path, "another");
      await rejects(closed.writeSafe(encode("x"), 0), "ENOENT");
      await closed.close();
      assert.equal(decode(await files.read(path)), "another");
    });

    test("a closed file takes nothing more", async () => {
      const file = await files.create(join(await folder(), "x"));
      await file.close();
      await rejects(file.write(encode("x")), "EBADF");
      await rejects(file.sync(), "EBADF");
    });
  });
}

describe("the real disk alone", () => {
  test("files are 0600 and folders 0700", async () => {
    const path = join(realDir, "private/inner");
    await nodeFiles.makeFolder(path);
    await (await nodeFiles.create(join(path, "a"))).close();
    await (await nodeFiles.append(join(path, "b"))).close();
    const mode = (at: string) => (statSync(at).mode & 0o777).toString(8);
    assert.equal(mode(path), "700");
    assert.equal(mode(join(realDir, "private")), "700");
    assert.equal(mode(join(path, "a")), "600");
    assert.equal(mode(join(path, "b")), "600");
  });

  test("reads no link, no pipe, no device and nothing huge", async () => {
    const path = join(realDir, "odd");
    mkdirSync(path);
    writeFileSync(join(path, "file"), "x");
    symlinkSync(join(path, "file"), join(path, "link"));
    symlinkSync(path, join(path, "loop"));
    execFileSync("mkfifo", [join(path, "pipe")]);
    writeFileSync(join(path, "huge"), "");
    truncateSync(join(path, "huge"), MAX_READ_BYTES + 1);
    await rejects(nodeFiles.read(join(path, "link")), "ELOOP");
    await rejects(nodeFiles.read(join(path, "loop")), "ELOOP");
    await rejects(nodeFiles.read(join(path, "pipe")), "EINVAL");
    await rejects(nodeFiles.read("/dev/null"), "EINVAL");
    await rejects(nodeFiles.read(join(path, "huge")), "EFBIG");
    assert.deepEqual(await nodeFiles.list(path), ["file", "huge", "link", "loop", "pipe"]);
  });
});

describe("the faulty disk", () => {
  /** Two groups are written, the first is synced; then the power goes. */
  async function cut(seed: number, options: { syncFolder: boolean; fsyncgate?: boolean }) {
    const files = new FaultyFiles(seed);
    await files.makeFolder("/d");
    await files.syncFolder("/");
    const file = await files.create("/d/x");
    await file.write(encode("first"));
    await file.sync();
    if (options.syncFolder) await files.syncFolder("/d");
    await file.write(encode("second"));
    if (options.fsyncgate) {
      files.fail({ on: "sync", code: "EIO" });
      await rejects(file.sync(), "EIO");
      await file.write(encode("third"));
      await file.sync();
    }
    assert.match(decode(files.get("/d/x")!), /^firstsecond(third)?$/);
    const left = files.crash("power").get("/d/x");
    return left === null ? null : decode(left);
  }

  test("synced is safe; of what is not, a power cut leaves nothing, a part, all, or holes", async () => {
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const left = await cut(seed, { syncFolder: true });
        assert.match(left ?? "", /^first[second\0]{0,6}$/);
        seen.add(left!);
      }),
      { numRuns: 300 },
    );
    for (const left of ["first", "firstsecond", "firstsec"]) assert.ok(seen.has(left), left);
    assert.ok([...seen].some((left) => /\0.*d$/.test(left)));
  });

  test("what is written safely makes nothing safe that was written before, elsewhere", async () => {
    const left = new Set<string>();
    for (let seed = 0; seed < 100; seed++) {
      const files = new FaultyFiles(seed);
      files.put("/d/x", "abcdef");
      const file = await files.overwrite("/d/x");
      await file.write(encode("12"), 0);
      await file.writeSafe(encode("56789"), 4);
      left.add(decode(files.crash("power").get("/d/x")!));
    }
    assert.ok(left.has("abcd56789") && left.has("12cd56789"), [...left].join());
    for (const text of left) assert.match(text, /^..cd56789$/);
  });

  test("a file in a folder that was not synced may be gone", async () => {
    const left = [];
    for (let seed = 0; seed < 50; seed++) left.push(await cut(seed, { syncFolder: false }));
    assert.ok(left.includes(null));
    assert.ok(left.some((text) => text?.startsWith("first")));
  });

  test("what a failed sync lost stays lost, whatever a later sync says", async () => {
    const left = new Set<string | null>();
    for (let seed = 0; seed < 50; seed++) {
      left.add(await cut(seed, { syncFolder: true, fsyncgate: true }));
    }
    assert.deepEqual(left, new Set(["firstsecondthird", "first\0\0\0\0\0\0third"]));
  });

  test("a kill of the process loses nothing that was written", async () => {
    const files = new FaultyFiles(7);
    await files.makeFolder("/d");
    const file = await files.create("/d/x");
    await file.write(encode("unsynced"));
    assert.equal(decode(files.crash("process").get("/d/x")!), "unsynced");
  });

  test("a rename is kept whole or not at all; a name never comes without what it builds on", async () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 100; seed++) {
      const files = new FaultyFiles(seed);
      files.put("/d/a", "a");
      await files.makeFolder("/e");
      await files.syncFolder("/");
      await files.rename("/d/a", "/e/b");
      await (await files.create("/d/a")).close();
      seen.add(files.crash("power").paths().join(" "));
    }
    assert.deepEqual(seen, new Set(["/d/a", "/e/b", "/d/a /e/b"]));
  });

  test("crashes at any operation, and nothing goes on after it", async () => {
    const run = async (files: FaultyFiles) => {
      await files.makeFolder("/d");
      const file = await files.create("/d/x");
      await file.write(encode("0123456789"));
      await file.sync();
      await files.syncFolder("/d");
      await file.close();
    };
    const whole = new FaultyFiles();
    await run(whole);
    assert.deepEqual(whole.trace.map((line) => line.split(" ")[0]), [
      "makeFolder",
      "create",
      "write",
      "sync",
      "syncFolder",
      "close",
    ]);
    const lengths = new Set<number | undefined>();
    for (let step = 1; step <= whole.operations; step++) {
      for (let seed = 0; seed < 20; seed++) {
        const files = new FaultyFiles(seed);
        files.crashAt(step);
        let ended = false;
        void run(files).finally(() => ended = true);
        await files.crashed;
        for (let turn = 0; turn < 20; turn++) await null;
        assert.equal(ended, false);
        assert.equal(files.operations, step);
        if (step === 3) lengths.add(files.crash("process").get("/d/x")?.length);
      }
    }
    assert.ok(lengths.has(0) && lengths.has(10) && lengths.size > 2);
  });

  test("scripted errors: after so many, so often, on a path, with a short write", async () => {
    const files = new FaultyFiles();
    await files.makeFolder("/d");
    const x = await files.create("/d/x");
    const y = await files.create("/d/y");
    files.fail({ on: ["write", "sync"], path: "/x", code: "EIO", skip: 1, times: 2, written: 2 });
    await x.write(encode("one"));
    await y.write(encode("one"));
    await rejects(x.write(encode("two")), "EIO");
    assert.equal(decode(files.get("/d/x")!), "onetw");
    assert.equal(x.bytes, 3);
    await rejects(x.sync(), "EIO");
    await x.truncate(x.bytes);
    await x.sync();
    assert.equal(decode(files.get("/d/x")!), "one");
    const takeBack = files.fail({ on: "read", code: "EIO", times: Infinity });
    await rejects(files.read("/d/x"), "EIO");
    takeBack();
    assert.equal(decode(await files.read("/d/y")), "one");
  });

  test("a full disk takes what fits, and more when there is room again", async () => {
    const files = new FaultyFiles();
    await files.makeFolder("/d");
    files.capacityBytes = 8;
    const file = await files.create("/d/x");
    await file.write(encode("12345"));
    await rejects(file.write(encode("67890")), "ENOSPC");
    assert.equal(files.get("/d/x")!.length, 8);
    await file.truncate(file.bytes);
    files.capacityBytes = 10;
    await file.write(encode("67890"));
    assert.equal(decode(files.get("/d/x")!), "1234567890");
  });

  test("a read-only disk is read and not changed", async () => {
    const files = new FaultyFiles();
    files.put("/d/x", "1");
    const file = await files.append("/d/x");
    files.readOnly = true;
    await rejects(file.write(encode("2")), "EROFS");
    await rejects(files.remove("/d/x"), "EROFS");
    await rejects(files.makeFolder("/e"), "EROFS");
    assert.equal(decode(await files.read("/d/x")), "1");
    files.readOnly = false;
    await file.write(encode("2"));
    assert.equal(decode(await files.read("/d/x")), "12");
  });

  test("two writes to one file at once are a bug, and are told as one", async () => {
    const files = new FaultyFiles();
    const file = await files.create("/x");
    const first = file.write(encode("1"));
    await assert.rejects(file.write(encode("2")), /while another change of \/x is under way/);
    await first;
  });
});
