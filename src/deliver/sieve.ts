/**
 * Asks a server which rows of an INSERT it can parse, without inserting any: the rows go up as an
 * external table that is allowed to skip errors, each with its number spliced in front, and the
 * numbers that come back are the good rows. One request however many rows are bad. Constraints and
 * DEFAULT expressions are not asked; rows that fail those are found by bisection.
 */

import type { Endpoint, Inserter, InsertRequest } from "../contracts.ts";
import { join, lineOffsets } from "./rows.ts";
import type { Exchanged, Post } from "../kernel/http.ts";
import { isTableName, placeOf } from "../kernel/names.ts";
import { READ_SETTINGS, type Settings } from "../kernel/pinned.ts";
import { credentials, type Pins } from "./pins.ts";
import type { Query } from "./query.ts";
import {
  describeColumns,
  describeView,
  eventStructure,
  insertableColumns,
  quoteName,
} from "./sql.ts";
import { exceptionOf, isClickHouse, TRANSIENT_CODES } from "./verdict.ts";

export function createSieve(
  tools: {
    readonly endpoint: Endpoint;
    readonly post: Post;
    readonly query: Query;
    readonly timeoutMs: number;
    /** Shared with the INSERT. */
    readonly pins: Pins;
    /** What an INSERT into this table carries besides. */
    readonly more: (table: string) => Settings;
  },
): Required<Pick<Inserter, "sieve" | "judgeOf">> {
  const { endpoint, post, query, timeoutMs, pins, more } = tools;
  // A server that refuses the question once (18.16 skips no errors of an external table) will refuse
  // it again; the rows need not be sent for it.
  const cannot = new Set<string>();
  /** Null: not known yet. */
  let honest: boolean | null = null;

  const sieve: Inserter["sieve"] = async (request, signal) => {
    if (cannot.has(request.table) || !isTableName(request.table)) return null;
    if (await pins.check(signal) !== null) return null;
    const structure = await structureOf(request, signal);
    if (structure === null) return null;
    honest ??= await isHonest(signal);
    if (honest === null) return null;
    const answered = await ask(
      honest ? structure : { ...structure, columns: structure.columns.replaceAll(TIME, "String") },
      formOf(request, structure.number, boundaryOf(request.token)),
      request,
      signal,
    );
    if (!answered.ok) return null;
    const answer = answered.value;
    const exception = exceptionOf(answer);
    if (exception !== null) {
      if (!TRANSIENT_CODES.has(exception.code)) cannot.add(request.table);
      return null;
    }
    if (answer.status !== 200 || answer.cut || !isClickHouse(answer)) return null;
    return numbersOf(answer.body, request.rows);
  };

  /**
   * The view's own SELECT is asked over the rows, in the place of its table. What it says decides nothing
   * but which rows are left out of an INSERT, which then shows whether it was right.
   */
  const judgeOf: NonNullable<Inserter["judgeOf"]> = async (table, view, code, signal) => {
    if (!isTableName(table) || await pins.check(signal) !== null) return null;
    const place = placeOf(table);
    const defined = await query.rows(describeView(view.database, view.name), signal);
    const found = await query.rows(describeColumns(endpoint.database, table), signal);
    if (!defined.ok || !found.ok || found.value.length === 0) return null;
    const select = overSieve(
      String(defined.value[0]?.["as_select"] ?? ""),
      place.database ?? endpoint.database,
      place.table,
    );
    const columns = insertableColumns(found.value)
      .map((column) => `${quoteName(column.name)} ${column.type}`).join(", ");
    honest ??= await isHonest(signal);
    if (select === null || !honest && columns.search(TIME) >= 0) return null;
    return async (request, signal) => {
      const boundary = boundaryOf(request.token);
      const answered = await ask(
        { number: "", columns },
        framed([join(request.body)], boundary),
        request,
        signal,
        `SELECT * FROM (${select}) FORMAT Null`,
      );
      if (!answered.ok) return null;
      const exception = exceptionOf(answered.value);
      if (exception !== null) return exception.code === code ? false : null;
      return answered.value.status === 200 && isClickHouse(answered.value) ? true : null;
    };
  };

  /** Puts a question; `form` holds the rows. */
  function ask(
    { number, columns }: Structure,
    form: Uint8Array,
    { table, rows, token }: Pick<InsertRequest, "table" | "rows" | "token">,
    signal: AbortSignal,
    statement?: string,
  ): Promise<Exchanged> {
    const url = pins.address({ ...more(table), ...READ_SETTINGS }, {
      query: statement ?? `SELECT ${quoteName(number)} FROM sieve`,
      sieve_format: "JSONEachRow",
      sieve_structure: columns,
      input_format_allow_errors_num: statement === undefined ? "1000000000" : "0",
      default_format: "TabSeparated",
    });
    return post({
      method: "POST",
      url,
      headers: {
        ...credentials(endpoint),
        "Content-Type": `multipart/form-data; boundary=${boundaryOf(token)}`,
      },
      body: [form],
      timeoutMs,
      // Plain: the server does not decompress a form.
      // At most ten digits and a newline a row.
      maxAnswerBytes: rows * 11 + 4096,
      signal,
    });
  }

  /**
   * Servers up to 25 read the rows of a question by the profile's settings and not by the question's. Of
   * what is pinned only the format of times is no default there: times count as text then.
   */
  async function isHonest(signal: AbortSignal): Promise<boolean | null> {
    const body = [new TextEncoder().encode('{"t":"2026-01-02T03:04:05Z"}\n')];
    const request = { table: "", shape: "row" as const, body, rows: 1, token: "honest" };
    const answered = await ask(
      { number: "_row", columns: "`_row` UInt32, `t` DateTime" },
      formOf(request, "_row", boundaryOf(request.token)),
      request,
      signal,
    );
    if (!answered.ok || !isClickHouse(answered.value) && exceptionOf(answered.value) === null) {
      return null;
    }
    const exception = exceptionOf(answered.value);
    if (exception !== null && TRANSIENT_CODES.has(exception.code)) return null;
    return new TextDecoder().decode(answered.value.body) === "0\n";
  }

  return { sieve, judgeOf };

  async function structureOf(
    request: InsertRequest,
    signal: AbortSignal,
  ): Promise<Structure | null> {
    if (request.shape === "event") {
      return { number: "_row", columns: `\`_row\` UInt32, ${eventStructure(request.types)}` };
    }
    const found = await query.rows(describeColumns(endpoint.database, request.table), signal);
    if (!found.ok || found.value.length === 0) return null;
    const columns = insertableColumns(found.value);
    let number = "_row";
    while (columns.some((column) => column.name === number)) number += "_";
    const all = [{ name: number, type: "UInt32" }, ...columns];
    return {
      number,
      columns: all.map((column) => `${quoteName(column.name)} ${column.type}`).join(", "),
    };
  }
}

