/**
 * A spool is recovered, whole and damaged.
 * Runs once: the disk is the test's own; spool_test.ts has a real one on both runtimes.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, test } from "node:test";
import fc from "fast-check";
import { listSpool, loadSegment, recover } from "../../src/spool/recovery.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { DATA, idAt, placeOf, recoverAll, type Spooled, spooled } from "./recovery_kit.ts";

const FINGERPRINT = "0123456789abcdef0123456789abcdef";
const SPOOL = [
  spooled("clicks", 3000, [
    [{ eventType: "click", userId: "größe" }, { eventType: "view" }],
    [{ eventType: "click", properties: { a: 1 } }],
    [{ eventType: "__proto__" }],
  ]),
  spooled("plain", 1000, [[{ a: 1 }, { a: 2 }], [{ a: " ".repeat(40) }]], {
    shape: "row",
    fingerprint: FINGERPRINT,
  }),
  spooled("clicks", 2000, [[{ eventType: "click" }], [{ eventType: "last" }]]),
];

function diskWith(segments: readonly Spooled[], seed = 1): FaultyFiles {
  const files = new FaultyFiles(seed);
  files.put(`${DATA}/version`, "shishi spool 1\n");
  for (const { path, bytes } of segments) files.put(path, bytes);
  return files;
}

/** All bytes of what is in quarantine of this file, in order. */
function quarantinedOf(quarantine: ReadonlyMap<string, Uint8Array>, { table, name }: Spooled) {
  const prefix = `${table}.${name}`;
  const parts = [...quarantine].filter(([file]) => file.startsWith(prefix));
  const offset = (file: string) => Number(file.slice(prefix.length + 1));
  parts.sort(([a], [b]) => offset(a) - offset(b));
  return Buffer.concat(parts.map(([, bytes]) => bytes));
}

/** One file is damaged: of it, just the groups that `lost` names are missing, and in quarantine. */
async function assertDamage(
  damaged: Spooled,
  bytes: Uint8Array,
  lost: (group: { start: number; end: number }) => boolean,
): Promise<void> {
  const files = diskWith(SPOOL);
  files.put(damaged.path, bytes);
  const { texts, quarantine, quarantined, log } = await recoverAll(files);
  for (const segment of SPOOL) {
    const kept = segment === damaged ? segment.groups.filter((g) => !lost(g)) : segment.groups;
    const text = kept.map((group) => group.text).join("");
    assert.equal(texts.get(segment.path) ?? "", text);
  }
  const gone = damaged.groups.filter(lost);
  const left = bytes.subarray(gone[0]?.start ?? bytes.length, gone.at(-1)?.end);
  if (left.length === 0) {
    assert.deepEqual([quarantined, log, quarantine.size], [[], [], 0]);
    return;
  }
  assert.deepEqual(new Uint8Array(quarantinedOf(quarantine, damaged)), left.slice());
  assert.equal(quarantined.length, 1);
  assert.equal(quarantined[0]!.path, damaged.path);
  assert.equal(quarantined[0]!.bytes, left.length);
  assert.equal(log.length, 1, "logged once");
}

