/**
 * The one writer of dead letters: `TABLE.ndjson` in the folder of the letters. Promises: what `write`
 * calls done is synced; what it does not call done is still the caller's, whatever happened on disk;
 * nothing is ever dropped to make room. Where the letters are full, batches with bad rows wait on disk
 * until a replay or a purge has made room.
 *
 * Only this file of a table is written to, and only here. A replay or a purge, which changes files, has
 * it renamed to `TABLE.ID.ndjson` first, between two writes (`between`): from then on nothing is
 * appended to it.
 */

import { basename, dirname, join } from "node:path";
import type {
  Batch,
  Clock,
  DeadLetterWriter,
  DeadRow,
  Files,
  Log,
  OpenFile,
  SourceLetter,
  SourceLetterWriter,
} from "../contracts.ts";
import { nothingThere, reasonOf } from "../kernel/errors.ts";
import { isTableName, uuid7 } from "../kernel/names.ts";
import { DONE, failed, type Result } from "../kernel/result.ts";
import { InTurn } from "../kernel/time.ts";
import {
  asideName,
  freshName,
  isFresh,
  type Letter,
  readLetter,
  tableOfFile,
  writeLetter,
} from "./letter.ts";

export interface WriterOptions {
  readonly files: Files;
  /** Of the letters, all tables together. */
  readonly folder: string;
  /** Of all tables together; exceeded by one batch at most. */
  readonly maxBytes: () => number;
  /** Copies what a crash left of a letter to where it is kept; answers the path. */
  readonly quarantine: (name: string, bytes: Uint8Array) => Promise<string>;
  /** Resolves when no other collector writes here any more. */
  readonly alone: Promise<unknown>;
  readonly log: Log;
  readonly clock: Clock;
}

type Dying = Parameters<DeadLetterWriter["write"]>;

/** A file that has grown beyond this is set aside, so that no reader needs much memory. */
export const ASIDE_BYTES = 32 * 1024 * 1024;
/** Written at once. */
const SLICE_LENGTH = 256 * 1024;
/** Longer messages of ClickHouse are cut. */
const LONGEST_ERROR = 4000;
/** Letters of one batch that the log names one by one, and how much of each. */
const TOLD = 10;
const TOLD_LENGTH = 200;
const NEWLINE = 0x0a;

