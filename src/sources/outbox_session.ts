/**
 * What an outbox asks of a database, and what the three databases have in common: names that are checked
 * before they stand in SQL, what is wrong with a table, and the words for it.
 */

import type { BrokerDeps, BrokerHost, OutboxSource } from "../contracts.ts";
import { codeOf, messageOf, plainNetworkError, reasonOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { Ending } from "../kernel/time.ts";
import { secretText, tlsFault, tlsOptions } from "./tls.ts";

/** A row that was taken. */
export interface OutboxRow {
  /** As text, with every digit. */
  readonly id: string;
  /** Tells it from a row that has the same id because the table, or its counter, was made anew. */
  readonly life: string;
  readonly payload: Uint8Array | null;
  /** Null: the row names none. */
  readonly table: string | null;
}

/** A connection to a database. One call at a time; after a rejection nothing but `close`. */
export interface OutboxSession {
  /** The oldest rows that no other collector has; they are this session's until `finish` or `close`. */
  take(most: number): Promise<readonly OutboxRow[]>;
  /** Of what was taken, these are deleted or marked; all others are anybody's again. */
  finish(rows: readonly OutboxRow[]): Promise<void>;
  /** Rows that wait, taken or not; no more than `most` are counted. */
  count(most: number): Promise<number>;
  /** Called when there may be new rows, where the database tells. */
  onNews: () => void;
  /** Rejects when the connection is over. */
  readonly lost: Promise<never>;
  /** What it means that a call does not end. */
  readonly silence: string;
  /** Lets go what is taken. Resolves at once or soon; never rejects. */
  close(): Promise<void>;
}

export interface OutboxDatabase {
  /** Rejects with a sentence. */
  connect(signal: AbortSignal): Promise<OutboxSession>;
  /** Never rejects. */
  inspect(): Promise<readonly Finding[]>;
}

/** One table of a database, as far as an outbox looks at it. */
export interface OutboxTable {
  readonly columns: readonly OutboxColumn[];
  /** Whether no two rows can have the same `id`. */
  readonly unique: boolean;
  /** Whether rows are found in the order of `id` without all of them being read; with `done`, those that wait. */
  readonly indexed: boolean;
}

export interface OutboxColumn {
  readonly name: string;
  /** In the database's words: `bigint`, `jsonb`, `varchar`. */
  readonly type: string;
  readonly nullable: boolean;
}

// ── Databases that are servers: PostgreSQL and MySQL.

/** One connection to one server. */
export abstract class ServerLink {
  readonly #gone = Promise.withResolvers<never>();
  /** As `lost`, for questions: it keeps no answers. */
  readonly #ending = new Ending();
  /** Called when there may be new rows, where the database tells. */
  onNews = () => {};

  /** @param server for people. */
  constructor(readonly server: string) {
    this.#gone.promise.catch((error) => this.#ending.end(error));
  }

  /** Rejects when the connection is over. */
  get lost(): Promise<never> {
    return this.#gone.promise;
  }

  /** Logs in; rejects when that fails. */
  abstract open(): Promise<void>;
  /** At once. The server lets go of what is taken when it finds the connection gone. */
  abstract close(): void;

  protected lose(error: Error): void {
    this.#gone.reject(error);
  }

  protected unlessLost<T>(asked: Promise<T>): Promise<T> {
    return this.#ending.race(asked);
  }
}

/** With what a server is logged in at. */
export interface Login {
  readonly password: string;
  /** Options of `node:tls`; null: without TLS. */
  readonly tls: object | null;
}

/** What a database that is a server has of its own. */
export interface ServerKind<L extends ServerLink> {
  /** A connection that is not open yet. */
  dial(host: BrokerHost, login: Login): Promise<L>;
  /** Why nothing can be deleted on a server; null: something can. */
  readOnly(link: L): Promise<string | null>;
  /** Rejects where the table cannot be an outbox. */
  session(link: L): Promise<OutboxSession>;
  /** For `shishi check`. */
  look(link: L): Promise<Finding[]>;
  /** What went wrong, as a sentence. */
  said(error: unknown): Error;
}

/** For a look from the first byte to the last. */
const INSPECT_MS = 10_000;

export function serverOutbox<L extends ServerLink>(
  address: OutboxSource,
  deps: BrokerDeps,
  kind: ServerKind<L>,
): OutboxDatabase {
  return {
    async connect(signal) {
      const link = await firstWriter(address, deps, kind, signal);
      try {
        return await unlessAborted(signal, link, () => kind.session(link));
      } catch (error) {
        link.close();
        throw kind.said(error);
      }
    },

    async inspect() {
      const is = about(`source ${address.name} ${address.label}`);
      const signal = AbortSignal.timeout(INSPECT_MS);
      let link: L;
      try {
        link = await firstWriter(address, deps, kind, signal);
      } catch (error) {
        return [is.wrong(messageOf(error), connectTodo(messageOf(error)))];
      }
      try {
        return await unlessAborted(signal, link, () => kind.look(link));
      } catch (error) {
        return [is.wrong(kind.said(error).message)];
      } finally {
        link.close();
      }
    },
  };
}

/** A connection to the first server that takes writes. Rejects with a sentence. */
async function firstWriter<L extends ServerLink>(
  address: OutboxSource,
  deps: BrokerDeps,
  kind: ServerKind<L>,
  signal: AbortSignal,
): Promise<L> {
  const tls = address.tls ? await tlsOptions(address, deps) : null;
  const password = await secretText(address.password, deps);
  let problem: unknown = new Error("there is no server");
  for (const host of address.hosts) {
    signal.throwIfAborted();
    const link = await kind.dial(host, { password, tls });
    try {
      const why = await unlessAborted(signal, link, async () => {
        await link.open();
        return await kind.readOnly(link);
      });
      if (why === null) return link;
      problem = new Error(why);
    } catch (error) {
      problem = error;
    }
    link.close();
  }
  throw kind.said(problem);
}

/** What sessions over a link have in common. */
export abstract class ServerSession<L extends ServerLink> {
  readonly silence = "no answer";

  constructor(protected readonly link: L, readonly said: (error: unknown) => Error) {}

  get lost(): Promise<never> {
    return this.link.lost.catch((error) => Promise.reject(this.said(error)));
  }

  set onNews(onNews: () => void) {
    this.link.onNews = onNews;
  }

  close(): Promise<void> {
    this.link.close();
    return Promise.resolve();
  }

  /** A failure of the work is a sentence. */
  protected async worded<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.said(error);
    }
  }
}

