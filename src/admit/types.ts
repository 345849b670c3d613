/**
 * Types of columns, parsed from ClickHouse's text, and a table's types as the scanner runs them. What is not
 * known here is `any`: its values are ClickHouse's to judge (JSON, Dynamic, Variant, aggregate states,
 * geometry, whatever comes next).
 */

import type { Columns } from "../contracts.ts";
import { EARLIEST_MS, LATEST_MS } from "./timestamp.ts";

/** The type of a column, or of what is in it. */
export type Type = {
  /** As ClickHouse writes it, for errors; without what is around it (`Nullable`, `LowCardinality`). */
  readonly text: string;
  readonly nullable: boolean;
} & Kind;

export type Kind =
  | { readonly kind: "any" }
  | { readonly kind: "bool" }
  | { readonly kind: "uuid" }
  | { readonly kind: "ipv4" }
  | { readonly kind: "ipv6" }
  | { readonly kind: "int"; readonly min: bigint; readonly max: bigint }
  /** `max`: what rounds to infinity is above it. */
  | { readonly kind: "float"; readonly max: number }
  | { readonly kind: "decimal"; readonly precision: number; readonly scale: number }
  /** Bytes. */
  | { readonly kind: "fixed"; readonly length: number }
  | { readonly kind: "enum"; readonly numbers: ReadonlyMap<string, number> }
  | { readonly kind: "date"; readonly minMs: number; readonly maxMs: number }
  | {
    readonly kind: "time";
    /** Digits of the fraction; null: `DateTime`, whose numbers are seconds. */
    readonly scale: number | null;
    /** Null where the column names none. */
    readonly zone: string | null;
    readonly minMs: number;
    readonly maxMs: number;
  }
  /** A time of day, or a span of up to 1,000 hours; digits of its fraction. */
  | { readonly kind: "clock"; readonly scale: number }
  | { readonly kind: "array"; readonly of: Type }
  | { readonly kind: "map"; readonly key: Type; readonly value: Type }
  /** `names` is null where its elements have none. */
  | { readonly kind: "tuple"; readonly names: readonly string[] | null; readonly of: Type[] };

const DAY_MS = 86_400_000;
const DATE: Kind = { kind: "date", minMs: 0, maxMs: 65_535 * DAY_MS };
const DATE32: Kind = {
  kind: "date",
  minMs: EARLIEST_MS,
  maxMs: Math.floor(LATEST_MS / DAY_MS) * DAY_MS,
};
/** Halfway to the first number that single precision lacks: it rounds to infinity. */
const SINGLE_MAX = 2 ** 128 - 2 ** 103;
const BRAIN_MAX = 2 ** 128 - 2 ** 119;

/** Deeper types are none that a person has written. */
const DEEPEST = 100;

/** @param old for a ClickHouse from before 21. */
export function parseType(text: string, old = false): Type {
  const type = parse(text.trim(), 0);
  return old ? aged(type) : type;
}

/** Measured on 18.16: it makes 1970 of later days, whose text it cannot read. */
const OLD_LATEST_MS = Date.UTC(2105, 11, 31, 23, 59, 59);

/** With the days and times that an old ClickHouse knows. */
function aged(type: Type): Type {
  switch (type.kind) {
    case "date":
    case "time":
      return { ...type, maxMs: Math.min(type.maxMs, OLD_LATEST_MS) };
    case "array":
      return { ...type, of: aged(type.of) };
    case "tuple":
      return { ...type, of: type.of.map(aged) };
    default:
      return type;
  }
}

/** Whether `null`, or nothing, has a meaning for a value of this type that ClickHouse can read back. */
export function hasDefault(type: Type): boolean {
  if (type.nullable) return true;
  if (type.kind === "enum") return [...type.numbers.values()].includes(0);
  return type.kind !== "tuple" || type.of.every(hasDefault);
}

