/**
 * A file of rows, of any size, in batches: plain, gzip or zstd, as NDJSON, CSV or TSV. A batch ends with a row,
 * and where it ends depends on the bytes before alone: the same file gives the same batches each time, from
 * any of them on. At most one batch and one row are in memory.
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";

export type RowsFormat = "ndjson" | "csv" | "tsv";

export const CONTENT_TYPES: Readonly<Record<RowsFormat, string>> = {
  ndjson: "application/x-ndjson",
  csv: "text/csv",
  tsv: "text/tab-separated-values",
};

/** By the name: `flights.csv.gz` is CSV; what no ending tells is NDJSON. */
export function formatOf(path: string): RowsFormat {
  const bare = path.replace(/\.(?:gz|zst|zstd)$/i, "");
  return /\.csv$/i.test(bare) ? "csv" : /\.(?:tsv|tab)$/i.test(bare) ? "tsv" : "ndjson";
}

/** Rows that are sent together. */
export interface RowsBatch {
  /** Where it begins in the unpacked file, and where the next one does. */
  readonly offset: number;
  readonly end: number;
  /** The number of its first line in the file, from 1, and that of the next batch's. */
  readonly line: number;
  readonly endLine: number;
  readonly rows: number;
  /** As they stand in the file, without the header. */
  readonly body: Uint8Array;
}

/** Of a batch; and a row longer than this is none. */
export const BATCH_BYTES = 1024 * 1024;
export const BATCH_ROWS = 10_000;
const MOST_ROW_BYTES = 8 * 1024 * 1024;

/** What tells a file from every other: its length, its first bytes and its last ones. */
export async function identityOf(path: string): Promise<{ identity: string; bytes: number }> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const hash = createHash("sha256").update(String(size));
    const piece = Buffer.alloc(SAMPLE_BYTES);
    for (const at of [0, Math.max(0, size - SAMPLE_BYTES)]) {
      const { bytesRead } = await file.read(piece, 0, SAMPLE_BYTES, at);
      hash.update(piece.subarray(0, bytesRead));
    }
    return { identity: hash.digest("base64url").slice(0, 22), bytes: size };
  } finally {
    await file.close();
  }
}

const SAMPLE_BYTES = 64 * 1024;

/** Thrown for what no row can be read from. */
export class UnreadableFile extends Error {}

export class RowsFile {
  readonly #path: string;
  readonly #format: RowsFormat;
  /** Of the file, as it is packed: how much was read. */
  readBytes = 0;
  #cutter: Cutter | null = null;

  constructor(path: string, format: RowsFormat) {
    this.#path = path;
    this.#format = format;
  }

  /** The header line of CSV, with its line end, once there is a batch; empty for NDJSON. */
  get header(): Uint8Array {
    return this.#cutter?.header ?? NOTHING;
  }

  get headerLines(): number {
    return this.#cutter?.headerLines ?? 0;
  }

