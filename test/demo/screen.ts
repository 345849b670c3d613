/** What the demo shows: one line of progress, and aligned tables. */
import process from "node:process";
import { styleText } from "node:util";
import type { Section } from "./figures.ts";

type Style = Parameters<typeof styleText>[0];

/** Coloured on a terminal only; respects NO_COLOR. */
export function paint(style: Style, text: string): string {
  return isTerminal() && !process.env.NO_COLOR ? styleText(style, text) : text;
}

export interface Progress {
  at(done: number): void;
  end(note: string): void;
}

/**
 * A bar that redraws its line on a terminal; elsewhere one line at the end. A spinner that takes the
 * keyboard would turn Ctrl-C into an exit without cleaning up.
 */
export function progress(label: string, total: number): Progress {
  const width = 28;
  const line = (mark: string, done: number, note: string) => {
    const full = total === 0 ? width : Math.round(width * done / total);
    const bar = paint("cyan", "━".repeat(full)) + paint("gray", "━".repeat(width - full));
    return `${mark} ${label.padEnd(LABEL)} ${bar}  ${note}`;
  };
  const count = (done: number) =>
    `${done.toLocaleString("en-US")} of ${total.toLocaleString("en-US")} rows`;
  return {
    at: (done) => {
      if (isTerminal()) process.stdout.write(`\r\x1b[K${line("◌", done, count(done))}`);
    },
    end: (note) => {
      const start = isTerminal() ? "\r\x1b[K" : "";
      process.stdout.write(`${start}${line(paint("green", "✓"), total, note)}\n`);
    },
  };
}

/** A step that is done. */
export function step(label: string, note: string): void {
  process.stdout.write(`${paint("green", "✓")} ${label.padEnd(LABEL)} ${paint("gray", note)}\n`);
}

export function say(text = ""): void {
  process.stdout.write(`${text}\n`);
}

/** One table: a heading over each section, one ✓ or ✗ each figure. */
export function table(sections: readonly Section[]): string {
  const all = sections.flatMap(({ figures }) => figures);
  const widest = (texts: string[]) => Math.max(...texts.map((text) => text.length));
  const label = widest([
    ...all.map((figure) => clip(figure.label)),
    ...sections.map(({ title }) => title),
  ]);
  const left = widest([...all.map(({ clickhouse }) => clickhouse), "ClickHouse"]);
  const right = widest([...all.map(({ files }) => files), "files"]);
  const row = (name: string, one: string, two: string) =>
    `${name.padEnd(label)}   ${one.padStart(left)}   ${two.padStart(right)}`;
  return sections.flatMap(({ title, figures }) => [
    "",
    paint("bold", row(title, "ClickHouse", "files")),
    ...figures.map((figure) => {
      const same = figure.clickhouse === figure.files;
      const line = row(clip(figure.label), figure.clickhouse, figure.files);
      return `${line}  ${same ? paint("green", "✓") : paint("red", "✗")}`;
    }),
  ]).join("\n");
}

const LABEL = 24;
const LONGEST = 44;

function clip(text: string): string {
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST - 1)}…`;
}

function isTerminal(): boolean {
  return process.stdout.isTTY === true;
}
