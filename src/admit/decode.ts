/**
 * One request's bytes → its good rows as one piece of NDJSON, and what is wrong with the others. The
 * bytes tell what they are, not the Content-Type: a sequence of JSON objects and of arrays of objects, each
 * on one line or on several. White space, commas, record separators (RFC 7464), byte order marks or nothing
 * stand between them; so NDJSON is one, with any line ends, and `{…}{…}`, and one object alone.
 *
 * What is wrong costs itself alone. Where a value is no JSON there is no telling for sure where the next one
 * begins: it is looked for on the next line, or behind the lines that are indented as parts of it (see
 * `#behindBroken`). An array with which the body begins costs the request, for it is all of it mostly.
 */

import { isUtf8 } from "node:buffer";
import type { Columns, Shape, TypeCounts } from "../contracts.ts";
import { excerpt } from "../kernel/text.ts";
import { nextTurn } from "../kernel/time.ts";
import type { Misfits, RowReader } from "./closer.ts";
import { eventColumnsOf, EventReader } from "./event.ts";
import { ANY_TIME, type EventWindow } from "./timestamp.ts";
import { type KeysWanted, TableRowReader, type Widening } from "./row.ts";
import { type Fault, Scanner } from "./scanner.ts";

/** How text in fields becomes rows. */
export interface CsvForm {
  readonly delimiter: "," | "\t";
  /** Of the rows as JSON, where the names of columns stand in each. */
  readonly maxBytes: number;
}

/** Where the rows of a body go. */
export interface Target {
  readonly table: string;
  readonly shape: Shape;
  /** `null`: not known. */
  readonly columns: Columns | null;
  /** Whether values are held against their columns; they are unless given. */
  readonly typeCheck?: boolean;
  /** Of rows of a table whose columns are known; absent: errors. */
  readonly unknownKeys?: KeysWanted;
  /** A value that does not fit may widen its column. */
  readonly widen?: Widening;
  /** Rows may have been read before; see `fitColumn`. */
  readonly again?: boolean;
  /** Types are to be found in the rows: the table is made of them, or is given columns. */
  readonly makes?: boolean;
  /** Of events. */
  readonly window?: EventWindow;
  /** The body is said to be CSV. */
  readonly csv?: CsvForm;
}

/** Errors in an answer; further ones are only counted. */
export const MOST_ERRORS = 100;

/** `index` counts the rows of the request from 0, blank lines left out. */
export interface RowError {
  readonly index: number;
  /** Of CSV, where the row begins; from 1. */
  readonly line?: number;
  readonly error: string;
}

export type Decoded =
  | {
    readonly kind: "rows";
    readonly rows: number;
    readonly body: Uint8Array;
    /** `body` is gone with the next request that is decoded by the same scanner. */
    readonly lent: boolean;
    readonly types: TypeCounts;
    /** Of rows of a table, the keys that they have; null: not known. */
    readonly keys: ReadonlySet<string> | null;
    /** Columns that the table lacks and may get; rows that need them are among the rejected. */
    readonly strange: ReadonlySet<string> | null;
    /** Values that did not fit, by columns that may become wider. */
    readonly misfits: Misfits | null;
    readonly rejected: number;
    /** Of these, for want of a right to one of their columns. */
    readonly rightless?: number;
    readonly errors: readonly RowError[];
  }
  /** No rows could be told apart; `full`: for want of room. */
  | { readonly kind: "refused"; readonly error: string; readonly full?: boolean };

const WANTED = "expected one JSON object, an array of objects, or NDJSON";
const SEND_JSON = "send JSON: curl -H 'Content-Type: application/json' --data-binary @FILE";
/** As the scanner's `DEEPEST`. */
const TOO_DEEP = "nested deeper than 1000 levels";
const BAD_UTF8 = "not UTF-8";

