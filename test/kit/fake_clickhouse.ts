/**
 * A small ClickHouse for tests: HTTP, INSERTs of JSONEachRow into tables of UInt32 and String columns,
 * deduplication tokens, the sieve, `system.columns`, ping. It passes the same contract suite as the
 * real servers, and can be told to misbehave in ways that they cannot be brought to on demand.
 */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { ASK_SETTINGS, INSERT_SETTINGS, TOKEN } from "../../src/kernel/pinned.ts";

/** What to do with one INSERT instead of the usual. `stored`: the rows are taken all the same. */
export type Misbehaviour =
  & (
    /** Never answer. */
    | { readonly kind: "hang" }
    /** Break the connection without an answer. */
    | { readonly kind: "reset" }
    /** Headers and a part of the body, then silence or a broken connection. */
    | { readonly kind: "half"; readonly then: "hang" | "reset" }
    | {
      readonly kind: "answer";
      readonly status: number;
      readonly headers?: Record<string, string>;
      readonly body?: string;
    }
  )
  & { readonly stored?: boolean };

export interface RecordedInsert {
  readonly table: string;
  readonly lines: readonly string[];
  readonly token: string;
  readonly settings: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly url: string;
}

/** Rows that one INSERT stored. */
export interface StoredBlock {
  readonly table: string;
  readonly token: string;
  readonly lines: readonly string[];
}

export interface FakeClickHouse {
  readonly url: string;
  /** Every INSERT that was received whole, refused ones too. */
  readonly inserts: readonly RecordedInsert[];
  /** Pings received. */
  pings(): number;
  createTable(name: string, columns: Record<string, "UInt32" | "String">): void;
  dropTable(name: string): void;
  /** Stored rows, parsed. */
  rows(table: string): Record<string, unknown>[];
  /** As an INSERT that was stored does. */
  store(block: StoredBlock): void;
  /** The next INSERTs, one each. */
  misbehave(...what: Misbehaviour[]): void;
  /** Pings answer 503 while false. */
  pingable: boolean;
  /** As an old server: rejects these settings, has no sieve. */
  old(settings: readonly string[]): void;
  close(): Promise<void>;
}

class Refusal extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

interface Table {
  readonly columns: Record<string, string>;
  readonly rows: Record<string, unknown>[];
  readonly tokens: Set<string>;
}

