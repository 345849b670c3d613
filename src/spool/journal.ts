/**
 * The journal's files: where the next frames go, what is safe, and which file is written over next.
 * `frame.ts` knows what stands in them.
 *
 * Files are a queue. Frames are written to the newest; the oldest is free when no batch needs a frame
 * of it, and is recycled before a new one is made: so there are as many files as what is held needs,
 * each as long as it once became, and none of them grows. That it is always the oldest makes marks
 * safe: what a mark speaks of stands in its own file or in an older one.
 *
 * Rounds are the caller's: never two at once.
 */

import { Buffer } from "node:buffer";
import { basename, dirname, join } from "node:path";
import type { Files, Memo, PlacedFile } from "../contracts.ts";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { allEnded, Underway } from "../kernel/time.ts";
import { type DataDir, journalFolder, moveToQuarantine } from "./data_dir.ts";
import { type FrameText, LONGEST_HEAD_BYTES, rowsAt, VOID_FRAME, written } from "./frame.ts";
import { namesIn } from "./segment.ts";

/** A file is left for the next one at this length. */
export const FILE_BYTES = 16 * 1024 * 1024;
/** Free files that wait to be written over; what was needed beyond them goes. */
const SPARE_FILES = 2;
/** What is written at once. */
const ROOM_BYTES = 512 * 1024;

/** A file of the journal under one number; recycled, it is another one. */
export interface JournalFile {
  readonly path: string;
  /** Its name, and in each of its frames. */
  readonly number: number;
  /** How long it is. */
  bytes: number;
  /** Behind its last live frame. */
  end: number;
  /** Number of the last frame that was begun. */
  frames: number;
  /** Marks stand in it. */
  marked: boolean;
  /** Ids of batches that need frames of it. */
  readonly batches: Set<string>;
  /** What is remembered that stands in it and in no newer file; some may be gone. */
  readonly memos: Set<Memo>;
  /** So many memos, and those that are gone are looked for. */
  sweepAt: number;
  /** Damaged parts of it are nowhere else: it goes to quarantine, where another one is removed. */
  keep: boolean;
}

/** Where a frame stands. */
export interface Place {
  readonly file: JournalFile;
  readonly at: number;
  readonly length: number;
}

/** Rows of a batch in a frame. */
export interface Part extends Place {
  /** How many rows of the batch stand before them. */
  readonly from: number;
  readonly rows: number;
  readonly bytes: number;
}

const SWEEP_AT = 1000;
/**
 * More between two frames, and than the next one is long, is not read for their sake: with many tables it is
 * mostly those of others.
 */
const NEAR_BYTES = 16 * 1024;
/** Read in one go, where no frame is longer; and at the same time. */
const STRETCH_BYTES = 1024 * 1024;
const STRETCHES = 16;
const NAME = /^(\d{1,15})\.ndjson$/;

export const journalName = (number: number): string => `${String(number).padStart(13, "0")}.ndjson`;

/** Null for a name that no journal file has. */
export function journalNumber(name: string): number | null {
  const number = Number(NAME.exec(name)?.[1] ?? NaN);
  return journalName(number) === name ? number : null;
}

export function journalFile(path: string, number: number, bytes: number): JournalFile {
  return {
    path,
    number,
    bytes,
    end: 0,
    frames: 0,
    marked: false,
    batches: new Set(),
    memos: new Set(),
    sweepAt: SWEEP_AT,
    keep: false,
  };
}

/** Nothing in it is needed. */
export function isFree(file: JournalFile): boolean {
  return file.batches.size === 0 && !hasMemos(file);
}

export function hasMemos({ memos }: JournalFile): boolean {
  for (const memo of memos) {
    if (!memo.gone) return true;
    memos.delete(memo);
  }
  return false;
}

/** It stands in this file now. */
export function addMemo(file: JournalFile, memo: Memo): void {
  const { memos } = file;
  memos.add(memo);
  if (memos.size < file.sweepAt) return;
  // The mark of each chunk is gone when the next one is there.
  for (const memo of memos) if (memo.gone) memos.delete(memo);
  file.sweepAt = SWEEP_AT + 2 * memos.size;
}

export interface JournalDeps {
  readonly dir: DataDir;
  readonly nowMs: () => number;
  readonly fileBytes?: number | undefined;
}

