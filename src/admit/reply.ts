/**
 * Every answer of the HTTP interface, and the only place that knows their statuses. Bodies are JSON
 * that ends in a newline, so that `curl` leaves the terminal tidy. No stack and no path of the host
 * is ever in one.
 */

import {
  type Ack,
  type Asked,
  type Closed,
  type Replaying,
  UNAVAILABLE_RETRY_S,
} from "../contracts.ts";
import { ENCODINGS, MOST_FRAMES, type ReadBody } from "./body.ts";
import type { RowError } from "./decode.ts";
import type { Exceeded, Rate } from "../kernel/rate.ts";
import { excerpt } from "../kernel/text.ts";

/** The header that names a request, in both directions. */
export const REQUEST_ID = "x-request-id";

/** Nothing keeps the answer to a POST; to say so would cost every one of them. */
const TAKEN: Readonly<Record<string, string>> = {
  "content-type": "application/json",
  "x-content-type-options": "nosniff",
};
const JSON_HEADERS: Readonly<Record<string, string>> = { ...TAKEN, "cache-control": "no-store" };
/** Made once: to turn a plain object into headers costs more than the rest of an answer. */
const TAKEN_HEADERS = new Headers(TAKEN);
const ACCEPTED: ResponseInit = { status: 202, headers: TAKEN_HEADERS };
const STORED: ResponseInit = { status: 200, headers: TAKEN_HEADERS };

/** Bodies under way are soon read. */
const NO_ROOM_RETRY_S = 1;
/** Characters of lines that are sent at once. */
const LINES_LENGTH = 64 * 1024;

/** What became of the rows of one request. */
export interface Tally {
  readonly accepted: number;
  readonly rejected: number;
  readonly errors: readonly RowError[];
  /** They came before, under the same key. */
  readonly duplicate?: boolean;
  /** What was done to the table for them. */
  readonly change?: Change | null;
}

/** A table was made, or has got columns. */
export interface Change {
  /** Its name, where it was not there before. */
  readonly created: string | null;
  /** With their types, for people. */
  readonly columns: readonly string[];
}

/** @param dead rows that ClickHouse refused, known only with `clickhouse`. @param applied preferences. */
export function taken(tally: Tally, ack: Ack, dead: number, applied: string): Response {
  const { accepted, rejected, errors, duplicate = false, change = null } = tally;
  const init = ack === "clickhouse" ? STORED : ACCEPTED;
  const list = errors.length === 0 ? "[]" : JSON.stringify(errors);
  const more = (dead > 0 ? `,"dead":${dead}` : "") + (duplicate ? ',"duplicate":true' : "") +
    (change === null ? "" : `,${JSON.stringify(named(change)).slice(1, -1)}`);
  return new Response(
    `{"accepted":${accepted},"rejected":${rejected},"ack":"${ack}"${more},"errors":${list}}\n`,
    applied === "" ? init : { ...init, headers: withApplied(applied) },
  );
}

/** Rows were told apart, and none was taken. @param allForRights each was refused for a right that is missing. */
export function noneTaken(
  rejected: number,
  errors: readonly RowError[],
  applied: string,
  change: Change | null = null,
  allForRights = false,
): Response {
  const done = change === null ? {} : named(change);
  return json(
    allForRights ? 403 : 400,
    { accepted: 0, rejected, ...done, errors },
    applied === "" ? {} : withApplied(applied),
  );
}

function named({ created, columns }: Change) {
  return { ...(created === null ? {} : { created }), columns };
}

/** A table that is not there could not be made. */
export function notMade(why: "right" | "rows" | "kind", error: string): Response {
  return json(why === "right" ? 403 : why === "rows" ? 400 : 404, { error });
}

/** A transparent picture of one pixel. */
const GIF = Uint8Array.from(
  atob("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"),
  (char) => char.charCodeAt(0),
);
/** Nothing on the way keeps it, or the next event would not come; pages of every site may show it. */
const PIXEL_HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-store, no-cache, must-revalidate, private, max-age=0",
  "pragma": "no-cache",
  "expires": "0",
  "x-content-type-options": "nosniff",
  "cross-origin-resource-policy": "cross-origin",
};

/** An event in an address was taken, or would be: nothing is shown to a client that takes no pictures. */
export function pixel({ headers }: Request): Response {
  const accepted = headers.get("accept");
  return accepted === null || /image\/|\*\/\*/.test(accepted)
    ? new Response(GIF, { headers: { ...PIXEL_HEADERS, "content-type": "image/gif" } })
    : new Response(null, { status: 204, headers: PIXEL_HEADERS });
}

export function badRequest(error: string): Response {
  return json(400, { error });
}

