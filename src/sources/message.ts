/**
 * Messages → rows. A message's body is what the body of a request is: one object, an array of them, or many
 * on lines. Many small messages become one chunk, read in one go; only where something is wrong in it are
 * they looked at by halves, down to the message, and the row in it, that is no row.
 *
 * Between messages stands a record separator, which is in no JSON: two broken messages never make a whole one.
 */

import { Buffer, isUtf8 } from "node:buffer";
import type { Chunk, Message, MessageReader, MetaColumn, MetaValue, Read } from "../contracts.ts";
import { nextTurn } from "../kernel/time.ts";

/** What messages have become. */
export type Made =
  | {
    readonly kind: "made";
    /** Null: there are no rows. */
    readonly chunk: Chunk | null;
    /** What can never be rows. */
    readonly poison: readonly Poison[];
    /** Messages that have none: empty bodies, `[]`, `null`. */
    readonly empty: number;
    /** Messages that these are, from the first on: fewer than were given where poison stops the source. */
    readonly used: number;
  }
  /** The table takes no rows now. */
  | { readonly kind: "wait"; readonly why: string };

/** A message, or one row of it, that can never become a row. */
export interface Poison {
  readonly message: Message;
  /** Its 0-based place in the message; null: the whole of it. */
  readonly index: number | null;
  readonly bytes: Uint8Array;
  readonly error: string;
}

export interface MakeOptions {
  readonly reader: MessageReader;
  /** Null: events. */
  readonly table: string | null;
  readonly meta: readonly MetaColumn[];
  /** Poison ends the messages that are used; it is the last thing in them, and its message is not used. */
  readonly stops: boolean;
}

/** Of a message that is read together with others. */
export const PIECE_BYTES = 256 * 1024;
/** What halves are looked at before others have their turn. */
const LOOKS = 50;

const RECORD = 0x1e;
const NEWLINE = 0x0a;
const BRACE_OPEN = 0x7b;
const encoder = new TextEncoder();
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** Neighbours that go together: of one table, and not more than can be read at once. */
export function* piecesOf(messages: readonly Message[]): Generator<readonly Message[]> {
  let piece: Message[] = [];
  let bytes = 0;
  for (const message of messages) {
    // With what stands between them: what is larger than that is read in slices, which others come between.
    const size = message.body.length + 1;
    const fits = bytes + size <= PIECE_BYTES && piece[0]?.table === message.table;
    if (piece.length > 0 && !fits) {
      yield piece;
      piece = [];
      bytes = 0;
    }
    piece.push(message);
    bytes += size;
  }
  if (piece.length > 0) yield piece;
}

/** Reads messages that go together. */
export async function makeRows(
  messages: readonly Message[],
  options: MakeOptions,
): Promise<Made> {
  try {
    return await new Maker(messages, options).make();
  } catch (error) {
    if (error instanceof Waiting) return { kind: "wait", why: error.message };
    throw error;
  }
}

/** A message, or a row of one, as it is read. */
interface Unit {
  readonly message: Message;
  /** Null: all of it. */
  readonly index: number | null;
  /** As it came. */
  readonly bytes: Uint8Array;
  /** With what is put in front. */
  readonly body: Uint8Array;
}

/** What is read of bytes while their table takes rows. */
type Legible = Exclude<Read, { readonly kind: "wait" }>;

/** Leaves all of it at once: nothing is known of rows whose table takes none now. */
class Waiting extends Error {}

class Maker {
  readonly #messages: readonly Message[];
  readonly #options: MakeOptions;
  readonly #poison: Poison[] = [];
  readonly #empty: Message[] = [];
  #meta: readonly MetaColumn[] = [];
  #looks = 0;
  /** What was read last without a fault, and of which units. */
  #clean: { readonly units: readonly Unit[]; readonly chunk: Chunk } | null = null;

  constructor(messages: readonly Message[], options: MakeOptions) {
    this.#messages = messages;
    this.#options = options;
  }

