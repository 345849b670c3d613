/**
 * Remote control of one collector: subscribes, obeys, answers, and says what it is. Taking a command
 * is O(1) and waits for nothing, so no amount of data and no slow flush holds up the next command; a
 * flood of commands is cut off before it costs anything. Nothing that NATS does reaches the caller.
 * What a message is, `decide` says, which does nothing.
 */

import type { Clock, Command, Control, Log } from "../contracts.ts";
import { reasonOf } from "../kernel/errors.ts";
import { RateLimiter } from "../kernel/rate.ts";
import { beforeStart, createGate, type Gate, SIGNATURE_HEADER } from "../kernel/signature.ts";
import { Events } from "./events.ts";
import { connectForever, type Link, type LinkState } from "./reconnect.ts";
import { Micro } from "./micro.ts";
import type { Message, NatsAuth, OpenSocket, Wire } from "../kernel/nats.ts";
import { eventSubject, INSTANCE_HEADER, subjectsOf, writeAnswer } from "./protocol.ts";

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
  /** Calls its listener after each change of the state by a command or a signal; returns what ends that. */
  readonly watch?: (listener: () => void) => () => void;
  /** `command` is one of the five or `unknown`; `ok`: it was obeyed. */
  readonly ledger: { control(command: string, ok: boolean): void };
  readonly clock: Clock;
  readonly log: Log;
  /** How long a `flush` may take before it is answered with ok:false. */
  readonly flushTimeoutMs: number;
  readonly onState?: (state: LinkState, server: string) => void;
  readonly openSocket?: OpenSocket;
}

/** Why a command is not obeyed; `code` as in HTTP, for clients of NATS services. */
interface Refusal {
  readonly code: number;
  readonly problem: string;
}

const perSecond = (count: number) => ({ count, periodMs: 1_000 });
/** What is obeyed, answered and logged at most; a flush seals every open batch, so it costs the most. */
const RATES = {
  status: perSecond(200),
  flush: perSecond(10),
  pause: perSecond(200),
  resume: perSecond(200),
  stop: perSecond(200),
  /** Answers to what is refused. */
  refusal: perSecond(50),
  /** Answers to `$SRV` requests. */
  discovery: perSecond(200),
  logLine: perSecond(10),
};

/** Returns at once; connects in the background for as long as it is not closed. */
export function startRemote(options: RemoteOptions): Remote {
  return new Remote(options);
}

export class Remote {
  readonly #options: RemoteOptions;
  /** The collector's own subjects. */
  readonly #subjects: ReadonlyMap<string, Command>;
  /** Tells this process from others of its name. */
  readonly #instance = crypto.randomUUID().replaceAll("-", "");
  readonly #gate: Gate | null;
  readonly #rates: RateLimiter;
  readonly #micro: Micro;
  readonly #events: Events;
  readonly #link: Link;
  readonly #unwatch: () => void;
  readonly #stops = new OwedAnswers();
  readonly #flushes = new OwedAnswers();
  #closed = false;

