/** What a command came to, said in words, and the exit code that follows from it. */

import type { Command } from "../contracts.ts";
import { succeeded } from "../remote/caller.ts";
import { statusTable } from "../remote/table.ts";
import type { Drains } from "./drains.ts";
import { type Outcome, seconds, warnOfNamesakes, wasHeard } from "./fleet.ts";
import type { RemoteIo } from "./remote.ts";

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
export function conclude(outcome: Outcome, drains: Drains | null, io: RemoteIo): number {
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
export function tellTroubles(
  outcome: Outcome,
  drains: Drains | null,
  io: RemoteIo,
): { readonly done: number; readonly troubled: boolean } {
  const { command, end, answers, unfinished, refused } = outcome;
  if (!wasHeard(outcome, io)) return { done: 0, troubled: true };
  const done = answers.filter(succeeded).length;
  if (end === "lost") {
    const so = `${done} of ${answers.length} ${PAST[command]}`;
    io.err(
      io.signal?.aborted
        ? `interrupted: ${so}; what was told to ${command} goes on with it`
        : `connection to NATS lost (${outcome.why}): ${so}`,
    );
  } else {
    for (const late of unfinished) {
      const { group, id, state, ledger } = late;
      const held = drains?.heldBy(late) ?? null;
      const rows = held === null
        ? `${ledger.held} rows held when it began`
        : `${held} rows held when last asked`;
      io.err(`${group}.${id} is not done after ${seconds(io.timeoutMs)} (${state}, ${rows})`);
    }
  }
  if (command === "stop") {
    for (const { group, id, ledger } of answers) {
      if (ledger.lost > 0) io.err(`${group}.${id} lost ${ledger.lost} rows: see its log`);
    }
  }
  return { done, troubled: refused > 0 || done < answers.length || end === "lost" };
}