  async make(): Promise<Made> {
    const { table, meta, reader, stops } = this.#options;
    if (table === null || meta.length === 0) this.#meta = meta;
    else {
      const taken = await reader.takes(table, meta.map(({ column }) => column));
      this.#meta = meta.filter(({ column }) => taken.includes(column));
    }
    const units: Unit[] = [];
    for (const message of this.#messages) {
      const { body, encoding } = message;
      const bytes = encoding === undefined ? body : await this.#unpacked(message, encoding);
      const unit = bytes === null ? null : this.#unitOf(message, bytes);
      if (unit !== null) units.push(unit);
    }
    const found = await this.#good(units);
    const places = this.#poison.map(({ message }) => this.#messages.indexOf(message));
    const used = stops && places.length > 0 ? Math.min(...places) : this.#messages.length;
    const inUse = new Set(this.#messages.slice(0, used));
    const good = found.filter(({ message }) => inUse.has(message));
    return {
      kind: "made",
      chunk: good.length === 0 ? null : await this.#chunk(good),
      poison: stops
        ? this.#poison.filter(({ message }) => message === this.#messages[used])
        : this.#poison,
      empty: this.#empty.filter((message) => inUse.has(message)).length,
      used,
    };
  }

  /** Null: there is nothing in it. */
  #unitOf(message: Message, bytes: Uint8Array): Unit | null {
    if (!isEmpty(bytes)) {
      return { message, index: null, bytes, body: this.#inFront(message, bytes) };
    }
    this.#empty.push(message);
    return null;
  }

  /** Null: it cannot be, which has been told. */
  async #unpacked(message: Message, encoding: string): Promise<Uint8Array | null> {
    const { body: bytes } = message;
    if (bytes.length === 0) return bytes;
    const unpacked = await this.#options.reader.unpack(bytes, encoding);
    if (unpacked.ok) return unpacked.value;
    this.#poison.push({ message, index: null, bytes, error: unpacked.problem });
    return null;
  }

  /** Those units of which every row is one; of the others, what can be saved. */
  async #good(units: readonly Unit[]): Promise<readonly Unit[]> {
    if (units.length === 0) return units;
    await this.#turn();
    const { reader, table } = this.#options;
    const read = await reader.read(table, joined(units));
    if (read.kind === "wait") throw new Waiting(read.why);
    const clean = read.kind === "rows" && read.rejected === 0 &&
      // What is put in front of a row of one message must not be put in front of another's.
      (this.#meta.length === 0 ||
        read.chunk.rows === units.length && units.every(({ bytes }) => startOfObject(bytes) >= 0));
    if (clean) {
      this.#clean = { units, chunk: read.chunk };
      return units;
    }
    if (units.length > 1) {
      const middle = units.length >> 1;
      const left = await this.#good(units.slice(0, middle));
      // What follows is not used.
      if (this.#options.stops && this.#poison.length > 0) return left;
      return [...left, ...await this.#good(units.slice(middle))];
    }
    return await this.#saved(units[0]!, read);
  }

  /** What rows there are in a message, or a row of one, that is not wholly good. */
  async #saved(unit: Unit, found: Legible): Promise<readonly Unit[]> {
    const rows = unit.index === null ? await this.#rowsOf(unit) : null;
    const { message, index, bytes } = unit;
    if (rows !== null && (rows.length > 1 || startOfObject(bytes) < 0)) {
      return await this.#good(rows);
    }
    const read = await this.#asItCame(unit, found);
    if (read.kind === "refused") {
      this.#poison.push({ message, index, bytes, error: read.error });
      return [];
    }
    // Something in it is no object, and cannot be told apart from the rest.
    const [first] = read.errors;
    if (first !== undefined) {
      const place = index === null && first.index > 0 ? `row ${first.index + 1}: ` : "";
      const others = read.chunk.rows > 0 ? ` (${read.chunk.rows} other rows of it were taken)` : "";
      this.#poison.push({ message, index, bytes, error: place + first.error + others });
    }
    return await this.#good(
      linesOf(read.chunk.body).map((line, index) => {
        const bytes = encoder.encode(line);
        return { message, index, bytes, body: this.#inFront(message, bytes) };
      }),
    );
  }

