/**
 * Outboxes for tests: each of the three databases with its tables, written by a client of the tests' own, as an
 * application would.
 */

import { mkdirSync, readFileSync, renameSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createConnection } from "mysql2";
import PgClient from "pg/lib/client.js";
import type { BrokerDeps, OutboxSource, SqliteFile } from "../../src/contracts.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { openSqlite } from "../../src/runtime/sqlite.ts";
import { openOutbox, type OutboxLimits } from "../../src/sources/outbox.ts";
import { ddlOf } from "../../src/sources/outbox_ddl.ts";
import { ADMIN, startMariadb, startPostgres } from "../kit/servers.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { settingsOf } from "../settings/kit.ts";
import type { Place, SourceHarness } from "./suite.ts";

/** A silence is noticed sooner than in life. */
export const QUICK: OutboxLimits = { silentMs: 2_000, lookMs: 300, holdMs: 90_000 };

export function outboxDeps(more: Partial<BrokerDeps> = {}): BrokerDeps {
  return {
    clock: systemClock,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    member: "g.a",
    readFile: (path) => readFile(path, "utf8"),
    authorities: () => [],
    openSocket: () => {
      throw new Error("no socket");
    },
    openSqlite,
    ...more,
  };
}

/** The address of a URL, as the settings read it. */
export function outboxAddress(url: string): OutboxSource {
  const paths = [...url.matchAll(/[?&](?:ca|password-file)=([^&]+)/g)].map(([, path]) => path!);
  const files = Object.fromEntries(paths.map((path) => [path, readFileSync(path, "utf8")]));
  const [address] = settingsOf({ argv: [`--source=${url}`], files }).sources;
  if (address?.broker !== "outbox") throw new Error(`${url} is no outbox`);
  return address;
}

/** One database. */
export interface TestDatabase {
  /** Of a source that reads this table. @param more `&done=…`. */
  url(table: string, more?: string): string;
  /** Runs statements on a connection of its own; rows as text. */
  sql(...statements: readonly string[]): Promise<readonly (readonly (string | null)[])[]>;
  /** Begins a transaction on a connection of its own. */
  begin(): Promise<Writer>;
  /** Bytes as a literal. */
  bytes(of: Uint8Array): string;
  readonly server: SourceHarness["server"];
  close(): Promise<void>;
}

/** A transaction that is open. */
export interface Writer {
  sql(statement: string): Promise<void>;
  /** `COMMIT` or `ROLLBACK`. */
  end(how: "COMMIT" | "ROLLBACK"): Promise<void>;
}

const login = `${ADMIN.name}:${encodeURIComponent(ADMIN.password)}`;

