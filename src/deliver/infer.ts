/**
 * The columns that rows of an unknown table, or keys of a known one, ask for. ClickHouse finds the types in
 * a sample of the rows; here is what of the rows becomes the sample, and what of its answer is believed:
 * a type that would refuse the very values it was found in, or change them, becomes text. Pure.
 */

import { failed, type Result } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";

/** Rows from which types are found. */
export interface Sample {
  /** NDJSON. */
  readonly text: string;
  readonly rows: number;
  /** Rows that were passed over on the way, these included. */
  readonly looked: number;
  /** By key, in the order in which they came. */
  readonly values: ReadonlyMap<string, readonly unknown[]>;
}

export interface NewColumn {
  readonly name: string;
  readonly type: string;
}

/** What a new table is made of. */
export interface NewTable {
  readonly columns: readonly NewColumn[];
  /** The column by which it is sorted and parted by months; null: there is none. */
  readonly time: string | null;
}

/** ClickHouse takes no longer value of a form (`http_max_field_value_size`), which grows on its way. */
const SAMPLE_BYTES = 96 * 1024;
const SAMPLE_ROWS = 1000;
/** Of rows that are looked through for keys. */
const LOOKED_AT_BYTES = 4 * 1024 * 1024;
/** Values by which the type of one key is found. */
const VALUES_A_KEY = 20;
const BACKSLASH = 0x5c;
const NEWLINE = 0x0a;

/**
 * The first rows, or those that have some keys.
 * @param rows NDJSON. @param keys null: whatever the rows have.
 */
export function sampleOf(rows: Uint8Array, keys: ReadonlySet<string> | null): Sample {
  const decoder = new TextDecoder();
  const lines: string[] = [];
  const values = new Map<string, unknown[]>();
  let bytes = 0;
  let looked = 0;
  const end = Math.min(rows.length, LOOKED_AT_BYTES);
  for (let at = 0; at < end && lines.length < SAMPLE_ROWS;) {
    const stop = rows.indexOf(NEWLINE, at);
    const line = rows.subarray(at, stop < 0 ? rows.length : stop);
    at = stop < 0 ? rows.length : stop + 1;
    const sent = bytesSent(line);
    if (bytes + sent > SAMPLE_BYTES) {
      if (keys === null && lines.length > 0) break;
      looked++;
      continue;
    }
    looked++;
    const text = decoder.decode(line);
    const found = objectOf(text);
    if (found === null) continue;
    const wanted = Object.keys(found).filter((key) => keys === null || keys.has(key));
    const some = keys === null ||
      wanted.some((key) => (values.get(key)?.length ?? 0) < VALUES_A_KEY);
    if (!some) continue;
    for (const key of wanted) {
      const known = values.get(key);
      if (known === undefined) values.set(key, [found[key]]);
      else known.push(found[key]);
    }
    bytes += sent;
    lines.push(text);
  }
  return { text: lines.join("\n"), rows: lines.length, looked, values };
}

/** As a bound value a backslash and a line end are two bytes each. */
function bytesSent(line: Uint8Array): number {
  let more = 2;
  for (let at = line.indexOf(BACKSLASH); at >= 0; at = line.indexOf(BACKSLASH, at + 1)) more++;
  return line.length + more;
}

function objectOf(line: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? value as Record<string, unknown>
      : null;
  } catch {
    return null;
  }
}

/** How types are found: what may be absent is `Nullable`, an object is the text of itself. */
export const INFER_SETTINGS: Readonly<Record<string, string>> = {
  schema_inference_make_columns_nullable: "1",
  input_format_json_try_infer_named_tuples_from_objects: "0",
  input_format_json_read_objects_as_strings: "1",
  input_format_json_read_numbers_as_strings: "1",
  input_format_json_infer_incomplete_types_as_strings: "1",
  input_format_json_try_infer_numbers_from_strings: "0",
  input_format_try_infer_integers: "1",
  input_format_try_infer_dates: "1",
  input_format_try_infer_datetimes: "1",
  input_format_try_infer_variants: "0",
  input_format_max_rows_to_read_for_schema_inference: String(SAMPLE_ROWS),
  date_time_input_format: "best_effort",
};

/** The question whose answer `columnsIn` reads; `sample` is bound to it. */
export const INFER_SQL = "DESCRIBE TABLE format(JSONEachRow, {sample:String})";

