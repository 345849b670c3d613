/**
 * A table's types as the scanner runs them while it walks a row: nodes in its memory, one for each type,
 * laid out as `scanner/typed_bytes.as` reads them. Made once for what is known of a table.
 */

import type { Columns } from "../contracts.ts";
import { hasDefault, parseType, type Type } from "./types.ts";

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
  /** For the scanner's memory, where it begins with `base`. */
  readonly bytes: Uint8Array;
  /** The address of a column's node. */
  readonly nodes: ReadonlyMap<string, number>;
}

/** Where the nodes lie. */
export interface Room {
  readonly base: number;
  readonly bytes: number;
}

const made = new WeakMap<Columns, Program>();

export function programOf(columns: Columns, room: Room): Program {
  let program = made.get(columns);
  if (program === undefined) made.set(columns, program = compile(columns, room));
  return program;
}

function compile({ columns, old = false }: Columns, room: Room): Program {
  const layout = new Layout(room);
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
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #base: number;
  #used = 0;
  readonly #encoder = new TextEncoder();
  readonly #closer: number;

  constructor({ base, bytes }: Room) {
    this.#bytes = new Uint8Array(bytes);
    this.#view = new DataView(this.#bytes.buffer);
    this.#base = base;
    this.#closer = this.#place({ operation: OPERATIONS.closer })!;
  }

  used(): Uint8Array {
    return this.#bytes.slice(0, this.#used);
  }

  /** The address of the node of a type. */
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
    return [bytes.length, this.#base + at];
  }

  #words(words: readonly (number | null)[]): number | null {
    const at = this.#take(words.length * 4);
    if (at === null || words.includes(null)) return null;
    words.forEach((word, index) => this.#view.setUint32(at + index * 4, word!, true));
    return this.#base + at;
  }

  #place({ operation, flags = 0, one = 0, two = 0, low = 0n, high = 0n }: Node, nullable = false) {
    const at = this.#take(NODE_BYTES);
    if (at === null) return null;
    const words = [operation, flags | (nullable ? NULLABLE : 0), one, two];
    words.forEach((word, index) => this.#view.setUint32(at + index * 4, word, true));
    this.#view.setBigInt64(at + 16, low, true);
    this.#view.setBigInt64(at + 24, high, true);
    return this.#base + at;
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
