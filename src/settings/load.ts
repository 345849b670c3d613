/**
 * Flags beat environment beats credentials beat file beats default: merges the sources over any list
 * of specs and reads the winners. Goes on after every problem, so that one run shows them all.
 */

import { readCredentials } from "./credentials.ts";
import { readEnvironment } from "./environment.ts";
import { readToml } from "./file.ts";
import { readFlags } from "./flags.ts";
import type { Given, Source } from "./given.ts";
import { type Names, namesOf } from "./names.ts";
import { type Host, quote, type SettingSpec } from "./spec.ts";

/** What the outside gives; tests give their own. */
export interface Outside extends Host {
  /** What follows the command's name. */
  readonly argv: readonly string[];
  /** The text of a file; throws when it cannot be read. */
  readonly readFile: (path: string) => string;
  /** The names in a folder; empty when it cannot be read. Absent: there are no credentials. */
  readonly list?: (folder: string) => readonly string[];
}

/** What was read. */
export interface Read {
  /** By setting name; the default where nothing (or nothing usable) was given. */
  readonly values: ReadonlyMap<string, unknown>;
  /** The settings that were given and are sound, with how to speak of them: `--table`. */
  readonly labels: ReadonlyMap<string, string>;
  /** The settings whose value cannot be used. */
  readonly bad: ReadonlySet<string>;
  readonly problems: readonly string[];
}

/** A secret is one line or a few, never a disk image. */
const MAX_SECRET_LENGTH = 64 * 1024;
const SOURCES: readonly Source[] = ["flag", "environment", "credential", "file"];

/**
 * @param used the settings of this command. @param extra flags of this command alone: no variable, no
 * key. @param all every setting there is; a flag of the rest is refused, its variable and key are not.
 */
export function readSettings(
  used: readonly SettingSpec[],
  extra: readonly SettingSpec[],
  all: readonly SettingSpec[],
  outside: Outside,
): Read {
  const names = namesOf(used);
  const known = namesOf([...all, ...used]);
  const flags = readFlags(outside.argv, namesOf([...extra, ...used]), known);
  const environment = readEnvironment(outside.env, names, known);
  const credentials = readCredentials(names, outside);
  const givens = [...flags.givens, ...environment.givens, ...credentials];
  const problems = [...flags.problems, ...environment.problems];
  const inFile = readConfig(givens, names, known, outside);
  givens.push(...inFile.givens);
  problems.push(...inFile.problems);

  const values = new Map<string, unknown>();
  const labels = new Map<string, string>();
  const bad = new Set<string>();
  for (const spec of [...all, ...used, ...extra]) {
    if (values.has(spec.name)) continue;
    values.set(spec.name, defaultOf(spec, outside));
    const winner = choose(givens.filter((given) => given.spec === spec));
    if (winner === null) continue;
    const read = "problem" in winner ? winner : readOne(winner, outside);
    if ("problem" in read) {
      problems.push(read.problem);
      bad.add(spec.name);
    } else {
      values.set(spec.name, read.value);
      if (read.value !== null) labels.set(spec.name, winner.label);
    }
  }
  return { values, labels, bad, problems };
}

type Problem = { readonly problem: string };

function readConfig(givens: readonly Given[], names: Names, known: Names, outside: Outside) {
  const nothing = { givens: [], problems: [] };
  const winner = choose(givens.filter((given) => given.spec.name === "config"));
  if (winner === null || "problem" in winner || winner.text === "") return nothing;
  const toml = readText(winner.text, outside);
  if (typeof toml === "string") return readToml(toml, winner.text, names, known);
  const found = `${quote(winner.text)} (${toml.problem})`;
  return { givens: [], problems: [`${winner.label}: expected a readable TOML file, got ${found}`] };
}

/** The value that counts, of all that were given for one setting. */
function choose(givens: readonly Given[]): Given | (Problem & { label: string }) | null {
  for (const source of SOURCES) {
    const [first, ...more] = givens.filter((given) => given.source === source);
    if (!first) continue;
    const other = more.find((given) => given.label !== first.label);
    if (other) {
      const both = `${first.label} and ${other.label}`;
      return { label: first.label, problem: `${both}: expected one of them, got both` };
    }
    if (more.length === 0) return first;
    if (first.spec.kind.file !== "list" || first.file) {
      const times = `${more.length + 1} times`;
      return { label: first.label, problem: `${first.label}: expected once, got it ${times}` };
    }
    return { ...first, text: [first, ...more].map((given) => given.text).join(",") };
  }
  return null;
}

function readOne(given: Given, outside: Outside): { value: unknown } | Problem {
  const { spec, label } = given;
  const problem = (wanted: string, found: string) => ({
    problem: `${label}: expected ${wanted}, got ${found}`,
  });
  let text = given.text;
  if (given.file) {
    if (text === "") return problem("the path of a file", "nothing");
    const content = readText(text, outside);
    if (typeof content !== "string") {
      return problem("a readable file", `${quote(text)} (${content.problem})`);
    }
    if (content.length > MAX_SECRET_LENGTH) return problem("a file of at most 64KiB", "more");
    text = content.trim();
    if (text === "") return problem(spec.kind.wanted, `the empty file ${quote(given.text)}`);
  }
  if (!spec.secret) text = text.trim();
  if (text === "") {
    if (spec.default !== null) return problem(spec.kind.wanted, "nothing");
    if (spec.secret) return problem(spec.kind.wanted, "nothing (leave it out for none)");
    return { value: null };
  }
  const parsed = spec.kind.parse(text);
  if (parsed.ok) return { value: parsed.value };
  const show = spec.kind.show ?? quote;
  const found = spec.secret && !spec.kind.show ? "***" : parsed.found ?? show(text);
  return problem(parsed.wanted ?? spec.kind.wanted, found);
}

/** Throws for a default that its own kind refuses: that is a bug in the table. */
function defaultOf(spec: SettingSpec, host: Host): unknown {
  if (spec.default === null) return null;
  const text = typeof spec.default === "string" ? spec.default : spec.default.from(host);
  const parsed = spec.kind.parse(text);
  if (!parsed.ok) throw new Error(`the default of ${spec.name} is no ${spec.kind.wanted}`);
  return parsed.value;
}

/** Reads a file; a failure is told in the system's words, without what it was reading. */
export function readText(path: string, outside: Pick<Outside, "readFile">): string | Problem {
  try {
    return outside.readFile(path);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const first = (message.split("\n")[0] ?? "").replace(/, (?:open|read|stat).*$/, "");
    return { problem: first.slice(0, 120) || "unreadable" };
  }
}
