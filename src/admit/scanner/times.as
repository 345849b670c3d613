/**
 * Times as text, and as milliseconds since 1970. The calendar is the Gregorian one, also before its time.
 * As `timestamp.ts`, which has the last word on what is not read here.
 */

import { byte, COLON, isDigit, MINUS, SPACE, ZERO } from "./json";

const DAY_MS: i64 = 86400000;
/** Bytes that `writeTime` writes. */
export const TIME_BYTES: u32 = 23;

// What `readTime` saw in the text that it read last.
export let timeMs: i64 = 0;
export let zoned: bool = false;

/** Whether there is a day that is called `YYYY-MM-DD` at `at`; `timeMs` is its midnight. */
export function readDate(at: u32): bool {
  if (byte(at + 4) != MINUS || byte(at + 7) != MINUS) return false;
  const century = two(at), rest = two(at + 2), month = two(at + 5), day = two(at + 8);
  if ((century | rest | month | day) < 0) return false;
  const year = century * 100 + rest;
  if (month < 1 || month > 12 || day < 1 || day > daysIn(year, month)) return false;
  timeMs = daysOf(year, month, day) * DAY_MS;
  return true;
}

/**
 * Whether [from, to) is `YYYY-MM-DD HH:MM:SS[.f…][Z|±HH:MM]`, with a `T` or a blank; without a zone it is
 * UTC here. Fractions beyond milliseconds do not count.
 */
export function readTime(from: u32, to: u32): bool {
  if (to - from < 19 || !readDate(from)) return false;
  if (byte(from + 10) != 84 && byte(from + 10) != SPACE) return false;
  if (byte(from + 13) != COLON || byte(from + 16) != COLON) return false;
  const hour = two(from + 11), minute = two(from + 14), second = two(from + 17);
  if ((hour | minute | second) < 0 || hour > 23 || minute > 59 || second > 59) return false;
  let ms = timeMs + (hour * 3600 + minute * 60 + second) * 1000;
  let at = from + 19;
  if (byte(at) == 46) { // point
    const first = ++at;
    for (let scale = 100; isDigit(at); at++, scale /= 10) ms += (byte(at) - ZERO) * scale;
    if (at == first) return false;
  }
  zoned = at != to;
  if (zoned && (byte(at) != 90 || at + 1 != to)) { // Z
    const sign = byte(at);
    if (to - at != 6 || (sign != MINUS && sign != 43) || byte(at + 3) != COLON) return false;
    const hours = two(at + 1), minutes = two(at + 4);
    if ((hours | minutes) < 0 || hours > 14 || minutes > 59) return false;
    const ahead = (hours * 60 + minutes) * 60000;
    ms += sign == MINUS ? ahead : -ahead;
  }
  timeMs = ms;
  return true;
}

/**
 * Whether the text at `from` that `readTime` has read has a fraction, and is of a time before 1970: some
 * versions of ClickHouse read another one from it.
 */
export function isOldFraction(from: u32): bool {
  return timeMs < 0 && byte(from + 19) == 46; // point
}

/** Puts `YYYY-MM-DD HH:MM:SS.mmm`, in UTC, at `at`. The year has four digits. */
export function writeTime(at: u32, ms: i64): void {
  let days = ms / DAY_MS;
  let rest = <i32> (ms - days * DAY_MS);
  if (rest < 0) {
    rest += <i32> DAY_MS;
    days--;
  }
  if (days != writtenDay) {
    writtenDay = days;
    nameDay(<i32> days);
  }
  store<u64>(at, dayText);
  store<u16>(at, dayEnd, 8);
  store<u8>(at, SPACE, 10);
  const seconds = rest / 1000, minutes = seconds / 60, hours = minutes / 60;
  store<u16>(at, pair(hours), 11);
  store<u8>(at, COLON, 13);
  store<u16>(at, pair(minutes - hours * 60), 14);
  store<u8>(at, COLON, 16);
  store<u16>(at, pair(seconds - minutes * 60), 17);
  store<u8>(at, 46, 19);
  const fraction = rest - seconds * 1000;
  store<u8>(at, ZERO + fraction / 100, 20);
  store<u16>(at, pair(fraction % 100), 21);
}

// Times of one request are mostly of one day.
let writtenDay: i64 = -1000000;
/** `YYYY-MM-` and the day. */
let dayText: u64 = 0;
let dayEnd: u32 = 0;

/** Days from 1970-01-01, as `YYYY-MM-DD`. Years begin in March here, so leap days come last. */
function nameDay(days: i32): void {
  const shifted = days + 719468;
  const era = shifted / 146097;
  const dayOfEra = shifted - era * 146097;
  const yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146096) / 365;
  const dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100);
  const march = (5 * dayOfYear + 2) / 153;
  const month = march < 10 ? march + 3 : march - 9;
  const year = yearOfEra + era * 400 + (month < 3 ? 1 : 0);
  dayText = <u64> pair(year / 100) | (<u64> pair(year % 100) << 16) | (<u64> MINUS << 32) |
    (<u64> pair(month) << 40) | (<u64> MINUS << 56);
  dayEnd = pair(dayOfYear - (153 * march + 2) / 5 + 1);
}

/** Two digits, the first one in the low byte. */
// @ts-ignore: decorator
@inline
function pair(value: i32): u32 {
  const tens = value / 10;
  return (ZERO + tens) | ((ZERO + value - tens * 10) << 8);
}

/** Two digits as a number, or less than 0. */
// @ts-ignore: decorator
@inline
function two(at: u32): i32 {
  const tens = byte(at) - ZERO, ones = byte(at + 1) - ZERO;
  return tens < 10 && ones < 10 ? tens * 10 + ones : -1;
}

function daysIn(year: i32, month: i32): i32 {
  if (month == 2) return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
  return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

/** Days from 1970-01-01. */
function daysOf(year: i32, month: i32, day: i32): i64 {
  const marchYear = month < 3 ? year - 1 : year;
  const march = month < 3 ? month + 9 : month - 3;
  return marchYear * 365 + marchYear / 4 - marchYear / 100 + marchYear / 400 +
    (153 * march + 2) / 5 + day - 719469;
}