export class LetterWriter implements DeadLetterWriter, SourceLetterWriter {
  readonly #options: WriterOptions;
  readonly #encoder = new TextEncoder();
  /** Two writes of one file at once would not know whose bytes to take back. */
  readonly #turns = new InTurn();
  /** The files of tables, known to be there and to end with a whole line. */
  readonly #paths = new Map<string, string>();
  #usedBytes: number | null = null;
  #folderReady = false;
  /** Names may not survive a power cut yet: a file was created, perhaps by a process that was killed then. */
  #namesUnsynced = true;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  async write(...dying: Dying): Promise<Result> {
    const [batch, dead, rows] = dying;
    if (dead.length === 0) return DONE;
    const written = await this.#write(batch.table, () => this.#lettersOf(...dying));
    if (written.ok) this.#tell(batch, dead, rows);
    return written;
  }

  async keep(letters: readonly SourceLetter[]): Promise<Result> {
    const byTable = Map.groupBy(letters, ({ table }) => table);
    for (const [table, those] of byTable) {
      const time = new Date(this.#options.clock.nowMs()).toISOString();
      const written = await this.#write(
        table,
        () =>
          those.map((letter) => ({
            ...letter,
            time,
            code: 0,
            error: cut(letter.error, LONGEST_ERROR),
          })),
      );
      if (!written.ok) return written;
      this.#tellOfSource(those);
    }
    return DONE;
  }

  #write(table: string, letters: () => Iterable<Letter>): Promise<Result> {
    if (!isTableName(table)) {
      return Promise.resolve(failed(`no dead letter can be kept for a table named ${table}`));
    }
    return this.#turns.run(async () => {
      try {
        await this.#options.alone;
        await this.#makeFolder();
        const problem = await this.#fullness();
        if (problem !== null) return failed(problem);
        await this.#append(table, letters());
      } catch (error) {
        this.#folderReady = false;
        this.#paths.clear();
        return failed(`dead letters cannot be written: ${reasonOf(error)}`);
      }
      return DONE;
    });
  }

  /** Does something with the file of a table while no letter is written; it may be gone afterwards. */
  between<T>(table: string, work: () => Promise<T>): Promise<T> {
    return this.#turns.run(async () => {
      if (!this.#paths.delete(table)) await this.#repairLeft(table);
      return await work();
    });
  }

  /** Resolves when nothing is being written. */
  async idle(): Promise<void> {
    await this.#turns.run(() => Promise.resolve());
  }

  async #makeFolder(): Promise<void> {
    if (this.#folderReady) return;
    const { files, folder } = this.#options;
    await files.makeFolder(folder);
    await files.syncFolder(dirname(folder));
    this.#folderReady = true;
  }

  /** Why nothing may be added, or null. Letters that are gone since they were measured count no more. */
  async #fullness(): Promise<string | null> {
    const maxBytes = this.#options.maxBytes();
    if (this.#usedBytes === null || this.#usedBytes >= maxBytes) {
      this.#usedBytes = await this.#measure();
    }
    return this.#usedBytes < maxBytes ? null : (
      `dead letters are full: ${this.#usedBytes} bytes, dead-max-bytes is ${maxBytes}; ` +
      "shishi dead replay, or shishi dead purge, makes room"
    );
  }

  async #measure(): Promise<number> {
    const { files, folder } = this.#options;
    let bytes = 0;
    for (const name of await files.list(folder)) {
      if (tableOfFile(name) === null) continue;
      // One that was deleted since it was listed takes no room.
      const { size } = await files.readPart(join(folder, name), 0, 0).catch(() => ({ size: 0 }));
      bytes += size;
    }
    return bytes;
  }

  async #append(table: string, letters: Iterable<Letter>): Promise<void> {
    const { files, folder } = this.#options;
    const path = this.#paths.get(table) ?? await this.#prepare(table);
    const file = await files.append(path);
    try {
      const before = file.bytes;
      if (before === 0) this.#namesUnsynced = true;
      try {
        for (const slice of slicesOf(letters)) await file.write(this.#encoder.encode(slice));
        await file.sync();
        if (this.#namesUnsynced) await files.syncFolder(folder);
        this.#namesUnsynced = false;
      } catch (error) {
        await this.#takeBack(file, before);
        throw error;
      }
      this.#usedBytes = (this.#usedBytes ?? 0) + file.bytes - before;
    } finally {
      await file.close().catch(() => {});
    }
    if (file.bytes >= ASIDE_BYTES) await this.#setAside(table, path);
  }

  /** The file of a table, made where it is missing and repaired where it is torn. */
  async #prepare(table: string): Promise<string> {
    const { files, folder } = this.#options;
    await (await files.append(join(folder, freshName(table)))).close();
    // On a disk that is blind to case the plain name may be another table's.
    const path = join(folder, freshName(table, await files.list(folder)));
    await this.#repair(table, path);
    this.#paths.set(table, path);
    return path;
  }

  /** What an earlier process left, before its file is read: nothing is appended to it any more. */
  async #repairLeft(table: string): Promise<void> {
    const { files, folder } = this.#options;
    const names = await files.list(folder).catch((error) => nothingThere(error, []));
    for (const name of names) {
      if (!isFresh(name) || tableOfFile(name) !== table) continue;
      await this.#repair(table, join(folder, name), "a whole letter stays");
    }
  }

  /** What a crash left of a letter goes to quarantine; its batch is still there and writes it again. */
  async #repair(table: string, path: string, tail?: "a whole letter stays"): Promise<void> {
    const { files, log, clock, quarantine } = this.#options;
    const bytes = await files.read(path).catch((error) => nothingThere(error, new Uint8Array(0)));
    const end = bytes.lastIndexOf(NEWLINE) + 1;
    if (end === bytes.length) return;
    // Where a person has edited the file, it may lack its last line end alone.
    const last = new TextDecoder().decode(bytes.subarray(end));
    if (tail !== undefined && readLetter(last) !== null) return;
    const name = `dead-${asideName(basename(path), uuid7(clock.nowMs()))}`;
    const kept = await quarantine(name, bytes.subarray(end));
    const file = await files.append(path);
    try {
      await file.truncate(end);
      await file.sync();
    } finally {
      await file.close();
    }
    log.warn("a torn dead letter was set aside", { table, bytes: bytes.length - end, file: kept });
  }

  /** Half a line must not be joined by the next one, and what a failed sync left behind counts as lost. */
  async #takeBack(file: OpenFile, bytes: number): Promise<void> {
    try {
      await file.truncate(bytes);
    } catch {
      // The next write looks at the file's end.
    }
  }

  async #setAside(table: string, path: string): Promise<void> {
    const { files, folder, log, clock } = this.#options;
    this.#paths.delete(table);
    try {
      await files.rename(path, join(folder, asideName(basename(path), uuid7(clock.nowMs()))));
    } catch (error) {
      log.warn("a full file of dead letters stays in use", { table, error: reasonOf(error) });
    }
  }

  *#lettersOf(...[batch, dead, rows]: Dying): Generator<Letter> {
    const time = new Date(this.#options.clock.nowMs()).toISOString();
    const { table, shape, id } = batch;
    for (const [at, { index, code, message }] of dead.entries()) {
      const error = cut(message, LONGEST_ERROR);
      yield { time, table, shape, batch: id, index, code, error, row: rows[at] ?? "" };
    }
  }

  /** The log gets the first rows of a batch, shortened; the letters themselves are whole. */
  #tell(
    { id, table }: Pick<Batch, "id" | "table">,
    dead: readonly DeadRow[],
    rows: readonly string[],
  ) {
    const { log } = this.#options;
    for (const [at, { code, message }] of dead.slice(0, TOLD).entries()) {
      const [error, row] = [message, rows[at] ?? ""].map((text) => cut(text, TOLD_LENGTH));
      log.warn("row refused by ClickHouse", { table, batch: id, code, error, row });
    }
    if (dead.length > TOLD) {
      log.warn("more rows refused by ClickHouse", { table, batch: id, rows: dead.length - TOLD });
    }
  }

  #tellOfSource(letters: readonly SourceLetter[]): void {
    const { log } = this.#options;
    for (const { table, source, address, error, row } of letters.slice(0, TOLD)) {
      const [what, shown] = [error, row].map((text) => cut(text, TOLD_LENGTH));
      log.warn("a message is no row", { table, source, address, error: what, row: shown });
    }
    if (letters.length > TOLD) {
      const { table, source } = letters[0]!;
      log.warn("more messages are no rows", { table, source, messages: letters.length - TOLD });
    }
  }
}

function* slicesOf(letters: Iterable<Letter>): Generator<string> {
  let slice = "";
  for (const letter of letters) {
    slice += writeLetter(letter);
    if (slice.length < SLICE_LENGTH) continue;
    yield slice;
    slice = "";
  }
  if (slice !== "") yield slice;
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length).toWellFormed()}…`;
}
