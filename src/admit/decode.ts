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
  COMMA,
  NEWLINE,
  RETURN,
  skipBlanks,
  skipLoosely,
  skipSpace,
} from "./json.ts";
import type { Lines } from "./lines.ts";
import type { RowReader } from "./reader.ts";
import { DEEPEST, jsonFault, shown } from "./scan.ts";

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
    readonly types: TypeCounts;
    readonly rejected: number;
    readonly errors: readonly RowError[];
  }
  /** No rows could be told apart. */
  | { readonly kind: "refused"; readonly error: string };

const WANTED = "expected one JSON object, an array of objects, or NDJSON";
const TOO_DEEP = `nested deeper than ${DEEPEST} levels`;
const BAD_UTF8 = "not UTF-8";

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** Reads `bytes` with `reader`, which writes into `lines`. @param nowMs epoch milliseconds. */
export function decode(bytes: Uint8Array, reader: RowReader, lines: Lines, nowMs: number): Decoded {
  const decoding = new Decoding(bytes, reader, lines);
  lines.begin(bytes);
  reader.begin(nowMs);
  const refusal = decoding.run();
  // In either case: what the reader and the lines hold must not reach the next request.
  const body = lines.finish();
  const types = reader.types();
  if (refusal !== null) return { kind: "refused", error: refusal };
  const { rows, rejected, errors } = decoding;
  return { kind: "rows", rows, body, types, rejected, errors };
}

class Decoding {
  rows = 0;
  rejected = 0;
  readonly errors: RowError[] = [];
  readonly #bytes: Uint8Array;
  readonly #reader: RowReader;
  readonly #lines: Lines;
  readonly #utf8: boolean;

  constructor(bytes: Uint8Array, reader: RowReader, lines: Lines) {
    this.#bytes = bytes;
    this.#reader = reader;
    this.#lines = lines;
    this.#utf8 = isUtf8(bytes);
  }

  /** Why the whole is refused, or null. */
  run(): string | null {
    const bytes = this.#bytes;
    const bom = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    const at = skipSpace(bytes, bom ? 3 : 0, bytes.length);
    if (at === bytes.length) return `the body is empty; ${WANTED}`;
    if (bytes[at] === BRACKET_OPEN) return this.#array(at);
    if (this.#lineEnd(this.#plain(at)) < 0) {
      const whole = this.#document(at);
      if (whole !== "lines") return whole;
    }
    this.#ndjson(at);
    return null;
  }

  /**
   * Looks closer at a body whose first line is not plain: is the whole of it one document? `"lines"`:
   * no, and each line stands for itself.
   */
  #document(at: number): string | null | "lines" {
    const bytes = this.#bytes, end = bytes.length;
    const next = skipSpace(bytes, this.#stop(at), end);
    const first = this.#text(at, this.#stop(at));
    const object = bytes[at] === BRACE_OPEN;
    if (first !== null && jsonFault(first) === null) {
      if (object || next < end) return "lines";
      return `${WANTED}, got ${shown(first.trim())}`;
    }
    // A line that begins like a row: the first one is broken, and the others are not its affair.
    if (!object || next === end || bytes[next] === BRACE_OPEN) return "lines";
    const text = this.#text(at, end);
    if (text === null) return `the body is ${BAD_UTF8}`;
    const fault = jsonFault(text);
    if (fault === "deep") return `the body is ${TOO_DEEP}`;
    if (fault === "invalid") return `the body is not JSON; ${WANTED}`;
    this.#tell(this.#reader.closer(text));
    return null;
  }