/** @param onStored is told of a block when it is there, before any answer. */
export async function startFakeClickHouse(
  onStored: (block: StoredBlock) => void = () => {},
): Promise<FakeClickHouse> {
  const tables = new Map<string, Table>();
  const inserts: RecordedInsert[] = [];
  const script: Misbehaviour[] = [];
  const unknownSettings = new Set<string>();
  let pings = 0;
  const hanging = new Set<ServerResponse>();

  const server = createServer((request, response) => {
    void handle(request, response).catch((error) => {
      if (!response.headersSent) response.writeHead(500);
      response.end(String(error));
    });
  });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://fake");
    if (url.pathname === "/ping") {
      pings++;
      response.writeHead(fake.pingable ? 200 : 503).end(fake.pingable ? "Ok.\n" : "no");
      return;
    }
    const parts: Uint8Array[] = [];
    for await (const part of request) parts.push(part as Uint8Array);
    let bytes: Uint8Array = Buffer.concat(parts);
    if (request.headers["content-encoding"] === "gzip") bytes = gunzipSync(bytes);
    const body = new TextDecoder().decode(bytes);
    const query = url.searchParams.get("query") ?? body;
    const into = query.match(/^INSERT INTO `(\w+)`\.`(\w+)`/);
    const lines = body.split("\n").slice(0, -1);
    let odd: Misbehaviour | undefined;
    if (into) {
      inserts.push({
        table: into[2] as string,
        lines,
        token: url.searchParams.get("insert_deduplication_token") ?? "",
        settings: url.searchParams,
        headers: request.headers,
        url: request.url ?? "",
      });
      odd = script.shift();
    }
    try {
      if (odd === undefined || odd.stored) {
        const answer = run(query, url.searchParams, body, lines, into?.[2]);
        if (odd === undefined) {
          response.writeHead(200, {
            "Content-Type": "text/plain",
            "X-ClickHouse-Server-Display-Name": "fake",
          }).end(answer);
          return;
        }
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      response.writeHead(error.code === 60 ? 404 : 400, {
        "X-ClickHouse-Exception-Code": String(error.code),
      }).end(`Code: ${error.code}. DB::Exception: ${error.message} (ERROR) (version 26.7.2.1)\n`);
      return;
    }
    hanging.add(response);
    if (odd.kind === "answer") {
      response.writeHead(odd.status, odd.headers ?? {}).end(odd.body ?? "");
    } else if (odd.kind === "reset") {
      request.socket.destroy();
    } else if (odd.kind === "half") {
      response.writeHead(200, { "Content-Length": "100" });
      response.write("half of");
      if (odd.then === "reset") setTimeout(() => request.socket.destroy(), 20);
    }
  }

  function run(
    query: string,
    settings: URLSearchParams,
    body: string,
    lines: readonly string[],
    into: string | undefined,
  ): string {
    for (const name of settings.keys()) {
      if (unknownSettings.has(name)) throw new Refusal(115, `Unknown setting '${name}'.`);
    }
    if (into !== undefined) {
      const token = settings.get("insert_deduplication_token") ?? "";
      insert({ table: into, token, lines });
      return "";
    }
    if (query.includes("FROM sieve")) return sieve(settings, body);
    if (query.includes("system.columns")) {
      const list = query.match(/table (?:=|IN) (\('[^)]*\)|'\w+')/)?.[1] ?? "";
      return [...list.matchAll(/\w+/g)].flatMap(([table]) =>
        Object.entries(tables.get(table)?.columns ?? {}).map(([name, type]) =>
          JSON.stringify({ table, name, type, default_kind: "" }) + "\n"
        )
      ).join("");
    }
    if (query.includes("system.settings")) {
      const known = [
        "max_threads",
        ...Object.keys(INSERT_SETTINGS),
        ...Object.keys(ASK_SETTINGS),
        TOKEN,
      ];
      return [...new Set(known)].filter((name) => !unknownSettings.has(name))
        .map((name) => `${name}\t${settings.get(name) ?? "as it is there"}\n`).join("");
    }
    if (query.startsWith("SELECT version()")) return '{"version":"26.7.2.1"}\n';
    const create = query.match(/^CREATE TABLE IF NOT EXISTS `\w+`\.`(\w+)`/);
    if (create && !tables.has(create[1] as string)) {
      fake.createTable(create[1] as string, { eventType: "String", userId: "String" });
    }
    if (create) return "";
    throw new Refusal(62, "Syntax error: the fake does not know this statement");
  }

  function insert(block: StoredBlock): void {
    const { table: name, token, lines } = block;
    const table = tables.get(name);
    if (!table) throw new Refusal(60, `Table fake.${name} does not exist.`);
    const rows = lines.map((line, at) => parse(line, table.columns, `: (at row ${at + 1})\n`));
    if (token !== "" && table.tokens.has(token)) return;
    table.tokens.add(token);
    table.rows.push(...rows);
    onStored(block);
  }

  function sieve(settings: URLSearchParams, body: string): string {
    if (unknownSettings.size > 0) throw new Refusal(27, "Cannot parse input: (at row 2)\n");
    const columns: Record<string, string> = {};
    for (const column of (settings.get("sieve_structure") ?? "").split(", ")) {
      const [name, type] = column.replaceAll("`", "").split(" ") as [string, string];
      columns[name] = type;
    }
    const number = Object.keys(columns)[0] as string;
    let good = "";
    for (const line of body.split("\r\n\r\n", 2)[1]?.split("\n") ?? []) {
      try {
        if (line.startsWith("{")) good += `${parse(line, columns, "")[number]}\n`;
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
      }
    }
    return good;
  }

  const fake: FakeClickHouse = {
    url: "",
    inserts,
    pings: () => pings,
    pingable: true,
    createTable: (name, columns) => {
      tables.set(name, { columns, rows: [], tokens: new Set() });
    },
    dropTable: (name) => void tables.delete(name),
    rows: (name) => tables.get(name)?.rows ?? [],
    store: insert,
    misbehave: (...what) => void script.push(...what),
    old: (settings) => settings.forEach((name) => unknownSettings.add(name)),
    close: () =>
      new Promise((resolve) => {
        for (const response of hanging) response.destroy();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  (fake as { url: string }).url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return fake;
}

/** One row against columns; `where` ends the text as the real server's does. */
function parse(
  line: string,
  columns: Record<string, string>,
  where: string,
): Record<string, unknown> {
  let row: Record<string, unknown>;
  try {
    row = JSON.parse(line);
  } catch {
    throw new Refusal(27, `Cannot parse input: expected '{' before: '${line}'${where}`);
  }
  for (const [key, value] of Object.entries(row)) {
    const type = columns[key];
    if (line.split(`"${key}":`).length > 2) {
      throw new Refusal(
        117,
        `Duplicate field found while parsing JSONEachRow format: ${key}${where}`,
      );
    }
    if (type === undefined) {
      throw new Refusal(
        117,
        `Unknown field found while parsing JSONEachRow format: ${key}${where}`,
      );
    }
    if (type === "UInt32" && !(Number.isInteger(value) && Number(value) >= 0)) {
      throw new Refusal(
        27,
        `Cannot parse input: expected ',' before: '${value}': (while reading the value of key ${key})${where}`,
      );
    }
  }
  return row;
}
