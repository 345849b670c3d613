/**
 * A replay: gives the letters of a table to the collector's intake again, a portion at a time. Which
 * letters make a portion is written down before it is sent, so that the next replay after a crash sends
 * the very same rows under the very same id, which the intake or ClickHouse recognises. A letter leaves
 * its file only when its row is in ClickHouse, or is a letter again in the fresh file.
 */

import { Buffer } from "node:buffer";
import { join } from "node:path";
import type {
  Chunk,
  Clock,
  Files,
  Intake,
  MessageReader,
  Refused,
  Tables,
  TypeCounts,
} from "../contracts.ts";
import { LONGEST_TYPE_BYTES, OTHER_TYPE } from "../contracts.ts";
import { sleep } from "../kernel/time.ts";
import { journalName, type Letter, LetterSet, replayId } from "./letter.ts";
import type { JournalEntry, LetterFile, LetterStore, Sent } from "./store.ts";

export interface ReplayOptions {
  readonly files: Files;
  /** Of the letters. */
  readonly folder: string;
  readonly store: LetterStore;
  readonly intake: Intake;
  readonly tables: Tables;
  /** Reads a message again of which no row could be made; loaded when there is one. */
  readonly reader: () => Promise<MessageReader>;
  readonly clock: Clock;
  /** Rows and bytes that go together at most. */
  readonly portion: () => { readonly rows: number; readonly bytes: number };
}

/** One replay, all its tables together. */
export interface ReplayRun {
  /** Whether a letter is meant; others stay as they are. */
  readonly wanted: (letter: Letter) => boolean;
  /** Why no other portion is begun, or null. */
  readonly over: () => string | null;
  /** Until when a portion is waited for, monotonic. */
  readonly untilMs: number;
  /** Ends waits. */
  readonly signal: AbortSignal;
  readonly totals: Totals;
}

/** What became of the letters. */
export class Totals {
  stored = 0;
  /** Refused once more: letters again, or still. */
  dead = 0;
  /** Not sent, or sent and not known to be stored. */
  left = 0;
  /** When another replay is worth trying. */
  retryAfterS: number | null = null;
  /** Why rows are dead, as far as that is known, with how many. */
  readonly reasons = new Map<string, number>();
  /** Why letters are left. */
  readonly problems = new Set<string>();

  because(reason: string): void {
    this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
  }
}

/** What became of letters that were given to the intake together. */
type Given =
  /** Every row is in ClickHouse, but for `dead` of them, which are letters again. */
  | { readonly kind: "settled"; readonly dead: number }
  /** None was taken. `of`: whether other tables may do better. */
  | Left & { readonly kind: "unsent"; readonly of: "table" | "collector" }
  /** Taken perhaps; to be sent again under the same id. */
  | Left & { readonly kind: "unknown" };

interface Left {
  readonly problem: string;
  readonly retryAfterS: number | null;
}

/** A portion at most, whatever a batch may have. */
export const PORTION_ROWS = 10_000;
export const PORTION_BYTES = 4 * 1024 * 1024;
/** So long is waited for what ClickHouse says of a table. */
const LOOK_UP_MS = 2_000;
const MISFIT = "expected one JSON object on one line";
const NO_TEXT = "the bytes of the message are no text, so no row can be made of them";
const UNDERWAY = "the collector has the rows, ClickHouse has not taken them yet";
const GO_ON = "the next replay goes on from here";

/**
 * Replays the files of a table that the writer is done with.
 * @returns whether other tables may be tried. Rejects with the disk's error.
 */
