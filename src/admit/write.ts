/**
 * One write, from its headers to its acknowledgement; the file of this room to read first.
 * `app.ts` has let the request in and found its table. Here it goes down the page: `#write` looks at the
 * headers and has the body read and unpacked (`body.ts`); `#decode` has good rows made of
 * it (`decode.ts`); `#take` gives them to the intake as one chunk; `#taken` answers (`reply.ts`) when
 * they are as safe as was asked for. A body that came before under its key is not decoded again.
 *
 * Promises: nothing is taken in part; rows count only when they were really decided (a 429 or 503 leaves
 * no trace in the books); what was reserved for the body is given back on every exit.
 */

import type {
  Ack,
  Clock,
  Columns,
  Intake,
  Ledger,
  Log,
  Named,
  Refused,
  TableMaker,
  Tables,
  Taken,
  Ticket,
} from "../contracts.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { eventColumnsOf, eventOf } from "./event.ts";
import {
  Deadlines,
  type Encoding,
  Grant,
  parseEncoding,
  type ReadBody,
  readBody,
  type StillThere,
} from "./body.ts";
import type { Decoded, DecodeQueue, Target } from "./decode.ts";
import {
  type Given,
  Reading,
  stamped,
  type StampOf,
  stampsIn,
  type Strangers,
  UNCONFIRMED,
  type Unusable,
} from "./reading.ts";
import type { EventWindow } from "./timestamp.ts";
import { requestId } from "./gate.ts";
import { excerpt } from "../kernel/text.ts";
import type { Exceeded } from "../kernel/rate.ts";
import * as reply from "./reply.ts";
import type { Account } from "./tokens.ts";

export interface WriteSettings {
  /** What an answer waits for. */
  readonly ack: Ack;
  /** Of a body as sent, and again unpacked. */
  readonly maxBodyBytes: number;
  /** From the first to the last byte of a body. */
  readonly bodyTimeoutMs: number;
  /** With `ack: "clickhouse"`, how long an answer waits for the insert. */
  readonly insertTimeoutMs: number;
  /** `strict`: a value that its column cannot hold is an error of its row. */
  readonly typeCheck: "strict" | "off";
  /** Of this collector. */
  readonly id: string;
  /** Times of events that are taken. */
  readonly eventWindow: EventWindow;
}

export interface WriterDeps {
  readonly intake: Intake;
  readonly tables: Tables;
  /** Changes tables as rows ask for it; absent: none is changed. */
  readonly maker?: TableMaker;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly log: Pick<Log, "warn">;
  /** Asked before rows are taken; null or absent where the runtime answers every request in order. */
  readonly stillThere?: StillThere | null;
  readonly settings: WriteSettings;
}

/** One request on its way. */
interface Writing {
  readonly request: Request;
  readonly target: Target;
  readonly encoding: Encoding | null;
  /** Under which the client may send it again. */
  readonly key: string | null;
  readonly startedMs: number;
  readonly grant: Grant;
  /** Of the write token that it came with, if any. */
  readonly account: Account | null;
  /** Whose request it is, where a table asks for it. */
  readonly clientOf: ClientOf | null;
}

/** The client's address; `""` where there is none. */
export type ClientOf = (request: Request) => string;

/** Characters of a `User-Agent` that are kept. */
const LONGEST_AGENT = 1024;

const STRICT = "handling=strict";

/** A quota of an hour or a day that is used up is news. */
const TOLD_FROM_MS = 3_600_000;

/** A first POST waits so long for what ClickHouse says of its table. */
const LOOK_UP_MS = 2000;

export class Writer {
  readonly #deps: WriterDeps;
  readonly #deadlines: Deadlines;
  readonly #reading: Reading;

  constructor(deps: WriterDeps, queue: DecodeQueue, strangers: Strangers) {
    this.#deps = deps;
    this.#reading = new Reading(deps, queue, strangers);
    this.#deadlines = new Deadlines(deps.clock, deps.settings.bodyTimeoutMs);
  }

  /** Analytics events. @param account of the write token, if it came with one. */
  events(request: Request, table: string, account: Account | null): Response | Promise<Response> {
    return this.#write(request, this.#reading.eventsOf(table), account);
  }

