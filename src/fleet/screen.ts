/**
 * What a person at a terminal sees of a fleet: the table of the collectors, a line of progress for each,
 * numbers in words, and a few lines at the end of the terminal that are drawn over in place.
 */

import { nodeUtil } from "../kernel/builtins.ts";
import type { Answer } from "../remote/protocol.ts";

const HEADINGS = [
  "GROUP",
  "ID",
  "STATE",
  "HELD",
  "OLDEST",
  "STORED",
  "DEAD",
  "LOST",
  "VERSION",
  "UPTIME",
] as const;
/** Columns of numbers stand flush right. */
const RIGHT: ReadonlySet<string> = new Set(["HELD", "OLDEST", "STORED", "DEAD", "LOST", "UPTIME"]);
const BAR_WIDTH = 20;

/** One line a collector below a line of headings. @param color only ever true on a terminal. */
export function statusTable(answers: readonly Answer[], color: boolean): string[] {
  const rows = answers.map((answer) => [
    answer.group,
    answer.id,
    answer.state,
    String(answer.ledger.held),
    shortTime(answer.oldestS),
    String(answer.ledger.stored),
    String(answer.ledger.dead),
    String(answer.ledger.lost),
    answer.version,
    shortTime(answer.uptimeS),
  ]);
  const widths = HEADINGS.map((heading, at) =>
    Math.max(heading.length, ...rows.map((row) => row[at]?.length ?? 0))
  );
  const line = (cells: readonly string[], paint: (cell: string, at: number) => string) =>
    cells.map((cell, at) => {
      const width = widths[at] ?? 0;
      const padded = RIGHT.has(HEADINGS[at] ?? "") ? cell.padStart(width) : cell.padEnd(width);
      return paint(padded, at);
    }).join("  ").trimEnd();
  const gray = (cell: string) => (color ? painted("gray", cell) : cell);
  const paint = (cell: string, at: number) => (at === 2 ? stateText(cell, color) : cell);
  return [line(HEADINGS, gray), ...rows.map((row) => line(row, paint))];
}

/**
 * One state change of one collector: `eu.edge-1  stopped   stored 5012  dead 0  lost 0`.
 * @param color only ever true on a terminal. @param nameWidth the name is filled up to it.
 */
export function progressLine(answer: Answer, color: boolean, nameWidth = 0): string {
  const { held, stored, dead, lost } = answer.ledger;
  const state = stateText(answer.state.padEnd(8), color);
  const numbers = `held ${held}  stored ${stored}  dead ${dead}  lost ${lost}`;
  return `${answer.name.padEnd(nameWidth)}  ${state}  ${numbers}`;
}

/** How much of what was held is gone: `[######....]`. @param most the most that was held. */
export function drainBar(held: number, most: number): string {
  const gone = most > 0 ? Math.min(1, Math.max(0, 1 - held / most)) : 1;
  const filled = Math.floor(gone * BAR_WIDTH);
  return `[${"#".repeat(filled)}${".".repeat(BAR_WIDTH - filled)}]`;
}

/** Two units at most: `42s`, `3m05s`, `7h12m`, `12d4h`. @param seconds not negative. */
export function shortTime(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  const two = (value: number) => String(value).padStart(2, "0");
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  if (s < 86_400) return `${Math.floor(s / 3600)}h${two(Math.floor(s / 60) % 60)}m`;
  return `${Math.floor(s / 86_400)}d${Math.floor(s / 3600) % 24}h`;
}

function stateText(state: string, color: boolean): string {
  if (!color) return state;
  switch (state.trim()) {
    case "running":
    case "stopped":
    case "flushed":
      return painted("green", state);
    case "degraded":
    case "silent":
      return painted("red", state);
    default:
      return painted("yellow", state);
  }
}

function painted(color: "gray" | "green" | "red" | "yellow", text: string): string {
  return nodeUtil().styleText(color, text, { validateStream: false });
}

/** `1.5 s`. */
export function seconds(ms: number): string {
  return `${Number((ms / 1000).toFixed(1))} s`;
}

/** `1 collector`, `2 collectors`. */
export function collectors(count: number): string {
  return count === 1 ? "1 collector" : `${count} collectors`;
}

/** A terminal; where output is none there is no screen. */
export interface Screen {
  /** Its height at this moment. */
  rows(): number;
}

/**
 * Lines that are drawn over. Everything goes out as whole lines, so that ordinary lines may be written in
 * between: `above` makes room for them.
 */
export interface Region {
  /** Shows these lines in place of the last ones; what does not fit is counted in the last line. */
  draw(lines: readonly string[]): void;
  /** Takes the lines away, lets `print` write its own, and shows them again below. */
  above(print: () => void): void;
  /** Takes the lines away. */
  clear(): void;
}

/** Lines longer than the terminal is wide are cut by it, not wrapped: the height must be known. */
const NO_WRAP = "\x1b[?7l";
const WRAP = "\x1b[?7h";
const LEAST_ROWS = 4;

/** @param out writes a text and a newline. */
export function createRegion(screen: Screen, out: (text: string) => void): Region {
  let shown: readonly string[] = [];
  const up = () => (shown.length === 0 ? "" : `\x1b[${shown.length}A\x1b[J`);
  const region: Region = {
    draw(lines) {
      const fitting = fit(lines, Math.max(LEAST_ROWS, screen.rows()) - 1);
      if (fitting.length === 0) return region.clear();
      if (fitting.length === shown.length && fitting.every((line, at) => line === shown[at])) {
        return;
      }
      const before = up();
      shown = fitting;
      out(before + NO_WRAP + fitting.join("\n") + WRAP);
    },
    above(print) {
      const lines = shown;
      region.clear();
      print();
      region.draw(lines);
    },
    clear() {
      // One line further up, since `out` ends in a newline.
      if (shown.length > 0) out(`${up()}\x1b[A`);
      shown = [];
    },
  };
  return region;
}

function fit(lines: readonly string[], rows: number): readonly string[] {
  if (lines.length <= rows) return lines;
  return [...lines.slice(0, rows - 1), `… and ${lines.length - rows + 1} more`];
}
