/**
 * The slow way, on text: what `json.ts` passed on because something about it is odd. Tells whether
 * text is JSON, mends what ClickHouse would refuse, and cuts an object into raw pieces so that a row
 * can be put together anew with every digit as the client wrote it (`JSON.parse` alone would round
 * 18446744073709551615). Pure.
 */

/** Nesting that ClickHouse reads safely; a row that goes deeper is refused. */
export const DEEPEST = 1000;

/** Longest excerpt of a client's bytes in an error. */
const SHOWN = 64;

/** One `"key": value` of an object, as it stands in the text. */
export interface Member {
  /** Decoded. */
  readonly key: string;
  /** With its quotes and escapes. */
  readonly rawKey: string;
  readonly rawValue: string;
}

/** Why the text is not usable JSON, or null when it is. */
export function jsonFault(text: string): "invalid" | "deep" | null {
  if (text.length > DEEPEST && depth(text) > DEEPEST) return "deep";
  try {
    JSON.parse(text);
    return null;
  } catch {
    return "invalid";
  }
}

/** Deepest nesting of brackets; of invalid text, some number that is not too low. */
function depth(text: string): number {
  let deepest = 0, open = 0;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 34:
        at = stringEnd(text, at) - 1;
        break;
      case 91:
      case 123:
        deepest = Math.max(deepest, ++open);
        break;
      case 93:
      case 125:
        open--;
    }
  }
  return deepest;
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

/**
 * The members of an object in their order, the last one where a key is repeated.
 * @param text valid JSON, an object.
 */
export function members(text: string): Member[] {
  const found = new Map<string, Member>();
  let at = afterSpace(text, text.indexOf("{") + 1);
  while (at < text.length && text[at] !== "}") {
    const keyEnd = stringEnd(text, at);
    const rawKey = text.slice(at, keyEnd);
    const from = afterSpace(text, afterSpace(text, keyEnd) + 1);
    const to = valueEnd(text, from);
    const key: string = rawKey.includes("\\") ? JSON.parse(rawKey) : rawKey.slice(1, -1);
    found.delete(key);
    found.set(key, { key, rawKey, rawValue: text.slice(from, to) });
    at = afterSpace(text, to);
    if (text[at] === ",") at = afterSpace(text, at + 1);
  }
  return [...found.values()];
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
  while (at < text.length && " \n\r\t".includes(text[at]!)) at++;
  return at;
}

const SURROGATES =
  /\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}/g;

/**
 * Valid JSON as ClickHouse takes it: on one line, and with each lone surrogate escape replaced by
 * U+FFFD, as `toWellFormed()` would.
 */
export function mend(text: string): string {
  // A line end in valid JSON is never part of a string.
  const line = /[\r\n]/.test(text) ? text.replace(/[\r\n]+/g, " ") : text;
  if (!/\\u[dD]/.test(line)) return line;
  return line.replace(SURROGATES, (match) => match.length === 6 ? "\\ufffd" : match);
}

/** An excerpt for an error message: bounded, never cut inside a character. */
export function shown(text: string): string {
  return text.length <= SHOWN
    ? text
    : text.slice(0, SHOWN).toWellFormed().replace(/\ufffd$/, "") + "…";
}
