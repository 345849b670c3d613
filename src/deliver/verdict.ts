/**
 * What one answer to an INSERT means: pure, decided by ClickHouse's exception code and never by the
 * HTTP status alone. Row errors come as 500, transient ones as 4xx, and an exception may follow a 200.
 *
 * Texts hold pieces of rows, so a client could write "(at row 1)" into its data. A row's number is
 * therefore believed only where the server itself puts it, at the very end of the text.
 */

import type { Trouble, Verdict, ViewName } from "../contracts.ts";
import type { Answer, Exchanged } from "../kernel/http.ts";

/** Code and text of an exception, as far as an answer tells one. */
export interface Exception {
  readonly code: number;
  readonly text: string;
}

const MESSAGE_LENGTH = 500;

const OWN_MEMORY = /Query memory limit exceeded|Memory limit \(for query\) exceeded/;

const PUSHING_TO_VIEW = /while pushing to view/i;

/** `nowMs` is for a `Retry-After` that is a date. */
export function verdictOf(answered: Exchanged, nowMs: number): Verdict {
  if (!answered.ok) {
    const unknown = answered.unsent !== true;
    return { kind: "transient", code: 0, message: answered.problem, unknown };
  }
  const answer = answered.value;
  const exception = exceptionOf(answer);
  if (exception === null) return withoutCode(answer, nowMs);
  const { code, text } = exception;
  const trouble = { code, message: messageOf(text) || `ClickHouse exception ${code}` };
  const pushing = PUSHING_TO_VIEW.test(text);
  const unknown = pushing || UNKNOWN_CODES.has(code);

  if (code === 115 || code === 452) {
    const setting = settingOf(exception);
    return setting === null
      ? { kind: "table", ...trouble }
      : { kind: "unknown-setting", setting, ...trouble };
  }
  if (code === 252 && /too many partitions/i.test(text)) return { kind: "split", ...trouble };
  // Memory of this very INSERT; a view's comes after the table has the rows.
  if (code === 241 && OWN_MEMORY.test(text) && !pushing) return { kind: "split", ...trouble };
  // The time may be over in a view, which is not told, or right after all is stored.
  if (code === 159 && !pushing) {
    return { kind: "split", ...trouble, unknown: writtenRows(answer) !== 0 };
  }
  if (TRANSIENT_CODES.has(code)) {
    return { kind: "transient", ...trouble, ...retryAfter(answer, nowMs), unknown };
  }
  // The table has the rows when one of its views fails (all ages of ClickHouse: measured). Only the same
  // token is harmless then; other tokens would store rows twice.
  if (pushing) {
    const view = viewOf(text);
    return { kind: "table", ...trouble, unknown, ...(view === null ? {} : { view }) };
  }
  if (ROW_CODES.has(code)) return { kind: "row", row: rowOf(code, text), ...trouble };
  // 18.16 has no code of its own for some of these (an unknown enum element is a LOGICAL_ERROR).
  if (readsAValue(text)) return { kind: "row", row: rowOf(code, text), ...trouble };
  if (TABLE_CODES.has(code)) return { kind: "table", ...trouble };
  return { kind: "transient", ...trouble, ...retryAfter(answer, nowMs), unknown: true };
}

/** Whether an INSERT of this verdict may be stored all the same. */
export function mayBeStored(verdict: Verdict): boolean {
  return "unknown" in verdict && verdict.unknown === true;
}

/** What the summary of an answer says was written; null where it says nothing. */
function writtenRows({ headers }: Answer): number | null {
  const rows = /"written_rows":"?(\d+)/.exec(headers["x-clickhouse-summary"] ?? "")?.[1];
  return rows === undefined ? null : Number(rows);
}

/** The setting that an exception (115, 452) speaks of. */
export function settingOf({ code, text }: Exception): string | null {
  const named = code === 115
    ? /Unknown setting '?([A-Za-z0-9_]+)/
    : /Setting '?([A-Za-z0-9_]+)'? (?:should|is )/;
  return text.match(named)?.[1] ?? null;
}