  /** One analytics event in an address. The answer is a picture, or why the event is not taken. */
  async pixel(request: Request, table: string, account: Account | null): Promise<Response> {
    const { stillThere = null } = this.#deps;
    const bytes = eventOf(request.url);
    const there = stillThere === null ||
      await new Promise<boolean>((resolve) => stillThere(request, resolve));
    const writing = this.#begin(
      request,
      this.#reading.eventsOf(table),
      account,
      null,
      bytes.length,
      null,
    );
    if (writing instanceof Response) return writing;
    if (!writing.grant.take(bytes.length)) return this.#decode(writing, { kind: "full" });
    const answer = await this.#decode(
      writing,
      there ? { kind: "read", bytes } : { kind: "broken" },
    );
    return answer.ok ? reply.pixel(request) : answer;
  }

  /** Rows of any other table; `table` is a valid name. */
  rows(
    request: Request,
    table: string,
    account: Account | null,
    clientOf: ClientOf,
  ): Response | Promise<Response> {
    const columns = this.#deps.tables.columns(table);
    return typeof columns === "string"
      ? this.#deps.tables.lookUp(table, LOOK_UP_MS).then((found) =>
        this.#rowsOf(request, table, account, clientOf, found)
      )
      : this.#rowsOf(request, table, account, clientOf, columns);
  }

  #rowsOf(
    request: Request,
    table: string,
    account: Account | null,
    clientOf: ClientOf,
    columns: Columns | "missing" | "unknown",
  ): Response | Promise<Response> {
    const target = this.#reading.rowsOf(table, columns);
    if ("kind" in target) return unusable(target, table);
    const csv = csvOf(request.headers.get("content-type"));
    if (csv === null) return this.#write(request, target, account, clientOf);
    if ("problem" in csv) return reply.unusableCsv(csv.problem);
    const maxBytes = this.#deps.settings.maxBodyBytes * MOST_CSV_GROWTH;
    return this.#write(request, { ...target, csv: { ...csv, maxBytes } }, account, clientOf);
  }

  /**
   * No `await` on the way of a usual request: what it costs beyond reading and answering is mostly its
   * promises, and each `await` is one more (nine of them were a quarter of the whole).
   */
  #write(
    request: Request,
    target: Target,
    account: Account | null,
    clientOf: ClientOf | null = null,
  ): Response | Promise<Response> {
    const { settings, stillThere = null } = this.#deps;
    const header = request.headers.get("content-encoding");
    const encoding = parseEncoding(header);
    if (encoding === "unknown") return reply.unknownEncoding(header ?? "");
    const length = Number(request.headers.get("content-length") ?? 0);
    const writing = this.#begin(request, target, account, encoding, length, clientOf);
    if (writing instanceof Response) return writing;
    const body = readBody(
      request,
      encoding,
      settings.maxBodyBytes,
      writing.grant,
      this.#deadlines,
      stillThere,
    );
    return body instanceof Promise
      ? body.then((read) => this.#decode(writing, read))
      : this.#decode(writing, body);
  }

  /** What is known before the body is read. @param length of that, as sent. */
  #begin(
    request: Request,
    target: Target,
    account: Account | null,
    encoding: Encoding | null,
    length: number,
    clientOf: ClientOf | null,
  ): Writing | Response {
    const { clock, intake, settings } = this.#deps;
    const startedMs = clock.monotonicMs();
    const key = keyOf(request);
    if (key !== null && !KEY.test(key)) return reply.badKey(key);
    // What came before is answered also where there is no room.
    if (encoding === null && key === null && length <= settings.maxBodyBytes) {
      const foreseen = intake.refusal(length);
      if (foreseen !== null) return refused(foreseen);
    }
    const exceeded = key === null ? account?.refusal(1, 1) ?? null : null;
    if (exceeded !== null) return this.#exceeded(account!, exceeded, 1);
    const grant = new Grant(intake);
    return { request, target, encoding, key, startedMs, grant, account, clientOf };
  }

  #decode(writing: Writing, body: ReadBody): Response | Promise<Response> {
    const { settings } = this.#deps;
    if (body.kind !== "read") {
      writing.grant.free();
      return reply.unread(body.kind, settings.maxBodyBytes, writing.encoding);
    }
    const { key } = writing;
    return key === null
      ? this.#decodeAll(writing, body.bytes, null)
      : this.#decodeOnce(writing, body.bytes, { key, hash: hashOf(body.bytes) });
  }

  /** A body with a key. */
  #decodeOnce(writing: Writing, bytes: Uint8Array, named: Named): Response | Promise<Response> {
    const go = (known: Taken | null) => {
      if (known === null) return this.#decodeAll(writing, bytes, named);
      writing.grant.free();
      const prefer = parsePrefer(writing.request.headers.get("prefer"));
      return this.#given(writing, known, NOTHING_NEW, prefer, 0);
    };
    const known = this.#deps.intake.known(writing.target.table, named);
    return known instanceof Promise ? known.then(go) : go(known);
  }

  #decodeAll(
    writing: Writing,
    bytes: Uint8Array,
    named: Named | null,
  ): Response | Promise<Response> {
    try {
      const given = givenOf(writing, bytes);
      const decoded = this.#reading.decode(given);
      if (!(decoded instanceof Promise)) return this.#decoded(writing, given, decoded, named);
      return decoded.then((decoded) => this.#decoded(writing, given, decoded, named))
        .catch((error) => failed(writing.grant, error));
    } catch (error) {
      return failed(writing.grant, error);
    }
  }

  #decoded(
    writing: Writing,
    given: Given,
    decoded: Decoded,
    named: Named | null,
  ): Response | Promise<Response> {
    const { bytes } = given;
    if (!this.#reading.asks(given, decoded)) {
      return this.#take(writing, decoded, named, bytes.length);
    }
    return this.#reading.change(given, decoded).then((settled) => {
      if ("kind" in settled) {
        writing.grant.free();
        return unusable(settled, writing.target.table);
      }
      const { decoded, target, change } = settled;
      return this.#take({ ...writing, target }, decoded, named, bytes.length, change);
    }).catch((error) => failed(writing.grant, error));
  }

  #take(
    writing: Writing,
    decoded: Decoded,
    named: Named | null,
    bodyBytes: number,
    change: reply.Change | null = null,
  ): Response | Promise<Response> {
    // What is left is done at once, up to where the rows are the intake's own.
    writing.grant.free();
    if (decoded.kind === "refused") {
      return decoded.full ? reply.noRoom() : reply.badRequest(decoded.error);
    }
    const { request, account, target: { table, shape, columns, unknownKeys } } = writing;
    const { intake, ledger, tables } = this.#deps;
    const stamps = shape === "event" || columns === null ? [] : stampsIn(columns);
    const { rows, rejected, errors, body, lent, types, keys } = stamps.length === 0
      ? decoded
      : stamped(decoded, stamps, (name) => this.#stamp(writing, name));
    const prefer = parsePrefer(request.headers.get("prefer"));
    const strict = isStrict(request, prefer);
    if (rejected > 0 && (shape === "row" || isHeld(columns))) tables.doubt(table);
    if (rows === 0 || (strict && rejected > 0)) {
      if (rejected > 0) ledger.rejected(table, "invalid", rejected);
      if (rows > 0) ledger.rejected(table, "strict", rows);
      if (rows === 0 && shape === "event" && csvOf(request.headers.get("content-type")) !== null) {
        return reply.badRequest("CSV goes to POST /events/TABLE; events are JSON");
      }
      const allForRights = rejected > 0 && decoded.rightless === rejected;
      return reply.noneTaken(
        rejected + rows,
        errors,
        prefer.strict ? STRICT : "",
        change,
        allForRights,
      );
    }
    const exceeded = account?.refusal(rows, bodyBytes) ?? null;
    if (exceeded !== null) {
      return this.#exceeded(account!, exceeded, exceeded.quota.what === "rows" ? rows : bodyBytes);
    }
    // Rows with keys that are no columns yet are in batches of their own.
    const fingerprint = unknownKeys?.policy === "pass" ? null : columns?.fingerprint ?? null;
    const chunk = { table, shape, rows, body, lent, types, keys, fingerprint };
    const taken = intake.take(named === null ? chunk : { ...chunk, key: { ...named, rejected } });
    const tally = { accepted: rows, rejected, errors, change };
    return this.#given(writing, taken, tally, prefer, bodyBytes);
  }

  /** What is known of a request. */
  #stamp({ request, clientOf }: Writing, name: Parameters<StampOf>[0]): string | null {
    const { clock, settings } = this.#deps;
    switch (name) {
      case "_received_at":
        return new Date(clock.nowMs()).toISOString();
      case "_client_ip":
        return clientOf?.(request) || null;
      case "_user_agent":
        return request.headers.get("user-agent")?.slice(0, LONGEST_AGENT) ?? null;
      case "_collector":
        return settings.id;
      case "_request_id":
        return requestId(request);
    }
  }

  /** @param amount of the request, of what the quota counts. */
  #exceeded(account: Account, exceeded: Exceeded, amount: number): Response {
    const { label } = account;
    const { quota: { text, periodMs }, first } = exceeded;
    this.#deps.ledger.tokenRefused(label, "quota");
    // Of shorter periods the counts tell enough.
    if (first && periodMs >= TOLD_FROM_MS) {
      this.#deps.log.warn("a write token has used up a quota", { token: label, quota: text });
    }
    return reply.quotaUsed(label, exceeded, amount);
  }

  #given(
    writing: Writing,
    taken: Taken,
    fresh: reply.Tally,
    prefer: Preferences,
    bodyBytes: number,
  ): Response | Promise<Response> {
    if (taken.kind === "refused") return refused(taken, writing.key);
    const { ticket, before } = taken;
    const tally = before === undefined ? fresh : { ...NOTHING_NEW, ...before };
    const { account } = writing;
    // At once, or other requests would use the same room while this one is synced.
    const usedMs = account === null || before !== undefined
      ? null
      : account.use(tally.accepted, bodyBytes);
    if (ticket.kept === null) return this.#taken(writing, tally, prefer, ticket, bodyBytes);
    return ticket.kept.then((unkept) => {
      if (unkept === null) return this.#taken(writing, tally, prefer, ticket, bodyBytes);
      if (usedMs !== null) account!.giveBack(tally.accepted, bodyBytes, usedMs);
      return refused(unkept);
    });
  }

  #taken(
    { target, startedMs, account }: Writing,
    tally: reply.Tally,
    prefer: Preferences,
    ticket: Ticket,
    bodyBytes: number,
  ): Response | Promise<Response> {
    const { ledger, clock } = this.#deps;
    const { rejected, duplicate = false } = tally;
    if (rejected > 0 && !duplicate) ledger.rejected(target.table, "invalid", rejected);
    if (account !== null && !duplicate) {
      ledger.tokenTook(account.label, tally.accepted, bodyBytes);
    }
    const waitMs = this.#waitMs(prefer);
    const applied = prefer.strict ? STRICT : "";
    if (waitMs !== null) {
      return this.#settle(ticket, waitMs, tally, startedMs, withWait(applied, prefer));
    }
    ledger.acknowledged(clock.monotonicMs() - startedMs);
    return reply.taken(tally, ticket.reached, 0, applied);
  }

  async #settle(
    ticket: Ticket,
    waitMs: number,
    tally: reply.Tally,
    startedMs: number,
    applied: string,
  ): Promise<Response> {
    const { ledger, clock } = this.#deps;
    const settled = await ticket.settled(waitMs);
    ledger.acknowledged(clock.monotonicMs() - startedMs);
    return settled === null
      ? reply.taken(tally, ticket.reached, 0, applied)
      : reply.taken(tally, "clickhouse", settled.dead, applied);
  }

  /** How long the answer waits for the insert; null: not at all. */
  #waitMs({ waitS }: Preferences): number | null {
    if (waitS !== null) return waitS * 1000;
    const { ack, insertTimeoutMs } = this.#deps.settings;
    return ack === "clickhouse" ? insertTimeoutMs : null;
  }
}

