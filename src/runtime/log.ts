/**
 * The log: one line for each event, on stderr. Readable on a terminal, JSON lines elsewhere, so that
 * journald and every log shipper can parse it. Whatever a server or a client has put into a value, it
 * starts no line of its own and moves no cursor.
 *
 * Lines that repeat are folded: the first is written at once, then one line a minute for as long as more
 * come, with how many there were and the last one's fields. Folding must neither mislead nor hide
 * anything:
 * - Warnings are alike when message and `LIKE` fields are: a table's retries, a client's bad rows.
 * - An error is alike only when every field is: it may be the one trace of a batch that is lost.
 * - Nothing else is folded. `info` says that something has changed ("ClickHouse is there"), so what
 *   was kept back is written before it, and what comes after it is written as if for the first time.
 */

import { constants, fstatSync, openSync, writeSync } from "node:fs";
import process from "node:process";
import { setTimeout } from "node:timers";
import { nodeUtil } from "../kernel/builtins.ts";
import type { Clock, Log, LogFields } from "../contracts.ts";
import { systemClock } from "../kernel/time.ts";
import { onTerminal, wantsColor } from "./host.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFormat = "auto" | "text" | "json";

/** A log whose folded lines can be written early: at the end none may be missing. */
export interface FoldedLog extends Log {
  flush(): void;
  /** The last line of the process: as `info`, but whatever the level is, and after all that was folded. */
  last(message: string, fields?: LogFields): void;
}

export interface LogTools {
  /** Takes one whole line with its newline; says how many earlier ones were dropped. Default stderr. */
  readonly write?: (line: string) => number | void;
  readonly clock?: Omit<Clock, "random">;
  readonly color?: boolean;
}

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };
const COLOR = { debug: "gray", info: "cyan", warn: "yellow", error: "red" } as const;
/** Most messages are shorter, so the fields stand below each other. */
const MESSAGE_WIDTH = 36;

export function createLog(
  level: LogLevel,
  format: LogFormat,
  tools: LogTools = {},
): FoldedLog {
  const { write = writeStderr, clock = systemClock, color = wantsColor(onTerminal()) } = tools;
  const readable = format === "text" || (format === "auto" && onTerminal());
  const render = readable ? textLine : jsonLine;
  const fold = new Fold();
  let cancel: (() => void) | null = null;

  const put = (lines: readonly Line[]) => {
    for (const line of lines) {
      const dropped = write(render(clock.nowMs(), line, color)) ?? 0;
      if (dropped > 0) write(render(clock.nowMs(), missing(dropped), color));
    }
  };
  /** Wakes once at the end of the oldest window. */
  const wakeUp = () => {
    const nextMs = fold.nextMs();
    if (nextMs === null || cancel !== null) return;
    cancel = clock.after(nextMs - clock.monotonicMs(), () => {
      cancel = null;
      put(fold.due(clock.monotonicMs()));
      wakeUp();
    });
  };
  const flush = () => {
    cancel?.();
    cancel = null;
    put(fold.flush(clock.monotonicMs()));
  };
  const at = (lineLevel: LogLevel) => (message: string, fields: LogFields = {}) => {
    if (RANK[lineLevel] < RANK[level]) return;
    put(fold.take({ level: lineLevel, message, fields }, clock.monotonicMs()));
    wakeUp();
  };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    flush,
    last(message, fields = {}) {
      flush();
      put([{ level: "info", message, fields }]);
    },
  };
}

function missing(lines: number): Line {
  return {
    level: "warn",
    message: "stderr is read too slowly: lines are missing",
    fields: { lines },
  };
}

/** A log that others hold on to while it is replaced. */
export interface SwitchLog extends FoldedLog {
  /** What the previous log has folded is written first. */
  use(log: FoldedLog): void;
}

export function createSwitchLog(first: FoldedLog): SwitchLog {
  let log = first;
  return {
    use(next) {
      log.flush();
      log = next;
    },
    debug: (message, fields) => log.debug(message, fields),
    info: (message, fields) => log.info(message, fields),
    warn: (message, fields) => log.warn(message, fields),
    error: (message, fields) => log.error(message, fields),
    flush: () => log.flush(),
    last: (message, fields) => log.last(message, fields),
  };
}

function jsonLine(nowMs: number, { level, message, fields, repeated }: Line): string {
  const time = new Date(nowMs).toISOString();
  const times = repeated === undefined
    ? {}
    : { repeated: repeated.times, in_s: seconds(repeated.overMs) };
  return `${escaped(JSON.stringify({ time, level, message, ...times, ...fields }))}\n`;
}