/** Keys whose values have no type in common that ClickHouse finds: an array and text, arrays of arrays and of numbers. */
export function keysOfManyTypes({ values }: Sample): string[] {
  return [...values].filter(([, found]) => {
    const shapes = new Set(found.map(shapeOf));
    shapes.delete("");
    if (![...shapes].some((shape) => !shape.startsWith("["))) shapes.delete("[]");
    // No integer holds both.
    const signs = found.some((value) => Number(value) < 0) &&
      found.some((value) => typeof value === "number" && value >= 2 ** 63);
    return shapes.size > 1 || signs;
  }).map(([key]) => key);
}

function shapeOf(value: unknown): string {
  if (!Array.isArray(value)) return value === null ? "" : "v";
  const shapes = new Set(value.map(shapeOf));
  shapes.delete("");
  return `[${[...shapes].sort().join("")}]`;
}

/** Without rows that have an integer beyond 64 bits, in which no types are found; their keys stay. */
export function withoutLargeIntegers(sample: Sample): Sample {
  const lines = sample.text.split("\n").filter((line) => !isLarge(JSON.parse(line)));
  return { ...sample, text: lines.join("\n"), rows: lines.length };
}

function isLarge(value: unknown): boolean {
  if (typeof value === "number") {
    return Number.isInteger(value) && (value >= 2 ** 64 || value < -(2 ** 63));
  }
  return typeof value === "object" && value !== null && Object.values(value).some(isLarge);
}

/** Nullable columns for what ClickHouse found in a sample. @param described name → type. */
export function columnsIn(
  described: ReadonlyMap<string, string>,
  { values }: Sample,
): Result<readonly NewColumn[]> {
  const columns: NewColumn[] = [];
  const nameless = [...values.keys()].filter((name) => !isColumnName(name));
  if (nameless.length > 0 && nameless.length === values.size) {
    return failed(`${JSON.stringify(excerpt(nameless[0]!))} can be no column's name`);
  }
  for (const [name, found] of values) {
    // An error of the rows that have it.
    if (!isColumnName(name)) continue;
    const type = typeOf(name, described.get(name) ?? "Nullable(String)", found);
    columns.push({ name, type: type.startsWith("Array(") ? type : `Nullable(${type})` });
  }
  return columns.length > 0
    ? { ok: true, value: columns }
    : failed("its rows have no keys, or are too long to look for types in");
}

