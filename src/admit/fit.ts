/**
 * A value against its column's type: the last word, where the scanner was not sure. A value that the
 * column cannot hold is an error of its row, because ClickHouse would store another one in its place
 * without a word: 44 for 300, a day in March for one in February that does not exist.
 *
 * A value stays as the client wrote it; only a time that a version or a setting of ClickHouse could read
 * as another one is put in other words.
 */

import { done, failed, type Result } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";
import { eachElement, eachMember } from "./closer.ts";
import { hasDefault, isUtc, type Type, type TypedColumn } from "./types.ts";
import { instantOf, isInTicks, readTimeText, SECONDS_BELOW, textOfTime } from "./timestamp.ts";

/**
 * The value of a column as it is to be sent. @param raw valid JSON.
 * @param again it may have been put in other words before: what could mean two things then does not fit.
 */
export function fitColumn(
  name: string,
  column: TypedColumn,
  raw: string,
  again = false,
): Result<string> {
  if (raw === "null") {
    return column.nullIsDefault ? done(raw) : misfit(name, column.type, raw);
  }
  return fit(name, column.type, raw, again);
}

function fit(path: string, type: Type, raw: string, again: boolean): Result<string> {
  if (raw === "null" && type.kind !== "any") {
    return type.nullable ? done(raw) : misfit(path, type, raw);
  }
  switch (type.kind) {
    case "array":
      if (!raw.startsWith("[")) return misfit(path, type, raw);
      return fitArray(path, () => type.of, raw, again);
    case "map":
      return raw.startsWith("{") ? fitMap(path, type, raw, again) : misfit(path, type, raw);
    case "tuple":
      return fitTuple(path, type, raw, again);
    case "time": {
      if (again && type.scale !== null && TICKS.test(raw)) return failed(ambiguous(path, raw));
      const sent = timeOf(type, raw);
      if (sent !== null) return done(sent);
      return isSkipped(type, raw) ? failed(skipped(path, type, raw)) : misfit(path, type, raw);
    }
    case "clock": {
      const sent = clockOf(type, raw);
      return sent === null ? misfit(path, type, raw) : done(sent);
    }
    case "decimal": {
      const digits = bare(raw);
      const sent = decimalOf(type, digits);
      if (sent === null) return misfit(path, type, raw);
      return done(sent === digits ? raw : raw.startsWith('"') ? `"${sent}"` : sent);
    }
    case "enum": {
      const sent = enumOf(type, raw);
      return sent === null ? misfit(path, type, raw) : done(sent);
    }
    default:
      return fitsScalar(type, raw) ? done(raw) : misfit(path, type, raw);
  }
}

/** The error of a value that its column cannot hold. */
export function misfit(path: string, type: Type, raw: string): Result<string> {
  return failed(
    `${excerpt(path)}: ${excerpt(raw)} does not fit ${excerpt(type.text)} (${wanted(type)})`,
  );
}

function fitArray(
  path: string,
  typeAt: (index: number) => Type,
  raw: string,
  again: boolean,
): Result<string> {
  const sent: string[] = [];
  let changed = false;
  let index = 0;
  const problem = eachElement(raw, (element) => {
    const fitted = fit(`${path}[${index}]`, typeAt(index++), element, again);
    if (!fitted.ok) return fitted.problem;
    sent.push(fitted.value);
    changed ||= fitted.value !== element;
    return null;
  });
  if (problem !== null) return failed(problem);
  return done(changed ? `[${sent.join(",")}]` : raw);
}

function fitMap(
  path: string,
  type: Type & { kind: "map" },
  raw: string,
  again: boolean,
): Result<string> {
  const sent: string[] = [];
  let changed = false;
  const problem = eachMember(raw, ({ key, rawKey, rawValue }) => {
    const fittedKey = fitKey(path, type.key, key, rawKey, again);
    if (!fittedKey.ok) return fittedKey.problem;
    const fitted = fit(`${path}.${key}`, type.value, rawValue, again);
    if (!fitted.ok) return fitted.problem;
    sent.push(`${fittedKey.value}:${fitted.value}`);
    changed ||= fitted.value !== rawValue || fittedKey.value !== rawKey;
    return null;
  });
  if (problem !== null) return failed(problem);
  return done(changed ? `{${sent.join(",")}}` : raw);
}

/** Keys of JSON are text; those of a map may be numbers in it. */
function fitKey(
  path: string,
  type: Type,
  key: string,
  rawKey: string,
  again: boolean,
): Result<string> {
  const fitted = fit(path, type, rawKey, again);
  if (fitted.ok) return fitted;
  // `{"": 1}` would become 0.
  return type.kind === "bool" && /^(?:true|false|[01])$/.test(key) ? done(rawKey) : fitted;
}

