/**
 * An outbox in PostgreSQL. `FOR UPDATE SKIP LOCKED` shares it between collectors; a trigger that notifies, where
 * there is one, makes new rows known at once.
 *
 * Everything is asked for as text, so that no digit passes through a number of this language. `xmin`, the
 * transaction that wrote a row, tells rows of one id apart after a TRUNCATE … RESTART IDENTITY or a restore.
 */

import { Buffer } from "node:buffer";
import type { BrokerDeps, BrokerHost, OutboxSource } from "../contracts.ts";
import { messageOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import {
  BATCH_BYTES,
  channelOf,
  ddlHint,
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
} from "./outbox_session.ts";

/** What is used of a `Client` of the library, which has no types. */
interface Client {
  connect(): Promise<void>;
  query(
    query: {
      readonly text: string;
      readonly values?: readonly unknown[];
      readonly rowMode: "array";
    },
  ): Promise<{ readonly rows: (string | null)[][]; readonly rowCount: number | null }>;
  on(event: "error" | "notification", listener: (error: Error) => void): void;
  once(event: "end", listener: () => void): void;
  readonly connection: { readonly stream: { destroy(): void } };
}
type Row = readonly (string | null)[];

const CONNECT_MS = 10_000;
/** A server whose collector has vanished without a word lets go of its rows after this. */
const GONE_MS = 120_000;

export function createPostgresOutbox(address: OutboxSource, deps: BrokerDeps): OutboxDatabase {
  return serverOutbox(address, deps, {
    dial: (host, login) => dial(host, address, login),
    async readOnly(link) {
      const [[standby] = []] = await link.ask("SELECT pg_is_in_recovery()::text");
      return standby === "false"
        ? null
        : `${link.server} is a standby, where nothing can be deleted`;
    },
    async session(link) {
      await link.ask(`LISTEN "${channelOf(address.outbox)}"`);
      const table = await lookAt(link, address);
      const problem = tableProblem(address, table);
      if (problem !== null) throw new Error(problem);
      return new PostgresSession(link, address, table!);
    },
    look: (link) => inspectTable(link, address),
    said: (error) => said(error, address),
  });
}

// ── A connection.

class Link extends ServerLink {
  readonly #client: Client;

  constructor(client: Client, server: string) {
    super(server);
    this.#client = client;
    client.on("error", (error) => this.lose(error));
    client.on("notification", () => this.onNews());
    client.once("end", () => this.lose(new Error("the server has closed the connection")));
  }

  open(): Promise<void> {
    return this.#client.connect();
  }

  async ask(text: string, ...values: readonly unknown[]): Promise<readonly Row[]> {
    return (await this.#query(text, values)).rows;
  }

  /** How many rows a statement has changed. */
  async change(text: string, ...values: readonly unknown[]): Promise<number> {
    return (await this.#query(text, values)).rowCount ?? 0;
  }

  /** Of several statements without values there is an answer for each; none is needed here. */
  async #query(text: string, values: readonly unknown[]) {
    const query = { text, rowMode: "array", ...(values.length === 0 ? {} : { values }) } as const;
    return await this.unlessLost(this.#client.query(query));
  }

  close(): void {
    this.#client.connection.stream.destroy();
  }
}

async function dial(
  { host, port }: BrokerHost,
  { user, database }: OutboxSource,
  { password, tls }: Login,
): Promise<Link> {
  const { PgClient } = await import("./outbox_postgres_library.ts");
  // All of it is given: what is not, the library takes from variables of the environment.
  const client: Client = new PgClient({
    host,
    port,
    user: user ?? "postgres",
    password: () => Promise.resolve(password),
    database,
    ssl: tls ?? false,
    sslnegotiation: "postgres",
    application_name: "shishi",
    client_encoding: "UTF8",
    keepAlive: true,
    connectionTimeoutMillis: CONNECT_MS,
  });
  return new Link(client, `${host}:${port}`);
}

// ── The rows.

class PostgresSession extends ServerSession<Link> implements OutboxSession {
  readonly #take: string;
  readonly #finish: string;
  readonly #count: string;
  readonly #binary: boolean;

  constructor(link: Link, address: OutboxSource, { columns }: OutboxTable) {
    super(link, (error) => said(error, address));
    const name = (column: string) => quoted(column, '"');
    const [outbox, id, payload] = [address.outbox, address.id, address.payload].map(name);
    const named = address.tableColumn === null ? "NULL" : name(address.tableColumn);
    const waits = address.done === null ? "" : `WHERE ${name(address.done)} IS NULL`;
    const type = (column: string) => columns.find(({ name }) => name === column)!.type;
    this.#binary = type(address.payload) === "bytea";
    // The rows that do not fit stay locked with the others until COMMIT, and are the next ones.
    this.#take = `WITH taken AS (
  SELECT ${id} AS id, xmin::text AS life, ${payload}::text AS payload, ${named}::text AS named
  FROM ${outbox} ${waits} ORDER BY ${id} LIMIT $1 FOR UPDATE SKIP LOCKED
), sized AS (
  SELECT *, row_number() OVER byid AS place, sum(octet_length(payload)) OVER byid AS bytes
  FROM taken WINDOW byid AS (ORDER BY id ROWS UNBOUNDED PRECEDING)
)
SELECT id::text, life, payload, named FROM sized
WHERE place = 1 OR coalesce(bytes, 0) <= ${BATCH_BYTES} ORDER BY place`;
    const these = `WHERE ${id} = ANY($1::text[]::${type(address.id)}[])`;
    this.#finish = address.done === null
      ? `DELETE FROM ${outbox} ${these}`
      : `UPDATE ${outbox} SET ${name(address.done)} = now() ${these}`;
    this.#count =
      `SELECT count(*)::text FROM (SELECT 1 FROM ${outbox} ${waits} LIMIT $1) AS waiting`;
  }

  take(most: number): Promise<readonly OutboxRow[]> {
    return this.worded(async () => {
      await this.link.ask(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; " +
          `SET LOCAL idle_in_transaction_session_timeout = ${GONE_MS}`,
      );
      const rows = await this.link.ask(this.#take, most);
      if (rows.length === 0) await this.link.ask("COMMIT");
      return rows.map(([id, life, payload, named]) => ({
        id: id ?? "",
        life: life ?? "",
        payload: payload == null ? null : this.#bytes(payload),
        table: named ?? null,
      }));
    });
  }

  finish(rows: readonly OutboxRow[]): Promise<void> {
    return this.worded(async () => {
      const ids = rows.map(({ id }) => id);
      const gone = ids.length === 0 ? 0 : await this.link.change(this.#finish, ids);
      if (gone !== ids.length) throw new Error(leftBehind(gone, ids.length));
      await this.link.ask("COMMIT");
    });
  }

  count(most: number): Promise<number> {
    return this.worded(async () => Number((await this.link.ask(this.#count, most))[0]![0]));
  }

  /** `\xff00` of a bytea, in Postgres' own words. */
  #bytes(text: string): Uint8Array {
    return this.#binary ? Buffer.from(text.slice(2), "hex") : Buffer.from(text);
  }
}

/** Rows that would come again for ever. */
function leftBehind(gone: number, wanted: number): string {
  return `${gone} of ${wanted} rows left the table: a trigger, a rule or row security keeps the others`;
}

// ── What the table is like.

/** Rights: SELECT, UPDATE (for the lock), DELETE. */
interface Looked extends OutboxTable {
  readonly rights: readonly string[];
}

const COLUMNS = `SELECT a.attname, format_type(a.atttypid, NULL), (NOT a.attnotnull)::text
FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum`;

/** Of each index: unique, whole, its columns by name. A partitioned table's keys have more columns than the id. */
const INDEXES = `SELECT i.indisunique::text, pg_get_expr(i.indpred, i.indrelid), c.relkind::text,
  (SELECT string_agg(coalesce(a.attname, ''), ',' ORDER BY k.place)
    FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE k.place <= i.indnkeyatts)
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE i.indrelid = to_regclass($1) AND i.indisvalid`;

const RIGHTS =
  `SELECT has_table_privilege($1, 'SELECT')::text, has_table_privilege($1, 'UPDATE')::text,
  has_table_privilege($1, 'DELETE')::text`;

async function lookAt(link: Link, address: OutboxSource): Promise<Looked | null> {
  const { id, done } = address;
  const table = quoted(address.outbox, '"');
  const columns = (await link.ask(COLUMNS, table)).map(([name, type, nullable]): OutboxColumn => ({
    name: name ?? "",
    type: type ?? "",
    nullable: nullable === "true",
  }));
  if (columns.length === 0) return null;
  const indexes = (await link.ask(INDEXES, table)).map(([unique, where, kind, names]) => ({
    unique: unique === "true",
    where: where ?? "",
    parted: kind === "p",
    columns: (names ?? "").split(","),
  }));
  const [rights = []] = await link.ask(RIGHTS, table);
  return {
    columns,
    unique: indexes.some(({ unique, where, parted, columns }) =>
      unique && where === "" && columns.includes(id) && (columns.length === 1 || parted)
    ),
    indexed: indexes.some(({ where, columns }) =>
      columns[0] === id && (done === null || where.includes(`${done} IS NULL`)) ||
      done !== null && columns[0] === done && columns[1] === id
    ),
    rights: ["SELECT", "UPDATE", "DELETE"].filter((_, at) => rights[at] === "true"),
  };
}

async function inspectTable(link: Link, address: OutboxSource): Promise<Finding[]> {
  const is = about(`source ${address.name} ${address.label}`);
  const [[version = "", secure = ""] = []] = await link.ask(
    `SELECT current_setting('server_version'),
        (SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid())`,
  );
  const findings = [is.ok(
    `PostgreSQL ${version}, connected ${secure === "true" ? "with TLS" : "without TLS"}`,
  )];
  const table = await lookAt(link, address);
  const problem = tableProblem(address, table);
  if (problem !== null || table === null) {
    return [...findings, about(`source ${address.name} ${address.outbox}`).wrong(problem ?? "")];
  }
  return [...findings, ...rightsFindings(address, table), ...tableFindings(address, table)];
}

function rightsFindings(address: OutboxSource, { rights }: Looked): Finding[] {
  const wanted = neededRights(address);
  const missing = wanted.filter((right) => !rights.includes(right));
  if (missing.length === 0) return [];
  return [
    about(`source ${address.name} ${address.outbox}`).wrong(
      `the right to ${missing.join(" and ")} is missing`,
      grant(address),
    ),
  ];
}

/** Rows are locked with the right to change them. */
function neededRights({ done }: OutboxSource): string[] {
  return ["SELECT", "UPDATE", ...(done === null ? ["DELETE"] : [])];
}

function grant(address: OutboxSource): string {
  return `GRANT ${neededRights(address).join(", ")} ON ${address.outbox} TO ${address.user ?? "…"}`;
}

// ── Words.

/** SQLSTATE → what it means here; the server's own sentence for what is not listed. */
function said(error: unknown, address: OutboxSource): Error {
  const text = messageOf(error);
  return sentenceOf(error, (code) => {
    switch (code) {
      case "28P01":
        return `the login is refused: ${text}`;
      case "28000":
        return /no encryption/.test(text)
          ? `the server refuses logins without TLS: tls=true (${text})`
          : `the login is refused: ${text}`;
      case "3D000":
        return `there is no database ${address.database}`;
      case "42P01":
        return `there is no table ${address.outbox} in ${address.database}; ${ddlHint(address)}`;
      case "42501":
        return `${text}: ${grant(address)}`;
      case "42703":
        return `${text}; the table has changed`;
      case "25006":
        return "the server takes no writes, so nothing can be deleted there";
      case "57P01":
        return "the server has ended the connection";
    }
    if (/password must be a/.test(text)) return "the login is refused: the server wants a password";
    if (/does not support SSL/.test(text)) return "the server has no TLS (tls=false asks for none)";
    return /timeout expired/.test(text) ? `no answer within ${CONNECT_MS / 1000} s` : null;
  });
}
