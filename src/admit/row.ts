/**
 * Rows of any other table: one JSON object whose keys are the table's columns, forwarded as it came. A
 * value that its column cannot hold is an error of its row; where the column's type is not known, it is
 * ClickHouse's to judge.
 */

import type { Columns } from "../contracts.ts";
import { done } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";
import { type Member, members, type RowReader } from "./closer.ts";
import { fitColumn } from "./fit.ts";
import type { Program } from "./type_program.ts";
import type { Scanner } from "./scanner.ts";

/** Column names in an error message at most. */
const NAMED = 20;

export class TableRowReader implements RowReader {
  readonly leastBytes = 2;
  readonly #scanner: Scanner;
  readonly #table: string;
  /** `null`: not known, so any key may be one. */
  readonly #columns: Columns | null;
  /** Null: values are not looked at. */
  readonly #program: Program | null;
  /** For errors, made when there is one. */
  #has: string | null = null;

  /** The scanner reads rows of these columns from now on. */
  constructor(scanner: Scanner, table: string, columns: Columns | null, typeCheck: boolean) {
    this.#scanner = scanner;
    this.#table = table;
    this.#columns = columns;
    this.#program = scanner.rowsOf(columns, typeCheck);
  }

  closer(text: string): string | null {
    if (!text.startsWith("{")) return `expected a JSON object, got ${excerpt(text)}`;
    const found = members(text, this.stranger);
    return found.ok ? this.take(found.value) : found.problem;
  }

  /** As `closer`, a row that has been taken apart. @param found each a column, and once. */
  take(found: readonly Member[]): string | null {
    const sent: string[] = [];
    for (const { key, rawKey, rawValue } of found) {
      const column = this.#program?.columns.get(key);
      const fitted = column === undefined ? done(rawValue) : fitColumn(key, column, rawValue);
      if (!fitted.ok) return fitted.problem;
      sent.push(`${rawKey}:${fitted.value}`);
    }
    this.#scanner.text(`{${sent.join(",")}}`);
    if (this.#columns === null) {
      found.filter(isPlain).forEach(({ key }) => this.#scanner.learn(key));
    } else {
      found.forEach(({ key }) => this.#scanner.had(key));
    }
    return null;
  }

  /** What is wrong with a key, or null for a column's name. */
  readonly stranger = (key: string): string | null => {
    if (this.#columns?.names.has(key) !== false) return null;
    const closed = this.#columns.closed.get(key);
    if (closed !== undefined) return `${excerpt(key)}: ${closed.reason}`;
    this.#has ??= hasColumns([...this.#columns.names]);
    return `${excerpt(key)}: no column of ${this.#table}, ${this.#has}`;
  };
}

function hasColumns(names: readonly string[]): string {
  const more = names.length > NAMED ? `, and ${names.length - NAMED} more` : "";
  return `which has ${names.slice(0, NAMED).join(", ")}${more}`;
}

function isPlain({ rawKey }: Member): boolean {
  return !rawKey.includes("\\");
}
