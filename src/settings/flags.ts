/**
 * Flags → given values. `--name value`, `--name=value`, for booleans also `--name` and `--no-name`.
 *
 * What cannot be understood may be a secret that slipped: the value of an unknown flag is never
 * printed, nor is a stray word that follows a secret.
 */

import type { Gathered, Given } from "./given.ts";
import { isBooleanText } from "./kinds.ts";
import { hint, printable } from "../kernel/text.ts";
import { type Meant, type Names } from "./names.ts";
import { quote } from "./spec.ts";

/**
 * @param argv what follows the command's name.
 * @param names the settings of this command.
 * @param others every setting there is, to tell "not here" from "nowhere".
 */
export function readFlags(argv: readonly string[], names: Names, others: Names): Gathered {
  const givens: Given[] = [];
  const problems: string[] = [];
  /** The last flag, where what follows it may be a secret. */
  let hush: string | null = null;
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? "";
    if (!/^-./.test(word) || word === "--") {
      // No number: a command may have taken words from before it.
      const found = hush === null ? quote(word) : `*** after ${hush}`;
      const [example = ""] = names.keys();
      problems.push(`unexpected argument ${found}: expected a flag such as --${example}`);
      continue;
    }
    const { name, inline } = split(word);
    const meant = word.startsWith("--") ? find(name, names) : undefined;
    const next = argv[i + 1];
    if (!meant) {
      problems.push(unknown(word, name, names, others));
      hush = shownFlag(word, name);
      if (inline === undefined && next !== undefined && !next.startsWith("--")) i++;
      continue;
    }
    const { spec, file, negated } = meant;
    const label = `--${name}`;
    const secret = spec.secret === true || spec.kind.show !== undefined;
    hush = secret ? label : null;
    const give = (text: string) => givens.push({ spec, source: "flag", label, text, file });
    if (spec.kind.file === "boolean") {
      if (negated && inline !== undefined) {
        problems.push(`${label}: expected no value, got ${quote(inline)}`);
      } else if (negated) give("false");
      else if (inline !== undefined) give(inline);
      else if (next !== undefined && isBooleanText(next)) give(argv[++i] ?? "");
      else give("true");
    } else if (inline !== undefined) {
      give(inline);
    } else if (next === undefined || isFlag(next, secret, others) || isFlag(next, secret, names)) {
      if (!file && spec.kind.bare !== undefined) give(spec.kind.bare);
      else {
        problems.push(
          `${label}: expected ${file ? "the path of a file" : spec.kind.wanted}, got nothing`,
        );
      }
    } else {
      give(argv[++i] ?? "");
    }
  }
  return { givens, problems };
}

/** A secret may begin with dashes; only a name that is known takes its place. */
function isFlag(word: string, secret: boolean, names: Names): boolean {
  if (!word.startsWith("--")) return false;
  return !secret || find(split(word).name, names) !== undefined;
}

function split(word: string): { name: string; inline: string | undefined } {
  const equals = word.indexOf("=");
  const name = (equals < 0 ? word : word.slice(0, equals)).replace(/^--?/, "");
  return { name, inline: equals < 0 ? undefined : word.slice(equals + 1) };
}

function find(name: string, names: Names): (Meant & { negated: boolean }) | undefined {
  const meant = names.get(name);
  if (meant) return { ...meant, negated: false };
  const positive = name.startsWith("no-") ? names.get(name.slice(3)) : undefined;
  return positive?.spec.kind.file === "boolean" ? { ...positive, negated: true } : undefined;
}

function shownFlag(word: string, name: string): string {
  return `${word.startsWith("--") ? "--" : "-"}${printable(name)}`;
}

function unknown(word: string, name: string, names: Names, others: Names): string {
  const shown = shownFlag(word, name);
  if (word.startsWith("--") && find(name, others)) return `${shown}: not a flag of this command`;
  return `${shown}: unknown flag${hint(name, names.keys(), (known) => `--${known}`)}`;
}
