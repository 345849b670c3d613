/** Every command, in the order of the overview. */

import { check } from "./check.ts";
import type { CliCommand } from "./command.ts";
import { controlCommand } from "./control.ts";
import { dead } from "./dead.ts";
import { health } from "./health.ts";
import { serve } from "./serve.ts";

export const commands: readonly CliCommand[] = [
  serve,
  ...(["status", "flush", "pause", "resume", "stop"] as const).map(controlCommand),
  check,
  dead,
  health,
];

export function findCommand(name: string): CliCommand | undefined {
  return commands.find((command) => command.name === name);
}
