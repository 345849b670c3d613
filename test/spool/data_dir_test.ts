/**
 * A data folder is opened, whatever it was and wherever a crash left it.
 * Runs once: the disk is the test's own; spool_test.ts has a real one on both runtimes.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { codeOf, reasonOf, reasonWithoutPath } from "../../src/kernel/errors.ts";
import { isTableName } from "../../src/kernel/names.ts";
import { DONE } from "../../src/kernel/result.ts";
import { openSpool, VERSION_TEXT } from "../../src/spool/data_dir.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { DATA, placeOf, recoverAll, spooled } from "./recovery_kit.ts";

const SEGMENT = spooled("clicks", 1, [[{ eventType: "click" }]]);

function diskWith(version: string | null): FaultyFiles {
  const files = new FaultyFiles();
  files.put(SEGMENT.path, SEGMENT.bytes);
  if (version !== null) files.put(`${DATA}/version`, version);
  return files;
}

const versionOf = (files: FaultyFiles) => new TextDecoder().decode(files.get(`${DATA}/version`)!);

describe("opening a data folder", () => {
  test("makes what is missing, safe against a power cut", async () => {
    for (let seed = 0; seed < 20; seed++) {
      const files = new FaultyFiles(seed);
      assert.deepEqual(await openSpool(placeOf(files)), DONE);
      const after = files.crash("power");
      assert.deepEqual(await after.list(DATA), ["dead/", "quarantine/", "spool/", "version"]);
      assert.equal(versionOf(after), VERSION_TEXT);
    }
  });

  test("again, and after somebody deleted it, the same", async () => {
    const files = new FaultyFiles();
    await openSpool(placeOf(files));
    await openSpool(placeOf(files));
    files.deleteTree(DATA);
    const place = placeOf(files);
    assert.deepEqual(await openSpool(place), DONE);
    assert.deepEqual(await files.list(DATA), ["dead/", "quarantine/", "spool/", "version"]);
    assert.deepEqual(place.log.lines, []);
  });

  test("rows without a version beside them are ours", async () => {
    const files = diskWith(null);
    assert.equal((await recoverAll(files)).segments.length, 1);
    assert.equal(versionOf(files), VERSION_TEXT);
  });

  for (const code of ["EROFS", "EACCES", "ENOSPC"]) {
    test(`a folder that cannot be made: ${code} is told`, async () => {
      const files = new FaultyFiles();
      files.fail({ on: "makeFolder", code });
      const opened = await openSpool(placeOf(files));
      assert.match(
        opened.ok ? "" : opened.problem,
        new RegExp(`^cannot use the data folder ${DATA}: ${code}: `),
      );
    });
  }

  test("a crash at any step is mended by the next start", async () => {
    const whole = new FaultyFiles();
    await openSpool(placeOf(whole));
    for (let step = 1; step <= whole.operations; step++) {
      for (let seed = 0; seed < 10; seed++) {
        const files = new FaultyFiles(seed);
        files.crashAt(step);
        void openSpool(placeOf(files));
        await files.crashed;
        const after = files.crash("power");
        const place = placeOf(after);
        assert.deepEqual(await openSpool(place), DONE);
        assert.equal(versionOf(after), VERSION_TEXT);
        assert.ok(place.log.lines.every(({ level }) => level !== "error"));
      }
    }
  });
});

describe("a spool of another version is kept untouched, and a fresh one begun", () => {
  const others: [version: string, kept: string][] = [
    ["shishi spool 2\n", "spool.2.kept"],
    ["shishi spool 3\n", "spool.3.kept"],
    ["shishi spool 10\n", "spool.10.kept"],
    ["shishi spool 2.1-beta\n", "spool.2.1-beta.kept"],
    ["something else\n", "spool.something-else.kept"],
    ["../../etc\n", "spool...-..-etc.kept"],
    [`v${"9".repeat(5000)}`, `spool.v${"9".repeat(39)}.kept`],
    ["///\n", "spool.-.kept"],
  ];
  for (const [version, kept] of others) {
    test(`${JSON.stringify(version.slice(0, 30))} is kept as ${kept}`, async () => {
      const files = diskWith(version);
      const { segments, log } = await recoverAll(files);
      assert.deepEqual(segments, []);
      assert.equal(versionOf(files), VERSION_TEXT);
      assert.deepEqual(files.get(SEGMENT.path.replace("/spool/", `/${kept}/`)), SEGMENT.bytes);
      assert.deepEqual(log, [{
        level: "error",
        message: "the spool is of another version; it is kept as it is and a fresh one begun",
        fields: {
          found: version.trim().slice(0, 80),
          wanted: "shishi spool 1",
          kept: `${DATA}/${kept}`,
        },
      }]);
      assert.deepEqual((await recoverAll(files)).log, []);
    });
  }

  test("twice: beside the first", async () => {
    const files = diskWith("shishi spool 2\n");
    files.put(`${DATA}/spool.2.kept/old`, "x");
    await recoverAll(files);
    assert.deepEqual(
      (await files.list(DATA)).filter((name) => name.startsWith("spool")),
      ["spool.2.kept.2/", "spool.2.kept/", "spool/"].sort(),
    );
  });

  test("a crash at any step: the rows are in one of the two places", async () => {
    const whole = diskWith("shishi spool 2\n");
    await openSpool(placeOf(whole));
    for (let step = 1; step <= whole.operations; step++) {
      for (let seed = 0; seed < 10; seed++) {
        const files = new FaultyFiles(seed);
        files.put(SEGMENT.path, SEGMENT.bytes);
        files.put(`${DATA}/version`, "shishi spool 2\n");
        files.crashAt(step);
        void openSpool(placeOf(files));
        await files.crashed;
        const after = files.crash("power");
        assert.equal((await recoverAll(after)).segments.length, 0);
        assert.ok(after.get(SEGMENT.path.replace("/spool/", "/spool.2.kept/")) !== null);
      }
    }
  });
});

describe("a damaged version file is no other version", () => {
  const damaged = [
    ...Array.from({ length: VERSION_TEXT.length }, (_, at) => VERSION_TEXT.slice(0, at)),
    ...Array.from({ length: VERSION_TEXT.length }, (_, at) =>
      VERSION_TEXT.slice(0, at) +
      String.fromCharCode(VERSION_TEXT.charCodeAt(at) ^ 64) + VERSION_TEXT.slice(at + 1)),
  ];
  test("cut short anywhere, or one byte wrong: the rows are recovered, and it is told", async () => {
    for (const version of damaged) {
      const files = diskWith(version);
      const { segments, log } = await recoverAll(files);
      assert.equal(segments.length, 1, JSON.stringify(version));
      assert.equal(versionOf(files), VERSION_TEXT);
      assert.deepEqual(log, [{
        level: "warn",
        message: "the spool's version file is damaged; it is written anew",
        fields: { file: `${DATA}/version` },
      }]);
    }
  });
});

describe("small things", () => {
  test("names of tables", () => {
    for (
      const name of [
        "t",
        "_",
        "Test_1",
        "a".repeat(127),
        "1a",
        "my-events",
        "a.b",
        "a b",
        "Ünï",
        "表",
      ]
    ) assert.ok(isTableName(name), name);
    for (
      const name of [
        "",
        "..",
        ".a",
        "a.",
        " a",
        "a ",
        "a\n",
        "a/b",
        "a\\b",
        "a*",
        "a?",
        "a;b",
        "a,b",
        "a`b",
      ]
        .concat("a".repeat(128), "ä".repeat(26), "\ud800")
    ) {
      assert.ok(!isTableName(name), name);
    }
  });

  test("what an error says", () => {
    const coded = Object.assign(new Error("no space\nleft"), { code: "ENOSPC" });
    assert.equal(reasonOf(coded), "ENOSPC: no space left");
    assert.equal(reasonOf(Object.assign(new Error("EIO: x"), { code: "EIO" })), "EIO: x");
    assert.equal(reasonOf("text"), "text");
    assert.equal(codeOf(coded), "ENOSPC");
    assert.equal(codeOf(null), "");
    assert.equal(codeOf({ code: 5 }), "");
  });
});

test("who posts is told what is wrong with the disk, and no path", () => {
  const error = Object.assign(new Error("EMFILE: too many open files, open '/srv/a b/x'"), {
    code: "EMFILE",
  });
  assert.equal(reasonWithoutPath(error), "EMFILE: too many open files");
  const other = Object.assign(new Error("ENOSPC: no space left on device, write"), {
    code: "ENOSPC",
  });
  assert.equal(reasonWithoutPath(other), "ENOSPC: no space left on device, write");
});
