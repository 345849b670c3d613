/**
 * Analytics events. A valid line is forwarded as the client wrote it, with a missing id or timestamp
 * spliced in front: the INSERT renames the fields and turns property values into strings with every
 * digit kept. Only an odd line (a repeated key, a lone surrogate, `1.5e12` as the time) is put
 * together anew.
 */

import { LONGEST_TYPE_BYTES, OTHER_TYPE, type TypeCounts } from "../contracts.ts";
import { checkMember, unknownField } from "./event_rules.ts";
import { ID_BYTES, type Ids } from "./ids.ts";
import {
  BRACE_CLOSE,
  BRACE_OPEN,
  COLON,
  COMMA,
  hexDigit,
  MINUS,
  QUOTE,
  skipBlanks,
  skipLiteral,
  skipNumber,
  skipObject,
  skipString,
} from "./json.ts";
import type { Lines } from "./lines.ts";
import type { Names } from "./names.ts";
import type { RowReader } from "./reader.ts";
import { members, shown } from "./scan.ts";
import { inRange, isoMs, plainMs } from "./timestamp.ts";

/** Of one byte of text, as `\u0041`. */
const LONGEST_ESCAPE = 6;

// One bit a field, to see what is repeated and what is missing.
const TYPE = 1;
const USER = 2;
const TIME = 4;
const ID = 8;
const PROPERTIES = 16;

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const TYPE_KEY = encoder.encode('eventType"');
const USER_KEY = encoder.encode('userId"');
const TIME_KEY = encoder.encode('timestamp"');
const ID_KEY = encoder.encode('id"');
const PROPERTIES_KEY = encoder.encode('properties"');

const ID_AT = '{"id":"'.length;

export class EventReader implements RowReader {
  readonly leastBytes = '{"eventType":"x"}'.length;
  readonly #lines: Lines;
  readonly #names: Names;
  readonly #ids: Ids;
  #types = new Map<string, number>();
  /** The type of the row before, and rows of it that are not in `#types` yet: most rows have it too. */
  #lastType = "";
  #lastRows = 0;
  #nowMs = NaN;
  /** For `#nowMs`, see `#makeFronts`. */
  #fronts: readonly (Uint8Array | undefined)[] = [];
  // What `plain` saw of the row that it passed last.
  #seen = 0;
  #typeFrom = 0;
  #typeTo = 0;

  constructor(lines: Lines, names: Names, ids: Ids) {
    this.#lines = lines;
    this.#names = names;
    this.#ids = ids;
  }

