/**
 * An outbox in MySQL (8.0.1 and later) or MariaDB (10.6 and later): those that have `SKIP LOCKED`.
 *
 * READ COMMITTED, since the usual REPEATABLE READ locks the gaps between rows too: the application could write
 * no row while a batch is under way. Answers are taken as the bytes that came. The time when the table was
 * made, which a TRUNCATE changes, tells rows of one id apart.
 */

import { Buffer } from "node:buffer";
import type { BrokerDeps, BrokerHost, OutboxSource } from "../contracts.ts";
import { nodeNet } from "../kernel/builtins.ts";
import { messageOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import {
  ddlHint,
  LARGE_BYTES,
  type Login,
  type OutboxColumn,
  type OutboxDatabase,
  type OutboxRow,
  type OutboxSession,
  type OutboxTable,
  quoted,
  sentenceOf,
  ServerLink,
  serverOutbox,
  ServerSession,
  tableFindings,
  tableProblem,
  thatFit,
} from "./outbox_session.ts";
import { tlsFault } from "./tls.ts";

type Library = typeof import("./outbox_mysql_library.ts");
type Connection = ReturnType<Library["createConnection"]>;
type Row = readonly (Buffer | null)[];

const CONNECT_MS = 10_000;
/** Seconds. A server whose collector has vanished without a word lets go of its rows after this. */
const GONE_S = 120;

export function createMysqlOutbox(address: OutboxSource, deps: BrokerDeps): OutboxDatabase {
  return serverOutbox(address, deps, {
    dial: (host, login) => dial(host, address, login),
    async readOnly(link) {
      const [[only] = []] = await link.ask("SELECT @@global.read_only");
      return textOf(only) === "0"
        ? null
        : `${link.server} is read-only, so nothing can be deleted there`;
    },
    async session(link) {
      const table = await lookAt(link, address);
      const problem = tableProblem(address, table) ?? engineProblem(address, table);
      if (problem !== null) throw new Error(problem);
      return new MysqlSession(link, address, table!);
    },
    look: (link) => inspectTable(link, address),
    said: (error) => said(error, address),
  });
}

// ── A connection.

class Link extends ServerLink {
  readonly #connection: Connection;

  constructor(connection: Connection, server: string) {
    super(server);
    this.#connection = connection;
    connection.on("error", (error: Error) => this.lose(error));
    connection.on("end", () => this.lose(new Error("the server has closed the connection")));
  }

  async open(): Promise<void> {
    const connected = new Promise<void>((resolve, reject) =>
      this.#connection.connect((error) => error === null ? resolve() : reject(error))
    );
    await this.unlessLost(connected);
    await this.change("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    await this.change(
      `SET SESSION sql_mode = '', autocommit = 1, wait_timeout = ${GONE_S}, innodb_lock_wait_timeout = 5`,
    );
  }

  /** Rows as the bytes that came. */
  async ask(sql: string): Promise<readonly Row[]> {
    return await this.#query(sql) as readonly Row[];
  }

  /** How many rows a statement has found and changed. */
  async change(sql: string): Promise<number> {
    return (await this.#query(sql) as { readonly affectedRows: number }).affectedRows;
  }

  #query(sql: string): Promise<unknown> {
    const asked = new Promise((resolve, reject) => {
      const typeCast = (field: { buffer(): Buffer | null }) => field.buffer();
      this.#connection.query(
        { sql, rowsAsArray: true, typeCast },
        (error, answer) => error === null ? resolve(answer) : reject(error),
      );
    });
    return this.unlessLost(asked);
  }

  /** The library says nothing more then, neither to those that have asked. */
  close(): void {
    this.lose(new Error("the connection is closed"));
    this.#connection.destroy();
  }
}

