/**
 * How the command line speaks to a fleet: a connection to NATS, one command to one target with the
 * answers as they come, and the status asked again and again. Every way to command a fleet is made of
 * these. Problems are said on `err` here; the answers are the caller's to show.
 *
 * The fleet is not known in advance, so a call waits by silence: it is over once a while has passed since
 * a collector last answered for the first time, and every collector that took the command has finished
 * it; or at the timeout.
 */

import type { Clock, Command } from "../contracts.ts";
import { repeat } from "../kernel/time.ts";
import { dial, type Message, type NatsAuth, type OpenSocket, type Wire } from "../kernel/nats.ts";
import { type Answer, INSTANCE_HEADER, readAnswer, subjectFor } from "../remote/protocol.ts";
import { sign, SIGNATURE_HEADER } from "../kernel/signature.ts";
import type { Screen } from "./screen.ts";

/** A command to a fleet, and where it is said what became of it. */
export interface FleetIo {
  /** The first that answers is used. */
  readonly servers: readonly string[];
  readonly auth: NatsAuth;
  /** Signs the command; null: it goes unsigned. */
  readonly controlSecret?: string | null;
  /** Prefix of the control subjects. */
  readonly subject: string;
  /** `all`, `GROUP` or `GROUP.ID`. */
  readonly target: string;
  /** Of the whole command; of a batch where it goes by batches. */
  readonly timeoutMs: number;
  /** One line of JSON an answer instead of text. */
  readonly json: boolean;
  /** `status`: again and again. */
  readonly watch?: boolean;
  /** Only says which collectors would obey. */
  readonly dryRun?: boolean;
  /** `stop`: a few at a time. */
  readonly roll?: Roll | null;
  /** Asks at the terminal before everything is stopped; null where there is none. */
  readonly confirm?: ((question: string) => Promise<boolean>) | null;
  readonly clock: Clock;
  /** True only when `out` is a terminal that wants colour. */
  readonly color?: boolean;
  /** Where `out` is a terminal: lines may be drawn over. */
  readonly screen?: Screen | null;
  /** Writes its text and a newline. */
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
  readonly openSocket?: OpenSocket;
  /** Opens a connection; tests bring their own. */
  readonly dial?: typeof dial;
  /** Ends the command early. */
  readonly signal?: AbortSignal;
}

export interface Roll {
  /** Collectors at a time. */
  readonly size: number;
  /** Between the end of one batch and the beginning of the next. */
  readonly pauseMs: number;
}

const DIAL_TIMEOUT_MS = 5_000;

/** The first server that answers; says on `err` why none did. */
export async function reach(io: FleetIo): Promise<Wire | null> {
  if (io.servers.length === 0) {
    io.err("nats-url: expected nats://host:port, tls://, ws:// or wss://, got nothing");
    return null;
  }
  const deadlineMs = io.clock.monotonicMs() + io.timeoutMs;
  for (const server of io.servers) {
    const leftMs = Math.max(100, Math.round(deadlineMs - io.clock.monotonicMs()));
    const dialled = await (io.dial ?? dial)(
      {
        server,
        auth: io.auth,
        name: "shishi command",
        timeoutMs: Math.min(DIAL_TIMEOUT_MS, leftMs),
        openSocket: io.openSocket,
        ...(io.signal === undefined ? {} : { signal: io.signal }),
      },
      io.clock,
      (what) => io.err(`NATS: ${what}`),
    );
    if (dialled.ok) return dialled.value;
    if (io.signal?.aborted) return null;
    io.err(`cannot reach NATS: ${dialled.problem}`);
  }
  return null;
}

/** What a call came to. */
export interface Outcome {
  readonly command: Command;
  readonly subject: string;
  /** `silent`: no answer in time. `unheard`: the server knows of no listener. `lost`: connection lost. */
  readonly end: "done" | "timeout" | "silent" | "unheard" | "lost";
  /** The last answer of each collector, sorted by group and id. */
  readonly answers: readonly Answer[];
  /** Those that took the command and did not finish it in time. */
  readonly unfinished: readonly Answer[];
  /** How many answers said no. */
  readonly refused: number;
  /** Why the connection was lost; else `""`. */
  readonly why: string;
  readonly waitedMs: number;
}

/** How long a first answer of one more collector is waited for. */
const WINDOW_MS = 2_000;
/** One name, one collector: only a second host of the same name could still answer. */
const SINGLE_WINDOW_MS = 250;

/**
 * Sends `command` to `target`, which `subjectFor` has accepted.
 * @param onAnswer called with each answer as it comes; that one did not obey is said before.
 */
