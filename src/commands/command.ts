/** What a command is. */

import type { SettingName, SettingSpec } from "../settings/settings.ts";

export interface CliCommand {
  readonly name: string;
  /** One line for the overview. */
  readonly summary: string;
  /** What may follow the name, for completions; every setting where absent. */
  readonly takes?: {
    /** These settings, and `config`; all where absent. */
    readonly only?: readonly SettingName[];
    /** Flags of its own. */
    readonly extra?: readonly SettingSpec[];
    /** One of these words comes first: `ls`. */
    readonly words?: readonly string[];
    /** It has no flags at all but `--help`. */
    readonly plain?: boolean;
  };
  /** All of `--help`. */
  help(): string;
  /** @returns the exit code: 0 done, 1 failed, 2 unusable flags or settings. */
  run(argv: readonly string[]): Promise<number>;
}
