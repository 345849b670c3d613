/**
 * SQLite, which both runtimes bring along, each with an interface of its own; as `SqliteFile` of the contracts
 * wants it. Every call runs to its end on this thread: statements have to be small.
 */

import { existsSync } from "node:fs";
import process from "node:process";
import type { SqliteFile, SqliteValue } from "../contracts.ts";
import { messageOf } from "../kernel/errors.ts";
import { bun } from "./host.ts";

interface BunStatement {
  values(...values: readonly SqliteValue[]): SqliteValue[][];
  run(...values: readonly SqliteValue[]): { readonly changes: number };
  finalize(): void;
}
interface BunSqlite {
  Database: new (path: string, options: unknown) => {
    exec(sql: string): void;
    prepare(sql: string): BunStatement;
    close(): void;
  };
}

interface NodeStatement {
  setReadBigInts(on: boolean): void;
  setReturnArrays(on: boolean): void;
  all(...values: readonly SqliteValue[]): SqliteValue[][];
  run(...values: readonly SqliteValue[]): { readonly changes: number | bigint };
}
interface NodeSqlite {
  DatabaseSync: new (path: string, options: unknown) => {
    exec(sql: string): void;
    prepare(sql: string): NodeStatement;
    close(): void;
  };
}

/** Throws an error whose `code` is `SQLITE_BUSY`, `SQLITE_CANTOPEN` or that of the runtime. */
export function openSqlite(path: string, create: boolean): SqliteFile {
  if (!create && !existsSync(path)) {
    throw Object.assign(new Error("there is no such file"), { code: "SQLITE_CANTOPEN" });
  }
  const file = coded(() => bun ? openInBun(path, create) : openInNode(path));
  return {
    all: (sql, ...values) => coded(() => file.all(sql, ...values)),
    each: (sql, values) => coded(() => file.each(sql, values)),
    run: (sql) => coded(() => file.run(sql)),
    close: () => file.close(),
  };
}

function openInBun(path: string, create: boolean): SqliteFile {
  const { Database } = builtin<BunSqlite>("bun:sqlite");
  const database = new Database(path, { readwrite: true, create, safeIntegers: true });
  database.exec("PRAGMA busy_timeout = 0");
  return {
    all(sql, ...values) {
      const statement = database.prepare(sql);
      try {
        return statement.values(...values);
      } finally {
        statement.finalize();
      }
    },
    each(sql, values) {
      const statement = database.prepare(sql);
      try {
        return values.reduce<number>((sum, value) => sum + statement.run(value).changes, 0);
      } finally {
        statement.finalize();
      }
    },
    run: (sql) => database.exec(sql),
    close: () => database.close(),
  };
}

function openInNode(path: string): SqliteFile {
  const { DatabaseSync } = builtin<NodeSqlite>("node:sqlite");
  const database = new DatabaseSync(path, { timeout: 0 });
  return {
    all(sql, ...values) {
      const statement = database.prepare(sql);
      statement.setReadBigInts(true);
      statement.setReturnArrays(true);
      return statement.all(...values);
    },
    each(sql, values) {
      const statement = database.prepare(sql);
      return values.reduce<number>((sum, value) => sum + Number(statement.run(value).changes), 0);
    },
    run: (sql) => database.exec(sql),
    close: () => database.close(),
  };
}

function builtin<T>(name: string): T {
  return process.getBuiltinModule(name) as T;
}

/** The runtimes do not agree on codes. */
function coded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    const busy = /database (?:table |schema )?is locked/.test(messageOf(error));
    throw busy ? Object.assign(new Error(messageOf(error)), { code: "SQLITE_BUSY" }) : error;
  }
}
