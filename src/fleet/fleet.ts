/**
 * `shishi status|flush|pause|resume|stop`: which way a command to a fleet takes (at once, rehearsed,
 * after a question, a batch at a time, or again and again), what it came to in words, and the exit code
 * that follows from it.
 */

import type { Command } from "../contracts.ts";
import { sleep } from "../kernel/time.ts";
import type { Wire } from "../kernel/nats.ts";
import { type Answer, subjectFor } from "../remote/protocol.ts";
import {
  collectors,
  createRegion,
  drainBar,
  progressLine,
  type Region,
  seconds,
  statusTable,
} from "./screen.ts";
import { watchStatus } from "./watch.ts";
import {
  ask,
  byName,
  type FleetIo,
  type Outcome,
  pollStatus,
  reach,
  type Roll,
  succeeded,
  warnOfNamesakes,
} from "./talk.ts";

/**
 * @returns the exit code: 0 when at least one collector answered and all that answered have obeyed to
 * the end, 1 otherwise, 2 when the target cannot be one.
 */
export async function controlFleet(command: Command, io: FleetIo): Promise<number> {
  const where = subjectFor(io.subject, command, io.target);
  if (!where.ok) {
    io.err(where.problem);
    return 2;
  }
  if (command === "status" && io.watch) return await watchStatus(where.value.subject, io);
  const wire = await reach(io);
  if (wire === null) return 1;
  const end = () => void wire.close();
  io.signal?.addEventListener("abort", end, { once: true });
  try {
    if (io.dryRun) return await rehearse(wire, command, io);
    if (command === "stop") return await stop(wire, io);
    return await carryOut(wire, command, io);
  } finally {
    io.signal?.removeEventListener("abort", end);
    await wire.close();
  }
}

/** All that the target names, at once. */
async function carryOut(wire: Wire, command: Command, io: FleetIo): Promise<number> {
  const drains = new Drains(wire, command, io);
  const outcome = await ask(wire, command, io.target, drains.io, (answer) => drains.add(answer));
  drains.end();
  return conclude(outcome, drains, io);
}

async function stop(wire: Wire, io: FleetIo): Promise<number> {
  const confirm = io.target === "all" ? io.confirm ?? null : null;
  const roll = io.roll ?? null;
  if (confirm === null && roll === null) return await carryOut(wire, "stop", io);
  const { answers, well } = await survey(wire, { ...io, json: false });
  if (answers.length === 0) return 1;
  if (confirm !== null) {
    const groups = new Set(answers.map(({ group }) => group)).size;
    const among = groups > 1 ? ` in ${groups} groups` : "";
    const yes = await confirm(`Stop all: ${collectors(answers.length)}${among}? [y/N] `);
    if (!yes) {
      io.out("nothing stopped");
      return 1;
    }
  }
  if (roll === null) return await carryOut(wire, "stop", io);
  warnOfNamesakes(answers, io);
  const code = await rollingStop(wire, answers, roll, io);
  return well ? code : 1;
}

/** Says which collectors would obey; sends nothing but the question for their status. */
async function rehearse(wire: Wire, command: Command, io: FleetIo): Promise<number> {
  const { answers, well } = await survey(wire, io);
  if (answers.length === 0) return 1;
  warnOfNamesakes(answers, io);
  if (!io.json) {
    for (const line of statusTable(answers, io.color === true)) io.out(line);
    const plan = command === "stop" && io.roll ? rollPlan(answers, io.roll) : [];
    for (const line of plan) io.out(line);
    io.out(`${collectors(answers.length)} would ${command}; nothing was sent but status`);
  }
  return well ? 0 : 1;
}

/** The collectors that listen to the target and obey; says on `err` what kept others from it. */
async function survey(
  wire: Wire,
  io: FleetIo,
): Promise<{ readonly answers: readonly Answer[]; readonly well: boolean }> {
  const outcome = await ask(wire, "status", io.target, io);
  const { troubled } = tellTroubles(outcome, null, io);
  const answers = outcome.end === "lost" ? [] : outcome.answers.filter(({ ok }) => ok);
  return { answers, well: !troubled };
}

const MAX_NAMED = 1_000;

/**
 * `shishi stop --batch N`: a few collectors at a time, each by its own name, the next when these have
 * stopped. Whatever goes wrong with one of them ends the rolling stop, so that a mistake costs one batch and
 * never the fleet; the collectors that did not get the command are named.
 * @returns the exit code.
 */
async function rollingStop(
  wire: Wire,
  answers: readonly Answer[],
  roll: Roll,
  io: FleetIo,
): Promise<number> {
  const batches = batchesOf(answers, roll.size);
  const say = (line: string) => (io.json ? undefined : io.out(line));
  const lost = new AbortController();
  void wire.closed.then(() => lost.abort());
  let stopped = 0;
  for (const [at, batch] of batches.entries()) {
    if (at > 0 && roll.pauseMs > 0) {
      say(`waiting ${seconds(roll.pauseMs)} before the next batch`);
      // Without a connection no command can be sent.
      await sleep(io.clock, roll.pauseMs, lost.signal);
    }
    say(`batch ${at + 1} of ${batches.length}: ${batch.join(", ")}`);
    const { done, well } = await stopBatch(wire, batch, io);
    stopped += done;
    if (well) continue;
    const left = batches.slice(at + 1).flat();
    io.err(
      `the rolling stop ends at batch ${at + 1} of ${batches.length}; ` +
        (left.length === 0 ? "it was the last" : `these did not get the command: ${list(left)}`),
    );
    say(`${stopped} of ${answers.length} stopped`);
    return 1;
  }
  say(`${stopped} of ${answers.length} stopped`);
  return 0;
}

