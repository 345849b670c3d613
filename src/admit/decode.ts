/**
 * One request's bytes → its good rows as one piece of NDJSON, and what is wrong with the others. The
 * bytes tell what they are, not the Content-Type: one JSON object (also over several lines), a JSON
 * array of objects, or NDJSON with any line ends, blank lines, with or without a last line end, with
 * or without a byte order mark. A wrong line costs itself alone; a document that is not JSON costs
 * the request, since there is no telling where its rows begin.
 */

import { isUtf8 } from "node:buffer";
import type { Columns, Shape, TypeCounts } from "../contracts.ts";
import { excerpt } from "../kernel/text.ts";
import type { RowReader } from "./closer.ts";
import { EventReader } from "./event.ts";
import { ANY_TIME, type EventWindow } from "./timestamp.ts";
import { TableRowReader } from "./row.ts";
import { type Fault, Scanner } from "./scanner.ts";

/** Where the rows of a body go. */
export interface Target {
  readonly table: string;
  readonly shape: Shape;
  /** `null`: not known. */
  readonly columns: Columns | null;
  /** Whether values are held against their columns. */
  readonly typeCheck?: boolean;
  /** Of events. */
  readonly window?: EventWindow;
}

/** Errors in an answer; further ones are only counted. */
export const MOST_ERRORS = 100;

/** `index` counts the rows of the request from 0, blank lines left out. */
export interface RowError {
  readonly index: number;
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
    readonly rejected: number;
    readonly errors: readonly RowError[];
  }
  /** No rows could be told apart. */
  | { readonly kind: "refused"; readonly error: string };

const WANTED = "expected one JSON object, an array of objects, or NDJSON";
/** As the scanner's `DEEPEST`. */
const TOO_DEEP = "nested deeper than 1000 levels";
const BAD_UTF8 = "not UTF-8";

/** A body up to here is decoded at once. */
const AT_ONCE_BYTES = 256 * 1024;
/** Of a larger one, work for about ten milliseconds. */
const SLICE_EFFORT = 2 * 1024 * 1024;
// Efforts, in bytes that the scanner could step over instead.
/** A wrong row that is only counted. */
const COUNTED_EFFORT = 300;
/** A row that is looked at closer, and each of its bytes. */
const ODD_ROW_EFFORT = 3000;
const ODD_BYTE_EFFORT = 24;
/** Enough bytes for the excerpt of a row that an error shows. */
const EXCERPT_BYTES = 512;

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

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

  /** @param yieldTurn resolves when all others have had a turn. */
  constructor(yieldTurn: () => Promise<void> = nextTurn) {
    this.#yield = yieldTurn;
  }

  /** @param nowMs epoch milliseconds, for rows without a time. */
  decode(bytes: Uint8Array, target: Target, nowMs: number): Decoded | Promise<Decoded> {
    if (bytes.length > AT_ONCE_BYTES) {
      const decoded = this.#last.then(() => this.#slices(bytes, target, nowMs));
      this.#last = decoded.catch(() => {});
      return decoded;
    }
    const decoding = new Decoding(bytes, target, this.#atOnce ??= new Scanner(), nowMs);
    decoding.go(Infinity);
    return decoding.end();
  }

  async #slices(bytes: Uint8Array, target: Target, nowMs: number): Promise<Decoded> {
    const decoding = new Decoding(bytes, target, this.#inSlices ??= new Scanner(), nowMs);
    // Also before the first: to begin with a document of one piece may have taken long.
    do await this.#yield(); while (!decoding.go(SLICE_EFFORT));
    return kept(decoding.end());
  }
}

/** What waits for a promise may come too late for what is lent. */
function kept(decoded: Decoded): Decoded {
  if (decoded.kind === "refused" || !decoded.lent) return decoded;
  return { ...decoded, body: decoded.body.slice(), lent: false };
}