/** A body up to here is decoded at once. */
const AT_ONCE_BYTES = 256 * 1024;
/** Of a larger one, work for about ten milliseconds. */
export const SLICE_EFFORT = 2 * 1024 * 1024;
// Efforts, in bytes that the scanner could step over instead.
/** A wrong row that is only counted. */
const COUNTED_EFFORT = 300;
/** A row that is looked at closer, and each of its bytes. */
const ODD_ROW_EFFORT = 3000;
const ODD_BYTE_EFFORT = 24;
/** Enough bytes for the excerpt of a row that an error shows. */
const EXCERPT_BYTES = 512;

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** A body with fields. */
export interface CsvBody {
  readonly bytes: Uint8Array;
  readonly target: Target & { readonly csv: CsvForm };
  /** Asked for room where rows take more of it than the body does; false: there is none. */
  readonly mayTake: (bytes: number) => boolean;
}

/** @param yieldTurn resolves when all others have had a turn. */
export type DecodeCsv = (
  body: CsvBody,
  scanner: Scanner,
  yieldTurn: () => Promise<void>,
) => Promise<Decoded>;

/**
 * Where bodies are decoded. A small one at once, without a promise in between. A large one a slice at
 * a time, others having their turn between slices: ten megabytes of tiny rows may take a second, and
 * no other request shall wait for it. Large ones come one after the other, so that only one of them
 * holds memory to write in.
 */
export class DecodeQueue {
  /** Made when they are needed first. */
  #atOnce: Scanner | null = null;
  #inSlices: Scanner | null = null;
  /** Resolves when the large body that came last is decoded. */
  #last: Promise<unknown> = Promise.resolve();
  readonly #yield: () => Promise<void>;

  readonly #loadCsv: () => Promise<DecodeCsv>;

  /**
   * @param loadCsv what reads CSV, loaded when it is wanted first.
   * @param yieldTurn resolves when all others have had a turn.
   */
  constructor(
    loadCsv: () => Promise<DecodeCsv>,
    yieldTurn: () => Promise<void> = nextTurn,
  ) {
    this.#loadCsv = loadCsv;
    this.#yield = yieldTurn;
  }

  /** @param nowMs epoch milliseconds, for rows without a time. @param mayTake as of `CsvBody`. */
  decode(
    bytes: Uint8Array,
    target: Target,
    nowMs: number,
    mayTake: (bytes: number) => boolean = () => true,
  ): Decoded | Promise<Decoded> {
    const { csv } = target;
    if (csv !== undefined && !isJson(bytes)) {
      return this.#inTurn(() => this.#csv({ bytes, target: { ...target, csv }, mayTake }));
    }
    if (bytes.length > AT_ONCE_BYTES) {
      return this.#inTurn(() => this.#slices(bytes, target, nowMs));
    }
    const decoding = new Decoding(bytes, target, this.#atOnce ??= new Scanner(), nowMs);
    decoding.go(Infinity);
    return decoding.end();
  }

  /** Bodies that may hold up others, one after the other. */
  #inTurn(decode: () => Promise<Decoded>): Promise<Decoded> {
    const decoded = this.#last.then(decode);
    this.#last = decoded.catch(() => {});
    return decoded;
  }

  async #csv(body: CsvBody): Promise<Decoded> {
    const decode = await this.#loadCsv();
    return await decode(body, this.#inSlices ??= new Scanner(), this.#yield);
  }

  async #slices(bytes: Uint8Array, target: Target, nowMs: number): Promise<Decoded> {
    const decoding = new Decoding(bytes, target, this.#inSlices ??= new Scanner(), nowMs);
    // Also before the first: to begin with a document of one piece may have taken long.
    do await this.#yield(); while (!decoding.go(SLICE_EFFORT));
    return kept(decoding.end());
  }
}

/** In memory of its own: what waits for a promise may come too late for what is lent. */
export function kept<D extends Decoded>(decoded: D): D {
  if (decoded.kind !== "rows" || !decoded.lent) return decoded;
  return { ...decoded, body: decoded.body.slice(), lent: false };
}