/** What may be done where no connection comes about. @param why the sentence of the failure. */
function connectTodo(why: string): string {
  if (/^the login is refused/.test(why)) return "correct user and password, or password-file=";
  if (/^there is no database/.test(why)) return "correct the path of the URL, or create it";
  if (/certificate/.test(why)) return "correct ca=, cert= and key=";
  return "start it, or correct the URL of the source";
}

/** A row larger than this is not read together with others. */
export const LARGE_BYTES = 4096;
/** Large rows are read together up to this. */
export const BATCH_BYTES = 8 * 1024 * 1024;

/**
 * Of rows whose payload was not read yet, those that are read next: the first, and as many as fit.
 * @param rows with the length of each payload, bytes.
 */
export function thatFit<R extends { readonly bytes: number }>(rows: readonly R[]): readonly R[] {
  let bytes = 0;
  const end = rows.findIndex((row) => (bytes += row.bytes) > BATCH_BYTES);
  return end < 0 ? rows : rows.slice(0, Math.max(end, 1));
}

/**
 * A name for a statement, in quotes: `schema.name` is two. Its signs were checked when the setting was read, and
 * are checked again here, where a slip would be an injection.
 */
export function quoted(name: string, quote: '"' | "`"): string {
  return name.split(".").map((part) => {
    if (!/^[A-Za-z_][A-Za-z0-9_]{0,63}$/.test(part)) throw new Error(`${part} is no name`);
    return `${quote}${part}${quote}`;
  }).join(".");
}

/** The channel of Postgres on which the trigger of `shishi outbox ddl` tells of new rows. */
export function channelOf(outbox: string): string {
  return `shishi_${outbox.split(".").at(-1)}`.slice(0, 63);
}

const KINDS = { postgres: "PostgreSQL", mysql: "MySQL or MariaDB", sqlite: "SQLite" };