  constructor(options: RemoteOptions) {
    const { subject: prefix, group, id, control, clock, log, onState } = options;
    const startedMs = clock.nowMs();
    const status = () => control.status();
    this.#options = options;
    this.#subjects = subjectsOf(prefix, group, id);
    this.#gate = createGate(options.controlSecret ?? null, startedMs);
    this.#rates = new RateLimiter(clock);
    this.#micro = new Micro({
      instance: this.#instance,
      startedMs,
      prefix,
      signed: this.#gate !== null,
      status,
    });
    const subject = eventSubject(prefix, group, id);
    this.#events = new Events({
      status,
      reasons: () => control.unready(),
      clock,
      publish: (payload) => this.#link.wire()?.publish(subject, payload) ?? false,
    });
    this.#link = connectForever({
      servers: options.servers,
      auth: options.auth,
      name: `shishi ${group}.${id}`,
      ...(options.openSocket === undefined ? {} : { openSocket: options.openSocket }),
      setup: (wire) => this.#subscribe(wire),
      onState: (state, server) => {
        if (state === "connected") this.#events.connected();
        onState?.(state, server);
      },
      clock,
      log,
    });
    this.#unwatch = options.watch?.(() => this.#events.look()) ?? (() => {});
  }

  /** `host:port` of the NATS server, or null while there is no connection. */
  server(): string | null {
    return this.#link.server();
  }

  /**
   * Gives every answer that is owed, sends what is on its way and disconnects. Takes at most about 2 s
   * whatever NATS does, and nothing at all while NATS is away. May be called before or after the promise
   * of `control.stop` resolves, or from within it.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#unwatch();
    this.#stops.give();
    this.#flushes.give();
    this.#events.close();
    await this.#link.close();
  }

  #subscribe(wire: Wire): void {
    for (const subject of this.#subjects.keys()) {
      wire.subscribe(subject, this.#guarded((message) => this.#onCommand(message)));
    }
    for (const [subject, about] of this.#micro.subjects) {
      wire.subscribe(subject, this.#guarded((message) => this.#onDiscovery(message, about)));
    }
  }

  /** Thrown into the library a mistake would end its reading without ending the connection. */
  #guarded(handler: (message: Message) => void): (message: Message) => void {
    return (message) => {
      try {
        if (!this.#closed) handler(message);
      } catch (error) {
        const { subject } = message;
        this.#options.log.error("nats: command failed", { subject, error: reasonOf(error) });
      }
    };
  }

  #may(what: keyof typeof RATES): boolean {
    return this.#rates.waitMs(what, RATES[what]) === 0;
  }

  #onCommand(message: Message): void {
    const { subject: prefix, clock, ledger, log } = this.#options;
    const takenMs = clock.monotonicMs();
    const decision = decide(message, this.#subjects, prefix, this.#gate, clock.nowMs());
    const { command, replyTo } = decision;
    if (decision.kind === "refuse") {
      const { problem } = decision;
      ledger.control(command, false);
      log.warn("nats: command refused", { subject: message.subject, error: problem });
      const code = command === "unknown" ? 404 : 403;
      this.#refuse(this.#may("refusal") ? replyTo : null, command, { code, problem });
    } else if (this.#may(decision.command)) {
      decision.spend();
      this.#obey(decision.command, replyTo);
    } else {
      const problem = `more than ${RATES[decision.command].count} ${command} commands a second`;
      ledger.control(command, false);
      log.warn("nats: too many commands, the rest is dropped", { command, error: problem });
      this.#refuse(null, command, { code: 429, problem });
    }
    this.#micro.count(command, clock.monotonicMs() - takenMs);
  }

  #onDiscovery(message: Message, about: () => Uint8Array): void {
    const replyTo = replySubject(message, this.#options.subject);
    if (replyTo === null || !this.#may("discovery")) return;
    this.#link.wire()?.publish(replyTo, about());
  }

  /** Takes no time: what lasts goes on by itself. */
  #obey(command: Command, replyTo: string | null): void {
    const { control, ledger, log } = this.#options;
    if (command !== "status" && this.#may("logLine")) log.info("nats: command", { command });
    if (command === "flush") return this.#flush(replyTo);
    if (command === "stop") return this.#stop(replyTo);
    if (command === "pause") control.pause();
    if (command === "resume") control.resume();
    ledger.control(command, true);
    this.#answer(replyTo, command);
  }

  #stop(replyTo: string | null): void {
    const { control, ledger, log } = this.#options;
    ledger.control("stop", true);
    this.#answer(replyTo, "stop", "draining");
    const giveLast = this.#stops.add(() => this.#answer(replyTo, "stop", "stopped"));
    if (giveLast === null) {
      const problem = `stopping, but ${MAX_OWED} callers wait for its end already`;
      this.#refuse(replyTo, "stop", { code: 429, problem });
    }
    control.stop("nats").then(giveLast, (error) => {
      log.error("nats: stop failed", { error: reasonOf(error) });
      giveLast?.();
    });
  }

  #flush(replyTo: string | null): void {
    const { control, ledger, log, flushTimeoutMs } = this.#options;
    let problem: string | null = "the collector stopped before the flush was done";
    const giveLast = this.#flushes.add(() => {
      ledger.control("flush", problem === null);
      if (problem === null) this.#answer(replyTo, "flush", "flushed");
      else this.#refuse(replyTo, "flush", { code: 500, problem });
    });
    if (giveLast === null) {
      ledger.control("flush", false);
      const problem = `${MAX_OWED} flushes are under way already`;
      return this.#refuse(replyTo, "flush", { code: 429, problem });
    }
    this.#answer(replyTo, "flush", "flushing");
    control.flush(flushTimeoutMs).then((all) => {
      problem = all ? null : `rows were still held after ${flushTimeoutMs} ms`;
      giveLast();
    }, (error) => {
      log.error("nats: flush failed", { error: reasonOf(error) });
      problem = "the flush failed; see the collector's log";
      giveLast();
    });
  }

  /** @param state overrules the collector's own. */
  #answer(replyTo: string | null, command: Command, state: string | null = null): void {
    if (replyTo === null) return;
    const status = this.#options.control.status();
    this.#publish(replyTo, writeAnswer(command, status, state ?? status.state, null), {});
  }

  /** Counts the refusal and answers it. */
  #refuse(replyTo: string | null, command: Command | "unknown", { code, problem }: Refusal): void {
    this.#micro.fail(command, problem);
    if (replyTo === null) return;
    const status = this.#options.control.status();
    // As clients of NATS services look for them.
    const headers = { "Nats-Service-Error": problem, "Nats-Service-Error-Code": String(code) };
    this.#publish(replyTo, writeAnswer(command, status, status.state, problem), headers);
  }

  /** Without a connection the answer is dropped: its caller has lost NATS too, or will not wait. */
  #publish(to: string, answer: Uint8Array, more: Readonly<Record<string, string>>): void {
    const wire = this.#link.wire();
    if (wire === null) return;
    const headers = { [INSTANCE_HEADER]: this.#instance, ...more };
    // A server that knows no headers takes the answer without.
    wire.publish(to, answer, undefined, headers) || wire.publish(to, answer);
  }
}