export class Journal {
  /** The oldest first. */
  #files: JournalFile[] = [];
  /** The newest, unless a new one is to be begun. */
  #active: JournalFile | null = null;
  /** Of `#active`; null while nothing is written. */
  #open: PlacedFile | null = null;
  /** Its name is: a file that was made and not synced since may be gone after a power cut. */
  #named = true;
  /** Something of it was written and not synced since. */
  #unsynced = false;
  /** Files that the disk would not let go. */
  readonly #stuck = new WeakSet<JournalFile>();
  /** The last write went wrong. */
  #failed = false;
  /** The folder is known to be there. */
  #ready = false;
  /** The highest that was given. */
  #number = 0;
  #room: Buffer | null = null;
  readonly #underway = new Underway();
  readonly #dir: DataDir;
  readonly #folder: string;
  readonly #fileBytes: number;

  constructor(readonly deps: JournalDeps) {
    this.#dir = deps.dir;
    this.#folder = journalFolder(deps.dir.dataDir);
    this.#fileBytes = deps.fileBytes ?? FILE_BYTES;
  }

  /** How many there are; of which the oldest is written over next. */
  get files(): readonly JournalFile[] {
    return this.#files;
  }

  /** Files that an earlier process left, in their order; they are older than all that is written here. */
  adopt(files: readonly JournalFile[]): void {
    this.#files.unshift(...files);
  }

  /**
   * Frames for one file, one behind the other. Rejects with the disk's error; then none of them counts.
   * @param sync whether they are safe once this resolves.
   */
  async write(frames: readonly FrameText[], sync: boolean, marks: boolean): Promise<Place[]> {
    const file = await this.#fileFor(sizeOf(frames));
    this.#failed = true;
    try {
      const places = await this.#writeTo(file, frames, sync);
      file.marked ||= marks;
      this.#failed = false;
      return places;
    } catch (error) {
      // What was refused must not come back. Where that cannot be said either, a crash may bring it back.
      await this.#writeTo(file, [VOID_FRAME], true).catch(() => {});
      await this.#shut();
      throw error;
    }
  }

  async #writeTo(file: JournalFile, frames: readonly FrameText[], sync: boolean): Promise<Place[]> {
    const open = this.#open ??= await this.#dir.files.overwrite(file.path);
    const room = this.#room ??= Buffer.allocUnsafe(Math.max(ROOM_BYTES, 2 * LONGEST_HEAD_BYTES));
    const first = file.frames + 1;
    file.frames += frames.length;
    const lengths: number[] = [];
    const pieces = written(frames, file.number, first, room, lengths);
    let end = file.end;
    // In one call, unless that would leave something unsafe that was written before.
    const inOne = sync && !this.#unsynced && sizeOf(frames) + LONGEST_HEAD_BYTES <= room.length;
    this.#unsynced = true;
    let last: Uint8Array | null = null;
    for (const piece of pieces) {
      if (inOne) last = piece;
      else await open.write(piece, end);
      end += piece.length;
    }
    if (sync) {
      const synced = last === null ? open.sync() : open.writeSafe(last, file.end);
      // Both at once: the first rows wait for the slower of two syncs, not for their sum.
      await (this.#named ? synced : allEnded([synced, this.#dir.files.syncFolder(this.#folder)]));
      this.#named = true;
      this.#unsynced = false;
    }
    let at = file.end;
    file.end = end;
    file.bytes = Math.max(file.bytes, open.bytes);
    return lengths.map((length) => {
      const place = { file, at, length };
      at += length;
      return place;
    });
  }

  /** Makes what was written without a sync safe. Rejects with the disk's error. */
  async sync(): Promise<void> {
    await this.#open?.sync();
    this.#unsynced = false;
  }

  // ------------------------------------------------------------ which file

