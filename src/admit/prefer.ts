/**
 * `Prefer` (RFC 7240), as far as Shishi honours it: `handling=strict|lenient` and `wait=N`. Whatever
 * else a client prefers is ignored, as the RFC wants. Pure.
 */

export interface Preferences {
  /** One bad row refuses the request. */
  readonly strict: boolean;
  /** Seconds to wait for the insert, at most `LONGEST_WAIT_S`; null: no wish. */
  readonly waitS: number | null;
}

/** A longer wait is cut to this. */
const LONGEST_WAIT_S = 240;

const NO_PREFERENCES: Preferences = { strict: false, waitS: null };

/** One preference: its name, and its value as a word or in quotes; parameters after `;` are skipped. */
const PREFERENCE =
  /([!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*)))?((?:\s*;(?:[^,"]|"(?:[^"\\]|\\.)*")*)?)\s*(?:,|$)/y;

/** @param header all `Prefer` headers of the request, joined with commas as `Headers.get` does. */
export function parsePrefer(header: string | null): Preferences {
  if (header === null) return NO_PREFERENCES;
  const found = new Map<string, string>();
  let at = 0;
  while (at < header.length) {
    PREFERENCE.lastIndex = at = afterSeparators(header, at);
    const match = PREFERENCE.exec(header);
    if (match === null) {
      // Not a preference: go on behind the next comma.
      const comma = header.indexOf(",", at);
      if (comma < 0) break;
      at = comma + 1;
      continue;
    }
    at = PREFERENCE.lastIndex;
    const name = match[1]!.toLowerCase();
    // The first of several is the one that counts.
    if (!found.has(name)) found.set(name, match[2]?.replace(/\\(.)/g, "$1") ?? match[3] ?? "");
  }
  const wait = found.get("wait");
  return {
    strict: found.get("handling")?.toLowerCase() === "strict",
    waitS: wait !== undefined && /^\d{1,9}$/.test(wait)
      ? Math.min(Number(wait), LONGEST_WAIT_S)
      : null,
  };
}

function afterSeparators(header: string, at: number): number {
  while (at < header.length && (header[at] === "," || header[at] === " " || header[at] === "\t")) {
    at++;
  }
  return at;
}