/** The table of these columns, sorted by the first time that every row of the sample has. */
export function tableOf(columns: readonly NewColumn[], { values, rows }: Sample): NewTable {
  const always = columns.filter(({ name, type }) =>
    /^Nullable\(Date/.test(type) && values.get(name)?.length === rows &&
    values.get(name)!.every((value) => value !== null)
  );
  const time = always.find(({ name }) => isTimeName(name)) ?? always[0] ?? null;
  if (time === null) return { columns, time: null };
  const bare = time.type.slice("Nullable(".length, -1);
  return {
    columns: columns.map((column) => column === time ? { ...column, type: bare } : column),
    time: time.name,
  };
}

/** A wider type for a column. */
export interface WiderType {
  readonly type: string;
  /** Only where no number of the column is beyond 2^53: a wider one would lose its digits. */
  readonly ifExact: boolean;
}

const INTEGER = /^"?-?\d+"?$/;
const NUMBER = /^"?-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"?$/;
const INT64 = { least: -(2n ** 63n), most: 2n ** 63n - 1n };
const EXACT = 2n ** 53n;

/**
 * The type that holds what the column can, and as many of these JSON values as any; null: there is none
 * that is safe. A number never becomes text, and nothing becomes narrower.
 */
export function widerType(type: string, values: readonly string[]): WiderType | null {
  const bare = /^Nullable\((.*)\)$/s.exec(type)?.[1] ?? type;
  const as = (wider: string, ifExact = false): WiderType => ({
    type: bare === type ? wider : `Nullable(${wider})`,
    ifExact,
  });
  if (bare === "Date") {
    const digits = values.map((value) =>
      value.startsWith('"') ? digitsOfText(value.slice(1, -1)) : null
    )
      .filter((found) => found !== null);
    return digits.length === 0 ? null : as(timeOf(scaleOf(Math.max(...digits))));
  }
  const [, unsigned = "", bits = ""] = /^(U?)Int(8|16|32|64)$/.exec(bare) ?? [];
  const numbers = values.filter((value) =>
    NUMBER.test(value) && Number.isFinite(Number(value.replaceAll('"', "")))
  );
  if (bits === "" || numbers.length === 0) return null;
  const integers = numbers.filter((value) => INTEGER.test(value))
    .map((value) => BigInt(value.replaceAll('"', "")));
  if (integers.length < numbers.length) {
    const exact = integers.every((value) => value <= EXACT && value >= -EXACT);
    return exact ? as("Float64", bits === "64") : null;
  }
  if (bits === "64") return null;
  if (integers.some((value) => value >= INT64.least && value <= INT64.most)) return as("Int64");
  return unsigned === "" || integers.every((value) => value < 0n) ? null : as("UInt64");
}

const LONGEST_NAME = 127;

function isColumnName(name: string): boolean {
  return name !== "" && name.length <= LONGEST_NAME && !/\p{Cc}/u.test(name) && name.isWellFormed();
}

const DAY = /^\d{4}-\d\d-\d\d$/;
const MOMENT =
  /^(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?$/;
/** What a DateTime64 holds of them. */
const YEARS = { first: 1900, last: 2299 };
/** Types that are taken as they were found; the elements of an array are looked at further. */
const PLAIN = /^(?:Bool|U?Int64|Float64|String|Array\([A-Za-z0-9()]*\))$/;

/** Without `Nullable`. */
function typeOf(name: string, inferred: string, values: readonly unknown[]): string {
  const type = /^Nullable\((.*)\)$/s.exec(inferred)?.[1] ?? inferred;
  const given = values.filter((value) => value !== null);
  if (
    /^Date(?:32)?$/.test(type) &&
    given.every((value) => DAY.test(String(value)) && digitsOfText(value) !== null)
  ) {
    return isTimeName(name) && !/da(?:te|y)/i.test(name) ? timeOf(3) : type;
  }
  const isTime = /^Date/.test(type);
  if (isTime || isTimeName(name)) {
    const scale = scaleIn(given);
    if (scale !== null) return timeOf(scale);
    if (isTime) return "String";
  }
  // Too large for any.
  if (type === "Float64" && given.some((value) => Math.abs(Number(value)) === Infinity)) {
    return "String";
  }
  // Values of several types, and times within arrays, which few mean as such, are texts.
  if (type.startsWith("Array(")) {
    const plain = PLAIN.test(type) && !/Date|Dynamic|Variant|JSON/.test(type);
    // A point makes several arrays one `Nested`, whose lengths have to agree.
    if (name.includes(".")) return "String";
    return plain ? type : "Array(Nullable(String))";
  }
  return PLAIN.test(type) ? type : "String";
}

function timeOf(scale: number): string {
  return `DateTime64(${scale}, 'UTC')`;
}

/** Milliseconds, unless that would cut something off. */
function scaleOf(digits: number): number {
  return digits <= 3 ? 3 : digits <= 6 ? 6 : 9;
}

/** Whether a column of this name is a time, if its values can be one. */
function isTimeName(name: string): boolean {
  return /(?:^|[^A-Za-z0-9])(?:ts|time|timestamp|datetime|date|at|created|updated)$/i.test(name) ||
    /[a-z0-9](?:Ts|Time|Timestamp|DateTime|Date|At)$/.test(name);
}

/** Seconds from 2001 to 2100; what lies outside is a duration, or a count. */
const EPOCH_S = { least: 1e9, most: 4.1e9 };

/** The scale that holds all of these as times; null: one of them is none. */
function scaleIn(values: readonly unknown[]): number | null {
  let most = 0;
  for (const value of values) {
    const digits = typeof value === "number" ? digitsOfEpoch(value) : digitsOfText(value);
    if (digits === null) return null;
    most = Math.max(most, digits);
  }
  return values.length === 0 ? null : scaleOf(most);
}

/** How many digits of a second a number since 1970 tells, in seconds or in parts of them. */
function digitsOfEpoch(value: number): number | null {
  const power = [0, 3, 6, 9].find((power) => {
    const seconds = value / 10 ** power;
    return seconds >= EPOCH_S.least && seconds < EPOCH_S.most;
  });
  return power === undefined ? null : power + (/\.(\d+)$/.exec(String(value))?.[1]?.length ?? 0);
}

/** Null: it is no time, or none that a column holds: a day in February that does not exist, the year 1850. */
function digitsOfText(value: unknown): number | null {
  const found = typeof value === "string" ? MOMENT.exec(value) : null;
  if (found === null) return null;
  const [year, month, day, hour, minute, second] = found.slice(1, 7).map((part) =>
    Number(part ?? 0)
  );
  const isDay = new Date(Date.UTC(year!, month! - 1, day)).getUTCDate() === day && month! >= 1 &&
    month! <= 12;
  const isHeld = year! >= YEARS.first && year! <= YEARS.last;
  return isDay && isHeld && hour! < 24 && minute! < 60 && second! < 60
    ? found[7]?.length ?? 0
    : null;
}
