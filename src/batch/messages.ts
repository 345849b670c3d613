/**
 * What was taken of brokers, remembered so that a message that comes again becomes no rows: up to where the
 * partitions of each source are taken, and the ids of their messages.
 *
 * Both ride in the frames of their rows (`spool/frame.ts`), so they are as safe as these, and an earlier
 * process's are known as soon as its journal is read. A mark says that all before it is in as well. So it
 * goes to the disk only where that is true of the disk: the chunks before it in its partition are there, and not
 * merely on their way or in memory. A mark is remembered until the broker has it that the partition is
 * acknowledged up to there, ids for a time, both within bounds; what is forgotten costs a repeat.
 *
 * Of a partition the disk keeps the newest mark, and one for each batch whose fate is not known: so the next
 * process knows which rows a message waits for that is acknowledged when they are stored.
 */

import type {
  Ack,
  KnownIds,
  KnownMark,
  Mark,
  Memo,
  Messages,
  Recovered,
  Refused,
  TakenMark,
  Ticket,
} from "../contracts.ts";
import { comparePositions, isPosition } from "../kernel/positions.ts";
import { Underway } from "../kernel/time.ts";
import type { HeldBatch, Span } from "./batch.ts";
import type { Earlier, NameBudget, NamesOfAKind } from "./keys.ts";
import { IdIndex } from "./id_index.ts";

/** Remembered at most of a source; those in which nothing has come for the longest go first. */
const MOST_PARTITIONS = 10_000;
/** What an id costs beside its text, about. */
const ID_BYTES = 40;

export interface MessagesDeps {
  /** How long ids are remembered. */
  readonly windowMs: () => number;
  /** Epoch milliseconds. */
  readonly nowMs: () => number;
  readonly earlier: Earlier;
  readonly budget: NameBudget;
  /** Marks that the disk has are not needed up to here. */
  readonly reached: (source: string, mark: Mark) => void;
  /** For tests. */
  readonly mostPartitions?: number;
}

export class KnownMessages {
  readonly #sources = new Map<string, Source>();

  constructor(readonly deps: MessagesDeps) {}

  // ------------------------------------------------------------ what is asked

  /** See `Intake.marks`. */
  async marks(source: string): Promise<ReadonlyMap<string, TakenMark>> {
    return await this.#answered(source, (is) => is.marks()) ?? new Map();
  }

  /** See `Intake.taken`. */
  async taken(source: string, ids: readonly string[]): Promise<ReadonlyMap<string, Ticket>> {
    this.expire();
    return await this.#answered(source, (is) => is.taken(ids)) ?? new Map();
  }

