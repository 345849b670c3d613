/**
 * Rows on disk: the room's door. Memory is where batches live, a journal makes them survive, segments
 * hold what memory cannot.
 *
 * Rows that come are appended to the journal: one frame for each batch that got some, all tables
 * together, made safe by one write and one sync. What is appended while a round runs shares the next
 * one, so the price of a sync is split among all who wait, however many tables they write to.
 *
 * Stored = a mark in the journal, written at once and synced with the next rows; a crash before that
 * sends the batch again, under its id, which is the deduplication token. Most batches see no more of the
 * disk than this.
 *
 * **The journal is bounded, and a table that is stuck pins nothing.** When there are more files than what
 * memory may hold can need, the batches of the oldest move, in the background: those that are sealed are
 * written once more, whole, as segments, files of their own whose name is the token and whose content
 * the rows of the INSERT; those that are not go to the newest file, and so does what is remembered. What the journal does not have at
 * all (`ack=memory`), or has in many small pieces (many tables), becomes a segment when memory lets it go.
 */

import type {
  Batch,
  BatchHead,
  Clock,
  GrowingBatch,
  Mark,
  Memo,
  Noted,
  Recovered,
  RecoveredBatch,
  Spool,
  Vanished,
} from "../contracts.ts";
import { codeOf, reasonOf, reasonWithoutPath } from "../kernel/errors.ts";
import { DONE, done, failed, type Result } from "../kernel/result.ts";
import { Underway } from "../kernel/time.ts";
import { type DataDir, probeDisk } from "./data_dir.ts";
import {
  type FrameText,
  IDS_A_MARK,
  memosFrame,
  type Note,
  notesFrame,
  type Reached,
  reachedFrame,
  rowsFrame,
  settledFrame,
  tailOf,
} from "./frame.ts";
import {
  addMemo,
  areClose,
  FILE_BYTES,
  hasMemos,
  isFree,
  Journal,
  type JournalFile,
  type Part,
  type Place,
  readParts,
} from "./journal.ts";
import { type Found, linesOf, loadSegment } from "./recovery.ts";
import { mintedMs, type Segment, Segments } from "./segment.ts";

export interface SpoolDeps {
  readonly dir: DataDir;
  readonly clock: Pick<Clock, "nowMs">;
  /** Reads what earlier processes left. */
  readonly earlier: () => AsyncIterable<Found>;
  /** Whether there may be any. */
  readonly unread?: boolean | undefined;
  /** Rows that memory may hold: the journal needs no more. */
  readonly memoryBytes?: (() => number) | undefined;
  /** Of a journal file; for tests. */
  readonly fileBytes?: number | undefined;
}

/** Files that the journal has beyond those that memory's rows fill: half filled, or free. */
const MORE_FILES = 3;
const MEMORY_BYTES = 256 * 1024 * 1024;

/** Why a batch takes no more rows that the disk has lost. */
const GONE = "ENOENT: its file was removed";

/** Keys and ids that move at once: what is written between them waits no longer than for other rows. */
const NAMES_A_FRAME = 1000;

/** What the disk has of a batch. */
class Kept {
  /** In order. */
  parts: Part[] = [];
  segment: Segment | null = null;
  /** Where it was; null while it is there. */
  vanished: string | null = null;
  /** Something of it stands, or stood, in the journal. */
  journaled = false;
  /** Nothing of it is needed any more. */
  gone = false;
  tail: Uint8Array | null = null;
  /** What was tried of it, */
  trail: readonly string[] = [];
  /** how many lines of that the journal has, */
  noted = 0;
  /** and where. */
  noteFiles = new Set<JournalFile>();

  /** @param growing null for one that is sealed. */
  constructor(readonly head: BatchHead, readonly growing: GrowingBatch | null) {}

  get sealed(): boolean {
    return this.growing?.sealed ?? true;
  }

  /** In the journal. */
  get rows(): number {
    const last = this.parts.at(-1);
    return last === undefined ? 0 : last.from + last.rows;
  }

