/**
 * The answers that travel back: what a collector writes and what a caller may believe. Pure. Anyone
 * on the NATS account can publish to a caller's inbox, so reading checks every part that is used.
 */

import type { Command, LedgerTotals, Status } from "../contracts.ts";
import { COMMANDS } from "./subjects.ts";

/** One answer as the caller sees it. */
export interface Answer {
  readonly group: string;
  readonly id: string;
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
}

/**
 * The header of an answer that says which process gave it, so that one answer delivered twice and two
 * collectors of one name can be told apart. Without it every answer that begins is a collector.
 */
export const INSTANCE_HEADER = "Shishi-Instance";

/** Above it an answer goes without its tables; NATS takes 1 MiB unless told otherwise. */
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

/** @returns the answer, or what is wrong with it. */
export function readAnswer(payload: Uint8Array): Answer | { readonly problem: string } {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(payload));
  } catch {
    return { problem: "not JSON" };
  }
  if (!isRecord(value)) return { problem: "not an object" };
  const { group, id, command, ok, state } = value;
  if (!isName(group) || !isName(id)) return { problem: "no group and id" };
  const known = COMMANDS.find((each) => each === command);
  if (known === undefined) return { problem: "no known command" };
  if (typeof ok !== "boolean") return { problem: "ok is neither true nor false" };
  if (typeof state !== "string") return { problem: "no state" };
  return {
    group,
    id,
    command: known,
    ok,
    state: printable(state, 20),
    ledger: readLedger(value["ledger"]),
    error: ok ? "" : printable(value["error"], 300) || "no reason given",
    version: printable(value["version"], 40),
    uptimeS: count(value["uptime_s"]),
    oldestS: count(value["oldest_s"]),
  };
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
  return typeof value === "string" && /^[A-Za-z0-9_-]{1,256}$/.test(value);
}

function count(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

/** Short, and nothing in it moves a terminal's cursor. */
function printable(value: unknown, maxLength: number): string {
  return typeof value === "string" ? value.replace(/\p{C}/gu, " ").slice(0, maxLength) : "";
}
