/**
 * Rows of any other table: one JSON object whose keys are the table's columns, forwarded as it came. A
 * value that its column cannot hold is an error of its row; where the column's type is not known, it is
 * ClickHouse's to judge. What becomes of a key that is no column is a setting.
 */

import { type Columns, REST, type UnknownKeys } from "../contracts.ts";
import { done } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";
import { type Member, members, type Misfits, type RowReader } from "./closer.ts";
import { fitColumn } from "./fit.ts";
import { parseType, type Program } from "./types.ts";
import type { Scanner } from "./scanner.ts";

/** Column names in an error message at most. */
const NAMED = 20;
/** Columns that one request may ask for; more are asked for by the next. */
const MOST_STRANGE = 1000;
/** Values of one column by which a wider type is chosen, and how long one of them is. */
const MOST_MISFITS = 100;
const LONGEST_MISFIT = 64;

/** What becomes of keys that are no columns. */
export interface KeysWanted {
  /** `pass`: they are sent as they are. */
  readonly policy: UnknownKeys | "pass";
  /** Why the table has not got them, for errors. */
  readonly reason?: string;
}

/** Whether columns may become wider; `reason`: they did not, for errors. */
export type Widening = { readonly asks: true } | { readonly asks: false; readonly reason: string };

/** Which rows are read. */
export interface RowTarget {
  readonly table: string;
  /** `null`: not known, so any key may be one. */
  readonly columns: Columns | null;
  /** Whether values are held against their columns; they are unless given. */
  readonly typeCheck?: boolean;
  /** Errors unless given. */
  readonly unknownKeys?: KeysWanted;
  /** Whether columns may become wider; they do not unless given. */
  readonly widen?: Widening;
  /** Rows may have been read before; see `fitColumn`. */
  readonly again?: boolean;
}

export class TableRowReader implements RowReader {
  readonly leastBytes = 2;
  readonly #scanner: Scanner;
  readonly #table: string;
  readonly #columns: Columns | null;
  /** Null: values are not looked at. */
  readonly #program: Program | null;
  readonly #policy: UnknownKeys | "pass";
  readonly #reason: string | null;
  readonly #widen: Widening | null;
  readonly #again: boolean;
  #rightless = 0;
  /** For errors, made when there is one. */
  #has: string | null = null;
  #strange: Set<string> | null = null;
  #misfits: Map<string, string[]> | null = null;
  /** How a value is written in the column of all unknown keys. */
  #kept: ((raw: string) => string) | null = null;

  /** The scanner reads rows of these columns from now on. */
  constructor(scanner: Scanner, target: RowTarget) {
    const { table, columns, typeCheck = true, unknownKeys, widen, again = false } = target;
    this.#widen = widen ?? null;
    this.#again = again;
    this.#scanner = scanner;
    this.#table = table;
    this.#columns = columns;
    this.#policy = unknownKeys?.policy ?? "error";
    this.#reason = unknownKeys?.reason ?? null;
    this.#program = scanner.rowsOf(columns, typeCheck);
  }

  get rightless(): number {
    return this.#rightless;
  }

  get strange(): ReadonlySet<string> | null {
    return this.#strange;
  }

  get misfits(): Misfits | null {
    return this.#misfits;
  }

  closer(text: string): string | null {
    if (!text.startsWith("{")) return `expected a JSON object, got ${excerpt(text)}`;
    const found = members(text, this.stranger);
    return found.ok ? this.take(found.value) : found.problem;
  }

