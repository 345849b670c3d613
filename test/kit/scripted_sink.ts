/**
 * A `Sink` whose answers the test gives: held until answered, or answered at once by a script. It
 * keeps what it was handed, copied at that moment, so that a batch that changes afterwards is found out.
 */

import type { Batch, Delivery, Sink } from "../../src/contracts.ts";

export interface Attempt {
  readonly batch: Batch;
  /** The body as it was at the time of the attempt. */
  readonly text: string;
  readonly startedMs: number;
  readonly signal: AbortSignal;
  answered: boolean;
  answer(delivery: Delivery): void;
  /** The sink throws: a bug that the pump must survive. */
  crash(error: unknown): void;
}

/** What a script says of an attempt; `"hold"` leaves it to the test. */
export type Script = (attempt: Attempt) => Delivery | "hold";

export const stored: Delivery = { kind: "settled", dead: [], inserts: 1 };

/** No server answered: network, timeout, proxy. */
export function unanswered(retryAfterMs?: number): Delivery {
  return { ...busy(0, retryAfterMs), message: "connection refused" } as Delivery;
}

/** ClickHouse answered and cannot take it now. */
export function busy(code = 252, retryAfterMs?: number): Delivery {
  const base = { kind: "transient", code, message: "too many parts" } as const;
  return retryAfterMs === undefined ? base : { ...base, retryAfterMs };
}

export const tableTrouble: Delivery = { kind: "table", code: 60, message: "no such table" };

export function deadRows(...indexes: number[]): Delivery {
  return {
    kind: "settled",
    dead: indexes.map((index) => ({ index, code: 27, message: `row ${index} is bad` })),
    inserts: 2,
  };
}

export class ScriptedSink implements Sink {
  readonly attempts: Attempt[] = [];
  mostInFlight = 0;

  constructor(public script: Script = () => "hold", readonly nowMs: () => number = () => 0) {}

  deliver(batch: Batch, signal: AbortSignal): Promise<Delivery> {
    return new Promise((resolve, reject) => {
      const attempt: Attempt = {
        batch,
        text: textOf(batch),
        startedMs: this.nowMs(),
        signal,
        answered: false,
        answer: (delivery) => {
          attempt.answered = true;
          resolve(delivery);
        },
        crash: (error) => {
          attempt.answered = true;
          reject(error);
        },
      };
      this.attempts.push(attempt);
      this.mostInFlight = Math.max(this.mostInFlight, this.inFlight.length);
      const answer = this.script(attempt);
      if (answer !== "hold") attempt.answer(answer);
    });
  }

  get inFlight(): Attempt[] {
    return this.attempts.filter((attempt) => !attempt.answered);
  }

  /** The last attempt; an error when there is none. */
  get last(): Attempt {
    const last = this.attempts.at(-1);
    if (last === undefined) throw new Error("the sink was handed nothing");
    return last;
  }

  /** Answers everything that is held now, in the order it came. */
  answerAll(delivery: Delivery): number {
    const held = this.inFlight;
    for (const attempt of held) attempt.answer(delivery);
    return held.length;
  }
}

/** A batch's body, its pieces joined. */
export function textOf({ body }: Pick<Batch, "body">): string {
  const bytes = new Uint8Array(body.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of body) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
