/**
 * Every command, in the order of the overview. Each is loaded when it is wanted: what the others
 * need (NATS, InfluxDB, HTTPS …) cost the collector's first answer 4 of 40 ms. The list stands on its own
 * because completions, manual and tests read it too.
 */

import type { CliCommand } from "./cli.ts";

const control = async (command: "status" | "flush" | "pause" | "resume" | "stop") =>
  (await import("./control.ts")).controlCommand(command);

const LOAD: Readonly<Record<string, () => Promise<CliCommand>>> = {
  serve: async () => (await import("./serve.ts")).serve,
  status: () => control("status"),
  flush: () => control("flush"),
  pause: () => control("pause"),
  resume: () => control("resume"),
  stop: () => control("stop"),
  check: async () => (await import("./check.ts")).check,
  try: async () => (await import("./try.ts")).tryRows,
  dead: async () => (await import("./dead.ts")).dead,
  spool: async () => (await import("./spooled.ts")).spooled,
  pipe: async () => (await import("./pipe.ts")).pipe,
  import: async () => (await import("./import.ts")).importFiles,
  outbox: async () => (await import("./outbox_table.ts")).outboxCommand,
  health: async () => (await import("./health.ts")).health,
  service: async () => (await import("./service.ts")).service,
  completions: async () => (await import("./completions.ts")).completionsCommand(allCommands),
};

export const commandNames: readonly string[] = Object.keys(LOAD);

/** For the overview, the manual and completions. */
export function allCommands(): Promise<readonly CliCommand[]> {
  return Promise.all(Object.values(LOAD).map((load) => load()));
}

/** @returns null where there is none of that name. */
export async function findCommand(name: string): Promise<CliCommand | null> {
  // It is no command for people, so the overview does not name it.
  return Object.hasOwn(LOAD, name) ? await LOAD[name]!() : null;
}
