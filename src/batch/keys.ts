/**
 * What may come again: rows that were taken under a key, remembered for a time, so that a sender that repeats
 * itself repeats nothing, and replays of dead letters. What `messages.ts` has in common with it stands here
 * too: what earlier processes left, and the one bound of all names.
 *
 * A key is known from the moment in which its rows are taken, also while they are on their way to the
 * disk: the second of two waits for the same round. What is refused is forgotten. The disk has keys in
 * the frames of their rows (`spool/frame.ts`), so an earlier process's are known as soon as its journal
 * is read; until then it is not known, and keyed rows wait. Memory is bounded (`NameBudget`): the oldest are
 * forgotten.
 */

import type {
  Ack,
  ChunkKey,
  Clock,
  KnownKey,
  Memo,
  Named,
  Recovered,
  Refused,
  Taken,
  Ticket,
} from "../contracts.ts";
import { within } from "../kernel/time.ts";
import { type HeldBatch, RequestTicket, type Span } from "./batch.ts";
import type { TableQueue } from "./queue.ts";

/** What a key costs beside its text, about. */
const KEY_BYTES = 400;
/** What an earlier process took is waited for; then the sender is asked to come again. */
const READ_MS = 10_000;
const READ_RETRY_S = 1;

export interface KeysDeps {
  readonly clock: Clock;
  /** How long a key is remembered. */
  readonly windowMs: () => number;
  /** Epoch milliseconds. */
  readonly nowMs: () => number;
  readonly earlier: Earlier;
  readonly budget: NameBudget;
}

/** Rows of the key's chunk may be anywhere still. */
interface Remembered {
  readonly key: Recovered<KnownKey>;
  ticket: Ticket;
}

export class Keys implements NamesOfAKind {
  /** By table and key, the oldest first. */
  #known = new Map<string, Remembered>();
  #bytes = 0;

  constructor(readonly deps: KeysDeps) {}

  get size(): number {
    return this.#known.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  // ------------------------------------------------------------ a key comes

  /** What is to be said of a chunk with this key; null: it is new. */
  known(table: string, named: Named): Taken | null {
    if (!this.deps.earlier.isRead) return NOT_READ;
    this.expire();
    const found = this.#known.get(nameOf(table, named.key));
    if (found === undefined) return null;
    const { key: { hash, accepted, rejected }, ticket } = found;
    if (hash !== named.hash) return CAME_OTHERWISE;
    return { kind: "taken", ticket, before: { accepted, rejected } };
  }

  /** As `known`, but waits until what an earlier process took is known. */
  knownSoon(table: string, named: Named): Taken | null | Promise<Taken | null> {
    const { clock, earlier } = this.deps;
    if (earlier.isRead) return this.known(table, named);
    return within(clock, READ_MS, earlier.whenRead, undefined)
      .then(() => this.known(table, named));
  }

  /** Rows were taken for the first time. What is returned goes to the disk with them. */
  begin(table: string, rows: number, { key, hash, rejected }: ChunkKey): Begun {
    const record = {
      table,
      key,
      hash,
      accepted: rows,
      rejected,
      sinceMs: this.deps.nowMs(),
      batches: [] as readonly string[],
      gone: false,
    };
    return {
      record,
      /** They are on their way. @param spans filled once they are kept. */
      taken: (reached, kept, spans) => {
        record.batches = [...new Set(spans.map(({ batch }) => batch.id))];
        const found: Remembered = {
          key: record,
          ticket: new RequestTicket(reached, kept, spans, this.deps.clock),
        };
        this.#add(found);
        if (kept === null) this.#follow(found, reached, spans);
        else {
          void kept.then((refused) => {
            if (refused !== null) this.#forget(found);
            else this.#follow(found, reached, spans);
          });
        }
      },
    };
  }

  /** Lets go of the request, and of the batches as they leave. */
  #follow(found: Remembered, reached: Ack, spans: readonly Span[]): void {
    const { clock } = this.deps;
    const bare = spans.map(({ batch, from, to }) => ({ batch, from, to }));
    found.ticket = new RequestTicket(reached, null, bare, clock);
    let open = bare.length;
    for (const { batch } of bare) {
      batch.whenSettled((fate) => {
        // Given up: the next start knows more.
        if (fate === null || --open > 0) return;
        found.key.batches = [];
        void found.ticket.settled(0).then((settled) => {
          found.ticket = { reached, kept: null, settled: () => Promise.resolve(settled) };
        });
      });
    }
  }

