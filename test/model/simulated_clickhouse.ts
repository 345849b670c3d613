/**
 * ClickHouse as far as deduplication goes: a token that it knows is answered as stored and its rows are
 * not looked at. Rows that are swallowed so are remembered; that they had been stored before, or were
 * never acknowledged, is for the model to check.
 */

import type { Batch, Delivery, Sink } from "../../src/contracts.ts";
import { deadRows, stored, textOf } from "../kit/scripted_sink.ts";

/** What an attempt was handed, by reference, and what stood there. */
type Handed = Pick<Batch, "body"> & { readonly text: string };

export interface SentRow {
  readonly n: number;
  readonly bad: boolean;
  readonly table: string;
}

export interface Sent {
  readonly batch: Batch;
  readonly rows: readonly SentRow[];
  readonly signal: AbortSignal;
  answer(delivery: Delivery): void;
  /** The sink throws: a bug that the pump must survive. */
  crash(): void;
}

export class SimulatedClickHouse {
  /** How often each row is in its table. */
  readonly copies = new Map<number, number>();
  /** Came under a known token that had not brought them. */
  readonly swallowed = new Set<number>();
  readonly #tokens = new Map<string, Set<number>>();

  /** Takes a batch's good rows. */
  insert(token: string, rows: readonly SentRow[]): void {
    const good = rows.filter(({ bad }) => !bad).map(({ n }) => n);
    const known = this.#tokens.get(token);
    if (known !== undefined) {
      for (const n of good) if (!known.has(n)) this.swallowed.add(n);
      return;
    }
    this.#tokens.set(token, new Set(good));
    for (const n of good) this.copies.set(n, (this.copies.get(n) ?? 0) + 1);
  }
}

/** What one process sends. */
export class SimulatedSink implements Sink {
  inFlight: Sent[] = [];
  sent = 0;
  /** Good and bad rows of batches whose fate was told, by id. */
  readonly told = new Map<string, { readonly good: number; readonly bad: number }>();
  readonly #texts = new Map<string, string>();
  /** Of attempts that are under way or have failed: a client may still read it. */
  readonly #read = new Set<Handed>();

  constructor(
    readonly clickhouse: SimulatedClickHouse,
    /** Called with each attempt as it begins. */
    readonly onSent: (sent: Sent) => void,
    /** Something that must not be. */
    readonly onProblem: (problem: string) => void,
  ) {}

  deliver(batch: Batch, signal: AbortSignal): Promise<Delivery> {
    return new Promise((resolve, reject) => {
      const text = textOf(batch);
      const rows = text.split("\n").slice(0, -1).map((line): SentRow => JSON.parse(line));
      const before = this.#texts.get(batch.id);
      if (before !== undefined && before !== text) this.onProblem("another body under one id");
      this.#texts.set(batch.id, text);
      if (rows.length !== batch.rows) this.onProblem(`${rows.length} rows, said ${batch.rows}`);
      if (rows.some(({ table }) => table !== batch.table)) this.onProblem("another table's rows");
      if (this.told.has(batch.id)) this.onProblem("sent after its fate was told");
      if (this.inFlight.some((sent) => sent.batch.id === batch.id)) this.onProblem("sent twice");
      const handed = { body: batch.body, text };
      this.#read.add(handed);
      const sent: Sent = {
        batch,
        rows,
        signal,
        answer: (delivery) => {
          this.checkRead();
          this.inFlight = this.inFlight.filter((other) => other !== sent);
          if (delivery.kind === "settled") this.#read.delete(handed);
          resolve(delivery);
        },
        crash: () => {
          this.inFlight = this.inFlight.filter((other) => other !== sent);
          reject(new Error("a bug in the sink"));
        },
      };
      this.inFlight.push(sent);
      this.sent++;
      this.onSent(sent);
    });
  }

  /** Nothing that may still be read has changed. */
  checkRead(): void {
    for (const { body, text } of this.#read) {
      if (textOf({ body }) !== text) this.onProblem("changed while it may still be read");
    }
  }

  /** The INSERT went through; bad rows are told as dead. */
  settle(sent: Sent): void {
    const { batch, rows } = sent;
    this.clickhouse.insert(batch.id, rows);
    const bad = rows.flatMap((row, at) => row.bad ? [at] : []);
    this.told.set(batch.id, { good: rows.length - bad.length, bad: bad.length });
    sent.answer(bad.length === 0 ? stored : deadRows(...bad));
  }
}
