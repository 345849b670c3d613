/**
 * A dead letter: a row that ClickHouse refuses for good, with the reason. One line of JSON in
 * `dead/TABLE.ndjson`; the row stands in it as a string, so its bytes come out as they went in.
 *
 * A letter is its batch and its place there: the same letter written twice, because a crash came
 * between writing it and letting go of its batch, counts once.
 */

import { nodeCrypto } from "../kernel/builtins.ts";
import type { DeadLetter, Shape } from "../contracts.ts";
import { nameAmong, tableOfFolder } from "../kernel/names.ts";

export interface Letter {
  /** When it was written, ISO 8601. */
  readonly time: string;
  readonly table: string;
  readonly shape: Shape;
  /** Id of the batch that brought the row. */
  readonly batch: string;
  /** 0-based place in the batch. */
  readonly index: number;
  /** ClickHouse's exception code. */
  readonly code: number;
  readonly error: string;
  /** The row as it was sent, without a line end; of a message, all that it had. */
  readonly row: string;
  /** The source that read it, where no row could be made of it. */
  readonly source?: string;
  /** Of the message there: `kafka:flights/3@17`. */
  readonly address?: string;
  /** `row` is base64: the bytes are no text. */
  readonly base64?: boolean;
}

/** What a letter is called outside. */
export function letterId({ batch, index }: Pick<Letter, "batch" | "index">): string {
  return `${batch}.${index}`;
}

/** Characters of a row that are shown where a letter is one of many. */
const SHOWN_LENGTH = 8 * 1024;

/** As others see it. @param whole its row is not cut. */
export function shownLetter(letter: Letter, whole = false): DeadLetter {
  const { table, shape, batch, index, time, code, error, row } = letter;
  return {
    ...ofSource(letter),
    table,
    id: letterId(letter),
    time,
    code,
    message: error,
    row: whole || row.length <= SHOWN_LENGTH
      ? row
      : `${row.slice(0, SHOWN_LENGTH).toWellFormed()}…`,
    rowLength: row.length,
    shape,
    batch,
    index,
  };
}

/** What only a letter of a source has. */
function ofSource({ source, address, base64 }: Letter): Pick<
  Letter,
  "source" | "address" | "base64"
> {
  if (source === undefined) return {};
  return { source, ...(address === undefined ? {} : { address }), ...(base64 ? { base64 } : {}) };
}

const LETTERS_FILE = /^(.+?)(\.[0-9a-f-]{36})?\.ndjson$/;
const ENDING = ".ndjson";

/** The file that the writer appends to. @param names what lies there since it was made. */
export function freshName(table: string, names: readonly string[] = []): string {
  return nameAmong(names, table, ENDING);
}

/** Whether the writer may append to a file of letters. */
export function isFresh(name: string): boolean {
  return LETTERS_FILE.exec(name)?.[2] === undefined;
}

/** A file that the writer is done with, as `fresh` was. Names sort by age, for `id` is a UUIDv7. */
export function asideName(fresh: string, id: string): string {
  return fresh.replace(/\.ndjson$/, `.${id}${ENDING}`);
}

/** What a replay has done with the letters of a file is written beside it. */
export function journalName(file: string): string {
  return file.replace(/\.ndjson$/, ".replay");
}

/** The table whose letters a file holds; null for a file that holds none. */
export function tableOfFile(name: string): string | null {
  return tableOfFolder(LETTERS_FILE.exec(name)?.[1] ?? "");
}

/** One line with its end. */
export function writeLetter(letter: Letter): string {
  const { time, table, shape, batch, index, code, error, row } = letter;
  const fields = { time, table, shape, batch, index, code, error, ...ofSource(letter), row };
  return JSON.stringify(fields) + "\n";
}

/** Null for a line that is no letter: torn, or written by another program. */
export function readLetter(line: string): Letter | null {
  let value: Partial<Record<keyof Letter, unknown>> | null;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  const isText = (...keys: (keyof Letter)[]) => keys.every((k) => typeof value?.[k] === "string");
  const isAbsent = (key: keyof Letter) => value?.[key] === undefined;
  return isText("time", "table", "batch", "error", "row") &&
      (value?.shape === "event" || value?.shape === "row") &&
      Number.isInteger(value.index) && Number.isInteger(value.code) &&
      (isAbsent("source") || isText("source")) && (isAbsent("address") || isText("address")) &&
      (isAbsent("base64") || typeof value.base64 === "boolean")
    ? value as Letter
    : null;
}

/** Which letters were seen; small, for there may be a million. */
export class LetterSet {
  readonly #seen = new Map<string, Set<number>>();
  size = 0;

  /** False when it was there. */
  add({ batch, index }: Pick<Letter, "batch" | "index">): boolean {
    let places = this.#seen.get(batch);
    if (places === undefined) this.#seen.set(batch, places = new Set());
    if (places.has(index)) return false;
    places.add(index);
    this.size++;
    return true;
  }

  has({ batch, index }: Pick<Letter, "batch" | "index">): boolean {
    return this.#seen.get(batch)?.has(index) === true;
  }
}

/**
 * The id of the batch that these letters make when they are sent again, a UUIDv8: the same letters in
 * the same order have the same id, so that ClickHouse recognises a second try by its deduplication
 * token. The rows take part, for a row that was mended by hand is another row.
 */
export function replayId(table: string, letters: readonly Letter[]): string {
  const hash = nodeCrypto().createHash("sha256").update(
    `shishi replay 1\n${table}\n${letters.length}\n`,
  );
  for (const { shape, batch, index, row } of letters) {
    hash.update(`${shape} ${batch} ${index}\n${row}\n`);
  }
  const bytes = hash.digest().subarray(0, 16);
  bytes[6] = 0x80 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  const hex = bytes.toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)]
    .join("-");
}
