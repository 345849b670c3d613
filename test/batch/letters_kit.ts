/** What the tests of dead letters share: a folder, letters of made-up batches, a disk that can fail. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { DeadRow, Log, LogFields } from "../../src/contracts.ts";
import type { Files, OpenFile } from "../../src/contracts.ts";
import type { Letter } from "../../src/dead/letter.ts";
import { createLetterbox } from "../../src/dead/letterbox.ts";
import { createLetters } from "../../src/dead/letters.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { nodeFiles } from "../../src/runtime/files.ts";

export interface Around {
  readonly dataDir: string;
  readonly files?: Files;
  readonly maxBytes?: number;
  readonly told?: { message: string; fields: LogFields }[];
}

export function lettersIn({ dataDir, files = nodeFiles, maxBytes = 2 ** 30, told = [] }: Around) {
  const tell = (message: string, fields: LogFields = {}) => void told.push({ message, fields });
  const log: Log = { debug: tell, info: tell, warn: tell, error: tell };
  return createLetters({ files, dataDir, maxBytes: () => maxBytes, log, clock: systemClock });
}

export function boxOf(dataDir: string, files: Files = nodeFiles) {
  return createLetterbox({ files, dataDir, clock: systemClock });
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
  await boxOf(dataDir).visit(table, (letter) => void letters.push(letter));
  return letters;
}

/** `BATCH INDEX` of every letter, sorted. */
export async function idsOf(dataDir: string, table = "t"): Promise<string[]> {
  return (await lettersOf(dataDir, table)).map(({ batch, index }) => `${batch} ${index}`).sort();
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
