/**
 * What the two halves of remote control agree on: the subjects on which commands travel, and the answers
 * that travel back. Pure.
 *
 * Subjects, broad to narrow: `PREFIX.COMMAND`, `PREFIX.COMMAND.GROUP`, `PREFIX.COMMAND.GROUP.ID`. A
 * collector listens to each of its subjects by its full name and never by a wildcard, so that one
 * published command reaches it exactly once.
 *
 * Anyone on the NATS account can publish to a caller's inbox, so reading an answer checks every part
 * that is used.
 */

import type { Command, LedgerTotals, Status } from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";

/** Every command, in the order in which help shows them. */
export const COMMANDS: readonly Command[] = ["status", "flush", "pause", "resume", "stop"];

/** What a group and an id may consist of; settings turn everything else into `-`. */
const NAME = /^[A-Za-z0-9_-]+$/;
/** Of a name in an answer, which any client may have written. */
const MAX_NAME_LENGTH = 256;

/** Subjects that one collector obeys, each with the command that it stands for. */
export function subjectsOf(
  prefix: string,
  group: string,
  id: string,
): ReadonlyMap<string, Command> {
  const subjects = new Map<string, Command>();
  for (const command of COMMANDS) {
    subjects.set(`${prefix}.${command}`, command);
    subjects.set(`${prefix}.${command}.${group}`, command);
    subjects.set(`${prefix}.${command}.${group}.${id}`, command);
  }
  return subjects;
}

/** Where a collector publishes each change of its state. */
export function eventSubject(prefix: string, group: string, id: string): string {
  return `${prefix}.event.${group}.${id}`;
}

/**
 * Where a command for `target` (`all`, `GROUP` or `GROUP.ID`) is published.
 * @returns the subject, and whether it names one single collector; or what is wrong with the input.
 */
export function subjectFor(
  prefix: string,
  command: Command,
  target: string,
): Result<{ readonly subject: string; readonly single: boolean }> {
  const problem = prefixProblem(prefix);
  if (problem !== null) return failed(problem);
  if (target === "all") return done({ subject: `${prefix}.${command}`, single: false });
  const names = target.split(".");
  if (names.length > 2 || !names.every((name) => NAME.test(name))) {
    const found = JSON.stringify(target);
    return failed(
      `target: expected all, GROUP or GROUP.ID (letters, digits, - and _ in each), got ${found}`,
    );
  }
  return done({ subject: `${prefix}.${command}.${target}`, single: names.length === 2 });
}

/** Why `prefix` cannot begin a subject, or null. It may contain dots: `ops.shishi`. */
export function prefixProblem(prefix: string): string | null {
  const tokens = prefix.split(".");
  if (tokens.every((token) => /^[^\s.*>\p{Cc}]+$/u.test(token)) && !prefix.startsWith("$")) {
    return null;
  }
  const found = JSON.stringify(prefix);
  return `nats-subject: expected words joined by dots, without spaces, * or >, got ${found}`;
}

/** One answer as the caller sees it. */
export interface Answer {
  readonly group: string;
  readonly id: string;
  /** `GROUP.ID`. */
  readonly name: string;
  /** Which process gave it, `""` where it does not say: see `INSTANCE_HEADER`. */
  readonly instance: string;
  readonly command: Command;
  readonly ok: boolean;
  /** `draining`, `stopped`, `flushing`, `flushed`, or the collector's state. */
  readonly state: string;
  readonly ledger: LedgerTotals;
  /** Why `ok` is false; else `""`. */
  readonly error: string;
  /** Given by `status`. */
  readonly version: string;
  readonly uptimeS: number;
  readonly oldestS: number;
  /** The whole of it, as it came. */
  readonly payload: Uint8Array;
}

/**
 * The header of an answer that says which process gave it, so that one answer delivered twice and two
 * collectors of one name can be told apart. Without it every answer that begins is a collector.
 */
export const INSTANCE_HEADER = "Shishi-Instance";

/** Above it an answer goes without its tables; NATS takes 1 MiB unless configured otherwise. */
const MAX_ANSWER_BYTES = 512 * 1024;

/** What a collector says after a command. @param state overrules the status' own. */
export function writeAnswer(
  command: Command | "unknown",
  status: Status,
  state: string,
  error: string | null,
): Uint8Array {
  const ok = error === null;
  const { group, id, ledger } = status;
  const failure = ok ? {} : { error };
  if (command !== "status") return encode({ group, id, command, ok, ...failure, state, ledger });
  const whole = encode({ ...status, command, ok, ...failure, state });
  if (whole.length <= MAX_ANSWER_BYTES) return whole;
  return encode({ ...status, tables: {}, tables_left_out: true, command, ok, ...failure, state });
}

/** @param instance the value of `INSTANCE_HEADER`; cut, since any client may have written it. */
export function readAnswer(payload: Uint8Array, instance = ""): Result<Answer> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(payload));
  } catch {
    return failed("not JSON");
  }
  if (!isRecord(value)) return failed("not an object");
  const { group, id, command, ok, state } = value;
  if (!isName(group) || !isName(id)) return failed("no group and id");
  const known = COMMANDS.find((each) => each === command);
  if (known === undefined) return failed("no known command");
  if (typeof ok !== "boolean") return failed("ok is neither true nor false");
  if (typeof state !== "string") return failed("no state");
  return done({
    group,
    id,
    name: `${group}.${id}`,
    instance: instance.slice(0, 64),
    command: known,
    ok,
    state: printable(state, 20),
    ledger: readLedger(value["ledger"]),
    error: ok ? "" : printable(value["error"], 300) || "no reason given",
    version: printable(value["version"], 40),
    uptimeS: count(value["uptime_s"]),
    oldestS: count(value["oldest_s"]),
    payload,
  });
}

function readLedger(value: unknown): LedgerTotals {
  const of = isRecord(value) ? value : {};
  return {
    received: count(of["received"]),
    recovered: count(of["recovered"]),
    rejected: count(of["rejected"]),
    stored: count(of["stored"]),
    dead: count(of["dead"]),
    held: count(of["held"]),
    lost: count(of["lost"]),
  };
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_NAME_LENGTH && NAME.test(value);
}

function count(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

/** Short, and nothing in it moves a terminal's cursor. */
function printable(value: unknown, maxLength: number): string {
  return typeof value === "string" ? value.replace(/\p{C}/gu, " ").slice(0, maxLength) : "";
}
