/**
 * The log: one line an event, on stderr. Readable on a terminal, JSON lines elsewhere, so that
 * journald and every log shipper can parse it. What repeats is folded (`fold.ts`). Whatever a server
 * or a client has put into a value, it starts no line of its own and moves no cursor.
 */

import { nodeUtil } from "../kernel/builtins.ts";
import type { Clock, Log, LogFields } from "../contracts.ts";
import { systemClock } from "./clock.ts";
import { wantsColor } from "./color.ts";
import { Fold, type Line, type LogLevel } from "./fold.ts";
import { writeStderr } from "./stderr.ts";
import { onTerminal } from "./terminal.ts";

export type { LogLevel } from "./fold.ts";
export type LogFormat = "auto" | "text" | "json";

/** A log whose folded lines can be told early: at the end nothing may stay untold. */
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
  /** What the one before has folded is told first. */
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
