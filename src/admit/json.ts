/**
 * Steps over JSON in the client's own bytes, for the rows that the scanner does not pass (it has the same
 * in `scanner/json.as`). A function takes the place where something begins and returns the place after
 * it; those that can fail return -1 then. Nothing here looks at whether bytes above 0x7f are UTF-8.
 */

export const NEWLINE = 10;
export const RETURN = 13;
export const QUOTE = 34;
export const COMMA = 44;
export const MINUS = 45;
export const COLON = 58;
export const BRACKET_OPEN = 91;
export const BACKSLASH = 92;
export const BRACKET_CLOSE = 93;
export const BRACE_OPEN = 123;
export const BRACE_CLOSE = 125;

const TAB = 9;
const SPACE = 32;
const POINT = 46;
const SLASH = 47;
const ZERO = 48;
const NINE = 57;

/** After every JSON whitespace, line ends included. */
export function skipSpace(bytes: Uint8Array, at: number, end: number): number {
  while (at < end) {
    const byte = bytes[at]!;
    if (byte !== SPACE && byte !== NEWLINE && byte !== RETURN && byte !== TAB) break;
    at++;
  }
  return at;
}

/** 1 for the bytes that end a run of plain ones in a string: quote, backslash, control characters. */
const STOPS = new Uint8Array(256).fill(1, 0, SPACE);
STOPS[QUOTE] = 1;
STOPS[BACKSLASH] = 1;

/** The next byte of a string that needs a look, or `end`. Most bytes are stepped over here, by fours. */
export function skipRun(bytes: Uint8Array, at: number, end: number): number {
  const lastFour = end - 4;
  while (
    at <= lastFour &&
    (STOPS[bytes[at]!]! | STOPS[bytes[at + 1]!]! | STOPS[bytes[at + 2]!]! |
        STOPS[bytes[at + 3]!]!) === 0
  ) at += 4;
  while (at < end && STOPS[bytes[at]!] === 0) at++;
  return at;
}

/** Whether this byte may stand behind a backslash; `u` asks for more. */
export function isEscaped(byte: number): boolean {
  return ESCAPED[byte] === 1;
}

const ESCAPED = new Uint8Array(256);
for (const byte of [QUOTE, SLASH, BACKSLASH, 98, 102, 110, 114, 116]) ESCAPED[byte] = 1; // b f n r t

/** The value of four hexadecimal digits, or -1. */
export function hex4(bytes: Uint8Array, at: number, end: number): number {
  if (at + 4 > end) return -1;
  let value = 0;
  for (let i = at; i < at + 4; i++) {
    const digit = hexDigit(bytes[i]!);
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/** 0 to 15, or -1. */
export function hexDigit(byte: number): number {
  if (byte >= ZERO && byte <= NINE) return byte - ZERO;
  const letter = byte | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

function skipDigits(bytes: Uint8Array, at: number, end: number): number {
  while (at < end && bytes[at]! >= ZERO && bytes[at]! <= NINE) at++;
  return at;
}

/** By JSON's grammar: no leading zeros, no `+`, a digit on both sides of the point. */
export function skipNumber(bytes: Uint8Array, at: number, end: number): number {
  if (at < end && bytes[at] === MINUS) at++;
  let stop = skipDigits(bytes, at, end);
  if (stop === at || (bytes[at] === ZERO && stop > at + 1)) return -1;
  at = stop;
  if (at < end && bytes[at] === POINT) {
    stop = skipDigits(bytes, at + 1, end);
    if (stop === at + 1) return -1;
    at = stop;
  }
  if (at < end && (bytes[at]! | 32) === 101) { // e
    at++;
    if (at < end && (bytes[at] === MINUS || bytes[at] === 43)) at++;
    stop = skipDigits(bytes, at, end);
    if (stop === at) return -1;
    at = stop;
  }
  return at;
}

export function skipWord(bytes: Uint8Array, at: number, end: number, word: string): number {
  if (at + word.length > end) return -1;
  for (let i = 0; i < word.length; i++) if (bytes[at + i] !== word.charCodeAt(i)) return -1;
  return at + word.length;
}

/**
 * The end of a value of which only the brackets are counted: where a broken or odd value probably
 * ends. Stops before a `,` or a closing bracket that belongs to the list around it.
 */
export function skipLoosely(bytes: Uint8Array, at: number, end: number): number {
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