describe("a spool in good order", () => {
  test("is recovered oldest first, with all that is known of each batch", async () => {
    const { segments, quarantined, log, texts } = await recoverAll(diskWith(SPOOL));
    assert.deepEqual(quarantined, []);
    assert.deepEqual(log, []);
    for (const { path, groups } of SPOOL) {
      assert.equal(texts.get(path), groups.map(({ text }) => text).join(""));
    }
    const said = segments.map((segment) => ({
      ...segment,
      types: Object.fromEntries(segment.types),
      ranges: segment.ranges.length,
    }));
    const bytesOf = ({ groups }: Spooled) =>
      groups.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
    const common = { kind: "segment", keep: false } as const;
    assert.deepEqual(said, [
      {
        ...common,
        table: "plain",
        id: idAt(1000),
        shape: "row",
        fingerprint: FINGERPRINT,
        path: SPOOL[1]!.path,
        rows: 3,
        bytes: bytesOf(SPOOL[1]!),
        types: {},
        oldestMs: 1000,
        ranges: 2,
      },
      {
        ...common,
        table: "clicks",
        id: idAt(2000),
        shape: "event",
        fingerprint: null,
        path: SPOOL[2]!.path,
        rows: 2,
        bytes: bytesOf(SPOOL[2]!),
        types: { click: 1, last: 1 },
        oldestMs: 2000,
        ranges: 2,
      },
      {
        ...common,
        table: "clicks",
        id: idAt(3000),
        shape: "event",
        fingerprint: null,
        path: SPOOL[0]!.path,
        rows: 4,
        bytes: bytesOf(SPOOL[0]!),
        types: Object.fromEntries([["click", 2], ["view", 1], ["__proto__", 1]]),
        oldestMs: 3000,
        ranges: 3,
      },
    ]);
  });

  test("no data folder, an empty spool, an empty table: nothing", async () => {
    const { segments, quarantined, log } = await recoverAll(new FaultyFiles());
    assert.deepEqual([segments, quarantined, log], [[], [], []]);
    const files = new FaultyFiles();
    await files.makeFolder(`${DATA}/spool/clicks`);
    assert.deepEqual((await recoverAll(files)).quarantined, []);
    assert.deepEqual(await listSpool(placeOf(new FaultyFiles())), {
      segments: [],
      journals: [],
      foreign: [],
    });
  });

  test("files that come after the listing are none of its business", async () => {
    const files = diskWith(SPOOL.slice(0, 1));
    const place = placeOf(files);
    const found = await listSpool(place);
    files.put(SPOOL[1]!.path, SPOOL[1]!.bytes.subarray(0, 10));
    files.put(`${DATA}/spool/clicks/being-written`, "x");
    const paths = [];
    for await (const each of recover(place, found)) {
      if (each.kind === "batch") paths.push(each.segment?.path);
    }
    assert.deepEqual(paths, [SPOOL[0]!.path]);
    assert.ok(files.get(SPOOL[1]!.path) !== null);
  });

  test("makes its own listing where none is given", async () => {
    const found = [];
    for await (const each of recover(placeOf(diskWith(SPOOL)))) found.push(each.kind);
    assert.deepEqual(found, ["memos", "batch", "batch", "batch"]);
  });

  test("many rows are read in turns", async () => {
    const rows = Array.from({ length: 5000 }, (_, at) => ({ eventType: `t${at % 3}` }));
    const files = diskWith([spooled("clicks", 1, [rows, rows])]);
    let turns = 0;
    const count = setInterval(() => turns++, 0);
    const { segments } = await recoverAll(files);
    clearInterval(count);
    assert.equal(segments[0]!.rows, 10_000);
    assert.deepEqual(Object.fromEntries(segments[0]!.types), { t0: 3334, t1: 3334, t2: 3332 });
    assert.ok(turns > 0);
  });
});

describe("torn and flipped, at every byte", () => {
  for (const damaged of SPOOL) {
    test(`${damaged.name} truncated anywhere: what was sealed before is recovered`, async () => {
      // Down to one byte: an empty file is told below.
      for (let at = damaged.bytes.length; at > 0; at--) {
        await assertDamage(damaged, damaged.bytes.slice(0, at), ({ end }) => end > at).catch(
          (error) => {
            throw new Error(`truncated at ${at}`, { cause: error });
          },
        );
      }
    });

    test(`${damaged.name} with any byte's bit flipped: one group is lost`, async () => {
      for (let at = 0; at < damaged.bytes.length; at++) {
        const bytes = damaged.bytes.slice();
        bytes[at]! ^= 1 << at % 8;
        await assertDamage(damaged, bytes, ({ start, end }) => start <= at && at < end).catch(
          (error) => {
            throw new Error(`bit ${at % 8} of byte ${at} flipped`, { cause: error });
          },
        );
      }
    });
  }

  test("any damage to any spool: each byte is recovered, a seal, or in quarantine", async () => {
    const rows = fc.array(fc.record({ eventType: fc.string() }), { minLength: 1, maxLength: 3 });
    const segment = fc.array(rows, { minLength: 1, maxLength: 4 });
    const hit = fc.record({ file: fc.nat(), at: fc.nat(), length: fc.nat(60), with: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(segment, { minLength: 1, maxLength: 3 }),
        fc.array(hit, { maxLength: 4 }),
        async (segments, hits) => {
          const spool = segments.map((groups, at) => spooled("t", at, groups));
          const files = diskWith(spool);
          for (const { file, at, length, with: value } of hits) {
            const { path } = spool[file % spool.length]!;
            const bytes = files.get(path)!.slice();
            bytes.fill(
              value,
              at % bytes.length,
              Math.min(at % bytes.length + length, bytes.length),
            );
            files.put(path, bytes);
          }
          const before = new Map(spool.map((each) => [each.path, files.get(each.path)!.slice()]));
          const { segments: found, texts, quarantine } = await recoverAll(files);
          for (const each of spool) {
            const text = texts.get(each.path) ?? "";
            const all = each.groups.map((group) => group.text);
            assert.equal(all.filter((group) => text.includes(group)).length > 0, text !== "");
            const seals = found.find(({ path }) => path === each.path)?.ranges.length ?? 0;
            const bad = quarantinedOf(quarantine, each).length;
            const size = before.get(each.path)!.length;
            assert.equal(Buffer.byteLength(text) + seals * 33 + bad, size);
          }
        },
      ),
    );
  });
});

