/**
 * Asks collectors for their status again and again, for as long as somebody looks. An answer says to
 * which round it belongs, so that a late one is not taken for a second collector of its name.
 */

import type { Clock } from "../contracts.ts";
import { type Answer, readAnswer } from "./answer.ts";
import { instanceOf, send } from "./caller.ts";
import type { Wire } from "./wire.ts";

export interface Poll {
  /** A `status` subject, from `subjectFor`. */
  readonly subject: string;
  /** Signs each question where one is given. */
  readonly secret: string | null;
  readonly everyMs: number;
}

/** What is known about an answer besides its words. */
export interface Heard {
  /** The first question is 1. */
  readonly round: number;
  /** Which process answered, or `""`. */
  readonly instance: string;
  readonly payload: Uint8Array;
}

export interface PollEvents {
  onAnswer(answer: Answer, heard: Heard): void;
  /** A round is over: its answers are in, as far as they will ever be in time. */
  onRound?(round: number): void;
  onWarning?(what: string): void;
}

/** Asks at once, and then every `everyMs`; the answer ends it. */
export function pollStatus(wire: Wire, poll: Poll, clock: Clock, events: PollEvents): () => void {
  const inbox = `_INBOX.${crypto.randomUUID().replaceAll("-", "")}`;
  let round = 0;
  let ended = false;
  let cancel = () => {};
  wire.subscribe(`${inbox}.*`, (message) => {
    if (ended || message.noResponders) return;
    const answer = readAnswer(message.payload);
    if ("problem" in answer) return events.onWarning?.(`an answer is ignored: ${answer.problem}`);
    if (answer.command !== "status") {
      return events.onWarning?.(`an answer is ignored: it is for ${answer.command}`);
    }
    const of = Number(message.subject.slice(inbox.length + 1));
    if (!(of >= 1 && of <= round)) return;
    events.onAnswer(answer, {
      round: of,
      instance: instanceOf(message),
      payload: message.payload,
    });
  });
  const ask = () => {
    send(wire, poll, `${inbox}.${++round}`, clock);
    cancel = clock.after(poll.everyMs, () => {
      events.onRound?.(round);
      if (!ended) ask();
    });
  };
  ask();
  return () => {
    ended = true;
    cancel();
  };
}
