/**
 * Analytics events. A valid line is forwarded as the client wrote it, with a missing id or timestamp
 * spliced in front: the INSERT renames the fields and turns property values into strings with every
 * digit kept. Only an odd line (a repeated key, a lone surrogate, `1.5e12` as the time, `null` for a field
 * that may be absent, a UUID without dashes) is put together anew. In a table that is not as the collector makes
 * it, the fields of an event are held against their columns besides.
 */

import {
  type Column,
  type Columns,
  type EventTypes,
  LONGEST_TYPE_BYTES,
  OTHER_TYPE,
} from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { excerpt, hint } from "../kernel/text.ts";
import { type Member, members, type RowReader } from "./closer.ts";
import { fitColumn, misfit } from "./fit.ts";
import type { Scanner } from "./scanner.ts";
import {
  EARLIEST_MS,
  epochMs,
  eventTime,
  type EventWindow,
  inRange,
  isInTicks,
  isoMs,
  LATEST_MS,
  readTimeText,
  TIMESTAMP_WANTED,
} from "./timestamp.ts";
import { hasDefault, parseType, type Type } from "./types.ts";

const encoder = new TextEncoder();

export class EventReader implements RowReader {
  readonly leastBytes = '{"eventType":"x"}'.length;
  readonly #scanner: Scanner;
  readonly #nowMs: number;
  readonly #window: EventWindow;
  readonly #columns: EventColumns | null;
  readonly #again: boolean;

  /**
   * The scanner reads events from now on.
   * @param nowMs epoch milliseconds, for events without a time.
   * @param columns null: they take every event. @param again events may have been read before.
   */
  constructor(
    scanner: Scanner,
    nowMs: number,
    window: EventWindow,
    columns: EventColumns | null = null,
    again = false,
  ) {
    this.#scanner = scanner;
    this.#nowMs = nowMs;
    this.#window = window;
    this.#columns = columns;
    this.#again = again;
    scanner.events(nowMs, window);
  }

  get closely(): boolean {
    return this.#columns !== null;
  }

  closer(text: string): string | null {
    if (!text.startsWith("{")) return `expected a JSON object, got ${excerpt(text)}`;
    const found = members(text, unknownField);
    if (!found.ok) return found.problem;
    const given = new Map<string, string>();
    for (const member of found.value) {
      if (member.rawValue === "null" && member.key !== "eventType") continue;
      const checked = member.key === "timestamp" ? this.#time(member.rawValue) : valueOf(member);
      if (!checked.ok) return checked.problem;
      given.set(member.key, checked.value);
    }
    const rawType = given.get("eventType");
    if (rawType === undefined) return "eventType: missing; expected a string";
    if (!given.has("id")) given.set("id", `"${this.#scanner.newId()}"`);
    if (!given.has("timestamp")) given.set("timestamp", `"${eventTime(this.#nowMs)}"`);
    const type: string = JSON.parse(rawType);
    const problem = this.#columns?.problem(given, this.#again) ?? null;
    if (problem !== null) return problem;
    this.#scanner.text(`{${[...given].map(([field, value]) => `"${field}":${value}`).join(",")}}`);
    this.#scanner.count(encoder.encode(type).length > LONGEST_TYPE_BYTES ? OTHER_TYPE : type, 1);
    return null;
  }

  #time(rawValue: string): Result<string> {
    // A number that has been read before is in ticks, see below.
    const ms = this.#again && WHOLE.test(rawValue) ? Number(rawValue) : timeOf(rawValue);
    if (!inRange(ms)) return wrong("timestamp", TIMESTAMP_WANTED, rawValue);
    const { maxAgeMs, maxSkewMs } = this.#window;
    if (maxAgeMs !== null && ms < this.#nowMs - maxAgeMs) {
      return failed(`timestamp: ${excerpt(rawValue)} is older than max-event-age allows`);
    }
    if (maxSkewMs !== null && ms > this.#nowMs + maxSkewMs) {
      return failed(`timestamp: ${excerpt(rawValue)} is further ahead than max-event-skew allows`);
    }
    // In ticks of the column, see `isInTicks`.
    if (ms < 0 && ms % 1000 !== 0) return done(String(ms));
    return done(rawValue.startsWith('"') ? `"${JSON.parse(rawValue)}"` : `"${eventTime(ms)}"`);
  }
}

// ── What each field of an event may be, one raw member at a time; and why not.

export const FIELDS: readonly string[] = ["eventType", "userId", "timestamp", "id", "properties"];
export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