export async function ask(
  wire: Wire,
  command: Command,
  target: string,
  io: FleetIo,
  onAnswer: (answer: Answer) => void = () => {},
): Promise<Outcome> {
  const where = subjectFor(io.subject, command, target);
  if (!where.ok) throw new Error(where.problem);
  const { subject, single } = where.value;
  const startedMs = io.clock.monotonicMs();
  const warn = fewWarnings(io);
  const tally = new Tally(command);
  const waiting = new Waiting(tally, io);
  let refused = 0;
  void wire.closed.then((why) => waiting.end("lost", why));

  const inbox = newInbox();
  wire.subscribe(inbox, (message) => {
    if (message.noResponders) return waiting.end("unheard");
    const answer = answerTo(command, message, warn);
    if (answer === null) return;
    const counted = tally.add(answer);
    if (counted === "surplus" || counted === "again") return;
    if (counted === "first") waiting.forOneMore(single ? SINGLE_WINDOW_MS : WINDOW_MS);
    if (!answer.ok) {
      refused++;
      io.err(`${answer.name}: ${answer.error}`);
    }
    if (io.json) showJson(answer, io, warn);
    onAnswer(answer);
    waiting.endIfAll();
  });
  waiting.forOneMore(WINDOW_MS);
  if (!send(wire, subject, inbox, io)) waiting.end("lost", "connection closed");
  const { end, why } = await waiting.ended;
  const waitedMs = io.clock.monotonicMs() - startedMs;
  const { answers, unfinished } = tally;
  return { command, subject, end, why, answers, unfinished, refused, waitedMs };
}

/** When a call is over: by silence, when all have finished, or at the timeout. */
class Waiting {
  readonly ended: Promise<Pick<Outcome, "end" | "why">>;
  readonly #tally: Tally;
  readonly #io: FleetIo;
  readonly #resolve: (ended: Pick<Outcome, "end" | "why">) => void;
  readonly #cancelTimeout: () => void;
  #cancelWindow = () => {};
  #windowOver = false;

  constructor(tally: Tally, io: FleetIo) {
    const { promise, resolve } = Promise.withResolvers<Pick<Outcome, "end" | "why">>();
    this.ended = promise;
    this.#resolve = resolve;
    this.#tally = tally;
    this.#io = io;
    this.#cancelTimeout = io.clock.after(
      io.timeoutMs,
      () => this.#endHeard(tally.open === 0 ? "done" : "timeout"),
    );
  }

  /** The first answer of one more collector is waited for so long from now. */
  forOneMore(windowMs: number): void {
    if (this.#windowOver) return;
    this.#cancelWindow();
    this.#cancelWindow = this.#io.clock.after(Math.min(windowMs, this.#io.timeoutMs), () => {
      this.#windowOver = true;
      this.endIfAll();
    });
  }

  endIfAll(): void {
    if (this.#windowOver && this.#tally.open === 0) this.#endHeard("done");
  }

  /** What comes first counts. */
  end(end: Outcome["end"], why = ""): void {
    this.#windowOver = true;
    this.#cancelWindow();
    this.#cancelTimeout();
    this.#resolve({ end, why });
  }

  #endHeard(end: "done" | "timeout"): void {
    this.end(this.#tally.collectors === 0 ? "silent" : end);
  }
}

/** Ends the asking. */
export type StopPolling = () => void;

/**
 * Asks for the status at once, and then every `everyMs`. An answer says to which round it belongs, so
 * that a late one is not taken for a second collector of its name; the first round is 1.
 * @param subject a `status` subject, from `subjectFor`.
 */
export function pollStatus(
  wire: Wire,
  subject: string,
  everyMs: number,
  io: FleetIo,
  on: {
    answer(answer: Answer, round: number): void;
    /** A round is over: its answers are in, as far as they will ever be in time. */
    round?(round: number): void;
    warning?(what: string): void;
  },
): StopPolling {
  const inbox = newInbox();
  let round = 0;
  let ended = false;
  wire.subscribe(`${inbox}.*`, (message) => {
    if (ended || message.noResponders) return;
    const answer = answerTo("status", message, (what) => on.warning?.(what));
    const of = Number(message.subject.slice(inbox.length + 1));
    if (answer !== null && of >= 1 && of <= round) on.answer(answer, of);
  });
  const askOnce = () => void send(wire, subject, `${inbox}.${++round}`, io);
  askOnce();
  const stop = repeat(io.clock, everyMs, () => {
    on.round?.(round);
    if (!ended) askOnce();
  });
  return () => {
    ended = true;
    stop();
  };
}

function newInbox(): string {
  return `_INBOX.${crypto.randomUUID().replaceAll("-", "")}`;
}

/** @returns false when the command certainly was not sent. */
function send(wire: Wire, subject: string, inbox: string, io: FleetIo): boolean {
  const payload = new Uint8Array();
  const secret = io.controlSecret ?? null;
  if (secret === null) return wire.publish(subject, payload, inbox);
  const signature = sign(secret, subject, payload, io.clock.nowMs(), crypto.randomUUID());
  return wire.publish(subject, payload, inbox, { [SIGNATURE_HEADER]: signature });
}

