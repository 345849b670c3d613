/**
 * What an earlier process left in the journal and in segments, made ready to be sent. Runs in the
 * background while new rows are taken: it looks only at what was there when the listing was made.
 *
 * Bytes are trusted by their checksums and by nothing else. Frames and groups that verify are
 * recovered; every other byte that was written goes to `quarantine/`, is counted and logged. No byte is
 * deleted here and nothing is thrown: a file that cannot be read or moved costs itself and no start.
 *
 * A batch is put together from its frames, wherever they are, by the number of rows that stand before
 * each. Where there is a segment as well it is a copy, and the better one of the two is taken, else the
 * journal's.
 *
 * `survey` only looks, `recover` acts on what it sees; so `shishi spool` shows what a start would find.
 */

import { basename, dirname, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { BatchHead, Files, Recovered } from "../contracts.ts";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { tableOfFolder } from "../kernel/names.ts";
import { count, eventTypeOf } from "../kernel/ndjson.ts";
import { comparePositions } from "../kernel/positions.ts";
import {
  copyToQuarantine,
  type DataDir,
  journalFolder,
  moveToQuarantine,
  spoolFolder,
} from "./data_dir.ts";
import { type Live, type Reached, readFrames, rowsAt } from "./frame.ts";
import { type JournalFile, journalFile, journalName, journalNumber, type Part } from "./journal.ts";
import {
  mintedMs,
  parseSegmentName,
  type Range,
  readSegment,
  roughRows,
  SEAL_BYTES,
  type Segment,
  type SegmentContent,
  type SegmentName,
} from "./segment.ts";

/** Rows of one batch that can be trusted: in a segment, or in the journal. */
export interface FoundBatch {
  readonly kind: "batch";
  readonly head: Omit<BatchHead, "oldestMs"> & {
    /** When it was begun, epoch milliseconds; null where nothing tells. */
    readonly oldestMs: number | null;
  };
  readonly rows: number;
  /** Of the rows. */
  readonly bytes: number;
  /** Row counts by event type; empty for shape `row`. */
  readonly types: Map<string, number>;
  /** With `keep`, bytes of it could not be copied to quarantine. */
  readonly segment: Segment | null;
  /** Where the rows lie in the journal; in order, empty where there is a segment. */
  readonly parts: readonly Part[];
  /** The journal has frames of it, needed or not. */
  readonly journaled: boolean;
  /** Where the good rows lie in the segment. */
  readonly ranges: readonly Range[];
  /** What was tried of it; null where nothing tells. */
  readonly trail: Trail | null;
}

/** What the journal says was tried of a batch. */
export interface Trail {
  /** By their place; the first that is missing ends them. */
  readonly lines: Map<number, string>;
  /** Where they stand. */
  readonly files: Set<JournalFile>;
}

/** Something in the spool that is not sent: a whole file, or the damaged parts of one. */
export interface Quarantined {
  readonly kind: "quarantined";
  /** Null for what lies outside every table's folder. */
  readonly table: string | null;
  /** Where it was found. */
  readonly path: string;
  /** Where it lies in quarantine; empty: it could not be brought there and is where it was. */
  readonly to: readonly string[];
  /** About so many; 0 for what could not be read. */
  readonly rows: number;
  readonly bytes: number;
  readonly reason: string;
}

/** Files of a journal, the oldest first, with the ids of the batches that need them. */
export interface FoundJournal {
  readonly kind: "journal";
  readonly files: readonly JournalFile[];
}

/** What journals remember beside rows, and the newest file in which each stands. */
export interface FoundMemos {
  readonly kind: "memos";
  readonly memos: readonly InFile[];
  /** No other journal is read after this. */
  readonly all: boolean;
}

/** A file that nothing needs, and that could not be removed: the next start would send what is in it. */
export interface Needless {
  readonly kind: "needless";
  readonly table: string;
  readonly path: string;
}

export type Found = FoundBatch | FoundJournal | FoundMemos | Quarantined | Needless;

interface FoundFile {
  readonly table: string | null;
  readonly name: string;
  readonly path: string;
}

interface SegmentFile extends FoundFile {
  readonly table: string;
  readonly is: SegmentName;
}

interface ForeignFile extends FoundFile {
  readonly reason: string;
}

/** What lay there at one moment. */
export interface Listing {
  /** Oldest first, all tables together. */
  readonly segments: readonly SegmentFile[];
  /** The folder's own journal, and those of orphaned spools; each oldest first. */
  readonly journals: readonly (readonly { readonly path: string; readonly number: number }[])[];
  readonly foreign: readonly ForeignFile[];
}

/** These say that we, or the machine, are short of something; the file itself may be in order. */
const NOT_ITS_FAULT = ["EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EINTR", "ETIMEDOUT", "ESTALE"];

/** Rows that are looked at before others get a turn. */
const ROWS_A_TURN = 2000;
/** So much of a journal is looked at at once. */
const BYTES_A_TURN = 256 * 1024;

/** To be called before the first new file is created. Never rejects. */
export async function listSpool({ files, dataDir, log }: DataDir): Promise<Listing> {
  const segments: SegmentFile[] = [];
  const foreign: ForeignFile[] = [];
  const list = async (folder: string) => {
    try {
      return await files.list(folder);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") {
        log.error("spool folder cannot be read; its rows wait there for the next start", {
          folder,
          error: reasonOf(error),
        });
      }
      return [];
    }
  };
  const spool = spoolFolder(dataDir);
  for (const entry of await list(spool)) {
    const named = entry.replace(/\/$/, "");
    const folder = join(spool, named);
    const table = tableOfFolder(named);
    if (!entry.endsWith("/") || table === null) {
      const reason = entry.endsWith("/") ? "no table's name" : "no table's folder";
      foreign.push({ table: null, name: named, path: folder, reason });
      continue;
    }
    for (const inside of await list(folder)) {
      const name = inside.replace(/\/$/, "");
      const file = { table, name, path: join(folder, name) };
      const is = parseSegmentName(name);
      if (inside.endsWith("/")) foreign.push({ ...file, reason: "a folder, not a file" });
      else if (is === null) foreign.push({ ...file, reason: "not the name of a spool file" });
      else segments.push({ ...file, is });
    }
  }
  segments.sort((a, b) => a.is.id < b.is.id ? -1 : a.is.id > b.is.id ? 1 : 0);
  const journals: { path: string; number: number }[][] = [];
  const listJournal = async (folder: string, inner: boolean) => {
    const journal: { path: string; number: number }[] = [];
    for (const entry of await list(folder)) {
      const name = entry.replace(/\/$/, "");
      const path = join(folder, name);
      const number = journalNumber(name);
      if (entry.endsWith("/") && !inner) await listJournal(path, true);
      else if (entry.endsWith("/") || number === null) {
        const reason = "not the name of a journal file";
        foreign.push({ table: null, name: `journal.${name}`, path, reason });
      } else journal.push({ path, number });
    }
    if (journal.length > 0) journals.push(journal.sort((a, b) => a.number - b.number));
  };
  await listJournal(journalFolder(dataDir), false);
  return { segments, journals, foreign };
}