  begin(nowMs: number): void {
    if (this.#types.size > 0) this.#types = new Map();
    this.#lastRows = 0;
    if (nowMs === this.#nowMs) return;
    this.#nowMs = nowMs;
    this.#fronts = this.#makeFronts();
  }

  types(): TypeCounts {
    this.#endRun();
    const types = this.#types;
    this.#types = new Map();
    return types;
  }

  plain(bytes: Uint8Array, at: number, end: number): number {
    if (bytes[at] !== BRACE_OPEN) return -1;
    let seen = 0;
    do {
      at = skipBlanks(bytes, at + 1, end);
      if (at >= end || bytes[at] !== QUOTE) return -1;
      const field = fieldAt(bytes, at + 1, end);
      if (field === 0 || (seen & field) !== 0) return -1;
      seen |= field;
      at = skipBlanks(bytes, at + 1 + KEY_BYTES[field]!, end);
      if (at >= end || bytes[at] !== COLON) return -1;
      at = this.#value(field, bytes, skipBlanks(bytes, at + 1, end), end);
      if (at < 0) return -1;
      at = skipBlanks(bytes, at, end);
      if (at >= end) return -1;
    } while (bytes[at] === COMMA);
    if (bytes[at] !== BRACE_CLOSE || (seen & TYPE) === 0) return -1;
    this.#seen = seen;
    return at + 1;
  }

  forward(bytes: Uint8Array, at: number, to: number): void {
    const front = this.#fronts[this.#seen & (TIME | ID)];
    if (front === undefined) {
      this.#lines.copy(at, to);
    } else {
      const place = this.#lines.front(front);
      if ((this.#seen & ID) === 0) this.#ids.renew(this.#lines.room, place + ID_AT);
      this.#lines.copy(at + 1, to);
    }
    const typeBytes = this.#typeTo - this.#typeFrom;
    this.#count(
      typeBytes > LONGEST_TYPE_BYTES
        ? OTHER_TYPE
        : this.#names.text(bytes, this.#typeFrom, this.#typeTo),
    );
  }

  closer(text: string): string | null {
    if (!text.startsWith("{")) return `expected a JSON object, got ${shown(text)}`;
    const found = members(text, unknownField);
    if (typeof found === "string") return found;
    const given = new Map<string, string>();
    for (const member of found) {
      const checked = checkMember(member);
      if (checked.kind === "bad") return checked.error;
      given.set(checked.field, checked.value);
    }
    const rawType = given.get("eventType");
    if (rawType === undefined) return "eventType: missing; expected a string";
    if (!given.has("id")) given.set("id", this.#newId());
    if (!given.has("timestamp")) given.set("timestamp", String(this.#nowMs));
    this.#lines.text(`{${[...given].map(([field, value]) => `"${field}":${value}`).join(",")}}`);
    const type: string = JSON.parse(rawType);
    this.#count(encoder.encode(type).length > LONGEST_TYPE_BYTES ? OTHER_TYPE : type);
    return null;
  }

  /** The place after the value of `field`, or -1 where it is wrong or odd. */
  #value(field: number, bytes: Uint8Array, at: number, end: number): number {
    if (at >= end) return -1;
    const first = bytes[at]!;
    if (field === PROPERTIES) {
      return first === BRACE_OPEN ? skipObject(bytes, at + 1, end, 0) : -1;
    }
    if (field === TIME && first !== QUOTE) {
      const to = skipNumber(bytes, at, end);
      return to > 0 && inRange(plainMs(bytes, at, to)) ? to : -1;
    }
    if (first !== QUOTE) return -1;
    at++;
    if (field === USER) return skipString(bytes, at, end);
    const to = skipLiteral(bytes, at, end);
    if (to < 0) return -1;
    if (field === ID) return isUuid(bytes, at, to - 1) ? to : -1;
    if (field === TIME) return inRange(isoMs(bytes, at, to - 1)) ? to : -1;
    if (to - at === 1) return -1;
    this.#typeFrom = at;
    this.#typeTo = to - 1;
    return to;
  }

  /** A new id as JSON. */
  #newId(): string {
    const id = new Uint8Array(ID_BYTES);
    this.#ids.write(id, 0, this.#nowMs);
    return `"${decoder.decode(id)}"`;
  }

  /** What is put in front of a row, by the fields that the row brings; its `{` is left out then. */
  #makeFronts(): (Uint8Array | undefined)[] {
    const id = `"id":${this.#newId()},`, time = `"timestamp":${this.#nowMs},`;
    const made: (Uint8Array | undefined)[] = new Array((TIME | ID) + 1).fill(undefined);
    made[0] = encoder.encode(`{${id}${time}`);
    made[TIME] = encoder.encode(`{${id}`);
    made[ID] = encoder.encode(`{${time}`);
    return made;
  }

  /** @param rawType with its quotes and escapes. */
  #countText(rawType: string): void {
    if (rawType.length > LONGEST_TYPE_BYTES * LONGEST_ESCAPE + 2) return this.#count(OTHER_TYPE);
    const type: string = JSON.parse(rawType);
    this.#count(encoder.encode(type).length > LONGEST_TYPE_BYTES ? OTHER_TYPE : type);
  }

  #count(type: string): void {
    if (type !== this.#lastType) {
      this.#endRun();
      this.#lastType = type;
    }
    this.#lastRows++;
  }

  #endRun(): void {
    const type = this.#lastType, rows = this.#lastRows;
    if (rows > 0) this.#types.set(type, (this.#types.get(type) ?? 0) + rows);
    this.#lastRows = 0;
  }
}

/** Bytes of a key with its closing quote, by field. */
const KEY_BYTES: readonly number[] = keyBytes();

function keyBytes(): number[] {
  const bytes = new Array(PROPERTIES + 1).fill(0);
  bytes[TYPE] = TYPE_KEY.length;
  bytes[USER] = USER_KEY.length;
  bytes[TIME] = TIME_KEY.length;
  bytes[ID] = ID_KEY.length;
  bytes[PROPERTIES] = PROPERTIES_KEY.length;
  return bytes;
}

/** The field whose key begins at `at` (after the quote), or 0. */
function fieldAt(bytes: Uint8Array, at: number, end: number): number {
  switch (bytes[at]) {
    case 101:
      return isKey(bytes, at, end, TYPE_KEY) ? TYPE : 0;
    case 117:
      return isKey(bytes, at, end, USER_KEY) ? USER : 0;
    case 116:
      return isKey(bytes, at, end, TIME_KEY) ? TIME : 0;
    case 105:
      return isKey(bytes, at, end, ID_KEY) ? ID : 0;
    case 112:
      return isKey(bytes, at, end, PROPERTIES_KEY) ? PROPERTIES : 0;
    default:
      return 0;
  }
}

function isKey(bytes: Uint8Array, at: number, end: number, key: Uint8Array): boolean {
  if (at + key.length > end) return false;
  for (let i = 1; i < key.length; i++) if (bytes[at + i] !== key[i]) return false;
  return true;
}

/** Where a written UUID has its dashes. */
const DASHES = [8, 13, 18, 23] as const;

function isUuid(bytes: Uint8Array, from: number, to: number): boolean {
  if (to - from !== ID_BYTES) return false;
  for (const dash of DASHES) if (bytes[from + dash] !== MINUS) return false;
  let digits = 0;
  for (let at = from; at < to; at++) digits += HEX_DIGITS[bytes[at]!]!;
  return digits === ID_BYTES - DASHES.length;
}

/** 1 for each byte that is a hexadecimal digit. */
const HEX_DIGITS = new Uint8Array(256).map((_, byte) => hexDigit(byte) < 0 ? 0 : 1);
