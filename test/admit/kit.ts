/** What the tests of this room share: decoding without HTTP, and an app on a scripted intake. */

import type {
  Asked,
  Chunk,
  Columns,
  Control,
  DeadLetters,
  Intake,
  Ledger,
  Log,
  Named,
  Page,
  Queries,
  SetAsideNow,
  SetAsideWanted,
  Status,
  TableMaker,
  Tables,
  Taken,
  Ticket,
} from "../../src/contracts.ts";
import {
  type AdmitSettings,
  type App,
  createApp,
  createShared,
  type Shared,
} from "../../src/admit/app.ts";
import { type Decoded, Decoding, type Target } from "../../src/admit/decode.ts";
import { Scanner } from "../../src/admit/scanner.ts";
import { done, failed } from "../../src/kernel/result.ts";
import { columnsOf } from "../kit/columns.ts";
import { ManualClock } from "../kit/manual_clock.ts";

export const NOW_MS = Date.UTC(2024, 0, 1);
export const UUID = "01890a5d-ac96-774b-bcce-b302099a8057";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function bytesOf(input: string | Uint8Array): Uint8Array<ArrayBuffer> {
  return typeof input === "string" ? encoder.encode(input) : new Uint8Array(input);
}

/**
 * One for all, as in the app. A runtime that has so many memories of WebAssembly looks through its whole heap before
 * it makes one more: with one for each case of a property, tests of a second took ten or thirty.
 */
const scanner = new Scanner();
const { queue } = createShared(new ManualClock());

/** Where events go. */
export const EVENTS: Target = { table: "analytics_events", shape: "event", columns: null };

function decode(bytes: Uint8Array, target: Target): Decoded {
  const decoding = new Decoding(bytes, target, scanner, NOW_MS);
  decoding.go(Infinity);
  return decoding.end();
}

/** Decodes as one request of events would. */
export function decodeEvents(input: string | Uint8Array): Decoded {
  return decode(bytesOf(input), EVENTS);
}

/** Decodes as rows of a table with these columns; null: not known. */
export function decodeRows(input: string | Uint8Array, columns: readonly string[] | null): Decoded {
  const known = columns && columnsOf(columns, columns.join());
  return decode(bytesOf(input), { table: "flights", shape: "row", columns: known });
}

/** The rows that were taken, one line each; throws when the request was refused as a whole. */
export function linesOf(decoded: Decoded): string[] {
  if (decoded.kind === "refused") throw new Error(decoded.error);
  const text = decoder.decode(decoded.body);
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last row has no line end");
  const found = text.split("\n").slice(0, -1);
  if (found.length !== decoded.rows) throw new Error(`${decoded.rows} rows, ${found.length} lines`);
  return found;
}

/** `index: error` of each row that was not taken. */
export function errorsOf(decoded: Decoded): string[] {
  if (decoded.kind === "refused") return [`refused: ${decoded.error}`];
  return decoded.errors.map(({ index, error }) => `${index}: ${error}`);
}

const JAVASCRIPT = { headers: { "content-type": "text/javascript", etag: '"1"' } };

/** What the intake and the ledger were told, and what the intake is to answer. */
export class Script {
  readonly chunks: Chunk[] = [];
  readonly rejected: string[] = [];
  readonly statuses: number[] = [];
  readonly logged: string[] = [];
  /** Everything of each line. */
  readonly lines: string[] = [];
  /** What the ledger was told of tokens. */
  readonly tokens: string[] = [];
  /** What becomes of rows that are taken; null: they are kept at once. */
  kept: Ticket["kept"] = null;
  acknowledged = 0;
  /** Bytes that are reserved at the moment, and at most. */
  reserved = 0;
  mostReserved = 0;
  room = Infinity;
  closed: "stopping" | "paused" | null = null;
  refuse: (Taken & { kind: "refused" }) | null = null;
  /** A longer body is refused unread. */
  foreseenBytes = Infinity;
  reached: Ticket["reached"] = "memory";
  settled: (waitMs: number) => Promise<{ dead: number } | null> = () =>
    Promise.resolve({ dead: 0 });
  columns: Columns | "missing" | "unknown" = "unknown";
  unready: string[] = [];
  page: Page = {
    document: () => Promise.resolve(new Response("<!doctype html>")),
    snippet: () => Promise.resolve(new Response("", JAVASCRIPT)),
    live: () => Promise.resolve(new Response("event: now\n\n")),
  };
  /** What was asked of the stored events and of the dead letters, and the answers to it. */
  readonly questions: unknown[] = [];
  asked: Asked = { kind: "answer", json: "{}\n" };
  readonly queries: Queries = {
    metrics: (question) => this.#asked(question),
    events: (question) => this.#asked(question),
  };
  settingAside: Awaited<ReturnType<SetAsideNow>> = failed("flights is in no trouble");
  readonly orders: SetAsideWanted[] = [];
  replaying: Awaited<ReturnType<DeadLetters["replay"]>> | null = null;
  folder: string | null = "64769:12";
  readonly letters: DeadLetters = {
    folder: () => this.folder,
    newest: (...question) => this.#told(question, { letters: [], total: 0 }),
    letter: (...question) => this.#told(question, null),
    lines: (...question) => {
      this.questions.push(question);
      return this.#lines();
    },
    tables: (question) => this.#told(question, { asOf: new Date(0).toISOString(), tables: [] }),
    replay: (wanted) => {
      if (this.replaying === null) return Promise.reject(new Error("EIO: /a/path"));
      return this.#told(wanted, this.replaying);
    },
    purge: (...question) => this.#told(question, this.purging),
  };
  purging: Awaited<ReturnType<DeadLetters["purge"]>> = done({ letters: 2, damaged: 1, bound: 0 });
  #told<T>(question: unknown, answer: T): Promise<T> {
    this.questions.push(question);
    return Promise.resolve(answer);
  }
  async *#lines(): AsyncGenerator<string> {
    yield* ["{}\n", "[]\n"];
  }
  #asked(question: unknown): Promise<Asked> {
    this.questions.push(question);
    return Promise.resolve(this.asked);
  }
  /** What is known of keys, and what was asked. */
  readonly named: Named[] = [];
  known(_table: string, named: Named): ReturnType<Intake["known"]> {
    this.named.push(named);
    return null;
  }
  readonly clock = new ManualClock();
  /** Tables whose rows did not fit. */
  readonly doubted: string[] = [];
}

