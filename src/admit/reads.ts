/**
 * What is read of the stored events and of the dead letters, the replay of these, and the description
 * of all routes: a request in, its parameters read, a question to the room that knows, its answer as a
 * response. Loaded with the first of them.
 */

import {
  type Clock,
  type DeadLetters,
  FOLDER_HEADER,
  type Intake,
  type Log,
  type Queries,
  type SetAsideNow,
  type SetAsideWanted,
  type Status,
} from "../contracts.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { Deadlines, Grant, parseEncoding, readBody } from "./body.ts";
import { codeOf } from "../kernel/errors.ts";
import { isTableName } from "../kernel/names.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { excerpt } from "../kernel/text.ts";
import { UUID } from "./event.ts";
import * as reply from "./reply.ts";
import { epochMs, inRange, isoMs, TIMESTAMP_WANTED } from "./timestamp.ts";

export interface ReadsDeps {
  readonly intake: Intake;
  readonly clock: Clock;
  readonly log: Log;
  readonly queries: () => Promise<Queries>;
  readonly deadLetters: () => Promise<DeadLetters>;
  readonly setAside: SetAsideNow;
  readonly control: { status(): Status | Promise<Status> };
  readonly version: string;
  readonly settings: { readonly bodyTimeoutMs: number };
}

/** Answers of requests that have been let in. */
export interface Reads {
  metrics(request: Request): Promise<Response>;
  events(request: Request): Promise<Response>;
  dead(request: Request): Promise<Response>;
  deadTables(request: Request): Promise<Response>;
  deadLines(request: Request): Promise<Response>;
  replay(request: Request): Promise<Response>;
  purge(request: Request): Promise<Response>;
  setAside(request: Request): Promise<Response>;
  /** Of the collector that has a certain folder. */
  status(request: Request): Promise<Response>;
  description(request: Request): Promise<Response>;
}

/** Events in an answer. */
export const EVENTS = { usual: 100, most: 1000 };
/** Dead letters in an answer, and named in a replay. */
export const LETTERS = { usual: 50, most: 500 };
/** Letters in an answer of lines. */
const MOST_LINES = 1_000_000;
/** Of a body that says what is to be replayed. */
const MOST_REPLAY_BYTES = 64 * 1024;

/** What the parameters of a question may be. */
const kinds = {
  text: {
    wanted: "a non-empty string",
    read: (text) => text === "" ? undefined : text,
  } satisfies Kind<string>,
  uuid: {
    wanted: "a UUID",
    read: (text) => UUID.test(text) ? text : undefined,
  } satisfies Kind<string>,
  tableName: {
    wanted: "the name of a table",
    read: (text) => isTableName(text) ? text : undefined,
  } satisfies Kind<string>,
  /** As the timestamp of an event, in epoch milliseconds. */
  moment: {
    wanted: TIMESTAMP_WANTED,
    read(text) {
      // The plus of a zone that was not percent-encoded has become a blank.
      const meant = text.replace(/^(.{10}[T ]\d\d:\d\d\S*) (\d\d(?::?\d\d)?)$/, "$1+$2");
      const bytes = new TextEncoder().encode(meant);
      const known = /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/.test(meant)
        ? epochMs(meant)
        : isoMs(bytes, 0, bytes.length);
      return inRange(known) ? known : undefined;
    },
  } satisfies Kind<number>,
  count: (most: number): Kind<number> => ({
    wanted: `a whole number from 1 to ${most}`,
    read(text) {
      const number = /^\d{1,9}$/.test(text) ? Number(text) : 0;
      return number >= 1 && number <= most ? number : undefined;
    },
  }),
  /** ClickHouse's exception code. */
  code: {
    wanted: "a whole number from 0 to 1000000",
    read: (text) => /^\d{1,7}$/.test(text) && Number(text) <= 1_000_000 ? Number(text) : undefined,
  } satisfies Kind<number>,
  flag: {
    wanted: "true or false",
    read: (text) => text === "true" ? true : text === "false" ? false : undefined,
  } satisfies Kind<boolean>,
};

const PERIOD = { eventType: kinds.text, from: kinds.moment, to: kinds.moment };
const EVENTS_ASKED = { ...PERIOD, id: kinds.uuid, limit: kinds.count(EVENTS.most) };
const ONE = { table: kinds.tableName, id: kinds.text };
const DEAD = { ...ONE, limit: kinds.count(LETTERS.most) };
const LINES = { table: kinds.tableName, code: kinds.code, limit: kinds.count(MOST_LINES) };
const COUNTED = { table: kinds.tableName, code: kinds.code, before: kinds.moment };
const PURGED = { ...COUNTED, all: kinds.flag, damaged: kinds.flag };

