/**
 * Whether bytes are JSON, without making anything of them: `JSON.parse` builds every value and throws
 * where something is wrong, and a body of a million small wrong rows would cost a million exceptions.
 * Not recursive, so nesting costs no stack. Pure.
 */

import {
  BACKSLASH,
  BRACE_CLOSE,
  BRACE_OPEN,
  BRACKET_OPEN,
  COLON,
  COMMA,
  hex4,
  isEscaped,
  QUOTE,
  skipNumber,
  skipRun,
  skipSpace,
  skipWord,
} from "./json.ts";

/** Nesting that ClickHouse reads safely; a row that goes deeper is refused. */
export const DEEPEST = 1000;

/** The closing bracket of each level that is open. */
const closers = new Uint8Array(DEEPEST);

/** Why [from, to) of UTF-8 `bytes` is not one JSON value that may be used, or null when it is. */
export function jsonFault(bytes: Uint8Array, from: number, to: number): "invalid" | "deep" | null {
  let depth = 0;
  let at = skipSpace(bytes, from, to);
  for (;;) {
    // A value begins here.
    const first = at < to ? bytes[at]! : 0;
    if (first === BRACE_OPEN || first === BRACKET_OPEN) {
      if (depth === DEEPEST) return "deep";
      // In ASCII two places behind the opening one, for both kinds.
      const closer = first + 2;
      at = skipSpace(bytes, at + 1, to);
      if (at < to && bytes[at] === closer) {
        at++;
      } else {
        closers[depth++] = closer;
        if (closer === BRACE_CLOSE) at = skipKey(bytes, at, to);
        if (at < 0) return "invalid";
        continue;
      }
    } else {
      at = skipScalar(bytes, at, to);
      if (at < 0) return "invalid";
    }
    // A value ended here.
    for (;;) {
      at = skipSpace(bytes, at, to);
      if (depth === 0) return at === to ? null : "invalid";
      if (at === to) return "invalid";
      const closer = closers[depth - 1]!;
      if (bytes[at] === COMMA) {
        at = skipSpace(bytes, at + 1, to);
        if (closer === BRACE_CLOSE) at = skipKey(bytes, at, to);
        if (at < 0) return "invalid";
        break;
      }
      if (bytes[at] !== closer) return "invalid";
      depth--;
      at++;
    }
  }
}

/** The place of the value behind the key and colon at `at`, or -1. */
function skipKey(bytes: Uint8Array, at: number, end: number): number {
  if (at >= end || bytes[at] !== QUOTE) return -1;
  at = skipText(bytes, at + 1, end);
  if (at < 0) return -1;
  at = skipSpace(bytes, at, end);
  return at < end && bytes[at] === COLON ? skipSpace(bytes, at + 1, end) : -1;
}

function skipScalar(bytes: Uint8Array, at: number, end: number): number {
  if (at >= end) return -1;
  switch (bytes[at]) {
    case QUOTE:
      return skipText(bytes, at + 1, end);
    case 116:
      return skipWord(bytes, at, end, "true");
    case 102:
      return skipWord(bytes, at, end, "false");
    case 110:
      return skipWord(bytes, at, end, "null");
    default:
      return skipNumber(bytes, at, end);
  }
}

/** @param at after the opening quote. Lone surrogate escapes are JSON. */
function skipText(bytes: Uint8Array, at: number, end: number): number {
  for (;;) {
    at = skipRun(bytes, at, end);
    if (at >= end) return -1;
    if (bytes[at] === QUOTE) return at + 1;
    if (bytes[at] !== BACKSLASH || at + 1 >= end) return -1;
    const escaped = bytes[at + 1]!;
    if (escaped === 117) { // u
      if (hex4(bytes, at + 2, end) < 0) return -1;
      at += 6;
    } else if (isEscaped(escaped)) at += 2;
    else return -1;
  }
}
