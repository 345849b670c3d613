/**
 * Bytes → rows of a table, as the table is, or as it becomes for them: which columns they are held against, and
 * the tables and columns that are made where rows ask for them; and what a table asks for beside its rows
 * is put in front of them (`stamped`). A write over HTTP and a message of a broker
 * are read here alike; what is said of the outcome is each one's own.
 */

import {
  type Clock,
  type Closed,
  type Columns,
  type Remade,
  REST,
  type TableMaker,
  type Tables,
  type UnknownKeys,
} from "../contracts.ts";
import { eachMember } from "./closer.ts";
import { type Decoded, type DecodeQueue, kept, type Target } from "./decode.ts";
import { fitColumn } from "./fit.ts";
import type { Change } from "./reply.ts";
import type { KeysWanted } from "./row.ts";
import type { EventWindow } from "./timestamp.ts";
import { hasDefault, parseType, type TypedColumn } from "./types.ts";

export interface ReadingDeps {
  readonly tables: Tables;
  /** Changes tables as rows ask for it; absent: none is changed. */
  readonly maker?: TableMaker;
  readonly clock: Pick<Clock, "nowMs">;
  readonly settings: {
    /** `strict`: a value that its column cannot hold is an error of its row. */
    readonly typeCheck: "strict" | "off";
    /** Times of events that are taken. */
    readonly eventWindow: EventWindow;
  };
}

/** Why a table takes no rows. */
export type Unusable =
  | { readonly kind: "missing" }
  /** ClickHouse cannot be asked whether it is there, and rows of many others wait for that. */
  | { readonly kind: "unconfirmed" }
  | { readonly kind: "closed"; readonly closed: Closed }
  /** It could not be made. `rows`: no types can be found in them. */
  | {
    readonly kind: "unmade";
    readonly why: "right" | "rows" | "kind";
    readonly problem: string;
  };

/** Bytes that are read, and for what. */
export interface Given {
  readonly bytes: Uint8Array;
  readonly target: Target;
  /** As of `DecodeQueue.decode`. */
  readonly mayTake: (bytes: number) => boolean;
  /** Whether one wrong row refuses them all: then they leave no table behind. */
  readonly strict: () => boolean;
}

/** What they are, with how they were read in the end. */
export interface Settled {
  readonly decoded: Decoded;
  readonly target: Target;
  readonly change: Change | null;
}

export const UNCONFIRMED =
  "ClickHouse cannot be asked whether there is such a table, and rows of " +
  "many others wait for that; nothing was taken";

/** The policies, made once. */
const WANTED: Readonly<Record<UnknownKeys, KeysWanted>> = {
  error: { policy: "error" },
  skip: { policy: "skip" },
  column: { policy: "column" },
  keep: { policy: "keep" },
};

const WIDEN: Pick<Target, "widen"> = { widen: { asks: true } };
const KEEP: Pick<Target, "widen"> = {};

/** Each has a queue, and files on the disk. */
const MOST_STRANGERS = 100;

/**
 * Names of tables that no ClickHouse has confirmed since the start. A client may invent as many as a glob
 * matches; rows are taken for so many of them, and for all that stand in `tables` by their name.
 */
export class Strangers {
  readonly #names = new Set<string>();
  #listed: ReadonlySet<string> = new Set();

  /** @param tables names and globs. */
  adopt(tables: readonly string[]): void {
    this.#listed = new Set(tables.filter((name) => !/[*?]/.test(name)));
  }