/**
 * A timer and no immediate: a runtime that always has something to do at once looks at its sockets
 * only every 61st time, and others wait for as many slices.
 */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
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
  readonly #utf8: boolean;
  #form: "array" | "lines" | "done";
  /** Why the whole is refused. */
  #refusal: string | null = null;
  /** Where the next row is looked for. */
  #at: number;

  /** @param nowMs epoch milliseconds, for rows without a time. */
  constructor(bytes: Uint8Array, target: Target, scanner: Scanner, nowMs: number) {
    this.#bytes = bytes;
    this.#scanner = scanner;
    this.#utf8 = isUtf8(bytes);
    scanner.open(bytes);
    this.#reader = target.shape === "event"
      ? new EventReader(scanner, nowMs, target.window ?? ANY_TIME)
      : new TableRowReader(scanner, target.table, target.columns, target.typeCheck ?? true);
    this.#at = skipSpace(bytes, afterMark(bytes, 0), bytes.length);
    this.#form = this.#look(this.#at);
  }

  /** Reads on. @param effort about how many bytes' worth of work. Returns whether all is read. */
  go(effort: number): boolean {
    if (this.#form === "lines") this.#goLines(effort);
    else if (this.#form === "array") this.#goArray(effort);
    return this.#form === "done";
  }

  /** What came of it, once. */
  end(): Decoded {
    const { body, lent, types, keys } = this.#scanner.finish();
    if (this.#refusal !== null) return { kind: "refused", error: this.#refusal };
    const rows = this.#rows, rejected = this.#rejected, errors = this.#errors;
    return { kind: "rows", rows, body, lent, types, keys, rejected, errors };
  }

  get #rows(): number {
    return this.#scanner.rows + this.#oddRows;
  }

  /** What the body is, by how it begins at `at`. */
  #look(at: number): "array" | "lines" | "done" {
    const bytes = this.#bytes;
    if (at === bytes.length) return this.#refuse(`the body is empty; ${WANTED}`);
    if (bytes[at] === BRACKET_OPEN) return this.#beginArray(at);
    const next = this.#scan(at, at + 1);
    if (next === at) return this.#lookCloser(at);
    this.#at = next;
    return "lines";
  }

  /** The first line is not plain: is the whole of it one document, or does each line stand for itself? */
  #lookCloser(at: number): "lines" | "done" {
    const bytes = this.#bytes, end = bytes.length;
    const stop = this.#stop(at);
    const next = skipSpace(bytes, stop, end);
    const object = bytes[at] === BRACE_OPEN;
    if (this.#isText(at, stop) && this.#fault(at, stop) === null) {
      if (!object && next === end) return this.#refuse(`${WANTED}, got ${this.#shown(at, stop)}`);
      this.#closer();
      this.#at = next;
      return "lines";
    }
    // A line that begins like a row: the first one is broken, and the others are not its affair.
    if (!object || next === end || bytes[next] === BRACE_OPEN) return "lines";
    if (!this.#utf8) return this.#refuse(`the body is ${BAD_UTF8}`);
    const fault = this.#fault(at, end);
    if (fault === "deep") return this.#refuse(`the body is ${TOO_DEEP}`);
    if (fault === "invalid") return this.#refuse(`the body is not JSON; ${WANTED}`);
    this.#closer();
    return "done";
  }

  #beginArray(at: number): "array" | "done" {
    const bytes = this.#bytes, end = bytes.length;
    if (!this.#utf8) return this.#refuse(`the body is ${BAD_UTF8}`);
    at = skipSpace(bytes, at + 1, end);
    if (at < end && bytes[at] === BRACKET_CLOSE) {
      const last = skipSpace(bytes, at + 1, end) === end;
      return this.#refuse(`${last ? "the array is empty" : "the body is not JSON"}; ${WANTED}`);
    }
    this.#at = at;
    return "array";
  }

  #goLines(effort: number): void {
    const bytes = this.#bytes, end = bytes.length;
    let at = this.#at;
    while (at < end && effort > 0) {
      const next = this.#scan(at, at + effort);
      if (next > at) {
        effort -= next - at;
        at = next;
      } else {
        const stop = this.#stop(at);
        effort -= this.#line(at, stop);
        at = skipSpace(bytes, stop, end);
      }
    }
    this.#at = at;
    if (at >= end) this.#form = "done";
  }

  /** A row that is not plain, on a line of its own. Returns the effort. */
  #line(at: number, end: number): number {
    if (this.#countOnly(at, end)) return COUNTED_EFFORT;
    at = afterMark(this.#bytes, at);
    const fault = this.#isText(at, end) ? this.#fault(at, end) : BAD_UTF8;
    if (fault === null) this.#closer();
    else if (fault === "invalid") this.#wrong(() => `not JSON: ${this.#shown(at, end)}`);
    else this.#wrong(() => fault === "deep" ? TOO_DEEP : BAD_UTF8);
    return ODD_ROW_EFFORT + (end - at) * ODD_BYTE_EFFORT;
  }

  #goArray(effort: number): void {
    const bytes = this.#bytes, end = bytes.length;
    let at = this.#at;
    while (effort > 0) {
      // Behind the comma of the last element there is nothing to scan.
      let to = at < end ? this.#scanner.elements(at, at + effort) : at;
      if (to > at) {
        effort -= to - at;
      } else {
        to = skipLoosely(bytes, at, end);
        const fault = this.#fault(at, to);
        if (fault === "invalid") {
          this.#refuse(`the body is not JSON: ${this.#shown(at, to)}; ${WANTED}`);
          return;
        }
        const counted = fault === null && this.#countOnly(at, to);
        if (fault === "deep") this.#wrong(() => TOO_DEEP);
        else if (!counted) this.#closer();
        effort -= counted ? COUNTED_EFFORT : ODD_ROW_EFFORT + (to - at) * ODD_BYTE_EFFORT;
      }
      if (to >= end) return void this.#refuse(`the array does not end; ${WANTED}`);
      if (bytes[to] === BRACKET_CLOSE) return this.#endArray(to + 1);
      if (bytes[to] === BRACE_CLOSE) return void this.#refuse(`the body is not JSON; ${WANTED}`);
      at = skipSpace(bytes, to + 1, end);
    }
    this.#at = at;
  }

  #endArray(at: number): void {
    const end = this.#bytes.length;
    if (skipSpace(this.#bytes, at, end) === end) this.#form = "done";
    else this.#refuse(`something follows the array; ${WANTED}`);
  }

  #refuse(refusal: string): "done" {
    this.#refusal = refusal;
    return this.#form = "done";
  }

  /** As the scanner's `lines`, but only where the bytes are known to be text. */
  #scan(at: number, until: number): number {
    if (this.#bytes[at] !== BRACE_OPEN) return at;
    if (this.#utf8) return this.#scanner.lines(at, until);
    return this.#isText(at, this.#stop(at)) ? this.#scanner.lines(at, at + 1) : at;
  }

  /** Where the line that holds `at` ends. */
  #stop(at: number): number {
    const stop = this.#bytes.indexOf(NEWLINE, at);
    return stop < 0 ? this.#bytes.length : stop;
  }

  #isText(from: number, to: number): boolean {
    return this.#utf8 || isUtf8(this.#bytes.subarray(from, to));
  }

  /** Beginning of [from, to), for an error. */
  #shown(from: number, to: number): string {
    const beginning = this.#bytes.subarray(from, Math.min(to, from + EXCERPT_BYTES));
    return excerpt(utf8.decode(beginning).trim());
  }

  /** The answer has its errors: a flood of wrong rows, too short to be good, is counted only. */
  #countOnly(at: number, end: number): boolean {
    if (this.#errors.length < MOST_ERRORS || end - at >= this.#reader.leastBytes) return false;
    this.#rejected++;
    return true;
  }

  /** What is wrong with the JSON in [from, to), or null. */
  #fault(from: number, to: number): Fault | null {
    return this.#scanner.normalize(from, to);
  }

  /** Takes the row that was just found to be valid JSON, or counts what is wrong with it. */
  #closer(): void {
    const error = this.#reader.closer(this.#scanner.normalized.trim());
    if (error === null) this.#oddRows++;
    else this.#wrong(() => error);
  }

  #wrong(error: () => string): void {
    if (this.#errors.length < MOST_ERRORS) {
      this.#errors.push({ index: this.#rows + this.#rejected, error: error() });
    }
    this.#rejected++;
  }
}

/** After a byte order mark, if there is one. */
function afterMark(bytes: Uint8Array, at: number): number {
  return bytes[at] === 0xef && bytes[at + 1] === 0xbb && bytes[at + 2] === 0xbf ? at + 3 : at;
}

// ── Where rows begin and end, before they are looked at.

const TAB = 9;
const NEWLINE = 10;
const RETURN = 13;
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
