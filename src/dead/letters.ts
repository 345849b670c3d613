/**
 * Writes dead letters: `dead/TABLE.ndjson` in the data-dir. Promises: what `bury` calls kept is
 * synced; what it does not call kept is still the caller's, whatever happened on disk; nothing is
 * ever dropped to make room. Where the letters are full, batches with bad rows wait on disk until
 * somebody has replayed or purged some.
 *
 * `shishi dead` works on the same folder while the collector runs, without a lock that could hold up
 * a batch. It renames the file away and reads it afterwards; so that no line is written behind its
 * back, a mark stands in the folder from before the file is opened until it is closed, and the other
 * side waits until every mark that it met after the rename is gone.
 */

import { basename, dirname, join } from "node:path";
import type { Batch, Clock, DeadRow, Log } from "../contracts.ts";
import { warnOfDead } from "./dead.ts";
import type { Files, OpenFile } from "../spool/files.ts";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { isTableName } from "../kernel/names.ts";
import { deadFolder } from "../spool/data_dir.ts";
import { asideName, BURYING, freshName, tableOfFile, writeLetter } from "./letter.ts";
import { copyToQuarantine } from "../spool/data_dir.ts";
import { uuid7 } from "../kernel/names.ts";

export interface LettersOptions {
  readonly files: Files;
  readonly dataDir: string;
  /** Of all tables together; exceeded by one batch at most. */
  readonly maxBytes: () => number;
  readonly log: Log;
  readonly clock: Clock;
}

/** `problem`: the letters may be there in part or not at all; keep the batch and try again later. */
export type Buried = "kept" | { readonly problem: string };

export interface Letters {
  /**
   * Keeps the bad rows of a batch; one call at a time writes, the others wait. Never rejects.
   * @param rows the rows themselves, in the order of `dead`.
   */
  bury(
    batch: Pick<Batch, "id" | "table" | "shape">,
    dead: readonly DeadRow[],
    rows: readonly string[],
  ): Promise<Buried>;
  /** On disk, all tables; as of `open` or the last letter written. */
  bytes(): number;
  /**
   * Clears up after a crash and measures what is there. Only for the one that holds the lock of the
   * data-dir. Never rejects: what fails here is tried again by `bury`.
   */
  open(): Promise<void>;
}

/** A file that has grown beyond this is set aside, so that no reader needs much memory. */
export const ASIDE_BYTES = 32 * 1024 * 1024;
/** Written at once. */
const SLICE_LENGTH = 256 * 1024;
/** Longer messages of ClickHouse are cut. */
const LONGEST_ERROR = 4000;
const NEWLINE = 0x0a;

