/** Who a process is, so that another one can tell later whether it still lives. */

import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import process from "node:process";

/** A process, as far as it can be told from others; `""` where the system does not say. */
export interface Identity {
  readonly pid: number;
  /** Ticks from the machine's boot to the start of the process: a pid alone comes again. */
  readonly started: string;
  readonly boot: string;
  /** Its process namespace: only within one do pids mean the same. */
  readonly space: string;
  readonly host: string;
}

/** This process. */
export function identify(): Identity {
  return {
    pid: process.pid,
    started: startOf("self")?.started ?? "",
    boot: orEmpty(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()),
    space: orEmpty(() => readlinkSync("/proc/self/ns/pid")),
    host: orEmpty(hostname),
  };
}

/** `unknown`: it is somewhere that `me` cannot look into. */
export function isAlive(owner: Identity, me: Identity): boolean | "unknown" {
  const together = owner.boot === me.boot && owner.space === me.space &&
    (me.space !== "" || owner.host === me.host);
  if (!together) return "unknown";
  const found = startOf(owner.pid);
  if (found !== null) {
    return !found.ended && (owner.started === "" || owner.started === found.started);
  }
  try {
    process.kill(owner.pid, 0);
    // Without a time of start it may be another process by now: only its heartbeat can tell.
    return owner.started === "" ? "unknown" : true;
  } catch (error) {
    // Not ours to signal, so it is there.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** From text that may be anything; null when it does not tell of a process. */
export function parseIdentity(value: unknown): Identity | null {
  if (typeof value !== "object" || value === null) return null;
  const { pid, started, boot, space, host } = value as Record<string, unknown>;
  const texts = [started, boot, space, host];
  if (!Number.isSafeInteger(pid) || (pid as number) < 1) return null;
  return texts.every((text) => typeof text === "string") ? value as Identity : null;
}

/** Null where the system does not show it: no such process, or no /proc. */
function startOf(pid: number | "self"): { started: string; ended: boolean } | null {
  const stat = orEmpty(() => readFileSync(`/proc/${pid}/stat`, "utf8"));
  // The program's name, in parentheses, may hold anything; the state follows it as field 3.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state = "", started = ""] = [fields[0], fields[22 - 3]];
  return started === "" ? null : { started, ended: state === "Z" || state === "X" };
}

function orEmpty(read: () => string): string {
  try {
    return read();
  } catch {
    return "";
  }
}