/** The exception that an answer tells, in its header or in its body, whatever its status. */
export function exceptionOf(answer: Answer): Exception | null {
  const header = Number(answer.headers["x-clickhouse-exception-code"]);
  const coded = Number.isSafeInteger(header) && header > 0;
  if (!coded && answer.body.length === 0) return null;
  const body = new TextDecoder().decode(answer.body);
  // The start of a line: at the start of the body, after the rows of a 200, or after 26.7's tag.
  const start = body.search(
    /(?<=^|\n)(?:(?:Poco::Exception|std::exception)\. )?Code: \d+(?:\. DB::|, )/,
  );
  const text = start < 0 ? body : body.slice(start);
  if (coded) return { code: header, text };
  if (start < 0) return null;
  return { code: Number(text.match(/Code: (\d+)/)?.[1]), text };
}

/** An answer without an exception: success, or something that stands in front of ClickHouse. */
function withoutCode(answer: Answer, nowMs: number): Verdict {
  const { status } = answer;
  const body = new TextDecoder().decode(answer.body).trim();
  if (status === 200 && body === "" && isClickHouse(answer)) return { kind: "stored" };
  // A proxy refuses the size of the request; smaller requests pass.
  if (status === 413) {
    return { kind: "split", code: 0, message: "HTTP 413: the INSERT is too large for a proxy" };
  }
  // Also 401, 403 and 404: a server that does not know the table, the user or its rights says so with a
  // code.
  return {
    kind: "transient",
    code: 0,
    message: describe(status, answer.headers["location"], body),
    ...retryAfter(answer, nowMs),
    // A proxy that refuses has passed nothing on; one that fails may have.
    unknown: status === 200 || status >= 500 && status !== 503,
  };
}

/** Headers of ClickHouse's own that its answers carry; 18.16 sends the first of them alone. */
const OWN_HEADERS = [
  "x-clickhouse-server-display-name",
  "x-clickhouse-summary",
  "x-clickhouse-query-id",
  "x-clickhouse-format",
  "x-clickhouse-timezone",
];

/**
 * Whether a ClickHouse gave this answer. A 200 of a balancer, a maintenance page or another program on a
 * wrong port is no word about rows.
 */
export function isClickHouse(answer: Answer): boolean {
  return OWN_HEADERS.some((name) => answer.headers[name] !== undefined);
}

/** What is said of a 200 that no ClickHouse gave. */
export const NO_CLICKHOUSE =
  "HTTP 200 from what is no ClickHouse: it sends none of ClickHouse's headers";

function describe(status: number, location: string | undefined, body: string): string {
  if (status >= 300 && status < 400) {
    return `HTTP ${status}: redirected to ${
      hostOf(location)
    }, which is refused: set clickhouse-url to the server itself`;
  }
  const excerpt = body.replace(/\s+/g, " ").slice(0, 120);
  const seen = excerpt === "" ? "" : `: ${excerpt}`;
  if (status === 200 && seen === "") return NO_CLICKHOUSE;
  if (status === 200) return `HTTP 200 with a body that is not ClickHouse's${seen}`;
  return `HTTP ${status} without a ClickHouse exception code${seen}`;
}

