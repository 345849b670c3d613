/**
 * A replay: takes the letters of a table out of the collector's reach and gives them to a running
 * collector, a portion at a time. Which letters make a portion is written down before it is
 * sent, so that whoever goes on after a crash or ^C sends the very same rows under the very same id.
 * A letter leaves its file only when its row is in ClickHouse, or is a letter again in the fresh file.
 */

import { Buffer } from "node:buffer";
import type { Files } from "../spool/files.ts";
import type { Given } from "./give.ts";
import { type Letter, LetterSet, replayId } from "./letter.ts";
import type { Letterbox, LetterFile } from "./letterbox.ts";
import { type Journal, openJournal, type Sent } from "./replayed.ts";

export interface ReplayIo {
  readonly files: Files;
  readonly dataDir: string;
  readonly letterbox: Letterbox;
  /** Whether a letter is meant; others stay as they are. */
  readonly wanted: (letter: Letter) => boolean;
  /** `again`: they may have been taken before, under the same id. */
  readonly give: (letters: readonly Letter[], id: string, again: boolean) => Promise<Given>;
  /** Told after every portion. */
  readonly progress: (table: string) => void;
  readonly err: (line: string) => void;
}

/** What became of the letters, all tables together. */
export class Totals {
  stored = 0;
  /** Refused once more, by ClickHouse or before it: letters again, or still. */
  dead = 0;
  /** Not sent, or sent and not known to be stored. */
  unsent = 0;
  /** Why rows were refused, as far as it was told, with how many. */
  readonly reasons = new Map<string, number>();

  because(reason: string): void {
    this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
  }
}

/** Rows and bytes that go together at most. */
export const PORTION_ROWS = 10_000;
export const PORTION_BYTES = 4 * 1024 * 1024;
/** As many rows of a refused request are named; with fewer named, all are. */
const NAMED = 100;

/** @returns whether other tables may be tried. Rejects with the disk's error. */
export async function replayTable(table: string, io: ReplayIo, totals: Totals): Promise<boolean> {
  const names = await io.letterbox.take(table);
  if ("problem" in names) {
    io.err(names.problem);
    return false;
  }
  const replay = new Replay(table, io, totals);
  for (const name of names) await replay.run(await io.letterbox.read(name));
  await replay.tellReasons();
  return replay.stopped !== "collector";
}

class Replay {
  /** Why nothing more is sent: of this table, or at all. */
  stopped: "no" | "table" | "collector" = "no";
  readonly #seen = new LetterSet();
  /** Letters that stay, whatever the reason. */
  readonly #staying = new LetterSet();
  /** Ids of the portions that were settled with dead rows: the batches of their new letters. */
  readonly #diedAs = new Set<string>();

  constructor(readonly table: string, readonly io: ReplayIo, readonly totals: Totals) {}

