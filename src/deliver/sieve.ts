/**
 * Asks a server which rows of an INSERT it can parse, without inserting any: the rows go up as an
 * external table that is allowed to skip errors, each with its number spliced in front, and the
 * numbers that come back are the good rows. One request however many rows are bad. Constraints and
 * DEFAULT expressions are not asked; rows that fail those are found by bisection.
 */

import type { Endpoint, Inserter, InsertRequest } from "../contracts.ts";
import { join, lineOffsets } from "./rows.ts";
import type { Post } from "../kernel/http.ts";
import { isTableName } from "../kernel/names.ts";
import { credentials, type Query } from "./query.ts";
import {
  describeTable,
  EVENT_STRUCTURE,
  insertableColumns,
  quoteName,
  READ_SETTINGS,
} from "./sql.ts";
import { exceptionOf, isClickHouse, TRANSIENT_CODES } from "./verdict.ts";

export function createSieve(
  tools: {
    readonly endpoint: Endpoint;
    readonly post: Post;
    readonly query: Query;
    readonly timeoutMs: number;
    /** Shared with the INSERT; it has met the server before the sieve does. */
    readonly unknownSettings: ReadonlySet<string>;
  },
): Inserter["sieve"] {
  const { endpoint, post, query, timeoutMs, unknownSettings } = tools;
  // A server that refuses the question once (18.16 skips no errors of an external table) will refuse
  // it again; the rows need not be sent for it.
  const cannot = new Set<string>();

  return async (request, signal) => {
    if (cannot.has(request.table) || !isTableName(request.table)) return null;
    const structure = await structureOf(request, signal);
    if (structure === null) return null;
    const url = new URL(endpoint.url);
    for (const [name, value] of Object.entries(READ_SETTINGS)) {
      if (!unknownSettings.has(name)) url.searchParams.set(name, value);
    }
    const parameters = {
      query: `SELECT ${quoteName(structure.number)} FROM sieve`,
      sieve_format: "JSONEachRow",
      sieve_structure: structure.columns,
      input_format_allow_errors_num: "1000000000",
      default_format: "TabSeparated",
      wait_end_of_query: "1",
    };
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    const boundary = `shishi-${request.token.replace(/[^A-Za-z0-9]/g, "").slice(0, 48)}`;
    const answered = await post({
      method: "POST",
      url: url.href,
      headers: {
        ...credentials(endpoint),
        "Content-Type": `multipart/form-data; boundary=${boundary}`,
      },
      body: [formOf(request, structure.number, boundary)],
      timeoutMs,
      // Plain: the server does not decompress a form.
      // At most ten digits and a newline a row.
      maxAnswerBytes: request.rows * 11 + 4096,
      signal,
    });
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

  async function structureOf(
    request: InsertRequest,
    signal: AbortSignal,
  ): Promise<{ number: string; columns: string } | null> {
    if (request.shape === "event") {
      return { number: "_row", columns: `\`_row\` UInt32, ${EVENT_STRUCTURE}` };
    }
    const found = await query.rows(describeTable(endpoint.database, request.table), signal);
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

/** The multipart body: each line `{…` becomes `{"_row":N,…`; an empty object keeps no comma. */
function formOf(request: InsertRequest, number: string, boundary: string): Uint8Array {
  const body = join(request.body);
  const offsets = lineOffsets([body], request.rows);
  const encoder = new TextEncoder();
  const head = encoder.encode(
    `--${boundary}\r\nContent-Disposition: form-data; name="sieve"; filename="sieve"\r\n` +
      "Content-Type: application/octet-stream\r\n\r\n",
  );
  const tail = encoder.encode(`\r\n--${boundary}--\r\n`);
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