async function dial(
  { host, port }: BrokerHost,
  { user, database }: OutboxSource,
  { password, tls }: Login,
): Promise<Link> {
  const { createConnection } = await import("./outbox_mysql_library.ts");
  const connection = createConnection({
    host,
    port,
    user: user ?? "root",
    password,
    database,
    charset: "utf8mb4",
    connectTimeout: CONNECT_MS,
    multipleStatements: false,
    // It writes functions for each shape of an answer; here none has a shape.
    disableEval: true,
    stream: () => {
      const socket = nodeNet().connect({ host, port, keepAlive: true, noDelay: true });
      // The name that the certificate must be for, where the host is an address: the library does not say it.
      return Object.assign(socket, { _host: host });
    },
    ...(tls === null ? {} : { ssl: { ...tls, verifyIdentity: true, rejectUnauthorized: true } }),
  });
  return new Link(connection, `${host}:${port}`);
}

// ── The rows.

class MysqlSession extends ServerSession<Link> implements OutboxSession {
  readonly #life: string;
  readonly #take: string;
  readonly #read: string;
  readonly #finish: string;
  readonly #count: string;
  readonly #literal: (id: string) => string;

  constructor(link: Link, address: OutboxSource, { columns }: OutboxTable) {
    super(link, (error) => said(error, address));
    this.#life = `SELECT DATE_FORMAT(CREATE_TIME, '%Y%m%d%H%i%s') FROM information_schema.TABLES ${
      whereOf(address)
    }`;
    const name = (column: string) => quoted(column, "`");
    const type = (column: string) => columns.find(({ name }) => name === column)!.type;
    const [outbox, id] = [address.outbox, address.id].map(name);
    const isJson = type(address.payload) === "json";
    const payload = isJson ? `CAST(${name(address.payload)} AS CHAR)` : name(address.payload);
    const named = address.tableColumn === null ? "NULL" : name(address.tableColumn);
    const waits = address.done === null ? "" : `WHERE ${name(address.done)} IS NULL`;
    const idText = isBinary(type(address.id)) ? `HEX(${id})` : `CAST(${id} AS CHAR)`;
    this.#literal = literalOf(type(address.id));
    // Large payloads are read once it is known how many of them fit.
    this.#take = `SELECT ${idText}, LENGTH(${payload}),
  IF(LENGTH(${payload}) <= ${LARGE_BYTES}, ${payload}, NULL), ${named}
FROM ${outbox} ${waits} ORDER BY ${id}`;
    this.#read = `SELECT ${idText}, ${payload} FROM ${outbox} WHERE ${id} IN `;
    this.#finish = address.done === null
      ? `DELETE FROM ${outbox} WHERE ${id} IN `
      : `UPDATE ${outbox} SET ${name(address.done)} = NOW() WHERE ${id} IN `;
    this.#count = `SELECT COUNT(*) FROM (SELECT 1 FROM ${outbox} ${waits}`;
  }

  take(most: number): Promise<readonly OutboxRow[]> {
    return this.worded(async () => {
      await this.link.change("START TRANSACTION");
      const sql = `${this.#take} LIMIT ${Number(most)} FOR UPDATE SKIP LOCKED`;
      const found = (await this.link.ask(sql)).map(([id, length, payload, named]) => ({
        id: textOf(id),
        bytes: Number(textOf(length)),
        payload: payload ?? null,
        table: named == null ? null : textOf(named),
      }));
      if (found.length === 0) {
        await this.link.change("COMMIT");
        return [];
      }
      const [[life] = []] = await this.link.ask(this.#life);
      const rows = thatFit(found);
      const large = rows.filter(({ bytes, payload }) => bytes > 0 && payload === null);
      const read = await this.#payloads(large.map(({ id }) => id));
      return rows.map(({ id, payload, table }) => ({
        id,
        life: textOf(life),
        payload: payload ?? read.get(id) ?? null,
        table,
      }));
    });
  }

  async #payloads(ids: readonly string[]): Promise<ReadonlyMap<string, Buffer | null>> {
    if (ids.length === 0) return new Map();
    const rows = await this.link.ask(this.#read + this.#listed(ids));
    return new Map(rows.map(([id, payload]) => [textOf(id), payload ?? null]));
  }

