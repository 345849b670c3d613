/**
 * Names that come from outside (event types, tables) as labels of a metric.
 *
 * Promises: at most `LABEL_CHARS` characters and well-formed Unicode, so that a series stays small
 * and no two labels become equal when they are written as UTF-8. A name that has to be changed gets
 * a hash of the whole, so that two names which differ far behind stay apart.
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
