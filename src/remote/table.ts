/** What `shishi status` and the progress of a command look like in text. Pure. */

import { styleText } from "node:util";
import type { Answer } from "./answer.ts";

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
  const gray = (
    cell: string,
  ) => (color ? styleText("gray", cell, { validateStream: false }) : cell);
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
  return `${`${answer.group}.${answer.id}`.padEnd(nameWidth)}  ${state}  ${numbers}`;
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
      return styleText("green", state, { validateStream: false });
    case "degraded":
    case "silent":
      return styleText("red", state, { validateStream: false });
    default:
      return styleText("yellow", state, { validateStream: false });
  }
}