  // ------------------------------------------------------------ what earlier processes took

  recover(keys: readonly Recovered<KnownKey>[]): void {
    const now = [...this.#known.values()];
    this.#known = new Map();
    this.#bytes = 0;
    for (const key of [...keys].sort((a, b) => a.sinceMs - b.sinceMs)) {
      this.#add({ key, ticket: this.deps.earlier.ticketOf([key]) });
    }
    // What was taken meanwhile is newer.
    for (const each of now) this.#add(each);
    this.expire();
  }

  // ------------------------------------------------------------ keys go

  #add(found: Remembered): void {
    const name = nameOf(found.key.table, found.key.key);
    const before = this.#known.get(name);
    if (before !== undefined) this.#forget(before);
    this.#known.set(name, found);
    this.#bytes += bytesOf(found.key);
    this.deps.budget.fit(this);
  }

  forgetOldest(): void {
    for (const oldest of this.#known.values()) return this.#forget(oldest);
  }

  /** Forgets what is older than the window. */
  expire(): void {
    const sinceMs = this.deps.nowMs() - this.deps.windowMs();
    for (const found of this.#known.values()) {
      if (found.key.sinceMs > sinceMs) break;
      this.#forget(found);
    }
  }

  /** Rows of these batches are lost: a sender that repeats them is to be believed. */
  lost(batches: ReadonlySet<string>): void {
    if (batches.size === 0) return;
    for (const found of this.#known.values()) {
      if (found.key.batches.some((id) => batches.has(id))) this.#forget(found);
    }
  }

  #forget(found: Remembered): void {
    const { key } = found;
    key.gone = true;
    const name = nameOf(key.table, key.key);
    if (this.#known.get(name) !== found) return;
    this.#known.delete(name);
    this.#bytes -= bytesOf(key);
  }
}

/** A key whose rows are about to be taken. */
export interface Begun {
  readonly record: KnownKey;
  readonly taken: (reached: Ack, kept: Ticket["kept"], spans: readonly Span[]) => void;
}

const NOT_READ: Refused = {
  kind: "refused",
  why: "closed",
  reason: "what came before the start under which key is still being read; nothing was taken",
  retryAfterS: READ_RETRY_S,
};

const CAME_OTHERWISE: Refused = {
  kind: "refused",
  why: "key",
  reason: "another body came under this key before; nothing was taken",
  retryAfterS: READ_RETRY_S,
};

function nameOf(table: string, key: string): string {
  // No key has a newline.
  return `${key}\n${table}`;
}

function bytesOf({ table, key }: KnownKey): number {
  return KEY_BYTES + table.length + key.length;
}

// ── Replays: dead letters that are sent again.

/** Settled replays that are remembered. */
const REMEMBERED = 1000;

/** Replays have ids of version 8, batches of fresh rows of version 7. */
function isReplay(id: string): boolean {
  return id[14] === "8";
}

/**
 * Dead letters that are sent again. A replay is a batch of its own whose id its letters decide, so the
 * same replay is known when it comes twice: while it is held, for some time after it was settled, and
 * to ClickHouse by its token.
 */
export class Replays {
  /** Dead rows of settled replays, oldest first. */
  readonly #settled = new Map<string, number>();
  /** Whether the disk has them, as their first tickets say. */
  readonly #kept = new WeakMap<HeldBatch, Promise<Refused | null>>();

  constructor(readonly clock: Clock) {}