function parse(text: string, depth: number): Type {
  const [, name = "", inner] = /^([A-Za-z0-9_]+)(?:\((.*)\))?$/s.exec(text) ?? [];
  const args = inner === undefined ? [] : split(inner);
  if (args !== null && depth < DEEPEST) {
    if ((name === "Nullable" || name === "LowCardinality") && args.length === 1) {
      const type = parse(args[0]!, depth + 1);
      return name === "Nullable" ? { ...type, nullable: true } : type;
    }
    if (name === "SimpleAggregateFunction" && args.length === 2) return parse(args[1]!, depth + 1);
    const kind = kindOf(name, args, depth + 1);
    if (kind !== null) return { ...kind, text, nullable: false };
  }
  return { kind: "any", text, nullable: false };
}

function kindOf(name: string, args: readonly string[], depth: number): Kind | null {
  const [first = "", second = ""] = args;
  const integer = /^(U?)Int(8|16|32|64|128|256)$/.exec(name);
  if (integer !== null) {
    const bits = BigInt(integer[2]!);
    return integer[1] === "U"
      ? { kind: "int", min: 0n, max: (1n << bits) - 1n }
      : { kind: "int", min: -(1n << (bits - 1n)), max: (1n << (bits - 1n)) - 1n };
  }
  switch (name) {
    case "Bool":
      return { kind: "bool" };
    case "UUID":
      return { kind: "uuid" };
    case "IPv4":
      return { kind: "ipv4" };
    case "IPv6":
      return { kind: "ipv6" };
    case "Float32":
      return { kind: "float", max: SINGLE_MAX };
    case "BFloat16":
      return { kind: "float", max: BRAIN_MAX };
    case "Float64":
      return { kind: "float", max: Infinity };
    case "Decimal":
      return { kind: "decimal", precision: Number(first), scale: Number(second || 0) };
    case "FixedString":
      return { kind: "fixed", length: Number(first) };
    case "Enum8":
    case "Enum16":
      return enumOf(args);
    case "Date":
      return DATE;
    case "Date32":
      return DATE32;
    case "DateTime":
      return { kind: "time", scale: null, zone: textOf(first), minMs: 0, maxMs: 4_294_967_295_000 };
    case "DateTime64":
      return {
        kind: "time",
        scale: Number(first),
        zone: textOf(second),
        ...rangeOf(Number(first)),
      };
    case "Time":
      return { kind: "clock", scale: 0 };
    case "Time64":
      return { kind: "clock", scale: Number(first) };
    case "Array":
      return { kind: "array", of: parse(first, depth) };
    case "Map":
      return { kind: "map", key: parse(first, depth), value: parse(second, depth) };
    case "Tuple":
      return tupleOf(args, depth);
    case "Nested": {
      const of: Type = {
        ...tupleOf(args, depth),
        text: `Tuple(${args.join(", ")})`,
        nullable: false,
      };
      return { kind: "array", of };
    }
    default:
      return null;
  }
}

/** Nanoseconds since 1970 have to fit 64 bits. */
function rangeOf(scale: number): { readonly minMs: number; readonly maxMs: number } {
  const most = scale > 8 ? 9_223_372_036_854 : Infinity;
  return { minMs: Math.max(EARLIEST_MS, -most), maxMs: Math.min(LATEST_MS, most) };
}

function enumOf(args: readonly string[]): Kind | null {
  const numbers = new Map<string, number>();
  for (const arg of args) {
    const [, name, number] = /^('.*')\s*=\s*(-?\d+)$/s.exec(arg) ?? [];
    if (name === undefined) return null;
    numbers.set(textOf(name) ?? "", Number(number));
  }
  return { kind: "enum", numbers };
}