  /** What is wrong with a unit without what is put in front; with it, where nothing else is wrong. */
  async #asItCame({ bytes, body }: Unit, found: Legible): Promise<Legible> {
    if (body === bytes) return found;
    const { reader, table } = this.#options;
    const read = await reader.read(table, bytes);
    if (read.kind === "wait") throw new Waiting(read.why);
    return read.kind === "rows" && read.rejected === 0 ? found : read;
  }

  async #rowsOf({ message, bytes }: Unit): Promise<readonly Unit[] | null> {
    const texts = await this.#options.reader.objects(bytes);
    return texts?.map((text, index) => {
      const bytes = encoder.encode(text);
      return { message, index, bytes, body: this.#inFront(message, bytes) };
    }) ?? null;
  }

  /** All of these are known to be good, but a table may have changed since. */
  async #chunk(units: readonly Unit[]): Promise<Chunk | null> {
    const { reader, table } = this.#options;
    const clean = this.#clean?.units.length === units.length &&
      this.#clean.units.every((unit, at) => unit === units[at]);
    const read: Read = clean
      ? { kind: "rows", chunk: this.#clean!.chunk, rejected: 0, errors: [] }
      : await reader.read(table, joined(units));
    if (read.kind === "wait") throw new Waiting(read.why);
    if (read.kind === "refused" || read.rejected > 0) {
      throw new Waiting(
        `the table changes: ${read.kind === "rows" ? read.errors[0]?.error : read.error}`,
      );
    }
    const { chunk } = read;
    const asLines = chunk.rows === units.length;
    if (table !== null || this.#meta.length === 0 || !asLines) return chunk;
    return {
      ...chunk,
      body: withProperties(chunk.body, units.map(({ message }) => this.#fields(message))),
    };
  }

  /** Of rows, where a value of its own that comes later counts instead. */
  #inFront(message: Message, bytes: Uint8Array): Uint8Array {
    if (this.#options.table === null || this.#meta.length === 0) return bytes;
    const at = startOfObject(bytes);
    if (at < 0) return bytes;
    const fields = this.#fields(message);
    if (fields.length === 0) return bytes;
    let next = at + 1;
    while (isBlank(bytes, next)) next++;
    const front = encoder.encode(`{${fields.map(([name, raw]) => `${name}:${raw}`).join(",")}`);
    const comma = bytes[next] === BRACE_CLOSE ? [] : [COMMA];
    return Buffer.concat([front, Uint8Array.from(comma), bytes.subarray(next)]);
  }

  /** Each as JSON. */
  #fields(message: Message): [name: string, raw: string][] {
    return this.#meta.flatMap(({ name, column }): [string, string][] => {
      const value = message.meta(name);
      return value === null ? [] : [[JSON.stringify(column), rawOf(value)]];
    });
  }

  /** Others wait while a flood of wrong messages is looked at. */
  async #turn(): Promise<void> {
    if (++this.#looks % LOOKS === 0) await nextTurn();
  }
}

const COMMA = 0x2c;
const BRACKET_OPEN = 0x5b;
const BRACKET_CLOSE = 0x5d;
const BRACE_CLOSE = 0x7d;
const NULL = [0x6e, 0x75, 0x6c, 0x6c];

function joined(units: readonly Unit[]): Uint8Array {
  if (units.length === 1) return units[0]!.body;
  const bytes = new Uint8Array(units.reduce((sum, { body }) => sum + body.length + 1, 0));
  let at = 0;
  for (const { body } of units) {
    bytes.set(body, at);
    at += body.length;
    bytes[at++] = RECORD;
  }
  return bytes;
}