export async function postgresDatabase(): Promise<TestDatabase & { readonly port: number }> {
  const server = await startPostgres();
  const connect = async () => {
    for (let attempt = 0;; attempt++) {
      const client = new PgClient({
        host: "127.0.0.1",
        port: server.port,
        user: ADMIN.name,
        password: ADMIN.password,
        database: "postgres",
        application_name: "test",
      });
      client.on("error", () => {});
      try {
        await client.connect();
        return client;
      } catch (error) {
        // While it starts it says so.
        if ((error as { code?: string }).code !== "57P03" || attempt > 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  };
  const sql = async (...statements: readonly string[]) => {
    const client = await connect();
    try {
      let rows: (string | null)[][] = [];
      for (const text of statements) {
        const types = { getTypeParser: () => (value: string) => value };
        rows = (await client.query({ text, rowMode: "array", types })).rows;
      }
      return rows;
    } finally {
      await client.end();
    }
  };
  return {
    port: server.port,
    url: (table, more = "") =>
      `postgres://${login}@127.0.0.1:${server.port}/postgres?outbox=${table}&poll=50ms${more}`,
    sql,
    begin: async () => {
      const client = await connect();
      await client.query("BEGIN");
      return {
        sql: async (statement) => void await client.query(statement),
        end: async (how) => {
          await client.query(how);
          await client.end();
        },
      };
    },
    bytes: (of) => `'\\x${hexOf(of)}'::bytea`,
    server: {
      kill: () => server.kill(),
      start: async () => {
        await server.start();
        await sql("SELECT 1");
      },
      freeze: () => server.freeze(),
      thaw: () => server.thaw(),
      cut: async () => {
        await sql(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shishi'",
        );
      },
    },
    close: () => server.close(),
  };
}

export async function mariadbDatabase(): Promise<TestDatabase & { readonly port: number }> {
  const server = await startMariadb();
  const connect = () =>
    createConnection({
      host: "127.0.0.1",
      port: server.port,
      user: ADMIN.name,
      password: ADMIN.password,
      database: "app",
    });
  const query = (connection: ReturnType<typeof connect>, sql: string) =>
    new Promise<(string | null)[][]>((resolve, reject) => {
      const typeCast = (field: { string(): string | null }) => field.string();
      connection.on("error", reject);
      connection.query({ sql, rowsAsArray: true, typeCast }, (error, rows) => {
        if (error === null) resolve(Array.isArray(rows) ? rows as (string | null)[][] : []);
        else reject(error);
      });
    });
  const sql = async (...statements: readonly string[]) => {
    const connection = connect();
    try {
      let rows: (string | null)[][] = [];
      for (const statement of statements) rows = await query(connection, statement);
      return rows;
    } finally {
      connection.destroy();
    }
  };
  return {
    port: server.port,
    url: (table, more = "") =>
      `mysql://${login}@127.0.0.1:${server.port}/app?outbox=${table}&poll=50ms${more}`,
    sql,
    begin: async () => {
      const connection = connect();
      await query(connection, "START TRANSACTION");
      return {
        sql: async (statement) => void await query(connection, statement),
        end: async (how) => {
          await query(connection, how);
          connection.destroy();
        },
      };
    },
    bytes: (of) => `X'${hexOf(of)}'`,
    server: {
      kill: () => server.kill(),
      start: () => server.start(),
      freeze: () => server.freeze(),
      thaw: () => server.thaw(),
      cut: async () => {
        const threads = await sql(
          "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user = 'admin'",
        );
        for (const [id] of threads) await sql(`KILL ${id}`).catch(() => {});
      },
    },
    close: () => server.close(),
  };
}

/**
 * A file: killed = it is somewhere else, frozen = another process has it locked, cut = nothing.
 * @param mode with `wal` nothing keeps readers out, so it never freezes.
 */
export function sqliteDatabase(
  mode: "delete" | "wal" = "delete",
): TestDatabase & { readonly path: string } {
  const dir = tempDir("outbox");
  mkdirSync(join(dir, "away"));
  const path = join(dir, "app.db");
  const move = (from: string, to: string) => {
    for (const end of ["-wal", "-shm", ""]) {
      try {
        renameSync(from + end, to + end);
      } catch {
        // Files beside it are not always there.
      }
    }
  };
  const open = () => {
    const file = openSqlite(path, true);
    file.run(`PRAGMA busy_timeout = 5000; PRAGMA synchronous = OFF; PRAGMA journal_mode = ${mode}`);
    return file;
  };
  let freezer: SqliteFile | null = null;
  // deno-lint-ignore require-await
  const sql = async (...statements: readonly string[]) => {
    const file = open();
    try {
      let rows: (string | null)[][] = [];
      for (const statement of statements) {
        rows = file.all(statement).map((row) =>
          row.map((value) => value === null ? null : String(value))
        );
      }
      return rows;
    } finally {
      file.close();
    }
  };
  return {
    path,
    url: (table, more = "") => `sqlite:${path}?outbox=${table}&poll=50ms${more}`,
    sql,
    begin: () => {
      const file = open();
      file.run("BEGIN IMMEDIATE");
      return Promise.resolve({
        sql: (statement) => Promise.resolve(file.run(statement)),
        end: (how) => {
          file.run(how);
          file.close();
          return Promise.resolve();
        },
      });
    },
    bytes: (of) => `x'${hexOf(of)}'`,
    server: {
      kill: () => Promise.resolve(move(path, join(dir, "away", "app.db"))),
      start: () => Promise.resolve(move(join(dir, "away", "app.db"), path)),
      freeze: () => {
        freezer = open();
        freezer.run("BEGIN EXCLUSIVE");
      },
      thaw: () => {
        freezer?.run("ROLLBACK");
        freezer?.close();
      },
      cut: () => {},
    },
    close: () => Promise.resolve(removeDir(dir)),
  };
}

/** For the suite: rows with a payload of any bytes. @param more parameters of the URL. */
export function outboxHarness(
  kind: OutboxSource["kind"],
  make: () => Promise<TestDatabase>,
  { done = null, notify = false }: { done?: string | null; notify?: boolean } = {},
): () => Promise<SourceHarness> {
  const more = done === null ? "" : `&done=${done}`;
  const waits = done === null ? "" : ` WHERE ${done} IS NULL`;
  let places = 0;
  return async () => {
    const database = await make();
    return {
      server: database.server,
      traits: { once: true, shared: true, durable: true, againMs: 5_000 },
      close: () => database.close(),
      async place(): Promise<Place> {
        const outbox = `outbox_${++places}`;
        const any = { postgres: "bytea", mysql: "longblob", sqlite: "BLOB" }[kind];
        const ddl = ddlOf(kind, {
          outbox,
          id: "id",
          payload: "payload",
          tableColumn: null,
          done,
          notify,
        });
        await database.sql(...statementsOf(ddl.replace(/(payload["`]) .*? NOT NULL/, `$1 ${any}`)));
        return {
          open(member, prefetch = 1000) {
            const address = outboxAddress(database.url(outbox, `${more}&prefetch=${prefetch}`));
            return { address, broker: openOutbox(address, outboxDeps({ member }), QUICK) };
          },
          async publish(bodies) {
            const values = bodies.map((body) =>
              `(${
                database.bytes(typeof body === "string" ? new TextEncoder().encode(body) : body)
              })`
            );
            await database.sql(`INSERT INTO ${outbox} (payload) VALUES ${values.join(", ")}`);
          },
          async unacknowledged() {
            const [[count] = []] = await database.sql(`SELECT count(*) FROM ${outbox}${waits}`);
            return Number(count);
          },
        };
      },
    };
  };
}

/** What a DDL has, one by one; a function's body has semicolons of its own. */
export function statementsOf(ddl: string): string[] {
  return ddl.replace(/^--.*$/gm, "").split(/;\n(?!\s*(?:RETURN|END))/).map((text) => text.trim())
    .filter(Boolean);
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