export async function replayTable(
  table: string,
  options: ReplayOptions,
  run: ReplayRun,
): Promise<boolean> {
  const replay = new Replay(table, options, run);
  for (const name of await options.store.aside(table)) {
    await replay.workOff(await options.store.read(name));
  }
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
  /** What messages are, that no row could be made of before. */
  readonly #read = new Map<Letter, Rows>();

  constructor(
    readonly table: string,
    readonly options: ReplayOptions,
    readonly run: ReplayRun,
  ) {}

  async workOff(file: LetterFile): Promise<void> {
    const { done, open } = file.replayed;
    const letters = new Map<string, Letter>();
    for (const { letter } of file.lines) {
      if (letter === null || done.has(letter) || !this.#seen.add(letter)) continue;
      letters.set(keyOf(letter.batch, letter.index), letter);
    }
    const journal = await openJournal(this.options, file.name);
    let settled = true;
    try {
      for (const sent of open) {
        if (!await this.#again(sent, letters, done, journal)) settled = false;
      }
      const wanted = [...letters.values()].filter((letter) =>
        !done.has(letter) && !this.#staying.has(letter) && this.run.wanted(letter)
      );
      const rest: Letter[] = [];
      for (const letter of wanted) {
        if (letter.source === undefined ? !this.#isMisfit(letter) : await this.#isRow(letter)) {
          rest.push(letter);
        }
      }
      for (const portion of portions(rest, this.options.portion())) {
        if (!await this.#send(portion, done, journal)) settled = false;
      }
    } finally {
      await journal.close();
    }
    // An open portion needs its letters in this file, and the journal.
    if (!settled) return;
    await this.options.store.reduce(
      file,
      ({ letter }) =>
        letter === null || (!done.has(letter) && letters.has(keyOf(letter.batch, letter.index))),
      "goes",
    );
  }

  /** A portion of an earlier replay whose fate is not known. @returns whether it is now. */
  async #again(
    { id, places }: Sent,
    letters: ReadonlyMap<string, Letter>,
    done: LetterSet,
    journal: Journal,
  ): Promise<boolean> {
    const portion = places.map(([batch, index]) => letters.get(keyOf(batch, index)))
      .filter((letter) => letter !== undefined && !done.has(letter)) as Letter[];
    if (portion.length === places.length && replayId(this.table, portion) === id) {
      for (const letter of portion) {
        if (letter.source === undefined || await this.#isRow(letter)) continue;
        // Some of it may be stored: the others go on with it, or none does.
        this.#leave(portion);
        return false;
      }
      return await this.#send(portion, done, journal, true);
    }
    // The file was changed by hand: these are other rows than those that were sent.
    await journal.write({ refused: id });
    return true;
  }

  /** @returns false when the portion's fate stays unknown. */
  async #send(
    portion: readonly Letter[],
    done: LetterSet,
    journal: Journal,
    again = false,
  ): Promise<boolean> {
    if (this.stopped !== "no") {
      this.#leave(portion);
      return !again;
    }
    const id = replayId(this.table, portion);
    if (!again) {
      const places = portion.map(({ batch, index }) => [batch, index] as const);
      await journal.write({ sent: id, letters: places });
    }
    const given = await this.#give(portion, id);
    const { totals } = this.run;
    if (given.kind === "settled") {
      await journal.write({ done: id });
      for (const letter of portion) done.add(letter);
      totals.stored += portion.length - given.dead;
      totals.dead += given.dead;
      if (given.dead > 0) this.#diedAs.add(id);
      return true;
    }
    this.#leave(portion);
    this.stopped = given.kind === "unsent" ? given.of : "collector";
    const known = given.kind === "unsent" && !again;
    if (known) await journal.write({ refused: id });
    totals.problems.add(known ? given.problem : `${given.problem}; ${GO_ON}`);
    if (given.retryAfterS !== null) totals.retryAfterS = given.retryAfterS;
    return known;
  }

  async #give(portion: readonly Letter[], id: string): Promise<Given> {
    const { intake, tables, clock } = this.options;
    const { untilMs, over, signal } = this.run;
    const chunk = chunkOf(portion, id, this.#read);
    for (;;) {
      const problem = over();
      if (problem !== null) return { kind: "unsent", of: "collector", problem, retryAfterS: 1 };
      const columns = await tables.lookUp(this.table, LOOK_UP_MS);
      if (columns === "missing" && intake.replayed(this.table, id) === null) {
        const problem = `there is no table ${this.table}`;
        return { kind: "unsent", of: "table", problem, retryAfterS: null };
      }
      // A person may have changed the rows: they are held against their columns again.
      const taken = intake.take(chunk);
      const refused = taken.kind === "refused" ? taken : await taken.ticket.kept;
      if (refused === null && taken.kind === "taken") {
        const leftMs = Math.max(0, untilMs - clock.monotonicMs());
        const settled = await unlessAborted(taken.ticket.settled(leftMs), signal);
        if (settled !== null) return { kind: "settled", dead: settled.dead };
        return { kind: "unknown", problem: UNDERWAY, retryAfterS: 1 };
      }
      const { why, reason, retryAfterS } = refused as Refused;
      if (why === "closed" || clock.monotonicMs() + retryAfterS * 1000 >= untilMs) {
        const problem = why === "closed" ? `the collector is ${reason}` : reason;
        return { kind: "unsent", of: "collector", problem, retryAfterS };
      }
      await sleep(clock, retryAfterS * 1000, signal);
    }
  }

  /** A row that a person has changed in the file may be none any more. */
  #isMisfit(letter: Letter): boolean {
    if (!/[\r\n]/.test(letter.row) && parsedRow(letter) !== null) return false;
    this.#refuse(letter, MISFIT);
    return true;
  }

  /** Whether a message that was no row has become one: its table, or the letter, may have changed. */
  async #isRow(letter: Letter): Promise<boolean> {
    if (this.stopped !== "no") {
      this.#leave([letter]);
      return false;
    }
    if (letter.base64) {
      this.#refuse(letter, NO_TEXT);
      return false;
    }
    const reader = await this.options.reader();
    const table = letter.shape === "event" ? null : letter.table;
    const read = await reader.read(table, Buffer.from(letter.row));
    if (read.kind === "wait") {
      this.stopped = "table";
      this.run.totals.problems.add(read.why);
      this.#leave([letter]);
      return false;
    }
    const [first] = read.kind === "rows" ? read.errors : [{ error: read.error }];
    if (read.kind === "refused" || read.rejected > 0) {
      this.#refuse(letter, first?.error ?? MISFIT);
      return false;
    }
    this.#read.set(letter, read.chunk);
    return true;
  }

  /** It stays what it is. */
  #refuse(letter: Letter, reason: string): void {
    this.#staying.add(letter);
    this.run.totals.dead++;
    this.run.totals.because(`refused by the collector: ${reason}`);
  }

  #leave(portion: readonly Letter[]): void {
    this.run.totals.left += portion.length;
    for (const letter of portion) this.#staying.add(letter);
  }

  /** Looks up why rows are dead again. */
  async tellReasons(): Promise<void> {
    if (this.#diedAs.size === 0) return;
    await this.options.store.visit(this.table, ({ batch, code, error }) => {
      if (this.#diedAs.has(batch)) this.run.totals.because(`code ${code}: ${error}`);
    });
  }
}

/** Null once `signal` is aborted: the answer is not waited for any more. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | null> {
  const { promise, resolve } = Promise.withResolvers<null>();
  const end = () => resolve(null);
  if (signal.aborted) end();
  signal.addEventListener("abort", end, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", end);
  }
}

/** What a letter is for the intake. */
interface Rows {
  readonly rows: number;
  readonly body: Uint8Array;
  readonly types: TypeCounts;
}

function chunkOf(
  letters: readonly Letter[],
  id: string,
  read: ReadonlyMap<Letter, Rows>,
): Chunk {
  const { table, shape } = letters[0]!;
  const types = new Map<string, number>();
  const all = letters.map((letter) => read.get(letter) ?? rowsOf(letter));
  for (const part of all) {
    part.types.forEach((count, type) => types.set(type, (types.get(type) ?? 0) + count));
  }
  const rows = all.reduce((sum, { rows }) => sum + rows, 0);
  const body = Buffer.concat(all.map(({ body }) => body));
  return { table, shape, rows, body, types, fingerprint: null, replay: id };
}

function rowsOf(letter: Letter): Rows {
  const type = letter.shape === "event" ? parsedRow(letter)?.["eventType"] : null;
  const counted = typeof type === "string" && Buffer.byteLength(type) <= LONGEST_TYPE_BYTES
    ? type
    : OTHER_TYPE;
  const types = new Map(letter.shape === "event" ? [[counted, 1]] : []);
  return { rows: 1, body: Buffer.from(`${letter.row}\n`), types };
}

function parsedRow({ row }: Letter): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(row);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? value as Record<string, unknown> : null;
  } catch {
    return null;
  }
}