const DASHLESS_UUID = /^[0-9a-f]{32}$/i;
/** Behind each of these parts stands a dash. */
const DASHES = /^(.{8})(.{4})(.{4})(.{4})/;
const WHOLE = /^-?\d+$/;
/** Keys for which another one may have been meant. A name of three letters is like too many others. */
const SLIP = /^.{4,16}$/s;

/** What is wrong with a key, or null for a field's name. */
function unknownField(key: string): string | null {
  if (FIELDS.includes(key)) return null;
  const meant = SLIP.test(key) ? hint(key, FIELDS, (field) => field) : "";
  return `${excerpt(key)}: unknown key${meant}; an event has ${FIELDS.join(", ")}`;
}

/** The member's value as JSON that the INSERT reads. @param member of valid JSON, with a field's name. */
function valueOf({ key, rawValue }: Member): Result<string> {
  switch (key) {
    case "eventType":
      if (!rawValue.startsWith('"')) return wrong(key, "a string", rawValue);
      if (rawValue === '""') return wrong(key, "a non-empty string", rawValue);
      return done(rawValue);
    case "properties":
      return rawValue.startsWith("{") ? done(rawValue) : wrong(key, "an object", rawValue);
    case "id": {
      const id: unknown = JSON.parse(rawValue);
      if (typeof id !== "string") return wrong(key, "a UUID", rawValue);
      if (DASHLESS_UUID.test(id)) return done(`"${id.replace(DASHES, "$1-$2-$3-$4-")}"`);
      return UUID.test(id) ? done(`"${id}"`) : wrong(key, "a UUID", rawValue);
    }
    default: // userId
      if (WHOLE.test(rawValue)) return done(`"${rawValue}"`);
      return rawValue.startsWith('"') ? done(rawValue) : wrong(key, "a string", rawValue);
  }
}

function wrong(key: string, wanted: string, rawValue: string): Result<string> {
  return failed(`${key}: expected ${wanted}, got ${excerpt(rawValue)}`);
}

/** Epoch milliseconds; NaN for what is no time. */
function timeOf(rawValue: string): number {
  if (!rawValue.startsWith('"')) return /^[-\d]/.test(rawValue) ? epochMs(rawValue) : NaN;
  const bytes = encoder.encode(JSON.parse(rawValue));
  return isoMs(bytes, 0, bytes.length);
}

// ── The columns of events: in a table that is not as the collector makes it, what fields are read as, and
// their values held against them as those of rows are. A table that takes every event is found out once for
// what is known of it, and its events are not looked at.

/** By the field's name, that of its column. */
const COLUMNS: ReadonlyMap<string, string> = new Map([
  ["id", "id"],
  ["timestamp", "timestamp"],
  ["eventType", "event_type"],
  ["userId", "user_id"],
  ["properties", "properties"],
]);
const DAY_MS = 86_400_000;
/** What an INSERT reads a time as. */
const SCALE = 3;

const found = new WeakMap<Columns, EventColumns | null>();

/** Null: they take every event. */
export function eventColumnsOf(columns: Columns): EventColumns | null {
  let known = found.get(columns);
  if (known === undefined) {
    const made = new EventColumns(columns.columns);
    found.set(columns, known = made.takesAll ? null : made);
  }
  return known;
}

/** As the room that delivers asks for it. */
export function eventTypes(columns: Columns): EventTypes | null {
  return eventColumnsOf(columns)?.types ?? null;
}

class EventColumns {
  readonly types: EventTypes;
  /** By field, what its values are held against. */
  readonly #held: ReadonlyMap<string, Type>;

  constructor(columns: readonly Column[]) {
    const types = new Map<string, string>();
    const held = new Map<string, Type>();
    for (const [field, name] of COLUMNS) {
      const column = columns.find((column) => column.name === name);
      if (column === undefined) continue;
      const type = parseType(column.type);
      if (field === "timestamp") {
        if (isNarrow(type)) held.set(field, type);
      } else if (isOther(field, type)) {
        held.set(field, type);
        types.set(field, plain(column.type));
      }
    }
    this.types = types;
    this.#held = held;
  }

  get takesAll(): boolean {
    return this.#held.size === 0;
  }

  /**
   * What does not fit; null: all does. @param given the event's fields as JSON, in which a value is put in other
   * words where its column wants them. @param again they may have been put so before.
   */
  problem(given: Map<string, string>, again: boolean): string | null {
    for (const [field, type] of this.#held) {
      const raw = given.get(field);
      if (raw === undefined) {
        if (hasDefault(type)) continue;
        return `${field}: missing, and ${excerpt(type.text)} has no default`;
      }
      const fitted = field === "timestamp"
        ? fitTime(field, type, raw)
        : fitColumn(field, { type, nullIsDefault: false }, raw, again);
      if (!fitted.ok) return fitted.problem;
      given.set(field, fitted.value);
    }
    return null;
  }
}