export function createReads(deps: ReadsDeps): Reads {
  const { clock } = deps;
  const deadlines = new Deadlines(clock, deps.settings.bodyTimeoutMs);
  let description: Promise<Description> | null = null;

  async function replay(request: Request): Promise<Response> {
    const body = await bodyOf(request);
    if (body instanceof Response) return body;
    const wanted = readWanted(body);
    if (!wanted.ok) return reply.badRequest(wanted.problem);
    return await withLetters(request, async (letters) => {
      const replayed = await letters.replay(wanted.value, request.signal);
      return replayed.ok ? reply.replayed(replayed.value) : reply.conflict(replayed.problem);
    });
  }

  async function purge(request: Request): Promise<Response> {
    const asked = readParameters(request.url, PURGED, ({ table, all }) =>
      // One that is wrong by itself is reported already.
      table === undefined || all === undefined || (table !== null) !== (all === true)
        ? null
        : `expected table or all=true, got ${table === null ? "neither" : "both"}`);
    if (!asked.ok) return reply.badRequest(asked.problem);
    const { table, code, before: beforeMs, damaged } = asked.value;
    return await withLetters(request, async (letters) => {
      const purged = await letters.purge({ table, code, beforeMs }, damaged === true);
      return purged.ok ? reply.value(purged.value) : reply.conflict(purged.problem);
    });
  }

  async function setAside(request: Request): Promise<Response> {
    const body = await bodyOf(request);
    if (body instanceof Response) return body;
    const wanted = readSetAside(body);
    if (!wanted.ok) return reply.badRequest(wanted.problem);
    return await withLetters(request, async () => {
      const set = await deps.setAside(wanted.value);
      return set.ok ? reply.value(set.value) : reply.conflict(set.problem);
    });
  }

  async function bodyOf(request: Request): Promise<Uint8Array | Response> {
    const header = request.headers.get("content-encoding");
    const encoding = parseEncoding(header);
    if (encoding === "unknown") return reply.unknownEncoding(header ?? "");
    const grant = new Grant(deps.intake);
    try {
      const body = await readBody(request, encoding, MOST_REPLAY_BYTES, grant, deadlines);
      return body.kind === "read"
        ? body.bytes
        : reply.unread(body.kind, MOST_REPLAY_BYTES, encoding);
    } finally {
      grant.free();
    }
  }

  async function withLetters(
    request: Request,
    work: (letters: DeadLetters) => Promise<Response>,
  ): Promise<Response> {
    try {
      const letters = await deps.deadLetters();
      const folder = request.headers.get(FOLDER_HEADER);
      if (folder !== null && folder !== letters.folder()) return reply.misdirected();
      return await work(letters);
    } catch (error) {
      deps.log.error("dead letters cannot be worked on", { error: String(error) });
      return reply.closed(`the disk with the dead letters says ${codeOf(error) || "nothing"}`);
    }
  }

  return {
    async metrics(request) {
      const nowMs = clock.nowMs();
      const asked = readParameters(request.url, PERIOD, (values) => periodFault(values, nowMs));
      if (!asked.ok) return reply.badRequest(asked.problem);
      const { eventType } = asked.value;
      const question = { eventType, id: null, ...periodOf(asked.value, nowMs) };
      return reply.asked(await (await deps.queries()).metrics(question, request.signal));
    },
    async events(request) {
      const nowMs = clock.nowMs();
      const asked = readParameters(request.url, EVENTS_ASKED, (v) => periodFault(v, nowMs));
      if (!asked.ok) return reply.badRequest(asked.problem);
      const { eventType, id, from, to, limit } = asked.value;
      // One event is one event, whenever it was.
      const ever = id !== null && from === null && to === null;
      const period = ever ? { fromMs: null, toMs: null } : periodOf(asked.value, nowMs);
      const question = { eventType, id, ...period, limit: limit ?? EVENTS.usual };
      return reply.asked(await (await deps.queries()).events(question, request.signal));
    },
    async dead(request) {
      const asked = readParameters(request.url, DEAD);
      if (!asked.ok) return reply.badRequest(asked.problem);
      const { table, id, limit } = asked.value;
      return await withLetters(request, async (letters) => {
        if (id === null) return reply.value(await letters.newest(table, limit ?? LETTERS.usual));
        const letter = await letters.letter(table, id);
        return reply.value({
          letters: letter === null ? [] : [letter],
          total: letter === null ? 0 : 1,
        });
      });
    },
    async deadTables(request) {
      const asked = readParameters(request.url, COUNTED);
      if (!asked.ok) return reply.badRequest(asked.problem);
      const { table, code, before: beforeMs } = asked.value;
      return await withLetters(
        request,
        async (letters) => reply.value(await letters.tables({ table, code, beforeMs })),
      );
    },
    async deadLines(request) {
      const asked = readParameters(request.url, LINES);
      if (!asked.ok) return reply.badRequest(asked.problem);
      return await withLetters(request, async (letters) => {
        const lines = letters.lines(asked.value, asked.value.limit ?? LETTERS.usual);
        // The disk's error at the first line is an answer, not a stream that breaks off.
        const first = await lines.next();
        return reply.lines(request.method === "HEAD" ? null : first, lines);
      });
    },
    replay,
    purge,
    setAside,
    status: (request) => withLetters(request, async () => reply.value(await deps.control.status())),
    async description({ headers }) {
      const { text, tag } = await (description ??= describe(deps.version));
      return reply.document(text, tag, headers.get("if-none-match"));
    },
  };
}