/** How the rows are read: all columns, and which of them is the row's number. */
interface Structure {
  readonly number: string;
  readonly columns: string;
}

/** A time with its precision and zone, wherever in a type it stands. */
const TIME = /\bDateTime(?:64)?\b(?:\([^()]*\))?/g;

function boundaryOf(token: string): string {
  return `shishi-${token.replace(/[^A-Za-z0-9]/g, "").slice(0, 48)}`;
}

/** The SELECT of a view with the rows in the place of its table; null where that does not stand in it. */
function overSieve(select: string, database: string, table: string): string | null {
  const either = (name: string) => {
    const plain = name.replace(/[^A-Za-z0-9_]/g, "\\$&");
    return `(?:${plain}|\`${plain}\`)`;
  };
  const source = new RegExp(
    `\\b(FROM|JOIN) ${either(database)}\\.${either(table)}(?![\\w\`.])( AS )?`,
    "g",
  );
  if (!source.test(select)) return null;
  return select.replace(
    source,
    (_, word: string, as?: string) =>
      `${word} sieve AS ${as === undefined ? quoteName(table) : ""}`,
  );
}

/** A form whose one file is the rows. */
function framed(rows: readonly Uint8Array[], boundary: string): Uint8Array {
  const { head, tail } = frameOf(boundary);
  return join([head, ...rows, tail]);
}

function frameOf(boundary: string): { readonly head: Uint8Array; readonly tail: Uint8Array } {
  const encoder = new TextEncoder();
  return {
    head: encoder.encode(
      `--${boundary}\r\nContent-Disposition: form-data; name="sieve"; filename="sieve"\r\n` +
        "Content-Type: application/octet-stream\r\n\r\n",
    ),
    tail: encoder.encode(`\r\n--${boundary}--\r\n`),
  };
}

/** The multipart body: each line `{…` becomes `{"_row":N,…`; an empty object keeps no comma. */
function formOf(request: InsertRequest, number: string, boundary: string): Uint8Array {
  const body = join(request.body);
  const offsets = lineOffsets([body], request.rows);
  const encoder = new TextEncoder();
  const { head, tail } = frameOf(boundary);
  const splice = number.length + 16;
  const form = new Uint8Array(head.length + body.length + request.rows * splice + tail.length);
  form.set(head);
  let at = head.length;
  for (let row = 0; row < request.rows; row++) {
    const from = offsets[row] as number;
    const to = offsets[row + 1] as number;
    if (!isJsonObject(body.subarray(from, to))) {
      // ClickHouse would look for the end of this row in the next one, and lose that too.
      form.set(NO_ROW, at);
      at += NO_ROW.length;
      continue;
    }
    let next = body.indexOf(0x7b, from) + 1;
    while (next < to && (body[next] as number) <= 0x20) next++;
    const empty = body[next] === 0x7d;
    at += encoder.encodeInto(`{"${number}":${row}${empty ? "" : ","}`, form.subarray(at)).written;
    form.set(body.subarray(next, to), at);
    at += to - next;
  }
  form.set(tail, at);
  return form.subarray(0, at + tail.length);
}

/** What stands for a line that is no row; shorter than any splice. */
const NO_ROW = new TextEncoder().encode("!\n");

function isJsonObject(line: Uint8Array): boolean {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(line));
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

/** The rows' numbers, ascending; null when the answer is anything else. */
function numbersOf(body: Uint8Array, rows: number): readonly number[] | null {
  const text = new TextDecoder().decode(body);
  if (text === "") return [];
  const numbers: number[] = [];
  for (const line of text.slice(0, -1).split("\n")) {
    const number = Number(line);
    if (!/^\d+$/.test(line) || number >= rows) return null;
    numbers.push(number);
  }
  numbers.sort((a, b) => a - b);
  return numbers.every((number, at) => at === 0 || number !== numbers[at - 1]) ? numbers : null;
}