function textLine(
  nowMs: number,
  { level, message, fields, repeated }: Line,
  color: boolean,
): string {
  const paint = (style: "gray" | (typeof COLOR)[LogLevel], text: string) =>
    color ? nodeUtil().styleText(style, text, { validateStream: false }) : text;
  const time = new Date(nowMs).toISOString().slice(11, 23);
  const times = repeated === undefined
    ? ""
    : ` (repeated ${repeated.times} times in ${seconds(repeated.overMs)} s)`;
  const tail = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${paint("gray", `${name}=`)}${plain(value)}`)
    .join("");
  const what = `${escaped(message)}${times}`;
  const tag = paint(COLOR[level], level.toUpperCase().padEnd(5));
  return `${paint("gray", time)} ${tag} ${
    tail === "" ? what : what.padEnd(MESSAGE_WIDTH)
  }${tail}\n`;
}

/** Quoted when it could be mistaken for two fields. */
function plain(value: unknown): string {
  const text = String(value);
  return /^[^\s"=\p{Cc}]+$/u.test(text) ? escaped(text) : escaped(JSON.stringify(text));
}

/**
 * Control characters (C1 too, which some terminals obey), line separators, and what turns the direction
 * of writing around, as JSON would write them: within JSON the text stays the same.
 */
function escaped(text: string): string {
  return text.replace(
    /[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function seconds(ms: number): number {
  return Math.round(ms / 1000);
}

export interface Line {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
  /** Stands for so many lines, of so long; the fields are those of the last. */
  readonly repeated?: { readonly times: number; readonly overMs: number };
}

const WINDOW_MS = 60_000;
/** Kinds of lines that are remembered. One more, and the oldest is written and forgotten. */
const MOST_KINDS = 200;
/** What tells one warning from another, beside its message. */
const LIKE = [
  "table",
  "code",
  "server",
  "file",
  "folder",
  "command",
  "subject",
  "source",
  "exit",
];

interface Kind {
  last: Line;
  /** Lines since `sinceMs` that were not written. */
  times: number;
  sinceMs: number;
}

/** What is to be written of the lines that come. Pure: times go in, lines come out. */
export class Fold {
  /** In the order of `sinceMs`: a kind whose window begins anew goes to the end. */
  readonly #kinds = new Map<string, Kind>();

  /** @returns what is to be written now. */
  take(line: Line, nowMs: number): Line[] {
    if (line.level === "debug") return [line];
    if (line.level === "info") return [...this.flush(nowMs), line];
    const told = this.due(nowMs);
    const key = keyOf(line);
    const kind = this.#kinds.get(key);
    if (kind !== undefined) {
      kind.last = line;
      kind.times++;
      return told;
    }
    if (this.#kinds.size >= MOST_KINDS) {
      const [[oldest, { last, times, sinceMs }]] = this.#kinds as unknown as [[string, Kind]];
      this.#kinds.delete(oldest);
      told.push(...summary(last, times, nowMs - sinceMs));
    }
    this.#kinds.set(key, { last: line, times: 0, sinceMs: nowMs });
    return [...told, line];
  }

  /** Lines for the windows that have ended. What did not repeat within its window is forgotten. */
  due(nowMs: number): Line[] {
    const told: Line[] = [];
    for (const [key, kind] of this.#kinds) {
      const overMs = nowMs - kind.sinceMs;
      if (overMs < WINDOW_MS) break;
      told.push(...summary(kind.last, kind.times, overMs));
      this.#kinds.delete(key);
      if (kind.times > 0) this.#kinds.set(key, { ...kind, times: 0, sinceMs: nowMs });
    }
    return told;
  }

  /** When `due` has something to do; null while nothing is remembered. */
  nextMs(): number | null {
    for (const { sinceMs } of this.#kinds.values()) return sinceMs + WINDOW_MS;
    return null;
  }

  /** Everything that was not written, and a fresh start. */
  flush(nowMs: number): Line[] {
    const told = [...this.#kinds.values()].flatMap(({ last, times, sinceMs }) =>
      summary(last, times, nowMs - sinceMs)
    );
    this.#kinds.clear();
    return told;
  }
}

function keyOf({ level, message, fields }: Line): string {
  const alike = level === "error" ? fields : LIKE.map((name) => fields[name] ?? null);
  return JSON.stringify([level, message, alike]);
}

function summary(last: Line, times: number, overMs: number): Line[] {
  // A single line that was kept back is written as it is.
  if (times <= 1) return times === 0 ? [] : [last];
  return [{ ...last, repeated: { times, overMs } }];
}

// ── Whole lines to stderr, in order. A line is written when the call returns, unless its reader is slow:
// then it waits in a bounded queue that is emptied in the background and, at the end of the process,
// for as long as the reader takes something. A reader that stops, or has gone, holds up nothing: what
// the queue cannot take is dropped and counted.
//
// A pipe or a terminal is opened a second time, for that one can refuse to wait (`O_NONBLOCK`) without
// a change for other processes that share stderr. A socket (journald's) has no second opening: there the system
// may make this process wait, for a reader that is part of it.

export interface LineWriterTools {
  /** Bytes that were taken; throws as `writeSync` does. */
  readonly write: (bytes: Uint8Array) => number;
  /** Blocks. */
  readonly sleep: (ms: number) => void;
  /** Calls once after so long; need not keep the process alive. */
  readonly after: (ms: number, task: () => void) => void;
}

export interface LineWriter {
  /** @returns how many lines were dropped since the last one that was taken. */
  write(line: string): number;
  /** Empties the queue, waiting for a reader that is slow; not for long. */
  drain(): void;
}

const QUEUE_BYTES = 1024 * 1024;
const AGAIN_MS = 20;
/** At the end: with a reader that takes nothing, and with one that takes a little now and then. */
const PATIENCE_MS = 1_000;
const MOST_PATIENCE_MS = 5_000;
const PAUSE_MS = 2;

export function createLineWriter(tools: LineWriterTools): LineWriter {
  const encoder = new TextEncoder();
  const queue: Uint8Array[] = [];
  let queuedBytes = 0;
  let dropped = 0;
  let waiting = false;

  /** Writes what is taken without waiting; whether anything was. */
  function push(): boolean {
    let progress = false;
    while (queue.length > 0) {
      const first = queue[0]!;
      let taken: number;
      try {
        taken = tools.write(first);
      } catch (error) {
        if ((error as { code?: unknown }).code === "EAGAIN") break;
        // Closed, or broken: these will never be read.
        dropped += queue.length;
        queue.length = queuedBytes = 0;
        break;
      }
      progress = true;
      queuedBytes -= taken;
      if (taken === first.length) queue.shift();
      else queue[0] = first.subarray(taken);
    }
    return progress;
  }

  function later(): void {
    if (waiting || queue.length === 0) return;
    waiting = true;
    tools.after(AGAIN_MS, () => {
      waiting = false;
      push();
      later();
    });
  }

  return {
    write(line) {
      const bytes = encoder.encode(line);
      if (queue.length > 0) push();
      if (queuedBytes > 0 && queuedBytes + bytes.length > QUEUE_BYTES) {
        dropped++;
        return 0;
      }
      const missing = dropped;
      dropped = 0;
      queue.push(bytes);
      queuedBytes += bytes.length;
      push();
      later();
      return missing;
    },
    drain() {
      let idleMs = 0;
      for (let ms = 0; ms < MOST_PATIENCE_MS && idleMs < PATIENCE_MS; ms += PAUSE_MS) {
        idleMs = push() ? 0 : idleMs + PAUSE_MS;
        if (queue.length === 0) return;
        tools.sleep(PAUSE_MS);
      }
    },
  };
}

const cell = new Int32Array(new SharedArrayBuffer(4));
let writer: LineWriter | null = null;

/** A line to this process's stderr; how many before it were dropped. */
function writeStderr(line: string): number {
  writer ??= stderrWriter();
  return writer.write(line);
}

function stderrWriter(): LineWriter {
  const file = secondOpening();
  const made = createLineWriter({
    write: (bytes) => writeSync(file, bytes),
    sleep: (ms) => void Atomics.wait(cell, 0, 0, ms),
    after: (ms, task) => void setTimeout(task, ms).unref(),
  });
  process.on("exit", () => made.drain());
  return made;
}

/** Stderr, opened so that a write never waits; stderr as it is where that cannot be had. */
function secondOpening(): number {
  const { O_NOCTTY, O_NONBLOCK, O_WRONLY } = constants;
  try {
    const stat = fstatSync(2);
    if (!stat.isFIFO() && !stat.isCharacterDevice()) return 2;
    return openSync("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    return 2;
  }
}