/** `/openapi.json` as text that stays the same, with its quoted `ETag`. */
export interface Description {
  readonly text: string;
  readonly tag: string;
}

/**
 * The HTTP interface as OpenAPI 3.1. A test holds the document to the routes that are served, sends
 * every example of it and holds each answer to its schema, so it says what is so.
 */
export async function describe(version: string): Promise<Description> {
  const { default: openapi } = await import("./openapi.json", { with: { type: "json" } });
  const text = `${JSON.stringify({ ...openapi, info: { ...openapi.info, version } })}\n`;
  const hash = nodeCrypto().createHash("sha256").update(text).digest("hex");
  return { text, tag: `"${hash.slice(0, 32)}"` };
}

type Wanted = Parameters<DeadLetters["replay"]>[0];

const KEYS = ["table", "ids", "code", "before"];
const KEYS_ASIDE = ["table", "batch", "maybeStored"];
const WANTED_ASIDE = 'expected an object such as {"table":"flights"}';
const WANTED = 'expected nothing, or an object such as {"table":"flights","ids":["…"]}';

/** What a body asks to be replayed, or every problem with it. */
function readWanted(bytes: Uint8Array): Result<Wanted> {
  const given = readObject(bytes, WANTED);
  if (!given.ok) return given;
  const { table = null, ids = null, code = null, before = null, ...rest } = given.value;
  const problems = strangers(rest, KEYS);
  if (table !== null && !(typeof table === "string" && isTableName(table))) {
    problems.push(`table: expected the name of a table, got ${excerpt(JSON.stringify(table))}`);
  }
  if (ids !== null && !isIds(ids)) {
    problems.push(
      `ids: expected 1 to ${LETTERS.most} ids of letters, got ${excerpt(JSON.stringify(ids))}`,
    );
  }
  const exact = code === null ? null : kinds.code.read(String(code));
  if (exact === undefined) {
    problems.push(`code: expected ${kinds.code.wanted}, got ${excerpt(JSON.stringify(code))}`);
  }
  const beforeMs = before === null ? null : kinds.moment.read(String(before));
  if (beforeMs === undefined) {
    problems.push(
      `before: expected ${kinds.moment.wanted}, got ${excerpt(JSON.stringify(before))}`,
    );
  }
  return problems.length > 0
    ? failed(problems.join("; "))
    : done({ table, ids, code: exact, beforeMs } as Wanted);
}

/** What a body asks to be set aside, or every problem with it. */
function readSetAside(bytes: Uint8Array): Result<SetAsideWanted> {
  const given = readObject(bytes, WANTED_ASIDE);
  if (!given.ok) return given;
  const { table, batch = null, maybeStored = false, ...rest } = given.value;
  const problems = strangers(rest, KEYS_ASIDE);
  const shown = (value: unknown) => excerpt(JSON.stringify(value) ?? "nothing");
  if (!(typeof table === "string" && isTableName(table))) {
    problems.push(`table: expected the name of a table, got ${shown(table)}`);
  }
  if (batch !== null && !(typeof batch === "string" && kinds.uuid.read(batch) !== undefined)) {
    problems.push(`batch: expected ${kinds.uuid.wanted}, got ${shown(batch)}`);
  }
  if (typeof maybeStored !== "boolean") {
    problems.push(`maybeStored: expected ${kinds.flag.wanted}, got ${shown(maybeStored)}`);
  }
  return problems.length > 0
    ? failed(problems.join("; "))
    : done({ table, batch, maybeStored } as SetAsideWanted);
}

