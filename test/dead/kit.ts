/** What the tests of dead letters share: a folder, letters of made-up batches, a disk that can fail. */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Clock, DeadRow, Files, Log, LogFields, OpenFile } from "../../src/contracts.ts";
import type { Letter } from "../../src/dead/letter.ts";
import { LetterStore } from "../../src/dead/store.ts";
import { LetterWriter } from "../../src/dead/writer.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { copyToQuarantine, deadFolder } from "../../src/spool/data_dir.ts";

export interface Around {
  readonly dataDir: string;
  readonly files?: Files;
  readonly maxBytes?: number;
  readonly told?: { message: string; fields: LogFields }[];
  readonly alone?: Promise<unknown>;
  readonly clock?: Clock;
}

export function writerOf(
  {
    dataDir,
    files = nodeFiles,
    maxBytes = 2 ** 30,
    told = [],
    alone = Promise.resolve(),
    clock = systemClock,
  }: Around,
): LetterWriter {
  const tell = (message: string, fields: LogFields = {}) => void told.push({ message, fields });
  const log: Log = { debug: tell, info: tell, warn: tell, error: tell };
  return new LetterWriter({
    files,
    folder: deadFolder(dataDir),
    maxBytes: () => maxBytes,
    quarantine: (name, bytes) => copyToQuarantine({ files, dataDir, log }, name, bytes),
    alone,
    log,
    clock,
  });
}

export function storeOf(dataDir: string, files: Files = nodeFiles): LetterStore {
  return new LetterStore({ files, folder: deadFolder(dataDir), clock: systemClock });
}

/** As a replay or a purge begins. @returns the names of the files that may be changed now. */
export async function setAside(
  dataDir: string,
  { table = "t", writer = writerOf({ dataDir }), files = nodeFiles as Files } = {},
): Promise<readonly string[]> {
  const store = storeOf(dataDir, files);
  await writer.between(table, () => store.setAside(table));
  return await store.aside(table);
}

/** Ids of batches that differ; they need not be UUIDs here. */
export const batch = (id: string, table = "t", shape: "event" | "row" = "row") => ({
  id,
  table,
  shape,
});

export const deadRows = (...indexes: number[]): DeadRow[] =>
  indexes.map((index) => ({ index, code: 27, message: `bad ${index} (at row ${index + 1})` }));

/** Every letter of a table, once, as a reader sees it. */
export async function lettersOf(dataDir: string, table = "t"): Promise<Letter[]> {
  const letters: Letter[] = [];
  await storeOf(dataDir).visit(table, (letter) => void letters.push(letter));
  return letters;
}

/** `BATCH INDEX` of every letter, sorted. */
export async function idsOf(dataDir: string, table = "t"): Promise<string[]> {
  return (await lettersOf(dataDir, table)).map(({ batch, index }) => `${batch} ${index}`).sort();
}

/** Of all files in `dead/`. */
export function bytesIn(dataDir: string): number {
  return namesIn(dataDir).reduce(
    (sum, name) => sum + statSync(join(dataDir, "dead", name)).size,
    0,
  );
}

/** Names in `dead/`. */
export const namesIn = (dataDir: string): string[] => readdirSync(join(dataDir, "dead")).sort();

export const textOf = (dataDir: string, name = "t.ndjson"): string =>
  readFileSync(join(dataDir, "dead", name), "utf8");

/** Calls `before` with each operation's name and path; what it throws is the operation's error. */
export function watched(before: (operation: string, path: string) => void | Promise<void>): Files {
  const file = (open: OpenFile, path: string): OpenFile => ({
    get bytes() {
      return open.bytes;
    },
    async write(data) {
      try {
        await before("write", path);
      } catch (error) {
        // As a full disk does: a part of it is there.
        await open.write(data.subarray(0, Math.floor(data.length / 3)));
        throw error;
      }
      await open.write(data);
    },
    async sync() {
      await before("sync", path);
      await open.sync();
    },
    async truncate(bytes) {
      await before("truncate", path);
      await open.truncate(bytes);
    },
    close: () => open.close(),
  });
  return {
    ...nodeFiles,
    async makeFolder(path) {
      await before("makeFolder", path);
      await nodeFiles.makeFolder(path);
    },
    async create(path) {
      await before("create", path);
      return file(await nodeFiles.create(path), path);
    },
    async append(path) {
      await before("append", path);
      return file(await nodeFiles.append(path), path);
    },
    async list(folder) {
      await before("list", folder);
      return await nodeFiles.list(folder);
    },
    async read(path) {
      await before("read", path);
      return await nodeFiles.read(path);
    },
    async readPart(path, from, to) {
      await before("readPart", path);
      return await nodeFiles.readPart(path, from, to);
    },
    async rename(from, to) {
      await before("rename", from);
      await nodeFiles.rename(from, to);
    },
    async remove(path) {
      await before("remove", path);
      await nodeFiles.remove(path);
    },
    async syncFolder(path) {
      await before("syncFolder", path);
      await nodeFiles.syncFolder(path);
    },
  };
}

export const diskError = (code: string) => Object.assign(new Error(`${code}: no`), { code });