  finish(rows: readonly OutboxRow[]): Promise<void> {
    return this.worded(async () => {
      const ids = rows.map(({ id }) => id);
      // The limit keeps the server to the index. Without it all of a small table is read, rows that others have
      // included: it waits for these, and two that do so are a deadlock, which costs one of them what it has taken.
      const finish = `${this.#finish}${this.#listed(ids)} LIMIT ${ids.length}`;
      const gone = ids.length === 0 ? 0 : await this.link.change(finish);
      if (gone !== ids.length) {
        throw new Error(`${gone} of ${ids.length} rows left the table: a trigger keeps the others`);
      }
      await this.link.change("COMMIT");
    });
  }

  #listed(ids: readonly string[]): string {
    return `(${ids.map(this.#literal).join(", ")})`;
  }

  count(most: number): Promise<number> {
    return this.worded(async () => {
      const [[count] = []] = await this.link.ask(
        `${this.#count} LIMIT ${Number(most)}) AS waiting`,
      );
      return Number(textOf(count));
    });
  }
}

function textOf(bytes: Buffer | null | undefined): string {
  return bytes == null ? "" : bytes.toString("utf8");
}

function isBinary(type: string): boolean {
  return /binary|blob/.test(type);
}

/**
 * An id in a statement. A number stands there as one: against text it would be compared as a double. Everything
 * else is written in hexadecimal, where no sign has a meaning.
 */
function literalOf(type: string): (id: string) => string {
  if (/int|decimal|numeric/.test(type)) {
    return (id) => {
      if (!/^-?\d+(?:\.\d+)?$/.test(id)) throw new Error(`${id} is no number`);
      return id;
    };
  }
  if (isBinary(type)) return (id) => `X'${id.replace(/[^0-9A-F]/g, "")}'`;
  return (id) => `CONVERT(X'${Buffer.from(id).toString("hex")}' USING utf8mb4)`;
}

// ── What the table is like.

interface Looked extends OutboxTable {
  readonly engine: string;
}

async function lookAt(link: Link, address: OutboxSource): Promise<Looked | null> {
  const { id, done } = address;
  const where = whereOf(address);
  const [about] = await link.ask(`SELECT ENGINE FROM information_schema.TABLES ${where}`);
  if (about === undefined) return null;
  const columns = (await link.ask(
    `SELECT COLUMN_NAME, DATA_TYPE, IS_NULLABLE FROM information_schema.COLUMNS ${where}
     ORDER BY ORDINAL_POSITION`,
  )).map(([name, type, nullable]): OutboxColumn => ({
    name: textOf(name),
    type: textOf(type).toLowerCase(),
    nullable: textOf(nullable) === "YES",
  }));
  const indexes = new Map<string, { unique: boolean; columns: string[] }>();
  for (
    const [index, repeats, column] of await link.ask(
      `SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME FROM information_schema.STATISTICS ${where}
       ORDER BY INDEX_NAME, SEQ_IN_INDEX`,
    )
  ) {
    const { columns } = indexes.get(textOf(index)) ?? { columns: [] };
    const all = [...columns, textOf(column)];
    indexes.set(textOf(index), { unique: textOf(repeats) === "0", columns: all });
  }
  const all = [...indexes.values()];
  return {
    columns,
    unique: all.some(({ unique, columns }) => unique && columns.join() === id),
    // Every index of InnoDB ends in the primary key.
    indexed: all.some(({ columns }) => columns[0] === (done ?? id)),
    engine: textOf(about[0]),
  };
}

