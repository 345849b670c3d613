/**
 * What was taken under a key, remembered for a time, so that a sender that repeats itself repeats
 * nothing: a client that got no answer, a broker that delivers again.
 *
 * A key is known from the moment in which its rows are taken, also while they are on their way to the
 * disk: the second of two waits for the same round. What is refused is forgotten. The disk has keys in
 * the frames of their rows (`spool/frame.ts`), so an earlier process's are known as soon as its journal
 * is read; until then it is not known, and keyed rows wait. Memory is bounded (`name_budget.ts`): the oldest are
 * forgotten.
 */

import type {
  Ack,
  ChunkKey,
  Clock,
  KnownKey,
  Named,
  Recovered,
  Refused,
  Taken,
  Ticket,
} from "../contracts.ts";
import { within } from "../kernel/time.ts";
import type { Span } from "./batch.ts";
import type { Earlier } from "./earlier.ts";
import type { NameBudget, NamesOfAKind } from "./name_budget.ts";
import { RequestTicket } from "./ticket.ts";

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