  /** Works off one file. */
  async run(file: LetterFile): Promise<void> {
    const { done, open } = file.replayed;
    const letters = new Map<string, Letter>();
    for (const { letter } of file.lines) {
      if (letter === null || done.has(letter) || !this.#seen.add(letter)) continue;
      letters.set(keyOf(letter.batch, letter.index), letter);
    }
    const journal = await openJournal(this.io.files, this.io.dataDir, file.name);
    let settled = true;
    try {
      for (const sent of open) {
        if (!await this.#again(sent, letters, done, journal)) settled = false;
      }
      const rest = [...letters.values()].filter((letter) =>
        !done.has(letter) && !this.#staying.has(letter) &&
        this.io.wanted(letter)
      );
      for (const portion of portions(rest)) {
        if (!await this.#send(portion, done, journal)) settled = false;
      }
    } finally {
      await journal.close();
    }
    // An open portion needs its letters in this file, and the journal.
    if (!settled) return;
    await this.io.letterbox.reduce(
      file,
      ({ letter }) =>
        letter === null || (!done.has(letter) && letters.has(keyOf(letter.batch, letter.index))),
    );
  }

  /** A portion of an earlier run whose fate is not known. @returns whether it is now. */
  async #again(
    { id, places }: Sent,
    letters: ReadonlyMap<string, Letter>,
    done: LetterSet,
    journal: Journal,
  ): Promise<boolean> {
    const portion = places.map(([batch, index]) => letters.get(keyOf(batch, index)))
      .filter((letter) => letter !== undefined && !done.has(letter)) as Letter[];
    if (portion.length === places.length && replayId(this.table, portion) === id) {
      return await this.#send(portion, done, journal, true);
    }
    // Somebody has changed the file: these are other rows than those that were sent.
    await journal.refused(id);
    return true;
  }

  /** @returns false when the portion's fate stays unknown. */
  async #send(
    portion: readonly Letter[],
    done: LetterSet,
    journal: Journal,
    again = false,
  ): Promise<boolean> {
    if (portion.length === 0) return true;
    if (this.stopped !== "no") {
      this.#leave(portion);
      return !again;
    }
    const id = replayId(this.table, portion);
    if (!again) await journal.sent(id, portion);
    const given = await this.io.give(portion, id, again);
    if (given.kind === "settled") {
      await journal.done(id);
      for (const letter of portion) done.add(letter);
      this.totals.stored += portion.length - given.dead;
      this.totals.dead += given.dead;
      if (given.dead > 0) this.#diedAs.add(id);
      this.io.progress(this.table);
      return true;
    }
    if (given.kind === "refused" || given.kind === "large") {
      await journal.refused(id);
      let settled = true;
      for (const part of this.#parts(portion, given)) {
        if (!await this.#send(part, done, journal)) settled = false;
      }
      this.io.progress(this.table);
      return settled;
    }
    this.#leave(portion);
    this.stopped = given.kind === "unsent" ? given.of : "collector";
    const known = given.kind === "unsent" && !again;
    if (known) await journal.refused(id);
    this.io.err(known ? given.problem : `${given.problem}; the next replay goes on from here`);
    return known;
  }

  /** What to send instead of a portion that was not taken. */
  #parts(
    portion: readonly Letter[],
    given: Extract<Given, { kind: "refused" | "large" }>,
  ): readonly (readonly Letter[])[] {
    const middle = portion.length >> 1;
    const halves = [portion.slice(0, middle), portion.slice(middle)];
    if (given.kind === "large") {
      if (portion.length > 1) return halves;
      this.io.err(given.problem);
      this.#leave(portion);
      return [];
    }
    if (given.errors.length >= NAMED && portion.length > NAMED) return halves;
    const bad = new Map(given.errors.map(({ index, error }) => [index, error]));
    const good: Letter[] = [];
    for (const [at, letter] of portion.entries()) {
      const error = bad.get(at);
      if (error === undefined) {
        good.push(letter);
        continue;
      }
      this.#staying.add(letter);
      this.totals.dead++;
      this.totals.because(`refused by the collector: ${error}`);
    }
    if (good.length < portion.length) return [good];
    this.io.err("the collector refused rows without saying which");
    this.#leave(portion);
    return [];
  }

  #leave(portion: readonly Letter[]): void {
    this.totals.unsent += portion.length;
    for (const letter of portion) this.#staying.add(letter);
  }

  /** Looks up why rows are dead again; without success where the collector's data-dir is another. */
  async tellReasons(): Promise<void> {
    if (this.#diedAs.size === 0) return;
    await this.io.letterbox.visit(this.table, ({ batch, code, error }) => {
      if (this.#diedAs.has(batch)) this.totals.because(`code ${code}: ${error}`);
    });
  }
}

function keyOf(batch: string, index: number): string {
  return `${batch} ${index}`;
}

/** Neighbours of one shape, within the bounds of one request. */
function* portions(letters: readonly Letter[]): Generator<readonly Letter[]> {
  let portion: Letter[] = [];
  let bytes = 0;
  for (const letter of letters) {
    const rowBytes = Buffer.byteLength(letter.row) + 1;
    const fits = portion.length < PORTION_ROWS && bytes + rowBytes <= PORTION_BYTES &&
      portion[0]?.shape === letter.shape;
    if (portion.length > 0 && !fits) {
      yield portion;
      portion = [];
      bytes = 0;
    }
    portion.push(letter);
    bytes += rowBytes;
  }
  if (portion.length > 0) yield portion;
}