/** The reading of one body, which can be interrupted between rows. The scanner is its own meanwhile. */
export class Decoding {
  /** Those that were looked at closer. */
  #oddRows = 0;
  #rejected = 0;
  readonly #errors: RowError[] = [];
  readonly #bytes: Uint8Array;
  readonly #scanner: Scanner;
  readonly #reader: RowReader;
  readonly #closely: boolean;
  readonly #utf8: boolean;
  #form: "values" | "array" | "done" = "values";
  /** Why the whole is refused. */
  #refusal: string | null = null;
  /** Where the next row is looked for. */
  #at: number;
  /** Where the array begins that is being read, or was last. */
  #arrayAt = -1;
  /** What the next rows may cost. */
  #effort = 0;
  /**
   * How far values were looked at that are none. What begins before is looked at on its own line only: else
   * every line of a long text could be looked at together with all that follow.
   */
  #vainUntil = 0;

  /** The line that was looked through last, from the first place that was asked about. */
  #lineFrom = 0;
  #lineEnd = -1;
  #lineIsText: boolean | null = null;

  readonly #mostErrors: number;

  /**
   * @param nowMs epoch milliseconds, for rows without a time.
   * @param mostErrors are told; further ones are only counted.
   */
  constructor(
    bytes: Uint8Array,
    target: Target,
    scanner: Scanner,
    nowMs: number,
    mostErrors = MOST_ERRORS,
  ) {
    this.#bytes = bytes;
    this.#scanner = scanner;
    this.#mostErrors = mostErrors;
    this.#utf8 = isUtf8(bytes);
    scanner.open(bytes);
    this.#reader = target.shape === "event"
      ? new EventReader(
        scanner,
        nowMs,
        target.window ?? ANY_TIME,
        target.columns === null || target.typeCheck === false
          ? null
          : eventColumnsOf(target.columns),
        target.again,
      )
      : new TableRowReader(scanner, target);
    this.#closely = this.#reader.closely === true;
    this.#at = skipSeparators(bytes, 0);
    this.#look(this.#at);
  }

