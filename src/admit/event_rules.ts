/** What each field of an event may be, told of one raw member at a time; and why not. Pure. */

import { type Member, shown } from "./scan.ts";
import { inRange, isoMs, TIMESTAMP_WANTED } from "./timestamp.ts";

export const FIELDS: readonly string[] = ["eventType", "userId", "timestamp", "id", "properties"];
export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const encoder = new TextEncoder();

export type EventField = "eventType" | "userId" | "timestamp" | "id" | "properties";

/** `value`: JSON that the INSERT reads, `error`: a sentence for the client. */
export type Checked =
  | { readonly kind: "good"; readonly field: EventField; readonly value: string }
  | { readonly kind: "bad"; readonly error: string };

/** What is wrong with a key, or null for a field's name. */
export function unknownField(key: string): string | null {
  return FIELDS.includes(key) ? null : unknown(key);
}

function unknown(key: string): string {
  return `${shown(key)}: unknown key; an event has ${FIELDS.join(", ")}`;
}

/** @param member of valid JSON. */
export function checkMember({ key, rawValue }: Member): Checked {
  switch (key) {
    case "eventType":
      if (!rawValue.startsWith('"')) return wrong(key, "a string", rawValue);
      if (rawValue === '""') return wrong(key, "a non-empty string", rawValue);
      return { kind: "good", field: key, value: rawValue };
    case "userId":
      if (!rawValue.startsWith('"')) return wrong(key, "a string", rawValue);
      return { kind: "good", field: key, value: rawValue };
    case "properties":
      if (!rawValue.startsWith("{")) return wrong(key, "an object", rawValue);
      return { kind: "good", field: key, value: rawValue };
    case "id": {
      const id: unknown = JSON.parse(rawValue);
      if (typeof id !== "string" || !UUID.test(id)) return wrong(key, "a UUID", rawValue);
      return { kind: "good", field: key, value: `"${id}"` };
    }
    case "timestamp": {
      const value = timestampValue(rawValue);
      if (value === null) return wrong(key, TIMESTAMP_WANTED, rawValue);
      return { kind: "good", field: key, value };
    }
    default:
      return { kind: "bad", error: unknown(key) };
  }
}

function wrong(key: string, wanted: string, rawValue: string): Checked {
  return { kind: "bad", error: `${key}: expected ${wanted}, got ${shown(rawValue)}` };
}

/** Written without escapes, fraction and exponent, which ClickHouse does not read in a time. */
function timestampValue(rawValue: string): string | null {
  const value: unknown = JSON.parse(rawValue);
  if (typeof value === "number") {
    return Number.isInteger(value) && inRange(value) ? String(value) : null;
  }
  if (typeof value !== "string") return null;
  const bytes = encoder.encode(value);
  return inRange(isoMs(bytes, 0, bytes.length)) ? `"${value}"` : null;
}