async function stopBatch(
  wire: Wire,
  names: readonly string[],
  io: FleetIo,
): Promise<{ readonly done: number; readonly well: boolean }> {
  const drains = new Drains(wire, "stop", io);
  const outcomes = await Promise.all(
    names.map((name) => ask(wire, "stop", name, drains.io, (answer) => drains.add(answer))),
  );
  drains.end();
  let stopped = 0;
  let well = true;
  for (const outcome of outcomes) {
    const { done, troubled } = tellTroubles(outcome, drains, io);
    stopped += done;
    // A collector that lost rows has stopped, and still the next ones may do better.
    if (troubled || outcome.answers.some(({ ledger }) => ledger.lost > 0)) well = false;
  }
  return { done: stopped, well };
}

/** Names in the order of the answers, so many at a time; namesakes stop together, having one name. */
export function batchesOf(
  answers: readonly Pick<Answer, "name">[],
  size: number,
): readonly string[][] {
  const names = [...new Set(answers.map(({ name }) => name))];
  const batches: string[][] = [];
  for (let at = 0; at < names.length; at += size) batches.push(names.slice(at, at + size));
  return batches;
}

/** What a roll over these would do, one line a batch. */
function rollPlan(answers: readonly Answer[], roll: Roll): string[] {
  const batches = batchesOf(answers, roll.size);
  return batches.map((batch, at) =>
    `batch ${at + 1} of ${batches.length}: ${collectors(batch.length)}: ${batch.join(", ")}`
  );
}

function list(names: readonly string[]): string {
  const more = names.length - MAX_NAMED;
  return names.slice(0, MAX_NAMED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

const PAST: Readonly<Record<Command, string>> = {
  status: "answered",
  flush: "flushed",
  pause: "paused",
  resume: "resumed",
  stop: "stopped",
};

/**
 * Says the result on `out`, and on `err` what went wrong.
 * @returns the exit code: 0 when at least one answered and all that answered have obeyed to the end.
 */
function conclude(outcome: Outcome, drains: Drains, io: FleetIo): number {
  const { command, answers } = outcome;
  if (!io.json && command === "status" && answers.length > 0) {
    for (const line of statusTable(answers, io.color === true)) io.out(line);
  }
  const { done, troubled } = tellTroubles(outcome, drains, io);
  if (answers.length === 0 || outcome.end === "lost") return 1;
  warnOfNamesakes(answers, io);
  if (!io.json && command !== "status") io.out(`${done} of ${answers.length} ${PAST[command]}`);
  return troubled ? 1 : 0;
}

/**
 * Says on `err` what went wrong with one call, whatever it was.
 * @returns how many obeyed to the end, and whether anything kept one from it.
 */
function tellTroubles(
  outcome: Outcome,
  drains: Drains | null,
  io: FleetIo,
): { readonly done: number; readonly troubled: boolean } {
  const { command, end, answers, unfinished, refused } = outcome;
  const silence = whyNoAnswer(outcome, io);
  if (silence !== null) {
    io.err(silence);
    return { done: 0, troubled: true };
  }
  const done = answers.filter(succeeded).length;
  if (end === "lost") {
    const so = `${done} of ${answers.length} ${PAST[command]}`;
    io.err(
      io.signal?.aborted
        ? `interrupted: ${so}; those that got the command go on with it`
        : `connection to NATS lost (${outcome.why}): ${so}`,
    );
  } else {
    for (const late of unfinished) {
      const held = drains?.heldBy(late) ?? null;
      const rows = held === null
        ? `${late.ledger.held} rows held when it began`
        : `${held} rows held when last asked`;
      io.err(`${late.name} is not done after ${seconds(io.timeoutMs)} (${late.state}, ${rows})`);
    }
  }
  if (command === "stop") {
    for (const { name, ledger } of answers) {
      if (ledger.lost > 0) io.err(`${name} lost ${ledger.lost} rows: see its log`);
    }
  }
  return { done, troubled: refused > 0 || done < answers.length || end === "lost" };
}

/** Null where there was an answer. */
function whyNoAnswer(
  { end, subject, why, answers, waitedMs }: Outcome,
  io: FleetIo,
): string | null {
  const doubt = "is nats-url right, does the target exist?";
  if (end === "unheard") return `no collector listens on ${subject}: ${doubt}`;
  if (end === "silent") {
    return `no collector answered on ${subject} within ${seconds(waitedMs)}: ${doubt}`;
  }
  if (end !== "lost" || answers.length > 0) return null;
  return io.signal?.aborted ? "interrupted" : `connection to NATS lost (${why})`;
}

// ── While it lasts: on a terminal every collector has a line that is drawn over in place, elsewhere each
// change of state is a line of its own, and so is now and then what a collector that takes long still holds.

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

class Drains {
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