  /** Reads on. @param effort about how many bytes' worth of work. Returns whether all is read. */
  go(effort: number): boolean {
    this.#effort = effort;
    while (this.#form !== "done" && this.#effort > 0) {
      if (this.#form === "values") this.#goValues();
      else this.#goArray();
    }
    return this.#form === "done";
  }

  /** What `go` had no use for; below 0 where it needed more. */
  get left(): number {
    return this.#effort;
  }

  /** What came of it, once. */
  end(): Decoded {
    const { body, lent, types, keys } = this.#scanner.finish();
    const rows = this.#rows, rejected = this.#rejected, errors = this.#errors;
    const { strange = null, misfits = null, rightless = 0 } = this.#reader;
    if (this.#refusal === null && rows + rejected === 0) {
      this.#refuse(`the ${this.#arrayAt < 0 ? "body" : "array"} is empty; ${WANTED}`);
    }
    return this.#refusal === null
      ? {
        ...{ kind: "rows", rows, body, lent, types, keys, strange, misfits, rejected, errors },
        ...(rightless > 0 ? { rightless } : {}),
      }
      : { kind: "refused", error: this.#refusal };
  }

  get #rows(): number {
    return this.#scanner.rows + this.#oddRows;
  }

  /** Is what begins at `at` anything that rows may be in? */
  #look(at: number): void {
    const bytes = this.#bytes, end = bytes.length;
    if (at === end) return void (this.#form = "done");
    if (bytes[at] === BRACE_OPEN || bytes[at] === BRACKET_OPEN) return;
    const stop = this.#stop(at);
    const alone = skipSpace(bytes, stop, end) === end;
    const form = formOf(utf8.decode(bytes.subarray(at, at + EXCERPT_BYTES)), alone);
    if (form !== null) return this.#refuse(`the body is ${form}; ${SEND_JSON}`);
    if (!alone || !this.#isText(at, stop)) return;
    if (this.#value(at) === null && skipSpace(bytes, this.#scanner.stoppedAt, end) === end) {
      this.#refuse(`${WANTED}, got ${this.#shown(at, stop)}`);
    }
  }

  #goValues(): void {
    const bytes = this.#bytes, end = bytes.length;
    let at = this.#at;
    while (this.#effort > 0) {
      const next = this.#scan(at, at + this.#effort);
      if (next > at) {
        this.#effort -= next - at;
        at = next;
        continue;
      }
      const value = skipSeparators(bytes, at);
      if (value >= end) return void (this.#form = "done");
      // Behind a byte order mark it is looked at closer, as tests of the closer look rely on.
      const again = value > at && !isMark(bytes, at);
      this.#at = at = value;
      if (again) continue;
      if (bytes[at] !== BRACKET_OPEN) at = skipSpace(bytes, this.#odd(at), end);
      else if (this.#beginArray(at)) return;
      else at = this.#at;
    }
    this.#at = at;
    if (at >= end) this.#form = "done";
  }

  /** A value that is not plain, or none. Returns where the next one is looked for. */
  #odd(at: number): number {
    const bytes = this.#bytes;
    const stop = this.#stop(at);
    if (this.#countOnly(at, stop)) return stop;
    const fault = this.#value(at);
    const end = this.#scanner.stoppedAt;
    if (fault !== null) return this.#broken(at, fault);
    const to = isBehind(bytes, end) ? end : this.#stop(end);
    if (!this.#isText(at, to)) this.#wrong(() => BAD_UTF8);
    else if (to !== end) this.#wrong(() => `not JSON: ${this.#shown(at, to)}`);
    else this.#closer();
    this.#spend(at, to);
    return to;
  }

  /** As `#odd`, of what is no JSON. @param at where it begins. */
  #broken(at: number, fault: Fault): number {
    const faultAt = this.#scanner.stoppedAt;
    const to = this.#behindBroken(at);
    this.#spend(at, Math.max(to, faultAt));
    if (!this.#isText(at, to)) this.#wrong(() => BAD_UTF8);
    else if (fault === "deep") this.#wrong(() => TOO_DEEP);
    else this.#wrong(() => `not JSON${this.#place(at, faultAt, to)}`);
    return to;
  }

  /** What to show of a value [at, to) that is no JSON from `faultAt` on: the line of that, if it is another. */
  #place(at: number, faultAt: number, to: number): string {
    const bytes = this.#bytes;
    if (faultAt <= this.#stop(at) || faultAt >= to) return `: ${this.#shown(at, this.#stop(at))}`;
    const from = bytes.lastIndexOf(NEWLINE, faultAt - 1) + 1;
    return ` in line ${lineOf(bytes, from)}: ${this.#shown(from, this.#stop(faultAt))}`;
  }

  /**
   * Where the next value is looked for after one that is broken. A line alone is lost, unless brackets are
   * open at its end: then it is lost up to a bracket that closes as far left as it began, or to the next
   * value that begins there.
   * @param at where the broken value begins. @param from where `open` of its brackets are open.
   */
  #behindBroken(at: number, from = at, open = 0): number {
    const bytes = this.#bytes, end = bytes.length;
    let stop = this.#stop(from);
    const record = bytes.subarray(from, stop).indexOf(RECORD);
    if (record >= 0) return from + record;
    const brackets = bytes[at] === BRACE_OPEN || bytes[at] === BRACKET_OPEN;
    if (!brackets || open + levels(bytes, from, stop) <= 0) return stop;
    const indent = indentOf(bytes, at);
    while (stop < end) {
      const first = skipBlanks(bytes, stop + 1, end);
      const byte = bytes[first];
      const outside = first - stop - 1 <= indent;
      if (byte === RECORD || isMark(bytes, first)) return first;
      if (outside && (byte === BRACE_OPEN || byte === BRACKET_OPEN)) return first;
      stop = this.#stop(first);
      if (outside && (byte === BRACE_CLOSE || byte === BRACKET_CLOSE)) return stop;
    }
    return end;
  }

  /** Returns whether its elements are to be read; else what is behind it. */
  #beginArray(at: number): boolean {
    const bytes = this.#bytes, end = bytes.length;
    this.#arrayAt = at;
    if (!this.#utf8 && !this.#isArrayOfText(at)) return this.#form === "done";
    const first = skipSpace(bytes, at + 1, end);
    this.#at = first;
    if (bytes[first] !== BRACKET_CLOSE) return this.#setForm("array");
    this.#endArray(first + 1);
    return false;
  }

  /** Its elements are read without another look at whether they are text. */
  #isArrayOfText(at: number): boolean {
    if (this.#opens) {
      this.#refuse(`the body is ${BAD_UTF8}`);
      return false;
    }
    const fault = this.#value(at);
    const end = this.#scanner.stoppedAt;
    if (fault === null && this.#isText(at, end)) return true;
    if (fault === null) {
      this.#wrong(() => BAD_UTF8);
      this.#at = end;
    } else {
      this.#at = this.#broken(at, fault);
    }
    return false;
  }

  #setForm(form: "values" | "array"): true {
    this.#form = form;
    return true;
  }

  /** Whether the body begins with the array that is being read. */
  get #opens(): boolean {
    return this.#arrayAt === skipSeparators(this.#bytes, 0);
  }

  #goArray(): void {
    const bytes = this.#bytes, end = bytes.length;
    let at = this.#at;
    while (this.#effort > 0) {
      // Behind the comma of the last element there is nothing to scan.
      const scans = at < end && !this.#closely;
      let to = scans ? this.#scanner.elements(at, at + this.#effort) : at;
      if (to > at) {
        this.#effort -= to - at;
      } else {
        const odd = this.#element(at);
        if (odd === null) return;
        to = odd;
      }
      if (to >= end) return this.#breakArray(end);
      if (bytes[to] === BRACKET_CLOSE) return this.#endArray(to + 1);
      if (bytes[to] !== COMMA) return this.#breakArray(to);
      at = skipSpace(bytes, to + 1, end);
    }
    this.#at = at;
  }

  /** One that is not plain. Returns where the separator behind it is; null: that was the end of the array. */
  #element(at: number): number | null {
    const bytes = this.#bytes, end = bytes.length;
    const fault = this.#value(at);
    let to = this.#scanner.stoppedAt;
    this.#spend(at, to);
    if (fault === "invalid" || (fault === "deep" && !this.#opens)) {
      this.#breakArray(at);
      return null;
    }
    if (fault === "deep") {
      to = skipLoosely(bytes, at, end);
      this.#wrong(() => TOO_DEEP);
    } else if (!this.#countOnly(at, to)) this.#closer();
    return skipSpace(bytes, to, end);
  }

  /** From `at` on it is no array; its rows before that are taken, unless the body begins with it. */
  #breakArray(at: number): void {
    const found = () => `: ${this.#shown(at, this.#stop(at))}`;
    const ends = at >= this.#bytes.length;
    if (this.#opens) {
      const why = ends ? "the array does not end" : `the body is not JSON${found()}`;
      return this.#refuse(`${why}; ${WANTED}`);
    }
    this.#wrong(() => ends ? "the array does not end" : `not JSON${found()}`);
    this.#form = "values";
    this.#at = this.#behindBroken(this.#arrayAt, at, 1);
  }

  /** @param at behind the closing bracket. */
  #endArray(at: number): void {
    const end = this.#bytes.length;
    this.#at = skipSpace(this.#bytes, at, end);
    this.#form = this.#at === end ? "done" : "values";
    if (isBehind(this.#bytes, at)) return;
    if (this.#opens) return this.#refuse(`something follows the array; ${WANTED}`);
    this.#at = this.#stop(at);
    this.#wrong(() => `not JSON: ${this.#shown(at, this.#at)}`);
  }

  #refuse(refusal: string): void {
    this.#refusal = refusal;
    this.#form = "done";
  }

  /** What is wrong with the value at `at`, or null; the scanner says where it ends. */
  #value(at: number): Fault | null {
    const until = at < this.#vainUntil ? this.#stop(at) : this.#bytes.length;
    const fault = this.#scanner.value(at, until);
    if (fault !== null) this.#vainUntil = Math.max(this.#vainUntil, this.#scanner.stoppedAt);
    return fault;
  }

  /** For a row [at, to) that was looked at closer. */
  #spend(at: number, to: number): void {
    this.#effort -= ODD_ROW_EFFORT + (to - at) * ODD_BYTE_EFFORT;
  }

