/**
 * Types of columns, parsed from ClickHouse's text. What is not known here is `any`: its values are
 * ClickHouse's to judge (JSON, Dynamic, Variant, aggregate states, geometry, whatever comes next).
 */

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
