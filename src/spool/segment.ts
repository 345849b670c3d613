/**
 * Segments: what such a file looks like inside, how a damaged one is read (both pure), and all of them on disk.
 *
 * A segment holds one batch: NDJSON, the very rows of the INSERT, written whole; in files of 0.1 in groups
 * that were synced together. Behind the rows of each group stands its seal: a line of 32 blanks (0) and tabs (1) that
 * spell the CRC-32 of the group's row bytes, highest bit first. JSON allows blanks between values, so
 * `cat` shows rows, ClickHouse takes the file as it is and counts rows and not lines in `at row N`,
 * and rows and checksum are safe with one sync; a file beside it would need two.
 *
 * A bit that is flipped, wherever it is, costs the group that it is in and no other: a blank and a tab
 * differ in three bits, so a damaged seal is no other seal, and the group behind the damage is found
 * by its own seal, wherever it begins.
 *
 * A file's name says what its batch is: `<id>.<shape>.<columns fingerprint or ->.ndjson`.
 */

import { basename, dirname, join } from "node:path";
import type { BatchHead, Files, Log, OpenFile, Shape } from "../contracts.ts";
import { nodeZlib } from "../kernel/builtins.ts";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { allEnded, Underway } from "../kernel/time.ts";
import { type DataDir, makeTableFolder, moveToQuarantine } from "./data_dir.ts";

const NEWLINE = 0x0a;
const BLANK = 0x20;
const TAB = 0x09;
const SEAL_CHARS = 32;
/** A seal with its newline. */
export const SEAL_BYTES = SEAL_CHARS + 1;
/** A line of a seal's length with this many blanks and tabs was one. */
const DAMAGED_SEAL_BLANKS = 24;
/** Every row is a JSON object, so every group begins with it. */
const BRACE = 0x7b;
/** Of CRC-32, lowest power first. */
const POLYNOMIAL = 0xedb88320 | 0;

/** @param before the CRC of the bytes in front of these. */
function crc32(bytes: Uint8Array, before = 0): number {
  return nodeZlib().crc32(bytes, before);
}

/** Bytes `start` (included) to `end` (excluded). */
export interface Range {
  readonly start: number;
  readonly end: number;
}

export interface SegmentContent {
  /** The rows of each group whose seal agrees with them, without the seal; in order. */
  readonly good: readonly Range[];
  /** Everything else but the seals of good groups; in order. */
  readonly bad: readonly Range[];
  /** Rows in `good`. */
  readonly rows: number;
}

export interface SegmentName {
  /** The batch's id in small letters: a UUIDv7, or v8 for replayed letters. */
  readonly id: string;
  readonly shape: Shape;
  /** `Columns.fingerprint`: letters and digits. */
  readonly fingerprint: string | null;
}

const ID = "[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
const FINGERPRINT = "[0-9A-Za-z]{1,64}";
const IS_ID = new RegExp(`^${ID}$`);
const IS_FINGERPRINT = new RegExp(`^${FINGERPRINT}$`);
const NAME = new RegExp(`^(${ID})\\.(event|row)\\.(-|${FINGERPRINT})\\.ndjson$`);

export function isBatchId(value: unknown): value is string {
  return typeof value === "string" && IS_ID.test(value);
}

export function isFingerprint(value: unknown): value is string {
  return typeof value === "string" && IS_FINGERPRINT.test(value);
}

/** The name of a segment's file within its table's folder. */
export function segmentName({ id, shape, fingerprint }: SegmentName): string {
  const name = `${id}.${shape}.${fingerprint ?? "-"}.ndjson`;
  if (!NAME.test(name)) throw new Error(`not a segment's name: ${JSON.stringify(name)}`);
  return name;
}

/** Null for a name that no segment has. */
export function parseSegmentName(text: string): SegmentName | null {
  const match = NAME.exec(text);
  if (match === null) return null;
  const [, id = "", shape, fingerprint = "-"] = match;
  return {
    id,
    shape: shape === "event" ? "event" : "row",
    fingerprint: fingerprint === "-" ? null : fingerprint,
  };
}

/** When a UUIDv7 was minted, epoch milliseconds; null for an id without a time. */
export function mintedMs(id: string): number | null {
  return id[14] === "7" ? parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : null;
}

/**
 * The line that seals a group.
 * @param rows the group's bytes, or their CRC-32 where it is known already.
 */
export function sealLine(rows: Uint8Array | number): Uint8Array {
  const crc = typeof rows === "number" ? rows : crc32(rows);
  const line = new Uint8Array(SEAL_BYTES);
  for (let bit = 0; bit < SEAL_CHARS; bit++) line[bit] = (crc << bit) < 0 ? TAB : BLANK;
  line[SEAL_CHARS] = NEWLINE;
  return line;
}

/**
 * A group's rows and its seal, in the pieces that they are to be written in: most groups are one.
 * @param room where each piece lies until the next one is asked for; at least as large as a seal.
 */
