/**
 * What a client does not say of its rows but a table asks for: columns called `_received_at`, `_client_ip`,
 * `_user_agent`, `_collector` and `_request_id` are filled where a table has them and the row has not. A
 * value that its column cannot hold is left out. Tables without such columns pay one look-up a request.
 */

import type { Columns } from "../contracts.ts";
import { eachMember } from "./closer.ts";
import type { Decoded } from "./decode.ts";
import { fitColumn } from "./fit.ts";
import type { TypedColumn } from "./type_program.ts";
import { hasDefault, parseType } from "./types.ts";

const NAMES = ["_received_at", "_client_ip", "_user_agent", "_collector", "_request_id"] as const;

/** What is known of the request, asked for where it is wanted; null: nothing. */
export type StampOf = (name: (typeof NAMES)[number]) => string | null;

/** A column that is filled. */
export interface Stamp {
  readonly name: (typeof NAMES)[number];
  readonly column: TypedColumn;
}

const NONE: readonly Stamp[] = [];
const known = new WeakMap<Columns, readonly Stamp[]>();

/** Those of the columns that are filled; mostly none. */
export function stampsIn(columns: Columns): readonly Stamp[] {
  let stamps = known.get(columns);
  if (stamps === undefined) {
    stamps = NAMES.flatMap((name) => {
      const found = columns.columns.find((column) => column.name === name);
      if (found === undefined || !columns.names.has(name)) return [];
      const type = parseType(found.type);
      const nullIsDefault = found.defaultKind !== "" || hasDefault(type);
      return [{ name, column: { type, nullIsDefault } }];
    });
    known.set(columns, stamps = stamps.length === 0 ? NONE : stamps);
  }
  return stamps;
}

type Rows = Decoded & { readonly kind: "rows" };

/** A field as it is put in front of a row. */
interface Field {
  readonly name: string;
  readonly text: string;
}

/** The rows with what is put in front of them, in memory of their own. */
export function stamped(decoded: Rows, stamps: readonly Stamp[], stampOf: StampOf): Rows {
  const fields = stamps.flatMap(({ name, column }): Field[] => {
    const value = stampOf(name);
    const raw = value === null ? null : rawOf(name, column, value);
    return raw === null ? [] : [{ name, text: `"${name}":${raw}` }];
  });
  if (fields.length === 0 || decoded.rows === 0) return decoded;
  const { keys } = decoded;
  const own = fields.some(({ name }) => keys?.has(name) !== false);
  const body = own
    ? eachInFront(decoded.body, fields)
    : inFront(decoded.body, fields, decoded.rows);
  const names = fields.map(({ name }) => name);
  return { ...decoded, body, lent: false, keys: keys && keys.union(new Set(names)) };
}

/** As the column takes it; null where it does not. */
function rawOf(name: string, column: TypedColumn, value: string): string | null {
  // A column of days gets the day.
  const texts = name === "_received_at" ? [value, value.slice(0, 10)] : [value];
  for (const text of texts) {
    const fitted = fitColumn(name, column, JSON.stringify(text));
    if (fitted.ok) return fitted.value;
  }
  return null;
}

const encoder = new TextEncoder();
const NEWLINE = 10;
const CLOSE = 125;

/** The same in front of each row. */
function inFront(body: Uint8Array, fields: readonly Field[], rows: number): Uint8Array {
  const front = encoder.encode(`{${fields.map(({ text }) => text).join(",")},`);
  const out = new Uint8Array(body.length + rows * (front.length - 1));
  let to = 0;
  for (let at = 0; at < body.length;) {
    const end = body.indexOf(NEWLINE, at) + 1;
    out.set(front, to);
    to += front.length;
    if (isEmpty(body, at)) to--;
    out.set(body.subarray(at + 1, end), to);
    to += end - at - 1;
    at = end;
  }
  return out.subarray(0, to);
}

/** Whether the object that begins at `at` has no members. */
function isEmpty(body: Uint8Array, at: number): boolean {
  for (at++; body[at]! <= 32; at++);
  return body[at] === CLOSE;
}

/** In front of each row what it has not itself. */
function eachInFront(body: Uint8Array, fields: readonly Field[]): Uint8Array {
  const lines = new TextDecoder().decode(body).split("\n").slice(0, -1).map((line) => {
    const has = new Set<string>();
    eachMember(line, ({ key }) => {
      has.add(key);
      return null;
    });
    const front = fields.filter(({ name }) => !has.has(name)).map(({ text }) => text);
    const rest = has.size === 0 ? "}" : line.slice(1);
    return `{${
      [...front, ...(has.size === 0 || front.length === 0 ? [] : [""])].join(",")
    }${rest}\n`;
  });
  return encoder.encode(lines.join(""));
}
