/**
 * Dead letters as the commands see them: reading, taking them out of the collector's reach, deleting.
 * Works beside a running collector, which appends to `TABLE.ndjson` and touches no other file:
 * whatever changes a file first renames it to `TABLE.ID.ndjson` and waits until nobody can still be
 * writing to it (`letters.ts` tells how). Files are replaced by a rename, so a crash leaves the old
 * one or the new one. Methods reject with the system's error.
 */

import { Buffer } from "node:buffer";
import { join } from "node:path";
import { setImmediate } from "node:timers";
import type { Clock } from "../contracts.ts";
import type { Files } from "../spool/files.ts";
import { codeOf } from "../kernel/errors.ts";
import { deadFolder } from "../spool/data_dir.ts";
import {
  asideName,
  BURYING,
  isFresh,
  type Letter,
  LetterSet,
  readLetter,
  tableOfFile,
} from "./letter.ts";
import { journalName, type Replayed, replayedOf } from "./replayed.ts";
import { uuid7 } from "../kernel/names.ts";

/** One line of a file; `letter` is null for one that cannot be read. */
export interface LetterLine {
  /** With its line end, where it has one. */
  readonly bytes: Uint8Array;
  readonly letter: Letter | null;
}

export interface LetterFile {
  readonly name: string;
  readonly bytes: number;
  readonly lines: readonly LetterLine[];
  readonly replayed: Replayed;
}

/** What `visit` met besides the letters. */
export interface Visited {
  readonly bytes: number;
  /** Lines that cannot be read. */
  readonly damaged: number;
}

export interface Letterbox {
  /** Tables that have a file, sorted. */
  tables(): Promise<readonly string[]>;
  /** Every letter of a table once, about oldest first; those that a replay has stored are left out. */
  visit(table: string, each: (letter: Letter) => void): Promise<Visited>;
  /**
   * Takes a table's letters out of the collector's reach.
   * @returns the names of their files, oldest first, or why that cannot be done at the moment.
   */
  take(table: string): Promise<readonly string[] | { readonly problem: string }>;
  /** A taken file. */
  read(name: string): Promise<LetterFile>;
  /**
   * Leaves only the lines for which `keep` says so; without any the file goes.
   * @param replayed whether its journal stays: needed while it speaks of letters that stay.
   */
  reduce(
    file: LetterFile,
    keep: (line: LetterLine) => boolean,
    replayed?: "journal stays",
  ): Promise<void>;
}

/** Appending some thousand letters takes a fraction of this. */
const BURYING_MS = 10_000;
const LOOK_AGAIN_MS = 20;
/** Of a file, looked at in one go. */
const AT_ONCE_BYTES = 1024 * 1024;
const NEWLINE = 0x0a;