  /** As the scanner's `lines`, but only where the bytes are known to be text. */
  #scan(at: number, until: number): number {
    if (this.#bytes[at] !== BRACE_OPEN || this.#closely) return at;
    if (this.#utf8) return this.#scanner.lines(at, until);
    return this.#isLineOfText(at) ? this.#scanner.lines(at, at + 1) : at;
  }

  /** Where the line that holds `at` ends. A line may hold many rows, and is looked through once. */
  #stop(at: number): number {
    if (at < this.#lineFrom || at > this.#lineEnd) {
      const stop = this.#bytes.indexOf(NEWLINE, at);
      this.#lineFrom = at;
      this.#lineEnd = stop < 0 ? this.#bytes.length : stop;
      this.#lineIsText = null;
    }
    return this.#lineEnd;
  }

  /** Of the line from `at` on; also of what is behind `at` if it was asked before. */
  #isLineOfText(at: number): boolean {
    const stop = this.#stop(at);
    return this.#lineIsText ??= this.#isText(at, stop);
  }

  #isText(from: number, to: number): boolean {
    return this.#utf8 || isUtf8(this.#bytes.subarray(from, to));
  }

  /** Beginning of [from, to), for an error. */
  #shown(from: number, to: number): string {
    const beginning = this.#bytes.subarray(from, Math.min(to, from + EXCERPT_BYTES));
    return excerpt(utf8.decode(beginning).trim());
  }

  /**
   * The answer has its errors: a flood of wrong rows, too short to be good, is counted only.
   * @param end of the line, beyond which the row may go on.
   */
  #countOnly(at: number, end: number): boolean {
    if (this.#errors.length < this.#mostErrors || end - at >= this.#reader.leastBytes) return false;
    if (levels(this.#bytes, at, end) > 0) return false;
    this.#rejected++;
    this.#effort -= COUNTED_EFFORT;
    return true;
  }

  /** Takes the row that was just found to be valid JSON, or counts what is wrong with it. */
  #closer(): void {
    const error = this.#reader.closer(this.#scanner.normalized);
    if (error === null) this.#oddRows++;
    else this.#wrong(() => error);
  }

  #wrong(error: () => string): void {
    if (this.#errors.length < this.#mostErrors) {
      this.#errors.push({ index: this.#rows + this.#rejected, error: error() });
    }
    this.#rejected++;
  }
}