describe("a file that holds nothing to recover", () => {
  const ID = idAt(5000);
  const torn = SPOOL[0]!.bytes.subarray(0, 20);
  const cases: {
    what: string;
    path: string;
    content: Uint8Array | string;
    to: string;
    table: string | null;
    reason: string;
    rows: number;
  }[] = [
    {
      what: "a file without a whole group",
      path: `clicks/${ID}.event.-.ndjson`,
      content: torn,
      to: `clicks.${ID}.event.-.ndjson`,
      table: "clicks",
      reason: "no group of rows agrees with its checksum",
      rows: 1,
    },
    {
      what: "a file of another name",
      path: "clicks/notes.txt",
      content: "hello\n",
      to: "clicks.notes.txt",
      table: "clicks",
      reason: "not the name of a spool file",
      rows: 0,
    },
    {
      what: "a folder with a spool file's name",
      path: `clicks/${ID}.event.-.ndjson/inner`,
      content: "x",
      to: `clicks.${ID}.event.-.ndjson/inner`,
      table: "clicks",
      reason: "a folder, not a file",
      rows: 0,
    },
    {
      what: "a file beside the tables",
      path: "core",
      content: "x",
      to: "core",
      table: null,
      reason: "no table's folder",
      rows: 0,
    },
    {
      what: "a folder that no table can have",
      path: "lost+found/x",
      content: "x",
      to: "lost+found/x",
      table: null,
      reason: "no table's name",
      rows: 0,
    },
    {
      what: "a name as long as the system allows",
      path: `clicks/${"ö".repeat(127)}`,
      content: "x",
      to: `clicks.${"ö".repeat(106)}`,
      table: "clicks",
      reason: "not the name of a spool file",
      rows: 0,
    },
  ];
  for (const { what, path, content, to, table, reason, rows } of cases) {
    test(`${what} is moved whole, and the others are recovered`, async () => {
      const files = diskWith(SPOOL);
      files.put(`${DATA}/spool/${path}`, content);
      const { segments, quarantined, quarantine, log } = await recoverAll(files);
      assert.equal(segments.length, SPOOL.length);
      assert.equal(files.get(`${DATA}/spool/${path}`), null);
      assert.deepEqual(Buffer.from(quarantine.get(to)!), Buffer.from(content as string));
      assert.equal(quarantined.length, 1);
      assert.equal(quarantined[0]!.table, table);
      assert.equal(quarantined[0]!.reason, reason);
      assert.equal(quarantined[0]!.rows, rows);
      assert.deepEqual(
        log.map(({ level, message, fields }) => [level, message, fields["reason"]]),
        [
          ["warn", "spool file moved to quarantine", reason],
        ],
      );
    });
  }

  for (const stays of [false, true]) {
    test(`an empty one has nothing to keep: it is removed${stays ? ", if the disk lets it" : ""}`, async () => {
      const files = diskWith(SPOOL);
      const path = `${DATA}/spool/clicks/${ID}.event.-.ndjson`;
      files.put(path, "");
      if (stays) files.fail({ on: "remove", code: "EIO" });
      const { segments, quarantined, quarantine, log } = await recoverAll(files);
      assert.deepEqual([segments.length, quarantined.length, quarantine.size], [
        SPOOL.length,
        0,
        0,
      ]);
      assert.equal(files.get(path) !== null, stays);
      assert.deepEqual(
        log.map(({ level, message, fields }) => [level, message, fields["file"]]),
        [
          stays
            ? ["warn", "spool file without rows cannot be removed", path]
            : ["info", "spool file without rows removed", path],
        ],
      );
    });
  }

  test("never overwrites what is in quarantine already", async () => {
    const files = diskWith([]);
    for (const content of ["one", "two", "three"]) {
      files.put(`${DATA}/spool/core`, content);
      await recoverAll(files);
    }
    const { quarantine } = await recoverAll(files);
    const texts = [...quarantine].map(([name, bytes]) => `${name}: ${Buffer.from(bytes)}`);
    assert.deepEqual(texts.sort(), ["core.2: two", "core.3: three", "core: one"].sort());
  });
});