function* sealed(rows: readonly Uint8Array[], room: Uint8Array): Generator<Uint8Array> {
  let crc = 0;
  let used = 0;
  for (const part of rows) {
    for (let at = 0; at < part.length;) {
      if (used === room.length) {
        crc = crc32(room, crc);
        yield room;
        used = 0;
      }
      const next = part.subarray(at, at + room.length - used);
      room.set(next, used);
      used += next.length;
      at += next.length;
    }
  }
  crc = crc32(room.subarray(0, used), crc);
  if (used + SEAL_BYTES > room.length) {
    yield room.subarray(0, used);
    used = 0;
  }
  room.set(sealLine(crc), used);
  yield room.subarray(0, used + SEAL_BYTES);
}

/** Whatever the bytes are: what of them can be trusted. Takes time linear in their length. */
export function readSegment(bytes: Uint8Array): SegmentContent {
  const good: Range[] = [];
  const bad: Range[] = [];
  let rows = 0;
  /** Everything before it is judged. */
  let judged = 0;
  /** Behind the last whole seal, its group good or bad: no group begins before it. */
  let from = 0;
  for (let at = 0, end; at < bytes.length; at = end) {
    end = lineEnd(bytes, at);
    if (!isSeal(bytes, at, end)) continue;
    const start = groupStart(bytes, from, at, sealAt(bytes, at));
    from = end;
    if (start === null) continue;
    if (start > judged) bad.push({ start: judged, end: start });
    good.push({ start, end: at });
    rows += countLines(bytes, start, at);
    judged = end;
  }
  if (judged < bytes.length) bad.push({ start: judged, end: bytes.length });
  return { good, bad, rows };
}

/** Lines in a range that are no seals, damaged ones included: about so many rows were there. */
export function roughRows(bytes: Uint8Array, { start, end }: Range): number {
  let rows = 0;
  for (let at = start, next; at < end; at = next) {
    next = Math.min(lineEnd(bytes, at), end);
    const length = bytes[next - 1] === NEWLINE ? next - 1 - at : next - at;
    const blanks = countBlanks(bytes, at, at + length);
    const seal = length === SEAL_CHARS && blanks >= DAMAGED_SEAL_BLANKS;
    if (blanks < length && !seal) rows++;
  }
  return rows;
}

/**
 * Where the group begins that ends at `end` and has this CRC, not before `from`; null: nowhere. Most
 * often it is `from`. If not, every byte that can begin a row is tried: going backwards, the CRC of
 * what lies between there and `end` grows by a byte at a time, so each byte is looked at once.
 */
function groupStart(bytes: Uint8Array, from: number, end: number, crc: number): number | null {
  if (from < end && crc32(bytes.subarray(from, end)) === crc) return from;
  // CRC-32 is linear: a set bit adds a term that depends on its distance from the end alone, and so
  // do the 32 ones that the register begins with. A step away from the end is a division by 2.
  let sum = 0;
  let term = POLYNOMIAL;
  let ones = -1;
  for (let at = end - 1; at >= from; at--) {
    const byte = bytes[at]!;
    for (let bit = 7; bit >= 0; bit--) {
      if ((byte >> bit & 1) === 1) sum ^= term;
      term = (term >>> 1) ^ (-(term & 1) & POLYNOMIAL);
      ones = (ones >>> 1) ^ (-(ones & 1) & POLYNOMIAL);
    }
    if (byte === BRACE && ~(sum ^ ones) === (crc | 0)) return at;
  }
  return null;
}

/** Behind the newline of the line that begins at `at`, or the end of the bytes. */
function lineEnd(bytes: Uint8Array, at: number): number {
  const newline = bytes.indexOf(NEWLINE, at);
  return newline < 0 ? bytes.length : newline + 1;
}

/** Whether the line [at, end) is a whole seal. */
function isSeal(bytes: Uint8Array, at: number, end: number): boolean {
  return end - at === SEAL_BYTES && bytes[end - 1] === NEWLINE &&
    countBlanks(bytes, at, end - 1) === SEAL_CHARS;
}

/** The CRC that the seal at `at` spells. */
function sealAt(bytes: Uint8Array, at: number): number {
  let crc = 0;
  for (let bit = 0; bit < SEAL_CHARS; bit++) crc = (crc << 1) | (bytes[at + bit] === TAB ? 1 : 0);
  return crc >>> 0;
}

function isBlank(byte: number | undefined): boolean {
  return byte === BLANK || byte === TAB;
}

function countBlanks(bytes: Uint8Array, from: number, to: number): number {
  let blanks = 0;
  for (let at = from; at < to; at++) if (isBlank(bytes[at])) blanks++;
  return blanks;
}

function countLines(bytes: Uint8Array, start: number, end: number): number {
  let lines = 0;
  for (let at = start; at < end; at = lineEnd(bytes, at)) lines++;
  return lines;
}

// ── Segments on disk: batches that memory has let go, each whole in a file of its own, written without
// hurry and removed when its rows have left.

/** What is written at once. */
const ROOM_BYTES = 256 * 1024;

/** One batch's file. */
export interface Segment {
  readonly table: string;
  readonly path: string;
  readonly bytes: number;
  /** Damaged parts of it are nowhere else: it goes to quarantine, where another one is removed. */
  readonly keep: boolean;
}

