/**
 * The log: one line an event, on stderr. Readable on a terminal, JSON lines elsewhere, so that
 * journald and every log shipper can parse it. Writes are synchronous: the last line before the
 * process ends must not be lost.
 */

import process from "node:process";
import { styleText } from "node:util";
import type { Log, LogFields } from "../contracts.ts";
import { writeStderr } from "./stderr.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFormat = "auto" | "text" | "json";

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };
const COLOR = { debug: "gray", info: "cyan", warn: "yellow", error: "red" } as const;

/**
 * @param write takes one whole line with its newline; stderr unless told otherwise.
 * @param nowMs epoch milliseconds for the time of each line.
 */
export function createLog(
  level: LogLevel,
  format: LogFormat,
  write: (line: string) => void = writeStderr,
  nowMs: () => number = Date.now,
): Log {
  const readable = format === "text" || (format === "auto" && process.stderr.isTTY === true);
  const render = readable ? textLine : jsonLine;
  const at = (lineLevel: LogLevel) => (message: string, fields?: LogFields) => {
    if (RANK[lineLevel] >= RANK[level]) write(render(nowMs(), lineLevel, message, fields ?? {}));
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** A log that others hold on to while it is replaced. */
export interface SwitchLog extends Log {
  use(log: Log): void;
}

export function createSwitchLog(first: Log): SwitchLog {
  let log = first;
  return {
    use: (next) => log = next,
    debug: (message, fields) => log.debug(message, fields),
    info: (message, fields) => log.info(message, fields),
    warn: (message, fields) => log.warn(message, fields),
    error: (message, fields) => log.error(message, fields),
  };
}

function jsonLine(nowMs: number, level: LogLevel, message: string, fields: LogFields): string {
  const time = new Date(nowMs).toISOString();
  return JSON.stringify({ time, level, message, ...fields }) + "\n";
}

function textLine(nowMs: number, level: LogLevel, message: string, fields: LogFields): string {
  const time = new Date(nowMs).toISOString().slice(11, 23);
  const tail = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${styleText("gray", `${name}=`)}${plain(value)}`)
    .join("");
  const tag = styleText(COLOR[level], level.toUpperCase().padEnd(5));
  return `${styleText("gray", time)} ${tag} ${oneLine(message)}${tail}\n`;
}

/** Quoted when it could be mistaken for two fields or break the line. */
function plain(value: unknown): string {
  const text = String(value);
  return /^[^\s"=\p{Cc}]+$/u.test(text) ? text : JSON.stringify(text);
}

/** A message may carry a server's text: nothing in it may start a line of its own or move the cursor. */
function oneLine(message: string): string {
  return message.replace(/\p{Cc}/gu, " ");
}