const STATUS: Status = {
  group: "default",
  id: "a",
  state: "running",
  version: "0",
  runtime: "test",
  uptime_s: 1,
  ledger: { received: 0, recovered: 0, rejected: 0, stored: 0, dead: 0, held: 0, lost: 0 },
  oldest_s: 0,
  memory_bytes: 0,
  spool_bytes: 0,
  recovering: false,
  tables: {},
};

/** The app, and a way to ask it; `settings` on top of the defaults. @param shared as of `createApp`. */
export function appOn(
  script: Script,
  settings: Partial<AdmitSettings> = {},
  shared?: Shared,
  maker?: TableMaker,
) {
  const intake: Intake = {
    marks: () => Promise.resolve(new Map()),
    taken: () => Promise.resolve(new Map()),
    committed() {},
    take(chunk) {
      if (script.refuse) return script.refuse;
      script.chunks.push(chunk);
      const ticket = {
        reached: script.reached,
        kept: script.kept,
        settled: (ms: number) => script.settled(ms),
      };
      return { kind: "taken", ticket };
    },
    refusal: (bytes) => bytes > script.foreseenBytes ? script.refuse : null,
    reserve(bytes) {
      if (script.reserved + bytes > script.room) return false;
      script.reserved += bytes;
      script.mostReserved = Math.max(script.mostReserved, script.reserved);
      return true;
    },
    release(bytes) {
      script.reserved -= bytes;
    },
    replayed: () => null,
    known: (table, named) => script.known(table, named),
    closed: () => script.closed,
  };
  const tables: Tables = {
    columns: () => script.columns,
    lookUp: () => Promise.resolve(script.columns),
    refresh: () => Promise.resolve(script.columns),
    doubt: (table) => void script.doubted.push(table),
  };
  const ledger = {
    rejected: (table: string, reason: string, rows: number) =>
      void script.rejected.push(`${table} ${reason} ${rows}`),
    acknowledged: () => void script.acknowledged++,
    http: (status: number) => void script.statuses.push(status),
    tokenTook: (label: string, rows: number, bytes: number) =>
      void (rows > 0 && script.tokens.push(`${label} ${rows} ${bytes}`)),
    tokenRefused: (label: string, why: string) => void script.tokens.push(`${label} ${why}`),
  } as unknown as Ledger;
  const control = { status: () => STATUS, unready: () => script.unready } as unknown as Control;
  const quiet = (message: string, fields?: unknown) => {
    script.logged.push(message);
    script.lines.push(`${message} ${JSON.stringify(fields ?? {})}`);
  };
  const log: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet };
  const deps = {
    intake,
    tables,
    ...(maker === undefined ? {} : { maker }),
    ledger,
    control,
    clock: script.clock,
    log,
    metrics: () => "shishi_up 1\n",
    page: script.page,
    version: "0",
    queries: () => Promise.resolve(script.queries),
    deadLetters: () => Promise.resolve(script.letters),
    setAside: (wanted: SetAsideWanted) => {
      script.orders.push(wanted);
      return Promise.resolve(script.settingAside);
    },
    settings: {
      table: "analytics_events",
      tables: ["flights", "log_*"],
      ack: "memory",
      maxBodyBytes: 1024 * 1024,
      bodyTimeoutMs: 30_000,
      insertTimeoutMs: 30_000,
      typeCheck: "strict",
      id: "edge-7",
      eventWindow: { maxAgeMs: null, maxSkewMs: null },
      authTokens: [],
      corsOrigins: [],
      loopback: false,
      rateLimit: null,
      ...settings,
    } satisfies AdmitSettings,
  };
  return createApp(deps, shared ?? { ...createShared(script.clock), queue });
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // deno-lint-ignore no-explicit-any
  readonly body: any;
}

/** A request as it comes from outside. */
export function ask(app: App, path: string, init: RequestInit = {}): Promise<Response> {
  return Promise.resolve(
    app.fetch(new Request(`http://localhost${path}`, init), () => "127.0.0.1"),
  );
}

/** A POST as a server would hand it on: with its length, unless it is a stream. */
export async function post(
  app: App,
  path: string,
  body: string | Uint8Array | ReadableStream<Uint8Array>,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const streamed = body instanceof ReadableStream;
  const bytes = streamed ? body : bytesOf(body);
  const length: Record<string, string> = streamed
    ? {}
    : { "content-length": String((bytes as Uint8Array).length) };
  const init = { method: "POST", body: bytes, headers: { ...length, ...headers }, duplex: "half" };
  return await answerOf(await ask(app, path, init as RequestInit));
}

export async function answerOf(response: Response): Promise<Answer> {
  const text = await response.text();
  const isJson = response.headers.get("content-type") === "application/json";
  return {
    status: response.status,
    headers: response.headers,
    body: isJson ? JSON.parse(text) : text,
  };
}
