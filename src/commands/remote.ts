/**
 * `shishi status|flush|pause|resume|stop`: speaks to running collectors over NATS and tells what they
 * answered, one line a state change, so that a terminal and a log file can both be read.
 */

import type { Clock, Command } from "../contracts.ts";
import type { Answer } from "../remote/answer.ts";
import { call, type CallResult, succeeded } from "../remote/caller.ts";
import { dial } from "../remote/nats.ts";
import { subjectFor } from "../remote/subjects.ts";
import { progressLine, statusTable } from "../remote/table.ts";
import type { NatsAuth, OpenSocket, Wire } from "../remote/wire.ts";

/** What `--help` of each of these commands says about waiting. */
export const WAITING_HELP =
  "The command travels over NATS; without --target every collector obeys. Waits for answers until 2 s have passed without a further collector answering (one named as " +
  "GROUP.ID: 250 ms), and for those that took a stop or flush until they are done, but never longer " +
  "than --timeout.";

export interface RemoteIo {
  /** `ws://` or `wss://`; the first that answers is used. */
  readonly servers: readonly string[];
  readonly auth: NatsAuth;
  /** Prefix of the control subjects. */
  readonly subject: string;
  /** `all`, `GROUP` or `GROUP.ID`. */
  readonly target: string;
  readonly timeoutMs: number;
  /** One line of JSON an answer instead of text. */
  readonly json: boolean;
  readonly clock: Clock;
  /** True only when `out` is a terminal that wants colour. */
  readonly color?: boolean;
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
  readonly openSocket?: OpenSocket;
}

const WINDOW_MS = 2_000;
/** One name, one collector: only a second host of the same name could still answer. */
const SINGLE_WINDOW_MS = 250;
const DIAL_TIMEOUT_MS = 5_000;
const MAX_WARNINGS = 10;

const PAST: Readonly<Record<Command, string>> = {
  status: "answered",
  flush: "flushed",
  pause: "paused",
  resume: "resumed",
  stop: "stopped",
};

/**
 * @returns the exit code: 0 when at least one collector answered and all that answered have obeyed to
 * the end, 1 otherwise, 2 when the target cannot be one.
 */
export async function runRemote(command: Command, io: RemoteIo): Promise<number> {
  const where = subjectFor(io.subject, command, io.target);
  if ("problem" in where) {
    io.err(where.problem);
    return 2;
  }
  const wire = await reach(io);
  if (wire === null) return 1;
  let warnings = 0;
  let refused = 0;
  const startedMs = io.clock.monotonicMs();
  try {
    const result = await call(
      wire,
      {
        command,
        subject: where.subject,
        timeoutMs: io.timeoutMs,
        windowMs: WINDOW_MS,
        ...(where.single ? { windowAfterFirstMs: SINGLE_WINDOW_MS } : {}),
      },
      io.clock,
      (answer, payload) => {
        if (!answer.ok) refused++;
        show(answer, payload);
      },
      (what) => {
        if (warnings++ < MAX_WARNINGS) io.err(what);
      },
    );
    const waitedMs = io.clock.monotonicMs() - startedMs;
    return conclude(command, where.subject, result, refused, waitedMs, io);
  } finally {
    await wire.close();
  }

  function show(answer: Answer, payload: Uint8Array): void {
    if (!answer.ok) io.err(`${answer.group}.${answer.id}: ${answer.error}`);
    if (io.json) io.out(JSON.stringify(JSON.parse(new TextDecoder().decode(payload))));
    else if (answer.ok && command !== "status") io.out(progressLine(answer, io.color === true));
  }
}

/** Says on `err` what went wrong, and on `out` what was done. */
function conclude(
  command: Command,
  subject: string,
  result: CallResult,
  refused: number,
  waitedMs: number,
  io: RemoteIo,
): number {
  const { end, answers, unfinished } = result;
  const seconds = (ms: number) => `${Number((ms / 1000).toFixed(1))} s`;
  const done = answers.filter(succeeded).length;
  if (!io.json && command === "status" && answers.length > 0) {
    for (const line of statusTable(answers, io.color === true)) io.out(line);
  }
  if (end === "nobody") {
    io.err(`no collector listens on ${subject}: is nats-url right, does the target exist?`);
    return 1;
  }
  if (end === "lost") {
    io.err(
      `connection to NATS lost (${result.why}): ${done} of ${answers.length} ${PAST[command]}`,
    );
    return 1;
  }
  if (end === "silent") {
    const within = seconds(waitedMs);
    io.err(
      `no collector answered on ${subject} within ${within}: is nats-url right, does the target exist?`,
    );
    return 1;
  }
  for (const late of unfinished) {
    const { group, id, state, ledger } = late;
    io.err(
      `${group}.${id} is not done after ${
        seconds(io.timeoutMs)
      } (${state}, ${ledger.held} rows held when it began)`,
    );
  }
  if (command === "stop") {
    for (const { group, id, ledger } of answers) {
      if (ledger.lost > 0) io.err(`${group}.${id} lost ${ledger.lost} rows: see its log`);
    }
  }
  if (!io.json && command !== "status") io.out(`${done} of ${answers.length} ${PAST[command]}`);
  return refused === 0 && done === answers.length ? 0 : 1;
}

/** The first server that answers; says on `err` why none did. */
async function reach(io: RemoteIo): Promise<Wire | null> {
  if (io.servers.length === 0) {
    io.err("nats-url: expected ws://host:port or wss://host:port, got nothing");
    return null;
  }
  const deadlineMs = io.clock.monotonicMs() + io.timeoutMs;
  for (const server of io.servers) {
    const leftMs = Math.max(100, Math.round(deadlineMs - io.clock.monotonicMs()));
    const dialled = await dial(
      {
        server,
        auth: io.auth,
        name: "shishi command",
        timeoutMs: Math.min(DIAL_TIMEOUT_MS, leftMs),
        ...(io.openSocket === undefined ? {} : { openSocket: io.openSocket }),
      },
      io.clock,
      (what) => io.err(`NATS: ${what}`),
    );
    if (dialled.kind === "connected") return dialled.wire;
    io.err(`cannot reach NATS: ${dialled.why}`);
  }
  return null;
}
