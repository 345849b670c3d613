/**
 * Values of columns: whether one surely fits its column's type. A column's type is a tree of nodes, laid
 * out by `types.ts`; a value is stepped over as JSON while it is held against its node. NO means "look
 * closer", here as everywhere: `fit.ts` knows more forms, and says what is wrong.
 *
 * A time whose text could be read in more than one way is put out in another one: that is a patch.
 */

import {
  BRACE_CLOSE,
  BRACE_OPEN,
  BRACKET_CLOSE,
  BRACKET_OPEN,
  byte,
  COLON,
  COMMA,
  isDigit,
  MINUS,
  NO,
  QUOTE,
  skipBlanks,
  skipDigits,
  skipLiteral,
  skipNumber,
  skipRun,
  skipString,
  skipValue,
  ZERO,
} from "./json";
import { MOST_PATCHES, PATCH_BYTES, PATCHES } from "./addresses";
import { isUuid } from "./event_bytes";
import { isOldFraction, readDate, readTime, TIME_BYTES, timeMs, writeTime, zoned } from "./times";
import { same } from "./row_bytes";

/** Where the nodes of the set begin; addresses in them count from here. */
let base: u32 = 0;

export function typesFrom(at: u32): void {
  base = at;
}

// A node: u32 operation, u32 flags, u32 one, u32 two, then two of 64 bits. As in `types.ts`.
// @ts-ignore: decorator
@inline
function flags(node: u32): u32 {
  return load<u32>(node, 4);
}
// @ts-ignore: decorator
@inline
function one(node: u32): u32 {
  return load<u32>(node, 8);
}
// @ts-ignore: decorator
@inline
function two(node: u32): u32 {
  return load<u32>(node, 12);
}

const NULLABLE: u32 = 1;
/** Of a time: text without a zone is not in the column's own, and becomes UTC. */
const UTC: u32 = 2;
/** Of a time: whole seconds. */
const SECONDS: u32 = 4;
/** Of a time: text without a zone is in the column's own, which is not UTC. */
const ZONED: u32 = 8;
/** Of a float. */
const SINGLE: u32 = 2;

const ANY: u32 = 0;
const CLOSER_LOOK: u32 = 1;
const INTEGER: u32 = 2;
const FLOAT: u32 = 3;
const DECIMAL: u32 = 4;
const BOOL: u32 = 5;
const FIXED: u32 = 6;
const UUID: u32 = 7;
const IPV4: u32 = 8;
const ENUM: u32 = 9;
const DATE: u32 = 10;
const TIME: u32 = 11;
const ARRAY: u32 = 12;
const MAP: u32 = 13;
const TUPLE: u32 = 14;
const RECORD: u32 = 15;

/** Below this a number is seconds, from here on milliseconds, up to the other. */
const SECONDS_BELOW: u64 = 100000000000;
const MS_BELOW: u64 = 100000000000000;

/** Of the row that was looked at last. */
export let patches: u32 = 0;

export function beginPatches(): void {
  patches = 0;
}

/** Instead of [from, to) of the input `bytes` bytes, to be written where it says; 0: there is no room. */
export function patch(from: u32, to: u32, bytes: u32): u32 {
  if (patches == MOST_PATCHES) return 0;
  const at = PATCHES + patches++ * PATCH_BYTES;
  store<u32>(at, from);
  store<u32>(at, to, 4);
  store<u32>(at, bytes, 8);
  return at + 12;
}

