/**
 * `app | shishi pipe TABLE`: lines of stdin as rows of a table. A line that is a JSON object is a row as it
 * stands, every other one is `{"message": …}`. One batch is sent while the next one fills; when that is full
 * stdin is not read any further, so that memory stays bounded and the program before the pipe is slowed down.
 */

import { Buffer } from "node:buffer";
import process from "node:process";
import { uuid7 } from "../kernel/names.ts";
import { excerpt } from "../kernel/text.ts";
import { sleep, systemClock } from "../kernel/time.ts";
import { onStopSignal } from "../runtime/host.ts";
import { duration } from "../settings/kinds.ts";
import { section, setting } from "../settings/spec.ts";
import { type CliCommand, operandOf, settingsOrExitCode, tellProblems } from "./cli.ts";
import {
  destinationOf,
  grouped,
  ProgressLine,
  Sender,
  SENDER_FLAGS,
  SENDER_SETTINGS,
  type Sent,
} from "./sender.ts";

const FLAGS = section("Flags", [
  ...SENDER_FLAGS,
  setting({
    name: "flush-every",
    kind: duration({ min: 10, max: 3_600_000 }),
    default: "1s",
    meaning: "a line waits no longer than this for others to be sent with",
  }),
]);

const ABOUT = "Sends each line of stdin as a row: a JSON object as it stands, any other line as " +
  '{"message":"…"}. Lines travel in batches, each under an Idempotency-Key; a collector that is full, ' +
  "stopping or away is waited for, and stdin is read no further meanwhile.\n" +
  "What is refused is printed with the number of its line. SIGINT and SIGTERM send what was read, for 10s " +
  "at most; a second one ends at once. The bearer token comes from SHISHI_TOKEN or --token-file.\n" +
  "Exit code 0 when every line was acknowledged, 1 otherwise, 2 for unusable flags.";

export const pipe: CliCommand = {
  name: "pipe",
  summary: "send lines of stdin to a table: app | shishi pipe logs_app",
  page: { usage: "app | shishi pipe TABLE", about: ABOUT, only: SENDER_SETTINGS, extra: FLAGS },
  async run(argv) {
    const { operand: table, rest } = operandOf(argv, FLAGS);
    const options = { command: "pipe", only: SENDER_SETTINGS, extra: FLAGS };
    const loaded = settingsOrExitCode(rest, options);
    if (typeof loaded === "number") return loaded;
    const { settings, extra } = loaded;
    const to = destinationOf(settings, extra);
    const problem = table === null ? "pipe: expected a table" : to.ok ? null : to.problem;
    if (table === null || !to.ok) {
      tellProblems([problem!], "pipe");
      return 2;
    }
    const sender = new Sender(to.value, table, systemClock);
    try {
      return await new Piping(sender, extra["flush-every"]).run();
    } finally {
      sender.close();
    }
  },
};

/** Of a batch. A collector cuts what is larger than its own. */
const MOST_ROWS = 10_000;
const MOST_BYTES = 1024 * 1024;
/** As `max-body-bytes` is, unless set. */
const MOST_LINE_BYTES = 8 * 1024 * 1024;
/** After a signal: for the program before the pipe to say its last words, and for all to be sent. */
const LAST_WORDS_MS = 500;
const MOST_STOPPING_MS = 10_000;
/** A collector that is not to be had is told of again after this, where there is no terminal. */
const TOLD_MS = 30_000;
const NEWLINE = 10;

/** Rows that travel together, and the number of the line of each. */
class Batch {
  readonly rows: string[] = [];
  readonly lines: number[] = [];
  bytes = 0;
  readonly sinceMs = systemClock.monotonicMs();

  add(row: string, line: number): void {
    this.rows.push(row);
    this.lines.push(line);
    this.bytes += Buffer.byteLength(row) + 1;
  }

  get full(): boolean {
    return this.rows.length >= MOST_ROWS || this.bytes >= MOST_BYTES;
  }

  half(first: boolean): Batch {
    const half = new Batch();
    const middle = this.rows.length >> 1;
    for (let at = first ? 0 : middle; at < (first ? middle : this.rows.length); at++) {
      half.add(this.rows[at]!, this.lines[at]!);
    }
    return half;
  }
}

