/**
 * JSON's grammar. A function takes the address where something begins and returns the one behind it, or
 * NO. What is passed is valid JSON on one line, which ClickHouse reads as it stands. There are two ways
 * to read: rows are stepped over as they came, and NO means "look closer" (never a wrong yes, sometimes
 * a needless no); the closer look makes plain what is odd while it steps over it (`normalize`), and NO
 * means that it is no JSON. Bytes above 0x7f are not looked at; the caller has checked that they are
 * UTF-8.
 *
 * Nothing asks where the input ends: a zero stands behind it, and a zero fits nowhere in JSON.
 */

import { STATE } from "./addresses";

export const NO: u32 = 0;
export const TAB: u32 = 9;
export const NEWLINE: u32 = 10;
export const RETURN: u32 = 13;
/** Before each text of a JSON sequence (RFC 7464). */
export const RECORD: u32 = 30;
export const SPACE: u32 = 32;
export const QUOTE: u32 = 34;
export const COMMA: u32 = 44;
export const MINUS: u32 = 45;
export const ZERO: u32 = 48;
export const COLON: u32 = 58;
export const BRACKET_OPEN: u32 = 91;
export const BACKSLASH: u32 = 92;
export const BRACKET_CLOSE: u32 = 93;
export const BRACE_OPEN: u32 = 123;
export const BRACE_CLOSE: u32 = 125;

/** Levels of nesting that ClickHouse reads safely; what goes deeper does not pass. */
export const DEEPEST: u32 = 1000;

/** Whether a line end between tokens becomes a blank, and a lone surrogate U+FFFD, instead of a NO. */
let normalizing: bool = false;
/** Whether something went deeper. */
let deep: bool = false;
/** Where the last NO was decided. */
let fault: u32 = 0;

/** What `normalize` says. */
export const VALID: u32 = 0;
export const INVALID: u32 = 1;
export const DEEP: u32 = 2;

/**
 * Looks at the value that begins at `at`, over any number of lines up to `end`; it is made plain in its
 * place. STATE has where it ends, or where it is no JSON any more.
 */
export function normalize(at: u32, end: u32): u32 {
  const behind = byte(end);
  store<u8>(end, 0);
  normalizing = true;
  deep = false;
  at = skipValue(at, 0);
  normalizing = false;
  store<u8>(end, behind);
  store<u32>(STATE, at == NO ? fault : at, 16);
  if (at != NO) return VALID;
  return deep ? DEEP : INVALID;
}

/** Cold: what passes never comes here. */
function no(at: u32): u32 {
  fault = at;
  return NO;
}

// @ts-ignore: decorator
@inline
export function byte(at: u32): u32 {
  return load<u8>(at);
}

/** After blanks that may stand inside one line. */
// @ts-ignore: decorator
@inline
export function skipBlanks(at: u32): u32 {
  if (byte(at) > SPACE) return at;
  while (byte(at) == SPACE || byte(at) == TAB) at++;
  return byte(at) > SPACE ? at : joinLines(at);
}

/** As `skipSpace`; line ends become blanks. */
function joinLines(at: u32): u32 {
  if (!normalizing) return at;
  for (const end = skipSpace(at); at < end; at++) {
    if (byte(at) != TAB) store<u8>(at, SPACE);
  }
  return at;
}

/** After every JSON whitespace, line ends included. */
export function skipSpace(at: u32): u32 {
  while (byte(at) == SPACE || byte(at) == NEWLINE || byte(at) == RETURN || byte(at) == TAB) at++;
  return at;
}

export const ONES: u64 = 0x0101010101010101;
export const HIGHS: u64 = 0x8080808080808080;

/**
 * The next byte of a string that needs a look: quote, backslash, control character. By eights: a byte is
 * zero where taking one from it borrows from its high bit (Mycroft, 1987), and the lowest such place is
 * exact; no `v128`, which not every processor has that the program runs on.
 */
// @ts-ignore: decorator
@inline
export function skipRun(at: u32): u32 {
  while (true) {
    const eight = load<u64>(at);
    const quote = eight ^ (ONES * 34);
    const backslash = eight ^ (ONES * 92);
    const found = HIGHS &
      (((quote - ONES) & ~quote) | ((backslash - ONES) & ~backslash) |
        ((eight - ONES * 32) & ~eight));
    if (found != 0) return at + (<u32> ctz(found) >> 3);
    at += 8;
  }
  return NO;
}

/** @param at after the opening quote. */
export function skipString(at: u32): u32 {
  at = skipRun(at);
  while (byte(at) == BACKSLASH) {
    at = skipEscape(at + 1);
    if (at == NO) return NO;
    at = skipRun(at);
  }
  return byte(at) == QUOTE ? at + 1 : no(at);
}

