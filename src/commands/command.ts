/** What a command is. */

export interface CliCommand {
  readonly name: string;
  /** One line for the overview. */
  readonly summary: string;
  /** All of `--help`. */
  help(): string;
  /** @returns the exit code: 0 done, 1 failed, 2 unusable flags or settings. */
  run(argv: readonly string[]): Promise<number>;
}