function rawOf(value: Exclude<MetaValue, null>): string {
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "null";
  if (typeof value === "string") return JSON.stringify(value.toWellFormed());
  const entries = Object.entries(value).map(([key, text]) =>
    `${JSON.stringify(key.toWellFormed())}:${JSON.stringify(text.toWellFormed())}`
  );
  return `{${entries.join(",")}}`;
}

/** White space as it stands between JSON values, and the marks that may. */
function isBlank(bytes: Uint8Array, at: number): boolean {
  const byte = bytes[at];
  return byte === 0x20 || byte === NEWLINE || byte === 0x0d || byte === 0x09 || byte === RECORD;
}

/** Where the first value of a body begins, if it is an object; -1: it is something else. */
function startOfObject(bytes: Uint8Array): number {
  let at = 0;
  while (isBlank(bytes, at)) at++;
  return bytes[at] === BRACE_OPEN ? at : -1;
}

/** Whether there is no row in a body, and nothing that should be one: nothing, `[]` or `null`. */
export function isEmpty(bytes: Uint8Array): boolean {
  if (bytes[0] === BRACE_OPEN) return false;
  let at = 0;
  const skip = () => {
    while (isBlank(bytes, at)) at++;
  };
  skip();
  if (at === bytes.length) return true;
  if (NULL.every((byte, i) => bytes[at + i] === byte)) at += NULL.length;
  else if (bytes[at] === BRACKET_OPEN) {
    at++;
    skip();
    if (bytes[at] !== BRACKET_CLOSE) return false;
    at++;
  } else return false;
  skip();
  return at === bytes.length;
}

/** What a dead letter has of bytes: their text, or base64 where they are none. */
export function letterText(bytes: Uint8Array): { readonly text: string; readonly base64: boolean } {
  return isUtf8(bytes)
    ? { text: utf8.decode(bytes), base64: false }
    : { text: Buffer.from(bytes).toString("base64"), base64: true };
}

/**
 * Adds properties to events, each of which is a line; what an event has itself stays.
 * @param fields of each line, as JSON.
 */
function withProperties(
  body: Uint8Array,
  fields: readonly (readonly [name: string, raw: string][])[],
): Uint8Array {
  return encoder.encode(
    linesOf(body).map((line, at) => `${withProperty(line, fields[at] ?? [])}\n`).join(""),
  );
}

function linesOf(body: Uint8Array): string[] {
  return utf8.decode(body).split("\n").slice(0, -1);
}

function withProperty(
  line: string,
  fields: readonly (readonly [name: string, raw: string])[],
): string {
  const event: { readonly properties?: Readonly<Record<string, unknown>> | null } = JSON.parse(
    line,
  );
  const own = event.properties ?? {};
  const text = fields.filter(([name]) => !Object.hasOwn(own, JSON.parse(name)))
    .map(([name, raw]) => `${name}:${raw.startsWith('"') ? raw : JSON.stringify(raw)}`).join(",");
  if (text === "") return line;
  const at = placeOfProperties(line);
  if (at < 0) return `{"properties":{${text}},${line.slice(1)}`;
  return `${line.slice(0, at)}${text}${Object.keys(own).length === 0 ? "" : ","}${line.slice(at)}`;
}

/** Behind the bracket with which the properties of an event begin; -1: it has none. */
function placeOfProperties(line: string): number {
  let depth = 0;
  for (let at = 0; at < line.length; at++) {
    const sign = line[at];
    if (sign === "{" || sign === "[") depth++;
    else if (sign === "}" || sign === "]") depth--;
    else if (sign === '"') {
      const end = stringEnd(line, at);
      const [found] = depth === 1 ? /^\s*:\s*\{/.exec(line.slice(end, end + 64)) ?? [] : [];
      if (found !== undefined && JSON.parse(line.slice(at, end)) === "properties") {
        return end + found.length;
      }
      at = end - 1;
    }
  }
  return -1;
}

/** Behind the string that begins with the quote at `at`. */
function stringEnd(line: string, at: number): number {
  for (at++; line[at] !== '"'; at++) if (line[at] === "\\") at++;
  return at + 1;
}