/** What is in the spool; nothing is changed. */
export type Seen =
  | { readonly kind: "foreign"; readonly file: ForeignFile }
  /** It may be in order: we, or the machine, are short of something. */
  | { readonly kind: "waits"; readonly file: FoundFile; readonly error: unknown }
  | { readonly kind: "unreadable"; readonly file: FoundFile; readonly error: unknown }
  /** Journals are read before the first batch is given, and what they remember is told once. */
  | FoundJournal
  | FoundMemos
  | {
    readonly kind: "damage";
    readonly file: JournalFile;
    readonly range: Range;
    readonly bytes: Uint8Array;
  }
  /** The journal has not all of a batch: so many rows stand in frames that are damaged or gone. */
  | { readonly kind: "gap"; readonly head: BatchHead; readonly rows: number }
  | {
    readonly kind: "segment";
    readonly file: SegmentFile;
    readonly bytes: Uint8Array;
    readonly content: SegmentContent;
    readonly journaled: boolean;
    /** When its batch was begun, epoch milliseconds; null where nothing tells. */
    readonly oldestMs: number | null;
    readonly trail: Trail | null;
  }
  /** A segment that was begun, and whose batch the journal has. */
  | { readonly kind: "begun"; readonly file: SegmentFile }
  | {
    readonly kind: "batch";
    readonly head: BatchHead;
    readonly rows: number;
    readonly parts: readonly Part[];
    readonly trail: Trail | null;
  };

/** What the journal has of a batch. */
interface InJournal {
  readonly head: BatchHead;
  readonly parts: Part[];
}

/**
 * Reads and verifies everything that was listed, one file at a time. Batches of which something was tried
 * come first.
 */