/** Where a table can be had from. */
export function ddlHint({ kind, outbox, id, payload, tableColumn, done }: OutboxSource): string {
  const flags = [
    ...(outbox === "outbox" ? [] : [`--outbox=${outbox}`]),
    ...(id === "id" ? [] : [`--id=${id}`]),
    ...(payload === "payload" ? [] : [`--payload=${payload}`]),
    ...(tableColumn === null ? [] : [`--table-column=${tableColumn}`]),
    ...(done === null ? [] : [`--done=${done}`]),
  ];
  return ["shishi outbox ddl", kind, ...flags].join(" ") + " prints one";
}

/** The columns that a source reads or writes, with what for. */
function wantedColumns({ id, payload, tableColumn, done }: OutboxSource): [string, string][] {
  return [
    [id, "id="],
    [payload, "payload="],
    ...(tableColumn === null ? [] : [[tableColumn, "table-column="] as [string, string]]),
    ...(done === null ? [] : [[done, "done="] as [string, string]]),
  ];
}

/** Why a table cannot be an outbox, as a sentence; null: it can. Rows would be lost, or never leave. */
export function tableProblem(address: OutboxSource, table: OutboxTable | null): string | null {
  const { outbox, id, done, database, kind } = address;
  if (table === null) {
    return `there is no table ${outbox} in ${database}${
      kind === "postgres" ? " that this user can see" : ""
    }; ${ddlHint(address)}`;
  }
  const names = table.columns.map(({ name }) => name);
  for (const [name, parameter] of wantedColumns(address)) {
    if (names.includes(name)) continue;
    const other = names.find((known) => known.toLowerCase() === name.toLowerCase());
    return `the table ${outbox} has no column ${name} (${parameter})` +
      (other === undefined ? `, only ${names.join(", ")}` : `, but ${other}`);
  }
  if (!table.unique) {
    return `two rows of ${outbox} may have the same ${id}, so one that was not read could be deleted ` +
      "with another; make it the primary key";
  }
  const mark = table.columns.find(({ name }) => name === done);
  if (mark !== undefined && !(mark.nullable && takesTime(mark.type))) {
    return `the column ${outbox}.${done} is ${mark.type}${mark.nullable ? "" : " not null"}; ` +
      "done= wants one that is null until it gets the time (timestamp, datetime or text)";
  }
  return null;
}

/** In SQLite a column without a type, or of any, takes text. */
function takesTime(type: string): boolean {
  return type === "" || /time|date|text|char|clob/i.test(type);
}

/** What a table is like that can be an outbox, and what will hurt later. */
export function tableFindings(address: OutboxSource, table: OutboxTable): Finding[] {
  const is = about(`source ${address.name} ${address.outbox}`);
  const wanted = wantedColumns(address).map(([name]) => name);
  const columns = table.columns.filter(({ name }) => wanted.includes(name));
  const shown = columns.map(({ name, type }) => `${name} ${type}`.trim()).join(", ");
  const findings = [is.ok(`${KINDS[address.kind]}: ${shown}`)];
  if (!table.indexed) {
    const where = address.done === null ? "" : ` WHERE ${address.done} IS NULL`;
    findings.push(is.warning(
      address.done === null
        ? `no index has ${address.id} in front: every look for rows sorts the whole table`
        : `no index leads to the rows whose ${address.done} is null: every look for rows reads all of them`,
      address.kind === "mysql"
        ? `CREATE INDEX … ON ${address.outbox} (${
          [...(address.done === null ? [] : [address.done]), address.id].join(", ")
        })`
        : `CREATE INDEX ON ${address.outbox} (${address.id})${where}`,
    ));
  }
  return findings;
}

/** Work on a connection, which is closed when `signal` is aborted meanwhile: then the work has to reject. */
async function unlessAborted<T>(
  signal: AbortSignal,
  link: { close(): void },
  work: () => Promise<T>,
): Promise<T> {
  const close = () => link.close();
  signal.throwIfAborted();
  signal.addEventListener("abort", close, { once: true });
  try {
    return await work();
  } finally {
    signal.removeEventListener("abort", close);
  }
}

/** What went wrong, as a sentence; `said` has the words for what the database answered. */
export function sentenceOf(error: unknown, said: (code: string) => string | null): Error {
  const known = said(codeOf(error)) ?? tlsFault(error);
  return known !== null
    ? new Error(known, { cause: error })
    : new Error(reasonOf(plainNetworkError(error)), { cause: error });
}