function givenOf(writing: Writing, bytes: Uint8Array): Given {
  const { target, grant, request } = writing;
  const mayTake = (bytes: number) => grant.take(bytes);
  return { bytes, target, mayTake, strict: () => isStrict(request) };
}

function unusable(why: Unusable, table: string): Response {
  switch (why.kind) {
    case "missing":
      return reply.noTable(table, `there is no table ${excerpt(table)}`);
    case "unconfirmed":
      return reply.closed(UNCONFIRMED);
    case "closed":
      return reply.takesNone(why.closed);
    case "unmade":
      return reply.notMade(why.why, why.problem);
  }
}

function refused({ why, reason, retryAfterS }: Refused, key: string | null = null): Response {
  if (why === "key") return reply.usedKey(key ?? "", reason);
  return why === "full" ? reply.full(reason, retryAfterS) : reply.closed(reason, retryAfterS);
}

/** Rows are written into memory, and there may be none: the room for the body must not be lost too. */
function failed(grant: Grant, error: unknown): never {
  grant.free();
  throw error;
}

function withWait(applied: string, { waitS }: Preferences): string {
  if (waitS === null) return applied;
  return applied === "" ? `wait=${waitS}` : `${applied}, wait=${waitS}`;
}

/** In JSON each row has the names of its columns. */
const MOST_CSV_GROWTH = 8;

