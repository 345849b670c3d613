/**
 * The closer look: a row that the scanner did not pass because something about it is odd, as text that
 * is known to be JSON. It is cut into raw pieces, so that it can be put together anew with every digit
 * as the client wrote it (`JSON.parse` alone would round 18446744073709551615). Pure.
 */

import { done, failed, type Result } from "../kernel/result.ts";

/** Values as JSON that their columns cannot hold, by column. */
export type Misfits = ReadonlyMap<string, readonly string[]>;

/** What kind of row is read. One reader serves one request. */
export interface RowReader {
  /** No good row is shorter. */
  readonly leastBytes: number;
  /** Columns that a table lacks and may get; null or absent: none are asked for. */
  readonly strange?: ReadonlySet<string> | null;
  /** Values that did not fit columns which may become wider. */
  readonly misfits?: Misfits | null;
  /** Rows that were refused for want of a right to one of their columns. */
  readonly rightless?: number;
  /** No row is passed by the scanner: each is looked at closer. */
  readonly closely?: boolean;
  /**
   * Takes a row, normalized and without blanks around it, or says what is wrong with it. For every row
   * that the scanner passes it would have said yes too, and with the same meaning.
   */
  closer(text: string): string | null;
}

/** More columns than any table has; each key costs hundreds of bytes while its row is looked at. */
const MOST_KEYS = 10_000;

/** One `"key": value` of an object, as it stands in the text. */
export interface Member {
  /** Decoded. */
  readonly key: string;
  /** With its quotes and escapes. */
  readonly rawKey: string;
  readonly rawValue: string;
}

/**
 * The members of an object in their order, the last one where a key is repeated; or what `wrong` says
 * of the first key that it is not content with: a row of a million keys is not read to its end.
 * @param text valid JSON, an object.
 */
export function members(text: string, wrong: (key: string) => string | null): Result<Member[]> {
  const found = new Map<string, Member>();
  let count = 0;
  const problem = eachMember(text, (member) => {
    const { key } = member;
    found.delete(key);
    found.set(key, member);
    return null;
  }, (key) => wrong(key) ?? (count++ < MOST_KEYS ? null : `more than ${MOST_KEYS} keys`));
  return problem === null ? done([...found.values()]) : failed(problem);
}

/**
 * Shows all members of an object, in their order; stops at what `see` says, or `wrong` of a key, and
 * returns that. @param text valid JSON, an object.
 */
export function eachMember(
  text: string,
  see: (member: Member) => string | null,
  wrong: (key: string) => string | null = () => null,
): string | null {
  let at = afterSpace(text, text.indexOf("{") + 1);
  while (at < text.length && text[at] !== "}") {
    const keyEnd = stringEnd(text, at);
    const rawKey = text.slice(at, keyEnd);
    const key: string = rawKey.includes("\\") ? JSON.parse(rawKey) : rawKey.slice(1, -1);
    const early = wrong(key);
    if (early !== null) return early;
    const from = afterSpace(text, afterSpace(text, keyEnd) + 1);
    const to = valueEnd(text, from);
    const problem = see({ key, rawKey, rawValue: text.slice(from, to) });
    if (problem !== null) return problem;
    at = afterSpace(text, to);
    if (text[at] === ",") at = afterSpace(text, at + 1);
  }
  return null;
}

/** As `eachMember`, the elements of an array. */
export function eachElement(text: string, see: (raw: string) => string | null): string | null {
  let at = afterSpace(text, text.indexOf("[") + 1);
  while (at < text.length && text[at] !== "]") {
    const to = valueEnd(text, at);
    const problem = see(text.slice(at, to));
    if (problem !== null) return problem;
    at = afterSpace(text, to);
    if (text[at] === ",") at = afterSpace(text, at + 1);
  }
  return null;
}

/** The place after the string that begins with the quote at `at`. */
function stringEnd(text: string, at: number): number {
  for (at++; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === 34) return at + 1;
    if (unit === 92) at++;
  }
  return text.length;
}

/** The place after the value that begins at `at`. */
function valueEnd(text: string, at: number): number {
  if (text[at] === '"') return stringEnd(text, at);
  let open = 0;
  for (; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 34:
        at = stringEnd(text, at) - 1;
        break;
      case 91:
      case 123:
        open++;
        break;
      case 93:
      case 125:
        if (open === 0) return at;
        if (--open === 0) return at + 1;
        break;
      case 9:
      case 10:
      case 13:
      case 32:
      case 44:
        if (open === 0) return at;
    }
  }
  return at;
}

function afterSpace(text: string, at: number): number {
  for (;; at++) {
    const unit = text.charCodeAt(at);
    if (unit !== 32 && unit !== 10 && unit !== 13 && unit !== 9) return at;
  }
}