/** Whether a body begins as JSON does, and as no name of a column would. */
function isJson(bytes: Uint8Array): boolean {
  const first = bytes[skipSeparators(bytes, 0)];
  return first === BRACE_OPEN || first === BRACKET_OPEN;
}

/** What a body is that holds no JSON, and is no text either; or null. @param alone all on one line. */
function formOf(beginning: string, alone: boolean): string | null {
  if (/^--[^\r\n]+\r?\nContent-Disposition:/i.test(beginning)) return "multipart (curl -F)";
  const form = alone && /^(?:[^\s="]+=\S*|%7B\S+|%5B\S+)$/i.test(beginning.trim());
  return form ? "a urlencoded form" : null;
}

// ── Where rows begin and end, before they are looked at.

const TAB = 9;
const NEWLINE = 10;
const RETURN = 13;
const RECORD = 30;
const SPACE = 32;
const QUOTE = 34;
const COMMA = 44;
const BRACKET_OPEN = 91;
const BACKSLASH = 92;
const BRACKET_CLOSE = 93;
const BRACE_OPEN = 123;
const BRACE_CLOSE = 125;

/** After every JSON whitespace, line ends included. */
function skipSpace(bytes: Uint8Array, at: number, end: number): number {
  while (at < end) {
    const byte = bytes[at]!;
    if (byte !== SPACE && byte !== NEWLINE && byte !== RETURN && byte !== TAB) break;
    at++;
  }
  return at;
}

function skipBlanks(bytes: Uint8Array, at: number, end: number): number {
  while (at < end && (bytes[at] === SPACE || bytes[at] === TAB || bytes[at] === RETURN)) at++;
  return at;
}

function isMark(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0xef && bytes[at + 1] === 0xbb && bytes[at + 2] === 0xbf;
}

/** After all that may stand between values. */
function skipSeparators(bytes: Uint8Array, at: number): number {
  const end = bytes.length;
  for (;;) {
    at = skipSpace(bytes, at, end);
    if (bytes[at] === RECORD || bytes[at] === COMMA) at++;
    else if (isMark(bytes, at)) at += 3;
    else return at;
  }
}

/** Whether what is at `at` may stand behind a value: its line ends, or another value is to come. */
function isBehind(bytes: Uint8Array, at: number): boolean {
  at = skipBlanks(bytes, at, bytes.length);
  if (at === bytes.length) return true;
  return [NEWLINE, COMMA, BRACE_OPEN, BRACKET_OPEN, RECORD].includes(bytes[at]!) ||
    isMark(bytes, at);
}

/** Blanks before `at`, where nothing else stands before it on its line; else 0. */
function indentOf(bytes: Uint8Array, at: number): number {
  let from = at;
  while (from > 0 && (bytes[from - 1] === SPACE || bytes[from - 1] === TAB)) from--;
  return from === 0 || bytes[from - 1] === NEWLINE ? at - from : 0;
}

/** Lines are counted from 1. */
function lineOf(bytes: Uint8Array, at: number): number {
  let line = 1;
  for (let end = bytes.indexOf(NEWLINE); end >= 0 && end < at; line++) {
    end = bytes.indexOf(NEWLINE, end + 1);
  }
  return line;
}

/** How many more brackets are opened than closed on a line, or a part of it; strings end with it. */
function levels(bytes: Uint8Array, at: number, end: number): number {
  let open = 0;
  for (; at < end; at++) {
    const byte = bytes[at]!;
    if (byte === BRACE_OPEN || byte === BRACKET_OPEN) open++;
    else if (byte === BRACE_CLOSE || byte === BRACKET_CLOSE) open--;
    else if (byte === QUOTE) {
      for (at++; at < end && bytes[at] !== QUOTE; at++) if (bytes[at] === BACKSLASH) at++;
    }
  }
  return open;
}

/**
 * The end of a value of which only the brackets are counted: where a broken or odd value probably
 * ends. Stops before a `,` or a closing bracket that belongs to the list around it.
 */
function skipLoosely(bytes: Uint8Array, at: number, end: number): number {
  let depth = 0;
  for (; at < end; at++) {
    switch (bytes[at]) {
      case QUOTE:
        for (at++; at < end && bytes[at] !== QUOTE; at++) if (bytes[at] === BACKSLASH) at++;
        break;
      case BRACE_OPEN:
      case BRACKET_OPEN:
        depth++;
        break;
      case BRACE_CLOSE:
      case BRACKET_CLOSE:
        if (depth === 0) return at;
        depth--;
        break;
      case COMMA:
        if (depth === 0) return at;
    }
  }
  return end;
}
