/**
 * Times as clients write them. ClickHouse puts years outside 1900 to 2299 somewhere else without a word,
 * clamps days that do not exist, and reads a number as seconds or as milliseconds by its version; so what
 * a time is, is decided here, and it is sent as text that can be read in one way only; and so is which instant
 * the clocks of a zone mean.
 */

/** What DateTime64 can hold, within years that all versions know. */
export const EARLIEST_MS = Date.UTC(1900, 0, 1);
export const LATEST_MS = Date.UTC(2299, 11, 31, 23, 59, 59, 999);

/** Times of events that are taken; null: any that ClickHouse can hold. */
export interface EventWindow {
  /** Older ones are refused. */
  readonly maxAgeMs: number | null;
  /** Of the future. */
  readonly maxSkewMs: number | null;
}

export const ANY_TIME: EventWindow = { maxAgeMs: null, maxSkewMs: null };

/** For error messages. */
export const TIMESTAMP_WANTED =
  "ISO 8601, epoch seconds or epoch milliseconds between 1900-01-01 and 2299-12-31";

/** Below this a number is epoch seconds, else milliseconds: 5138-11-16, and 1973-03-03. */
export const SECONDS_BELOW = 1e11;

const MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const DAY_MS = 86_400_000;
const NO = -1;

const MINUS = 45;
const POINT = 46;
const ZERO = 48;
const COLON = 58;

/** Whether DateTime64 can hold it. */
export function inRange(ms: number): boolean {
  return ms >= EARLIEST_MS && ms <= LATEST_MS;
}

/**
 * Epoch milliseconds of `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM[:SS[.f…]][Z|±HH[[:]MM]]` (a blank may stand
 * for the `T`; without a zone it is UTC), fractions beyond milliseconds cut off. NaN for anything
 * else, also for days that do not exist and leap seconds. The range is not checked.
 */
export function isoMs(bytes: Uint8Array, from: number, to: number): number {
  if (to - from < 10 || bytes[from + 4] !== MINUS || bytes[from + 7] !== MINUS) return NaN;
  const century = two(bytes, from), rest = two(bytes, from + 2);
  const month = two(bytes, from + 5), day = two(bytes, from + 8);
  if (century < 0 || rest < 0 || month < 1 || month > 12 || day < 1) return NaN;
  const year = century * 100 + rest;
  if (day > daysIn(year, month)) return NaN;
  const midnightMs = daysSinceEpoch(year, month, day) * DAY_MS;
  return to - from === 10 ? midnightMs : midnightMs + timeMs(bytes, from + 10, to);
}

/** `T` or a blank, the time and the zone, as milliseconds to add to UTC midnight. */
function timeMs(bytes: Uint8Array, at: number, to: number): number {
  if (to - at < 6 || (bytes[at] !== 84 && bytes[at] !== 32) || bytes[at + 3] !== COLON) return NaN;
  const hour = two(bytes, at + 1), minute = two(bytes, at + 4);
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59) return NaN;
  at += 6;
  let ms = (hour * 60 + minute) * 60_000;
  if (at < to && bytes[at] === COLON) {
    const second = to - at < 3 ? NO : two(bytes, at + 1);
    if (second < 0 || second > 59) return NaN;
    ms += second * 1000;
    at += 3;
    if (at < to && bytes[at] === POINT) {
      const first = ++at;
      for (let scale = 100; at < to && isDigit(bytes[at]!); at++, scale /= 10) {
        if (scale >= 1) ms += (bytes[at]! - ZERO) * scale;
      }
      if (at === first) return NaN;
    }
  }
  return ms - zoneMs(bytes, at, to);
}

function zoneMs(bytes: Uint8Array, at: number, to: number): number {
  const length = to - at;
  if (length === 0) return 0;
  if (length === 1) return bytes[at] === 90 ? 0 : NaN; // Z
  if (bytes[at] !== MINUS && bytes[at] !== 43) return NaN;
  if (length !== 3 && length !== 5 && length !== 6) return NaN;
  if (length === 6 && bytes[at + 3] !== COLON) return NaN;
  const hours = two(bytes, at + 1);
  const minutes = length === 3 ? 0 : two(bytes, to - 2);
  if (hours < 0 || hours > 14 || minutes < 0 || minutes > 59) return NaN;
  const ms = (hours * 60 + minutes) * 60_000;
  return bytes[at] === MINUS ? -ms : ms;
}

/** A time as text, taken apart. */
export interface TimeText {
  /** Without a zone it is UTC. */
  readonly ms: number;
  /** All digits of it. */
  readonly fraction: string;
  readonly zoned: boolean;
}

const TEXT = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.(\d+))?)?(Z|[+-]\d\d(?::?\d\d)?)?)?$/;

/** As `isoMs`; null for anything else. */
export function readTimeText(text: string): TimeText | null {
  const found = TEXT.exec(text);
  if (found === null) return null;
  const bytes = encoder.encode(text);
  const ms = isoMs(bytes, 0, bytes.length);
  if (Number.isNaN(ms)) return null;
  return { ms, fraction: found[1] ?? "", zoned: found[2] !== undefined };
}

const encoder = new TextEncoder();

/** `2025-11-29 07:06:40`, in UTC, with this fraction: no version and no setting reads it otherwise. */
export function textOfTime(ms: number, fraction: string): string {
  const text = new Date(ms).toISOString().replace("T", " ").slice(0, 19);
  return fraction === "" ? text : `${text}.${fraction}`;
}

