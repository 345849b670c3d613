/**
 * `shishi status|flush|pause|resume|stop`: speaks to running collectors over NATS and tells what they
 * answered. This file decides which way a command takes: at once, only rehearsed, after a question, a
 * batch at a time, or again and again.
 */

import type { Clock, Command } from "../contracts.ts";
import type { Answer } from "../remote/answer.ts";
import type { dial } from "../remote/nats.ts";
import { subjectFor } from "../remote/subjects.ts";
import { statusTable } from "../remote/table.ts";
import type { NatsAuth, OpenSocket, Wire } from "../remote/wire.ts";
import { conclude, tellTroubles } from "./conclude.ts";
import { showDrains } from "./drains.ts";
import { ask, collectors, warnOfNamesakes } from "./fleet.ts";
import { reach } from "./reach.ts";
import { type Roll, rollingStop, rollPlan } from "./roll.ts";
import type { Screen } from "./screen.ts";
import { watchFleet } from "./watch.ts";

export interface RemoteIo {
  /** `ws://` or `wss://`; the first that answers is used. */
  readonly servers: readonly string[];
  readonly auth: NatsAuth;
  /** Signs the command; null: it goes unsigned. */
  readonly controlSecret?: string | null;
  /** Prefix of the control subjects. */
  readonly subject: string;
  /** `all`, `GROUP` or `GROUP.ID`. */
  readonly target: string;
  /** Of the whole command; of a batch where it goes by batches. */
  readonly timeoutMs: number;
  /** One line of JSON an answer instead of text. */
  readonly json: boolean;
  /** `status`: again and again. */
  readonly watch?: boolean;
  /** Only says who would obey. */
  readonly dryRun?: boolean;
  /** `stop`: a few at a time. */
  readonly roll?: Roll | null;
  /** Asks somebody before everything is stopped; null where nobody is to be asked. */
  readonly confirm?: ((question: string) => Promise<boolean>) | null;
  readonly clock: Clock;
  /** True only when `out` is a terminal that wants colour. */
  readonly color?: boolean;
  /** Where `out` is a terminal: lines may be drawn over. */
  readonly screen?: Screen | null;
  /** Writes its text and a newline. */
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
  readonly openSocket?: OpenSocket;
  /** Opens a connection; tests bring their own. */
  readonly dialer?: typeof dial;
  /** Ends the command early. */
  readonly signal?: AbortSignal;
}

/**
 * @returns the exit code: 0 when at least one collector answered and all that answered have obeyed to
 * the end, 1 otherwise, 2 when the target cannot be one.
 */
export async function runRemote(command: Command, io: RemoteIo): Promise<number> {
  if (command === "status" && io.watch) return await watchFleet(io);
  const where = subjectFor(io.subject, command, io.target);
  if ("problem" in where) {
    io.err(where.problem);
    return 2;
  }
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
async function carryOut(wire: Wire, command: Command, io: RemoteIo): Promise<number> {
  const drains = io.json || command === "status" ? null : showDrains(wire, command, io);
  const told = drains === null
    ? io
    : { ...io, err: (line: string) => drains.above(() => io.err(line)) };
  const outcome = await ask(wire, command, io.target, told, (...heard) => drains?.heard(...heard));
  drains?.end();
  return conclude(outcome, drains, io);
}

async function stop(wire: Wire, io: RemoteIo): Promise<number> {
  const confirm = io.target === "all" ? io.confirm ?? null : null;
  const roll = io.roll ?? null;
  if (confirm === null && roll === null) return await carryOut(wire, "stop", io);
  const { found, well } = await survey(wire, { ...io, json: false });
  if (found.length === 0) return 1;
  if (confirm !== null) {
    const groups = new Set(found.map(({ group }) => group)).size;
    const among = groups > 1 ? ` in ${groups} groups` : "";
    const yes = await confirm(`Stop all: ${collectors(found.length)}${among}? [y/N] `);
    if (!yes) {
      io.out("nothing stopped");
      return 1;
    }
  }
  if (roll === null) return await carryOut(wire, "stop", io);
  warnOfNamesakes(found, io);
  const code = await rollingStop(wire, found, roll, io);
  return well ? code : 1;
}

/** Says who would obey; sends nothing but the question for their status. */
async function rehearse(wire: Wire, command: Command, io: RemoteIo): Promise<number> {
  const { found, well } = await survey(wire, io);
  if (found.length === 0) return 1;
  warnOfNamesakes(found, io);
  if (!io.json) {
    for (const line of statusTable(found, io.color === true)) io.out(line);
    const plan = command === "stop" && io.roll ? rollPlan(found, io.roll) : [];
    for (const line of plan) io.out(line);
    io.out(`${collectors(found.length)} would ${command}; nothing was sent but status`);
  }
  return well ? 0 : 1;
}

/** Who listens to the target and obeys; says on `err` what kept others from it. */
async function survey(
  wire: Wire,
  io: RemoteIo,
): Promise<{ readonly found: readonly Answer[]; readonly well: boolean }> {
  const outcome = await ask(wire, "status", io.target, io);
  const { troubled } = tellTroubles(outcome, null, io);
  const found = outcome.end === "lost" ? [] : outcome.answers.filter(({ ok }) => ok);
  return { found, well: !troubled };
}