/** Appends to the journal of a file; each answer means synced. Rejects with the system's error. */
interface Journal {
  /** `refused`: none of them was taken; they may go in other company next time. */
  write(entry: JournalEntry): Promise<void>;
  close(): Promise<void>;
}

export async function openJournal(
  { files, folder }: Pick<ReplayOptions, "files" | "folder">,
  name: string,
): Promise<Journal> {
  const file = await files.append(join(folder, journalName(name)));
  const encoder = new TextEncoder();
  // A crash may have torn the last line; a line of its own keeps the next one whole.
  let before = file.bytes > 0 ? "\n" : "";
  await files.syncFolder(folder);
  return {
    async write(entry) {
      await file.write(encoder.encode(`${before}${JSON.stringify(entry)}\n`));
      await file.sync();
      before = "";
    },
    close: () => file.close(),
  };
}

function keyOf(batch: string, index: number): string {
  return `${batch} ${index}`;
}

/** Neighbours of one shape, within the bounds. */
function* portions(
  letters: readonly Letter[],
  most: { readonly rows: number; readonly bytes: number },
): Generator<readonly Letter[]> {
  let portion: Letter[] = [];
  let bytes = 0;
  for (const letter of letters) {
    const rowBytes = Buffer.byteLength(letter.row) + 1;
    const fits = portion.length < Math.min(most.rows, PORTION_ROWS) &&
      bytes + rowBytes <= Math.min(most.bytes, PORTION_BYTES) &&
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