function tupleOf(args: readonly string[], depth: number): Kind & { kind: "tuple" } {
  const named = args.map((arg) => /^(`(?:[^`\\]|\\.|``)*`|[A-Za-z_]\w*)\s+(.+)$/s.exec(arg));
  if (args.length > 0 && named.every((found) => found !== null)) {
    const names = named.map((found) => nameOf(found![1]!));
    return { kind: "tuple", names, of: named.map((found) => parse(found![2]!, depth)) };
  }
  return { kind: "tuple", names: null, of: args.map((arg) => parse(arg, depth)) };
}

const ESCAPES: Readonly<Record<string, string>> = {
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  "0": "\0",
};

function unescape(text: string): string {
  return text.replace(/\\(.)/gs, (_, char: string) => ESCAPES[char] ?? char);
}

function nameOf(name: string): string {
  return name.startsWith("`") ? unescape(name.slice(1, -1).replaceAll("``", "`")) : name;
}

/** What a literal says; null where there is none. */
function textOf(literal: string): string | null {
  return literal.startsWith("'") ? unescape(literal.slice(1, -1)) : null;
}

/** At the commas that stand in no brackets and no quotes; null where it is no list. */
function split(text: string): string[] | null {
  const found: string[] = [];
  let open = 0, from = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text[at]!;
    if (char === "'" || char === "`") {
      for (at++; at < text.length && text[at] !== char; at++) if (text[at] === "\\") at++;
    } else if (char === "(") open++;
    else if (char === ")") open--;
    else if (char === "," && open === 0) {
      found.push(text.slice(from, at).trim());
      from = at + 1;
    }
    if (open < 0) return null;
  }
  found.push(text.slice(from).trim());
  return open === 0 ? found : null;
}

// ── A table's types as the scanner runs them while it walks a row: nodes in its memory, one for each type,
// laid out as `scanner/typed_bytes.as` reads them. Made once for what is known of a table.

/** A column with its type. */
export interface TypedColumn {
  readonly type: Type;
  /** `null` stands for the column's default. */
  readonly nullIsDefault: boolean;
  /** `null` is left out of the row: the server would make something else of it. */
  readonly dropsNull?: boolean;
}

/** What is made of a table's columns. */
export interface Program {
  readonly columns: ReadonlyMap<string, TypedColumn>;
  /** For the scanner's memory; addresses in it count from its beginning. */
  readonly bytes: Uint8Array;
  /** Where in it a column's node is. */
  readonly nodes: ReadonlyMap<string, number>;
}

/** Of a program; types that need more are left to the closer look. */
const MOST_BYTES = 64 * 1024;

const made = new WeakMap<Columns, Program>();

export function programOf(columns: Columns): Program {
  let program = made.get(columns);
  if (program === undefined) made.set(columns, program = compile(columns));
  return program;
}

function compile({ columns, old = false }: Columns): Program {
  const layout = new Layout();
  const typed = new Map<string, TypedColumn>();
  const nodes = new Map<string, number>();
  for (const { name, type: text, defaultKind } of columns) {
    const type = parseType(text, old);
    const nullIsDefault = defaultKind !== "" || hasDefault(type);
    const dropsNull = old && nullIsDefault && !type.nullable;
    typed.set(name, { type, nullIsDefault, dropsNull });
    const nullable = nullIsDefault && !dropsNull;
    // Text takes everything.
    if (type.kind !== "any") nodes.set(name, layout.node(type, nullable));
    else if (dropsNull) nodes.set(name, layout.node({ ...type, ...ANY_TEXT }, false));
  }
  return { columns: typed, bytes: layout.used(), nodes };
}

/** Text of any length, so that `null` is looked at closer. */
const ANY_TEXT = { kind: "fixed", length: 0x7fffffff } as const;

// As in `scanner/typed_bytes.as`.
const NODE_BYTES = 32;
const OPERATIONS = {
  any: 0,
  closer: 1,
  int: 2,
  float: 3,
  decimal: 4,
  bool: 5,
  fixed: 6,
  uuid: 7,
  ipv4: 8,
  enum: 9,
  date: 10,
  time: 11,
  array: 12,
  map: 13,
  tuple: 14,
  record: 15,
  // Rare, and not short to read.
  ipv6: 1,
  clock: 1,
} as const;
const NULLABLE = 1;
const SINGLE = 2;
const UTC = 2;
const SECONDS = 4;
const ZONED = 8;

const MOST = (1n << 64n) - 1n;

/** Zones whose text is UTC's. */
const UTC_ZONES: ReadonlySet<string> = new Set([
  "UTC",
  "Etc/UTC",
  "GMT",
  "Etc/GMT",
  "Etc/Universal",
]);

export function isUtc(zone: string): boolean {
  return UTC_ZONES.has(zone);
}

