/**
 * Which keys the rows of a request have, of those that are the table's columns.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { DecodeQueue } from "../../src/admit/decode.ts";
import type { Columns } from "../../src/contracts.ts";
import { columnsOf } from "../kit/columns.ts";
import { rounds } from "../kit/rounds.ts";
import { decodeRows } from "./kit.ts";

const COLUMNS = ["a", "b", "c", "n.x", "Ünï", 'q"q'];

function keysOf(body: string, columns: readonly string[] | null = COLUMNS): string[] | null {
  const decoded = decodeRows(body, columns);
  if (decoded.kind === "refused") throw new Error(decoded.error);
  return decoded.keys === null ? null : [...decoded.keys].sort();
}

describe("the keys of a request's rows", () => {
  test("of any rows, one request after the other", () => {
    const row = fc.tuple(
      fc.dictionary(fc.constantFrom(...COLUMNS), fc.integer()),
      // As it is, with an escape, so that it is put together anew, and over two lines.
      fc.constantFrom("plain", "escaped", "spread"),
    ).map(([row, how]) => {
      const text = JSON.stringify(row);
      if (how === "plain") return text;
      return how === "escaped" ? text.replace('"a"', '"\\u0061"') : text.replace("{", "{\n");
    });
    fc.assert(
      fc.property(fc.array(row, { minLength: 1 }), (rows) => {
        const body = `[${rows.join(",")}]`;
        const wanted = new Set(rows.flatMap((row) => Object.keys(JSON.parse(row))));
        assert.deepEqual(keysOf(body), [...wanted].sort());
      }),
      { numRuns: rounds(300) },
    );
  });

  test("of tables that take turns, on one scanner, typed or not", () => {
    const tables = [["a", "b"], ["b", "c", "a"], ["c"], ["long_one", "Ünï", "a"]].map((names) =>
      columnsOf(names.map((name) => `${name} Int64`), names.join())
    );
    const values = fc.dictionary(
      fc.constantFrom("a", "b", "c", "long_one", "Ünï"),
      fc.oneof({ weight: 9, arbitrary: fc.integer() }, fc.constant("no number")),
    );
    const request = fc.record({
      table: fc.constantFrom(...tables),
      rows: fc.array(values, { minLength: 1, maxLength: 3 }),
      typeCheck: fc.boolean(),
    });
    const queue = new DecodeQueue(() => Promise.reject(new Error("no CSV")));
    fc.assert(
      fc.property(fc.array(request, { maxLength: 12 }), (requests) => {
        for (const { table, rows, typeCheck } of requests) {
          const good = rows.filter((row) =>
            Object.entries(row).every(([key, value]) =>
              table.names.has(key) && (!typeCheck || typeof value === "number")
            )
          );
          const body = new TextEncoder().encode(rows.map((row) => JSON.stringify(row)).join("\n"));
          const target = { table: "t", shape: "row", columns: table, typeCheck } as const;
          const decoded = queue.decode(body, target, 0);
          assert.ok("kind" in decoded && decoded.kind === "rows");
          assert.equal(decoded.rows, good.length);
          if (good.length < rows.length) continue;
          const wanted = new Set(good.flatMap((row) => Object.keys(row)));
          assert.deepEqual([...decoded.keys!].sort(), [...wanted].sort());
        }
      }),
      { numRuns: 500 },
    );
  });

  test("none are known where no columns are, and none for events", () => {
    assert.equal(keysOf('{"a":1}', null), null);
    assert.deepEqual(keysOf("{}"), []);
  });

  test("of more columns than the scanner has room for", () => {
    const columns = Array.from({ length: 9000 }, (_, at) => `column_${at}`);
    assert.deepEqual(keysOf('{"column_8900":1}\n{"column_3":1}', columns), [
      "column_3",
      "column_8900",
    ]);
    assert.deepEqual(keysOf('{"column_8901":1}', columns), ["column_8901"]);
  });

  test("of more tables than the scanner has room for, each with its own types", () => {
    const columns = (kinds: readonly (keyof typeof KINDS)[], table: number) =>
      columnsOf(kinds.map((kind, at) => `c${at} ${KINDS[kind].type(table)}`), `t${table}`);
    const tables = Array.from({ length: 700 }, (_, table) => {
      const kinds = Array.from({ length: 17 }, (_, at) => NAMES[(table + at * at) % NAMES.length]!);
      return { table, kinds, columns: columns(kinds, table) };
    });
    const queue = new DecodeQueue(() => Promise.reject(new Error("no CSV")));
    const decode = (body: string, columns: Columns | null) => {
      const target = { table: "t", shape: "row", columns } as const;
      const decoded = queue.decode(new TextEncoder().encode(body), target, 0);
      assert.ok("kind" in decoded && decoded.kind === "rows", JSON.stringify(decoded));
      return decoded;
    };
    // Some in turns, then all of them: what was known is forgotten on the way.
    const order = [...tables.slice(0, 5), ...tables.slice(0, 5), ...tables, ...tables.slice(0, 50)];
    for (const { table, kinds, columns } of order) {
      const row = (kind: keyof typeof KINDS, value: string) =>
        `{"c${kinds.indexOf(kind)}":${value}}`;
      for (const kind of new Set(kinds)) {
        const { good, bad } = KINDS[kind];
        const decoded = decode(`${row(kind, good(table))}\n${row(kind, bad(table))}`, columns);
        assert.deepEqual(
          [decoded.rows, decoded.rejected],
          [1, 1],
          `${kind} of table ${table}: ${JSON.stringify(decoded.errors)}`,
        );
        const whole = decode(row(kind, good(table)), columns);
        assert.deepEqual([...whole.keys!], [`c${kinds.indexOf(kind)}`]);
      }
      if (table % 7 === 0) assert.equal(decode(`{"any_${table}":1}`, null).rows, 1);
    }
  });
});

/** Types with parts, which are laid out one behind the other; no two tables have the same. */
const KINDS = {
  int: { type: () => "UInt8", good: () => "255", bad: () => "256" },
  list: { type: () => "Array(UInt8)", good: () => "[1,255]", bad: () => "[1,256]" },
  map: { type: () => "Map(String, UInt8)", good: () => '{"a":1}', bad: () => '{"a":256}' },
  tuple: {
    type: () => "Tuple(UInt8, String)",
    good: () => '[1,"a"]',
    bad: () => '[256,"a"]',
  },
  record: {
    type: (table: number) => `Tuple(a${table} UInt8, b String)`,
    good: (table: number) => `{"a${table}":1,"b":"x"}`,
    bad: (table: number) => `{"a${table}":256,"b":"x"}`,
  },
  word: {
    type: (table: number) => `Enum16('x${table}' = 1, 'y' = 2)`,
    good: (table: number) => `"x${table}"`,
    bad: (table: number) => `"x${table + 1}"`,
  },
} as const;
const NAMES = Object.keys(KINDS) as (keyof typeof KINDS)[];