  /** Whether the journal has all of so many bytes of rows. */
  isWhole(bytes: number): boolean {
    return this.parts.length > 0 && this.rowBytes === bytes;
  }

  get rowBytes(): number {
    let sum = 0;
    for (const { bytes } of this.parts) sum += bytes;
    return sum;
  }
}

/** Rows of one batch that one round makes safe. */
interface Group {
  readonly batch: GrowingBatch;
  readonly bodies: Uint8Array[];
  rows: number;
  bytes: number;
  memos: Memo[] | null;
}

/** What was appended and shares a round: it is safe together, or refused together. */
class Round {
  readonly groups = new Map<GrowingBatch, Group>();
  readonly #answer = Promise.withResolvers<Result>();

  get answered(): Promise<Result> {
    return this.#answer.promise;
  }

  answer(result: Result): void {
    this.#answer.resolve(result);
  }
}

/** Parts of an open batch that go to the newest file. */
interface Copy {
  readonly kept: Kept;
  readonly parts: readonly Part[];
  readonly bodies: readonly Uint8Array[];
  readonly over: (copied: boolean) => void;
}

/** Lines of a batch's trail that are to be written. */
interface Notes {
  readonly kept: Kept;
  /** All of them once more: the files in which they stand are wanted. */
  readonly again: boolean;
  readonly over: () => void;
}

/** What is remembered and goes from a file to the newest. */
interface MovedMemos {
  readonly file: JournalFile;
  readonly memos: readonly Memo[];
  readonly over: (moved: boolean) => void;
}

export class JournalSpool implements Spool {
  /** In the journal, of all batches that are held. */
  #journalBytes = 0;
  /** Why the disk would not take the last rows; null while it does. */
  #trouble: string | null = null;
  /** A file that should be there is not; others may be gone as well. */
  #filesGone = false;
  /** What the next round writes: rows, */
  #next = new Round();
  /** parts that move, */
  #copies: Copy[] = [];
  #movedMemos: MovedMemos[] = [];
  /** notes, */
  #notes: Notes[] = [];
  /** and marks. */
  #settled: Kept[] = [];
  /** What brokers have and frames do not say yet, by source and partition. */
  #reached = new Map<string, Reached>();
  /** Marks that are written, but not synced yet. */
  #marked: Kept[] = [];
  #running = false;
  /** What earlier processes left is not known yet. */
  #unread: boolean;
  #probing: Promise<readonly Vanished[]> | null = null;
  /** Files that are gone, whose memos are to be written again. */
  #memosGone: JournalFile[] = [];
  /** The oldest file when its batches were last moved. */
  #moved: JournalFile | null = null;
  /** Rounds, writes, looks and recoveries under way. */
  readonly #underway = new Underway();
  /** Every batch that the disk has something of. */
  readonly #kept = new Map<string, Kept>();
  /** Why a batch takes no rows any more: what was refused leaves a hole that none may follow. */
  readonly #refused = new WeakMap<GrowingBatch, string>();
  /** Batches that are being written whole. */
  readonly #writing = new Map<string, Promise<Result>>();
  readonly #dir: DataDir;
  readonly #journal: Journal;
  readonly #segments: Segments;

  constructor(readonly deps: SpoolDeps) {
    const { dir, clock, fileBytes } = deps;
    this.#dir = dir;
    this.#unread = deps.unread ?? false;
    this.#journal = new Journal({ dir, nowMs: () => clock.nowMs(), fileBytes });
    this.#segments = new Segments(dir);
  }

  bytes(): number {
    return this.#journalBytes + this.#segments.bytes;
  }

  trouble(): string | null {
    return this.#trouble;
  }

  // ------------------------------------------------------------ group commit