interface Node {
  readonly operation: number;
  readonly flags?: number;
  readonly one?: number;
  readonly two?: number;
  readonly low?: bigint;
  readonly high?: bigint;
}

/** Takes pieces of the room, one behind the other; what finds none is looked at closer each time. */
class Layout {
  readonly #bytes = new Uint8Array(MOST_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  #used = 0;
  readonly #encoder = new TextEncoder();
  readonly #closer: number;

  constructor() {
    this.#closer = this.#place({ operation: OPERATIONS.closer })!;
  }

  used(): Uint8Array {
    return this.#bytes.slice(0, this.#used);
  }

  /** Where the node of a type is. */
  node(type: Type, nullable: boolean = type.nullable): number {
    return this.#place(this.#nodeOf(type), nullable) ?? this.#closer;
  }

  #nodeOf(type: Type): Node {
    const operation = OPERATIONS[type.kind];
    switch (type.kind) {
      case "int":
        return { operation, low: least(type.max), high: least(-type.min) };
      case "float":
        return { operation, flags: type.max === Infinity ? 0 : SINGLE };
      case "decimal":
        return { operation, one: type.precision - type.scale, two: type.scale };
      case "fixed":
        return { operation, one: type.length };
      case "date":
        return { operation, low: BigInt(type.minMs), high: BigInt(type.maxMs) };
      case "time": {
        const zoned = type.zone === null ? UTC : isUtc(type.zone) ? 0 : ZONED;
        const flags = zoned | (type.scale === null ? SECONDS : 0);
        return { operation, flags, low: BigInt(type.minMs), high: BigInt(type.maxMs) };
      }
      case "array":
        return { operation, one: this.node(type.of) };
      case "map":
        return { operation, one: this.node(type.key), two: this.node(type.value) };
      case "enum": {
        const list = this.#names([...type.numbers.keys()]);
        return list === null ? { operation: OPERATIONS.closer } : { operation, one: list };
      }
      case "tuple":
        return this.#tuple(type.of, type.names);
      default:
        return { operation };
    }
  }

  #tuple(of: readonly Type[], names: readonly string[] | null): Node {
    const words = of.flatMap((type, index): (number | null)[] => {
      const node = this.node(type);
      return names === null ? [node] : [node, ...this.#text(names[index]!)];
    });
    const one = this.#words(words);
    if (one === null) return { operation: OPERATIONS.closer };
    return {
      operation: names === null ? OPERATIONS.tuple : OPERATIONS.record,
      one,
      two: of.length,
    };
  }

  /** A list of names, ended by zeros. */
  #names(names: readonly string[]): number | null {
    return this.#words([...names.flatMap((name) => this.#text(name)), 0, 0]);
  }

  /** Length and address. */
  #text(text: string): [number, number | null] {
    const bytes = this.#encoder.encode(text);
    const at = this.#take(bytes.length + 8);
    if (at === null) return [0, null];
    this.#bytes.set(bytes, at);
    return [bytes.length, at];
  }

  #words(words: readonly (number | null)[]): number | null {
    const at = this.#take(words.length * 4);
    if (at === null || words.includes(null)) return null;
    words.forEach((word, index) => this.#view.setUint32(at + index * 4, word!, true));
    return at;
  }

  #place({ operation, flags = 0, one = 0, two = 0, low = 0n, high = 0n }: Node, nullable = false) {
    const at = this.#take(NODE_BYTES);
    if (at === null) return null;
    const words = [operation, flags | (nullable ? NULLABLE : 0), one, two];
    words.forEach((word, index) => this.#view.setUint32(at + index * 4, word, true));
    this.#view.setBigInt64(at + 16, low, true);
    this.#view.setBigInt64(at + 24, high, true);
    return at;
  }

  #take(bytes: number): number | null {
    const at = this.#used, end = at + Math.ceil(bytes / 8) * 8;
    if (end > this.#bytes.length) return null;
    this.#used = end;
    return at;
  }
}

function least(value: bigint): bigint {
  return BigInt.asIntN(64, value < MOST ? value : MOST);
}
