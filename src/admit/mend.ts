/**
 * Valid JSON as ClickHouse takes it: on one line, and with each lone surrogate escape replaced by
 * U+FFFD, as `toWellFormed()` would. Both leave every byte in its place, so it is one pass over a copy
 * however much there is to mend. Pure.
 */

import { BACKSLASH, hex4, NEWLINE, RETURN } from "./json.ts";

const BLANK = 32;
/** Lower case u. */
const U = 117;
const REPLACEMENT = new TextEncoder().encode("\\ufffd");

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** The text of [from, to) of UTF-8 `bytes`, which is valid JSON. */
export function mended(bytes: Uint8Array, from: number, to: number): string {
  const json = bytes.subarray(from, to);
  let copy: Uint8Array | null = null;
  for (let at = 0; at < json.length; at++) {
    const byte = json[at]!;
    if (byte === BACKSLASH) {
      const length = escapeLength(json, at);
      if (length < 0) (copy ??= json.slice()).set(REPLACEMENT, at);
      at += Math.abs(length) - 1;
    } else if (byte === NEWLINE || byte === RETURN) {
      // Valid JSON has line ends only between its tokens.
      (copy ??= json.slice())[at] = BLANK;
    }
  }
  return utf8.decode(copy ?? json);
}

/** Bytes of the escape at `at`, a pair of surrogates being one; negative for a lone surrogate. */
function escapeLength(json: Uint8Array, at: number): number {
  if (json[at + 1] !== U) return 2;
  const unit = hex4(json, at + 2, json.length);
  if (unit < 0xd800 || unit > 0xdfff) return 6;
  if (unit > 0xdbff || json[at + 6] !== BACKSLASH || json[at + 7] !== U) return -6;
  const low = hex4(json, at + 8, json.length);
  return low >= 0xdc00 && low <= 0xdfff ? 12 : -6;
}
