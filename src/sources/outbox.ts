/**
 * Rows of an outbox as messages. An application writes rows into a table of its own database, in the
 * transaction of its own data; here they are taken, a batch at a time, and leave the table once they are safe.
 *
 * A batch is one transaction of the database, from the SELECT that locks its rows to the DELETE (or the mark)
 * and COMMIT, so that several collectors can share a table and a row that is not safe stays where it is. A
 * collector that dies in between leaves the rows behind; it knows them again by their ids, which are in its
 * journal.
 *
 * Such a transaction must not last: a database keeps what it has deleted as long as an old one is open. So one
 * batch is under way at a time, and one that is not safe after `holdMs` is let go. A SQLite file has one writer
 * at a time, and no such transaction: see `outbox_sqlite.ts`.
 */

import type { Broker, BrokerDeps, Clock, Feed, Message, OutboxSource } from "../contracts.ts";
import { Ending, InTurn, sleep, within } from "../kernel/time.ts";
import { createMysqlOutbox } from "./outbox_mysql.ts";
import { createPostgresOutbox } from "./outbox_postgres.ts";
import type { OutboxDatabase, OutboxRow, OutboxSession } from "./outbox_session.ts";
import { createSqliteOutbox } from "./outbox_sqlite.ts";

export interface OutboxLimits {
  /** A database that does not answer for so long is away. */
  readonly silentMs: number;
  /** How often it is asked how much waits, which shows that it lives. */
  readonly lookMs: number;
  /** A batch is let go after this: above the minute for which the loop holds what cannot be taken. */
  readonly holdMs: number;
}

const LIMITS: OutboxLimits = { silentMs: 10_000, lookMs: 2_000, holdMs: 90_000 };
/** Rows that wait are counted up to here: a lag of 10,000 means that many or more. */
const MOST_COUNTED = 10_000;
/** A count that is slow is asked for less often: it may cost the database this share of its time. */
const COUNT_SHARE = 1 / 50;
const LEAVE_MS = 1_500;
const NOTHING = new Uint8Array(0);

const OPEN: Readonly<
  Record<OutboxSource["kind"], (address: OutboxSource, deps: BrokerDeps) => OutboxDatabase>
> = { postgres: createPostgresOutbox, mysql: createMysqlOutbox, sqlite: createSqliteOutbox };

/** @param limits only tests give others. */
export function openOutbox(
  address: OutboxSource,
  deps: BrokerDeps,
  limits: OutboxLimits = LIMITS,
): Broker {
  const database = OPEN[address.kind](address, deps);
  return {
    connect: async (signal) =>
      new OutboxFeed(await database.connect(signal), address, deps.clock, limits),
    inspect: () => database.inspect(),
  };
}

/** A batch, from its SELECT to its COMMIT. */
interface Batch {
  readonly rows: readonly OutboxRow[];
  /** Message → its place. */
  readonly places: ReadonlyMap<Message, number>;
  /** As many from the first on are safe. */
  safe: number;
  /** Resolves when its transaction has ended well. */
  readonly over: PromiseWithResolvers<void>;
  readonly cancelHold: () => void;
}

class OutboxFeed implements Feed {
  readonly #session: OutboxSession;
  readonly #address: OutboxSource;
  readonly #clock: Clock;
  readonly #limits: OutboxLimits;
  readonly #turn = new InTurn();
  readonly #lost = new Ending();
  readonly #end = new AbortController();
  #batch: Batch | null = null;
  #lag: number | null = null;
  /** Wakes what waits for rows. */
  #news = new AbortController();