const KEY = /^[\x21-\x7e]{1,128}$/;
/** What was wrong with its rows is not remembered. */
const NOTHING_NEW: reply.Tally = { accepted: 0, rejected: 0, errors: [], duplicate: true };

/** Of the header, or `?key=` where a client can set none; null: there is none. */
function keyOf({ headers, url }: Request): string | null {
  const header = headers.get("idempotency-key");
  if (header !== null) return header;
  const query = url.indexOf("?");
  return query < 0 ? null : new URLSearchParams(url.slice(query + 1)).get("key");
}

/** Whether events may not fit them. */
function isHeld(columns: Columns | null): boolean {
  return columns !== null && eventColumnsOf(columns) !== null;
}

/** What of CSV a Content-Type says (RFC 4180; IANA's text/tab-separated-values); null: it is of something else. */
function csvOf(
  type: string | null,
): { readonly delimiter: "," | "\t" } | { readonly problem: string } | null {
  const kind = type === null ? null : /^text\/(csv|tab-separated-values)\s*(?:;|$)/i.exec(type);
  if (kind === null) return null;
  const [, charset = "utf-8"] = /;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(type!) ?? [];
  if (!/^(?:utf-?8|us-ascii)$/i.test(charset)) {
    return { problem: `charset: expected utf-8, got ${excerpt(charset)}` };
  }
  if (/;\s*header\s*=\s*"?absent/i.test(type!)) {
    return {
      problem: "header: expected present, got absent; the first line has to name the columns",
    };
  }
  return { delimiter: kind[1]!.toLowerCase() === "csv" ? "," : "\t" };
}