function fitTuple(
  path: string,
  type: Type & { kind: "tuple" },
  raw: string,
  again: boolean,
): Result<string> {
  const { names, of } = type;
  if (raw.startsWith("[")) {
    let count = 0;
    eachElement(raw, () => ++count > of.length ? "" : null);
    if (count !== of.length) return misfit(path, type, raw);
    return fitArray(path, (index) => of[index]!, raw, again);
  }
  if (names === null || !raw.startsWith("{")) return misfit(path, type, raw);
  const sent: string[] = [];
  const missing = new Set(names);
  let changed = false;
  const problem = eachMember(raw, ({ key, rawKey, rawValue }) => {
    const at = names.indexOf(key);
    if (at < 0) return `${path}.${excerpt(key)}: no element of ${excerpt(type.text)}`;
    missing.delete(key);
    const fitted = fit(`${path}.${key}`, of[at]!, rawValue, again);
    if (!fitted.ok) return fitted.problem;
    sent.push(`${rawKey}:${fitted.value}`);
    changed ||= fitted.value !== rawValue;
    return null;
  });
  if (problem !== null) return failed(problem);
  for (const name of missing) {
    const element = of[names.indexOf(name)]!;
    if (!hasDefault(element)) {
      return failed(`${path}.${name}: missing, and ${excerpt(element.text)} has no default`);
    }
  }
  return done(changed ? `{${sent.join(",")}}` : raw);
}

// ── Values without anything in them.

const INTEGER = /^[+-]?\d+$/;
const NUMBER = /^[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const UUID = /^[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;

function fitsScalar(type: Type, raw: string): boolean {
  switch (type.kind) {
    case "any":
      return true;
    case "bool":
      return /^(?:true|false|0|1)$/.test(raw);
    case "int": {
      if (raw === "true" || raw === "false") return true;
      const digits = bare(raw);
      if (!INTEGER.test(digits) || digits.length > 80) return false;
      if (type.min === 0n && digits.startsWith("-")) return false;
      const value = BigInt(digits);
      return value >= type.min && value <= type.max;
    }
    case "float": {
      if (raw === "true" || raw === "false") return true;
      const text = bare(raw);
      if (raw.startsWith('"') && /^[+-]?(?:nan|inf|infinity)$/i.test(text)) return true;
      return NUMBER.test(text) && Math.abs(Number(text)) < type.max;
    }
    case "fixed": {
      const text = textOf(raw);
      return text !== null && new TextEncoder().encode(text).length <= type.length;
    }
    case "uuid": {
      const text = textOf(raw);
      return text !== null && UUID.test(text) && (text.length === 36 || text.length === 32);
    }
    case "ipv4": {
      const text = textOf(raw);
      return text !== null && isIpv4(text);
    }
    case "ipv6": {
      const text = textOf(raw);
      return text !== null && (isIpv4(text) || isIpv6(text));
    }
    case "date":
      return isDate(type, textOf(raw) ?? "");
    default:
      return false;
  }
}

/** A number may stand in quotes. */
function bare(raw: string): string {
  return raw.startsWith('"') ? raw.slice(1, -1) : raw;
}

function textOf(raw: string): string | null {
  return raw.startsWith('"') ? JSON.parse(raw) : null;
}

/**
 * A number as it is to be sent; null where the column does not hold it. Digits that say nothing do not count:
 * 1.230 has two places, 1e2 has none. ClickHouse counts some of them, each version others (0e9, 1000e-3, zeros
 * at the end), so what has an exponent, or more digits than it needs, is written anew.
 */
function decimalOf(
  { precision, scale }: Type & { kind: "decimal" },
  number: string,
): string | null {
  const [, sign = "", whole = "", fraction = "", exponent] =
    /^([+-]?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(number) ?? [];
  if (whole === "") return null;
  const digits = (whole + fraction).replace(/^0+/, "");
  const short = digits.replace(/0+$/, "");
  const plain = exponent === undefined && sign !== "+" && fraction.length <= scale &&
    !/^0\d/.test(whole);
  if (short === "") return plain ? number : "0";
  const places = fraction.length - Number(exponent ?? 0) - (digits.length - short.length);
  if (places > scale || short.length - places > precision - scale) return null;
  if (plain) return number;
  if (places <= 0) return `${sign === "-" ? "-" : ""}${short}${"0".repeat(-places)}`;
  const padded = short.padStart(places + 1, "0");
  return `${sign === "-" ? "-" : ""}${padded.slice(0, -places)}.${padded.slice(-places)}`;
}

function isIpv4(text: string): boolean {
  return /^\d{1,3}(?:\.\d{1,3}){3}$/.test(text) &&
    text.split(".").every((part) => Number(part) < 256);
}

function isIpv6(text: string): boolean {
  const tail = /(?:^|:)(\d+(?:\.\d+){3})$/.exec(text)?.[1];
  if (tail !== undefined && !isIpv4(tail)) return false;
  const plain = tail === undefined ? text : `${text.slice(0, -tail.length)}0:0`;
  const halves = plain.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => half === "" ? [] : half.split(":"));
  return groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group)) &&
    (halves.length === 2 ? groups.length < 8 : groups.length === 8);
}