  constructor(
    session: OutboxSession,
    address: OutboxSource,
    clock: Clock,
    limits: OutboxLimits,
  ) {
    this.#session = session;
    this.#address = address;
    this.#clock = clock;
    this.#limits = limits;
    session.onNews = () => this.#news.abort();
    session.lost.catch((error) => this.#lose(error));
    void this.#look().catch(() => {});
  }

  lag(): number | null {
    return this.#lag;
  }

  next(): Promise<readonly Message[]> {
    return this.#unlessLost(this.#next());
  }

  async #next(): Promise<readonly Message[]> {
    await this.#batch?.over.promise;
    const { prefetch, pollMs } = this.#address;
    for (;;) {
      this.#news = new AbortController();
      const rows = await this.#ask(() => this.#session.take(prefetch));
      if (rows.length < prefetch) this.#lag = rows.length;
      if (rows.length > 0) return this.#hold(rows);
      await sleep(this.#clock, pollMs, this.#news.signal);
      this.#end.signal.throwIfAborted();
    }
  }

  #hold(rows: readonly OutboxRow[]): readonly Message[] {
    const messages = rows.map((row) => messageOf(row, this.#address));
    const batch: Batch = {
      rows,
      places: new Map(messages.map((message, at) => [message, at])),
      safe: 0,
      over: Promise.withResolvers(),
      cancelHold: this.#clock.after(this.#limits.holdMs, () => void this.#letGo(batch)),
    };
    this.#batch = batch;
    return messages;
  }

  /** All that is safe leaves in one statement, with the last row of the batch. */
  acknowledge(newest: readonly Message[]): Promise<void> {
    return this.#unlessLost(this.#acknowledge(newest));
  }

  async #acknowledge(newest: readonly Message[]): Promise<void> {
    const batch = this.#batch;
    if (batch === null) return;
    for (const message of newest) {
      batch.safe = Math.max(batch.safe, (batch.places.get(message) ?? -1) + 1);
    }
    if (batch.safe < batch.rows.length) return;
    await this.#finish(batch);
    batch.over.resolve();
  }

  async #finish(batch: Batch): Promise<void> {
    batch.cancelHold();
    await this.#ask(() => this.#session.finish(batch.rows.slice(0, batch.safe)));
    if (this.#batch === batch) this.#batch = null;
    if (this.#lag !== null) this.#lag = Math.max(0, this.#lag - batch.safe);
  }

  /** What of a batch is safe leaves; the rest is in the table as before. */
  async #letGo(batch: Batch): Promise<void> {
    try {
      await this.#finish(batch);
    } catch {
      // Then the connection is lost already, and its transaction with it.
    }
    const seconds = this.#limits.holdMs / 1000;
    this.#lose(
      new Error(
        `rows that were taken were not safe after ${seconds} s; they are left in the table, so that no ` +
          "transaction stays open there",
      ),
    );
  }

  async close(): Promise<void> {
    const batch = this.#batch;
    if (batch !== null && batch.safe > 0 && !this.#end.signal.aborted) {
      await within(this.#clock, LEAVE_MS, this.#finish(batch).catch(() => {}), undefined);
    }
    batch?.cancelHold();
    this.#lose(new Error("the source is closed"));
    await this.#session.close();
  }

  /** Counts what waits, again and again. */
  async #look(): Promise<void> {
    const clock = this.#clock;
    while (!this.#end.signal.aborted) {
      const begunMs = clock.monotonicMs();
      this.#lag = await this.#ask(() => this.#session.count(MOST_COUNTED));
      const restMs = (clock.monotonicMs() - begunMs) / COUNT_SHARE;
      await sleep(clock, Math.max(this.#limits.lookMs, restMs), this.#end.signal);
    }
  }

  /** One thing after the other, each within a bound of time: a rejection is the end of the connection. */
  async #ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await this.#turn.run(async () => {
        this.#end.signal.throwIfAborted();
        const late = {};
        const answer = await within<T, object>(this.#clock, this.#limits.silentMs, work(), late);
        if (answer !== late) return answer as T;
        throw new Error(`${this.#session.silence} for ${this.#limits.silentMs / 1000} s`);
      });
    } catch (error) {
      this.#lose(error);
      throw error;
    }
  }

  #lose(error: unknown): void {
    this.#lost.end(error);
    this.#end.abort(error);
    this.#news.abort();
    this.#batch?.cancelHold();
  }

  #unlessLost<T>(work: Promise<T>): Promise<T> {
    return this.#lost.race(work);
  }
}

function messageOf(row: OutboxRow, { name, outbox }: OutboxSource): Message {
  const { id, life, payload, table } = row;
  return {
    body: payload ?? NOTHING,
    partition: outbox,
    id: `${id}@${life}`,
    address: `${name}/${id}`,
    ...(table === null || table === "" ? {} : { table }),
    meta: (wanted) => wanted === "_table" ? outbox : wanted === "_id" ? numberOf(id) : null,
  };
}

/** A number where it is one with every digit. */
function numberOf(id: string): number | string {
  return /^(?:0|-?[1-9]\d{0,14})$/.test(id) ? Number(id) : id;
}
