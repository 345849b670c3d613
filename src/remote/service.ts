/**
 * Remote control of one collector: subscribes, obeys, answers, and tells what it is. Taking a command
 * is O(1) and waits for nothing, so no amount of data and no slow flush holds up the next command; a
 * flood of commands is cut off before it costs anything. Nothing that NATS does reaches the caller.
 */

import type { Clock, Command, Control, Log } from "../contracts.ts";
import { INSTANCE_HEADER, writeAnswer } from "./answer.ts";
import { createGate, decide, replySubject } from "./command.ts";
import { createEvents } from "./events.ts";
import { connectForever, type LinkState } from "./forever.ts";
import { createLimit, type Limit } from "./limit.ts";
import { createMicro } from "./micro.ts";
import { createObedience, type Failure } from "./obey.ts";
import { COMMANDS, eventSubject, subjectsOf } from "./subjects.ts";
import type { Message, NatsAuth, OpenSocket } from "./wire.ts";

export interface RemoteOptions {
  /** `ws://` or `wss://`; tried in turn. */
  readonly servers: readonly string[];
  /** Prefix of the control subjects. */
  readonly subject: string;
  readonly auth: NatsAuth;
  /** Only commands that are signed with it are obeyed; null: all are. */
  readonly controlSecret?: string | null;
  readonly group: string;
  readonly id: string;
  readonly control: Control;
  /** Has its listener called after each change of the state that somebody made. */
  readonly watch?: (listener: () => void) => void;
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
/** Answers to what is refused, and to `$SRV` requests. */
const REFUSED_PER_SECOND = 50;
const DISCOVERED_PER_SECOND = 200;

/** Returns at once; connects in the background for as long as it is not closed. */
export function startRemote(options: RemoteOptions): Remote {
  const { subject: prefix, group, id, control, ledger, clock, log } = options;
  const subjects = subjectsOf(prefix, group, id);
  const instance = crypto.randomUUID().replaceAll("-", "");
  const limits = new Map<Command, Limit>(
    COMMANDS.map((command) => [command, createLimit(PER_SECOND[command])]),
  );
  const startedMs = clock.nowMs();
  const gate = createGate(options.controlSecret ?? null, startedMs);
  const status = () => control.status();
  const micro = createMicro({ instance, startedMs, prefix, signed: gate !== null, status });
  const events = createEvents({
    status,
    reasons: () => control.unready(),
    clock,
    publish: (payload) => link.wire()?.publish(eventSubject(prefix, group, id), payload) ?? false,
  });
  const refusals = createLimit(REFUSED_PER_SECOND);
  const discoveries = createLimit(DISCOVERED_PER_SECOND);
  const obedience = createObedience({ ...options, answer });
  let closed = false;

  const link = connectForever(
    { ...options, name: `shishi ${group}.${id}` },
    (wire) => {
      for (const subject of subjects.keys()) wire.subscribe(subject, guarded(handle));
      for (const [subject, tell] of micro.subjects) {
        wire.subscribe(subject, guarded((message) => discover(message, tell)));
      }
    },
    log,
    clock,
    (state, server) => {
      if (state === "connected") events.connected();
      options.onState?.(state, server);
    },
  );
  options.watch?.(() => events.look());
  return {
    server: () => link.server(),
    async close() {
      if (closed) return;
      closed = true;
      obedience.settle();
      events.close();
      await link.close();
    },
  };

  /** Thrown into the library a mistake would end its reading without ending the connection. */
  function guarded(handler: (message: Message) => void): (message: Message) => void {
    return (message) => {
      try {
        if (!closed) handler(message);
      } catch (error) {
        log.error("nats: command failed", { subject: message.subject, error: String(error) });
      }
    };
  }

  function handle(message: Message): void {
    const takenMs = clock.monotonicMs();
    const decision = decide(message, subjects, prefix, gate, clock.nowMs());
    if (decision.kind === "refuse") {
      const { command, reason } = decision;
      ledger.control(command, false);
      log.warn("nats: command refused", { subject: message.subject, error: reason });
      const heard = refusals.admit(takenMs) ? decision.replyTo : null;
      answer(heard, command, null, { code: command === "unknown" ? 404 : 403, error: reason });
    } else if (limits.get(decision.command)?.admit(takenMs) === true) {
      decision.spend();
      obedience.obey(decision.command, decision.replyTo);
    } else {
      const { command } = decision;
      const error = `more than ${PER_SECOND[command]} ${command} commands a second`;
      ledger.control(command, false);
      log.warn("nats: too many commands, the rest is dropped", { command, error });
      answer(null, command, null, { code: 429, error });
    }
    micro.count(decision.command, clock.monotonicMs() - takenMs);
  }

  function discover(message: Message, tell: () => Uint8Array): void {
    const replyTo = replySubject(message, prefix);
    if (replyTo === null || !discoveries.admit(clock.monotonicMs())) return;
    link.wire()?.publish(replyTo, tell());
  }

  /** Counts a failure and answers, if anybody waits and NATS is there: else who asked is gone too. */
  function answer(
    replyTo: string | null,
    command: Command | "unknown",
    state: string | null,
    failure: Failure | null,
  ): void {
    if (failure !== null) micro.fail(command, failure.error);
    const wire = link.wire();
    if (replyTo === null || wire === null) return;
    const status = control.status();
    const words = writeAnswer(command, status, state ?? status.state, failure?.error ?? null);
    const headers = { [INSTANCE_HEADER]: instance, ...failureHeaders(failure) };
    // A server that knows no headers takes the answer without.
    wire.publish(replyTo, words, undefined, headers) || wire.publish(replyTo, words);
  }
}

/** As clients of NATS services look for them. */
function failureHeaders(failure: Failure | null): Readonly<Record<string, string>> {
  if (failure === null) return {};
  return {
    "Nats-Service-Error": failure.error,
    "Nats-Service-Error-Code": String(failure.code),
  };
}