function isDate({ minMs, maxMs }: Type & { kind: "date" }, text: string): boolean {
  const read = /^\d{4}-\d{2}-\d{2}$/.test(text) ? readTimeText(text) : null;
  return read !== null && read.ms >= minMs && read.ms <= maxMs;
}

/** A name as it came; the name of a number, which old servers do not read. */
function enumOf({ numbers }: Type & { kind: "enum" }, raw: string): string | null {
  const text = textOf(raw);
  if (text !== null && numbers.has(text)) return raw;
  const digits = bare(raw);
  if (!INTEGER.test(digits)) return null;
  for (const [name, number] of numbers) {
    if (number === Number(digits)) return JSON.stringify(name);
  }
  return null;
}

// ── Times.

/** How a time before 1970 with a fraction is sent (`written`); a client may mean seconds by it. */
const TICKS = /^"?-\d+"?$/;

function ambiguous(path: string, raw: string): string {
  return `${excerpt(path)}: ${
    excerpt(raw)
  } may be seconds, or parts of a second as a time before ` +
    "1970 is sent; text such as 1969-12-31 23:59:59Z says which";
}

const CLOCK = /^(-?\d{1,3}:[0-5]\d:[0-5]\d)(?:\.(\d+))?$/;
const LONGEST_S = 999 * 3600 + 59 * 60 + 59;

/**
 * ClickHouse carries 12:61:61 over to 13:02:01, and makes a number that is too large 999:59:59. A number for a
 * Time64 is one of its ticks, which the client can hardly mean; 12:30 would be minutes.
 */
function clockOf({ scale }: Type & { kind: "clock" }, raw: string): string | null {
  if (scale === 0 && INTEGER.test(raw)) return Math.abs(Number(raw)) <= LONGEST_S ? raw : null;
  const [, clock, fraction = ""] = CLOCK.exec(textOf(raw) ?? "") ?? [];
  if (clock === undefined) return null;
  if (fraction.length <= scale) return raw;
  return JSON.stringify(scale === 0 ? clock : `${clock}.${fraction.slice(0, scale)}`);
}

/** As it is to be sent; null where it is no time that the column holds. */
function timeOf(type: Type & { kind: "time" }, raw: string): string | null {
  const text = textOf(raw) ?? plain(raw);
  const number = /^(-?\d+)(?:\.(\d+))?$/.exec(text);
  return number === null
    ? raw.startsWith('"') ? timeText(type, text) : null
    : timeNumber(type, number[1]!, number[2] ?? "");
}

/** `1.7644e9` without its exponent. */
function plain(raw: string): string {
  return /[eE]/.test(raw) && Number.isSafeInteger(Number(raw)) ? String(Number(raw)) : raw;
}

/** `2025-11-29 07:06:40`, with a `T` or a blank, a fraction, a zone. */
function timeText(type: Type & { kind: "time" }, text: string): string | null {
  // As spreadsheets and many loggers write it.
  const read = readTimeText(text.replace(/^(\d{4})\/(\d\d)\/(\d\d)/, "$1-$2-$3"));
  if (read === null) return null;
  const elsewhere = !read.zoned && type.zone !== null && !isUtc(type.zone);
  const ms = elsewhere ? instantOf(type.zone!, read.ms) : read.ms;
  if (ms === null || !isWithin(type, ms)) return null;
  if (type.scale !== null && isInTicks(ms, read.fraction.slice(0, type.scale))) {
    return ticks(type.scale, ms, read.fraction);
  }
  if (WHOLE.test(text)) {
    return read.zoned || type.zone !== null ? JSON.stringify(text) : JSON.stringify(`${text}Z`);
  }
  return elsewhere
    ? `"${textOfTime(read.ms, read.fraction)}"`
    : written(type, read.ms, read.fraction);
}

