/** What a command is. */

import type { HelpPage } from "../settings/help.ts";

export interface CliCommand {
  readonly name: string;
  /** One line for the overview. */
  readonly summary: string;
  /** What `--help`, the manual and completions say. */
  readonly page: HelpPage;
  /** @returns the exit code: 0 done, 1 failed, 2 unusable flags or settings. */
  run(argv: readonly string[]): Promise<number>;
}
