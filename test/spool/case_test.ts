/**
 * Tables whose names differ in case only, `Events` and `events`, on disks that tell upper from lower
 * case and on disks that do not: no row and no letter of one is ever taken for the other's.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { fileNameOf, nameAmong, tableOfFolder } from "../../src/kernel/names.ts";
import { folderBeside, openSpool, takeOrphans } from "../../src/spool/data_dir.ts";
import { DONE } from "../../src/kernel/result.ts";
import { isFresh, tableOfFile } from "../../src/dead/letter.ts";
import { listSpool, recover } from "../../src/spool/recovery.ts";
import type { Spool } from "../../src/contracts.ts";
import { events, memoryLog } from "../kit/chunks.ts";
import { Disk, DiskFolder } from "../kit/faulty_disk.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { batch, deadRows, setAside, storeOf, writerOf } from "../dead/kit.ts";
import { DATA, openBatch, spill, spoolIn, spoolKit } from "../batch/spool_kit.ts";

const TABLES = ["Events", "events", "EVENTS", "eventS"];

const diskOf = (caseBlind: boolean) => new FaultyFiles(1, new Disk(new DiskFolder(caseBlind)));

/** Sends one batch of each table, each with rows of its own. @returns the rows by table. */
async function fill(spool: Spool, tables: readonly string[]): Promise<Map<string, string>> {
  const rows = new Map<string, string>();
  for (const table of tables) {
    const chunk = events(2, { table, type: table });
    const batch = openBatch(chunk);
    await spill(spool, batch, chunk);
    rows.set(table, new TextDecoder().decode(chunk.body));
  }
  return rows;
}

/** What the next process finds: every table's rows. */
async function recovered(files: FaultyFiles, dataDir = DATA): Promise<Map<string, string>> {
  const place = { files, dataDir, log: memoryLog() };
  const rows = new Map<string, string>();
  for await (const found of recover(place, await listSpool(place))) {
    if (found.kind === "journal" || found.kind === "memos") continue;
    assert.ok(found.kind === "batch" && found.segment !== null, JSON.stringify(found));
    const { table } = found.head;
    const bytes = await files.read(found.segment.path);
    for (const { start, end } of found.ranges) {
      const text = new TextDecoder().decode(bytes.subarray(start, end));
      rows.set(table, (rows.get(table) ?? "") + text);
    }
  }
  return rows;
}