/**
 * @param wrong it came with a token, which is never repeated. @param tokens which are set.
 * @param write it is a write, which both kinds may do.
 */
export function unauthorized(
  wrong: boolean,
  tokens: { readonly reading: boolean; readonly writing: boolean },
  write: boolean,
): Response {
  if (!tokens.reading && !write) {
    return json(401, { error: "auth-tokens is not set, and write-tokens may only append" }, {
      "www-authenticate": "Bearer",
    });
  }
  const kinds = [
    ...(tokens.reading ? ["auth-tokens"] : []),
    ...(tokens.writing && write ? ["write-tokens"] : []),
  ];
  return wrong
    ? json(401, { error: `Authorization: the token is not one of ${kinds.join(" or ")}` }, {
      "www-authenticate": 'Bearer error="invalid_token"',
    })
    : json(401, { error: "a bearer token is needed: Authorization: Bearer TOKEN" }, {
      "www-authenticate": "Bearer",
    });
}

const NO_RIGHT = { "www-authenticate": 'Bearer error="insufficient_scope"' };

/** A write token where an auth token is needed. @param label of the token. */
export function mayOnlyAppend(label: string): Response {
  const error = `write-tokens: ${label} may only append; this needs one of auth-tokens`;
  return json(403, { error }, NO_RIGHT);
}

/** A write token of other tables. */
export function notItsTable(label: string, table: string, tables: readonly string[]): Response {
  const error = `write-tokens: ${label} may not write to ${excerpt(table)}, only to ${
    tables.join(", ")
  }`;
  return json(403, { error }, NO_RIGHT);
}

/** A quota of a write token. @param amount of the request, where that alone is too much. */
export function quotaUsed(
  label: string,
  { quota: { text, what }, retryAfterS }: Exceeded,
  amount: number,
): Response {
  if (retryAfterS === null) {
    return json(413, {
      error: `write-tokens: ${label} has a quota of ${text} (${what}), and this request has ` +
        `${amount} ${what}; nothing was taken`,
    });
  }
  const error = `write-tokens: ${label} has a quota of ${text} (${what}), and what is left of it ` +
    "is less than this request has; nothing was taken";
  return json(429, { error }, { "retry-after": seconds(retryAfterS) });
}

/** A page of another site asks. */
export function foreign(error: string): Response {
  return json(403, { error });
}

/** Of a table that can never take rows. */
export function takesNone({ why, reason }: Closed): Response {
  return json(why === "right" ? 403 : 409, { error: reason });
}

/** Of the path that has the name of a table. */
export function noTable(table: string, error: string): Response {
  const meant = table === "events" ? "; for analytics events use POST /events" : "";
  return notFound(`${error}${meant}`);
}

export function notFound(error: string): Response {
  return json(404, { error });
}

/** @param allowed for `Allow`, e.g. `GET, HEAD`. */
export function wrongMethod(method: string, path: string, allowed: string): Response {
  return json(405, { error: `${path} takes ${allowed}, not ${excerpt(method)}` }, {
    allow: allowed,
  });
}

export function badKey(key: string): Response {
  return badRequest(
    `Idempotency-Key: expected 1 to 128 visible ASCII characters, got ${excerpt(key)}`,
  );
}

/** A key that came with something else before. */
export function usedKey(key: string, reason: string): Response {
  return json(422, { error: `Idempotency-Key ${excerpt(key)}: ${reason}` });
}

/** @param problem of a parameter of its Content-Type. */
export function unusableCsv(problem: string): Response {
  return json(415, { error: `Content-Type: ${problem}` });
}

export function unknownEncoding(header: string): Response {
  const error = `Content-Encoding: expected one of ${ENCODINGS}, got ${excerpt(header)}`;
  return json(415, { error }, { "accept-encoding": ENCODINGS });
}

/**
 * The body could not be read. The rest of one that is too large is thrown away as it comes, and the
 * connection stays: most clients read no answer before they have sent everything, and one that is
 * closed in their face shows them a broken pipe and not this. It costs no memory, and no more work
 * than good bodies would. Where the rest may never come, the connection ends.
 */
export function unread(
  kind: Exclude<ReadBody["kind"], "read">,
  maxBodyBytes: number,
  encoding: string | null,
): Response {
  switch (kind) {
    case "large":
      return json(413, { error: `the body is larger than ${maxBodyBytes} bytes` });
    case "bomb":
      return json(413, { error: `the body unpacks to more than ${maxBodyBytes} bytes` });
    case "pieces":
      return json(400, { error: `the body has more than ${MOST_FRAMES} ${encoding} frames` });
    case "full":
      return noRoom();
    case "late":
      return json(408, { error: "the body did not arrive in time" }, CLOSE);
    case "broken":
      return json(400, { error: "the body ended too early" }, CLOSE);
    case "corrupt":
      return json(400, { error: `the body is not valid ${encoding}, or cut short` });
  }
}