class Piping {
  readonly #sender: Sender;
  readonly #flushEveryMs: number;
  readonly #run = uuid7(Date.now());
  readonly #progress: ProgressLine;
  readonly #giveUp = new AbortController();
  readonly #startedMs = systemClock.monotonicMs();
  readonly #reader = process.stdin[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  /** What is read next, while it is waited for. */
  #coming: Promise<void> | null = null;
  /** What was read and is in no batch yet: the batch is full. */
  #held: Uint8Array = Buffer.alloc(0);
  /** The beginning of a line. */
  #begun: Uint8Array[] = [];
  #begunBytes = 0;
  #ended = false;
  #filling = new Batch();
  #batches = 0;
  #lines = 0;
  /** Lines that are not empty. */
  #rows = 0;
  #acknowledged = 0;
  #refused = 0;
  #hopeless: string | null = null;
  /** Set by the first signal: when stdin is read no further. */
  #stopAtMs = Infinity;
  #woken = Promise.withResolvers<void>();
  #toldAtMs = -Infinity;

  constructor(sender: Sender, flushEveryMs: number) {
    this.#sender = sender;
    this.#flushEveryMs = flushEveryMs;
    this.#progress = new ProgressLine(systemClock, Infinity, () => this.#state());
  }

  async run(): Promise<number> {
    // To the end: a third signal must not cut what is told.
    onStopSignal(() => this.#stop());
    const watch = setInterval(() => this.#tellWaiting(), 1000);
    let sending: Promise<void> | null = null;
    while (this.#hopeless === null && !this.#giveUp.signal.aborted) {
      this.#fill();
      const { rows, full, sinceMs } = this.#filling;
      const nowMs = systemClock.monotonicMs();
      if (nowMs >= this.#stopAtMs && !this.#ended) this.#endOfInput();
      const dueMs = sinceMs + this.#flushEveryMs;
      if (sending === null && rows.length > 0 && (full || this.#ended || nowMs >= dueMs)) {
        const batch = this.#filling;
        this.#filling = new Batch();
        sending = this.#send(batch).finally(() => sending = null);
        continue;
      }
      if (this.#ended && sending === null && this.#filling.rows.length === 0) break;
      const timers: number[] = [this.#stopAtMs];
      if (sending === null && rows.length > 0) timers.push(dueMs);
      await this.#next(sending, full, Math.min(...timers) - nowMs);
    }
    // What is under way belongs to what is told.
    if (sending !== null) await sending;
    clearInterval(watch);
    return this.#end();
  }

  /** Waits until something may go on. */
  async #next(sending: Promise<void> | null, full: boolean, withinMs: number): Promise<void> {
    const waits: Promise<void>[] = [this.#woken.promise];
    if (sending !== null) waits.push(sending);
    if (!this.#ended && !full && this.#held.length === 0) waits.push(this.#coming ??= this.#read());
    const enough = new AbortController();
    if (withinMs < Infinity) waits.push(sleep(systemClock, Math.max(0, withinMs), enough.signal));
    await Promise.race(waits);
    enough.abort();
  }

  async #read(): Promise<void> {
    const { done, value } = await this.#reader.next().catch(() => ({
      done: true,
      value: undefined,
    }));
    this.#coming = null;
    if (this.#ended) return;
    if (done || value === undefined) this.#endOfInput();
    else this.#held = value;
  }

  #endOfInput(): void {
    this.#fill(Infinity);
    if (this.#begunBytes > 0) this.#line(Buffer.alloc(0));
    this.#ended = true;
  }

  /** Takes lines of what is held, as long as the batch is not full. @param most batches, at the end. */
  #fill(most = 1): void {
    const held = this.#held;
    let at = 0;
    while (at < held.length && (most > 1 || !this.#filling.full)) {
      const end = held.indexOf(NEWLINE, at);
      if (end < 0) {
        this.#begin(held.subarray(at));
        at = held.length;
        break;
      }
      this.#line(held.subarray(at, end));
      at = end + 1;
    }
    this.#held = held.subarray(at);
  }

  #begin(piece: Uint8Array): void {
    this.#begunBytes += piece.length;
    // Of a line that is too long its length alone is kept.
    if (this.#begunBytes > MOST_LINE_BYTES) this.#begun = [];
    else this.#begun.push(piece);
  }

  #line(rest: Uint8Array): void {
    const line = ++this.#lines;
    const bytes = this.#begunBytes + rest.length;
    const text = bytes > MOST_LINE_BYTES
      ? null
      : Buffer.concat([...this.#begun, rest]).toString("utf8").replace(/\r$/, "");
    this.#begun = [];
    this.#begunBytes = 0;
    if (text?.trim() === "") return;
    this.#rows++;
    if (text === null) this.#refuse(line, `longer than ${MOST_LINE_BYTES} bytes`);
    else this.#filling.add(rowOf(text), line);
  }

  async #send(batch: Batch): Promise<void> {
    const body = Buffer.from(`${batch.rows.join("\n")}\n`);
    const key = `pipe-${this.#run}-${this.#batches++}`;
    const contentType = "application/x-ndjson";
    const sent = await this.#sender.send({ body, contentType, key }, this.#giveUp.signal);
    if (sent.kind === "acknowledged") return this.#acknowledge(batch, sent);
    if (sent.kind === "hopeless") this.#hopeless = sent.problem;
    if (sent.kind !== "large") return;
    if (batch.rows.length === 1) {
      return this.#refuse(batch.lines[0]!, sent.problem);
    }
    await this.#send(batch.half(true));
    if (this.#hopeless === null) await this.#send(batch.half(false));
  }

  #acknowledge({ lines }: Batch, { accepted, rejected, errors }: Sent & { kind: "acknowledged" }) {
    this.#acknowledged += accepted;
    for (const { index, error } of errors) this.#refuse(lines[index] ?? NaN, error);
    const untold = rejected - errors.length;
    if (untold <= 0) return;
    this.#refused += untold;
    const more = errors.length > 0 ? `${grouped(untold)} more` : grouped(untold);
    this.#progress.tell(`lines ${lines[0]} to ${lines.at(-1)}: ${more} refused`);
  }

  #refuse(line: number, error: string): void {
    this.#refused++;
    this.#progress.tell(`line ${line}: ${error}`);
  }

  #stop(): void {
    if (this.#stopAtMs < Infinity) this.#giveUp.abort();
    else {
      this.#stopAtMs = systemClock.monotonicMs() + LAST_WORDS_MS;
      systemClock.after(MOST_STOPPING_MS, () => {
        this.#giveUp.abort();
        this.#woken.resolve();
      });
    }
    this.#woken.resolve();
    if (!this.#giveUp.signal.aborted) this.#woken = Promise.withResolvers();
  }

  #state(): string {
    const seconds = (systemClock.monotonicMs() - this.#startedMs) / 1000;
    const counts = `${grouped(this.#rows)} lines, ${grouped(this.#acknowledged)} acknowledged` +
      (this.#refused > 0 ? `, ${grouped(this.#refused)} refused` : "");
    return `${counts}, ${grouped(this.#acknowledged / seconds)}/s${this.#waitingText()}`;
  }

  #waitingText(): string {
    const { waiting } = this.#sender;
    if (waiting === null) return "";
    const leftS = Math.max(0, (waiting.untilMs - systemClock.monotonicMs()) / 1000);
    return `, again in ${Math.ceil(leftS)} s: ${excerptOf(waiting.problem)}`;
  }

  /** Where there is no terminal to see it on. */
  #tellWaiting(): void {
    const { waiting } = this.#sender;
    const nowMs = systemClock.monotonicMs();
    if (waiting === null || process.stderr.isTTY || nowMs < this.#toldAtMs + TOLD_MS) return;
    this.#toldAtMs = nowMs;
    this.#progress.tell(`waiting: ${waiting.problem}`);
  }

  #end(): number {
    const unsent = this.#rows - this.#acknowledged - this.#refused;
    if (this.#hopeless !== null) this.#progress.tell(this.#hopeless);
    this.#progress.end();
    const counts = [
      `${grouped(this.#acknowledged)} acknowledged`,
      `${grouped(this.#refused)} refused`,
      ...(unsent > 0 ? [`${grouped(unsent)} not acknowledged`] : []),
    ];
    process.stderr.write(`shishi: ${grouped(this.#rows)} lines: ${counts.join(", ")}\n`);
    return unsent > 0 || this.#refused > 0 || this.#hopeless !== null ? 1 : 0;
  }
}

function excerptOf(problem: string): string {
  return excerpt(problem.replace(/\s+/g, " "));
}

/** A line as a row on one line. */
function rowOf(text: string): string {
  if (/^\s*\{/.test(text)) {
    try {
      JSON.parse(text);
      return text;
    } catch {
      // Text that only begins like an object.
    }
  }
  return JSON.stringify({ message: text });
}