const foldersIn = (files: FaultyFiles) =>
  [...new Set(files.paths().map((path) => /spool\/([^/]+)\//.exec(path)?.[1]))].filter(Boolean);

describe("where the disk does not tell upper from lower case", () => {
  test("each table's rows are its own again after a restart, and after the next", async () => {
    const { files, spool } = await spoolKit(diskOf(true));
    const first = await fill(spool, TABLES);
    await spool.close();
    assert.deepEqual(foldersIn(files).sort(), [
      "EVENTS.case-3f",
      "Events",
      "eventS.case-1",
      "events.case-0",
    ]);
    const next = files.crash("process");
    assert.deepEqual(await recovered(next), first);

    const again = await spoolKit(next);
    const second = await fill(again.spool, TABLES.toReversed());
    await again.spool.close();
    assert.equal(foldersIn(next).length, TABLES.length, "the same names as before");
    const both = new Map(TABLES.map((table) => [table, first.get(table)! + second.get(table)!]));
    const found = await recovered(next);
    const sorted = (rows: Map<string, string>) =>
      [...rows].map(([table, text]) => [table, text.split("\n").sort()]).sort();
    assert.deepEqual(sorted(found), sorted(both));
  });

  test("also when both come in the same round", async () => {
    const { files, spool } = await spoolKit(diskOf(true));
    await Promise.all(TABLES.map((table) => fill(spool, [table])));
    await spool.close();
    const found = await recovered(files);
    assert.deepEqual([...found.keys()].sort(), TABLES.toSorted());
    for (const [table, text] of found) {
      assert.equal(text.match(new RegExp(`"eventType":"${table}"`, "g"))?.length, 2);
    }
  });

  test("also when orphaned spools are taken over whose processes met them in another order", async () => {
    const files = diskOf(true);
    const log = memoryLog();
    const rows = new Map<string, string>();
    for (const [number, tables] of [["Events", "events"], ["events", "Events"]].entries()) {
      const place = { files, dataDir: folderBeside(DATA, number + 1), log };
      await openSpool(place);
      const spool = spoolIn(place);
      for (const [table, text] of await fill(spool, tables)) {
        rows.set(table, (rows.get(table) ?? "") + text);
      }
      await spool.close();
    }
    const hold = () => Promise.resolve({ release: () => Promise.resolve() });
    assert.equal((await takeOrphans({ files, dataDir: DATA, log }, hold)).ok, true);
    const found = await recovered(files);
    for (const table of ["Events", "events"]) {
      assert.deepEqual(found.get(table)?.split("\n").sort(), rows.get(table)?.split("\n").sort());
    }
  });

  test("each table's letters are its own, whichever are taken away", async () => {
    const files = diskOf(true);
    const letters = writerOf({ dataDir: DATA, files });
    const store = storeOf(DATA, files);
    let wrote = 0;
    const bury = async (table: string) => {
      const kept = await letters.write(batch(`b-${wrote++}`, table), deadRows(0), [table]);
      assert.equal(kept, DONE);
    };
    const rowsOf = async (table: string) => {
      const rows: string[] = [];
      await store.visit(table, (letter) => void rows.push(letter.row));
      return rows;
    };
    for (const table of TABLES) await bury(table);
    for (const table of TABLES) await bury(table);
    assert.deepEqual(await store.tables(), TABLES.toSorted());
    for (const table of TABLES) assert.deepEqual(await rowsOf(table), [table, table]);
    assert.ok(files.paths().includes(`${DATA}/dead/Events.ndjson`));

    const taken = (table: string) => setAside(DATA, { table, writer: letters, files });
    assert.equal((await taken("Events")).length, 1);
    // The plain name is free: it may be anybody's next.
    await bury("events");
    await bury("Events");
    assert.deepEqual(await rowsOf("Events"), ["Events", "Events", "Events"]);
    assert.deepEqual(await rowsOf("events"), ["events", "events", "events"]);
    for (const table of TABLES) {
      for (const name of await taken(table)) {
        const { lines } = await store.read(name);
        for (const { letter } of lines) assert.equal(letter?.table, table);
      }
    }
    assert.ok(files.paths().filter((path) => path.includes("/dead/")).every((p) => !isFresh(p)));
  });
});

test("where the disk tells them apart, names are the tables'", async () => {
  const { files, spool } = await spoolKit(diskOf(false));
  const rows = await fill(spool, TABLES);
  await spool.close();
  assert.deepEqual(foldersIn(files).sort(), TABLES.toSorted());
  assert.deepEqual(await recovered(files), rows);
  const letters = writerOf({ dataDir: DATA, files });
  for (const table of TABLES) await letters.write(batch("b", table), deadRows(0), ["{}"]);
  assert.deepEqual(
    files.paths().filter((path) => path.includes("/dead/")),
    TABLES.toSorted().map((table) => `${DATA}/dead/${table}.ndjson`),
  );
});

test("a second table's name is read back, stays within what a disk takes, and is no third one's", () => {
  for (const table of [...TABLES, "T1_x", "Z".repeat(127), "My-Events", "Ünï", "other.T"]) {
    const folder = nameAmong([`${swapped(fileNameOf(table))}/`], table, "/").slice(0, -1);
    assert.equal(tableOfFolder(folder), table);
    assert.equal(tableOfFolder(folder.toLowerCase()), table, "as some disks list it");
    assert.notEqual(fileNameOf(folder), folder, "no table has that for its own");
    const file = nameAmong([`${swapped(fileNameOf(table))}.ndjson`], table, ".ndjson");
    assert.equal(tableOfFile(file), table);
    assert.ok(isFresh(file) && file.length <= 255);
  }
  const all = TABLES.map((table) => nameAmong([`${swapped(table)}/`], table, "/").toLowerCase());
  assert.equal(new Set(all).size, TABLES.length);
  for (
    const name of [
      "t.bak",
      "t.case-",
      "t.case-xyz",
      ".case-0",
      "a b",
      "ä",
      "a%2",
      "a%20",
      "%61",
      "a%2fb",
    ]
  ) {
    assert.equal(tableOfFolder(name), null, name);
  }
});

/** The same letters, small for capital and capital for small. */
const swapped = (name: string) =>
  [...name].map((c) => c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase()).join("");