export function skipTyped(node: u32, at: u32, depth: u32): u32 {
  const first = byte(at);
  const operation = load<u32>(node);
  if (operation == ANY) return skipValue(at, depth);
  if (first == 110) { // null
    return (flags(node) & NULLABLE) != 0 && load<u32>(at) == 0x6c6c756e ? at + 4 : NO;
  }
  switch (operation) {
    case INTEGER:
      return skipInteger(node, at);
    case FLOAT:
      return skipFloat(node, at);
    case DECIMAL:
      return skipDecimal(node, at);
    case BOOL:
      if (first == 116) return load<u32>(at) == 0x65757274 ? at + 4 : NO;
      if (first == 102) return load<u32>(at, 1) == 0x65736c61 ? at + 5 : NO;
      return first - ZERO < 2 ? at + 1 : NO;
    case TIME:
      return first == QUOTE ? skipTimeText(node, at) : skipTimeNumber(node, at);
    case ARRAY:
      return first == BRACKET_OPEN ? skipItems(base + one(node), at + 1, depth + 1) : NO;
    case MAP:
      return first == BRACE_OPEN ? skipMap(node, at + 1, depth + 1) : NO;
    case TUPLE:
      return first == BRACKET_OPEN ? skipTuple(node, at + 1, depth + 1) : NO;
    case RECORD:
      return first == BRACE_OPEN ? skipRecord(node, at + 1, depth + 1) : NO;
  }
  if (first != QUOTE || operation == CLOSER_LOOK) return NO;
  const from = at + 1;
  const to = skipLiteral(from);
  if (to == NO) return NO;
  const length = to - 1 - from;
  switch (operation) {
    case FIXED:
      return length <= one(node) ? to : NO;
    case UUID:
      return isUuid(from, to - 1) ? to : NO;
    case IPV4:
      return isIpv4(from, to - 1) ? to : NO;
    case ENUM:
      return isNamed(base + one(node), from, length) ? to : NO;
    case DATE:
      return length == 10 && readDate(from) && timeMs >= load<i64>(node, 16) &&
          timeMs <= load<i64>(node, 24)
        ? to
        : NO;
  }
  return NO;
}

/** The greatest value and that of the least one's amount stand in the node. */
function skipInteger(node: u32, at: u32): u32 {
  const negative = byte(at) == MINUS;
  if (negative) at++;
  let value: u64 = 0;
  let to = at;
  for (; isDigit(to); to++) value = value * 10 + (byte(to) - ZERO);
  const digits = to - at;
  if (digits == 0 || digits > 20 || (byte(at) == ZERO && (digits > 1 || negative))) return NO;
  // Of twenty digits those above 2^64 have begun again from 0.
  if (digits == 20 && (byte(at) != ZERO + 1 || value < 10000000000000000000)) return NO;
  return value <= load<u64>(negative ? node + 24 : node + 16) ? to : NO;
}

/** Not so long that it could be out of range. */
function skipFloat(node: u32, at: u32): u32 {
  const to = skipNumber(at);
  if (to == NO || to - at > 30) return NO;
  if (to - at < 3) return to;
  if ((byte(to - 2) | 32) == 101 || (byte(to - 3) | 32) == 101) {
    return (flags(node) & SINGLE) == 0 || byte(to - 2) == MINUS || (byte(to - 2) | 32) == 101
      ? (to - at <= 28 ? to : NO)
      : NO;
  }
  return to - at > 3 && ((byte(to - 4) | 32) == 101 || (byte(to - 5) | 32) == 101) ? NO : to;
}

/** Digits before the point, and behind it, at most. */
function skipDecimal(node: u32, at: u32): u32 {
  if (byte(at) == MINUS) at++;
  let to = skipDigits(at);
  if (to == at || to - at > one(node) || (byte(at) == ZERO && to > at + 1)) return NO;
  if (byte(to) == 46) { // point
    at = to + 1;
    to = skipDigits(at);
    if (to == at || to - at > two(node)) return NO;
  }
  return (byte(to) | 32) == 101 ? NO : to; // e
}

function isIpv4(at: u32, end: u32): bool {
  for (let part = 0; part < 4; part++) {
    if (part > 0) {
      if (byte(at) != 46) return false;
      at++;
    }
    const to = skipDigits(at);
    let value: u32 = 0;
    if (to == at || to - at > 3) return false;
    for (; at < to; at++) value = value * 10 + (byte(at) - ZERO);
    if (value > 255) return false;
  }
  return at == end;
}

/** Whether the text is one of a list: u32 each of length and address, ended by a zero address. */
function isNamed(list: u32, from: u32, length: u32): bool {
  for (; load<u32>(list, 4) != 0; list += 8) {
    if (load<u32>(list) == length && same(base + load<u32>(list, 4), from, length)) return true;
  }
  return false;
}

/** @param at of the opening quote. */
function skipTimeText(node: u32, at: u32): u32 {
  const from = at + 1;
  const to = skipLiteral(from);
  if (to == NO || !readTime(from, to - 1) || isOldFraction(from)) return NO;
  // Clocks there may have been put forward over it.
  if (!zoned && (flags(node) & ZONED) != 0) return NO;
  if (timeMs < load<i64>(node, 16) || timeMs > load<i64>(node, 24)) return NO;
  if (!zoned && (flags(node) & UTC) != 0) {
    const room = patch(to - 1, to - 1, 1);
    if (room == 0) return NO;
    store<u8>(room, 90); // Z
  }
  return to;
}

