/**
 * Any text as a tag value of InfluxDB's line protocol, which cannot carry every text: a newline
 * begins another line even after a backslash, a backslash before a separator hides it, and an empty
 * value is a syntax error.
 *
 * What the protocol cannot carry is written as in a URL, `%0A` for a newline, and a `%` that looks
 * like such an escape becomes `%25`. So ordinary texts arrive as they are, different texts stay
 * different, and what was meant can be read back. Commas, spaces and equals signs are left alone:
 * the library escapes those.
 */

import { Buffer } from "node:buffer";
import { boundedLabel } from "./label.ts";

/**
 * Control characters · a backslash before a separator, before another backslash or at the end, or
 * before a quote (the library doubles that one) · a percent sign before two hexadecimal digits.
 */
// deno-lint-ignore no-control-regex
const AWKWARD = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]|\\(?=[,= '\\]|$)|%(?=[0-9A-Fa-f]{2})/g;

/** The value to hand to the library, or null where the tag is to be left out (an empty text). */
export function tagValue(text: string): string | null {
  if (text === "") return null;
  return boundedLabel(text).replace(AWKWARD, percent);
}

function percent(character: string): string {
  return [...Buffer.from(character)]
    .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`)
    .join("");
}
