/** Columns as ClickHouse would tell them, for those who only care about names. */

import type { Column, Columns } from "../../src/contracts.ts";

/** @param columns names, or names with types: `"u UInt8"`. */
export function columnsOf(columns: readonly string[], fingerprint = "f"): Columns {
  const typed = columns.flatMap((column): Column[] => {
    const [, name = column, type] = /^(\S+) (.+)$/.exec(column) ?? [];
    return type === undefined ? [] : [{ name, type, defaultKind: "" }];
  });
  const names = new Set(columns.map((column) => column.replace(/ .*$/, "")));
  return { names, columns: typed, fingerprint, closed: new Map(), takesNone: null };
}