/** Whole seconds since 1970, and where the column has fractions milliseconds too. */
function skipTimeNumber(node: u32, at: u32): u32 {
  let value: u64 = 0;
  let to = at;
  for (; isDigit(to); to++) value = value * 10 + (byte(to) - ZERO);
  if (to == at || to - at > 14 || (byte(at) == ZERO && to > at + 1)) return NO;
  // What else may follow would make another number of it.
  if (byte(to) == 46 || (byte(to) | 32) == 101) return NO;
  const seconds = value < SECONDS_BELOW;
  if (!seconds && value >= MS_BELOW) return NO;
  const ms: i64 = seconds ? <i64> value * 1000 : <i64> value;
  if (ms > load<i64>(node, 24)) return NO;
  if ((flags(node) & SECONDS) != 0) return seconds ? to : NO;
  const room = patch(at, to, TIME_BYTES + 3);
  if (room == 0) return NO;
  store<u8>(room, QUOTE);
  writeTime(room + 1, ms);
  store<u16>(room + 1, 0x225a, TIME_BYTES); // Z"
  return to;
}

function skipItems(node: u32, at: u32, depth: u32): u32 {
  at = skipBlanks(at);
  if (byte(at) == BRACKET_CLOSE) return at + 1;
  while (true) {
    at = skipTyped(node, at, depth);
    if (at == NO) return NO;
    at = skipBlanks(at);
    if (byte(at) == BRACKET_CLOSE) return at + 1;
    if (byte(at) != COMMA) return NO;
    at = skipBlanks(at + 1);
  }
  return NO;
}

/** Keys are text; those that are numbers stand in quotes. */
function skipMap(node: u32, at: u32, depth: u32): u32 {
  const key = base + one(node), value = base + two(node);
  const operation = load<u32>(key);
  at = skipBlanks(at);
  if (byte(at) == BRACE_CLOSE) return at + 1;
  while (byte(at) == QUOTE) {
    if (operation == ANY) at = skipString(at + 1);
    else if (operation == INTEGER) {
      at = skipInteger(key, at + 1);
      if (at != NO) at = byte(at) == QUOTE ? at + 1 : NO;
    } else at = skipTyped(key, at, depth);
    if (at == NO) return NO;
    at = skipBlanks(at);
    if (byte(at) != COLON) return NO;
    at = skipTyped(value, skipBlanks(at + 1), depth);
    if (at == NO) return NO;
    at = skipBlanks(at);
    if (byte(at) == BRACE_CLOSE) return at + 1;
    if (byte(at) != COMMA) return NO;
    at = skipBlanks(at + 1);
  }
  return NO;
}

/** Its elements stand behind each other: u32 each. */
function skipTuple(node: u32, at: u32, depth: u32): u32 {
  const list = base + one(node), count = two(node);
  for (let index: u32 = 0; index < count; index++) {
    at = skipBlanks(at);
    if (index > 0) {
      if (byte(at) != COMMA) return NO;
      at = skipBlanks(at + 1);
    }
    at = skipTyped(base + load<u32>(list + index * 4), at, depth);
    if (at == NO) return NO;
  }
  at = skipBlanks(at);
  return byte(at) == BRACKET_CLOSE ? at + 1 : NO;
}

/** A tuple with names, all of them and in their order: u32 each of node, length and address of the name. */
function skipRecord(node: u32, at: u32, depth: u32): u32 {
  const list = base + one(node), count = two(node);
  for (let index: u32 = 0; index < count; index++) {
    const field = list + index * 12;
    at = skipBlanks(at);
    if (index > 0) {
      if (byte(at) != COMMA) return NO;
      at = skipBlanks(at + 1);
    }
    if (byte(at) != QUOTE) return NO;
    const from = at + 1;
    const to = skipRun(from);
    const length = load<u32>(field, 4);
    if (byte(to) != QUOTE || to - from != length || !same(base + load<u32>(field, 8), from, length)) {
      return NO;
    }
    at = skipBlanks(to + 1);
    if (byte(at) != COLON) return NO;
    at = skipTyped(base + load<u32>(field), skipBlanks(at + 1), depth);
    if (at == NO) return NO;
  }
  at = skipBlanks(at);
  return byte(at) == BRACE_CLOSE ? at + 1 : NO;
}