  #ndjson(at: number): void {
    const bytes = this.#bytes, end = bytes.length, reader = this.#reader;
    while (at < end) {
      const after = this.#plain(at);
      const stop = this.#lineEnd(after);
      if (stop >= 0) {
        reader.forward(bytes, at, after);
        this.rows++;
        at = stop;
      } else {
        const lineEnd = this.#stop(at);
        this.#line(at, lineEnd);
        at = lineEnd;
      }
      at = skipSpace(bytes, at, end);
    }
  }

  #line(at: number, end: number): void {
    // Nobody reads more errors, and a flood of tiny wrong lines must not cost a parse each.
    if (this.errors.length === ERRORS_TOLD && end - at < this.#reader.leastBytes) {
      this.rejected++;
      return;
    }
    const text = this.#text(at, end);
    if (text === null) return this.#tell(BAD_UTF8);
    const row = text.trim();
    // Most broken lines show it at an end, and a thrown exception is dear.
    const fault = row.startsWith("{") && !row.endsWith("}") ? "invalid" : jsonFault(row);
    if (fault === "deep") this.#tell(TOO_DEEP);
    else if (fault === "invalid") this.#tell(`not JSON: ${shown(row)}`);
    else this.#tell(this.#reader.closer(row));
  }

  #array(at: number): string | null {
    const bytes = this.#bytes, end = bytes.length;
    if (!this.#utf8) return `the body is ${BAD_UTF8}`;
    at = skipSpace(bytes, at + 1, end);
    if (at < end && bytes[at] === BRACKET_CLOSE) {
      return skipSpace(bytes, at + 1, end) === end
        ? `the array is empty; ${WANTED}`
        : `the body is not JSON; ${WANTED}`;
    }
    let to: number;
    for (;;) {
      const after = this.#plain(at);
      to = after < 0 ? -1 : skipSpace(bytes, after, end);
      if (to >= 0 && to < end && (bytes[to] === COMMA || bytes[to] === BRACKET_CLOSE)) {
        this.#reader.forward(bytes, at, after);
        this.rows++;
      } else {
        to = skipLoosely(bytes, at, end);
        const text = this.#text(at, to)!.trim();
        const fault = jsonFault(text);
        if (fault === "invalid") return `the body is not JSON: ${shown(text)}; ${WANTED}`;
        this.#tell(fault === "deep" ? TOO_DEEP : this.#reader.closer(text));
      }
      if (to >= end) return `the array does not end; ${WANTED}`;
      if (bytes[to] === BRACKET_CLOSE) break;
      if (bytes[to] === BRACE_CLOSE) return `the body is not JSON; ${WANTED}`;
      at = skipSpace(bytes, to + 1, end);
    }
    return skipSpace(bytes, to + 1, end) === end ? null : `something follows the array; ${WANTED}`;
  }

  /** As the reader's, but only where the bytes are known to be text. */
  #plain(at: number): number {
    return this.#utf8 ? this.#reader.plain(this.#bytes, at, this.#bytes.length) : -1;
  }

  /** The line end (or the end) that follows a row at once, or -1 where something else follows. */
  #lineEnd(after: number): number {
    if (after < 0) return -1;
    const bytes = this.#bytes, end = bytes.length;
    if (bytes[after] === NEWLINE) return after;
    let at = skipBlanks(bytes, after, end);
    if (at < end && bytes[at] === RETURN) at++;
    return at === end || bytes[at] === NEWLINE ? at : -1;
  }

  /** Where the line that holds `at` ends. */
  #stop(at: number): number {
    const stop = this.#bytes.indexOf(NEWLINE, at);
    return stop < 0 ? this.#bytes.length : stop;
  }

  /** Null where the bytes are not UTF-8. */
  #text(from: number, to: number): string | null {
    const piece = this.#bytes.subarray(from, to);
    return this.#utf8 || isUtf8(piece) ? utf8.decode(piece) : null;
  }

  /** Counts a row that was looked at closer. */
  #tell(error: string | null): void {
    if (error === null) {
      this.rows++;
      return;
    }
    if (this.errors.length < ERRORS_TOLD) {
      this.errors.push({ index: this.rows + this.rejected, error });
    }
    this.rejected++;
  }
}