export function createLetters(options: LettersOptions): Letters {
  const { files, maxBytes, log, clock } = options;
  const folder = deadFolder(options.dataDir);
  const encoder = new TextEncoder();
  /** Files that are known to end with a whole line. */
  const whole = new Set<string>();
  let usedBytes = 0;
  let folderReady = false;
  /** Names may not survive a power cut yet: a file was created, perhaps by a process that was killed then. */
  let namesUnsynced = true;
  let last: Promise<unknown> = Promise.resolve();

  /** One after the other: two writers of one file would not know whose bytes to take back. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work);
    last = turn.catch(() => {});
    return turn;
  }

  async function makeFolder(): Promise<void> {
    if (folderReady) return;
    await files.makeFolder(folder);
    await files.syncFolder(dirname(folder));
    folderReady = true;
  }

  async function measure(): Promise<void> {
    let bytes = 0;
    for (const name of await files.list(folder)) {
      if (tableOfFile(name) !== null) bytes += await sizeOf(join(folder, name)).catch(() => 0);
    }
    usedBytes = bytes;
  }

  /** A file that was taken away since it was listed comes back empty by being asked: it goes again. */
  async function sizeOf(path: string): Promise<number> {
    const file = await files.append(path);
    await file.close();
    if (file.bytes === 0) await files.remove(path);
    return file.bytes;
  }

  async function open(): Promise<void> {
    try {
      await makeFolder();
      for (const name of await files.list(folder)) {
        if (name.startsWith(BURYING)) await files.remove(join(folder, name));
      }
      await measure();
    } catch (error) {
      log.warn("dead letters cannot be looked at", { error: reasonOf(error) });
    }
  }

  async function bury(...[batch, dead, rows]: Parameters<Letters["bury"]>): Promise<Buried> {
    if (!isTableName(batch.table)) {
      return { problem: `no dead letter can be kept for a table named ${batch.table}` };
    }
    try {
      await makeFolder();
      if (usedBytes >= maxBytes()) {
        await measure();
        if (usedBytes >= maxBytes()) return { problem: full(usedBytes, maxBytes()) };
      }
      const mark = join(folder, BURYING + crypto.randomUUID());
      await (await files.create(mark)).close();
      try {
        await append(batch, dead, rows);
      } finally {
        await unmark(mark);
      }
    } catch (error) {
      folderReady = false;
      return { problem: `dead letters cannot be written: ${reasonOf(error)}` };
    }
    warnOfDead(log, batch, dead, rows);
    return "kept";
  }

  /** A mark that stays holds up `shishi dead` until the next start, and nothing else. */
  async function unmark(mark: string): Promise<void> {
    try {
      await files.remove(mark);
    } catch (error) {
      log.warn("a mark beside the dead letters stays", { file: mark, error: reasonOf(error) });
    }
  }

  async function append(...[batch, dead, rows]: Parameters<Letters["bury"]>): Promise<void> {
    const { table } = batch;
    const path = await freshPath(table);
    if (!whole.has(path)) await mend(table, path);
    const file = await files.append(path);
    try {
      const before = file.bytes;
      if (before === 0) namesUnsynced = true;
      try {
        for (const slice of slices(batch, dead, rows)) await file.write(encoder.encode(slice));
        await file.sync();
        if (namesUnsynced) await files.syncFolder(folder);
        namesUnsynced = false;
      } catch (error) {
        await takeBack(file, before, path);
        throw error;
      }
      usedBytes += file.bytes - before;
    } finally {
      await file.close().catch(() => {});
    }
    if (file.bytes >= ASIDE_BYTES) await setAside(table, path);
  }

  /** Looked up each time: what was there may have been taken away, and another table's may be there. */
  async function freshPath(table: string): Promise<string> {
    await (await files.append(join(folder, freshName(table)))).close();
    return join(folder, freshName(table, await files.list(folder)));
  }

  /** Half a line must not be joined by the next one, and what a failed sync left behind counts as lost. */
  async function takeBack(file: OpenFile, bytes: number, path: string): Promise<void> {
    try {
      await file.truncate(bytes);
    } catch {
      whole.delete(path);
    }
  }

  /** What a crash left of a letter goes to quarantine; its batch is still there and writes it again. */
  async function mend(table: string, path: string): Promise<void> {
    const bytes = await files.read(path).catch((error) => {
      if (codeOf(error) === "ENOENT") return new Uint8Array(0);
      throw error;
    });
    const end = bytes.lastIndexOf(NEWLINE) + 1;
    if (end < bytes.length) {
      const name = `dead-${asideName(basename(path), uuid7(clock.nowMs()))}`;
      const torn = await copyToQuarantine(options, name, bytes.subarray(end));
      const file = await files.append(path);
      try {
        // Otherwise it was taken away meanwhile, and this is another file.
        if (file.bytes === bytes.length) await file.truncate(end);
        await file.sync();
      } finally {
        await file.close();
      }
      log.warn("a torn dead letter was set aside", {
        table,
        bytes: bytes.length - end,
        file: torn,
      });
    }
    whole.add(path);
  }

  async function setAside(table: string, path: string): Promise<void> {
    try {
      await files.rename(path, join(folder, asideName(basename(path), uuid7(clock.nowMs()))));
    } catch (error) {
      log.warn("a full file of dead letters stays in use", { table, error: reasonOf(error) });
    }
  }

  function* slices(...[batch, dead, rows]: Parameters<Letters["bury"]>): Generator<string> {
    const time = new Date(clock.nowMs()).toISOString();
    const { table, shape, id } = batch;
    let slice = "";
    for (const [at, { index, code, message }] of dead.entries()) {
      const error = message.length > LONGEST_ERROR
        ? `${message.slice(0, LONGEST_ERROR).toWellFormed()}…`
        : message;
      const row = rows[at] ?? "";
      slice += writeLetter({ time, table, shape, batch: id, index, code, error, row });
      if (slice.length < SLICE_LENGTH) continue;
      yield slice;
      slice = "";
    }
    if (slice !== "") yield slice;
  }

  return {
    open: () => inTurn(open),
    bytes: () => usedBytes,
    bury: (batch, dead, rows) =>
      dead.length === 0 ? Promise.resolve("kept") : inTurn(() => bury(batch, dead, rows)),
  };
}

function full(usedBytes: number, maxBytes: number): string {
  return `dead letters are full: ${usedBytes} bytes, dead-max-bytes is ${maxBytes}; ` +
    "shishi dead replay, or shishi dead purge, makes room";
}
