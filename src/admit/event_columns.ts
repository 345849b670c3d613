/**
 * Events in a table whose columns are not those of the table that the collector makes: what they are read as,
 * and their fields held against them as the values of rows are. A table that takes every event is found out
 * once for what is known of it, and its events are not looked at.
 */

import type { Column, Columns, EventTypes } from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";
import { fitColumn, misfit } from "./fit.ts";
import { EARLIEST_MS, eventTime, isInTicks, LATEST_MS, readTimeText } from "./timestamp.ts";
import { hasDefault, parseType, type Type } from "./types.ts";

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

export class EventColumns {
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