/** The table in information_schema. */
function whereOf({ outbox }: OutboxSource): string {
  const [table = "", schema] = outbox.split(".").reverse()
    .map((part) => `'${quoted(part, "`").slice(1, -1)}'`);
  return `WHERE TABLE_SCHEMA = ${schema ?? "DATABASE()"} AND TABLE_NAME = ${table}`;
}

function engineProblem({ outbox }: OutboxSource, table: Looked | null): string | null {
  return table === null || /^InnoDB$/i.test(table.engine)
    ? null
    : `the table ${outbox} is of ${
      table.engine || "no engine: a view"
    }, where nothing can be undone; ALTER TABLE ${outbox} ENGINE = InnoDB`;
}

async function inspectTable(link: Link, address: OutboxSource): Promise<Finding[]> {
  const is = about(`source ${address.name} ${address.label}`);
  const [[version] = []] = await link.ask("SELECT VERSION()");
  const [[, cipher] = []] = await link.ask("SHOW SESSION STATUS LIKE 'Ssl_cipher'");
  const secure = textOf(cipher) === "" ? "without TLS" : "with TLS";
  const name = /mariadb/i.test(textOf(version)) ? "MariaDB" : "MySQL";
  const findings = [is.ok(`${name} ${textOf(version)}, connected ${secure}`)];
  const of = about(`source ${address.name} ${address.outbox}`);
  const table = await lookAt(link, address);
  const problem = tableProblem(address, table) ?? engineProblem(address, table);
  if (problem !== null || table === null) return [...findings, of.wrong(problem ?? "")];
  const denied = await tryOut(link, address);
  if (denied !== null) findings.push(of.wrong(denied, grant(address)));
  return [...findings, ...tableFindings(address, table)];
}

/** The statements of a batch, on no row: whether they may be run. Null: they may. */
async function tryOut(link: Link, address: OutboxSource): Promise<string | null> {
  const table = quoted(address.outbox, "`");
  const done = address.done === null ? null : quoted(address.done, "`");
  try {
    await link.change("START TRANSACTION");
    await link.ask(`SELECT 1 FROM ${table} WHERE 1 = 0 FOR UPDATE SKIP LOCKED`);
    await link.change(
      done === null
        ? `DELETE FROM ${table} WHERE 1 = 0`
        : `UPDATE ${table} SET ${done} = NOW() WHERE 1 = 0`,
    );
    return null;
  } catch (error) {
    return said(error, address).message;
  } finally {
    await link.change("ROLLBACK").catch(() => {});
  }
}

function grant({ done, outbox, user }: OutboxSource): string {
  return `GRANT SELECT, ${done === null ? "DELETE" : "UPDATE"} ON ${outbox} TO ${user ?? "…"}`;
}

// ── Words.

/** Code of the server or the library → what it means here; the server's own sentence for what is not listed. */
function said(error: unknown, address: OutboxSource): Error {
  const text = messageOf(error);
  return sentenceOf(error, (code) => {
    switch (code) {
      case "ER_ACCESS_DENIED_ERROR":
      case "ER_DBACCESS_DENIED_ERROR":
      case "AUTH_SWITCH_PLUGIN_ERROR":
        return `the login is refused: ${text}`;
      case "ER_BAD_DB_ERROR":
        return `there is no database ${address.database}`;
      case "ER_NO_SUCH_TABLE":
        return `there is no table ${address.outbox} in ${address.database}; ${ddlHint(address)}`;
      case "ER_TABLEACCESS_DENIED_ERROR":
      case "ER_COLUMNACCESS_DENIED_ERROR":
        return `${text}: ${grant(address)}`;
      case "ER_PARSE_ERROR":
        return /SKIP/.test(text)
          ? "the server knows no SKIP LOCKED: MySQL 8.0.1 and MariaDB 10.6 are the first that do"
          : null;
      case "ER_BINLOG_STMT_MODE_AND_ROW_ENGINE":
        return "binlog_format=STATEMENT forbids READ COMMITTED: MIXED or ROW is wanted";
      case "ER_OPTION_PREVENTS_STATEMENT":
        return "the server is read-only, so nothing can be deleted there";
      case "HANDSHAKE_NO_SSL_SUPPORT":
        return "the server has no TLS (tls=false asks for none)";
      case "ER_SECURE_TRANSPORT_REQUIRED":
        return "the server refuses logins without TLS: tls=true";
      case "HANDSHAKE_SSL_ERROR": {
        // It stands in place of the code of TLS, of which the text is left.
        if (/altnames|does not match cert/.test(text)) return tlsFault({ code: "ALTNAME_INVALID" });
        const left = text.toUpperCase().replace(/[^A-Z]+/g, "_");
        return tlsFault({ code: left.replace("CERTIFICATE_HAS_EXPIRED", "CERT_HAS_EXPIRED") });
      }
      case "PROTOCOL_CONNECTION_LOST":
        return "the server has closed the connection";
    }
    return null;
  });
}
