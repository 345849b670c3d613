/** `shishi dead ls` and `shishi dead show`: what letters there are. Changes nothing. */

import { styleText } from "node:util";
import type { Letter } from "../dead/letter.ts";
import type { Letterbox } from "../dead/letterbox.ts";

/** Where the lines of a command go. */
export interface Out {
  /** Results, one line each. */
  readonly out: (line: string) => void;
  /** Everything else. */
  readonly err: (line: string) => void;
  /** Results go to a terminal. */
  readonly terminal: boolean;
}

/** Codes that `ls` names, the most frequent ones. */
const TOP_CODES = 3;

interface Summary {
  readonly table: string;
  readonly letters: number;
  readonly bytes: number;
  readonly oldest: string | null;
  readonly newest: string | null;
  readonly codes: readonly { readonly code: number; readonly letters: number }[];
  /** Lines that cannot be read. */
  readonly damaged: number;
}

/** One line a table. @param table null = every one. */
export async function listLetters(
  letterbox: Letterbox,
  table: string | null,
  json: boolean,
  io: Out,
): Promise<void> {
  const summaries: Summary[] = [];
  for (const name of await letterbox.tables()) {
    if (table !== null && name !== table) continue;
    const summary = await summaryOf(letterbox, name);
    if (summary.letters + summary.damaged > 0) summaries.push(summary);
  }
  if (json) {
    for (const summary of summaries) io.out(JSON.stringify(summary));
    return;
  }
  if (summaries.length === 0) return io.err("no dead letters");
  for (const line of tableOf(summaries)) io.out(line);
  for (const { table, damaged } of summaries) {
    if (damaged > 0) io.err(`${table}: ${damaged} lines cannot be read`);
  }
}

async function summaryOf(letterbox: Letterbox, table: string): Promise<Summary> {
  let letters = 0;
  let oldest: string | null = null;
  let newest: string | null = null;
  const codes = new Map<number, number>();
  const { bytes, damaged } = await letterbox.visit(table, ({ time, code }) => {
    letters++;
    if (oldest === null || time < oldest) oldest = time;
    if (newest === null || time > newest) newest = time;
    codes.set(code, (codes.get(code) ?? 0) + 1);
  });
  const top = [...codes].sort(([a, m], [b, n]) => n - m || a - b).slice(0, TOP_CODES);
  return {
    table,
    letters,
    bytes,
    oldest,
    newest,
    codes: top.map(([code, letters]) => ({ code, letters })),
    damaged,
  };
}

function tableOf(summaries: readonly Summary[]): string[] {
  const rows = [
    ["TABLE", "LETTERS", "BYTES", "OLDEST", "NEWEST", "CODES"],
    ...summaries.map(({ table, letters, bytes, oldest, newest, codes }) => [
      table,
      String(letters),
      String(bytes),
      oldest ?? "-",
      newest ?? "-",
      codes.map(({ code, letters }) => `${code}: ${letters}`).join(", "),
    ]),
  ];
  const widths = rows[0]!.map((_, at) => Math.max(...rows.map((row) => row[at]!.length)));
  const isNumber = (at: number) => at === 1 || at === 2;
  return rows.map((row) =>
    row.map((cell, at) => isNumber(at) ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!))
      .join("  ").trimEnd()
  );
}

export interface Showing {
  /** null = every table. */
  readonly table: string | null;
  /** The newest so many are shown. */
  readonly limit: number;
  /** null = any. */
  readonly code: number | null;
  readonly json: boolean;
}

/** The newest letters, oldest of them first. A row stands on a line of its own, byte for byte. */
export async function showLetters(
  letterbox: Letterbox,
  { table, limit, code, json }: Showing,
  io: Out,
): Promise<void> {
  let newest: Letter[] = [];
  const cut = () => {
    newest.sort((a, b) => a.time < b.time ? -1 : a.time > b.time ? 1 : 0);
    newest = newest.slice(-limit);
  };
  let found = 0;
  let damaged = 0;
  for (const name of await letterbox.tables()) {
    if (table !== null && name !== table) continue;
    const visited = await letterbox.visit(name, (letter) => {
      if (code !== null && letter.code !== code) return;
      found++;
      newest.push(letter);
      if (newest.length > 2 * limit + 1000) cut();
    });
    damaged += visited.damaged;
  }
  cut();
  for (const [at, letter] of newest.entries()) {
    if (json) {
      io.out(JSON.stringify(letter));
      continue;
    }
    if (at > 0) io.out("");
    for (const line of linesOf(letter, io.terminal)) io.out(line);
  }
  if (damaged > 0) io.err(`${damaged} lines cannot be read`);
  if (found === 0) io.err("no dead letters");
  else if (found > limit) io.err(`${limit} of ${found} letters; --limit ${found} shows all`);
}

function linesOf({ time, table, code, batch, index, error, row }: Letter, terminal: boolean) {
  const head = `${time}  ${table}  code ${code}  batch ${batch} row ${index}`;
  if (!terminal) return [head, oneLine(error), row];
  return [styleText("bold", head), styleText("red", oneLine(error)), visible(row)];
}

function oneLine(text: string): string {
  return text.replace(/\p{Cc}+/gu, " ");
}

/** Bytes that a terminal obeys instead of showing; JSON reads the escape as the same character. */
function visible(text: string): string {
  return text.replace(
    /\p{Cc}/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
