/**
 * Remote control of one collector: subscribes, obeys, answers. Taking a command is O(1) and waits for
 * nothing, so no amount of data and no slow flush holds up the next command; a flood of commands is
 * cut off before it costs anything. Nothing that NATS does reaches the caller.
 */

import type { Clock, Command, Control, Log } from "../contracts.ts";
import { writeAnswer } from "./answer.ts";
import { decide } from "./command.ts";
import { connectForever, type LinkState, quietWarn } from "./forever.ts";
import { createLimit, type Limit } from "./limit.ts";
import { COMMANDS, subjectsOf } from "./subjects.ts";
import type { Message, NatsAuth, OpenSocket } from "./wire.ts";

export interface RemoteOptions {
  /** `ws://` or `wss://`; tried in turn. */
  readonly servers: readonly string[];
  /** Prefix of the control subjects. */
  readonly subject: string;
  readonly auth: NatsAuth;
  readonly group: string;
  readonly id: string;
  readonly control: Control;
  /** `command` is one of the five or `unknown`; `ok`: it was obeyed. */
  readonly ledger: { control(command: string, ok: boolean): void };
  readonly clock: Clock;
  readonly log: Log;
  /** How long a `flush` may take before it is answered with ok:false. */
  readonly flushTimeoutMs: number;
  readonly onState?: (state: LinkState, server: string) => void;
  readonly openSocket?: OpenSocket;
}

export interface Remote {
  /** `host:port` of the NATS server, or null while there is no connection. */
  server(): string | null;
  /**
   * Gives every waiting `stop` its second answer, sends what is on its way and disconnects. Takes at
   * most about 2 s whatever NATS does, and nothing at all while NATS is away. May be called before or
   * after the promise of `control.stop` resolves, or from within it.
   */
  close(): Promise<void>;
}

/** Commands a second that are obeyed; a flush seals every open batch, so it is the dear one. */
const PER_SECOND: Readonly<Record<Command, number>> = {
  status: 200,
  flush: 10,
  pause: 200,
  resume: 200,
  stop: 200,
};
/** Second answers that may be owed at once, of each kind. */
const MAX_WAITING = 64;
const LOGGED_PER_SECOND = 10;

/** Returns at once; connects in the background for as long as it is not closed. */
export function startRemote(options: RemoteOptions): Remote {
  const { subject: prefix, group, id, control, ledger, clock, log } = options;
  const subjects = subjectsOf(prefix, group, id);
  const limits = new Map<Command, Limit>(
    COMMANDS.map((command) => [command, createLimit(PER_SECOND[command])]),
  );
  const warnFlood = quietWarn(log, clock);
  const warnRefusal = quietWarn(log, clock);
  const logged = createLimit(LOGGED_PER_SECOND);
  /** Second answers still owed; calling one gives it and forgets it. */
  const stops = new Set<() => void>();
  const flushes = new Set<() => void>();
  let closed = false;

  const link = connectForever(
    { ...options, name: `shishi ${group}.${id}` },
    (wire) => {
      for (const subject of subjects.keys()) wire.subscribe(subject, handle);
    },
    log,
    clock,
    options.onState,
  );
  return {
    server: () => link.server(),
    async close() {
      if (closed) return;
      closed = true;
      for (const answer of [...stops, ...flushes]) answer();
      await link.close();
    },
  };

  function handle(message: Message): void {
    if (closed) return;
    try {
      const decision = decide(message, subjects, prefix);
      if (decision.kind === "refuse") {
        ledger.control(decision.command, false);
        warnRefusal(`nats: command refused on ${message.subject}`, decision.reason);
        answer(decision.replyTo, decision.command, null, decision.reason);
        return;
      }
      const { command, replyTo } = decision;
      if (limits.get(command)?.admit(clock.monotonicMs()) !== true) {
        ledger.control(command, false);
        const bound = PER_SECOND[command];
        warnFlood(`nats: more than ${bound} ${command} commands a second, the rest is dropped`);
        return;
      }
      obey(command, replyTo);
    } catch (error) {
      // Thrown into the library it would end its reading without ending the connection.
      log.error("nats: command failed", { subject: message.subject, error: String(error) });
    }
  }

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
      answer(
        replyTo,
        "stop",
        null,
        `stopping, but ${MAX_WAITING} callers wait for its end already`,
      );
    }
    control.stop("nats").then(done, (error) => {
      log.error("nats: stop failed", { error: String(error) });
      done?.();
    });
  }

  function flush(replyTo: string | null): void {
    let failure: string | null = "the collector stopped before the flush was done";
    const done = owe(flushes, () => {
      ledger.control("flush", failure === null);
      answer(replyTo, "flush", failure === null ? "flushed" : null, failure);
    });
    if (done === null) {
      ledger.control("flush", false);
      answer(replyTo, "flush", null, `${MAX_WAITING} flushes are under way already`);
      return;
    }
    answer(replyTo, "flush", "flushing", null);
    const tooLate = `rows were still held after ${options.flushTimeoutMs} ms`;
    control.flush(options.flushTimeoutMs).then((all) => {
      failure = all ? null : tooLate;
      done();
    }, (error) => {
      log.error("nats: flush failed", { error: String(error) });
      failure = "the flush failed; see the collector's log";
      done();
    });
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

  /** Lost while NATS is away: who asked has lost its connection too. */
  function answer(
    replyTo: string | null,
    command: Command | "unknown",
    state: string | null,
    error: string | null,
  ): void {
    const wire = link.wire();
    if (replyTo === null || wire === null) return;
    const status = control.status();
    wire.publish(replyTo, writeAnswer(command, status, state ?? status.state, error));
  }
}