/** Null, with a warning, for what is no answer to `command`. */
function answerTo(
  command: Command,
  message: Message,
  warn: (what: string) => void,
): Answer | null {
  const read = readAnswer(message.payload, message.header(INSTANCE_HEADER));
  const problem = !read.ok
    ? read.problem
    : read.value.command !== command
    ? `it is for ${read.value.command}`
    : null;
  if (read.ok && problem === null) return read.value;
  warn(`an answer is ignored: ${problem}`);
  return null;
}

/** What a collector that took the command answers first. */
const TAKEN: Readonly<Partial<Record<Command, string>>> = { stop: "draining", flush: "flushing" };
const FINISHED: Readonly<Partial<Record<Command, string>>> = { stop: "stopped", flush: "flushed" };
/** Collectors that are kept apart; more than any fleet, fewer than would fill the memory. */
const MAX_COLLECTORS = 100_000;
/** Collectors of one name that are open at once. */
const MAX_NAMESAKES = 1_000;

/**
 * Which collectors answered, and what is still owed. An answer that begins is a collector of its own,
 * and one that ends belongs to the oldest of its name that is open: two hosts that were given the same
 * group and id by mistake are two, and the first that has stopped does not speak for the other.
 */
export class Tally {
  /** Collectors that took the command and have not finished it. */
  open = 0;
  readonly #taken: string | undefined;
  readonly #seen: Counted[] = [];
  /** Those that are open, oldest first, by name and instance. */
  readonly #opened = new Map<string, Counted[]>();
  readonly #known = new Set<string>();

  constructor(command: Command) {
    this.#taken = TAKEN[command];
  }

  /**
   * `again`: this collector has said so before. `surplus`: there are more collectors than can be kept.
   * Neither is counted.
   */
  add(answer: Answer): "first" | "next" | "again" | "surplus" {
    const key = `${answer.name} ${answer.instance}`;
    const begins = answer.ok && answer.state === this.#taken;
    const ending = begins ? undefined : this.#opened.get(key)?.shift();
    if (ending !== undefined) {
      ending.last = answer;
      ending.open = false;
      this.open--;
      return "next";
    }
    if (answer.instance !== "" && this.#known.has(key)) return "again";
    const namesakes = this.#opened.get(key) ?? [];
    if (this.#seen.length >= MAX_COLLECTORS || namesakes.length >= MAX_NAMESAKES) return "surplus";
    if (answer.instance !== "") this.#known.add(key);
    const counted = { last: answer, open: begins };
    this.#seen.push(counted);
    if (begins) {
      this.open++;
      namesakes.push(counted);
      this.#opened.set(key, namesakes);
    }
    return "first";
  }

  /** How many there are. */
  get collectors(): number {
    return this.#seen.length;
  }

  /** The last answer of each collector, sorted by group and id. */
  get answers(): Answer[] {
    return this.#seen.map(({ last }) => last).sort(byName);
  }

  get unfinished(): Answer[] {
    return this.#seen.filter(({ open }) => open).map(({ last }) => last).sort(byName);
  }
}

interface Counted {
  last: Answer;
  open: boolean;
}

/** Whether this answer means that the command is obeyed to its end. */
export function succeeded({ command, ok, state }: Answer): boolean {
  const finished = FINISHED[command];
  return ok && (finished === undefined || state === finished);
}

/** An order: by group, then by id. */
export function byName(a: Answer, b: Answer): number {
  const order = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
  return order(a.group, b.group) || order(a.id, b.id);
}

/** One line of JSON; nothing in it moves a terminal's cursor or is taken for another character. */
export function showJson(answer: Answer, io: FleetIo, warn: (what: string) => void): void {
  let text: string;
  try {
    text = JSON.stringify(JSON.parse(new TextDecoder().decode(answer.payload)));
  } catch {
    return warn("an answer is ignored: nested too deep to be shown");
  }
  io.out(text.replace(/[\p{C}\u2028\u2029]/gu, escaped));
}

function escaped(character: string): string {
  // By code units: what stands beyond 16 bits is two of them.
  return character.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .join("");
}

const MAX_WARNINGS = 10;

/** Says the first few; one line more says that there are others. */
export function fewWarnings(io: FleetIo): (what: string) => void {
  let warnings = 0;
  return (what) => {
    if (warnings++ < MAX_WARNINGS) io.err(what);
    else if (warnings === MAX_WARNINGS + 1) io.err("further warnings are left out");
  };
}

const MAX_NAMED = 10;

/** Two hosts that were given the same group and id obey alike, and neither can be addressed alone. */
export function warnOfNamesakes(answers: readonly Answer[], io: FleetIo): void {
  const counts = new Map<string, number>();
  for (const { name } of answers) counts.set(name, (counts.get(name) ?? 0) + 1);
  const shared = [...counts].filter(([, count]) => count > 1);
  for (const [name, count] of shared.slice(0, MAX_NAMED)) {
    io.err(`${name} is the name of ${count} collectors: each needs an id of its own`);
  }
  const more = shared.length - MAX_NAMED;
  if (more > 0) io.err(`${more} further names are shared by several collectors`);
}