  async #fileFor(bytes: number): Promise<JournalFile> {
    const active = this.#active;
    if (active !== null && !this.#failed) {
      const fits = active.end + bytes <= Math.max(this.#fileBytes, active.bytes);
      if (fits || active.end === 0) return active;
    }
    // A later sync, of another file, is taken to make safe what was written before.
    if (!this.#failed && this.#unsynced) await this.sync();
    await this.#shut();
    this.#active = null;
    this.#failed = false;
    // Where the disk takes nothing, files without a frame would gather.
    if (active !== null && !active.marked && isFree(active)) this.#discard(active);
    await this.#makeReady();
    const oldest = this.#files[0];
    const reusable = oldest !== undefined && this.#isSpare(oldest);
    const next = reusable ? await this.#recycle(oldest) : await this.#create();
    this.#files.push(next);
    this.tidy();
    return this.#active = next;
  }

  /** Nothing needs it, and it may be written over. */
  #isSpare(file: JournalFile): boolean {
    return isFree(file) && !file.keep && file.bytes <= 2 * this.#fileBytes &&
      dirname(file.path) === this.#folder;
  }

  async #makeReady(): Promise<void> {
    if (this.#ready) return;
    const { files, dataDir } = this.#dir;
    await files.makeFolder(this.#folder);
    await files.syncFolder(dataDir);
    for (const name of await files.list(this.#folder)) {
      this.#number = Math.max(this.#number, journalNumber(name) ?? 0);
    }
    this.#ready = true;
  }

  /** Unique for ever, also where a file of that number has been removed. */
  #nextPath(): { number: number; path: string } {
    const number = this.#number = Math.max(this.#number + 1, Math.trunc(this.deps.nowMs()));
    return { number, path: join(this.#folder, journalName(number)) };
  }

  async #create(): Promise<JournalFile> {
    const { number, path } = this.#nextPath();
    try {
      this.#open = await this.#dir.files.overwrite(path);
    } catch (error) {
      // The folder may have been removed under us: it is made again next time.
      this.#ready = false;
      throw error;
    }
    this.#named = false;
    return journalFile(path, number, this.#open.bytes);
  }

  /** Its new name is safe before the first byte of it is another one: it is what it is called. */
  async #recycle(file: JournalFile): Promise<JournalFile> {
    const { files } = this.#dir;
    const { number, path } = this.#nextPath();
    this.#files = this.#files.filter((other) => other !== file);
    try {
      await files.rename(file.path, path);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") this.#files.unshift(file);
      this.#ready = false;
      throw error;
    }
    this.#named = true;
    const next = journalFile(path, number, file.bytes);
    try {
      await files.syncFolder(this.#folder);
    } catch (error) {
      this.#discard(next);
      throw error;
    }
    return next;
  }

  // ------------------------------------------------------------ files that nothing needs

  /** Removes what is free beyond the spare files. @param spares how many may stay. */
  tidy(spares = SPARE_FILES): void {
    let free = this.#files.findIndex((file) => file === this.#active || !isFree(file));
    if (free < 0) free = this.#files.length;
    for (const file of this.#files.slice(0, free)) {
      if (free <= spares && this.#isSpare(file)) break;
      this.#discard(file);
      free--;
    }
  }

  /** Where nothing is held the file in use goes as well: a full disk needs its room. No round may run. */
  async makeRoom(): Promise<void> {
    if (!this.#files.every(isFree)) return this.tidy(0);
    this.#active = null;
    this.#failed = false;
    this.#unsynced = false;
    for (const file of [...this.#files]) this.#discard(file);
    await this.#shut();
    await this.#underway.idle();
  }

  #discard(file: JournalFile): void {
    this.#files = this.#files.filter((other) => other !== file);
    void this.#underway.add(this.#remove(file));
  }

  async #remove(file: JournalFile): Promise<void> {
    try {
      if (file.keep) await moveToQuarantine(this.#dir, file.path, `journal.${basename(file.path)}`);
      else await this.#dir.files.remove(file.path);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      const fields = { file: file.path, error: reasonOf(error) };
      const level = this.#stuck.has(file) ? "debug" : "warn";
      this.#dir.log[level]("journal file could not be removed", fields);
      // Another time.
      this.#stuck.add(file);
      this.#files.unshift(file);
    }
  }

  /** No file stays open while nothing is held. */
  async rest(): Promise<void> {
    if (this.#open === null) return;
    if (this.#files.every(({ batches }) => batches.size === 0)) await this.#shut();
  }

  async #shut(): Promise<void> {
    const open = this.#open;
    this.#open = null;
    await open?.close().catch((error) => {
      this.#dir.log.warn("journal file could not be closed", { error: reasonOf(error) });
    });
  }

  /** A journal that holds nothing leaves nothing: the next start has nothing to read. */
  async close(): Promise<void> {
    await this.#shut();
    if (this.#files.every(({ batches }) => batches.size === 0)) {
      const last = this.#files.at(-1);
      for (const file of [...this.#files]) {
        // What is newer has the marks of what is older, also where that stays for its memos.
        if (!isFree(file)) break;
        // The newest has the marks of the others: it goes when they have gone for certain.
        if (file === last && this.#files.length > 1) await this.#removed();
        this.#discard(file);
      }
    }
    await this.#underway.idle();
  }

  async #removed(): Promise<void> {
    await this.#underway.idle();
    await this.#dir.files.syncFolder(this.#folder).catch(() => {});
  }

  // ------------------------------------------------------------ files that are gone

  /** Files that were removed, though not by us; they are not used any more. */
  async findVanished(): Promise<readonly JournalFile[]> {
    const looked = [...this.#files];
    const names = new Map<string, ReadonlySet<string> | null>();
    for (const folder of new Set(looked.map(({ path }) => dirname(path)))) {
      names.set(folder, await namesIn(this.#dir.files, folder));
    }
    const vanished = looked.filter((file) =>
      // One that was recycled or begun meanwhile is not in a listing from before.
      this.#files.includes(file) &&
      names.get(dirname(file.path))?.has(basename(file.path)) === false
    );
    if (vanished.length === 0) return [];
    this.#files = this.#files.filter((file) => !vanished.includes(file));
    this.#ready = false;
    // It may be in use at this moment: then that fails, for it is in no folder.
    if (this.#active !== null && vanished.includes(this.#active)) this.#failed = true;
    return vanished;
  }
}

/** The rows of frames, each in memory of its own. Rejects where the disk does not have them any more. */
export async function readParts(
  files: Pick<Files, "readPart">,
  places: readonly Place[],
): Promise<Uint8Array[]> {
  const bodies: Uint8Array[] = [];
  const stretches = stretchesOf(places);
  for (let at = 0; at < stretches.length; at += STRETCHES) {
    const some = stretches.slice(at, at + STRETCHES);
    const read = await Promise.all(some.map((stretch) => {
      const { file, at } = stretch[0]!;
      return files.readPart(file.path, at, endOf(stretch.at(-1)!));
    }));
    for (const [index, stretch] of some.entries()) {
      const { bytes } = read[index]!;
      for (const place of stretch) {
        const rows = rowsAt(bytes, place.at - stretch[0]!.at, place.file.number);
        if (rows === null) throw new Error("its rows do not agree with their checksums");
        bodies.push(bytes.slice(rows.start, rows.end));
      }
    }
  }
  return bodies;
}

/** Whether most of what is read to read these is theirs, in few reads. */
export function areClose(places: readonly Place[]): boolean {
  const stretches = stretchesOf(places);
  if (stretches.length <= STRETCHES) return true;
  const read = stretches.reduce((sum, one) => sum + endOf(one.at(-1)!) - one[0]!.at, 0);
  return read / stretches.length >= STRETCH_BYTES / 2;
}

/** What is read at once, for other batches have little between them. */
function stretchesOf(places: readonly Place[]): Place[][] {
  const stretches: Place[][] = [];
  let last: Place[] = [];
  for (const place of places) {
    if (last.length > 0 && isNear(last, place)) last.push(place);
    else stretches.push(last = [place]);
  }
  return stretches;
}

function isNear(stretch: readonly Place[], next: Place): boolean {
  const last = stretch.at(-1)!;
  const between = next.at - endOf(last);
  return last.file === next.file && between >= 0 && between <= Math.max(NEAR_BYTES, next.length) &&
    endOf(next) - stretch[0]!.at <= STRETCH_BYTES;
}

function endOf({ at, length }: Place): number {
  return at + length;
}

function sizeOf(frames: readonly FrameText[]): number {
  let bytes = 0;
  for (const { head, tail, bodies } of frames) {
    bytes += head.length + (tail?.length ?? 0) + 100;
    for (const body of bodies) bytes += body.length;
  }
  return bytes;
}