/** As `skipString`, for strings without any escape: their bytes are their text. */
// @ts-ignore: decorator
@inline
export function skipLiteral(at: u32): u32 {
  at = skipRun(at);
  return byte(at) == QUOTE ? at + 1 : NO;
}

/** @param at after the backslash. */
export function skipEscape(at: u32): u32 {
  switch (byte(at)) {
    case QUOTE:
    case 47: // slash
    case BACKSLASH:
    case 98: // b
    case 102: // f
    case 110: // n
    case 114: // r
    case 116: // t
      return at + 1;
    case 117: { // u
      const unit = hex4(at + 1);
      if (unit < 0) return no(at);
      if (unit < 0xd800 || unit > 0xdfff) return at + 5;
      if (unit <= 0xdbff && byte(at + 5) == BACKSLASH && byte(at + 6) == 117) {
        const low = hex4(at + 7);
        if (low >= 0xdc00 && low <= 0xdfff) return at + 11;
      }
      // A lone surrogate is JSON, and ClickHouse refuses it.
      if (!normalizing) return NO;
      store<u32>(at, 0x64666666, 1); // "fffd", little endian
      return at + 5;
    }
    default:
      return no(at);
  }
}

/** The value of four hexadecimal digits, or -1. */
export function hex4(at: u32): i32 {
  let value = 0;
  for (const end = at + 4; at < end; at++) {
    const letter = (byte(at) | 32) - 97;
    if (isDigit(at)) value = value * 16 + (byte(at) - ZERO);
    else if (letter < 6) value = value * 16 + letter + 10;
    else return -1;
  }
  return value;
}

// @ts-ignore: decorator
@inline
export function isDigit(at: u32): bool {
  return byte(at) - ZERO < 10;
}

// @ts-ignore: decorator
@inline
export function skipDigits(at: u32): u32 {
  while (isDigit(at)) at++;
  return at;
}

/** By JSON's grammar: no leading zeros, no `+`, a digit on both sides of the point. */
export function skipNumber(at: u32): u32 {
  if (byte(at) == MINUS) at++;
  let to = skipDigits(at);
  if (to == at || (byte(at) == ZERO && to > at + 1)) return no(at);
  if (byte(to) == 46) { // point
    at = to + 1;
    to = skipDigits(at);
    if (to == at) return no(at);
  }
  if ((byte(to) | 32) == 101) { // e
    at = to + 1;
    if (byte(at) == MINUS || byte(at) == 43) at++; // plus
    to = skipDigits(at);
    if (to == at) return no(at);
  }
  return to;
}

/** Any value. @param depth how many levels are open around it. */
export function skipValue(at: u32, depth: u32): u32 {
  switch (byte(at)) {
    case QUOTE:
      return skipString(at + 1);
    case BRACE_OPEN:
      return skipObject(at + 1, depth + 1);
    case BRACKET_OPEN:
      return skipArray(at + 1, depth + 1);
    case 116: // "true", little endian; the others likewise
      return load<u32>(at) == 0x65757274 ? at + 4 : no(at);
    case 102: // "alse"
      return load<u32>(at, 1) == 0x65736c61 ? at + 5 : no(at);
    case 110: // "null"
      return load<u32>(at) == 0x6c6c756e ? at + 4 : no(at);
    default:
      return skipNumber(at);
  }
}

/** @param at after the opening brace. @param depth of what is inside, from 1. */
export function skipObject(at: u32, depth: u32): u32 {
  if (depth > DEEPEST) {
    deep = true;
    return no(at);
  }
  at = skipBlanks(at);
  if (byte(at) == BRACE_CLOSE) return at + 1;
  while (byte(at) == QUOTE) {
    at = skipString(at + 1);
    if (at == NO) return NO;
    at = skipBlanks(at);
    if (byte(at) != COLON) return no(at);
    at = skipValue(skipBlanks(at + 1), depth);
    if (at == NO) return NO;
    at = skipBlanks(at);
    if (byte(at) == BRACE_CLOSE) return at + 1;
    if (byte(at) != COMMA) return no(at);
    at = skipBlanks(at + 1);
  }
  return no(at);
}

/** @param at after the opening bracket. @param depth of what is inside, from 1. */
export function skipArray(at: u32, depth: u32): u32 {
  if (depth > DEEPEST) {
    deep = true;
    return no(at);
  }
  at = skipBlanks(at);
  if (byte(at) == BRACKET_CLOSE) return at + 1;
  while (true) {
    at = skipValue(at, depth);
    if (at == NO) return NO;
    at = skipBlanks(at);
    if (byte(at) == BRACKET_CLOSE) return at + 1;
    if (byte(at) != COMMA) return no(at);
    at = skipBlanks(at + 1);
  }
  return NO;
}
