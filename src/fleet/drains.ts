/**
 * What a command does to each collector, while it lasts: on a terminal every collector has a line that
 * is drawn over in place, elsewhere each change of state is a line of its own, and so is now and then
 * what a collector that takes long still holds.
 */

import type { Command } from "../contracts.ts";
import type { Answer } from "../remote/answer.ts";
import { sorted, succeeded } from "../remote/caller.ts";
import { type Heard, pollStatus } from "../remote/poller.ts";
import { subjectFor } from "../remote/subjects.ts";
import { drainBar, progressLine } from "../remote/table.ts";
import type { Wire } from "../remote/wire.ts";
import { collectors } from "./fleet.ts";
import type { RemoteIo } from "./remote.ts";
import { createRegion } from "./screen.ts";

export interface Drains {
  /** An answer to the command itself. @param instance which process gave it, or `""`. */
  heard(answer: Answer, instance: string): void;
  /** Rows that this collector held when it was last asked; null: never asked since. */
  heldBy(answer: Answer): number | null;
  /** Lets `print` write lines of its own. */
  above(print: () => void): void;
  /** Ends the display; what became of each stays to be read. */
  end(): void;
}

interface Line {
  last: Answer;
  /** Collectors of this name that have not finished. */
  open: number;
  /** The most that it was seen to hold. */
  mostHeld: number;
  /** Held when last asked, and when last written, off a terminal. */
  polledHeld: number | null;
  writtenHeld: number;
  writtenMs: number;
}

const POLL_MS = 1_000;
const DRAW_MS = 100;
/** Off a terminal: one collector that drains is told of this often at most, and so many at a time. */
const WRITE_MS = 5_000;
const WRITTEN_AT_ONCE = 10;

const name = ({ group, id }: Answer) => `${group}.${id}`;
/** Namesakes have a line each where it is known which is which. */
const keyOf = (answer: Answer, instance: string) => `${name(answer)} ${instance}`;

/** Asks for the status of `io.target` while something drains. */
export function showDrains(wire: Wire, command: Command, io: RemoteIo): Drains {
  const { clock, out } = io;
  const color = io.color === true;
  const lines = new Map<string, Line>();
  const region = io.screen ? createRegion(io.screen, out) : null;
  let cancelDraw: (() => void) | null = null;
  let stopPolling: (() => void) | null = null;

  return {
    heard(answer, instance) {
      const line = lineOf(answer, instance);
      if (answer.state === "draining" || answer.state === "flushing") {
        line.open++;
        startPolling();
      } else if (line.open > 0) line.open--;
      line.last = answer;
      if (region !== null) redrawSoon();
      else if (answer.ok) write(line);
    },
    heldBy(late) {
      const namesakes = [...lines.values()].filter(({ open, last }) =>
        open > 0 && name(last) === name(late)
      );
      return namesakes.length === 1 ? namesakes[0]?.polledHeld ?? null : null;
    },
    above: (print) => (region === null ? print() : region.above(print)),
    end() {
      stopPolling?.();
      cancelDraw?.();
      if (region === null) return;
      region.clear();
      for (const { last } of ordered()) out(progressLine(last, color));
    },
  };

  function lineOf(answer: Answer, instance: string): Line {
    const known = lines.get(keyOf(answer, instance));
    if (known !== undefined) return known;
    const held = answer.ledger.held;
    const line = {
      last: answer,
      open: 0,
      mostHeld: held,
      polledHeld: null,
      writtenHeld: held,
      writtenMs: 0,
    };
    lines.set(keyOf(answer, instance), line);
    return line;
  }

  function write(line: Line): void {
    line.writtenMs = clock.monotonicMs();
    line.writtenHeld = line.last.ledger.held;
    out(progressLine(line.last, color));
  }

  function startPolling(): void {
    const where = subjectFor(io.subject, "status", io.target);
    if (stopPolling !== null || "problem" in where) return;
    const poll = { subject: where.subject, secret: io.controlSecret ?? null, everyMs: POLL_MS };
    // Most are done sooner than that, and then nobody is asked.
    stopPolling = clock.after(POLL_MS, () => {
      stopPolling = pollStatus(wire, poll, clock, { onAnswer: polled, onRound: writeLong });
    });
  }

  function polled(answer: Answer, { instance }: Heard): void {
    const line = lines.get(keyOf(answer, instance));
    if (line === undefined || line.open === 0 || !answer.ok) return;
    line.last = { ...line.last, ledger: answer.ledger };
    line.polledHeld = answer.ledger.held;
    line.mostHeld = Math.max(line.mostHeld, answer.ledger.held);
    redrawSoon();
  }

  /** Off a terminal: those that hold the most, and how much the rest does. */
  function writeLong(): void {
    if (region !== null) return;
    const nowMs = clock.monotonicMs();
    const due = [...lines.values()].filter(({ open, last, writtenHeld, writtenMs }) =>
      open > 0 && last.ledger.held !== writtenHeld && nowMs - writtenMs >= WRITE_MS
    ).sort((a, b) => b.last.ledger.held - a.last.ledger.held);
    for (const line of due.slice(0, WRITTEN_AT_ONCE)) write(line);
    const rest = due.slice(WRITTEN_AT_ONCE);
    if (rest.length === 0) return;
    for (const line of rest) line.writtenMs = nowMs;
    out(`${collectors(rest.length)} more: held ${heldIn(rest)}`);
  }

  function redrawSoon(): void {
    if (region === null || cancelDraw !== null) return;
    cancelDraw = clock.after(DRAW_MS, () => {
      cancelDraw = null;
      region.draw(frame(io.screen?.rows() ?? 0));
    });
  }

  /** Where not all of them fit, those that are not done come first. */
  function frame(rows: number): string[] {
    const all = ordered();
    const open = all.filter((line) => line.open > 0);
    const shown = all.length + 1 < rows ? all : [...open, ...all.filter((line) => line.open === 0)];
    const done = all.filter(({ last, open }) => open === 0 && succeeded(last)).length;
    const doing = command === "flush" ? "flushing" : "draining";
    const sum = `${done} done, ${open.length} ${doing}, ${heldIn(open)} rows held`;
    const width = all.reduce((most, { last }) => Math.max(most, name(last).length), 0);
    return [
      ...shown.map(({ last, mostHeld, open }) => {
        const bar = drainBar(open > 0 ? last.ledger.held : 0, mostHeld);
        return `${progressLine(last, color, width)}  ${bar}`;
      }),
      sum,
    ];
  }

  function ordered(): Line[] {
    return sorted([...lines.values()].map((line) => ({ ...line.last, line }))).map(({ line }) =>
      line
    );
  }
}

function heldIn(lines: readonly Line[]): number {
  return lines.reduce((sum, { last }) => sum + last.ledger.held, 0);
}