describe("a file that cannot be read", () => {
  const path = SPOOL[1]!.path;

  for (const code of ["EIO", "EACCES", "ELOOP", "EINVAL", "EFBIG"]) {
    test(`${code}: it is moved whole`, async () => {
      const files = diskWith(SPOOL);
      files.fail({ on: "read", path, code });
      const { segments, quarantined } = await recoverAll(files);
      assert.equal(segments.length, 2);
      assert.match(quarantined[0]!.reason, new RegExp(`^cannot be read: ${code}`));
      assert.equal(files.get(path), null);
    });
  }

  for (const code of ["EMFILE", "ENOMEM"]) {
    test(`${code} is not its fault: it stays for the next start`, async () => {
      const files = diskWith(SPOOL);
      files.fail({ on: "read", path, code });
      const { segments, quarantined, log } = await recoverAll(files);
      assert.equal(segments.length, 2);
      assert.deepEqual(quarantined, []);
      assert.deepEqual(log.map(({ level, message }) => [level, message]), [
        ["error", "spool file cannot be read at the moment; it waits for the next start"],
      ]);
      assert.equal((await recoverAll(files)).segments.length, 3);
    });
  }

  test("gone meanwhile: nothing to tell", async () => {
    const files = diskWith(SPOOL);
    files.fail({ on: "read", path, code: "ENOENT" });
    const { segments, quarantined, log } = await recoverAll(files);
    assert.deepEqual([segments.length, quarantined.length, log.length], [2, 0, 0]);
  });

  test("a table's folder that cannot be read costs that table alone", async () => {
    const files = diskWith(SPOOL);
    files.fail({ on: "list", path: "/plain", code: "EIO" });
    const { segments, log } = await recoverAll(files);
    assert.equal(segments.length, 2);
    assert.deepEqual(log.map(({ level, message, fields }) => [level, message, fields["folder"]]), [
      [
        "error",
        "spool folder cannot be read; its rows wait there for the next start",
        `${DATA}/spool/plain`,
      ],
    ]);
  });
});