export async function* survey(
  { files }: DataDir,
  { segments, journals, foreign }: Listing,
): AsyncGenerator<Seen, void, undefined> {
  for (const file of foreign) yield { kind: "foreign", file };
  const inJournal = new Map<string, InJournal>();
  const remembered = new Remembered();
  const trails = new Map<string, Trail>();
  for (const journal of journals) yield* readJournal(files, journal, inJournal, remembered, trails);
  yield { kind: "memos", memos: remembered.all, all: true };
  const inSegments = new Map(segments.map((file) => [file.is.id, file]));
  const ids = [...new Set([...inJournal.keys(), ...inSegments.keys()])].sort();
  const tried = ids.filter((id) => trails.has(id));
  for (const [id, { files }] of trails) {
    if (inJournal.has(id) || inSegments.has(id)) continue;
    for (const file of files) file.batches.delete(id);
  }
  for (const id of [...tried, ...ids.filter((id) => !trails.has(id))]) {
    const file = inSegments.get(id);
    const kept = inJournal.get(id);
    const trail = trails.get(id) ?? null;
    const rows = kept?.parts.reduce((sum, { rows }) => sum + rows, 0) ?? 0;
    if (file !== undefined) {
      let bytes: Uint8Array | null = null;
      try {
        bytes = await files.read(file.path);
      } catch (error) {
        const code = codeOf(error);
        if (code !== "ENOENT" && kept === undefined) {
          const kind = NOT_ITS_FAULT.includes(code) ? "waits" : "unreadable";
          yield { kind, file, error };
        }
      }
      const content = readSegment(bytes ?? NOTHING);
      // Of two copies that in the journal was there first: the other one may not be safe yet.
      if (bytes !== null && (kept === undefined || content.rows > rows)) {
        release(kept);
        for (const file of trail?.files ?? []) file.batches.add(id);
        const oldestMs = kept?.head.oldestMs ?? mintedMs(id);
        const journaled = kept !== undefined || trail !== null;
        yield { kind: "segment", file, bytes, content, journaled, oldestMs, trail };
        continue;
      }
      if (bytes !== null) yield { kind: "begun", file };
    }
    if (kept === undefined) continue;
    const { head, parts } = kept;
    const missing = parts.at(-1)!.from + parts.at(-1)!.rows - rows;
    if (missing > 0) yield { kind: "gap", head, rows: missing };
    yield { kind: "batch", head, rows, parts, trail };
  }
}

const NOTHING = new Uint8Array(0);

function release(kept: InJournal | undefined): void {
  for (const { file } of kept?.parts ?? []) file.batches.delete(kept!.head.id);
}

/** Adds what one journal has to what is known of each batch. */
async function* readJournal(
  files: Files,
  journal: Listing["journals"][number],
  inJournal: Map<string, InJournal>,
  remembered: Remembered,
  trails: Map<string, Trail>,
): AsyncGenerator<Seen, void, undefined> {
  const read: { file: JournalFile; live: readonly Live[] }[] = [];
  for (const { path, number } of journal) {
    const found = { table: null, name: `journal.${journalName(number)}`, path };
    let bytes: Uint8Array;
    try {
      bytes = await files.read(path);
    } catch (error) {
      const code = codeOf(error);
      if (code === "ENOENT") continue;
      if (!NOT_ITS_FAULT.includes(code)) {
        yield { kind: "unreadable", file: found, error };
        continue;
      }
      // Without this file batches would be sent in part, and the rest would be taken for a copy later.
      yield { kind: "waits", file: found, error };
      return;
    }
    const { live, memos, bad } = readFrames(bytes, number);
    const file = journalFile(path, number, bytes.length);
    read.push({ file, live });
    for (const each of memos) remembered.add(file, each);
    for (const range of bad) yield { kind: "damage", file, range, bytes };
    if (bytes.length > BYTES_A_TURN) await setImmediate();
  }
  for (const { file, live } of read) {
    for (const each of live) collect(file, each, inJournal, trails);
  }
  for (const kept of inJournal.values()) {
    const parts = inOrder(kept.parts);
    kept.parts.splice(0, kept.parts.length, ...parts);
    for (const { file } of parts) file.batches.add(kept.head.id);
  }
  for (const [id, { files }] of trails) for (const file of files) file.batches.add(id);
  yield { kind: "journal", files: read.map(({ file }) => file) };
}

