/**
 * The newest dead letters, and how many there are, as a running collector looks at them: from the ends
 * of the files, a bounded number of bytes, however large the files are. They are counted by their
 * line ends, each stretch of a file once: a file that grows is counted on.
 */

import { Buffer } from "node:buffer";
import { join } from "node:path";
import type { DeadLetter } from "../contracts.ts";
import type { FileParts, Files } from "../spool/files.ts";
import { codeOf } from "../kernel/errors.ts";
import { deadFolder } from "../spool/data_dir.ts";
import { isFresh, type Letter, letterId, LetterSet, readLetter, tableOfFile } from "./letter.ts";
import { journalName, type Replayed, replayedOf } from "./replayed.ts";

export interface NewestLetters {
  /** Rejects with the disk's error. A file that is taken away meanwhile counts as empty. */
  newest(
    table: string | null,
    limit: number,
  ): Promise<{ readonly letters: readonly DeadLetter[]; readonly total: number }>;
}

/** Read at once, at first; more where a line is longer. */
const BLOCK_BYTES = 64 * 1024;
/** Read for one answer at most, all files together: what lies deeper is counted and not shown. */
const MOST_BYTES = 16 * 1024 * 1024;
const COUNT_BYTES = 256 * 1024;
/** A journal is small, unless a replay of a great many letters was broken off. */
const MOST_JOURNAL_BYTES = 2 * 1024 * 1024;
/** Of a row that are shown. */
const ROW_LENGTH = 8 * 1024;
const NEWLINE = 0x0a;
const NOTHING = new Uint8Array(0);

/** Line ends in the first `size` bytes of a file. */
interface Count {
  readonly identity: number;
  readonly size: number;
  readonly lines: number;
}

export function createNewestLetters(
  tools: { readonly files: Pick<Files, "list"> & FileParts; readonly dataDir: string },
): NewestLetters {
  const { files } = tools;
  const folder = deadFolder(tools.dataDir);
  let counts = new Map<string, Count>();
  let last: Promise<unknown> = Promise.resolve();

  const part = (name: string, from: number, to: number) =>
    files.readPart(join(folder, name), from, to).catch(nothingThere);

  async function count(name: string): Promise<Count> {
    const head = await part(name, 0, 0);
    const known = counts.get(name);
    const goOn = known !== undefined && known.identity === head.identity && known.size <= head.size;
    let { size, lines } = goOn ? known : { size: 0, lines: 0 };
    while (size < head.size) {
      const { bytes } = await part(name, size, Math.min(head.size, size + COUNT_BYTES));
      if (bytes.length === 0) break;
      for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) lines++;
      size += bytes.length;
    }
    return { identity: head.identity, size, lines };
  }

  /** What a replay has stored of the letters of a file, while they are in it still. */
  async function replayed(name: string, names: ReadonlySet<string>): Promise<Replayed> {
    const journal = journalName(name);
    const { bytes } = names.has(journal) ? await part(journal, 0, MOST_JOURNAL_BYTES) : NO_FILE;
    return replayedOf(new TextDecoder().decode(bytes));
  }

  /** The lines of a file, last first, while `more` says so. @returns bytes that were read. */
  async function backwards(
    name: string,
    size: number,
    budget: number,
    each: (line: string) => "more" | "enough",
  ): Promise<number> {
    const decoder = new TextDecoder();
    let block = BLOCK_BYTES;
    let spent = 0;
    /** Of the line whose beginning is not found yet. */
    let rest: Uint8Array = NOTHING;
    for (let end = size; end > 0 && spent < budget;) {
      const from = Math.max(0, end - Math.min(block, budget - spent));
      const { bytes } = await part(name, from, end);
      if (bytes.length < end - from) break;
      spent += bytes.length;
      end = from;
      const piece = Buffer.concat([bytes, rest]);
      let to = piece.length;
      for (let at = to; at > 0;) {
        const before = piece.lastIndexOf(NEWLINE, at - 1);
        if (before < 0) break;
        if (before + 1 < to && each(decoder.decode(piece.subarray(before + 1, to))) === "enough") {
          return spent;
        }
        to = at = before;
      }
      rest = piece.subarray(0, to);
      block = rest.length >= block ? block * 2 : block;
    }
    if (spent < budget && rest.length > 0) each(decoder.decode(rest));
    return spent;
  }

  async function newest(wanted: string | null, limit: number) {
    const all = await files.list(folder).catch((error) => nothingListed(error));
    const names = new Set(all);
    const counted = new Map<string, Count>();
    const found: Letter[] = [];
    let total = 0;
    let budget = MOST_BYTES;
    for (const [table, files] of byTable(all)) {
      const shown = wanted === null || table === wanted;
      const seen = new LetterSet();
      for (const name of files) {
        const file = await count(name);
        counted.set(name, file);
        if (!shown) continue;
        const { done } = await replayed(name, names);
        total += Math.max(0, file.lines - done.size);
        if (seen.size >= limit) continue;
        budget -= await backwards(name, file.size, budget, (line) => {
          const letter = readLetter(line);
          if (letter !== null && !done.has(letter) && seen.add(letter)) found.push(letter);
          return seen.size < limit ? "more" : "enough";
        });
      }
    }
    counts = counted;
    const byTime = found.sort((a, b) => a.time < b.time ? 1 : a.time > b.time ? -1 : 0);
    return { letters: byTime.slice(0, limit).map(shownOf), total };
  }

  return {
    // One at a time: what is read for an answer is held until it is given.
    newest(table, limit) {
      const answer = last.then(() => newest(table, limit));
      last = answer.catch(() => {});
      return answer;
    },
  };
}

/** Files of letters, the newest of each table first. */
function byTable(names: readonly string[]): Map<string, string[]> {
  const tables = new Map<string, string[]>();
  for (const name of names) {
    const table = tableOfFile(name);
    if (table === null) continue;
    const files = tables.get(table) ?? [];
    tables.set(table, files);
    files.push(name);
  }
  for (const files of tables.values()) {
    files.sort((a, b) => Number(isFresh(b)) - Number(isFresh(a)) || (a < b ? 1 : -1));
  }
  return tables;
}

function shownOf({ table, shape, batch, index, time, code, error, row }: Letter): DeadLetter {
  return {
    table,
    id: letterId({ batch, index }),
    time,
    code,
    message: error,
    row: row.length > ROW_LENGTH ? `${row.slice(0, ROW_LENGTH).toWellFormed()}…` : row,
    rowLength: row.length,
    shape,
    batch,
    index,
  };
}

const NO_FILE = { bytes: NOTHING, size: 0, identity: 0 };

function nothingThere(error: unknown): typeof NO_FILE {
  if (codeOf(error) === "ENOENT") return NO_FILE;
  throw error;
}

function nothingListed(error: unknown): readonly string[] {
  if (codeOf(error) === "ENOENT") return [];
  throw error;
}