/** Whether a field is read as its column is: what has no text, or is no map of texts. */
function isOther(field: string, type: Type): boolean {
  // What is not known is made of the text, or the map, by ClickHouse.
  if (type.kind === "any") return false;
  switch (field) {
    case "id":
      return type.kind !== "uuid" && type.text !== "UInt128";
    case "properties":
      return type.kind !== "map" || type.key.kind !== "any" || type.value.kind !== "any";
    default:
      return true;
  }
}

/** Whether ClickHouse makes other times of some that it reads for an event. */
function isNarrow(type: Type): boolean {
  switch (type.kind) {
    case "time":
      return type.scale === null || type.scale < SCALE || type.minMs > EARLIEST_MS ||
        type.maxMs < LATEST_MS;
    case "date":
      return type.minMs > EARLIEST_MS || type.maxMs + DAY_MS <= LATEST_MS;
    case "bool":
    case "clock":
      return true;
    // Numbers and text are made of it, or are an error of ClickHouse.
    default:
      return false;
  }
}

/** @param raw as it is sent: text, or milliseconds of a time before 1970. */
function fitTime(field: string, type: Type, raw: string): Result<string> {
  const ms = raw.startsWith('"') ? readTimeText(JSON.parse(raw))?.ms ?? NaN : Number(raw);
  if (type.kind === "date") {
    // The day of the time, in UTC.
    return ms >= type.minMs && ms < type.maxMs + DAY_MS ? done(raw) : misfit(field, type, raw);
  }
  if (type.kind !== "time") return failed(`${field}: no time fits ${excerpt(type.text)}`);
  if (!(ms >= type.minMs && ms <= type.maxMs)) return misfit(field, type, raw);
  // Before 1970 ClickHouse cuts off what is finer by going forward.
  const unit = 10 ** (SCALE - Math.min(type.scale ?? 0, SCALE));
  if (ms >= 0 || ms % unit === 0) return done(raw);
  const cut = Math.floor(ms / unit) * unit;
  const text = eventTime(cut);
  return done(isInTicks(cut, text.slice(-SCALE)) ? String(cut) : `"${text}"`);
}

const MARKS = /'(?:[^'\\]|\\.)*'|LowCardinality\(|[()]/gs;

/** A type without what only says how it is stored, which a statement may not say of numbers. */
function plain(type: string): string {
  const open: boolean[] = [];
  return type.replace(MARKS, (mark) => {
    if (mark.startsWith("'")) return mark;
    if (mark === ")") return open.pop() ? "" : mark;
    open.push(mark !== "(");
    return mark === "(" ? mark : "";
  });
}

// ── An event in an address: `GET /events?eventType=…`, from where nothing else can be given, such as a mail
// or an `<img>`. Its parameters are the fields of an event; every other one is a property of it.

/** Parameters that are about the request, and no properties. */
const ABOUT: ReadonlySet<string> = new Set(["key", "strict", "token"]);

/**
 * What a client would post: of a parameter that is repeated the last. A field without a value is none, as
 * templates leave it.
 */
export function eventOf(url: string): Uint8Array {
  const query = url.indexOf("?");
  const given = query < 0 ? "" : url.slice(query + 1);
  const event = new Map<string, string>();
  const properties = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(given)) {
    if (ABOUT.has(name)) continue;
    // `properties` is a name like any other here: its value can be no object.
    if (!FIELDS.includes(name) || name === "properties") {
      properties.set(name, JSON.stringify(value));
    } else if (value !== "" || name === "eventType") event.set(name, rawOf(name, value));
  }
  // Without a type it is no event: a name that was meant for it is told as what it is, an unknown key.
  if (!event.has("eventType")) {
    for (const [name, raw] of properties) {
      if (hint(name, ["eventType"], (field) => field) !== "") event.set(name, raw);
    }
  }
  event.set("properties", object(properties));
  return encoder.encode(object(event));
}

function rawOf(name: string, value: string): string {
  const number = name === "timestamp" && /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/.test(value);
  return number ? value : JSON.stringify(value);
}

function object(members: ReadonlyMap<string, string>): string {
  return `{${[...members].map(([name, raw]) => `${JSON.stringify(name)}:${raw}`).join(",")}}`;
}
