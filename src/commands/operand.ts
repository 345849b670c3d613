/** The one word of a command line that is no flag, such as the table in `shishi dead show t --json`. */

import { isBooleanText } from "../settings/kinds.ts";
import type { SettingSpec } from "../settings/spec.ts";

/**
 * Takes the first word that is neither a flag nor a flag's value out of a command line; what else is
 * wrong with the line is the flags' parser to say.
 * @param specs flags of the command; any other flag is taken to have a value.
 */
export function operandOf(
  argv: readonly string[],
  specs: readonly SettingSpec[],
): { readonly operand: string | null; readonly rest: readonly string[] } {
  const switches = new Set(
    specs.filter(({ kind }) => kind.file === "boolean").flatMap((
      { name },
    ) => [`--${name}`, `--no-${name}`]),
  );
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at]!;
    if (!word.startsWith("-") || word === "-") {
      return { operand: word, rest: argv.toSpliced(at, 1) };
    }
    if (word.includes("=")) continue;
    const next = argv[at + 1] ?? "";
    if (!switches.has(word) || isBooleanText(next)) at++;
  }
  return { operand: null, rest: argv };
}