function collect(
  file: JournalFile,
  live: Live,
  inJournal: Map<string, InJournal>,
  trails: Map<string, Trail>,
): void {
  if ("settled" in live) {
    file.marked = true;
    // What came before is not needed; a replay may be taken again under its id.
    for (const id of live.settled) {
      release(inJournal.get(id));
      inJournal.delete(id);
      for (const file of trails.get(id)?.files ?? []) file.batches.delete(id);
      trails.delete(id);
    }
    return;
  }
  if ("notes" in live) {
    for (const { batch, n, line } of live.notes) {
      const trail = trails.get(batch) ?? { lines: new Map(), files: new Set() };
      trails.set(batch, trail);
      trail.lines.set(n, line);
      trail.files.add(file);
    }
    return;
  }
  const { head, from, rows, frame, body } = live;
  const kept = inJournal.get(head.id) ?? { head, parts: [] };
  inJournal.set(head.id, kept);
  const length = frame.end - frame.start;
  kept.parts.push({ file, at: frame.start, length, from, rows, bytes: body.end - body.start });
}

/** As they follow each other in the batch, without copies. */
function inOrder(parts: readonly Part[]): Part[] {
  const ordered: Part[] = [];
  let rows = 0;
  for (const part of [...parts].sort((a, b) => a.from - b.from)) {
    if (part.from < rows) continue;
    ordered.push(part);
    rows = part.from + part.rows;
  }
  return ordered;
}

/**
 * Makes ready to be sent what a survey sees; takes what is foreign or damaged out of the way first. A
 * segment with damaged parts yields twice.
 */
export async function* recover(
  dir: DataDir,
  listing?: Listing,
): AsyncGenerator<Found, void, undefined> {
  const { files, log } = dir;
  const journal: JournalFile[] = [];
  for await (const seen of survey(dir, listing ?? await listSpool(dir))) {
    switch (seen.kind) {
      case "foreign":
        yield await moveWhole(dir, seen.file, seen.file.reason);
        break;
      case "waits":
        log.error("spool file cannot be read at the moment; it waits for the next start", {
          file: seen.file.path,
          error: reasonOf(seen.error),
        });
        break;
      case "unreadable":
        yield await moveWhole(dir, seen.file, `cannot be read: ${reasonOf(seen.error)}`);
        break;
      case "journal":
        journal.push(...seen.files);
        yield seen;
        break;
      case "memos": {
        const needed = journal.filter(({ batches }) => batches.size > 0);
        const remembered = seen.memos.map(({ file }) => file);
        await makeSafe(dir, new Set([...needed, ...remembered].map(({ path }) => path)));
        yield seen;
        break;
      }
      case "damage":
        yield await copyDamage(dir, seen);
        break;
      case "gap":
        log.error("rows of a batch are missing in the journal; the others are recovered", {
          table: seen.head.table,
          batch: seen.head.id,
          rows: seen.rows,
        });
        break;
      case "begun":
        yield* removeNeedless(
          dir,
          seen.file,
          "spool file that was begun, and whose rows the journal has,",
        );
        break;
      case "segment":
        yield* recoverSegment(dir, seen);
        break;
      case "batch":
        yield await recoverBatch(files, seen);
    }
  }
}

/**
 * A process that was killed between a write and its sync leaves what a power cut may still take. From
 * here on that is held, and its key, its message or its replay called a duplicate, which is a promise.
 */
async function makeSafe({ files, dataDir, log }: DataDir, paths: Iterable<string>): Promise<void> {
  const folders = new Set<string>();
  try {
    for (const path of paths) {
      await syncFile(files, path);
      folders.add(dirname(path));
    }
    if (folders.size > 0) folders.add(dataDir);
    for (const folder of folders) await files.syncFolder(folder);
  } catch (error) {
    log.warn("what was found in the journal could not be synced", { error: reasonOf(error) });
  }
}

