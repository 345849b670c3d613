/**
 * What one answer to an INSERT means: pure, decided by ClickHouse's exception code and never by the
 * HTTP status alone. Row errors come as 500, transient ones as 4xx, and an exception may follow a 200.
 *
 * Texts hold pieces of rows, so a client could write "(at row 1)" into its data. A row's number is
 * therefore believed only where the server itself puts it, at the very end of the text.
 */

import type { Verdict } from "../contracts.ts";
import { ROW_CODES, TABLE_CODES, TRANSIENT_CODES } from "./codes.ts";
import type { Answer, NoAnswer } from "../kernel/http.ts";

/** Code and text of an exception, as far as an answer tells one. */
export interface Exception {
  readonly code: number;
  readonly text: string;
}

const MESSAGE_LENGTH = 500;

/** `nowMs` is for a `Retry-After` that is a date. */
export function verdictOf(answer: Answer | NoAnswer, nowMs: number): Verdict {
  if ("networkError" in answer) {
    return { kind: "transient", code: 0, message: answer.networkError };
  }
  const exception = exceptionOf(answer);
  if (exception === null) return withoutCode(answer, nowMs);
  const { code, text } = exception;
  const trouble = { code, message: messageOf(text) || `ClickHouse exception ${code}` };

  if (code === 115 || code === 452) {
    const setting = text.match(
      code === 115 ? /Unknown setting '?([A-Za-z0-9_]+)/ : /Setting '?([A-Za-z0-9_]+)'? should/,
    )?.[1];
    return setting === undefined
      ? { kind: "table", ...trouble }
      : { kind: "unknown-setting", setting, ...trouble };
  }
  if (code === 252 && /too many partitions/i.test(text)) return { kind: "split", ...trouble };
  if (TRANSIENT_CODES.has(code)) {
    return { kind: "transient", ...trouble, ...retryAfter(answer, nowMs) };
  }
  // The rows may be in the table already when one of its views fails. Only the same batch under the
  // same token is harmless then; taking it apart would store rows twice.
  if (/while pushing to view/i.test(text)) return { kind: "table", ...trouble };
  if (ROW_CODES.has(code)) return { kind: "row", row: rowOf(code, text), ...trouble };
  // 18.16 has no code of its own for some of these (an unknown enum element is a LOGICAL_ERROR).
  if (readsAValue(text)) return { kind: "row", row: rowOf(code, text), ...trouble };
  if (TABLE_CODES.has(code)) return { kind: "table", ...trouble };
  return { kind: "transient", ...trouble, ...retryAfter(answer, nowMs) };
}

/** The exception that an answer tells, in its header or in its body, whatever its status. */
export function exceptionOf(answer: Answer): Exception | null {
  const body = new TextDecoder().decode(answer.body);
  // The start of a line: at the start of the body, after the rows of a 200, or after 26.7's tag.
  const start = body.search(
    /(?<=^|\n)(?:(?:Poco::Exception|std::exception)\. )?Code: \d+(?:\. DB::|, )/,
  );
  const text = start < 0 ? body : body.slice(start);
  const header = Number(answer.headers["x-clickhouse-exception-code"]);
  if (Number.isSafeInteger(header) && header > 0) return { code: header, text };
  if (start < 0) return null;
  return { code: Number(text.match(/Code: (\d+)/)?.[1]), text };
}

/** Nobody spoke for ClickHouse: success, or something that stands in front of it. */
function withoutCode(answer: Answer, nowMs: number): Verdict {
  const { status } = answer;
  const body = new TextDecoder().decode(answer.body).trim();
  if (status === 200 && body === "") return { kind: "stored" };
  // A proxy refuses the size of the request; smaller requests pass.
  if (status === 413) {
    return { kind: "split", code: 0, message: "HTTP 413: the INSERT is too large for a proxy" };
  }
  // Also 401, 403 and 404: a server that does not know our table, user or rights says so with a code.
  return {
    kind: "transient",
    code: 0,
    message: describe(status, answer.headers["location"], body),
    ...retryAfter(answer, nowMs),
  };
}

function describe(status: number, location: string | undefined, body: string): string {
  if (status >= 300 && status < 400) {
    return `HTTP ${status}: redirected to ${
      hostOf(location)
    }, which is refused: set clickhouse-url to the server itself`;
  }
  const excerpt = body.replace(/\s+/g, " ").slice(0, 120);
  const seen = excerpt === "" ? "" : `: ${excerpt}`;
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
