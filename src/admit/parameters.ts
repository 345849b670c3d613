/**
 * The parameters of a question, as they stand behind the `?` of a URL: all of them known, each once,
 * each of its kind, or every problem at once. Pure.
 */

import { isTableName } from "../kernel/names.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";
import { UUID } from "./event.ts";
import { epochMs, inRange, isoMs, TIMESTAMP_WANTED } from "./timestamp.ts";

/** What a value may be; `read` answers undefined for one that is none. */
export interface Kind<T> {
  readonly wanted: string;
  readonly read: (text: string) => T | undefined;
}

export type Kinds = Readonly<Record<string, Kind<unknown>>>;

/** Null for a parameter that is not given. */
export type Values<K extends Kinds> = {
  readonly [N in keyof K]: (K[N] extends Kind<infer T> ? T : never) | null;
};

export const text: Kind<string> = {
  wanted: "a non-empty string",
  read: (text) => text === "" ? undefined : text,
};

export const uuid: Kind<string> = {
  wanted: "a UUID",
  read: (text) => UUID.test(text) ? text : undefined,
};

export const tableName: Kind<string> = {
  wanted: "the name of a table",
  read: (text) => isTableName(text) ? text : undefined,
};

/** As the timestamp of an event, in epoch milliseconds. */
export const moment: Kind<number> = {
  wanted: TIMESTAMP_WANTED,
  read(text) {
    // The plus of a zone that was not percent-encoded has become a blank.
    const meant = text.replace(/^(.{10}[T ]\d\d:\d\d\S*) (\d\d(?::?\d\d)?)$/, "$1+$2");
    const bytes = new TextEncoder().encode(meant);
    const known = /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/.test(meant)
      ? epochMs(meant)
      : isoMs(bytes, 0, bytes.length);
    return inRange(known) ? known : undefined;
  },
};

export const count = (most: number): Kind<number> => ({
  wanted: `a whole number from 1 to ${most}`,
  read(text) {
    const number = /^\d{1,9}$/.test(text) ? Number(text) : 0;
    return number >= 1 && number <= most ? number : undefined;
  },
});

/** ClickHouse's exception code. */
export const code: Kind<number> = {
  wanted: "a whole number from 0 to 1000000",
  read: (text) => /^\d{1,7}$/.test(text) && Number(text) <= 1_000_000 ? Number(text) : undefined,
};

export const flag: Kind<boolean> = {
  wanted: "true or false",
  read: (text) => text === "true" ? true : text === "false" ? false : undefined,
};

/**
 * @param also what may be wrong with the values together; one that is wrong by itself is undefined.
 * @returns the values; the problem is a sentence that names every one.
 */
export function readParameters<K extends Kinds>(
  url: string,
  kinds: K,
  also: (values: Partial<Values<K>>) => string | null = () => null,
): Result<Values<K>> {
  const query = url.indexOf("?");
  const given = new URLSearchParams(query < 0 ? "" : url.slice(query + 1));
  const values: Record<string, unknown> = {};
  for (const name of Object.keys(kinds)) values[name] = null;
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const [name, value] of given) {
    const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined;
    const repeated = seen.has(name);
    seen.add(name);
    if (repeated) {
      problems.push(`${excerpt(name)}: expected once, got another one: ${found(value)}`);
    } else if (kind === undefined) {
      const names = Object.keys(kinds).join(", ");
      problems.push(`${excerpt(name)}: unknown parameter; there are ${names}`);
    } else {
      const read = values[name] = kind.read(value);
      if (read === undefined) {
        problems.push(`${name}: expected ${kind.wanted}, got ${found(value)}`);
      }
    }
    if (problems.length === MOST_PROBLEMS) break;
  }
  const together = also(values as Partial<Values<K>>);
  if (together !== null) problems.push(together);
  return problems.length > 0 ? failed(problems.join("; ")) : done(values as Values<K>);
}

const MOST_PROBLEMS = 20;

function found(value: string): string {
  return value === "" ? "nothing" : excerpt(value);
}

/** A question without a beginning reaches back so far. */
const DEFAULT_PERIOD_MS = 24 * 3600 * 1000;

/** From when to when a question reaches. */
export function periodOf(
  { from, to }: { readonly from: number | null; readonly to: number | null },
  nowMs: number,
): { readonly fromMs: number; readonly toMs: number } {
  const toMs = to ?? nowMs;
  return { fromMs: from ?? toMs - DEFAULT_PERIOD_MS, toMs };
}

/** Why that is no period, or null. */
export function periodFault(
  { from, to }: { readonly from?: number | null; readonly to?: number | null },
  nowMs: number,
): string | null {
  if (from === undefined || to === undefined) return null;
  const { fromMs, toMs } = periodOf({ from, to }, nowMs);
  if (fromMs < toMs) return null;
  const [begin, end] = [fromMs, toMs].map((ms) => new Date(ms).toISOString());
  return `from: expected a time before to (${end}), got ${begin}`;
}