async function syncFile(files: Files, path: string): Promise<void> {
  const file = await files.append(path);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function recoverBatch(
  files: Files,
  { head, rows, parts, trail }: Seen & { kind: "batch" },
): Promise<FoundBatch> {
  const types = new Map<string, number>();
  if (head.shape === "event") {
    for (const { file, at, length } of parts) {
      // What cannot be read now cannot be sent either, and is told then.
      const part = await files.readPart(file.path, at, at + length).catch(() => null);
      const range = part === null ? null : rowsAt(part.bytes, 0, file.number);
      if (range !== null) await countTypes(part!.bytes, [range], types);
    }
  }
  const bytes = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const found = { head, rows, bytes, types, segment: null, parts, journaled: true, ranges: [] };
  return { kind: "batch", ...found, trail };
}

async function* recoverSegment(
  dir: DataDir,
  { file, bytes, content, journaled, oldestMs, trail }: Seen & { kind: "segment" },
): AsyncGenerator<FoundBatch | Quarantined | Needless, void, undefined> {
  if (bytes.length === 0) {
    yield* removeNeedless(dir, file, "spool file without rows");
    return;
  }
  if (content.rows === 0) {
    yield await moveWhole(dir, file, "no group of rows agrees with its checksum", bytes);
    return;
  }
  let keep = false;
  if (content.bad.length > 0) {
    const damaged = await copyBad(dir, file, bytes, content);
    keep = damaged.to.length < content.bad.length;
    yield damaged;
  }
  const { table, path, is } = file;
  const types = new Map<string, number>();
  if (is.shape === "event") await countTypes(bytes, content.good, types);
  const size = content.good.reduce((sum, { start, end }) => sum + end - start, 0);
  // About: quarantined parts of the file are not counted.
  const segment = { table, path, bytes: size + content.good.length * SEAL_BYTES, keep };
  yield {
    kind: "batch",
    head: { ...is, table, oldestMs },
    rows: content.rows,
    bytes: size,
    types,
    segment,
    parts: [],
    journaled,
    ranges: content.good,
    trail,
  };
}

/** Its lines, as far as none is missing. */
export function linesOf({ lines }: Trail): string[] {
  const all: string[] = [];
  for (let line = lines.get(0); line !== undefined; line = lines.get(all.length)) all.push(line);
  return all;
}

/**
 * The good rows of a segment once more, to be sent; pieces in order. Less than before when the disk has
 * spoiled it since: compare the bytes. Rejects with the disk's error.
 */
export async function loadSegment(files: Files, path: string): Promise<Uint8Array[]> {
  const bytes = await files.read(path);
  return readSegment(bytes).good.map(({ start, end }) => bytes.subarray(start, end));
}

/**
 * A process that ends between making a file and its first row leaves one without any; one that ends
 * while a batch leaves the journal, a part of it.
 */
async function* removeNeedless(
  { files, log }: DataDir,
  { table, path }: FoundFile & { readonly table: string },
  what: string,
): AsyncGenerator<Needless, void, undefined> {
  try {
    await files.remove(path);
    log.info(`${what} removed`, { table, file: path });
  } catch (error) {
    log.warn(`${what} cannot be removed`, {
      table,
      file: path,
      error: reasonOf(error),
    });
    yield { kind: "needless", table, path };
  }
}

async function copyDamage(
  dir: DataDir,
  { file, range, bytes }: Seen & { kind: "damage" },
): Promise<Quarantined> {
  const part = bytes.subarray(range.start, range.end);
  const rows = linesOfRows(part);
  const reason = "does not agree with its checksum";
  const fields = { file: file.path, at: range.start, rows, bytes: part.length };
  const to: string[] = [];
  try {
    const name = `journal.${basename(file.path)}.${range.start}`;
    to.push(await copyToQuarantine(dir, name, part));
    dir.log.warn("part of the journal is damaged; copied to quarantine, the rest is recovered", {
      ...fields,
      quarantine: to[0],
    });
  } catch (error) {
    file.keep = true;
    dir.log.error("part of the journal is damaged and cannot be copied to quarantine; kept", {
      ...fields,
      error: reasonOf(error),
    });
  }
  return {
    kind: "quarantined",
    table: null,
    path: file.path,
    to,
    rows,
    bytes: part.length,
    reason,
  };
}

/** About so many rows are in damaged bytes of a journal. */
function linesOfRows(bytes: Uint8Array): number {
  let rows = 0;
  for (let at = 0; at < bytes.length;) {
    if (bytes[at] === 0x7b) rows++;
    const newline = bytes.indexOf(0x0a, at);
    at = newline < 0 ? bytes.length : newline + 1;
  }
  return rows;
}

async function moveWhole(
  dir: DataDir,
  { table, name, path }: FoundFile,
  reason: string,
  content: Uint8Array = new Uint8Array(0),
): Promise<Quarantined> {
  const whole = { start: 0, end: content.length };
  const rows = roughRows(content, whole);
  const fields = { table, file: path, reason, rows, bytes: content.length };
  const to: string[] = [];
  try {
    to.push(await moveToQuarantine(dir, path, table === null ? name : `${table}.${name}`));
    dir.log.warn("spool file moved to quarantine", { ...fields, quarantine: to[0] });
  } catch (error) {
    dir.log.error("spool file cannot be moved to quarantine; it stays where it is", {
      ...fields,
      error: reasonOf(error),
    });
  }
  return { kind: "quarantined", table, path, to, rows, bytes: content.length, reason };
}

async function copyBad(
  dir: DataDir,
  { table, name, path }: FoundFile,
  bytes: Uint8Array,
  { bad, rows: recovered }: SegmentContent,
): Promise<Quarantined> {
  const to: string[] = [];
  let failed: unknown = null;
  let rows = 0;
  let size = 0;
  for (const range of bad) {
    rows += roughRows(bytes, range);
    size += range.end - range.start;
    try {
      const part = bytes.subarray(range.start, range.end);
      to.push(await copyToQuarantine(dir, `${table}.${name}.${range.start}`, part));
    } catch (error) {
      failed ??= error;
    }
  }
  const reason = "does not agree with its checksum";
  const fields = { table, file: path, rows, bytes: size, rows_recovered: recovered };
  if (failed === null) {
    dir.log.warn("part of a spool file is damaged; copied to quarantine, the rest is recovered", {
      ...fields,
      quarantine: to[0],
      parts: to.length,
    });
  } else {
    dir.log.error("part of a spool file is damaged and cannot be copied to quarantine; kept", {
      ...fields,
      error: reasonOf(failed),
    });
  }
  return { kind: "quarantined", table, path, to, rows, bytes: size, reason };
}

async function countTypes(
  bytes: Uint8Array,
  good: readonly Range[],
  types: Map<string, number>,
): Promise<void> {
  const decoder = new TextDecoder();
  let rows = 0;
  for (const { start, end } of good) {
    for (let at = start, next; at < end; at = next) {
      next = bytes.indexOf(0x0a, at) + 1;
      count(types, eventTypeOf(decoder.decode(bytes.subarray(at, next - 1))), 1);
      if (++rows % ROWS_A_TURN === 0) await setImmediate();
    }
  }
}

// ── What journals remember beside rows, put together from their frames in the order in which they were written.
// The same memo may stand in several, for it is written again where its file is wanted; of what is newer
// the rest is nothing, and of a partition nothing counts up to where its broker was said to have it.

/** A memo, and the newest file in which it stands. */
interface InFile<M extends Recovered = Recovered> {
  readonly memo: M;
  readonly file: JournalFile;
}

type RecoveredMark = Extract<Recovered, { readonly position: string }>;

export class Remembered {
  /** Keys and ids. */
  readonly #named = new Map<string, InFile>();
  /** By source and partition, and there by batch: each has a mark of its own. */
  readonly #marks = new Map<string, Map<string, InFile<RecoveredMark>>>();

  add(file: JournalFile, said: Recovered | Reached): void {
    if (!("position" in said)) this.#addNamed(file, said);
    else if ("gone" in said) this.#addMark(file, said);
    else this.#reached(said);
  }

  get all(): InFile[] {
    return [
      ...this.#named.values(),
      ...[...this.#marks.values()].flatMap((partition) => [...partition.values()]),
    ];
  }

  /** A key may have been taken again after its time. */
  #addNamed(file: JournalFile, memo: Exclude<Recovered, RecoveredMark>): void {
    const name = "key" in memo
      ? JSON.stringify([memo.table, memo.key])
      : JSON.stringify([memo.table, memo.source, memo.sinceMs, memo.ids]);
    const known = this.#named.get(name)?.memo;
    if (known !== undefined && "sinceMs" in known && known.sinceMs > memo.sinceMs) return;
    const isSame = known !== undefined && "sinceMs" in known && known.sinceMs === memo.sinceMs;
    const batches = isSame ? [...new Set([...known.batches, ...memo.batches])] : memo.batches;
    this.#named.set(name, { memo: { ...memo, batches }, file });
  }

  #addMark(file: JournalFile, memo: RecoveredMark): void {
    const name = nameOf(memo);
    const partition = this.#marks.get(name) ?? new Map<string, InFile<RecoveredMark>>();
    this.#marks.set(name, partition);
    const batches = memo.batches.join();
    const known = partition.get(batches)?.memo;
    if (known !== undefined && comparePositions(memo.position, known.position) < 0) return;
    partition.set(batches, { memo, file });
  }

  #reached(reached: Reached): void {
    const partition = this.#marks.get(nameOf(reached));
    if (partition === undefined) return;
    for (const [batches, { memo }] of partition) {
      if (comparePositions(memo.position, reached.position) <= 0) partition.delete(batches);
    }
  }
}

function nameOf({ source, partition }: Pick<Reached, "source" | "partition">): string {
  return JSON.stringify([source, partition]);
}