const MAX_OWED = 64;

/**
 * The second answers of commands that last. Each is given once, by what comes first: the end of the
 * work, or the end of the collector.
 */
class OwedAnswers {
  readonly #owed = new Set<() => void>();

  /** @returns what gives the answer; null when `MAX_OWED` are owed already. */
  add(answer: () => void): (() => void) | null {
    if (this.#owed.size >= MAX_OWED) return null;
    const give = () => {
      if (this.#owed.delete(give)) answer();
    };
    this.#owed.add(give);
    return give;
  }

  /** Gives all of them. */
  give(): void {
    for (const give of [...this.#owed]) give();
  }
}

// ── Decides what a message is: a command to obey, or a refusal. Pure, and the one place of that decision. The
// payload is ignored, so that `nats pub shishi.stop ''` and the seeds' "Exit" both work; payload and
// headers are handed in because a signature covers the one and stands in the other.

/** A message, whether or not it is a command. */
export type Incoming = Omit<Message, "noResponders">;

export type Decision =
  | {
    readonly kind: "obey";
    readonly command: Command;
    /** Where to answer, or null when no answer is wanted. */
    readonly replyTo: string | null;
    /** To be called when it is obeyed: a signature is good for one command. */
    readonly spend: () => void;
  }
  | {
    readonly kind: "refuse";
    /** As far as it is known. */
    readonly command: Command | "unknown";
    readonly problem: string;
    readonly replyTo: string | null;
  };

/**
 * @param subjects the collector's own subjects (`subjectsOf` in protocol.ts).
 * @param prefix of the control subjects.
 * @param gate null: no signature is needed.
 * @param nowMs epoch milliseconds.
 */
export function decide(
  message: Incoming,
  subjects: ReadonlyMap<string, Command>,
  prefix: string,
  gate: Gate | null,
  nowMs: number,
): Decision {
  const replyTo = replySubject(message, prefix);
  const command = subjects.get(message.subject);
  if (command === undefined) {
    return { kind: "refuse", command: "unknown", problem: "no such command", replyTo };
  }
  if (gate === null) return { kind: "obey", command, replyTo, spend() {} };
  const { subject, payload } = message;
  const judged = gate.verifier.judge(message.header(SIGNATURE_HEADER), subject, payload, nowMs);
  if (!judged.ok) return { kind: "refuse", command, problem: judged.problem, replyTo };
  const { signedMs, spend } = judged.value;
  const early = command === "status" ? null : beforeStart(signedMs, gate);
  if (early !== null) return { kind: "refuse", command, problem: early, replyTo };
  return { kind: "obey", command, replyTo, spend };
}

/**
 * Where to answer, or null. An answer must not become a command: a client that may publish `status` only
 * could otherwise name `PREFIX.stop` as the reply subject, and a collector would send the stop for it.
 */
function replySubject({ reply }: Incoming, prefix: string): string | null {
  return reply === "" || reply === prefix || reply.startsWith(`${prefix}.`) ? null : reply;
}