/**
 * Whether a time is put in ticks, a whole number of its smallest parts: text with a fraction before 1970 is
 * another time to ClickHouse 25.5, which counts the fraction backwards.
 * @param fraction digits. @param ms of the whole time.
 */
export function isInTicks(ms: number, fraction: string): boolean {
  return ms < 0 && /[1-9]/.test(fraction);
}

/** An event's time as text. */
export function eventTime(ms: number): string {
  return textOfTime(ms, String(((ms % 1000) + 1000) % 1000).padStart(3, "0"));
}

/**
 * Epoch milliseconds of a JSON number of seconds or milliseconds, what is finer cut off.
 * @param raw as it stands in the JSON: no digit is lost.
 */
export function epochMs(raw: string): number {
  const [, sign, whole = "", fraction = ""] = /^(-?)(\d{1,15})(?:\.(\d+))?$/.exec(raw) ?? [];
  if (whole === "") {
    const value = Number(raw);
    return Math.trunc(Math.abs(value) < SECONDS_BELOW ? value * 1000 : value);
  }
  const amount = Number(whole);
  const ms = amount < SECONDS_BELOW
    ? amount * 1000 + Number(fraction.slice(0, 3).padEnd(3, "0"))
    : amount;
  return sign === "-" ? -ms : ms;
}

/** Two digits as a number, or -1. */
function two(bytes: Uint8Array, at: number): number {
  const tens = bytes[at]! - ZERO, ones = bytes[at + 1]! - ZERO;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : NO;
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= 57;
}

function daysIn(year: number, month: number): number {
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  return month === 2 && leap ? 29 : MONTH_DAYS[month - 1]!;
}

/** Days from 1970-01-01 in the Gregorian calendar; years begin in March here, so leap days come last. */
function daysSinceEpoch(year: number, month: number, day: number): number {
  const marchYear = month < 3 ? year - 1 : year;
  const marchMonth = (month + 9) % 12;
  const leaps = Math.floor(marchYear / 4) - Math.floor(marchYear / 100) +
    Math.floor(marchYear / 400);
  return marchYear * 365 + leaps + Math.floor((153 * marchMonth + 2) / 5) + day - 719_469;
}

// ── Zones: which instant clocks in one mean by what they show. Twice a year in many zones they are put
// forward over an hour that they never show, and ClickHouse stores the hour before in its place; or back,
// and show an hour twice, of which ClickHouse takes the first.

/** Days are forgotten beyond so many, all zones together. */
const MOST_DAYS = 20_000;

/** Of a zone, by day since 1970: how far its clocks are ahead at the beginning of the day (UTC), milliseconds. */
const days = new Map<string, Map<number, number | null>>();
const formats = new Map<string, Intl.DateTimeFormat | null>();
let known = 0;

/**
 * Epoch milliseconds of what clocks in a zone show.
 * @param shownMs as if it were UTC. @returns null: they never show it. What is not known of a zone, or lies
 * before 1970, is reckoned from what is known of its day.
 */
export function instantOf(zone: string, shownMs: number): number | null {
  const before = aheadMs(zone, shownMs - DAY_MS);
  const after = aheadMs(zone, shownMs + DAY_MS);
  if (before === null || after === null) return shownMs;
  if (before === after || shownMs < 0) return shownMs - before;
  // The earlier one first: the larger is taken away.
  for (const ahead of [Math.max(before, after), Math.min(before, after)]) {
    if (aheadMs(zone, shownMs - ahead) === ahead) return shownMs - ahead;
  }
  return null;
}

/** How far clocks in a zone are ahead of UTC at an instant; null for a zone, or an offset, that is not known. */
function aheadMs(zone: string, ms: number): number | null {
  const day = Math.floor(ms / DAY_MS);
  const first = ofDay(zone, day);
  return first === ofDay(zone, day + 1) ? first : asked(zone, ms);
}

function ofDay(zone: string, day: number): number | null {
  let ofZone = days.get(zone);
  if (ofZone === undefined) days.set(zone, ofZone = new Map());
  let ahead = ofZone.get(day);
  if (ahead === undefined) {
    if (known++ >= MOST_DAYS) {
      days.clear();
      known = 0;
    }
    ofZone.set(day, ahead = asked(zone, day * DAY_MS));
  }
  return ahead;
}

function asked(zone: string, ms: number): number | null {
  const parts = formatOf(zone)?.formatToParts(ms);
  const name = parts?.find(({ type }) => type === "timeZoneName")?.value;
  if (name === "GMT") return 0;
  const [, sign, hours, minutes] = /^GMT([+-])(\d\d):(\d\d)$/.exec(name ?? "") ?? [];
  if (sign === undefined) return null;
  return (Number(hours) * 60 + Number(minutes)) * (sign === "-" ? -60_000 : 60_000);
}

/** Making one costs more than asking it a hundred times. */
function formatOf(zone: string): Intl.DateTimeFormat | null {
  let format = formats.get(zone);
  if (format === undefined) {
    try {
      format = new Intl.DateTimeFormat("en-US", { timeZone: zone, timeZoneName: "longOffset" });
    } catch {
      format = null;
    }
    formats.set(zone, format);
  }
  return format;
}