const CLOSE: Readonly<Record<string, string>> = { connection: "close" };

/** Bodies under way take all that there is. */
export function noRoom(): Response {
  return full("too many bodies are being read at the moment", NO_ROOM_RETRY_S);
}

/** Nothing of the request was taken: the backlog is full. */
export function full(reason: string, retryAfterS: number): Response {
  return json(429, { error: reason }, { "retry-after": seconds(retryAfterS) });
}

/** Nothing of the request was taken: stopping, or paused. */
export function closed(reason: string, retryAfterS = UNAVAILABLE_RETRY_S): Response {
  return json(503, { error: reason }, { "retry-after": seconds(retryAfterS) });
}

/** One client asks more often than it may. */
export function tooOften({ count, periodMs }: Rate, retryAfterS: number): Response {
  const error = `rate-limit: more than ${count} requests in ${
    periodMs / 1000
  } s; nothing was taken`;
  return json(429, { error }, { "retry-after": seconds(retryAfterS) });
}

export function alive(): Response {
  return json(200, { alive: true });
}

/** @param reasons empty = ready. */
export function readiness(reasons: readonly string[]): Response {
  return json(reasons.length === 0 ? 200 : 503, { ready: reasons.length === 0, reasons });
}

export function value(body: unknown): Response {
  return json(200, body);
}

/** Prometheus' text format. */
export function metricsText(text: string): Response {
  return new Response(text, {
    headers: {
      "content-type": "text/plain; version=0.0.4; charset=utf-8",
      "x-content-type-options": "nosniff",
      "cache-control": "no-store",
    },
  });
}

/** What came of a question to ClickHouse. */
export function asked(answer: Asked): Response {
  switch (answer.kind) {
    case "answer":
      return new Response(answer.json, { headers: JSON_HEADERS });
    case "busy":
      return full(answer.reason, NO_ROOM_RETRY_S);
    case "large":
      return badRequest(answer.reason);
    case "slow":
      return json(504, { error: answer.reason });
    case "away":
      return closed(answer.reason);
  }
}

/** What a replay has done: 202 when there is more to do. */
export function replayed({ retryAfterS, ...done }: Replaying): Response {
  const headers: Record<string, string> = retryAfterS === null
    ? {}
    : { "retry-after": String(retryAfterS) };
  return json(done.left > 0 ? 202 : 200, done, headers);
}

/** NDJSON, read as fast as it is taken. @param first of the lines; null: none are read. */
export function lines(
  first: IteratorResult<string> | null,
  lines: AsyncIterableIterator<string>,
): Response {
  const encoder = new TextEncoder();
  let next: IteratorResult<string> | null = first;
  const body = first === null ? null : new ReadableStream<Uint8Array>({
    async pull(controller) {
      let piece = "";
      for (; piece.length < LINES_LENGTH; next = null) {
        next ??= await lines.next();
        if (next.done) break;
        piece += next.value;
      }
      if (piece !== "") controller.enqueue(encoder.encode(piece));
      if (next?.done) controller.close();
    },
    async cancel() {
      await lines.return?.();
    },
  });
  return new Response(body, {
    headers: { ...JSON_HEADERS, "content-type": "application/x-ndjson" },
  });
}

/** Another request is at it. */
export function conflict(error: string): Response {
  return json(409, { error });
}

/** Another collector is meant, perhaps one that shares this port. */
export function misdirected(): Response {
  return json(421, { error: "the dead letters of this collector lie in another folder" });
}

/** A document that stays what it is while the program runs. @param tag a quoted `ETag`. */
export function document(text: string, tag: string, known: string | null): Response {
  const headers = { ...JSON_HEADERS, etag: tag, "cache-control": "no-cache" };
  const same = known?.split(",").some((one) => one.trim().replace(/^W\//, "") === tag) ?? false;
  return same ? new Response(null, { status: 304, headers }) : new Response(text, { headers });
}

export function internalError(): Response {
  return json(500, { error: "internal error" });
}

function json(
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return new Response(JSON.stringify(body) + "\n", {
    status,
    headers: { ...JSON_HEADERS, ...headers },
  });
}

function withApplied(applied: string): Record<string, string> {
  return { ...JSON_HEADERS, "preference-applied": applied };
}

/** `Retry-After` knows whole seconds only. */
function seconds(s: number): string {
  return String(Math.max(1, Math.ceil(s)));
}
