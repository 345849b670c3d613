/**
 * What can be completed, as data: every command with its words and flags, every flag with its values.
 * Made from the settings table and the commands' own flags, so that a new setting needs nothing here.
 */

import { settingsOf } from "../../settings/help.ts";
import { namesOf } from "../../settings/names.ts";
import type { SettingSpec } from "../../settings/spec.ts";
import type { CliCommand } from "../command.ts";

/** What follows a flag: nothing, one of some words, a file, a folder, or what only the user knows. */
export type Values = readonly string[] | "none" | "file" | "folder" | "any";

export interface Flag {
  /** With its dashes. */
  readonly name: string;
  /** A few words. */
  readonly meaning: string;
  readonly values: Values;
}

export interface Completable {
  readonly name: string;
  readonly summary: string;
  /** One of them comes first. */
  readonly words: readonly string[];
  readonly flags: readonly Flag[];
}

const HELP: Flag = { name: "--help", meaning: "what the command takes", values: "none" };

/** What may follow `shishi` itself. */
export const TOP_FLAGS: readonly Flag[] = [
  { name: "--help", meaning: "the commands", values: "none" },
  { name: "--version", meaning: "version and runtime", values: "none" },
];

/** Every command, and `help`, which takes the name of one. */
export function completables(commands: readonly CliCommand[]): Completable[] {
  const all = commands.map(({ name, summary, page }) => {
    const { extra = [], words = [] } = page;
    const flags = [...extra, ...settingsOf(page)].flatMap(flagsOf);
    return { name, summary, words, flags: [...flags, HELP] };
  });
  const names = all.map(({ name }) => name);
  return [...all, { name: "help", summary: "what a command takes", words: names, flags: [] }];
}

/** A setting's flag, its other names and, for a secret, its `-file` form. */
function flagsOf(spec: SettingSpec): Flag[] {
  const meaning = short(spec.meaning);
  const flags = [...namesOf([spec])].map(([name, { file }]): Flag => ({
    name: `--${name}`,
    meaning: file ? `a file that holds ${spec.name}` : meaning,
    values: file ? "file" : valuesOf(spec),
  }));
  if (spec.kind.file === "boolean" && spec.default === "true") {
    flags.push({ name: `--no-${spec.name}`, meaning: `not: ${meaning}`, values: "none" });
  }
  return flags;
}

/** The placeholder tells: capitals stand for a value, small letters are one. */
function valuesOf({ kind: { placeholder, file } }: SettingSpec): Values {
  if (file === "boolean") return "none";
  if (placeholder === "FILE") return "file";
  if (placeholder === "FOLDER") return "folder";
  const words = placeholder.split("|").filter((word) => /^[a-z]+$/.test(word));
  return words.length > 0 ? words : "any";
}

/** The first clause, for a line beside others. */
function short(meaning: string): string {
  const [clause = ""] = meaning.split(/[;:(,]/);
  return clause.trim();
}