  /** @param from where the first batch begins that is wanted. */
  async *batches(from: number): AsyncGenerator<RowsBatch> {
    const cutter = this.#cutter = new Cutter(this.#format, from);
    for await (const chunk of unpacked(this.#counted())) yield* cutter.push(chunk);
    yield* cutter.end();
  }

  async *#counted(): AsyncGenerator<Buffer> {
    for await (const chunk of createReadStream(this.#path, { highWaterMark: CHUNK_BYTES })) {
      this.readBytes += chunk.length;
      yield chunk as Buffer;
    }
  }
}

/** A batch in two, between rows that are about in its middle; null for one row. */
export function halves(batch: RowsBatch, format: RowsFormat): readonly RowsBatch[] | null {
  const { offset, line, rows, body } = batch;
  if (rows < 2) return null;
  const cutter = new Cutter(format, 0, {
    rows: rows - 1,
    bytes: Math.ceil(body.length / 2),
    header: false,
  });
  const [first, ...rest] = [...cutter.push(body), ...cutter.end()].map((piece) => ({
    ...piece,
    offset: offset + piece.offset,
    end: offset + piece.end,
    line: line + piece.line - 1,
    endLine: line + piece.endLine - 1,
  }));
  if (first === undefined || rest.length === 0) return null;
  const second = {
    ...batch,
    offset: first.end,
    line: first.endLine,
    rows: rows - first.rows,
    body: body.subarray(first.body.length),
  };
  return [first, second];
}

const CHUNK_BYTES = 256 * 1024;
const NOTHING = new Uint8Array(0);

// ── Where rows end.

const NEWLINE = 10;
const RETURN = 13;
const QUOTE = 34;
/** A byte order mark, behind which the first field begins. */
const MARK = [0xef, 0xbb, 0xbf];

/** Finds the ends of rows in chunks that come one after the other. */
class Cutter {
  readonly #format: RowsFormat;
  readonly #delimiter: number;
  readonly #from: number;
  header: Uint8Array = NOTHING;
  headerLines = 0;
  #headerDone: boolean;
  /** Bytes that belong to the batch under way, and to a row that has not ended. */
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  /** Of these: up to the end of the last whole row. */
  #wholeBytes = 0;
  #rows = 0;
  #offset = 0;
  #line = 1;
  /** Line ends since the batch began, and up to the end of its last whole row. */
  #lines = 0;
  #wholeLines = 0;
  /** Of the row under way. */
  #blank = true;
  #ended = false;
  #fieldBegins = true;
  #quoted = false;
  /** The byte before closed a field's quotes. */
  #closed = false;

  readonly #most: { readonly rows: number; readonly bytes: number };

  constructor(
    format: RowsFormat,
    from: number,
    most = { rows: BATCH_ROWS, bytes: BATCH_BYTES, header: format !== "ndjson" },
  ) {
    this.#format = format;
    this.#delimiter = format === "tsv" ? 9 : 44;
    this.#from = from;
    this.#most = most;
    this.#headerDone = !most.header;
  }

  *push(chunk: Uint8Array): Generator<RowsBatch> {
    let begun = 0;
    for (let at = 0; at < chunk.length;) {
      at = this.#rowEnd(chunk, at);
      if (!this.#ended) break;
      this.#take(chunk.subarray(begun, at));
      begun = at;
      yield* this.#row();
    }
    this.#take(chunk.subarray(begun));
    if (this.#bytes - this.#wholeBytes > MOST_ROW_BYTES) {
      throw new UnreadableFile(
        `the row at line ${this.#line + this.#wholeLines} is longer than ${MOST_ROW_BYTES} bytes`,
      );
    }
  }

  *end(): Generator<RowsBatch> {
    if (this.#bytes > this.#wholeBytes) {
      this.#lines++;
      yield* this.#row();
    }
    if (this.#rows > 0) yield* this.#batch();
  }

  /** Behind the end of the row that `at` is in; the end of the chunk where the row goes on. */
  #rowEnd(chunk: Uint8Array, at: number): number {
    this.#ended = false;
    for (; at < chunk.length; at++) {
      const byte = chunk[at]!;
      if (byte === NEWLINE) {
        this.#lines++;
        if (this.#quoted) continue;
        this.#fieldBegins = true;
        this.#ended = true;
        return at + 1;
      }
      if (byte > 32) this.#blank = false;
      if (this.#format === "ndjson") continue;
      if (byte === QUOTE) {
        // A doubled one closes and opens again.
        if (this.#quoted) this.#quoted = false;
        else if (this.#fieldBegins || this.#closed) this.#quoted = true;
        this.#closed = !this.#quoted;
        this.#fieldBegins = false;
      } else if (!this.#quoted && (this.#headerDone || !MARK.includes(byte))) {
        this.#fieldBegins = byte === this.#delimiter;
        if (byte !== RETURN) this.#closed = false;
      }
    }
    return at;
  }

  #take(piece: Uint8Array): void {
    if (piece.length === 0) return;
    this.#pieces.push(piece);
    this.#bytes += piece.length;
  }

  /** A row has ended. */
  *#row(): Generator<RowsBatch> {
    this.#wholeBytes = this.#bytes;
    this.#wholeLines = this.#lines;
    const blank = this.#blank;
    this.#blank = true;
    this.#quoted = this.#closed = false;
    if (!this.#headerDone) {
      if (blank) return;
      this.#headerDone = true;
      this.header = this.#body();
      this.headerLines = this.#lines;
      return this.#next();
    }
    if (!blank) this.#rows++;
    const { rows, bytes } = this.#most;
    if (this.#rows >= rows || this.#bytes >= bytes) yield* this.#batch();
  }

  *#batch(): Generator<RowsBatch> {
    const offset = this.#offset, end = offset + this.#bytes;
    const line = this.#line, endLine = line + this.#lines;
    if (offset >= this.#from && this.#rows > 0) {
      yield { offset, end, line, endLine, rows: this.#rows, body: this.#body() };
    }
    this.#next();
  }

  #body(): Uint8Array {
    return Buffer.concat(this.#pieces);
  }

  #next(): void {
    this.#offset += this.#bytes;
    this.#line += this.#lines;
    this.#pieces = [];
    this.#bytes =
      this.#wholeBytes =
      this.#rows =
      this.#lines =
      this.#wholeLines =
        0;
  }
}

// ── Packed files, by their first bytes.

async function* unpacked(source: AsyncGenerator<Buffer>): AsyncGenerator<Uint8Array> {
  const first = await source.next();
  if (first.done) return;
  const begin = first.value;
  async function* whole(): AsyncGenerator<Buffer> {
    yield begin;
    yield* source;
  }
  if (begin[0] === 0x1f && begin[1] === 0x8b) {
    yield* through(whole(), createGunzip());
  } else if (begin.length >= 4 && isZstd(begin.readUInt32LE(0))) {
    yield* unpackedZstd(whole());
  } else {
    yield* whole();
  }
}

/** Both streams' errors end it. */
async function* through(
  source: AsyncGenerator<Uint8Array>,
  unpacker: ReturnType<typeof createGunzip>,
): AsyncGenerator<Uint8Array> {
  const from = Readable.from(source, { objectMode: false });
  from.on("error", (error) => unpacker.destroy(error));
  try {
    yield* from.pipe(unpacker) as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw new UnreadableFile(`cannot be unpacked: ${(error as Error).message}`);
  }
}

const FRAME = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;

function isZstd(magic: number): boolean {
  return magic === FRAME || (magic & 0xfffffff0) >>> 0 === SKIPPABLE;
}

/**
 * Frame by frame (RFC 8878): of the runtimes' unpackers one stops behind the first frame, and none notices
 * that the last one is cut short.
 */
async function* unpackedZstd(source: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const bytes = new Bytes(source);
  for (;;) {
    const magic = await bytes.upTo(4);
    if (magic.length === 0) return;
    if (magic.length < 4) throw CUT;
    const kind = Buffer.from(magic).readUInt32LE(0);
    if (!isZstd(kind)) throw new UnreadableFile("cannot be unpacked: not zstd behind a frame");
    if (kind === FRAME) yield* through(frame(bytes, magic), createZstdDecompress());
    else for await (const _ of bytes.exactly(Buffer.from(await bytes.all(4)).readUInt32LE(0)));
  }
}

const CUT = new UnreadableFile("cannot be unpacked: it is cut short");

/** The bytes of one frame. */
async function* frame(bytes: Bytes, magic: Uint8Array): AsyncGenerator<Uint8Array> {
  const descriptor = await bytes.all(1);
  const flags = descriptor[0]!;
  const single = (flags & 0x20) !== 0;
  const sizeBytes = [single ? 1 : 0, 2, 4, 8][flags >> 6]!;
  const rest = (single ? 0 : 1) + [0, 1, 2, 4][flags & 3]! + sizeBytes;
  yield Buffer.concat([magic, descriptor, await bytes.all(rest)]);
  for (let last = false; !last;) {
    const head = await bytes.all(3);
    yield head;
    const header = head[0]! | (head[1]! << 8) | (head[2]! << 16);
    last = (header & 1) !== 0;
    // A run-length block is one byte, whatever size it unpacks to.
    yield* bytes.exactly((header >> 1 & 3) === 1 ? 1 : header >> 3);
  }
  if ((flags & 4) !== 0) yield await bytes.all(4);
}

/** Chunks, taken by the number of bytes. */
class Bytes {
  readonly #source: AsyncGenerator<Uint8Array>;
  #rest: Uint8Array = NOTHING;

  constructor(source: AsyncGenerator<Uint8Array>) {
    this.#source = source;
  }

  async upTo(count: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for await (const piece of this.#pieces(count)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  async all(count: number): Promise<Uint8Array> {
    const found = await this.upTo(count);
    if (found.length < count) throw CUT;
    return found;
  }

  async *exactly(count: number): AsyncGenerator<Uint8Array> {
    let left = count;
    for await (const piece of this.#pieces(count)) {
      left -= piece.length;
      yield piece;
    }
    if (left > 0) throw CUT;
  }

  async *#pieces(count: number): AsyncGenerator<Uint8Array> {
    for (let left = count; left > 0;) {
      if (this.#rest.length === 0) {
        const next = await this.#source.next();
        if (next.done) return;
        this.#rest = next.value;
      }
      const piece = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }
}