  async #answered<T>(source: string, ask: (source: Source) => T): Promise<T | null> {
    await this.deps.earlier.whenRead;
    const is = this.#sources.get(source);
    if (is === undefined) return null;
    await is.underway.idle();
    return ask(is);
  }

  // ------------------------------------------------------------ rows come

  /** A chunk of messages is taken. What is returned goes to the disk with its rows. */
  begin(table: string, { source, marks, ids }: Messages): BegunMessages {
    const is = this.#source(source);
    const record = { table, source, batches: [], gone: false };
    const comes = marks.filter(({ position }) => isPosition(position))
      .map(({ partition, position }): Coming => ({
        mark: { ...record, partition, position },
        safe: is.partition(partition).unsafe === 0,
      }));
    const named = ids.length === 0 ? null : {
      ...record,
      ids: JSON.stringify(ids),
      count: ids.length,
      sinceMs: this.deps.nowMs(),
    };
    const onDisk = comes.filter(({ safe }) => safe).map(({ mark }) => mark);
    return {
      memos: named === null ? onDisk : [...onDisk, named],
      taken: (reached, kept, spans) => is.begin(comes, named, ids, reached, kept, spans),
    };
  }

  /** See `Intake.committed`. */
  committed(source: string, mark: Mark): void {
    if (isPosition(mark.position)) this.#sources.get(source)?.committed(mark);
  }

  #source(name: string): Source {
    let source = this.#sources.get(name);
    if (source === undefined) this.#sources.set(name, source = new Source(name, this.deps));
    return source;
  }

  // ------------------------------------------------------------ what earlier processes took

  recover(memos: readonly Recovered<KnownMark | KnownIds>[]): void {
    const marks = memos.filter((memo) => "partition" in memo)
      .sort((a, b) => comparePositions(a.position, b.position));
    for (const mark of marks) this.#source(mark.source).recoverMark(mark);
    const ids = memos.filter((memo) => "ids" in memo).sort((a, b) => a.sinceMs - b.sinceMs);
    for (const name of new Set(ids.map(({ source }) => source))) {
      this.#source(name).recoverIds(ids.filter(({ source }) => source === name));
    }
    this.expire();
  }

  /** All is held that earlier processes left: what is not has left for certain. */
  recovered(): void {
    for (const source of this.#sources.values()) source.recovered();
  }

  // ------------------------------------------------------------ what is forgotten

  /** Forgets ids that are older than the window. */
  expire(): void {
    const sinceMs = this.deps.nowMs() - this.deps.windowMs();
    for (const source of this.#sources.values()) source.expire(sinceMs);
  }

  /** Rows of these batches are lost: a message that comes again is to be taken. */
  lost(batches: ReadonlySet<string>): void {
    if (batches.size === 0) return;
    for (const source of this.#sources.values()) source.lost(batches);
  }
}

/** Messages whose rows are about to be taken. */
export interface BegunMessages {
  readonly memos: readonly Memo[];
  readonly taken: (reached: Ack, kept: Ticket["kept"], spans: readonly Span[]) => void;
}

interface Coming {
  readonly mark: Recovered<KnownMark>;
  /** It goes to the disk with the rows: all before it in its partition is there. */
  readonly safe: boolean;
}

/** Emptied where it is gone. */
type NamedIds = Recovered<KnownIds> & { ids: string; count: number };

function textsOf({ ids }: Pick<KnownIds, "ids">): readonly string[] {
  return JSON.parse(ids);
}

/** Ids whose rows were taken together. */
interface TakenIds {
  readonly record: NamedIds;
  readonly reached: Ack;
  /** Null for one of an earlier process, or that has left. */
  batch: HeldBatch | null;
}

class Source implements NamesOfAKind {
  /** Chunks whose rows are on their way to the disk. */
  readonly underway = new Underway();
  readonly #partitions = new Map<string, Partition>();
  readonly #ids = new IdIndex<TakenIds>(({ record }) => textsOf(record));
  /** Ids, and what they cost. */
  #size = 0;
  #bytes = 0;

  constructor(readonly name: string, readonly deps: MessagesDeps) {}

  /** Of ids. */
  get size(): number {
    return this.#size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  marks(): Map<string, TakenMark> {
    const marks = new Map<string, TakenMark>();
    for (const [name, partition] of this.#partitions) {
      const { position } = partition;
      if (position !== "") {
        marks.set(name, { position, ticket: partition.ticket(this.deps.earlier) });
      }
    }
    return marks;
  }

  taken(ids: readonly string[]): Map<string, Ticket> {
    const tickets = new Map<TakenIds, Ticket>();
    const taken = new Map<string, Ticket>();
    for (const [id, chunk] of this.#ids.find(ids)) {
      const { record, reached, batch } = chunk;
      const ticket = tickets.get(chunk) ??
        (batch === null
          ? this.deps.earlier.ticketOf([record], reached)
          : this.deps.earlier.ticketOf([], reached, [batch]));
      tickets.set(chunk, ticket);
      taken.set(id, ticket);
    }
    return taken;
  }

  /** The partition, as the one in which something came last. */
  partition(name: string): Partition {
    const partition = this.#partitions.get(name) ?? new Partition();
    this.#partitions.delete(name);
    this.#partitions.set(name, partition);
    const most = this.deps.mostPartitions ?? MOST_PARTITIONS;
    for (const [idle, { unsafe }] of this.#partitions) {
      if (this.#partitions.size <= most) break;
      if (idle !== name && unsafe === 0) this.#forgetPartition(idle);
    }
    return partition;
  }

  begin(
    comes: readonly Coming[],
    named: NamedIds | null,
    ids: readonly string[],
    reached: Ack,
    kept: Promise<Refused | null> | null,
    spans: readonly Span[],
  ): void {
    // Never cut; without rows in none.
    const batch = spans[0]?.batch ?? null;
    const records = [...comes.map(({ mark }) => mark), ...named === null ? [] : [named]];
    for (const record of records) if (batch !== null) record.batches = [batch.id];
    const partitions = comes.map(({ mark }) => this.partition(mark.partition));
    const safe = () => {
      for (const partition of partitions) partition.unsafe--;
    };
    const take = () => {
      comes.forEach(({ mark, safe }, at) =>
        partitions[at]!.take(mark, safe && kept !== null, batch)
      );
      if (named !== null) this.#takeIds({ record: named, reached, batch }, ids);
    };
    for (const partition of partitions) partition.unsafe++;
    if (kept !== null) {
      void this.underway.add(kept.then((refused) => {
        safe();
        if (refused === null) take();
        else for (const record of records) record.gone = true;
      }));
      return;
    }
    take();
    // In memory alone until they have left; given up, they are for the broker to give again.
    if (batch === null) safe();
    else batch.whenSettled((fate) => fate !== null && safe());
  }

  committed(mark: Mark): void {
    const partition = this.#partitions.get(mark.partition);
    if (partition === undefined) return;
    if (partition.committed(mark.position)) this.deps.reached(this.name, mark);
    if (partition.position === "" && partition.unsafe === 0) {
      this.#partitions.delete(mark.partition);
    }
  }

  recoverMark(mark: Recovered<KnownMark>): void {
    this.partition(mark.partition).take(mark, true, null);
  }

  recovered(): void {
    for (const partition of this.#partitions.values()) partition.recovered(this.deps.earlier);
  }

  // ------------------------------------------------------------ ids

  recoverIds(records: readonly Recovered<KnownIds>[]): void {
    const now = [...this.#ids.chunks()].map(([, chunk]) => chunk);
    this.#ids.clear();
    this.#size = this.#bytes = 0;
    for (const record of records) {
      this.#takeIds({ record, reached: "disk", batch: null }, textsOf(record));
    }
    // What was taken meanwhile is newer.
    for (const chunk of now) this.#takeIds(chunk, textsOf(chunk.record));
  }

  #takeIds(chunk: TakenIds, ids: readonly string[]): void {
    this.#ids.add(chunk, ids);
    this.#count(chunk.record, 1);
    chunk.batch?.whenSettled((fate) => {
      // Given up: the next start knows more.
      if (fate === null) return;
      chunk.record.batches = [];
      chunk.batch = null;
    });
    this.deps.budget.fit(this);
  }

  forgetOldest(): void {
    for (const [number, chunk] of this.#ids.chunks()) return this.#forgetIds(number, chunk);
  }

  expire(sinceMs: number): void {
    for (const [number, chunk] of this.#ids.chunks()) {
      if (chunk.record.sinceMs > sinceMs) break;
      this.#forgetIds(number, chunk);
    }
  }

  lost(batches: ReadonlySet<string>): void {
    for (const [number, chunk] of this.#ids.chunks()) {
      if (chunk.record.batches.some((id) => batches.has(id))) this.#forgetIds(number, chunk);
    }
    for (const [name, partition] of this.#partitions) {
      if (partition.needs(batches)) this.#forgetPartition(name);
    }
  }

  #forgetIds(number: number, { record }: TakenIds): void {
    this.#ids.forget(number);
    this.#count(record, -1);
    record.gone = true;
    // A file may keep what is gone for a while.
    record.ids = "[]";
    record.count = 0;
  }

  #count({ ids, count }: NamedIds, sign: 1 | -1): void {
    this.#size += sign * count;
    this.#bytes += sign * (ids.length + count * ID_BYTES);
  }

  #forgetPartition(name: string): void {
    const partition = this.#partitions.get(name)!;
    const { position } = partition;
    if (position !== "" && partition.committed(position)) {
      this.deps.reached(this.name, { partition: name, position });
    }
    if (partition.unsafe === 0) this.#partitions.delete(name);
  }
}

/** Rows of a partition in one batch, whose fate is not known. */
interface InBatch {
  /** Of the last of them. */
  position: string;
  /** The newest of them that the disk has; null: none. */
  mark: Recovered<KnownMark> | null;
  readonly table: string;
  /** Null for one of an earlier process. */
  readonly batch: HeldBatch | null;
}

class Partition {
  /** Up to where it was taken; empty: nothing is known of it. */
  position = "";
  /** Chunks whose rows the disk does not have: on their way, or in memory alone. */
  unsafe = 0;
  /** By their ids. */
  readonly #batches = new Map<string, InBatch>();
  /** The newest that the disk has. */
  #newest: Recovered<KnownMark> | null = null;

  /** @param onDisk the disk has it. @param batch null for one of an earlier process. */
  take(mark: Recovered<KnownMark>, onDisk: boolean, batch: HeldBatch | null): void {
    this.position = later(this.position, mark.position);
    if (onDisk) this.#keep(mark);
    const { table } = mark;
    for (const id of mark.batches) {
      const known = this.#batches.get(id);
      const is: InBatch = known ?? { position: mark.position, mark: null, table, batch };
      is.position = later(is.position, mark.position);
      if (onDisk) {
        if (is.mark !== null) this.#free(is.mark);
        is.mark = mark;
      }
      this.#batches.set(id, is);
      if (known === undefined) batch?.whenSettled((fate) => fate !== null && this.#left(id, is));
    }
  }

  /** One is the newest. */
  #keep(mark: Recovered<KnownMark>): void {
    const before = this.#newest;
    if (before !== null && comparePositions(mark.position, before.position) < 0) {
      if (mark.batches.length === 0) mark.gone = true;
      return;
    }
    this.#newest = mark;
    if (before !== null && before.batches.length === 0) before.gone = true;
  }

  /** A mark is needed as the newest, or for its batch. */
  #free(mark: Recovered<KnownMark>): void {
    if (mark !== this.#newest) mark.gone = true;
  }

  #left(id: string, is: InBatch): void {
    if (this.#batches.get(id) !== is) return;
    this.#batches.delete(id);
    if (is.mark === null) return;
    is.mark.batches = [];
    this.#free(is.mark);
  }

  /** Forgets what is known up to here. @returns whether the disk had marks of it. */
  committed(position: string): boolean {
    let any = false;
    const isReached = (one: string) => comparePositions(one, position) <= 0;
    for (const [id, is] of this.#batches) {
      if (!isReached(is.position)) continue;
      this.#batches.delete(id);
      if (is.mark === null) continue;
      is.mark.gone = true;
      any = true;
    }
    if (this.#newest !== null && isReached(this.#newest.position)) {
      this.#newest.gone = true;
      this.#newest = null;
      any = true;
    }
    if (this.position !== "" && isReached(this.position)) this.position = "";
    return any;
  }

  recovered(earlier: Earlier): void {
    for (const [id, is] of this.#batches) {
      if (is.batch !== null) continue;
      const batch = earlier.held(is.table, id);
      if (batch === null) this.#left(id, is);
      else batch.whenSettled((fate) => fate !== null && this.#left(id, is));
    }
  }

  needs(batches: ReadonlySet<string>): boolean {
    for (const id of this.#batches.keys()) if (batches.has(id)) return true;
    return false;
  }

  ticket(earlier: Earlier): Ticket {
    const own: HeldBatch[] = [];
    const others: { table: string; batches: string[] }[] = [];
    for (const [id, { table, batch }] of this.#batches) {
      if (batch !== null) own.push(batch);
      else others.push({ table, batches: [id] });
    }
    return earlier.ticketOf(others, this.unsafe > 0 ? "memory" : "disk", own);
  }
}

function later(one: string, other: string): string {
  return one === "" || comparePositions(one, other) < 0 ? other : one;
}
