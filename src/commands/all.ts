/** Every command, in the order of the overview. */

import { check } from "./check.ts";
import type { CliCommand } from "./command.ts";
import { completions } from "./completions.ts";
import { controlCommand } from "./control.ts";
import { dead } from "./dead.ts";
import { health } from "./health.ts";
import { serve } from "./serve.ts";
import { worker } from "./worker.ts";

export const commands: readonly CliCommand[] = [
  serve,
  ...(["status", "flush", "pause", "resume", "stop"] as const).map(controlCommand),
  check,
  dead,
  health,
  completions,
];

export function findCommand(name: string): CliCommand | undefined {
  // It is no command for people, so the overview does not name it.
  return [...commands, worker].find((command) => command.name === name);
}