function hostOf(location: string | undefined): string {
  if (location === undefined) return "an unnamed place";
  const host = location.match(/^[a-z]+:\/\/(?:[^/@]*@)?([^/?#]+)/i)?.[1];
  return host ?? "another path of the same host";
}

/** `Retry-After` in seconds or as an HTTP date, bounded to an hour; nothing where it says nothing. */
function retryAfter(answer: Answer, nowMs: number): { retryAfterMs?: number } {
  const value = answer.headers["retry-after"]?.trim() ?? "";
  const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1000 : Date.parse(value) - nowMs;
  return Number.isFinite(ms) ? { retryAfterMs: Math.min(Math.max(ms, 0), 3_600_000) } : {};
}

/** What follows the server's own "(at row N)\n" when nothing of a row's content can follow it. */
const ROW_AT_THE_END =
  /\(at row (\d+)\)\n(?:: While executing [A-Za-z]+(?:: [A-Za-z ]+)?)?\.?(?:\s*\([A-Z0-9_]+\) \(version [^)]*(?:\([^)]*\))?\)|, e\.what\(\) = DB::[A-Za-z]+)?\s*$/;

function rowOf(code: number, text: string): number | null {
  // The row's values follow the number here, the constraint's name comes from the table.
  const found = code === 469
    ? text.match(/^[^\n]*? is violated at row (\d+)\. Expression: /)
    : text.match(ROW_AT_THE_END);
  const row = Number(found?.[1] ?? 0);
  return Number.isSafeInteger(row) && row > 0 ? row : null;
}

/** The view that failed, of the end of a text; rows may stand before it. */
function viewOf(text: string): ViewName | null {
  const name = "(?:`((?:[^`\\\\]|\\\\.)+)`|([A-Za-z_0-9]+))";
  const end = "(?: \\([0-9a-f-]{36}\\))?\\.?(?: \\([A-Z_0-9]+\\) \\(version |, e\\.what\\(\\) = )";
  const all = [...text.matchAll(new RegExp(`while pushing to view ${name}\\.${name}${end}`, "g"))];
  const found = all.at(-1);
  if (found === undefined) return null;
  const [, quoted, plain, quotedName, plainName] = found;
  const whole = (one?: string, other?: string) => one?.replace(/\\(.)/g, "$1") ?? other ?? "";
  return { database: whole(quoted, plain), name: whole(quotedName, plainName) };
}

function readsAValue(text: string): boolean {
  return ROW_AT_THE_END.test(text) ||
    /: \(while read(?:ing)? the value of key .{1,300}\)(?:, e\.what\(\)|: |\n|\. \()/s.test(text);
}

/** The first line without code, row number and version: what a person wants to read. */
export function messageOf(text: string): string {
  const line = text
    .replace(/^(?:(?:Poco::Exception|std::exception)\. )?Code: \d+(?:\.|,)\s*/, "")
    .replace(/^(?:e\.code\(\) = -?\d+, )?e\.displayText\(\) = /, "")
    .replace(/^DB::[A-Za-z]+: /, "")
    .replace(/, e\.what\(\) = .*$/s, "")
    .split("\n", 1)[0] ?? "";
  return line
    .replace(/\s*(?:\([A-Z0-9_]+\) )?\(version .*$/, "")
    .replace(/: \(at row \d+\)\s*$/, "")
    // The excerpt goes on into the rows that follow, which are none of this message's business.
    .replace(/( before: .*?\})\\n.*?('?: \(while read.{0,200}\))?$/, "$1…$2")
    .trim()
    .slice(0, MESSAGE_LENGTH);
}

// ── ClickHouse's exception codes (ErrorCodes.cpp; they never change their meaning), sorted by what they
// mean for an INSERT. A code that stands in no group is transient: waiting loses nothing, and a wrong
// guess in the other direction throws rows away.

/** The content of a row: the same row fails for ever, other rows do not. */
const ROW_CODES: ReadonlySet<number> = new Set([
  // JSON or text that does not parse: text, escape sequence, quoted string, input assertion, end of
  // the input within a row, trailing data, array, map, boolean.
  ...[6, 25, 26, 27, 32, 33, 130, 467, 563, 632],
  // Values that do not parse as the column's type: date, time, number, UUID, domains, IPv4, IPv6, enum.
  ...[38, 41, 72, 376, 441, 675, 676, 691],
  // Values that parse and do not fit: type, bounds, conversion, string and array sizes, decimals.
  ...[19, 53, 69, 70, 128, 131, 321, 407],
  // Unknown or repeated keys, sizes of Nested columns that differ, nesting that is too deep.
  ...[117, 120, 190, 306],
  // null where there is no default; a CHECK constraint; DEFAULT expressions that divide or throw.
  ...[349, 469, 153, 395],
]);

/** The table, the statement or the user's rights: no row passes until something is changed there. */
const TABLE_CODES: ReadonlySet<number> = new Set([
  // No such table, database, column; a column too many or too few.
  ...[60, 81, 218, 8, 10, 16, 20, 44, 47],
  // Types, functions and syntax that this server lacks, and writing that the table's engine lacks.
  ...[1, 36, 43, 46, 48, 50, 62, 63, 73, 344],
  // The user and its rights.
  ...[192, 193, 194, 195, 291, 492, 497, 516, 720],
  // Writing is forbidden: to this user, to the table for a while (a replica without Keeper), or for good.
  ...[164, 242, 774],
  // Limits and settings of the user's profile that refuse this statement.
  ...[158, 161, 165, 166, 167, 168, 307, 396, 452, 471, 472, 572, 718],
]);

/** The server, for now. Listed where the text of the answer could look like a row's. */
export const TRANSIENT_CODES: ReadonlySet<number> = new Set([
  // Time: estimated too slow, timed out, cancelled, shutting down, overloaded, over quota.
  ...[159, 160, 209, 236, 394, 473, 734, 735, 745, 201],
  // Too much at once: queries, connections, memory, parts (its other meaning is `split`).
  ...[202, 203, 173, 241, 252, 362, 364, 700, 749, 762],
  // Disk, network, replicas, Keeper, remote storage.
  ...[74, 75, 76, 95, 96, 210, 225, 243, 244, 254, 279, 285, 286, 319, 341, 499, 519, 999],
  // What arrived was damaged on the way (compression), which says nothing about the rows.
  ...[89, 271, 354, 561],
  // Exceptions of libraries: files, sockets, memory.
  ...[1000, 1001, 1002],
]);

/**
 * What may be said of an INSERT that is stored: its time was over, it was cancelled, a connection broke, a
 * quorum or Keeper did not answer in time, a shard of several failed.
 */
const UNKNOWN_CODES: ReadonlySet<number> = new Set([
  ...[159, 209, 210, 236, 279, 285, 286, 319, 394, 734, 735, 999],
  ...[74, 75, 76, 225, 243, 499, 1000, 1001, 1002],
]);

/** One server and neither rows nor table: another one may well take the same INSERT. */
const SERVER_CODES: ReadonlySet<number> = new Set([
  // Unknown user, password, authentication; what the user's profile there forbids.
  ...[192, 193, 194, 516, 452],
  // Read-only for want of Keeper, no Keeper, no space, no memory, shutting down.
  ...[242, 225, 243, 173, 236],
  // Too many queries, no free connection, overloaded.
  ...[202, 203, 745],
]);

/** What one replica may lack or have too much of: table, database, right, room for parts. */
const REPLICA_CODES: ReadonlySet<number> = new Set([60, 81, 252, 497]);

/**
 * How far a refusal reaches: this `server`, this `table` on it, or, null, wherever the rows go. What a view
 * says comes after the table has its rows, and goes nowhere else.
 */
export function reachOf({ code, message }: Trouble): "server" | "table" | null {
  if (code === 0) return "server";
  if (PUSHING_TO_VIEW.test(message)) return null;
  if (SERVER_CODES.has(code)) return "server";
  // "(total) memory limit exceeded", and "Memory limit (total) exceeded" before it.
  if (code === 241 && /\(total\)/.test(message)) return "server";
  if (code === 252 && /too many partitions/i.test(message)) return null;
  return REPLICA_CODES.has(code) ? "table" : null;
}

/** Functions, types and syntax that a server lacks which is too old for events. */
const LACKING_CODES: ReadonlySet<number> = new Set([46, 50, 62]);

/** Whether a statement about events failed because the server knows no Map, DateTime64 or `input(…)`. */
export function isTooOld(code: number): boolean {
  return LACKING_CODES.has(code);
}
