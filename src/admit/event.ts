/**
 * Analytics events. A valid line is forwarded as the client wrote it, with a missing id or timestamp
 * spliced in front: the INSERT renames the fields and turns property values into strings with every
 * digit kept. Only an odd line (a repeated key, a lone surrogate, `1.5e12` as the time, `null` for a field
 * that may be absent, a UUID without dashes) is put together anew.
 */

import { LONGEST_TYPE_BYTES, OTHER_TYPE } from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { excerpt, hint } from "../kernel/text.ts";
import { type Member, members, type RowReader } from "./closer.ts";
import type { EventColumns } from "./event_columns.ts";
import type { Scanner } from "./scanner.ts";
import {
  epochMs,
  eventTime,
  type EventWindow,
  inRange,
  isoMs,
  TIMESTAMP_WANTED,
} from "./timestamp.ts";

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