export class Segments {
  /** Of all files, also of those that the disk does not let go. */
  bytes = 0;
  /** Tables' folders that are known to be there. */
  readonly #folders = new Map<string, string>();
  /** What the disk would not let go. */
  #leftovers: Segment[] = [];
  readonly #underway = new Underway();

  constructor(readonly dir: DataDir) {}

  /** A file that was found. */
  adopt(segment: Segment): void {
    this.bytes += segment.bytes;
  }

  /** A file without which all is known, and that the disk does not let go: it is tried again. */
  leave(table: string, path: string): void {
    this.#leftovers.push({ table, path, bytes: 0, keep: false });
  }

  /** A batch's rows, safe once this resolves. Rejects with the disk's error; then nothing is there. */
  async write(head: BatchHead, body: readonly Uint8Array[]): Promise<Segment> {
    const { files } = this.dir;
    const { table } = head;
    const { file, path } = await this.#create(head);
    // One that was left there has gone all the same.
    this.#leftovers = this.#leftovers.filter((left) => left.path !== path);
    let bytes = 0;
    try {
      for (const piece of sealed(body, new Uint8Array(ROOM_BYTES))) {
        await file.write(piece);
        bytes += piece.length;
      }
      await allEnded([file.sync(), files.syncFolder(dirname(path))]);
    } catch (error) {
      await this.#shut(file);
      await this.remove({ table, path, bytes: 0, keep: false });
      throw error;
    }
    await this.#shut(file);
    this.bytes += bytes;
    return { table, path, bytes, keep: false };
  }

  async #create(head: BatchHead): Promise<{ readonly file: OpenFile; readonly path: string }> {
    const { table } = head;
    const folder = this.#folders.get(table) ?? await makeTableFolder(this.dir, table);
    this.#folders.set(table, folder);
    const path = join(folder, segmentName(head));
    try {
      return { file: await this.dir.files.create(path), path };
    } catch (error) {
      // The folder may have been removed under us: it is made again next time.
      this.#folders.delete(table);
      throw error;
    }
  }

  async #shut(file: OpenFile): Promise<void> {
    try {
      await file.close();
    } catch (error) {
      this.dir.log.warn("segment could not be closed", { error: reasonOf(error) });
    }
  }

  /**
   * Its rows have left, or it is no good. A file that stays is sent again after a restart. To be waited
   * for where its name may be wanted again at once. Never rejects.
   */
  remove(segment: Segment): Promise<void> {
    return this.#underway.add(this.#discard(segment));
  }

  async #discard(segment: Segment): Promise<void> {
    if (!await this.#unlink(segment, "warn")) this.#leftovers.push(segment);
    else if (this.#leftovers.length > 0) await this.removeLeftovers();
  }

  /**
   * Tries again what could not be removed: what still lies there at the next start is sent a second
   * time, and where ClickHouse has forgotten its token by then it is stored a second time.
   */
  async removeLeftovers(): Promise<void> {
    const segments = this.#leftovers;
    this.#leftovers = [];
    while (segments.length > 0 && await this.#unlink(segments[0]!, "debug")) segments.shift();
    this.#leftovers.push(...segments);
  }

  async #unlink({ table, path, bytes, keep }: Segment, level: keyof Log): Promise<boolean> {
    try {
      if (keep) await moveToQuarantine(this.dir, path, `${table}.${basename(path)}`);
      else await this.dir.files.remove(path);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") {
        const fields = { file: path, error: reasonOf(error) };
        this.dir.log[level]("segment could not be removed", fields);
        return false;
      }
    }
    this.bytes -= bytes;
    return true;
  }

  /**
   * Which of these are certainly gone: removed by hand, as nothing of ours removes a file while its rows
   * are held.
   */
  async findVanished(segments: readonly Segment[]): Promise<readonly Segment[]> {
    this.#folders.clear();
    const names = new Map<string, ReadonlySet<string> | null>();
    for (const folder of new Set(segments.map(({ path }) => dirname(path)))) {
      names.set(folder, await namesIn(this.dir.files, folder));
    }
    return segments.filter(({ path }) => names.get(dirname(path))?.has(basename(path)) === false);
  }

  /** Counts no more: it has vanished. */
  forget({ bytes }: Segment): void {
    this.bytes -= bytes;
  }

  /** Folders may be gone. */
  forgetFolders(): void {
    this.#folders.clear();
  }

  async close(): Promise<void> {
    await this.#underway.idle();
    await this.removeLeftovers();
  }
}

/**
 * What is in a folder; null where that cannot be told. A folder that cannot be read says nothing of what
 * is in it; one that is not in the folder above is gone with all it held.
 */
export async function namesIn(files: Files, folder: string): Promise<ReadonlySet<string> | null> {
  const names = await files.list(folder).catch(() => null);
  if (names !== null) return new Set(names);
  const above = await files.list(dirname(folder)).catch(() => null);
  return above === null || above.includes(`${basename(folder)}/`) ? null : new Set();
}
