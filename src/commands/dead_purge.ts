/**
 * `shishi dead purge`: deletes letters, after asking. They are taken out of the collector's reach
 * before they are counted, so what was asked about is what is deleted.
 */

import { type Letter, LetterSet } from "../dead/letter.ts";
import type { Letterbox, LetterFile } from "../dead/letterbox.ts";

export interface Purge {
  readonly tables: readonly string[];
  /** Only letters written before this, epoch milliseconds; null = all. */
  readonly beforeMs: number | null;
  /** Only letters with this code; null = all. */
  readonly code: number | null;
}

export interface PurgeIo {
  readonly letterbox: Letterbox;
  /** Asks somebody; null where nobody can be asked. */
  readonly confirm: ((question: string) => Promise<boolean>) | null;
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
}

/** What is to be done with one file. */
interface Cut {
  readonly file: LetterFile;
  readonly goes: LetterSet;
  /** Lines that cannot be read; they go only when everything goes. */
  readonly damaged: number;
  /** Letters that match, but belong to an unfinished replay. */
  readonly bound: number;
}

/** @returns the exit code: 0 deleted, 1 not, 2 nobody to ask. Rejects with the disk's error. */
export async function purgeLetters(purge: Purge, io: PurgeIo): Promise<number> {
  const { letterbox, out, err } = io;
  const files: { table: string; name: string }[] = [];
  const all = new LetterSet();
  let damaged = 0;
  for (const table of purge.tables) {
    const names = await letterbox.take(table);
    if ("problem" in names) {
      err(names.problem);
      return 1;
    }
    for (const name of names) {
      files.push({ table, name });
      const cut = cutOf(await letterbox.read(name), purge);
      for (const { letter } of cut.file.lines) {
        if (letter !== null && cut.goes.has(letter)) all.add(letter);
      }
      damaged += cut.damaged;
    }
  }
  const unreadable = damaged > 0 ? ` and ${damaged} lines that cannot be read` : "";
  if (all.size + damaged > 0) {
    const where = purge.tables.length === 1 ? purge.tables[0] : "all tables";
    const what = `${all.size} dead letters of ${where}${unreadable}`;
    if (io.confirm === null) {
      err(`${what} would be deleted; expected --yes, for nobody can be asked here`);
      return 2;
    }
    if (!await io.confirm(`Delete ${what}? Their rows are nowhere else. [y/N] `)) {
      out("nothing deleted");
      return 1;
    }
  }
  let bound = 0;
  for (const { name } of files) {
    const cut = cutOf(await letterbox.read(name), purge);
    bound += cut.bound;
    await carryOut(cut, letterbox);
  }
  out(`${all.size} letters${unreadable} deleted`);
  if (bound > 0) {
    err(`${bound} letters of an unfinished replay stay: finish it, or purge everything`);
  }
  return 0;
}

function cutOf(file: LetterFile, purge: Purge): Cut {
  const { done, open } = file.replayed;
  const sent = new LetterSet();
  for (const { places } of open) {
    for (const [batch, index] of places) sent.add({ batch, index });
  }
  const everything = purge.code === null && purge.beforeMs === null;
  const goes = new LetterSet();
  const bound = new LetterSet();
  let damaged = 0;
  for (const { letter } of file.lines) {
    if (letter === null) damaged++;
    else if (done.has(letter) || !matches(letter, purge)) continue;
    // Rows that were sent together go on together: with one less they would be another batch.
    else if (sent.has(letter) && !everything) bound.add(letter);
    else goes.add(letter);
  }
  return { file, goes, damaged: everything ? damaged : 0, bound: bound.size };
}

async function carryOut(cut: Cut, letterbox: Letterbox): Promise<void> {
  const { file, goes, damaged } = cut;
  if (goes.size + damaged === 0) return;
  await letterbox.reduce(
    file,
    ({ letter }) =>
      letter === null ? damaged === 0 : !goes.has(letter) && !file.replayed.done.has(letter),
    "journal stays",
  );
}

function matches({ time, code }: Letter, { beforeMs, code: wanted }: Purge): boolean {
  return (wanted === null || code === wanted) &&
    (beforeMs === null || !(Date.parse(time) >= beforeMs));
}
