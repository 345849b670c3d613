/** Events: known keys, each once, with values that need no second look. */

import {
  BRACE_CLOSE,
  BRACE_OPEN,
  byte,
  COLON,
  COMMA,
  isDigit,
  MINUS,
  NO,
  ONES,
  HIGHS,
  QUOTE,
  skipBlanks,
  skipDigits,
  skipLiteral,
  skipObject,
  skipString,
  ZERO,
} from "./json";
import { WINDOW } from "./addresses";
import { isOldFraction, readTime, TIME_BYTES, timeMs, writeTime } from "./times";
import { patch } from "./typed_bytes";

// Events. One bit a field, to see what is repeated and what is missing.
const TYPE: u32 = 1;
const USER: u32 = 2;
export const TIME: u32 = 4;
export const ID: u32 = 8;
const PROPERTIES: u32 = 16;
/** Bytes of a UUID as text. */
const UUID_BYTES: u32 = 36;

// What `skipEvent` saw of the row that it passed last.
export let seen: u32 = 0;
export let typeFrom: u32 = 0;
export let typeTo: u32 = 0;

export function skipEvent(at: u32): u32 {
  if (byte(at) != BRACE_OPEN) return NO;
  let fields: u32 = 0;
  do {
    at = skipBlanks(at + 1);
    if (byte(at) != QUOTE) return NO;
    at++;
    // Keys with their closing quotes, little endian: "eventTyp" "e\"", "userId\"", and so on.
    const eight = load<u64>(at);
    let field: u32 = 0;
    if (eight == 0x707954746e657665 && load<u16>(at, 8) == 0x2265) {
      field = TYPE;
      at += 10;
    } else if ((eight & 0x00ffffffffffffff) == 0x0022644972657375) {
      field = USER;
      at += 7;
    } else if (eight == 0x6d617473656d6974 && load<u16>(at, 8) == 0x2270) {
      field = TIME;
      at += 10;
    } else if ((eight & 0x0000000000ffffff) == 0x0000000000226469) {
      field = ID;
      at += 3;
    } else if (eight == 0x69747265706f7270 && load<u32>(at, 7) == 0x22736569) {
      field = PROPERTIES;
      at += 11;
    }
    if (field == 0 || (fields & field) != 0) return NO;
    fields |= field;
    at = skipBlanks(at);
    if (byte(at) != COLON) return NO;
    at = skipField(field, skipBlanks(at + 1));
    if (at == NO) return NO;
    at = skipBlanks(at);
  } while (byte(at) == COMMA);
  if (byte(at) != BRACE_CLOSE || (fields & TYPE) == 0) return NO;
  seen = fields;
  return at + 1;
}

/** The value of `field`, or NO where it is wrong or odd. */
// @ts-ignore: decorator
@inline
function skipField(field: u32, at: u32): u32 {
  const first = byte(at);
  if (field == PROPERTIES) return first == BRACE_OPEN ? skipObject(at + 1, 2) : NO;
  if (field == TIME && first != QUOTE) {
    return skipEpoch(at);
  }
  if (first != QUOTE) return field == USER ? skipUserNumber(at) : NO;
  at++;
  if (field == USER) return skipString(at);
  const to = skipLiteral(at);
  if (to == NO) return NO;
  if (field == ID) return isUuid(at, to - 1) ? to : NO;
  if (field == TIME) {
    return readTime(at, to - 1) && isInWindow(timeMs) && !isOldFraction(at) ? to : NO;
  }
  if (to - at == 1) return NO;
  typeFrom = at;
  typeTo = to - 1;
  return to;
}

/** A whole number, which is put out in quotes. */
function skipUserNumber(at: u32): u32 {
  const first = byte(at) == MINUS ? at + 1 : at;
  const to = skipDigits(first);
  if (to == first || to - at > 20 || (byte(first) == ZERO && to - at > 1)) return NO;
  if (byte(to) == 46 || (byte(to) | 32) == 101) return NO; // point, e
  const before = patch(at, at, 1);
  if (before == 0) return NO;
  store<u8>(before, QUOTE);
  const behind = patch(to, to, 1);
  if (behind == 0) return NO;
  store<u8>(behind, QUOTE);
  return to;
}

/**
 * Epoch seconds (below 10^11) or milliseconds, whole and written plainly. They are put out as text, which
 * no version of ClickHouse and no setting reads as anything else.
 */
function skipEpoch(at: u32): u32 {
  const negative = byte(at) == MINUS;
  const first = negative ? at + 1 : at;
  let value: i64 = 0;
  let to = first;
  for (; isDigit(to); to++) value = value * 10 + (byte(to) - ZERO);
  if (to == first || to - first > 14 || (byte(first) == ZERO && to - at > 1)) return NO;
  if (byte(to) == 46 || (byte(to) | 32) == 101) return NO; // point, e
  if (value < 100000000000) value *= 1000;
  if (negative) {
    // As text with a fraction it would be an old one.
    if (value % 1000 != 0) return NO;
    value = -value;
  }
  if (!isInWindow(value)) return NO;
  const room = patch(at, to, TIME_BYTES + 2);
  if (room == 0) return NO;
  store<u8>(room, QUOTE);
  writeTime(room + 1, value);
  store<u8>(room + 1, QUOTE, TIME_BYTES);
  return to;
}

// @ts-ignore: decorator
@inline
function isInWindow(ms: i64): bool {
  return ms >= load<i64>(WINDOW) && ms <= load<i64>(WINDOW, 8);
}

export function isUuid(from: u32, to: u32): bool {
  return to - from == UUID_BYTES && byte(from + 8) == MINUS && byte(from + 13) == MINUS &&
    byte(from + 18) == MINUS && byte(from + 23) == MINUS && isHex(load<u64>(from)) &&
    isHex(<u64> load<u32>(from, 9) | (<u64> load<u32>(from, 14) << 32)) &&
    isHex(<u64> load<u32>(from, 19) | (<u64> load<u32>(from, 24) << 32)) &&
    isHex(load<u64>(from, 28));
}

/** Whether all eight bytes are hexadecimal digits: adding lifts what is not below a bound into the high bit. */
function isHex(eight: u64): bool {
  const lower = eight | (ONES * 32);
  const digit = (eight + ONES * (0x80 - 48)) & ~(eight + ONES * (0x80 - 58));
  const letter = (lower + ONES * (0x80 - 97)) & ~(lower + ONES * (0x80 - 103));
  return (eight & HIGHS) == 0 && ((digit | letter) & HIGHS) == HIGHS;
}
