/**
 * CSV and TSV with a header line → rows of a table. The header names columns; a field becomes what its
 * column holds: a number stays one, text is text, an array or an object is read as JSON. An empty field is
 * none, so that the column has its default; `""` is empty text, and `\N` is null. Quotes are those of RFC 4180, in TSV
 * too, as spreadsheets write it; a quote inside a field that has none around it is a character like others.
 *
 * `csv-parse` takes the text apart. It is loaded when the first such body comes, and gets the text in
 * pieces, so that others have their turn between them.
 */

import { isUtf8 } from "node:buffer";
import { Parser } from "csv-parse";
import type { Columns } from "../contracts.ts";
import { excerpt } from "../kernel/text.ts";
import type { Member } from "./closer.ts";
import {
  type CsvBody,
  type DecodeCsv,
  type Decoded,
  MOST_ERRORS,
  type RowError,
} from "./decode.ts";
import { TableRowReader } from "./row.ts";
import type { Scanner } from "./scanner.ts";
import { parseType, type Type } from "./types.ts";

/** Of the text that is read in one go: for one to three milliseconds. */
const PIECE_BYTES = 16 * 1024;
/** Room is asked for in steps of this. */
const STEP_BYTES = 1024 * 1024;
/** More columns than any table has. */
const MOST_COLUMNS = 10_000;
/** As the scanner's `DEEPEST`. */
const DEEPEST = 1000;

export const decodeCsv: DecodeCsv = async (body, scanner, yieldTurn) => {
  const { bytes } = body;
  scanner.open(bytes.subarray(0, 0));
  const rows = new CsvRows(body, scanner);
  for (let at = 0; at < bytes.length && !rows.ended; at += PIECE_BYTES) {
    await yieldTurn();
    rows.read(bytes.subarray(at, at + PIECE_BYTES));
  }
  return await rows.end();
};

/** A column of the header. */
interface Column {
  readonly name: string;
  readonly rawName: string;
  /** Null: not known. */
  readonly type: Type | null;
}

class CsvRows {
  readonly #parser: Parser;
  readonly #body: CsvBody;
  readonly #scanner: Scanner;
  readonly #reader: TableRowReader;
  readonly #utf8: boolean;
  #columns: readonly Column[] | null = null;
  /** Of the record that is read: which of its fields stand in quotes. */
  #quoted: boolean[] = [];
  /** Where it begins, counted from 1. */
  #line = 1;
  #rows = 0;
  #rejected = 0;
  readonly #errors: RowError[] = [];
  #bytes = 0;
  #granted = 0;
  #ended: Exclude<Decoded, { kind: "rows" }> | null = null;

  constructor(body: CsvBody, scanner: Scanner) {
    const { bytes, target } = body;
    this.#body = body;
    this.#scanner = scanner;
    this.#reader = new TableRowReader(scanner, target);
    this.#utf8 = isUtf8(bytes);
    this.#parser = new Parser({
      bom: true,
      delimiter: target.csv.delimiter,
      relax_quotes: true,
      relax_column_count: true,
      skip_empty_lines: true,
      skip_records_with_error: true,
      cast: (field, { index, quoting, lines }) => {
        if (index === 0) this.#line = lines - (quoting ? lineEnds(field) : 0);
        this.#quoted[index] = quoting;
        return field;
      },
      on_record: (fields: string[]) => {
        this.#record(fields);
        return null;
      },
    });
    this.#parser.on("skip", () => this.#unclosed());
    this.#parser.on("error", ({ message }) => this.#refuse(`not CSV: ${excerpt(message)}`));
  }

  /** Nothing more will come of it. */
  get ended(): boolean {
    return this.#ended !== null;
  }

  read(piece: Uint8Array): void {
    this.#parser.write(piece);
  }

  async end(): Promise<Decoded> {
    // What is behind the last line end may come a moment later.
    await new Promise<void>((resolve) => this.#parser.end(() => resolve()));
    const { body, lent, types, keys } = this.#scanner.finish();
    if (this.#ended !== null) return this.#ended;
    const rows = this.#rows, rejected = this.#rejected, errors = this.#errors;
    if (rows + rejected === 0) {
      const there = this.#columns === null ? "is empty" : "has a header line and no rows";
      return { kind: "refused", error: `the body ${there}; expected a header line, then rows` };
    }
    return {
      kind: "rows",
      rows,
      body: lent ? body.slice() : body,
      lent: false,
      types,
      keys,
      strange: this.#reader.strange,
      misfits: this.#reader.misfits,
      rejected,
      errors,
    };
  }

  #record(fields: readonly string[]): void {
    if (this.#ended !== null) return;
    if (this.#columns === null) return this.#header(fields);
    const { length } = this.#columns;
    if (fields.length !== length) {
      return this.#wrong(() => `expected ${length} fields, got ${fields.length}`);
    }
    const { makes = false } = this.#body.target;
    const members: Member[] = [];
    for (let at = 0; at < length; at++) {
      const { name, rawName, type } = this.#columns[at]!;
      const field = fields[at]!;
      if (!this.#utf8 && field.includes("\ufffd")) {
        return this.#wrong(() => `${excerpt(name)}: not UTF-8`);
      }
      const quoted = this.#quoted[at]!;
      const guessed = makes && type === null && !quoted ? guess(field) : null;
      const rawValue = guessed ?? rawOf(type, field, quoted);
      if (rawValue === null) continue;
      members.push({ key: name, rawKey: rawName, rawValue });
      this.#bytes += rawName.length + rawValue.length;
    }
    if (!this.#hasRoom()) return;
    const problem = this.#reader.take(members);
    if (problem === null) this.#rows++;
    else this.#wrong(() => problem);
  }

  #header(names: readonly string[]): void {
    const { columns } = this.#body.target;
    const types = columns === null ? null : typesOf(columns);
    const seen = new Set<string>();
    for (const [at, name] of names.entries()) {
      const problem = name === "" || at >= MOST_COLUMNS
        ? `field ${at + 1} names no column`
        : seen.has(name)
        ? `${excerpt(name)}: named twice`
        : this.#reader.stranger(name);
      if (problem !== null) {
        return this.#refuse(`the header line: ${problem}${separatedOtherwise(names)}`);
      }
      seen.add(name);
    }
    this.#columns = names.map((name) => ({
      name,
      rawName: JSON.stringify(name),
      type: types?.get(name) ?? null,
    }));
  }

  /** Only the end of the body ends a field whose quotes are not closed. */
  #unclosed(): void {
    if (this.#columns === null) return this.#refuse("the header line: a quote is not closed");
    this.#wrong(() => "a quote is not closed");
  }

  #hasRoom(): boolean {
    const { maxBytes } = this.#body.target.csv;
    if (this.#bytes > maxBytes) {
      this.#refuse(`the rows take more than ${maxBytes} bytes as JSON; send fewer at a time`);
      return false;
    }
    if (this.#bytes > this.#granted) {
      if (!this.#body.mayTake(STEP_BYTES)) {
        this.#ended ??= { kind: "refused", error: "there is no room for the rows", full: true };
        return false;
      }
      this.#granted += STEP_BYTES;
    }
    return true;
  }

  #refuse(error: string): void {
    this.#ended ??= { kind: "refused", error };
  }

  #wrong(error: () => string): void {
    if (this.#errors.length < MOST_ERRORS) {
      const index = this.#rows + this.#rejected;
      this.#errors.push({ index, line: this.#line, error: error() });
    }
    this.#rejected++;
  }
}

