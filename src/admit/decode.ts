/**
 * One request's bytes → its good rows as one piece of NDJSON, and what is wrong with the others. The
 * bytes tell what they are, not the Content-Type: one JSON object (also over several lines), a JSON
 * array of objects, or NDJSON with any line ends, blank lines, with or without a last line end, with
 * or without a byte order mark. A wrong line costs itself alone; a document that is not JSON costs
 * the request, since nobody can tell where its rows begin.
 */

import { isUtf8 } from "node:buffer";
import type { TypeCounts } from "../contracts.ts";
import {
  BRACE_CLOSE,
  BRACE_OPEN,
  BRACKET_CLOSE,
  BRACKET_OPEN,
  NEWLINE,
  skipLoosely,
  skipSpace,
} from "./json.ts";
import { mended } from "./mend.ts";
import type { RowReader } from "./reader.ts";
import { shown } from "./scan.ts";
import type { Scanner } from "./scanner.ts";
import type { Kind, Tools } from "./tools.ts";
import { DEEPEST, jsonFault } from "./valid.ts";

/** Errors that are told to the client; further ones are only counted. */
export const ERRORS_TOLD = 100;

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
    /** `body` is gone with the next request that is decoded at the same desk. */
    readonly lent: boolean;
    readonly types: TypeCounts;
    readonly rejected: number;
    readonly errors: readonly RowError[];
  }
  /** No rows could be told apart. */
  | { readonly kind: "refused"; readonly error: string };

const WANTED = "expected one JSON object, an array of objects, or NDJSON";
const TOO_DEEP = `nested deeper than ${DEEPEST} levels`;
const BAD_UTF8 = "not UTF-8";

// In bytes that the scanner could step over instead.
/** A wrong row that is only counted. */
const COUNTED_EFFORT = 300;
/** A row that is looked at closer, and each of its bytes. */
const ODD_ROW_EFFORT = 3000;
const ODD_BYTE_EFFORT = 24;
/** Enough bytes for the excerpt of a row that an error shows. */
const EXCERPT_BYTES = 512;

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** Reads `bytes` as rows of this kind. @param nowMs epoch milliseconds. */
export function decode(bytes: Uint8Array, kind: Kind, tools: Tools, nowMs: number): Decoded {
  const decoding = new Decoding(bytes, kind, tools, nowMs);
  decoding.go(Infinity);
  return decoding.end();
}

/** The reading of one body, which can be interrupted between rows. The tools are its own meanwhile. */
export class Decoding {
  /** Those that were looked at closer. */
  #oddRows = 0;
  #rejected = 0;
  readonly #errors: RowError[] = [];
  readonly #bytes: Uint8Array;
  readonly #tools: Tools;
  readonly #scanner: Scanner;
  readonly #reader: RowReader;
  readonly #utf8: boolean;
  #form: "array" | "lines" | "done";
  /** Why the whole is refused. */
  #refusal: string | null = null;
  /** Where the next row is looked for. */
  #at: number;

  constructor(bytes: Uint8Array, kind: Kind, tools: Tools, nowMs: number) {
    this.#bytes = bytes;
    this.#tools = tools;
    this.#scanner = tools.scanner;
    this.#reader = tools.reader(kind);
    this.#utf8 = isUtf8(bytes);
    // What one that failed has left.
    tools.types.take();
    this.#scanner.open(bytes);
    this.#reader.begin(nowMs);
    this.#at = skipSpace(bytes, afterMark(bytes, 0), bytes.length);
    this.#form = this.#look(this.#at);
  }

  /** Reads on. @param effort about how many bytes' worth of work. Returns whether all is read. */
  go(effort: number): boolean {
    if (this.#form === "lines") this.#goLines(effort);
    else if (this.#form === "array") this.#goArray(effort);
    return this.#form === "done";
  }

  /** What came of it, once. What the tools hold does not reach the next request. */
  end(): Decoded {
    const { body, lent } = this.#scanner.finish();
    const types = this.#tools.types.take();
    if (this.#refusal !== null) return { kind: "refused", error: this.#refusal };
    const rows = this.#rows, rejected = this.#rejected, errors = this.#errors;
    return { kind: "rows", rows, body, lent, types, rejected, errors };
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
    if (this.#isText(at, stop) && jsonFault(bytes, at, stop) === null) {
      if (!object && next === end) return this.#refuse(`${WANTED}, got ${this.#shown(at, stop)}`);
      this.#closer(at, stop);
      this.#at = next;
      return "lines";
    }
    // A line that begins like a row: the first one is broken, and the others are not its affair.
    if (!object || next === end || bytes[next] === BRACE_OPEN) return "lines";
    if (!this.#utf8) return this.#refuse(`the body is ${BAD_UTF8}`);
    const fault = jsonFault(bytes, at, end);
    if (fault === "deep") return this.#refuse(`the body is ${TOO_DEEP}`);
    if (fault === "invalid") return this.#refuse(`the body is not JSON; ${WANTED}`);
    this.#closer(at, end);
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
    const fault = this.#isText(at, end) ? jsonFault(this.#bytes, at, end) : BAD_UTF8;
    if (fault === null) this.#closer(at, end);
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
        const fault = jsonFault(bytes, at, to);
        if (fault === "invalid") {
          this.#refuse(`the body is not JSON: ${this.#shown(at, to)}; ${WANTED}`);
          return;
        }
        const counted = fault === null && this.#countOnly(at, to);
        if (fault === "deep") this.#wrong(() => TOO_DEEP);
        else if (!counted) this.#closer(at, to);
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
    const excerpt = this.#bytes.subarray(from, Math.min(to, from + EXCERPT_BYTES));
    return shown(utf8.decode(excerpt).trim());
  }

  /** Nobody reads more errors: a flood of wrong rows, too short to be good, is counted only. */
  #countOnly(at: number, end: number): boolean {
    if (this.#errors.length < ERRORS_TOLD || end - at >= this.#reader.leastBytes) return false;
    this.#rejected++;
    return true;
  }

  /** Takes [at, end), which is valid JSON, or counts what is wrong with it. */
  #closer(at: number, end: number): void {
    const error = this.#reader.closer(mended(this.#bytes, at, end).trim());
    if (error === null) this.#oddRows++;
    else this.#wrong(() => error);
  }

  #wrong(error: () => string): void {
    if (this.#errors.length < ERRORS_TOLD) {
      this.#errors.push({ index: this.#rows + this.#rejected, error: error() });
    }
    this.#rejected++;
  }
}

/** After a byte order mark, if there is one. */
function afterMark(bytes: Uint8Array, at: number): number {
  return bytes[at] === 0xef && bytes[at + 1] === 0xbb && bytes[at + 2] === 0xbf ? at + 3 : at;
}