  mayTake(table: string): boolean {
    if (this.#listed.has(table) || this.#names.has(table)) return true;
    if (this.#names.size >= MOST_STRANGERS) return false;
    this.#names.add(table);
    return true;
  }

  /** ClickHouse has said that the table is there. */
  known(table: string): void {
    if (this.#names.size > 0) this.#names.delete(table);
  }
}

export class Reading {
  readonly #deps: ReadingDeps;
  readonly #queue: DecodeQueue;
  readonly #strangers: Strangers;

  constructor(deps: ReadingDeps, queue: DecodeQueue, strangers: Strangers) {
    this.#deps = deps;
    this.#queue = queue;
    this.#strangers = strangers;
  }

  /** How events are read. */
  eventsOf(table: string): Target {
    const columns = this.#deps.tables.columns(table);
    const known = typeof columns === "string" ? null : columns;
    const { eventWindow: window } = this.#deps.settings;
    const typeCheck = this.#deps.settings.typeCheck === "strict";
    return { table, shape: "event", columns: known, window, typeCheck };
  }

  /** How rows of any other table are read, or why they need not be. */
  rowsOf(table: string, columns: Columns | "missing" | "unknown"): Target | Unusable {
    const { maker } = this.#deps;
    const makes = columns === "missing" && maker?.makes(table) === true;
    if (columns === "missing" && !makes) return { kind: "missing" };
    const known = typeof columns === "string" ? null : columns;
    if (known === null) {
      if (!makes && !this.#strangers.mayTake(table)) return { kind: "unconfirmed" };
    } else {
      this.#strangers.known(table);
      if (known.takesNone !== null) return { kind: "closed", closed: known.takesNone };
    }
    const typeCheck = this.#deps.settings.typeCheck === "strict";
    const unknownKeys = WANTED[maker?.unknownKeys(table) ?? "error"];
    return makes
      ? { table, shape: "row", columns: null, makes }
      : { table, shape: "row", columns: known, typeCheck, unknownKeys, ...this.#widening() };
  }

  /** A promise where the bytes are many. */
  decode({ bytes, target, mayTake }: Omit<Given, "strict">): Decoded | Promise<Decoded> {
    return this.#queue.decode(bytes, target, this.#deps.clock.nowMs(), mayTake);
  }

  /** Whether rows ask for a change of their table. */
  asks({ target, strict }: Pick<Given, "target" | "strict">, decoded: Decoded): boolean {
    return decoded.kind === "rows" &&
      (decoded.strange !== null || decoded.misfits !== null ||
        target.makes === true && decoded.rows > 0 &&
          // What is refused as a whole leaves no table behind.
          !(decoded.rejected > 0 && strict()));
  }

  /** Has the table made or given columns, and decodes the bytes again for what it is then. */
  async change(
    given: Given,
    decoded: Decoded,
    before: Change | null = null,
  ): Promise<Settled | Unusable> {
    if (!this.asks(given, decoded) || decoded.kind !== "rows") {
      return { decoded, target: given.target, change: before };
    }
    const { table, columns } = given.target;
    const maker = this.#deps.maker!;
    // What was decoded may be lent; rows with a key that is no column yet are not among it.
    const first = columns === null ? decoded.body.slice() : null;
    const refused = await this.#refused(given, decoded, first);
    if (refused !== null) return { decoded: refused, target: given.target, change: before };
    const { strange, misfits } = decoded;
    const remade = first !== null
      ? await maker.make(table, first)
      : strange === null
      ? await maker.widen(table, misfits ?? new Map())
      : await maker.extend(table, strange, await this.#rowsAsTheyAre(given));
    const target = columns === null || strange !== null
      ? this.#targetOf(given.target, remade)
      : widened(given.target, remade);
    if ("kind" in target) return target;
    const change = remade.ok && (remade.created || remade.added.length > 0)
      ? {
        created: remade.created ? table : before?.created ?? null,
        columns: [...before?.columns ?? [], ...remade.added],
      }
      : before;
    // Others may have made the table, of other rows: then it may get columns for these.
    const next = { ...given, target };
    return await this.change(next, await this.#again(next), change);
  }

  /**
   * What is refused as a whole leaves the table as it is: how the rows would be read after the change, if
   * then still none is taken, or one is wrong and that refuses them all. Null: they may be taken.
   * @param first rows of which the table would be made; null: it is there.
   */
  async #refused(
    given: Given,
    { rows, strange, misfits }: Decoded & { readonly kind: "rows" },
    first: Uint8Array | null,
  ): Promise<Decoded | null> {
    const { target: { table, columns } } = given;
    const strict = given.strict();
    const maker = this.#deps.maker!;
    if (!strict && rows > 0 || maker.foresee === undefined) return null;
    const all = first ?? await this.#rowsAsTheyAre(given);
    const foreseen = await maker.foresee(table, columns, { strange, misfits }, all);
    if (foreseen === null) return null;
    const { widen: _, ...target } = given.target;
    const keep = maker.unknownKeys(table) === "keep" && foreseen.names.has(REST);
    const decoded = await this.#again({
      ...given,
      target: {
        ...target,
        makes: false,
        columns: foreseen,
        typeCheck: this.#deps.settings.typeCheck === "strict",
        unknownKeys: WANTED[keep ? "keep" : "error"],
      },
    });
    const taken = decoded.kind === "rows" && decoded.rows > 0 &&
      !(strict && decoded.rejected > 0);
    return taken ? null : decoded;
  }

  /** Whatever their keys are. */
  async #rowsAsTheyAre(given: Given): Promise<Uint8Array> {
    const target: Target = { ...given.target, columns: null, makes: true };
    const decoded = await this.#again({ ...given, target });
    return decoded.kind === "rows" ? decoded.body : new Uint8Array(0);
  }

  /** Others are read before the answer is looked at. */
  #again(given: Given): Decoded | Promise<Decoded> {
    const decoded = this.decode(given);
    return decoded instanceof Promise ? decoded : kept(decoded);
  }

  #widening(): Pick<Target, "widen"> {
    return this.#deps.maker?.widens === true ? WIDEN : KEEP;
  }

  /** How the rows are read after a change of their table, or after one that could not be made. */
  #targetOf(before: Target, remade: Remade): Target | Unusable {
    const { makes = false, table } = before;
    const target: Target = { ...before, makes: false };
    const typeCheck = this.#deps.settings.typeCheck === "strict";
    if (remade.ok) {
      const { columns } = remade;
      if (columns.takesNone !== null) return { kind: "closed", closed: columns.takesNone };
      const policy = this.#deps.maker!.unknownKeys(table);
      // Columns that it has been asked for and still has not got are errors.
      const asked = !makes &&
        (policy === "column" || policy === "keep" && !columns.names.has(REST));
      const unknownKeys = WANTED[asked ? "error" : policy];
      return { ...target, columns, typeCheck, unknownKeys, ...this.#widening() };
    }
    // Another attempt to insert them will have it changed.
    if (remade.why === "away") {
      if (makes) return this.#strangers.mayTake(table) ? target : { kind: "unconfirmed" };
      return { ...target, unknownKeys: { policy: "pass" } };
    }
    if (makes) return { kind: "unmade", why: remade.why, problem: remade.problem };
    return { ...target, unknownKeys: { policy: "error", reason: remade.problem } };
  }
}

/** How rows are read after columns have become wider, or have not. */
function widened({ widen: _, ...target }: Target, remade: Remade): Target {
  if (remade.ok) return { ...target, columns: remade.columns };
  return remade.why === "right" || remade.why === "kind"
    ? { ...target, widen: { asks: false, reason: remade.problem } }
    : target;
}

// ── What a client does not say of its rows but a table asks for: columns called `_received_at`, `_client_ip`,
// `_user_agent`, `_collector` and `_request_id` are filled where a table has them and the row has not. A
// value that its column cannot hold is left out. Tables without such columns pay one look-up a request.

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
