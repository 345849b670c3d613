/**
 * What a command does to each collector, while it lasts: on a terminal every collector has a line that
 * is drawn over in place, elsewhere each change of state is a line of its own, and so is now and then
 * what a collector that takes long still holds.
 */

import type { Command } from "../contracts.ts";
import type { Wire } from "../kernel/nats.ts";
import { type Answer, subjectFor } from "../remote/protocol.ts";
import { collectors, createRegion, drainBar, progressLine, type Region } from "./screen.ts";
import { byName, type FleetIo, pollStatus, succeeded } from "./talk.ts";

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
/** Off a terminal: one collector that drains has a line this often at most, and so many of them at a time. */
const WRITE_MS = 5_000;
const WRITTEN_AT_ONCE = 10;

/** Namesakes have a line each where it is known which is which. */
const keyOf = ({ name, instance }: Answer) => `${name} ${instance}`;

export class Drains {
  /** As the `io` that was given; problems do not disturb the display. */
  readonly io: FleetIo;
  readonly #wire: Wire;
  readonly #command: Command;
  readonly #color: boolean;
  /** Answers that are shown by other means. */
  readonly #silent: boolean;
  readonly #region: Region | null;
  readonly #lines = new Map<string, Line>();
  #cancelDraw: (() => void) | null = null;
  #stopPolling: (() => void) | null = null;

  /** Asks for the status of `io.target` while something drains; shows nothing of `status` and as JSON. */
  constructor(wire: Wire, command: Command, io: FleetIo) {
    this.#wire = wire;
    this.#command = command;
    this.#color = io.color === true;
    this.#silent = io.json || command === "status";
    const region = io.screen && !this.#silent ? createRegion(io.screen, io.out) : null;
    this.#region = region;
    this.io = region === null ? io : { ...io, err: (line) => region.above(() => io.err(line)) };
  }

  /** An answer to the command itself. */
  add(answer: Answer): void {
    if (this.#silent) return;
    const line = this.#lineOf(answer);
    if (answer.state === "draining" || answer.state === "flushing") {
      line.open++;
      this.#startPolling();
    } else if (line.open > 0) line.open--;
    line.last = answer;
    if (this.#region !== null) this.#redrawSoon(this.#region);
    else if (answer.ok) this.#write(line);
  }

  /** Rows that this collector held when it was last asked; null: never asked since. */
  heldBy(late: Answer): number | null {
    const namesakes = [...this.#lines.values()].filter(({ open, last }) =>
      open > 0 && last.name === late.name
    );
    return namesakes.length === 1 ? namesakes[0]?.polledHeld ?? null : null;
  }

  /** Ends the display; what became of each stays to be read. */
  end(): void {
    this.#stopPolling?.();
    this.#cancelDraw?.();
    if (this.#region === null) return;
    this.#region.clear();
    for (const { last } of this.#ordered()) this.io.out(progressLine(last, this.#color));
  }

  #lineOf(answer: Answer): Line {
    const known = this.#lines.get(keyOf(answer));
    if (known !== undefined) return known;
    const { held } = answer.ledger;
    const line = {
      last: answer,
      open: 0,
      mostHeld: held,
      polledHeld: null,
      writtenHeld: held,
      writtenMs: 0,
    };
    this.#lines.set(keyOf(answer), line);
    return line;
  }

  #write(line: Line): void {
    line.writtenMs = this.io.clock.monotonicMs();
    line.writtenHeld = line.last.ledger.held;
    this.io.out(progressLine(line.last, this.#color));
  }

  #startPolling(): void {
    const where = subjectFor(this.io.subject, "status", this.io.target);
    if (this.#stopPolling !== null || !where.ok) return;
    const { subject } = where.value;
    // Most are done sooner than that, and then none is asked.
    this.#stopPolling = this.io.clock.after(POLL_MS, () => {
      this.#stopPolling = pollStatus(this.#wire, subject, POLL_MS, this.io, {
        answer: (answer) => this.#onPolled(answer),
        round: () => this.#writeLong(),
      });
    });
  }

  #onPolled(answer: Answer): void {
    const line = this.#lines.get(keyOf(answer));
    if (line === undefined || line.open === 0 || !answer.ok) return;
    line.last = { ...line.last, ledger: answer.ledger };
    line.polledHeld = answer.ledger.held;
    line.mostHeld = Math.max(line.mostHeld, answer.ledger.held);
    if (this.#region !== null) this.#redrawSoon(this.#region);
  }

  /** Off a terminal: those that hold the most, and how much the rest does. */
  #writeLong(): void {
    if (this.#region !== null) return;
    const nowMs = this.io.clock.monotonicMs();
    const due = [...this.#lines.values()].filter(({ open, last, writtenHeld, writtenMs }) =>
      open > 0 && last.ledger.held !== writtenHeld && nowMs - writtenMs >= WRITE_MS
    ).sort((a, b) => b.last.ledger.held - a.last.ledger.held);
    for (const line of due.slice(0, WRITTEN_AT_ONCE)) this.#write(line);
    const rest = due.slice(WRITTEN_AT_ONCE);
    if (rest.length === 0) return;
    for (const line of rest) line.writtenMs = nowMs;
    this.io.out(`${collectors(rest.length)} more: held ${heldIn(rest)}`);
  }

  #redrawSoon(region: Region): void {
    this.#cancelDraw ??= this.io.clock.after(DRAW_MS, () => {
      this.#cancelDraw = null;
      region.draw(this.#frame(this.io.screen?.rows() ?? 0));
    });
  }

  /** Where not all of them fit, those that are not done come first. */
  #frame(rows: number): string[] {
    const all = this.#ordered();
    const open = all.filter((line) => line.open > 0);
    const shown = all.length + 1 < rows ? all : [...open, ...all.filter((line) => line.open === 0)];
    const done = all.filter(({ last, open }) => open === 0 && succeeded(last)).length;
    const doing = this.#command === "flush" ? "flushing" : "draining";
    const sum = `${done} done, ${open.length} ${doing}, ${heldIn(open)} rows held`;
    const width = all.reduce((most, { last }) => Math.max(most, last.name.length), 0);
    return [
      ...shown.map(({ last, mostHeld, open }) => {
        const bar = drainBar(open > 0 ? last.ledger.held : 0, mostHeld);
        return `${progressLine(last, this.#color, width)}  ${bar}`;
      }),
      sum,
    ];
  }

  #ordered(): Line[] {
    return [...this.#lines.values()].sort((a, b) => byName(a.last, b.last));
  }
}

function heldIn(lines: readonly Line[]): number {
  return lines.reduce((sum, { last }) => sum + last.ledger.held, 0);
}
