/** The completions, in the words of each shell. */

import type { CliCommand } from "../command.ts";
import { bashCompletions } from "./bash.ts";
import { fishCompletions } from "./fish.ts";
import { completables } from "./model.ts";
import { zshCompletions } from "./zsh.ts";

const WRITERS = { bash: bashCompletions, zsh: zshCompletions, fish: fishCompletions } as const;

/** A script without a newline at its end. */
export function completionsFor(
  shell: keyof typeof WRITERS,
  commands: readonly CliCommand[],
): string {
  return WRITERS[shell](completables(commands));
}
