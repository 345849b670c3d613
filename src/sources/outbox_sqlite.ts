/**
 * An outbox in a file of SQLite, where the application writes too.
 *
 * A file has one writer at a time, and the application's write fails or waits while another one is open. So
 * nothing is open while rows become safe: they are read without a lock, and deleted (or marked) in a `BEGIN
 * IMMEDIATE` of a few milliseconds. What is locked by the application is tried again, without waiting for it
 * inside SQLite, where all of this process would wait.
 *
 * Without a lock on rows one collector alone may read: the first, which keeps a second file (`app.db-shishi-outbox`)
 * locked; the system frees it, whatever the collector dies of, and the next one goes on.
 */

import { accessSync, constants, statSync } from "node:fs";
import { dirname } from "node:path";
import type { BrokerDeps, Clock, OutboxSource, SqliteFile, SqliteValue } from "../contracts.ts";
import { codeOf, messageOf, reasonOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { sleep } from "../kernel/time.ts";
import {
  ddlHint,
  LARGE_BYTES,
  type OutboxColumn,
  type OutboxDatabase,
  type OutboxRow,
  type OutboxSession,
  type OutboxTable,
  quoted,
  tableFindings,
  tableProblem,
  thatFit,
} from "./outbox_session.ts";

/** What is locked is tried again after this. */
const RETRY_MS = 20;
/**
 * Rows that leave in one go, for which all other work of this thread waits: 0.5 to 1.5 ms with a WAL;
 * without one 20 ms, most of it the syncs of the disk.
 */
const MOST_ROWS = 500;

export function createSqliteOutbox(address: OutboxSource, deps: BrokerDeps): OutboxDatabase {
  return {
    connect: () => connect(address, deps),
    inspect: () => Promise.resolve(inspect(address, deps)),
  };
}

// ── A connection.

// deno-lint-ignore require-await -- whatever is thrown is a rejection
async function connect(address: OutboxSource, deps: BrokerDeps): Promise<OutboxSession> {
  const opened: SqliteFile[] = [];
  try {
    const identity = identityOf(address.database);
    const file = deps.openSqlite(address.database, false);
    opened.push(file);
    const table = lookAt(file, address);
    const problem = tableProblem(address, table) ?? counterProblem(address, table);
    if (problem !== null) throw new Error(problem);
    const lock = deps.openSqlite(lockPath(address), true);
    opened.push(lock);
    keepLocked(lock, address);
    prepare(file);
    return new SqliteSession(file, lock, address, deps.clock, identity);
  } catch (error) {
    for (const file of opened) file.close();
    throw said(error, address);
  }
}

function lockPath({ database, outbox }: OutboxSource): string {
  return `${database}-shishi-${outbox}`;
}

function keepLocked(lock: SqliteFile, { outbox }: OutboxSource): void {
  try {
    lock.run("BEGIN EXCLUSIVE");
  } catch (error) {
    if (codeOf(error) !== "SQLITE_BUSY") throw error;
    throw new Error(
      `another collector reads ${outbox}: one at a time can, and this one goes on when that one ends`,
    );
  }
}

/**
 * A delete that a power cut undoes makes the row come again, and it is known then: so with a WAL no sync is
 * waited for. To write the WAL back into the file is left to the application, which may have it copied first.
 */
function prepare(file: SqliteFile): void {
  if (journalMode(file) !== "wal") return;
  file.run("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0");
}

function journalMode(file: SqliteFile): string {
  return String(file.all("PRAGMA journal_mode")[0]?.[0]);
}

/** Another file under the same name has another one. Throws where there is none. A table made anew is told by `schema_version`. */
function identityOf(path: string): string {
  const { dev, ino, birthtimeMs } = statSync(path);
  return `${dev}-${ino}-${Math.floor(birthtimeMs)}`;
}

// ── The rows.

class SqliteSession implements OutboxSession {
  readonly silence = "the file was locked";
  onNews = () => {};
  readonly lost = new Promise<never>(() => {});
  readonly #file: SqliteFile;
  readonly #lock: SqliteFile;
  readonly #address: OutboxSource;
  readonly #clock: Clock;
  readonly #identity: string;
  readonly #taken = new Map<OutboxRow, SqliteValue>();
  readonly #take: string;
  readonly #read: string;
  readonly #finish: string;
  readonly #still: string;
  readonly #count: string;
  #closed = false;

  constructor(
    file: SqliteFile,
    lock: SqliteFile,
    address: OutboxSource,
    clock: Clock,
    identity: string,
  ) {
    this.#file = file;
    this.#lock = lock;
    this.#address = address;
    this.#clock = clock;
    this.#identity = identity;
    const name = (column: string) => quoted(column, '"');
    const [outbox, id, payload] = [address.outbox, address.id, address.payload].map(name);
    const named = address.tableColumn === null ? "NULL" : name(address.tableColumn);
    const done = address.done === null ? null : name(address.done);
    const waits = done === null ? "" : `WHERE ${done} IS NULL`;
    const bytes = `CAST(${payload} AS BLOB)`;
    // Large payloads are read once it is known how many of them fit.
    this.#take = `SELECT ${id}, length(${bytes}),
  CASE WHEN length(${bytes}) <= ${LARGE_BYTES} THEN ${bytes} END, CAST(${named} AS TEXT)
FROM ${outbox} ${waits} ORDER BY ${id} LIMIT ?`;
    this.#read = `SELECT ${bytes} FROM ${outbox} WHERE ${id} = ?`;
    const now = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    this.#finish = done === null
      ? `DELETE FROM ${outbox} WHERE ${id} = ?`
      : `UPDATE ${outbox} SET ${done} = ${now} WHERE ${id} = ?`;
    this.#still = `SELECT 1 FROM ${outbox} WHERE ${id} = ?` +
      (done === null ? "" : ` AND ${done} IS NULL`);
    this.#count = `SELECT count(*) FROM (SELECT 1 FROM ${outbox} ${waits} LIMIT ?)`;
  }

  take(most: number): Promise<readonly OutboxRow[]> {
    return this.#patiently(() => {
      if (identityOf(this.#address.database) !== this.#identity) {
        throw new Error("the file was replaced by another one");
      }
      this.#taken.clear();
      const [[version] = []] = this.#file.all("PRAGMA schema_version");
      const found = this.#file.all(this.#take, BigInt(Math.min(most, MOST_ROWS)))
        .map(([id = null, bytes, payload = null, named]) => ({
          id,
          bytes: Number(bytes),
          payload: payload as Uint8Array | null,
          named: (named ?? null) as string | null,
        }));
      return thatFit(found).map(({ id, bytes, payload, named }) => {
        const all = bytes > 0 && payload === null ? this.#payload(id) : payload;
        const row = {
          id: textOf(id),
          life: `${this.#identity}-${version}`,
          payload: all,
          table: named,
        };
        this.#taken.set(row, id);
        return row;
      });
    });
  }

  #payload(id: SqliteValue): Uint8Array | null {
    return (this.#file.all(this.#read, id)[0]?.[0] ?? null) as Uint8Array | null;
  }

  finish(rows: readonly OutboxRow[]): Promise<void> {
    if (rows.length === 0) return Promise.resolve();
    const ids = rows.map((row) => this.#taken.get(row) ?? null);
    return this.#patiently(() => {
      this.#file.run("BEGIN IMMEDIATE");
      try {
        const gone = this.#file.each(this.#finish, ids);
        // The application may have deleted some itself.
        if (gone < ids.length) this.#leftBehind(ids);
        this.#file.run("COMMIT");
      } catch (error) {
        this.#file.run("ROLLBACK");
        throw error;
      }
    });
  }

  /** Rows that would come again for ever. */
  #leftBehind(ids: readonly SqliteValue[]): void {
    const still = ids.filter((id) => this.#file.all(this.#still, id).length > 0).length;
    if (still === 0) return;
    throw new Error(`${still} of ${ids.length} rows stay in the table: a trigger keeps them`);
  }

  count(most: number): Promise<number> {
    return this.#patiently(() => Number(this.#file.all(this.#count, BigInt(most))[0]![0]));
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#file.close();
      this.#lock.close();
    }
    return Promise.resolve();
  }

  /** Tries again what is locked; for how long is the caller's affair. */
  async #patiently<T>(work: () => T): Promise<T> {
    for (;;) {
      if (this.#closed) throw new Error("the file is closed");
      try {
        return work();
      } catch (error) {
        if (codeOf(error) !== "SQLITE_BUSY") throw said(error, this.#address);
      }
      await sleep(this.#clock, RETRY_MS);
    }
  }
}

function textOf(id: SqliteValue): string {
  return id instanceof Uint8Array
    ? Array.from(id, (byte) => byte.toString(16).padStart(2, "0")).join("")
    : String(id);
}

// ── What the table is like.

interface Looked extends OutboxTable {
  /** `id` is a number that SQLite gives, and gives again once its row is deleted. */
  readonly reuses: boolean;
}

function lookAt(file: SqliteFile, { outbox, id, done }: OutboxSource): Looked | null {
  const [table, schema] = outbox.split(".").reverse() as [string, string?];
  const of = [table, schema ?? "main"];
  const found = file.all(`SELECT name, type, "notnull", pk FROM pragma_table_info(?, ?)`, ...of);
  if (found.length === 0) return null;
  const keys = found.filter(([, , , pk]) => Number(pk) > 0).map(([name]) => String(name));
  const type = (column: string) => String(found.find(([name]) => name === column)?.[1] ?? "");
  const indexes = file.all(
    `SELECT l.name, l."unique", l.partial, i.name FROM pragma_index_list(?, ?) AS l,
     pragma_index_info(l.name, ?) AS i ORDER BY l.name, i.seqno`,
    ...of,
    of[1]!,
  );
  const names = [...new Set(indexes.map(([name]) => String(name)))].map((name) => {
    const columns = indexes.filter(([index]) => index === name);
    return {
      unique: Number(columns[0]![1]) === 1,
      partial: Number(columns[0]![2]) === 1,
      columns: columns.map(([, , , column]) => String(column)),
    };
  });
  const rowid = keys.join() === id && type(id).toUpperCase() === "INTEGER";
  const [[sql] = []] = file.all(
    `SELECT sql FROM ${quoted(of[1]!, '"')}.sqlite_master WHERE name = ?`,
    table,
  );
  return {
    columns: found.map(([name, type, notNull]): OutboxColumn => ({
      name: String(name),
      type: String(type).toLowerCase(),
      nullable: Number(notNull) === 0,
    })),
    unique: keys.join() === id ||
      names.some(({ unique, partial, columns }) => unique && !partial && columns.join() === id),
    indexed: done === null
      ? rowid || keys[0] === id || names.some(({ columns }) => columns[0] === id)
      : names.some(({ partial, columns }) => columns[0] === done || partial && columns[0] === id),
    reuses: rowid && !/\bAUTOINCREMENT\b/i.test(String(sql)),
  };
}

function counterProblem({ outbox, id }: OutboxSource, table: Looked | null): string | null {
  return table?.reuses
    ? `SQLite gives the ${id} of a deleted row of ${outbox} to the next one, which would be taken for the ` +
      `same row; make it INTEGER PRIMARY KEY AUTOINCREMENT`
    : null;
}

function inspect(address: OutboxSource, deps: BrokerDeps): Finding[] {
  const is = about(`source ${address.name} ${address.label}`);
  const of = about(`source ${address.name} ${address.outbox}`);
  let file: SqliteFile | null = null;
  try {
    statSync(address.database);
    file = deps.openSqlite(address.database, false);
    const mode = journalMode(file);
    const [[version] = []] = file.all("SELECT sqlite_version()");
    const findings = [
      mode === "wal" ? is.ok(`SQLite ${version}, journal_mode ${mode}`) : is.warning(
        `SQLite ${version}, journal_mode ${mode}: the application and the collector wait for each other`,
        "PRAGMA journal_mode = WAL",
      ),
    ];
    const table = lookAt(file, address);
    const problem = tableProblem(address, table) ?? counterProblem(address, table);
    if (problem !== null || table === null) return [...findings, of.wrong(problem ?? "")];
    const denied = tryOut(file, address);
    if (denied !== null) findings.push(of.wrong(denied));
    return [...findings, ...tableFindings(address, table)];
  } catch (error) {
    return [
      is.wrong(said(error, address).message, "correct the path, or the rights of its folder"),
    ];
  } finally {
    file?.close();
  }
}

/** Why rows cannot be deleted; null: they can, or the file is locked at this moment. */
function tryOut(file: SqliteFile, address: OutboxSource): string | null {
  try {
    // SQLite and the lock of the first collector make files beside this one.
    accessSync(dirname(address.database), constants.W_OK);
    file.run("BEGIN IMMEDIATE");
    file.run(`DELETE FROM ${quoted(address.outbox, '"')} WHERE 0; ROLLBACK`);
    return null;
  } catch (error) {
    return codeOf(error) === "SQLITE_BUSY" ? null : said(error, address).message;
  }
}

// ── Words.

function said(error: unknown, address: OutboxSource): Error {
  const text = messageOf(error);
  const code = codeOf(error);
  const words = code === "ENOENT"
    ? `there is no file ${address.database}`
    : /unable to open/.test(text)
    ? `${address.database} cannot be opened: the file and its folder must be writable (SQLite makes files beside it)`
    : /readonly|EACCES|permission denied/i.test(`${text} ${code}`)
    ? `${address.database} or its folder cannot be written, so nothing can be deleted there`
    : /not a database|malformed/.test(text)
    ? `${address.database}: ${text}`
    : /no such table/.test(text)
    ? `there is no table ${address.outbox} in ${address.database}; ${ddlHint(address)}`
    : null;
  return words === null
    ? new Error(reasonOf(error), { cause: error })
    : new Error(words, { cause: error });
}
