/**
 * Obeys a command that was let in, and owes the second answer of those that last. Every answer that is
 * owed is given once: when the work is done, or when the collector ends before it.
 */

import type { Clock, Command, Control, Log } from "../contracts.ts";
import { createLimit } from "./limit.ts";

/** Why a command is not obeyed; `code` as in HTTP, for clients of NATS services. */
export interface Failure {
  readonly code: number;
  readonly error: string;
}

/** @param state overrules the collector's own. */
export type Answering = (
  replyTo: string | null,
  command: Command | "unknown",
  state: string | null,
  failure: Failure | null,
) => void;

export interface ObeyDeps {
  readonly control: Control;
  readonly ledger: { control(command: string, ok: boolean): void };
  readonly clock: Clock;
  readonly log: Log;
  readonly flushTimeoutMs: number;
  readonly answer: Answering;
}

export interface Obedience {
  /** Takes no time: what lasts goes on by itself. */
  obey(command: Command, replyTo: string | null): void;
  /** Gives every answer that is still owed. */
  settle(): void;
}

/** Second answers that may be owed at once, of each kind. */
const MAX_WAITING = 64;
const LOGGED_PER_SECOND = 10;

export function createObedience(deps: ObeyDeps): Obedience {
  const { control, ledger, clock, log, answer } = deps;
  const logged = createLimit(LOGGED_PER_SECOND);
  /** Calling one gives the answer and forgets it. */
  const stops = new Set<() => void>();
  const flushes = new Set<() => void>();

  function obey(command: Command, replyTo: string | null): void {
    if (command !== "status" && logged.admit(clock.monotonicMs())) {
      log.info("nats: command", { command });
    }
    switch (command) {
      case "status":
        break;
      case "pause":
        control.pause();
        break;
      case "resume":
        control.resume();
        break;
      case "flush":
        return flush(replyTo);
      case "stop":
        return stop(replyTo);
    }
    ledger.control(command, true);
    answer(replyTo, command, null, null);
  }

  function stop(replyTo: string | null): void {
    ledger.control("stop", true);
    answer(replyTo, "stop", "draining", null);
    const done = owe(stops, () => answer(replyTo, "stop", "stopped", null));
    if (done === null) {
      const error = `stopping, but ${MAX_WAITING} callers wait for its end already`;
      answer(replyTo, "stop", null, { code: 429, error });
    }
    control.stop("nats").then(done, (error) => {
      log.error("nats: stop failed", { error: String(error) });
      done?.();
    });
  }

  function flush(replyTo: string | null): void {
    let error: string | null = "the collector stopped before the flush was done";
    const done = owe(flushes, () => {
      ledger.control("flush", error === null);
      const failure = error === null ? null : { code: 500, error };
      answer(replyTo, "flush", failure === null ? "flushed" : null, failure);
    });
    if (done === null) {
      ledger.control("flush", false);
      const error = `${MAX_WAITING} flushes are under way already`;
      answer(replyTo, "flush", null, { code: 429, error });
      return;
    }
    answer(replyTo, "flush", "flushing", null);
    const tooLate = `rows were still held after ${deps.flushTimeoutMs} ms`;
    control.flush(deps.flushTimeoutMs).then((all) => {
      error = all ? null : tooLate;
      done();
    }, (cause) => {
      log.error("nats: flush failed", { error: String(cause) });
      error = "the flush failed; see the collector's log";
      done();
    });
  }

  return {
    obey,
    settle() {
      for (const give of [...stops, ...flushes]) give();
    },
  };
}

/** Notes an answer that is given once, by whoever comes first; null when too many are owed. */
function owe(owed: Set<() => void>, give: () => void): (() => void) | null {
  if (owed.size >= MAX_WAITING) return null;
  const once = () => {
    if (owed.delete(once)) give();
  };
  owed.add(once);
  return once;
}