export function createLetterbox(
  tools: { readonly files: Files; readonly dataDir: string; readonly clock: Clock },
): Letterbox {
  const { files, clock } = tools;
  const folder = deadFolder(tools.dataDir);

  async function names(): Promise<readonly string[]> {
    return await files.list(folder).catch((error) => nothingThere(error, []));
  }

  /** Aside first: the fresh file holds the newest letters. */
  async function filesOf(table: string): Promise<string[]> {
    const all = (await names()).filter((name) => tableOfFile(name) === table);
    return [...all.filter((name) => !isFresh(name)), ...all.filter(isFresh)];
  }

  async function read(name: string): Promise<LetterFile> {
    const bytes = await files.read(join(folder, name));
    const journal = await files.read(join(folder, journalName(name)))
      .catch((error) => nothingThere(error, new Uint8Array(0)));
    return {
      name,
      bytes: bytes.length,
      lines: await linesOf(bytes),
      replayed: replayedOf(new TextDecoder().decode(journal)),
    };
  }

  async function visit(table: string, each: (letter: Letter) => void): Promise<Visited> {
    const seen = new LetterSet();
    let bytes = 0;
    let damaged = 0;
    for (const name of await filesOf(table)) {
      // A file that is gone by now was replayed or purged, or has another name.
      const file = await read(name).catch((error) => nothingThere(error, null));
      bytes += file?.bytes ?? 0;
      for (const { letter, bytes } of file?.lines ?? []) {
        if (letter === null) {
          // The end of the fresh file may be a letter that is being written.
          if (!isFresh(name) || bytes.at(-1) === NEWLINE) damaged++;
        } else if (!file!.replayed.done.has(letter) && seen.add(letter)) each(letter);
      }
    }
    return { bytes, damaged };
  }

  async function take(table: string): Promise<readonly string[] | { problem: string }> {
    const all = await filesOf(table);
    if (all.length === 0) return [];
    for (const fresh of all.filter(isFresh)) {
      const aside = asideName(fresh, uuid7(clock.nowMs()));
      // Between the list and the rename the collector may have set it aside itself.
      await files.rename(join(folder, fresh), join(folder, aside))
        .catch((error) => nothingThere(error, null));
      await files.syncFolder(folder);
    }
    const stuck = await writersGone();
    if (stuck !== null) {
      return {
        problem:
          `letters are being written for more than ${BURYING_MS / 1000} s; if no collector ` +
          `runs with this data-dir, delete ${join(folder, stuck)}`,
      };
    }
    return (await filesOf(table)).filter((name) => !isFresh(name));
  }

  /** Waits for those who write at this moment; later ones open another file. Answers who stays. */
  async function writersGone(): Promise<string | null> {
    const marks = new Set((await names()).filter((name) => name.startsWith(BURYING)));
    const untilMs = clock.monotonicMs() + BURYING_MS;
    while (marks.size > 0) {
      const present = new Set(await names());
      for (const mark of marks) if (!present.has(mark)) marks.delete(mark);
      if (marks.size > 0 && clock.monotonicMs() >= untilMs) return [...marks][0]!;
      if (marks.size > 0) {
        await new Promise<void>((resolve) => void clock.after(LOOK_AGAIN_MS, resolve));
      }
    }
    return null;
  }

  async function reduce(
    file: LetterFile,
    keep: (line: LetterLine) => boolean,
    replayed?: "journal stays",
  ): Promise<void> {
    const path = join(folder, file.name);
    const kept = file.lines.filter(keep);
    if (kept.length === 0) {
      await files.remove(path);
    } else if (kept.length < file.lines.length) {
      await replace(path, kept);
    }
    await files.syncFolder(folder);
    if (replayed === "journal stays" && kept.length > 0) return;
    // Last: without it the letters that it calls done would be back.
    await files.remove(join(folder, journalName(file.name)))
      .catch((error) => nothingThere(error, null));
  }

  async function replace(path: string, lines: readonly LetterLine[]): Promise<void> {
    const temporary = `${path}.tmp`;
    await files.remove(temporary).catch((error) => nothingThere(error, null));
    const file = await files.create(temporary);
    try {
      for (const slice of joined(lines)) await file.write(slice);
      await file.sync();
    } finally {
      await file.close();
    }
    await files.rename(temporary, path);
  }

  return {
    async tables() {
      const found = (await names()).map(tableOfFile).filter((table) => table !== null);
      return [...new Set(found)].sort();
    },
    visit,
    take,
    read,
    reduce,
  };
}

/**
 * Cuts bytes into lines; the last one may lack its end. Empty lines are none. Others have their turn
 * meanwhile: a collector that replays goes on taking events.
 */
async function linesOf(bytes: Uint8Array): Promise<LetterLine[]> {
  const decoder = new TextDecoder();
  const lines: LetterLine[] = [];
  for (let from = 0, pause = AT_ONCE_BYTES; from < bytes.length;) {
    if (from >= pause) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      pause = from + AT_ONCE_BYTES;
    }
    const at = bytes.indexOf(NEWLINE, from);
    const end = at < 0 ? bytes.length : at + 1;
    const line = bytes.subarray(from, end);
    if (end - from > 1 || at < 0) {
      lines.push({ bytes: line, letter: readLetter(decoder.decode(line)) });
    }
    from = end;
  }
  return lines;
}

/** In pieces of a mebibyte or so; each line with an end of its own. */
function* joined(lines: readonly LetterLine[]): Generator<Uint8Array> {
  let pieces: Uint8Array[] = [];
  let bytes = 0;
  for (const line of lines) {
    pieces.push(line.bytes);
    if (line.bytes.at(-1) !== NEWLINE) pieces.push(Uint8Array.of(NEWLINE));
    bytes += line.bytes.length;
    if (bytes < 1024 * 1024) continue;
    yield Buffer.concat(pieces);
    pieces = [];
    bytes = 0;
  }
  if (pieces.length > 0) yield Buffer.concat(pieces);
}

/** A file or folder that is not there is no error, only nothing. */
function nothingThere<T>(error: unknown, nothing: T): T {
  if (codeOf(error) === "ENOENT") return nothing;
  throw error;
}