/** @param wanted what it should be, for people. */
function readObject(bytes: Uint8Array, wanted: string): Result<Record<string, unknown>> {
  const text = new TextDecoder().decode(bytes).trim();
  if (text === "") return done({});
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch {
    return failed(`the body is not JSON; ${wanted}`);
  }
  return typeof given === "object" && given !== null && !Array.isArray(given)
    ? done(given as Record<string, unknown>)
    : failed(`${wanted}, got ${excerpt(text)}`);
}

function strangers(rest: Readonly<Record<string, unknown>>, keys: readonly string[]): string[] {
  return Object.keys(rest).slice(0, LETTERS.most)
    .map((key) => `${excerpt(key)}: unknown key; there are ${keys.join(", ")}`);
}

function isIds(value: unknown): value is string[] {
  return Array.isArray(value) && value.length > 0 && value.length <= LETTERS.most &&
    value.every((id) => typeof id === "string");
}

// ── The parameters of a question, as they stand behind the `?` of a URL: all of them known, each once,
// each of its kind, or every problem at once.

/** What a value may be; `read` answers undefined for one that is none. */
interface Kind<T> {
  readonly wanted: string;
  readonly read: (text: string) => T | undefined;
}

type Kinds = Readonly<Record<string, Kind<unknown>>>;

/** Null for a parameter that is not given. */
type Values<K extends Kinds> = {
  readonly [N in keyof K]: (K[N] extends Kind<infer T> ? T : never) | null;
};

/**
 * @param also what may be wrong with the values together; one that is wrong by itself is undefined.
 * @returns the values; the problem is a sentence that names every one.
 */
function readParameters<K extends Kinds>(
  url: string,
  kinds: K,
  also: (values: Partial<Values<K>>) => string | null = () => null,
): Result<Values<K>> {
  const query = url.indexOf("?");
  const given = new URLSearchParams(query < 0 ? "" : url.slice(query + 1));
  const values: Record<string, unknown> = {};
  for (const name of Object.keys(kinds)) values[name] = null;
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const [name, value] of given) {
    const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined;
    const repeated = seen.has(name);
    seen.add(name);
    if (repeated) {
      problems.push(`${excerpt(name)}: expected once, got another one: ${found(value)}`);
    } else if (kind === undefined) {
      const names = Object.keys(kinds).join(", ");
      problems.push(`${excerpt(name)}: unknown parameter; there are ${names}`);
    } else {
      const read = values[name] = kind.read(value);
      if (read === undefined) {
        problems.push(`${name}: expected ${kind.wanted}, got ${found(value)}`);
      }
    }
    if (problems.length === MOST_PROBLEMS) break;
  }
  const together = also(values as Partial<Values<K>>);
  if (together !== null) problems.push(together);
  return problems.length > 0 ? failed(problems.join("; ")) : done(values as Values<K>);
}

const MOST_PROBLEMS = 20;

function found(value: string): string {
  return value === "" ? "nothing" : excerpt(value);
}

/** A question without a beginning reaches back so far. */
const DEFAULT_PERIOD_MS = 24 * 3600 * 1000;

/** From when to when a question reaches. */
function periodOf(
  { from, to }: { readonly from: number | null; readonly to: number | null },
  nowMs: number,
): { readonly fromMs: number; readonly toMs: number } {
  const toMs = to ?? nowMs;
  return { fromMs: from ?? toMs - DEFAULT_PERIOD_MS, toMs };
}

/** Why that is no period, or null. */
function periodFault(
  { from, to }: { readonly from?: number | null; readonly to?: number | null },
  nowMs: number,
): string | null {
  if (from === undefined || to === undefined) return null;
  const { fromMs, toMs } = periodOf({ from, to }, nowMs);
  if (fromMs < toMs) return null;
  const [begin, end] = [fromMs, toMs].map((ms) => new Date(ms).toISOString());
  return `from: expected a time before to (${end}), got ${begin}`;
}