  /** The ticket of a replay that was taken before, or null. @param reached once it is kept. */
  find(queue: TableQueue, id: string, reached: Ack): Ticket | null {
    const batch = this.held(queue, id);
    if (batch !== null) {
      // Its rows may not be in it yet.
      const all = { batch, from: 0, to: Infinity };
      return new RequestTicket(reached, this.#kept.get(batch) ?? null, [all], this.clock);
    }
    const dead = this.#settled.get(`${queue.table}/${id}`);
    if (dead === undefined) return null;
    return { reached: "clickhouse", kept: null, settled: () => Promise.resolve({ dead }) };
  }

  /** The replay, while it is held. */
  held(queue: TableQueue, id: string): HeldBatch | null {
    if (!isReplay(id)) return null;
    return queue.find(id);
  }

  /** Its rows are on their way to the disk. */
  taken(batch: HeldBatch, kept: Promise<Refused | null> | null): void {
    if (kept !== null && isReplay(batch.id)) this.#kept.set(batch, kept);
  }

  /** Its rows have left. */
  settled({ id, table }: HeldBatch, dead: number): void {
    if (!isReplay(id)) return;
    this.#settled.set(`${table}/${id}`, dead);
    if (this.#settled.size <= REMEMBERED) return;
    for (const oldest of this.#settled.keys()) {
      this.#settled.delete(oldest);
      break;
    }
  }
}

// ── What earlier processes left, as far as this one knows it by now: first what they remembered, when their
// journals are read, then their batches, when all of them are held. Until then it is not known whether rows
// are new that may come again, and a question waits.

export interface EarlierDeps {
  readonly clock: Clock;
  /** A batch that is held; null for one that has left, or is not held yet. */
  readonly heldBatch: (table: string, id: string) => HeldBatch | null;
}

export class Earlier {
  #isRead: boolean;
  readonly #read = Promise.withResolvers<void>();
  readonly #recovered = Promise.withResolvers<void>();

  /** @param unread an earlier process may have left something. */
  constructor(readonly deps: EarlierDeps, unread: boolean) {
    this.#isRead = !unread;
    if (!unread) this.#read.resolve();
  }

  /** What they remembered is known. */
  get isRead(): boolean {
    return this.#isRead;
  }

  /** Resolves when it is. */
  get whenRead(): Promise<void> {
    return this.#read.promise;
  }

  read(): void {
    this.#isRead = true;
    this.#read.resolve();
  }

  /** All is held that they left. */
  recovered(): void {
    this.read();
    this.#recovered.resolve();
  }

  /** Null for a batch that has left, or is not held yet. */
  held(table: string, id: string): HeldBatch | null {
    return this.deps.heldBatch(table, id);
  }

  /**
   * Of rows that are in batches which earlier processes left, and in some of this one. How many of them are
   * dead outlives no process.
   */
  ticketOf(
    of: readonly Pick<Memo, "table" | "batches">[],
    reached: Ack = "disk",
    own: readonly HeldBatch[] = [],
  ): Ticket {
    const { clock } = this.deps;
    const ticketOf = (batches: readonly HeldBatch[]) => {
      const spans = batches.map((batch) => ({ batch, from: 0, to: 0 }));
      return new RequestTicket(reached, null, spans, clock);
    };
    if (of.every(({ batches }) => batches.length === 0)) return ticketOf(own);
    const settled = async (waitMs: number) => {
      const untilMs = clock.monotonicMs() + waitMs;
      if (!await within(clock, waitMs, this.#recovered.promise.then(() => true), false)) {
        return null;
      }
      const found = of.flatMap(({ table, batches }) => batches.map((id) => this.held(table, id)));
      const held = found.filter((batch) => batch !== null);
      return await ticketOf([...held, ...own])
        .settled(Math.max(0, untilMs - clock.monotonicMs()));
    };
    return { reached, kept: null, settled };
  }
}

// ── How many names of requests and messages are remembered: keys of HTTP, and ids of each source. All share one
// bound. Where it is reached, what has most of it forgets its oldest: names that keep to an even part are
// all remembered, however many others come.

/** Remembered at most, all together. */
const MOST_NAMES = 100_000;
/** And so many bytes, each name with about what it costs beside its text. */
const MOST_BYTES = 16 * 1024 * 1024;

/** Names of one kind: of requests, or of the messages of one source. */
export interface NamesOfAKind {
  readonly size: number;
  readonly bytes: number;
  /** At least one, where there is one. */
  forgetOldest(): void;
}

export class NameBudget {
  readonly #kinds = new Set<NamesOfAKind>();

  /** @param most for tests. */
  constructor(readonly most = { names: MOST_NAMES, bytes: MOST_BYTES }) {}

  /** More of this kind are remembered; once this returns there are no more than may be. */
  fit(kind: NamesOfAKind): void {
    this.#kinds.add(kind);
    while (this.#isTooMuch()) this.#largest().forgetOldest();
  }

  #isTooMuch(): boolean {
    let [names, bytes] = [0, 0];
    for (const kind of this.#kinds) {
      names += kind.size;
      bytes += kind.bytes;
    }
    return names > this.most.names || bytes > this.most.bytes;
  }

  #largest(): NamesOfAKind {
    const part = ({ size, bytes }: NamesOfAKind) =>
      Math.max(size / this.most.names, bytes / this.most.bytes);
    return [...this.#kinds].reduce((one, other) => part(other) > part(one) ? other : one);
  }
}
