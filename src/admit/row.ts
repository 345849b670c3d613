/**
 * Rows of any other table: one JSON object whose keys are the table's columns, forwarded as it came.
 * Whether a value fits its column is ClickHouse's to say; it refuses such a row alone.
 */

import type { Columns, TypeCounts } from "../contracts.ts";
import {
  BRACE_CLOSE,
  BRACE_OPEN,
  COLON,
  COMMA,
  QUOTE,
  skipBlanks,
  skipLiteral,
  skipValue,
} from "./json.ts";
import type { Lines } from "./lines.ts";
import type { Names } from "./names.ts";
import type { RowReader } from "./reader.ts";
import { members, shown } from "./scan.ts";

const NO_TYPES: TypeCounts = new Map();
/** Column names in an error message at most. */
const NAMED = 20;
/** Rows with more keys go the slow way, so that looking for repeated keys stays cheap. */
const FEW_KEYS = 64;

/** `bytes` with the closing quote. */
interface Key {
  readonly text: string;
  readonly bytes: Uint8Array;
}

export class TableRowReader implements RowReader {
  readonly leastBytes = 2;
  readonly #lines: Lines;
  readonly #names: Names;
  readonly #table: string;
  /** `null`: not known, so any key may be one. */
  readonly #columns: ReadonlySet<string> | null;
  /** For errors, made when there is one. */
  #has: string | null = null;
  /** Keys of the row that `plain` is at, and beyond them those of the row before. */
  readonly #keys: Key[] = [];

  constructor(lines: Lines, names: Names, table: string, columns: Columns | null) {
    this.#lines = lines;
    this.#names = names;
    this.#table = table;
    this.#columns = columns?.names ?? null;
  }

  begin(_nowMs: number): void {}

  types(): TypeCounts {
    return NO_TYPES;
  }

  plain(bytes: Uint8Array, at: number, end: number): number {
    if (bytes[at] !== BRACE_OPEN) return -1;
    let count = 0;
    do {
      at = skipBlanks(bytes, at + 1, end);
      if (at >= end || bytes[at] !== QUOTE) return -1;
      at = this.#key(bytes, at + 1, end, count++);
      if (at < 0) return -1;
      at = skipBlanks(bytes, at, end);
      if (at >= end || bytes[at] !== COLON) return -1;
      at = skipValue(bytes, skipBlanks(bytes, at + 1, end), end);
      if (at < 0) return -1;
      at = skipBlanks(bytes, at, end);
      if (at >= end) return -1;
    } while (bytes[at] === COMMA);
    return bytes[at] === BRACE_CLOSE ? at + 1 : -1;
  }

  /** The place after the key at `at`, the `count`th of its row; -1: no column, repeated, or odd. */
  #key(bytes: Uint8Array, at: number, end: number, count: number): number {
    const keys = this.#keys;
    // Most rows have the keys of the row before in the same order: known as columns, and all different.
    if (count < keys.length && startsWith(bytes, at, end, keys[count]!.bytes)) {
      return at + keys[count]!.bytes.length;
    }
    keys.length = count;
    const to = skipLiteral(bytes, at, end);
    if (to < 0 || count === FEW_KEYS) return -1;
    const text = this.#names.text(bytes, at, to - 1);
    if (keys.some((key) => key.text === text) || this.#columns?.has(text) === false) return -1;
    keys.push({ text, bytes: bytes.slice(at, to) });
    return to;
  }

  forward(_bytes: Uint8Array, at: number, to: number): void {
    this.#lines.copy(at, to);
  }

  closer(text: string): string | null {
    if (!text.startsWith("{")) return `expected a JSON object, got ${shown(text)}`;
    const found = members(text, this.#stranger);
    if (typeof found === "string") return found;
    this.#lines.text(`{${found.map(({ rawKey, rawValue }) => `${rawKey}:${rawValue}`).join(",")}}`);
    return null;
  }

  /** What is wrong with a key, or null for a column's name. */
  readonly #stranger = (key: string): string | null => {
    if (this.#columns?.has(key) !== false) return null;
    this.#has ??= hasColumns([...this.#columns]);
    return `${shown(key)}: no column of ${this.#table}, ${this.#has}`;
  };
}

function hasColumns(names: readonly string[]): string {
  const more = names.length > NAMED ? `, and ${names.length - NAMED} more` : "";
  return `which has ${names.slice(0, NAMED).join(", ")}${more}`;
}

function startsWith(bytes: Uint8Array, at: number, end: number, wanted: Uint8Array): boolean {
  if (at + wanted.length > end) return false;
  for (let i = 0; i < wanted.length; i++) if (bytes[at + i] !== wanted[i]) return false;
  return true;
}