  append(
    batch: GrowingBatch,
    body: Uint8Array,
    rows: number,
    memos?: readonly Memo[],
  ): Promise<Result> {
    const { groups, answered } = this.#next;
    const group = groups.get(batch);
    if (group === undefined) {
      const problem = this.#refused.get(batch) ?? this.#mayBeThere(batch.id);
      if (problem !== null) return Promise.resolve(failed(problem));
      groups.set(batch, {
        batch,
        bodies: [body],
        rows,
        bytes: body.length,
        memos: memos === undefined ? null : [...memos],
      });
    } else {
      group.bodies.push(body);
      group.rows += rows;
      group.bytes += body.length;
      if (memos !== undefined) (group.memos ??= []).push(...memos);
    }
    this.#start();
    return answered;
  }

  reached(source: string, { partition, position }: Mark): void {
    this.#reached.set(JSON.stringify([source, partition]), { source, partition, position });
  }

  /** A replay has an id of its own: an earlier process may have left it. */
  #mayBeThere(id: string): string | null {
    return this.#unread && mintedMs(id) === null
      ? "rows that were left there are not read yet"
      : null;
  }

  #start(): void {
    if (!this.#running) void this.#underway.add(this.#run());
  }

  async #run(): Promise<void> {
    this.#running = true;
    // What is appended in the same turn of the event loop shares the first round. To wait longer for
    // company saves CPU but no time: with 1, 2 and 4 ms between rounds there were no more requests a second.
    await Promise.resolve();
    let well = true;
    do {
      while (this.#waiting > 0 || well && this.#settled.length > 0) {
        well = await this.#round();
      }
      // Nothing else will make them safe soon.
      if (this.#journalBytes === 0) await this.#syncMarks();
      this.#journal.tidy();
      await this.#journal.rest();
    } while (this.#waiting > 0 || well && this.#settled.length > 0);
    this.#running = false;
  }

  /** What a round is wanted for. */
  get #waiting(): number {
    return this.#next.groups.size + this.#copies.length + this.#movedMemos.length +
      this.#notes.length;
  }

  /** @returns whether the disk took it. */
  async #round(): Promise<boolean> {
    const round = this.#next;
    this.#next = new Round();
    const groups = [...round.groups.values()];
    const copies = this.#copies.filter(({ kept }) => !kept.gone);
    for (const copy of this.#copies) if (copy.kept.gone) copy.over(true);
    this.#copies = [];
    const moved = this.#movedMemos;
    this.#movedMemos = [];
    const notes = this.#notes;
    this.#notes = [];
    const settled = this.#settled;
    this.#settled = [];
    const reached = this.#reached;
    this.#reached = new Map();
    let problem: string | null = null;
    try {
      await this.#write(groups, copies, moved, notes, settled, [...reached.values()]);
    } catch (error) {
      problem = reasonWithoutPath(error);
      this.#fail(error);
      for (const { over } of moved) over(false);
      this.#writtenNot(groups, copies, settled, problem);
      this.#reached = new Map([...reached, ...this.#reached]);
    }
    for (const { over } of notes) over();
    round.answer(problem === null ? DONE : failed(problem));
    // What came meanwhile may follow rows that are not there.
    if (problem !== null) this.#refuseNext(problem);
    // Those who wait have heard of it before the next round: the answer may seal the batch.
    if (groups.length > 0) await round.answered;
    return problem === null;
  }

  /** What was appended and not begun yet is not to be written. */
  #refuseNext(problem: string): void {
    const next = this.#next;
    this.#next = new Round();
    for (const batch of next.groups.keys()) this.#refused.set(batch, problem);
    next.answer(failed(problem));
  }

  async #write(
    groups: readonly Group[],
    copies: readonly Copy[],
    moved: readonly MovedMemos[],
    notes: readonly Notes[],
    settled: readonly Kept[],
    reached: readonly Reached[],
  ): Promise<void> {
    const frames: FrameText[] = [];
    const grown: Kept[] = [];
    for (const { batch, rows, bytes, bodies, memos } of groups) {
      const kept = this.#kept.get(batch.id) ?? this.#newlyKept(batch);
      grown.push(kept);
      kept.tail ??= tailOf(batch);
      frames.push(rowsFrame(kept.rows, rows, bytes, kept.tail, bodies, memos));
    }
    for (const { kept, parts, bodies } of copies) {
      const { from, rows, bytes } = joined(parts);
      frames.push(rowsFrame(from, rows, bytes, tailOf(kept.head), bodies));
    }
    for (const { memos } of moved) frames.push(memosFrame(memos));
    const trails = notes.filter(({ kept }) => !kept.gone).map((each) => ({
      ...each,
      from: each.again ? 0 : each.kept.noted,
      to: each.kept.trail.length,
    }));
    const lines = trails.flatMap(({ kept, from, to }) => notesOf(kept, from, to));
    if (lines.length > 0) frames.push(notesFrame(lines));
    for (let at = 0; at < settled.length; at += IDS_A_MARK) {
      frames.push(settledFrame(settled.slice(at, at + IDS_A_MARK).map(({ head }) => head.id)));
    }
    if (reached.length > 0) frames.push(reachedFrame(reached));
    if (frames.length === 0) return;
    const sync = groups.length + copies.length + moved.length > 0;
    const places = await this.#journal.write(
      frames,
      sync,
      settled.length + reached.length > 0,
    );
    groups.forEach(({ rows, bytes, memos }, which) => {
      const { file, at, length } = places[which]!;
      const kept = grown[which]!;
      this.#add(kept, { file, at, length, from: kept.rows, rows, bytes });
      if (memos !== null) { for (const memo of memos) addMemo(file, memo); }
    });
    copies.forEach((copy, at) => this.#copied(copy, places[groups.length + at]!));
    const { file: newest } = places[0]!;
    for (const { file, memos, over } of moved) {
      for (const memo of memos) {
        file.memos.delete(memo);
        addMemo(newest, memo);
      }
      over(true);
    }
    for (const { kept, again, to } of trails) this.#noted(kept, to, newest, again);
    this.#marked.push(...settled);
    if (!sync) return;
    this.#note(null);
    this.#marksAreSafe();
    this.#move();
  }

  async #syncMarks(): Promise<void> {
    if (this.#marked.length === 0) return;
    try {
      await this.#journal.sync();
      this.#marksAreSafe();
    } catch (error) {
      this.#fail(error);
    }
  }

  #marksAreSafe(): void {
    for (const kept of this.#marked.splice(0)) this.#release(kept);
  }

  #newlyKept(batch: GrowingBatch): Kept {
    const kept = new Kept(batch, batch);
    this.#kept.set(batch.id, kept);
    return kept;
  }

  #add(kept: Kept, part: Part): void {
    kept.parts.push(part);
    kept.journaled = true;
    part.file.batches.add(kept.head.id);
    this.#journalBytes += part.length;
  }

  /** Nothing of the round counts. */
  #writtenNot(
    groups: readonly Group[],
    copies: readonly Copy[],
    settled: readonly Kept[],
    problem: string,
  ): void {
    for (const { batch } of groups) {
      this.#refused.set(batch, problem);
      const kept = this.#kept.get(batch.id);
      if (kept !== undefined && !kept.journaled && kept.segment === null) {
        this.#kept.delete(batch.id);
      }
    }
    for (const { over } of copies) over(false);
    // A sync that failed may have lost marks that were written before.
    this.#settled.unshift(...this.#marked.splice(0), ...settled);
    // A full disk has no room for marks either, and room is what they would make.
    for (const each of this.#settled) this.#release(each);
  }

  /** Its rows in the journal are not needed any more; once it is gone, nor is its trail. */
  #release(kept: Kept): void {
    const { parts, noteFiles } = kept;
    kept.parts = [];
    kept.tail = null;
    for (const { file, length } of parts) {
      this.#unpin(kept, file);
      if (!kept.gone) this.#journalBytes -= length;
    }
    if (!kept.gone) return;
    kept.noteFiles = new Set();
    for (const file of noteFiles) this.#unpin(kept, file);
  }

  /** A file is free of a batch when neither rows nor notes of it stand there. */
  #unpin({ head, parts, noteFiles }: Kept, file: JournalFile): void {
    if (noteFiles.has(file) || parts.some((part) => part.file === file)) return;
    file.batches.delete(head.id);
  }

  // ------------------------------------------------------------ what was tried

  note(batch: Noted): Promise<void> {
    const kept = this.#kept.get(batch.id);
    // A disk in trouble is asked for rows, not for this.
    if (kept === undefined || this.#trouble !== null) return Promise.resolve();
    kept.trail = batch.trail;
    return this.#noteSoon(kept, false);
  }

  #noteSoon(kept: Kept, again: boolean): Promise<void> {
    return new Promise((over) => {
      this.#notes.push({ kept, again, over });
      this.#start();
    });
  }

  #noted(kept: Kept, lines: number, file: JournalFile, again: boolean): void {
    // It left meanwhile, and no mark follows.
    if (kept.gone && !kept.journaled) return;
    kept.noted = Math.max(kept.noted, lines);
    kept.journaled = true;
    const before = kept.noteFiles;
    kept.noteFiles = new Set(again ? [file] : [...before, file]);
    file.batches.add(kept.head.id);
    for (const old of before) this.#unpin(kept, old);
  }

  #fail(error: unknown): void {
    this.#filesGone ||= codeOf(error) === "ENOENT";
    // Only a replay can meet its own file, which is being recovered: no trouble of the disk.
    if (codeOf(error) !== "EEXIST") this.#note(reasonWithoutPath(error));
  }

  // ------------------------------------------------------------ batches leave the journal

  write(batch: Batch & Partial<Noted>): Promise<Result> | null {
    const kept = this.#kept.get(batch.id) ?? new Kept(batch, null);
    kept.trail = batch.trail ?? kept.trail;
    const { segment, vanished, parts } = kept;
    const readable = segment !== null ||
      kept.isWhole(batch.bytes) && (this.#trouble !== null || areClose(parts));
    if (vanished === null && readable) return null;
    const under = this.#writing.get(batch.id);
    if (under !== undefined) return under;
    const problem = this.#mayBeThere(batch.id);
    if (problem !== null) return Promise.resolve(failed(problem));
    this.#kept.set(batch.id, kept);
    return this.#toSegment(kept, () => Promise.resolve(batch.body), batch.bytes);
  }

  #toSegment(
    kept: Kept,
    load: () => Promise<readonly Uint8Array[]>,
    bytes: number,
  ): Promise<Result> {
    const { id } = kept.head;
    const work = this.#writeSegment(kept, load, bytes).finally(() => this.#writing.delete(id));
    this.#writing.set(id, work);
    return this.#underway.add(work);
  }

  async #writeSegment(
    kept: Kept,
    load: () => Promise<readonly Uint8Array[]>,
    bytes: number,
  ): Promise<Result> {
    const { head } = kept;
    try {
      // First: rows that are found without it would be taken for fresh ones.
      if (kept.noted < kept.trail.length) await this.#noteSoon(kept, false);
      const segment = await this.#segments.write(head, await load());
      this.#note(null);
      if (kept.gone) await this.#segments.remove(segment);
      else {
        this.#release(kept);
        kept.segment = segment;
        kept.vanished = null;
      }
      return DONE;
    } catch (error) {
      this.#fail(error);
      if (kept.gone || kept.isWhole(bytes)) return DONE;
      if (kept.segment === null && !kept.journaled) this.#kept.delete(head.id);
      return failed(reasonWithoutPath(error));
    }
  }

  /** Moves what keeps the oldest file, where there are too many; in the background. */
  #move(): void {
    const { files } = this.#journal;
    const { memoryBytes = () => MEMORY_BYTES, fileBytes = FILE_BYTES } = this.deps;
    const most = Math.ceil(memoryBytes() / fileBytes) + MORE_FILES;
    const at = files.findIndex((file) => !isFree(file));
    const oldest = files[at];
    // What is free behind it waits for it.
    if (oldest === undefined || files.length - at <= most || oldest === this.#moved) return;
    this.#moved = oldest;
    void this.#underway.add(this.#moveAll(oldest));
  }

  async #moveAll(file: JournalFile): Promise<void> {
    await this.#moveMemos(file);
    for (const id of [...file.batches]) {
      const kept = this.#kept.get(id);
      if (kept === undefined || this.#trouble !== null) continue;
      if (kept.noteFiles.has(file)) await this.#noteSoon(kept, true);
      if (kept.segment !== null) continue;
      const moved = kept.sealed ? this.#moveSealed(kept) : this.#moveOpen(kept, file);
      await moved.catch((error) => {
        const fields = { table: kept.head.table, batch: id, error: reasonOf(error) };
        this.#dir.log.warn("rows could not be moved from the journal's oldest file", fields);
      });
    }
    this.#journal.tidy();
    this.#move();
  }

  /** @returns whether none is left in it. */
  async #moveMemos(file: JournalFile): Promise<boolean> {
    while (hasMemos(file)) {
      if (this.#trouble !== null) return false;
      const memos = firstOf(file.memos);
      const moved = await new Promise<boolean>((over) => {
        this.#movedMemos.push({ file, memos, over });
        this.#start();
      });
      if (!moved) return false;
    }
    return true;
  }

  async #moveSealed(kept: Kept): Promise<void> {
    const load = () => readParts(this.#dir.files, kept.parts);
    await (this.#writing.get(kept.head.id) ?? this.#toSegment(kept, load, kept.rowBytes));
  }

  async #moveOpen(kept: Kept, file: JournalFile): Promise<void> {
    const parts = kept.parts.filter((part) => part.file === file);
    // They have been moved meanwhile.
    if (parts.length === 0) return;
    const bodies = await readParts(this.#dir.files, parts);
    await new Promise<boolean>((over) => {
      this.#copies.push({ kept, parts, bodies, over });
      this.#start();
    });
  }

  #copied({ kept, parts, over }: Copy, place: Place): void {
    if (!kept.gone && kept.parts.includes(parts[0]!)) {
      const moved = { ...place, ...joined(parts) };
      kept.parts = kept.parts.flatMap((part) =>
        part === parts[0] ? [moved] : parts.includes(part) ? [] : [part]
      );
      for (const { file, length } of parts) {
        this.#unpin(kept, file);
        this.#journalBytes -= length;
      }
      place.file.batches.add(kept.head.id);
      this.#journalBytes += place.length;
    }
    over(true);
  }

  // ------------------------------------------------------------ sealed batches

  async read({ id, bytes }: Pick<Batch, "id" | "bytes">): Promise<Result<Uint8Array[]>> {
    const kept = this.#kept.get(id);
    const file = kept?.segment?.path ?? kept?.parts[0]?.file.path ?? "";
    let problem = "its rows do not agree with their checksums";
    const groups = await this.#load(kept).catch((error) => {
      this.#filesGone ||= codeOf(error) === "ENOENT";
      problem = reasonOf(error);
      return [];
    });
    const body: Uint8Array[] = [];
    let found = 0;
    // What stands behind them in a segment of 0.1 was refused and could not be cut back.
    for (const group of groups) {
      if (found >= bytes) break;
      body.push(group);
      found += group.length;
    }
    if (found === bytes) return done(body);
    this.#dir.log.error("the spool does not hold what was written", {
      file,
      batch: id,
      wanted_bytes: bytes,
      found_bytes: found,
      error: problem,
    });
    return failed(`batch ${id} cannot be read from the spool`);
  }

  #load(kept: Kept | undefined): Promise<Uint8Array[]> {
    if (kept === undefined || kept.vanished !== null) {
      return Promise.reject(Object.assign(new Error("its file is gone"), { code: "ENOENT" }));
    }
    const { segment, parts } = kept;
    return segment !== null
      ? loadSegment(this.#dir.files, segment.path)
      : readParts(this.#dir.files, parts);
  }

  remove(id: string): void {
    const kept = this.#kept.get(id);
    if (kept === undefined) return;
    this.#kept.delete(id);
    for (const { length } of kept.parts) this.#journalBytes -= length;
    kept.gone = true;
    if (kept.segment !== null) void this.#segments.remove(kept.segment);
    if (!kept.journaled) return;
    this.#settled.push(kept);
    // A disk that takes nothing is not asked for a mark's sake.
    if (this.#trouble === null) this.#start();
    else this.#release(kept);
  }

  // ------------------------------------------------------------ trouble

  probe(): Promise<readonly Vanished[]> {
    // One that hangs is not joined by others.
    return this.#probing ??= this.#underway.add(this.#probe()).finally(() => this.#probing = null);
  }

  async #probe(): Promise<readonly Vanished[]> {
    await this.#segments.removeLeftovers();
    await this.#writeMemosAgain();
    this.#moved = null;
    if (this.#trouble === null && !this.#filesGone) return [];
    this.#segments.forgetFolders();
    // What nothing needs is room for what is wanted.
    if (this.#trouble !== null && !this.#running) await this.#journal.makeRoom();
    this.#note(await probeDisk(this.#dir));
    if (this.#trouble !== null) return [];
    if (this.#settled.length > 0) this.#start();
    if (!this.#filesGone) return [];
    this.#filesGone = false;
    return await this.#findVanished();
  }

  /** By now it is known which rows were lost with a file, and what was remembered of them is no more. */
  async #writeMemosAgain(): Promise<void> {
    for (const file of this.#memosGone.splice(0)) {
      if (!await this.#moveMemos(file)) this.#memosGone.push(file);
    }
  }

  async #findVanished(): Promise<readonly Vanished[]> {
    const inSegments = [...this.#kept.values()].filter(({ head, segment, vanished }) =>
      segment !== null && vanished === null && !this.#writing.has(head.id)
    );
    const gone = new Set(
      await this.#segments.findVanished(inSegments.map((each) => each.segment!)),
    );
    for (const kept of inSegments) {
      const { segment } = kept;
      if (segment === null || !gone.has(segment)) continue;
      this.#segments.forget(segment);
      kept.segment = null;
      kept.vanished = segment.path;
    }
    const files = new Set(await this.#journal.findVanished());
    this.#memosGone.push(...files);
    for (const kept of this.#kept.values()) {
      const part = kept.parts.find(({ file }) => files.has(file));
      if (part === undefined || kept.segment !== null) continue;
      this.#release(kept);
      kept.vanished = part.file.path;
      // No rows may follow a hole.
      if (kept.growing !== null) this.#refused.set(kept.growing, GONE);
    }
    if ([...this.#next.groups.keys()].some((batch) => this.#refused.has(batch))) {
      this.#refuseNext(GONE);
    }
    for (const kept of this.#kept.values()) {
      if (![...kept.noteFiles].some((file) => files.has(file))) continue;
      kept.noteFiles = new Set();
      kept.noted = 0;
    }
    return [...this.#kept].flatMap(([id, { vanished }]) =>
      vanished === null || this.#writing.has(id) ? [] : [{ id, file: vanished }]
    );
  }

  #note(problem: string | null): void {
    const { log } = this.#dir;
    if (problem !== null && this.#trouble === null) {
      log.error("the disk does not take rows", { error: problem });
    }
    if (problem === null && this.#trouble !== null) log.info("the disk takes rows again");
    this.#trouble = problem;
  }

  // ------------------------------------------------------------ start and end

  async *recover(
    onMemos?: (memos: readonly Recovered[], all: boolean) => void,
  ): AsyncGenerator<RecoveredBatch, void, undefined> {
    const { promise, resolve } = Promise.withResolvers<void>();
    void this.#underway.add(promise);
    const { log } = this.#dir;
    let [batches, rows, quarantined] = [0, 0, 0];
    /** A file seems free as long as it is not known what is remembered in it. */
    const journals: (readonly JournalFile[])[] = [];
    try {
      for await (const found of this.deps.earlier()) {
        if (found.kind === "quarantined") quarantined++;
        else if (found.kind === "needless") this.#segments.leave(found.table, found.path);
        else if (found.kind === "journal") journals.push(found.files);
        else if (found.kind === "memos") {
          this.#adoptMemos(found, onMemos);
          for (const files of journals.splice(0)) this.#journal.adopt(files);
        } else {
          const batch = this.#adopt(found);
          if (batch === null) continue;
          batches++;
          rows += found.rows;
          yield batch;
        }
      }
      if (batches + quarantined > 0) log.info("spool recovered", { batches, rows, quarantined });
    } finally {
      this.#moved = null;
      this.#unread = false;
      resolve();
    }
  }

  /** What is not remembered keeps no file. */
  #adoptMemos(
    { memos, all }: Found & { kind: "memos" },
    onMemos?: (memos: readonly Recovered[], all: boolean) => void,
  ): void {
    if (onMemos === undefined) return;
    for (const { memo, file } of memos) addMemo(file, memo);
    onMemos(memos.map(({ memo }) => memo), all);
  }

  /** Null where a batch of that id is held: the next start finds this one. */
  #adopt(found: Found & { kind: "batch" }): RecoveredBatch | null {
    const { head, segment, parts, rows, bytes, types, trail } = found;
    const { id } = head;
    if (this.#kept.has(id)) {
      for (const { file } of parts) file.batches.delete(id);
      for (const file of trail?.files ?? []) file.batches.delete(id);
      const file = segment?.path ?? parts[0]?.file.path;
      this.#dir.log.warn("rows in the spool wait: a batch of their id is held", {
        file,
        batch: id,
      });
      return null;
    }
    const oldestMs = head.oldestMs ?? this.deps.clock.nowMs();
    const kept = new Kept({ ...head, oldestMs }, null);
    kept.segment = segment;
    kept.journaled = found.journaled;
    this.#kept.set(id, kept);
    if (segment !== null) this.#segments.adopt(segment);
    for (const part of parts) this.#add(kept, part);
    if (trail !== null) {
      kept.trail = linesOf(trail);
      kept.noted = kept.trail.length;
      kept.noteFiles = trail.files;
    }
    return { ...kept.head, rows, bytes, types, trail: kept.trail };
  }

  async close(): Promise<void> {
    await this.#underway.idle();
    await this.#writeMemosAgain();
    const { files } = this.#journal;
    if (files.every(({ batches }) => batches.size === 0)) {
      // One file is enough for what the next start is to remember.
      for (const file of files.slice(0, -1)) if (!await this.#moveMemos(file)) break;
      await this.#underway.idle();
    }
    // Where all files go, nothing is to be said of what they held.
    const reached = this.#reached.size > 0 && !files.every(isFree);
    if (this.#settled.length > 0 || reached) await this.#round();
    await this.#syncMarks();
    await this.#journal.close();
    await this.#segments.close();
  }
}

/** Of what lives there, as much as moves at once. */
function firstOf(memos: ReadonlySet<Memo>): Memo[] {
  const first: Memo[] = [];
  let names = 0;
  for (const memo of memos) {
    if (memo.gone) continue;
    names += "ids" in memo ? memo.count : 1;
    if (first.length > 0 && names > NAMES_A_FRAME) break;
    first.push(memo);
  }
  return first;
}

function notesOf({ head, trail }: Kept, from: number, to: number): Note[] {
  return trail.slice(from, to).map((line, at) => ({ batch: head.id, n: from + at, line }));
}

/** Parts of a batch that follow each other, as one. */
function joined(parts: readonly Part[]): { from: number; rows: number; bytes: number } {
  return {
    from: parts[0]!.from,
    rows: parts.reduce((sum, { rows }) => sum + rows, 0),
    bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}
