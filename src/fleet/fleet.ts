/**
 * One command to one target and what came back, told as it comes: the step that every way to command
 * a fleet is made of. Says every problem on `err`; who answered is the caller's to show.
 */

import type { Command } from "../contracts.ts";
import type { Answer } from "../remote/answer.ts";
import { call, type CallResult } from "../remote/caller.ts";
import { subjectFor } from "../remote/subjects.ts";
import type { Wire } from "../remote/wire.ts";
import type { RemoteIo } from "./remote.ts";

/** What a call came to. */
export interface Outcome extends CallResult {
  readonly command: Command;
  readonly subject: string;
  /** Answers that said no. */
  readonly refused: number;
  readonly waitedMs: number;
}

const WINDOW_MS = 2_000;
/** One name, one collector: only a second host of the same name could still answer. */
const SINGLE_WINDOW_MS = 250;
const MAX_WARNINGS = 10;
const MAX_NAMED = 10;

/**
 * Sends `command` to `target`, which `subjectFor` has accepted.
 * @param onAnswer sees what came, as it comes; what did not obey has been said already.
 */
export async function ask(
  wire: Wire,
  command: Command,
  target: string,
  io: RemoteIo,
  onAnswer: (answer: Answer, instance: string) => void = () => {},
): Promise<Outcome> {
  const where = subjectFor(io.subject, command, target);
  if ("problem" in where) throw new Error(where.problem);
  const { subject, single } = where;
  const warn = fewWarnings(io);
  let refused = 0;
  const startedMs = io.clock.monotonicMs();
  const result = await call(
    wire,
    {
      command,
      subject,
      secret: io.controlSecret ?? null,
      timeoutMs: io.timeoutMs,
      windowMs: WINDOW_MS,
      ...(single ? { windowAfterFirstMs: SINGLE_WINDOW_MS } : {}),
    },
    io.clock,
    (answer, payload, instance) => {
      if (!answer.ok) {
        refused++;
        io.err(`${answer.group}.${answer.id}: ${answer.error}`);
      }
      if (io.json) showJson(payload, io, warn);
      onAnswer(answer, instance);
    },
    warn,
  );
  const waitedMs = io.clock.monotonicMs() - startedMs;
  return { ...result, command, subject, refused, waitedMs };
}

/** One line of JSON; nothing in it moves a terminal's cursor or is taken for another character. */
export function showJson(payload: Uint8Array, io: RemoteIo, warn: (what: string) => void): void {
  let text: string;
  try {
    text = JSON.stringify(JSON.parse(new TextDecoder().decode(payload)));
  } catch {
    return warn("an answer is ignored: nested too deep to be shown");
  }
  io.out(text.replace(/[\p{C}\u2028\u2029]/gu, escaped));
}

function escaped(character: string): string {
  // By code units: what stands beyond 16 bits is two of them.
  return character.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .join("");
}

/** Says the first few; one line more says that there are others. */
export function fewWarnings(io: RemoteIo): (what: string) => void {
  let warnings = 0;
  return (what) => {
    if (warnings++ < MAX_WARNINGS) io.err(what);
    else if (warnings === MAX_WARNINGS + 1) io.err("further warnings are left out");
  };
}

/** Whether anybody answered at all; says on `err` why not. */
export function wasHeard(outcome: Outcome, io: RemoteIo): boolean {
  const { end, subject, why, answers } = outcome;
  const doubt = "is nats-url right, does the target exist?";
  if (end === "nobody") io.err(`no collector listens on ${subject}: ${doubt}`);
  else if (end === "silent") {
    io.err(`no collector answered on ${subject} within ${seconds(outcome.waitedMs)}: ${doubt}`);
  } else if (end === "lost" && answers.length === 0) {
    io.err(io.signal?.aborted ? "interrupted" : `connection to NATS lost (${why})`);
  } else return true;
  return false;
}

/** Two hosts that were given the same group and id obey alike, and nobody can address one of them. */
export function warnOfNamesakes(answers: readonly Answer[], io: RemoteIo): void {
  const counts = new Map<string, number>();
  for (const { group, id } of answers) {
    counts.set(`${group}.${id}`, (counts.get(`${group}.${id}`) ?? 0) + 1);
  }
  const shared = [...counts].filter(([, count]) => count > 1);
  for (const [name, count] of shared.slice(0, MAX_NAMED)) {
    io.err(`${name} is the name of ${count} collectors: each needs an id of its own`);
  }
  const more = shared.length - MAX_NAMED;
  if (more > 0) io.err(`${more} further names are shared by several collectors`);
}

/** `1.5 s`. */
export function seconds(ms: number): string {
  return `${Number((ms / 1000).toFixed(1))} s`;
}

/** `1 collector`, `2 collectors`. */
export function collectors(count: number): string {
  return count === 1 ? "1 collector" : `${count} collectors`;
}
