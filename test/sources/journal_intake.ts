/**
 * An intake as a source meets it, and the disk behind it, in memory: rows are on the disk when they are synced,
 * with the positions and ids that came with them; a process that is killed leaves the disk as it is. Each
 * step can be held up.
 */

import type {
  Ack,
  Chunk,
  Intake,
  Mark,
  Refused,
  SourceLetter,
  TakenMark,
  Ticket,
} from "../../src/contracts.ts";
import { comparePositions } from "../../src/kernel/positions.ts";
import { DONE, failed, type Result } from "../../src/kernel/result.ts";

/** A step that waits while it is shut. */
export class Gate {
  #open = Promise.withResolvers<void>();
  #shut = false;
  /** How many wait in front of it. */
  waiting = 0;

  constructor() {
    this.#open.resolve();
  }

  shut(): void {
    if (this.#shut) return;
    this.#shut = true;
    this.#open = Promise.withResolvers();
  }

  open(): void {
    this.#shut = false;
    this.#open.resolve();
  }

  async pass(): Promise<void> {
    this.waiting++;
    await this.#open.promise;
    this.waiting--;
  }
}

/** What outlives a process. */
export class Disk {
  /**
   * @param rows in the order in which they were synced. Both may be those of another disk: what all have
   * together.
   */
  constructor(readonly rows: string[] = [], readonly letters: SourceLetter[] = []) {}

  /** Of the rows, those that are in ClickHouse. */
  readonly stored = new Set<string>();
  readonly marks = new Map<string, Map<string, string>>();
  readonly ids = new Map<string, Set<string>>();
}

const EVERYTHING_STORED = { dead: 0 };

/** One process. */
export class JournalIntake implements Intake {
  /** Rows wait here before they are on the disk. */
  readonly syncing = new Gate();
  /** And here before they are in ClickHouse. */
  readonly storing = new Gate();
  /** Chunks that were given, also those that were refused. */
  given = 0;
  /** Why nothing is taken. */
  full: string | null = null;
  lettersFull: string | null = null;
  state: "stopping" | "paused" | null = null;
  /** The next syncs fail, and refuse what was taken. */
  failingSyncs = 0;
  #dead = false;
  readonly #underway = new Set<Promise<unknown>>();

  constructor(readonly disk: Disk, readonly ack: Ack = "disk") {}

  /** kill -9: what is not synced is gone. */
  kill(): void {
    this.#dead = true;
  }

  take(chunk: Chunk) {
    this.given++;
    if (this.#dead) return refused("closed", "killed");
    if (this.state !== null) return refused("closed", this.state);
    if (this.full !== null) return refused("full", this.full);
    const kept = this.#sync(chunk);
    this.#underway.add(kept);
    void kept.finally(() => this.#underway.delete(kept));
    const ticket: Ticket = {
      reached: this.ack === "memory" ? "memory" : "disk",
      kept,
      settled: () => kept.then(() => this.#store(chunk)),
    };
    return { kind: "taken" as const, ticket };
  }

  async #sync(chunk: Chunk): Promise<Refused | null> {
    await this.syncing.pass();
    if (this.#dead) return await new Promise<never>(() => {});
    if (this.failingSyncs > 0) {
      this.failingSyncs--;
      return refused("full", "the disk is full");
    }
    this.disk.rows.push(...rowsOf(chunk));
    const { source, marks, ids } = chunk.messages!;
    const known = this.disk.marks.get(source) ?? new Map();
    for (const { partition, position } of marks) {
      const before = known.get(partition);
      if (before !== undefined && comparePositions(position, before) <= 0) {
        throw new Error(`taken twice: ${partition} ${position}, after ${before}`);
      }
      known.set(partition, position);
    }
    this.disk.marks.set(source, known);
    this.disk.ids.set(source, (this.disk.ids.get(source) ?? new Set()).union(new Set(ids)));
    return null;
  }

  async #store(chunk: Chunk): Promise<{ readonly dead: number }> {
    await this.storing.pass();
    if (this.#dead) return await new Promise<never>(() => {});
    for (const row of rowsOf(chunk)) this.disk.stored.add(row);
    return EVERYTHING_STORED;
  }

  refusal(): Refused | null {
    return this.full === null ? null : refused("full", this.full);
  }

  closed() {
    return this.state;
  }

  async marks(source: string): Promise<ReadonlyMap<string, TakenMark>> {
    await Promise.allSettled(this.#underway);
    const marks = this.disk.marks.get(source) ?? new Map<string, string>();
    return new Map(
      [...marks].map(([partition, position]) => [partition, { position, ticket: this.#kept }]),
    );
  }

  async taken(source: string, ids: readonly string[]): Promise<ReadonlyMap<string, Ticket>> {
    await Promise.allSettled(this.#underway);
    const known = this.disk.ids.get(source);
    return new Map(ids.filter((id) => known?.has(id)).map((id) => [id, this.#kept]));
  }

  committed(source: string, { partition, position }: Mark): void {
    const known = this.disk.marks.get(source);
    const mark = known?.get(partition);
    if (mark !== undefined && comparePositions(mark, position) <= 0) known!.delete(partition);
  }

  keepLetters(letters: readonly SourceLetter[]): Promise<Result> {
    if (this.lettersFull !== null) return Promise.resolve(failed(this.lettersFull));
    for (const letter of letters) {
      const { batch, index } = letter;
      const known = this.disk.letters.some((one) => one.batch === batch && one.index === index);
      if (!known) this.disk.letters.push(letter);
    }
    return Promise.resolve(DONE);
  }

  get #kept(): Ticket {
    return {
      reached: "disk",
      kept: null,
      settled: async () => {
        await this.storing.pass();
        if (this.#dead) return await new Promise<never>(() => {});
        for (const row of this.disk.rows) this.disk.stored.add(row);
        return EVERYTHING_STORED;
      },
    };
  }

  reserve(): boolean {
    return true;
  }
  release(): void {}
  replayed(): null {
    return null;
  }
  known(): null {
    return null;
  }
}

function rowsOf({ body }: Chunk): string[] {
  return new TextDecoder().decode(body).split("\n").slice(0, -1);
}

function refused(why: "full" | "closed", reason: string): Refused {
  return { kind: "refused", why, reason, retryAfterS: 1 };
}