/** 132 bits of SHA-256: no other body has it. */
function hashOf(bytes: Uint8Array): string {
  return nodeCrypto().createHash("sha256").update(bytes).digest("base64url").slice(0, 22);
}

/** Whether a row that is wrong refuses the request. */
function isStrict(
  { headers, url }: Request,
  { strict }: Preferences = parsePrefer(headers.get("prefer")),
): boolean {
  return strict || asksStrict(url);
}

/** `?strict`, `?strict=1` or `?strict=true`. */
function asksStrict(url: string): boolean {
  const query = url.indexOf("?");
  if (query < 0) return false;
  const wish = new URLSearchParams(url.slice(query + 1)).get("strict");
  return wish === "" || wish === "1" || wish === "true";
}

// ── What a client prefers (`Prefer`, RFC 7240), as far as Shishi honours it: `handling=strict|lenient` and
// `wait=N`. Whatever else it prefers is ignored, as the RFC wants.

interface Preferences {
  /** One bad row refuses the request. */
  readonly strict: boolean;
  /** Seconds to wait for the insert, at most `LONGEST_WAIT_S`; null: no wish. */
  readonly waitS: number | null;
}

/** A longer wait is cut to this. */
const LONGEST_WAIT_S = 240;

const NO_PREFERENCES: Preferences = { strict: false, waitS: null };

/** One preference: its name, and its value as a word or in quotes; parameters after `;` are skipped. */
const PREFERENCE =
  /([!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*)))?((?:\s*;(?:[^,"]|"(?:[^"\\]|\\.)*")*)?)\s*(?:,|$)/y;

/** @param header all `Prefer` headers of the request, joined with commas as `Headers.get` does. */
export function parsePrefer(header: string | null): Preferences {
  if (header === null) return NO_PREFERENCES;
  const found = new Map<string, string>();
  let at = 0;
  while (at < header.length) {
    PREFERENCE.lastIndex = at = afterSeparators(header, at);
    const match = PREFERENCE.exec(header);
    if (match === null) {
      // Not a preference: go on behind the next comma.
      const comma = header.indexOf(",", at);
      if (comma < 0) break;
      at = comma + 1;
      continue;
    }
    at = PREFERENCE.lastIndex;
    const name = match[1]!.toLowerCase();
    // The first of several is the one that counts.
    if (!found.has(name)) found.set(name, match[2]?.replace(/\\(.)/g, "$1") ?? match[3] ?? "");
  }
  const wait = found.get("wait");
  return {
    strict: found.get("handling")?.toLowerCase() === "strict",
    waitS: wait !== undefined && /^\d{1,9}$/.test(wait)
      ? Math.min(Number(wait), LONGEST_WAIT_S)
      : null,
  };
}

function afterSeparators(header: string, at: number): number {
  while (at < header.length && (header[at] === "," || header[at] === " " || header[at] === "\t")) {
    at++;
  }
  return at;
}