describe("a disk that takes nothing", () => {
  function damagedDisk(): FaultyFiles {
    const files = diskWith(SPOOL);
    const bytes = SPOOL[0]!.bytes.slice();
    bytes[3]! ^= 1;
    bytes[bytes.length - 50]! ^= 1;
    files.put(SPOOL[0]!.path, bytes);
    return files;
  }

  test("damaged rows stay in their file, which is to be kept; the good ones are recovered", async () => {
    const files = damagedDisk();
    files.fail({ on: "write", path: "/quarantine/", code: "ENOSPC", written: 3, skip: 1 });
    const { segments, quarantined, log } = await recoverAll(files);
    assert.deepEqual(segments.map(({ keep }) => keep), [false, false, true]);
    assert.equal(segments[2]!.rows, 1);
    assert.equal(quarantined[0]!.to.length, 1);
    assert.equal(quarantined[0]!.rows, 3);
    assert.deepEqual(log.map(({ level, message }) => [level, message]), [
      ["error", "part of a spool file is damaged and cannot be copied to quarantine; kept"],
    ]);
    const again = await recoverAll(files);
    assert.deepEqual(again.segments.map(({ keep }) => keep), [false, false, false]);
    assert.equal(again.log.length, 1);
    assert.deepEqual(
      again.log.map(({ level, message, fields }) => [level, message, fields["parts"]]),
      [[
        "warn",
        "part of a spool file is damaged; copied to quarantine, the rest is recovered",
        2,
      ]],
    );
    const third = await recoverAll(files);
    assert.deepEqual(third.quarantine, again.quarantine, "once more changes nothing");
  });

  test("a foreign file stays where it is", async () => {
    const files = diskWith(SPOOL);
    files.put(`${DATA}/spool/core`, "x");
    files.fail({ on: "rename", path: "/core", code: "EROFS" });
    const { segments, quarantined, log } = await recoverAll(files);
    assert.equal(segments.length, 3);
    assert.deepEqual(quarantined[0]!.to, []);
    assert.deepEqual(log.map(({ level, message }) => [level, message]), [
      ["error", "spool file cannot be moved to quarantine; it stays where it is"],
    ]);
    assert.ok(files.get(`${DATA}/spool/core`) !== null);
  });

  test("read-only: what is good is recovered all the same", async () => {
    const files = damagedDisk();
    files.put(`${DATA}/spool/core`, "x");
    files.readOnly = true;
    const { segments } = await recoverAll(files);
    assert.equal(segments.reduce((sum, { rows }) => sum + rows, 0), 1 + 3 + 2);
  });
});

test("a recovery that crashes at any step, and again, loses nothing", async () => {
  const damagedBytes = SPOOL[0]!.bytes.slice();
  damagedBytes[3]! ^= 1;
  const disk = (seed: number) => {
    const files = diskWith(SPOOL, seed);
    files.put(SPOOL[0]!.path, damagedBytes);
    files.put(`${DATA}/spool/core`, "foreign");
    return files;
  };
  const whole = disk(0);
  const wanted = await recoverAll(whole);
  assert.ok(whole.operations > 20);
  for (let step = 1; step <= whole.operations; step++) {
    for (let seed = 0; seed < 6; seed++) {
      let files = disk(seed * 1000 + step);
      for (let life = 0; life < 2; life++) {
        files.crashAt(1 + (step - 1) % whole.operations);
        await Promise.race([recoverAll(files), files.crashed]);
        files = files.crash(seed % 2 === 0 ? "power" : "process");
      }
      const { texts, quarantine } = await recoverAll(files);
      assert.deepEqual(texts, wanted.texts, `step ${step}, seed ${seed}`);
      assert.deepEqual(quarantine, wanted.quarantine, `step ${step}, seed ${seed}`);
    }
  }
});

test("what is in quarantine is safe before the file may go", async () => {
  const damaged = SPOOL[0]!;
  const bytes = damaged.bytes.slice();
  bytes[3]! ^= 1;
  for (let seed = 0; seed < 40; seed++) {
    const files = diskWith(SPOOL, seed);
    files.put(damaged.path, bytes);
    files.put(`${DATA}/spool/core`, "foreign");
    const { quarantine } = await recoverAll(files);
    await files.remove(damaged.path);
    await files.syncFolder(`${DATA}/spool/clicks`);
    const after = files.crash("power");
    assert.equal(after.get(damaged.path), null);
    assert.equal(quarantine.size, 2);
    assert.deepEqual((await recoverAll(after)).quarantine, quarantine);
  }
});

describe("loading a segment to send it", () => {
  const { path, bytes, groups } = SPOOL[0]!;

  test("gives the rows of its good groups", async () => {
    const files = diskWith(SPOOL);
    const texts = async () =>
      (await loadSegment(files, path)).map((b) => Buffer.from(b).toString());
    assert.deepEqual(await texts(), groups.map(({ text }) => text));
    const spoilt = bytes.slice();
    spoilt[groups[1]!.start]! ^= 1;
    files.put(path, spoilt);
    assert.deepEqual(await texts(), [groups[0]!.text, groups[2]!.text]);
  });

  test("rejects with the disk's error when it cannot be read", async () => {
    const files = diskWith(SPOOL);
    await assert.rejects(loadSegment(files, `${path}.no`), { code: "ENOENT" });
    files.fail({ on: "read", code: "EIO" });
    await assert.rejects(loadSegment(files, path), { code: "EIO" });
  });
});