function lineEnds(field: string): number {
  return field.match(/\r\n|\r|\n/g)?.length ?? 0;
}

const known = new WeakMap<Columns, ReadonlyMap<string, Type>>();

function typesOf(columns: Columns): ReadonlyMap<string, Type> {
  let types = known.get(columns);
  if (types === undefined) {
    types = new Map(columns.columns.map(({ name, type }) => [name, parseType(type)]));
    known.set(columns, types);
  }
  return types;
}

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
/** Types that hold any value, and not only text. */
const OPEN = /^(?:JSON|Object|Dynamic|Variant)\b/;

/** A number or a boolean, where types are to be found in the rows; null: it is neither. */
function guess(field: string): string | null {
  const plain = field.trim();
  if (NUMBER.test(plain)) return plain;
  return /^(?:true|false)$/i.test(plain) ? plain.toLowerCase() : null;
}

/** A field as JSON; null: there is none. What does not fit its type stays text, for the next look to refuse. */
function rawOf(type: Type | null, field: string, quoted: boolean): string | null {
  if (!quoted && field === "") return null;
  if (!quoted && field === "\\N") return "null";
  const plain = field.trim();
  switch (type?.kind) {
    case "int":
    case "float":
    case "decimal":
      return NUMBER.test(plain) ? plain : JSON.stringify(plain);
    case "bool":
      return /^(?:true|false|[01])$/i.test(plain) ? plain.toLowerCase() : JSON.stringify(plain);
    case "array":
    case "map":
    case "tuple":
      return jsonOf(plain) ?? JSON.stringify(plain);
    case "any":
      return (OPEN.test(type.text) ? jsonOf(plain) : null) ?? JSON.stringify(field);
    case undefined:
    case "fixed":
      return JSON.stringify(field);
    default:
      return JSON.stringify(plain);
  }
}

/** An array or an object on one line, with every digit as it came; null where the text is none. */
function jsonOf(text: string): string | null {
  if (!/^[[{]/.test(text) || isDeep(text)) return null;
  try {
    const value: unknown = JSON.parse(text);
    // What ClickHouse refuses is put in other words; no number is written so.
    return /\\u[dD][89a-fA-F]/.test(text)
      ? JSON.stringify(
        value,
        (_, inner) => typeof inner === "string" ? inner.toWellFormed() : inner,
      )
      : text.replace(/[\r\n]/g, " ");
  } catch {
    return null;
  }
}

function isDeep(text: string): boolean {
  let deep = 0;
  for (const char of text) {
    if (char === "[" || char === "{") deep++;
    else if (char === "]" || char === "}") deep--;
    if (deep > DEEPEST) return true;
  }
  return false;
}

/** Of a header line that is one field because its separators are others. */
function separatedOtherwise(names: readonly string[]): string {
  const [separator] = names.length === 1 ? names[0]!.match(/[;|\t,]/) ?? [] : [];
  return separator === undefined
    ? ""
    : `; text/csv has commas between fields, text/tab-separated-values tabs, and not ${
      JSON.stringify(separator)
    }`;
}
