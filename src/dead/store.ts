/**
 * Dead letters on disk, read and reduced: `TABLE.ndjson`, which the writer appends to; `TABLE.ID.ndjson`,
 * which it is done with; and beside a file the journal of its replays, `….replay`. Reading disturbs
 * nothing and needs no lock. Files are replaced by a rename, so a crash leaves the old one or the new
 * one; only files that the writer is done with may be. Methods reject with the system's error.
 */

import { Buffer } from "node:buffer";
import { statSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers";
import type {
  Clock,
  DeadLetter,
  DeadLetters,
  DeadTable,
  Files,
  LetterFilter,
  Purged,
} from "../contracts.ts";
import { nothingThere } from "../kernel/errors.ts";
import { uuid7 } from "../kernel/names.ts";
import {
  asideName,
  isFresh,
  journalName,
  type Letter,
  letterId,
  LetterSet,
  readLetter,
  shownLetter,
  tableOfFile,
} from "./letter.ts";

/** One line of a file; `letter` is null for one that cannot be read. */
export interface LetterLine {
  /** With its line end, where it has one. */
  readonly bytes: Uint8Array;
  readonly letter: Letter | null;
}

/** A file, read whole. */
export interface LetterFile {
  readonly name: string;
  readonly bytes: number;
  readonly lines: readonly LetterLine[];
  readonly replayed: Replayed;
}

/** What replays have done with the letters of a file, while these are in it still. */
export interface Replayed {
  /** Stored, or letters again in another file. */
  readonly done: LetterSet;
  readonly open: readonly Sent[];
}

/** Letters that were sent together and whose fate is not known. */
export interface Sent {
  readonly id: string;
  /** In the order of sending. */
  readonly places: readonly (readonly [batch: string, index: number])[];
}

export type Wanted = Omit<LetterFilter, "ids">;
type Newest = Awaited<ReturnType<DeadLetters["newest"]>>;

/** Of a file, parsed in one go. */
const AT_ONCE_BYTES = 1024 * 1024;
/** Read from the end of a file at once, at first; more where a line is longer. */
const BLOCK_BYTES = 64 * 1024;
/** Read for one list at most, all files together: what lies deeper is counted and not shown. */
const MOST_BYTES = 16 * 1024 * 1024;
const COUNT_BYTES = 256 * 1024;
/** A journal is small, unless a replay of a great many letters was broken off. */
const MOST_JOURNAL_BYTES = 2 * 1024 * 1024;
const NEWLINE = 0x0a;
const NOTHING = new Uint8Array(0);

/** Line ends in the first `size` bytes of a file. */
interface Count {
  readonly identity: number;
  readonly size: number;
  readonly lines: number;
}

export class LetterStore {
  readonly #files: Files;
  readonly #folder: string;
  readonly #clock: Clock;
  /** Each stretch of a file is counted once: a file that has grown is counted on. */
  #counts = new Map<string, Count>();

  constructor({ files, folder, clock }: {
    readonly files: Files;
    readonly folder: string;
    readonly clock: Clock;
  }) {
    this.#files = files;
    this.#folder = folder;
    this.#clock = clock;
  }

  /** Tables that have a file, sorted. */
  async tables(): Promise<readonly string[]> {
    const found = (await this.#names()).map(tableOfFile).filter((table) => table !== null);
    return [...new Set(found)].sort();
  }

  /** Every letter of a table once, about oldest first; those that a replay has stored are left out. */
  async visit(table: string, each: (letter: Letter) => void) {
    const seen = new LetterSet();
    let bytes = 0;
    let damaged = 0;
    for (const name of filesOf(table, await this.#names())) {
      // A file that is gone by now was replayed or purged, or has another name.
      const file = await this.read(name).catch((error) => nothingThere(error, null));
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

  /** What is wanted, counted by table. */
  async summaries(wanted: Wanted): Promise<readonly DeadTable[]> {
    const summaries: DeadTable[] = [];
    for (const table of await this.tables()) {
      if (wanted.table !== null && table !== wanted.table) continue;
      const summary = await this.#summaryOf(table, wanted);
      if (summary.letters + summary.damaged > 0) summaries.push(summary);
    }
    return summaries;
  }

  async #summaryOf(table: string, wanted: Wanted): Promise<DeadTable> {
    let letters = 0;
    let oldest: string | null = null;
    let newest: string | null = null;
    const codes = new Map<number, number>();
    const { bytes, damaged } = await this.visit(table, (letter) => {
      if (!matches(letter, wanted)) return;
      const { time, code } = letter;
      letters++;
      if (oldest === null || time < oldest) oldest = time;
      if (newest === null || time > newest) newest = time;
      codes.set(code, (codes.get(code) ?? 0) + 1);
    });
    const frequent = [...codes].sort(([a, m], [b, n]) => n - m || a - b);
    return {
      table,
      letters,
      bytes,
      oldest,
      newest,
      codes: frequent.map(([code, letters]) => ({ code, letters })),
      damaged,
    };
  }

  /** The newest letters, the beginnings of their rows, and how many letters there are. */
  async newest(wanted: string | null, limit: number): Promise<Newest> {
    const letters: DeadLetter[] = [];
    for await (const letter of this.newestFirst({ table: wanted }, MOST_BYTES)) {
      letters.push(shownLetter(letter));
      if (letters.length >= limit) break;
    }
    return { letters, total: await this.#total(wanted) };
  }

  async letter(table: string | null, id: string): Promise<DeadLetter | null> {
    for await (const letter of this.newestFirst({ table })) {
      if (letterId(letter) === id) return shownLetter(letter, true);
    }
    return null;
  }

  /**
   * Each letter once, from the ends of the files, however large these are; of several tables the newest
   * is next. A file that is taken away meanwhile counts as empty.
   * @param mostBytes what is read of the disk at most.
   */
  async *newestFirst(
    { table, code = null }: { readonly table: string | null; readonly code?: number | null },
    mostBytes = Infinity,
  ): AsyncGenerator<Letter> {
    const budget = { bytes: mostBytes };
    const queues: { next: Letter; rest: AsyncGenerator<Letter> }[] = [];
    for (const name of await this.tables()) {
      if (table !== null && name !== table) continue;
      const rest = this.#newestOf(name, budget);
      const { value, done } = await rest.next();
      if (!done) queues.push({ next: value, rest });
    }
    while (queues.length > 0) {
      const first = queues.reduce((a, b) => b.next.time > a.next.time ? b : a);
      if (code === null || first.next.code === code) yield first.next;
      const { value, done } = await first.rest.next();
      if (done) queues.splice(queues.indexOf(first), 1);
      else first.next = value;
    }
  }

  async *#newestOf(table: string, budget: { bytes: number }): AsyncGenerator<Letter> {
    const seen = new LetterSet();
    const names = await this.#names();
    for (const name of filesOf(table, names).toReversed()) {
      const { done } = await this.#replayed(name, names);
      for await (const line of this.#linesBackwards(name, budget)) {
        const letter = readLetter(line);
        if (letter !== null && !done.has(letter) && seen.add(letter)) yield letter;
      }
    }
  }

  async *#linesBackwards(name: string, budget: { bytes: number }): AsyncGenerator<string> {
    const decoder = new TextDecoder();
    const { size, identity } = await this.#part(name, 0, 0);
    let block = BLOCK_BYTES;
    /** Of the line whose beginning is not found yet. */
    let rest: Uint8Array = NOTHING;
    for (let end = size; end > 0;) {
      if (budget.bytes <= 0) return;
      const from = Math.max(0, end - Math.min(block, budget.bytes));
      const part = await this.#part(name, from, end);
      if (part.bytes.length < end - from || part.identity !== identity) return;
      budget.bytes -= part.bytes.length;
      end = from;
      const piece = Buffer.concat([part.bytes, rest]);
      let to = piece.length;
      for (let at = to; at > 0;) {
        const before = piece.lastIndexOf(NEWLINE, at - 1);
        if (before < 0) break;
        if (before + 1 < to) yield decoder.decode(piece.subarray(before + 1, to));
        to = at = before;
      }
      rest = piece.subarray(0, to);
      block = rest.length >= block ? block * 2 : block;
    }
    if (rest.length > 0) yield decoder.decode(rest);
  }

  /** How many letters there are, by the line ends of the files. */
  async #total(wanted: string | null): Promise<number> {
    const names = await this.#names();
    const counts = new Map<string, Count>();
    let total = 0;
    for (const name of names) {
      const table = tableOfFile(name);
      if (table === null) continue;
      const count = await this.#count(name);
      counts.set(name, count);
      if (wanted !== null && table !== wanted) continue;
      const { done } = await this.#replayed(name, names);
      total += Math.max(0, count.lines - done.size);
    }
    this.#counts = counts;
    return total;
  }

  async #count(name: string): Promise<Count> {
    const head = await this.#part(name, 0, 0);
    const known = this.#counts.get(name);
    const goOn = known !== undefined && known.identity === head.identity && known.size <= head.size;
    let { size, lines } = goOn ? known : { size: 0, lines: 0 };
    while (size < head.size) {
      const { bytes } = await this.#part(name, size, Math.min(head.size, size + COUNT_BYTES));
      if (bytes.length === 0) break;
      for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) lines++;
      size += bytes.length;
    }
    return { identity: head.identity, size, lines };
  }

  async #replayed(name: string, names: readonly string[]): Promise<Replayed> {
    const journal = journalName(name);
    const { bytes } = names.includes(journal)
      ? await this.#part(journal, 0, MOST_JOURNAL_BYTES)
      : NO_PART;
    return replayedOf(new TextDecoder().decode(bytes));
  }

  async #part(name: string, from: number, to: number) {
    return await this.#files.readPart(join(this.#folder, name), from, to)
      .catch((error) => nothingThere(error, NO_PART));
  }

  async #names(): Promise<readonly string[]> {
    return await this.#files.list(this.#folder).catch((error) => nothingThere(error, []));
  }

  /** Takes what is written of a table's letters away from the writer. Not while it writes. */
  async setAside(table: string): Promise<void> {
    for (const fresh of filesOf(table, await this.#names()).filter(isFresh)) {
      const aside = asideName(fresh, uuid7(this.#clock.nowMs()));
      await this.#files.rename(join(this.#folder, fresh), join(this.#folder, aside));
      await this.#files.syncFolder(this.#folder);
    }
  }

  /** The files of a table that the writer is done with, oldest first. */
  async aside(table: string): Promise<readonly string[]> {
    return filesOf(table, await this.#names()).filter((name) => !isFresh(name));
  }

  async read(name: string): Promise<LetterFile> {
    const bytes = await this.#files.read(join(this.#folder, name));
    const journal = await this.#files.read(join(this.#folder, journalName(name)))
      .catch((error) => nothingThere(error, NOTHING));
    return {
      name,
      bytes: bytes.length,
      lines: await linesOf(bytes),
      replayed: replayedOf(new TextDecoder().decode(journal)),
    };
  }

  /**
   * Leaves only the lines for which `keep` says so; without any the file goes.
   * @param journal whether it stays: needed while it speaks of letters that stay.
   */
  async reduce(
    file: LetterFile,
    keep: (line: LetterLine) => boolean,
    journal: "stays" | "goes",
  ): Promise<void> {
    const path = join(this.#folder, file.name);
    const kept = file.lines.filter(keep);
    if (kept.length === 0) {
      await this.#files.remove(path);
    } else if (kept.length < file.lines.length) {
      await this.#replace(path, kept);
    }
    await this.#files.syncFolder(this.#folder);
    if (journal === "stays" && kept.length > 0) return;
    // Last: without it the letters that it calls done would be back.
    await this.#files.remove(join(this.#folder, journalName(file.name)))
      .catch((error) => nothingThere(error, null));
  }

  async #replace(path: string, lines: readonly LetterLine[]): Promise<void> {
    const temporary = `${path}.tmp`;
    await this.#files.remove(temporary).catch((error) => nothingThere(error, null));
    const file = await this.#files.create(temporary);
    try {
      for (const slice of joined(lines)) await file.write(slice);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#files.rename(temporary, path);
  }

  /** Deletes letters of files that the writer is done with. @param damaged unreadable lines go too. */
  async purge(wanted: Wanted, damaged: boolean): Promise<Purged> {
    const gone = new LetterSet();
    const bound = new LetterSet();
    let unreadable = 0;
    for (const table of await this.tables()) {
      if (wanted.table !== null && table !== wanted.table) continue;
      for (const name of await this.aside(table)) {
        const file = await this.read(name);
        const { done } = file.replayed;
        const meant = meantOf(file, wanted);
        for (const letter of meant.bound) bound.add(letter);
        for (const letter of meant.goes) gone.add(letter);
        const lost = damaged ? file.lines.filter(({ letter }) => letter === null).length : 0;
        unreadable += lost;
        if (meant.goes.length + lost === 0) continue;
        const goes = setOf(meant.goes);
        await this.reduce(
          file,
          ({ letter }) => letter === null ? !damaged : !goes.has(letter) && !done.has(letter),
          "stays",
        );
      }
    }
    return { letters: gone.size, damaged: unreadable, bound: bound.size };
  }
}

/** Rows that were sent together go on together: with one less they would be another batch. */
function meantOf({ lines, replayed: { done, open } }: LetterFile, wanted: Wanted) {
  const meant = lines.map(({ letter }) => letter).filter((letter) =>
    letter !== null && !done.has(letter) && matches(letter, wanted)
  ) as Letter[];
  const all = setOf(meant);
  const kept = new LetterSet();
  for (const { places } of open) {
    const letters = places.map(([batch, index]) => ({ batch, index }));
    if (letters.every((letter) => all.has(letter))) continue;
    for (const letter of letters) kept.add(letter);
  }
  return {
    goes: meant.filter((letter) => !kept.has(letter)),
    bound: meant.filter((letter) => kept.has(letter)),
  };
}

/** The tables are chosen before. */
export function matches({ time, code }: Letter, { beforeMs, code: wanted }: Wanted): boolean {
  return (wanted === null || code === wanted) &&
    (beforeMs === null || !(Date.parse(time) >= beforeMs));
}

/** Just after the newest letter that was counted, whatever the clock says: it may have been set back. */
export function asOf(tables: readonly DeadTable[], otherwiseMs: number): string {
  const newest = tables.map((table) => table.newest).filter((time) => time !== null).sort().at(-1);
  const ms = newest === undefined ? otherwiseMs : Date.parse(newest) + 1;
  return new Date(ms).toISOString();
}

/**
 * Equal for processes that look at the same folder, also from within a container; null where there is
 * none. Throws the system's error.
 */
export function identityOf(folder: string): string | null {
  try {
    const { dev, ino } = statSync(folder);
    return `${dev}:${ino}`;
  } catch (error) {
    return nothingThere(error, null);
  }
}

/**
 * Reads the journal of a file; lines that make no sense are passed over, for their letters were never
 * sent.
 */
export function replayedOf(text: string): Replayed {
  const done = new LetterSet();
  const open = new Map<string, Sent>();
  for (const line of text.split("\n")) {
    const entry = parsed(line);
    if (entry === null) continue;
    if (entry.sent !== undefined) {
      open.set(entry.sent, { id: entry.sent, places: entry.letters ?? [] });
      continue;
    }
    const sent = open.get(entry.done ?? entry.refused ?? "");
    if (entry.done !== undefined) {
      for (const [batch, index] of sent?.places ?? []) done.add({ batch, index });
    }
    if (sent !== undefined) open.delete(sent.id);
  }
  return { done, open: [...open.values()] };
}

/** One line of a journal. */
export interface JournalEntry {
  readonly sent?: string;
  readonly letters?: Sent["places"];
  readonly done?: string;
  readonly refused?: string;
}

function parsed(line: string): JournalEntry | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" ? value as JournalEntry : null;
  } catch {
    return null;
  }
}

/** The files of a table, oldest letters first: the fresh file holds the newest ones. */
function filesOf(table: string, names: readonly string[]): string[] {
  const all = names.filter((name) => tableOfFile(name) === table);
  return [...all.filter((name) => !isFresh(name)).sort(), ...all.filter(isFresh)];
}

function setOf(letters: readonly Letter[]): LetterSet {
  const set = new LetterSet();
  for (const letter of letters) set.add(letter);
  return set;
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
    if (bytes < AT_ONCE_BYTES) continue;
    yield Buffer.concat(pieces);
    pieces = [];
    bytes = 0;
  }
  if (pieces.length > 0) yield Buffer.concat(pieces);
}

const NO_PART = { bytes: NOTHING, size: 0, identity: 0 };