  /** As `closer`, a row that has been taken apart. @param found keys that `stranger` has let pass, each once. */
  take(found: readonly Member[]): string | null {
    const lacking = this.#lacking(found);
    const sent: string[] = [];
    const rest: string[] = [];
    const keys: string[] = [];
    const tooWide: [key: string, raw: string][] = [];
    let problem = lacking === null ? null : this.#noColumn(lacking);
    for (const { key, rawKey, rawValue } of found) {
      if (this.#isUnknown(key) && this.#policy !== "pass") {
        if (this.#policy === "keep") rest.push(`${rawKey}:${this.#keep(rawValue)}`);
        continue;
      }
      const column = this.#program?.columns.get(key);
      if (rawValue === "null" && column?.dropsNull) continue;
      const fitted = column === undefined
        ? done(rawValue)
        : fitColumn(key, column, rawValue, this.#again);
      if (!fitted.ok) {
        // A row that is refused in any case asks for nothing.
        if (this.#widen?.asks !== true) return this.#misfit(fitted.problem);
        problem ??= fitted.problem;
        tooWide.push([key, rawValue]);
        continue;
      }
      keys.push(key);
      sent.push(`${rawKey}:${fitted.value}`);
    }
    if (problem !== null) {
      if (lacking !== null) this.#ask(found);
      for (const [key, raw] of tooWide) this.#askWider(key, raw);
      return problem;
    }
    if (rest.length > 0) {
      if (keys.includes(REST)) return `${REST}: keys that are no columns go there`;
      keys.push(REST);
      sent.push(`"${REST}":{${rest.join(",")}}`);
    }
    this.#scanner.text(`{${sent.join(",")}}`);
    if (this.#columns === null) {
      found.filter(isPlain).forEach(({ key }) => this.#scanner.learn(key));
    } else {
      keys.forEach((key) => this.#scanner.had(key));
    }
    return null;
  }

  #isUnknown(key: string): boolean {
    return this.#columns !== null && !this.#columns.names.has(key);
  }

  /** A value as the column of all unknown keys holds it: in a map of texts it is the text of itself. */
  #keep(raw: string): string {
    if (this.#kept === null) {
      const type = this.#columns?.columns.find(({ name }) => name === REST)?.type ?? "";
      const parsed = parseType(type);
      const texts = parsed.kind === "map" && /String/.test(parsed.value.text);
      this.#kept = texts ? (raw) => raw.startsWith('"') ? raw : JSON.stringify(raw) : (raw) => raw;
    }
    return this.#kept(raw);
  }

  /** What is wrong with a key, or null for one that is a column's name, or need be none. */
  readonly stranger = (key: string): string | null => {
    if (!this.#isUnknown(key)) return null;
    const closed = this.#columns!.closed.get(key);
    if (closed !== undefined) {
      // A row that is refused for one key is not read further.
      if (closed.why === "right") this.#rightless++;
      return `${excerpt(key)}: ${closed.reason}`;
    }
    return this.#policy === "error" ? this.#noColumn(key) : null;
  };

  #misfit(problem: string): string {
    const widen = this.#widen;
    return widen !== null && !widen.asks ? `${problem}; ${widen.reason}` : problem;
  }

  /** A value that its column cannot hold until that is wider. */
  #askWider(key: string, raw: string): void {
    const known = (this.#misfits ??= new Map()).get(key);
    if (known === undefined) this.#misfits.set(key, [raw]);
    else if (known.length < MOST_MISFITS && raw.length <= LONGEST_MISFIT) known.push(raw);
  }

  /** The first key for which the table needs a column. */
  #lacking(found: readonly Member[]): string | null {
    if (this.#policy !== "column" && this.#policy !== "keep") return null;
    if (this.#policy === "keep" && this.#columns?.names.has(REST)) return null;
    return found.find(({ key }) => this.#isUnknown(key))?.key ?? null;
  }

  /** All of its keys that are no columns are asked for. */
  #ask(found: readonly Member[]): void {
    for (const { key } of found) {
      if (!this.#isUnknown(key)) continue;
      this.#strange ??= new Set();
      if (this.#strange.size < MOST_STRANGE) {
        this.#strange.add(this.#policy === "keep" ? REST : key);
      }
    }
  }

  #noColumn(key: string): string {
    if (this.#reason !== null) {
      return `${excerpt(key)}: no column of ${this.#table}: ${this.#reason}`;
    }
    this.#has ??= hasColumns([...this.#columns!.names]);
    return `${excerpt(key)}: no column of ${this.#table}, ${this.#has}`;
  }
}

function hasColumns(names: readonly string[]): string {
  const more = names.length > NAMED ? `, and ${names.length - NAMED} more` : "";
  return `which has ${names.slice(0, NAMED).join(", ")}${more}`;
}

function isPlain({ rawKey }: Member): boolean {
  return !rawKey.includes("\\");
}