/** Text that every version of ClickHouse reads alike. */
const WHOLE = /^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?$/;

/** By its size: a number of seconds since 1970, or of smaller parts. */
function timeNumber(
  type: Type & { kind: "time" },
  whole: string,
  fraction: string,
): string | null {
  const amount = Math.abs(Number(whole));
  // Then come milliseconds, microseconds and nanoseconds.
  const parts = amount < SECONDS_BELOW ? 0 : amount < 1e14 ? 3 : amount < 1e17 ? 6 : 9;
  if (type.scale === null) {
    // Every version reads whole seconds as that.
    return parts === 0 && !whole.startsWith("-") && isWithin(type, amount * 1000)
      ? String(amount)
      : null;
  }
  if (amount >= 1e20) return null;
  const negative = whole.startsWith("-");
  const digits = (negative ? whole.slice(1) : whole).padStart(parts + 1, "0");
  const seconds = BigInt(digits.slice(0, digits.length - parts));
  const places = (digits.slice(digits.length - parts) + fraction).slice(0, 9).padEnd(9, "0");
  // In nanoseconds, rounded down to a second: a fraction always counts forward.
  let nanos = seconds * 1_000_000_000n + BigInt(places);
  if (negative) nanos = -nanos;
  const behind = ((nanos % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const second = (nanos - behind) / 1_000_000_000n;
  const ms = Number(second) * 1000 + Number(behind / 1_000_000n);
  if (!isWithin(type, ms)) return null;
  return written(type, ms, String(behind).padStart(9, "0"));
}

function written({ scale }: Type & { kind: "time" }, ms: number, fraction: string): string {
  if (isInTicks(ms, fraction.slice(0, scale ?? 0))) return ticks(scale ?? 0, ms, fraction);
  return `"${textOfTime(ms, fraction.slice(0, scale ?? 0))}Z"`;
}

/** The second of `ms` with this fraction, in parts of a second with so many digits. */
function ticks(scale: number, ms: number, fraction: string): string {
  const second = BigInt(Math.floor(ms / 1000));
  return String(
    second * 10n ** BigInt(scale) + BigInt(fraction.slice(0, scale).padEnd(scale, "0")),
  );
}

function isWithin({ minMs, maxMs }: Type & { kind: "time" }, ms: number): boolean {
  return ms >= minMs && ms <= maxMs;
}

/** Text without a zone, of a time that clocks in the column's zone never show. */
function isSkipped({ zone }: Type & { kind: "time" }, raw: string): boolean {
  const read = zone === null || isUtc(zone) ? null : readTimeText(textOf(raw) ?? "");
  return read !== null && !read.zoned && instantOf(zone!, read.ms) === null;
}

function skipped(path: string, { zone }: Type & { kind: "time" }, raw: string): string {
  return `${excerpt(path)}: ${
    excerpt(raw)
  } is no time in ${zone}: clocks are put forward over it; ` +
    "say it in UTC, or with its offset";
}

// ── For errors: the range or the form.

const ENUM_NAMES = 10;

function wanted(type: Type): string {
  switch (type.kind) {
    case "int":
      return `${type.min} to ${type.max}`;
    case "float":
      return "a number in its range";
    case "decimal":
      return `${type.precision - type.scale} digits before the point, ${type.scale} behind it`;
    case "bool":
      return "true, false, 1 or 0";
    case "fixed":
      return `text of at most ${type.length} bytes`;
    case "uuid":
      return "text such as 01890a5d-ac96-774b-bcce-b302099a8057";
    case "ipv4":
      return "text such as 192.0.2.1";
    case "ipv6":
      return "text such as 2001:db8::1";
    case "enum": {
      const names = [...type.numbers.keys()].slice(0, ENUM_NAMES).map((name) => `'${name}'`);
      return names.length < type.numbers.size ? `${names.join(", ")}, …` : names.join(", ");
    }
    case "date":
      return `YYYY-MM-DD, ${dayOf(type.minMs)} to ${dayOf(type.maxMs)}`;
    case "time":
      return `ISO 8601 or epoch ${type.scale === null ? "seconds" : "seconds or milliseconds"}, ` +
        `${dayOf(type.minMs)} to ${dayOf(type.maxMs)}`;
    case "clock":
      return `text such as 09:30:00, to 999:59:59${type.scale === 0 ? ", or seconds" : ""}`;
    case "array":
      return "an array";
    case "map":
      return "an object";
    case "tuple":
      return type.names === null ? `an array of ${type.of.length}` : "an object with these keys";
    case "any":
      return "";
  }
}

function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
