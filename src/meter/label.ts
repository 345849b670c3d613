/**
 * Names that come from outside (event types, tables) as labels of a metric and as tags of InfluxDB.
 *
 * A label has at most `LABEL_CHARS` characters and well-formed Unicode, so that a series stays small
 * and no two labels become equal when they are written as UTF-8. A name that has to be changed gets
 * a hash of the whole, so that two names which differ far behind stay apart.
 *
 * A tag is a label in InfluxDB's line protocol, which cannot carry every text: a newline begins another
 * line even after a backslash, a backslash before a separator hides it, and an empty value is a syntax
 * error. What the protocol cannot carry is written as in a URL, `%0A` for a newline, and a `%` that
 * looks like such an escape becomes `%25`. So ordinary texts arrive as they are, different texts stay
 * different, and what was meant can be read back. Commas, spaces and equals signs are left alone: the
 * library escapes those.
 */

import { Buffer } from "node:buffer";
import { nodeCrypto } from "../kernel/builtins.ts";

/** Longest label, in UTF-16 units, its hash included. */
export const LABEL_CHARS = 256;

const HASH_HEX = 16;

/** Most names come back as they are. */
export function boundedLabel(name: string): string {
  if (name.length <= LABEL_CHARS && name.isWellFormed()) return name;
  const room = LABEL_CHARS - 1 - HASH_HEX;
  return `${name.slice(0, room).toWellFormed()}~${hash(name)}`;
}

function hash(text: string): string {
  // UTF-16, since UTF-8 would make all lone surrogates equal.
  return nodeCrypto().createHash("sha256").update(Buffer.from(text, "utf16le")).digest("hex").slice(
    0,
    HASH_HEX,
  );
}

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
