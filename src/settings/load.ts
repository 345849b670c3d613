/**
 * Where settings come from, and which one counts: flags beat environment beats credentials beat file
 * beats default. Each source is read into values as they were given; of those the winner is read by its
 * kind. Goes on after every problem, so that one run shows them all.
 *
 * Messages carry names, lines and types, and a value only where it cannot be a secret.
 */

import { parse, TomlError } from "smol-toml";
import { messageOf } from "../kernel/errors.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { hint, printable } from "../kernel/text.ts";
import { isBooleanText } from "./kinds.ts";
import {
  type Checked,
  ENV_PREFIX,
  envName,
  GONE,
  type Host,
  type Meant,
  type Names,
  namesOf,
  OF_COMMANDS,
  quote,
  type SettingSpec,
  wrong,
} from "./spec.ts";

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
  /** The same as text for people, `***` for a secret. */
  readonly shown: ReadonlyMap<string, string>;
  /** The settings that were given and are sound, with how to speak of them: `--table`. */
  readonly labels: ReadonlyMap<string, string>;
  /** The settings whose value cannot be used. */
  readonly bad: ReadonlySet<string>;
  /** The settings whose value stands on the command line itself. */
  readonly onCommandLine: ReadonlySet<string>;
  readonly problems: readonly string[];
}

/** In the order in which they win. */
type Source = (typeof SOURCES)[number];

/** A value as it was given, before its kind has read it. */
export interface Given {
  readonly spec: SettingSpec;
  readonly source: Source;
  /** Begins a message about it: `--table`, `table (environment SHISHI_TABLE)`, `table (file x)`. */
  readonly label: string;
  /** The value, or with `file` the path of the file that holds it. */
  readonly text: string;
  readonly file: boolean;
}

/** What one source gave. */
interface Gathered {
  readonly givens: readonly Given[];
  /** One line each. */
  readonly problems: readonly string[];
}
const NOTHING: Gathered = { givens: [], problems: [] };

/** A secret is one line or a few, never a disk image. */
const MAX_SECRET_LENGTH = 64 * 1024;
const SOURCES = ["flag", "environment", "credential", "file"] as const;

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
  const shown = new Map<string, string>();
  const labels = new Map<string, string>();
  const bad = new Set<string>();
  const onCommandLine = new Set<string>();
  // A command may have a flag of its own by the name of a setting that it does not take.
  for (const spec of [...extra, ...all, ...used]) {
    if (values.has(spec.name)) continue;
    const initial = defaultOf(spec, outside);
    values.set(spec.name, initial.value);
    shown.set(spec.name, initial.shown);
    const chosen = choose(givens.filter((given) => given.spec === spec));
    if (chosen === null) continue;
    const read = chosen.ok ? readOne(chosen.value, outside) : wrong(chosen.problem);
    if (!read.ok) {
      problems.push(...read.problems);
      bad.add(spec.name);
      continue;
    }
    values.set(spec.name, read.value.value);
    shown.set(spec.name, read.value.shown);
    if (!chosen.ok || read.value.value === null) continue;
    const { label, source, file } = chosen.value;
    labels.set(spec.name, label);
    if (source === "flag" && !file) onCommandLine.add(spec.name);
  }
  return { values, shown, labels, bad, onCommandLine, problems };
}

interface Value {
  readonly value: unknown;
  readonly shown: string;
}
const NONE: Value = { value: null, shown: "none" };

function readConfig(
  givens: readonly Given[],
  names: Names,
  known: Names,
  outside: Outside,
): Gathered {
  const chosen = choose(givens.filter((given) => given.spec.name === "config"));
  // More than one is a problem that is reported with the others.
  if (chosen === null || !chosen.ok || chosen.value.text === "") return NOTHING;
  const { text, label } = chosen.value;
  const toml = readText(text, outside);
  if (toml.ok) return readToml(toml.value, text, names, known);
  const found = `${quote(text)} (${toml.problem})`;
  return { ...NOTHING, problems: [`${label}: expected a readable TOML file, got ${found}`] };
}

/** The value that counts, of all that were given for one setting; null where none was. */
function choose(givens: readonly Given[]): Result<Given> | null {
  for (const source of SOURCES) {
    const [first, ...more] = givens.filter((given) => given.source === source);
    if (!first) continue;
    const other = more.find((given) => given.label !== first.label);
    if (other) {
      return failed(`${first.label} and ${other.label}: expected one of them, got both`);
    }
    if (more.length === 0) return done(first);
    if (first.spec.kind.file !== "list" || first.file) {
      return failed(`${first.label}: expected once, got it ${more.length + 1} times`);
    }
    const joint = first.spec.kind.joint ?? ",";
    return done({ ...first, text: [first, ...more].map((given) => given.text).join(joint) });
  }
  return null;
}

function readOne(given: Given, outside: Outside): Checked<Value> {
  const { spec, label, file } = given;
  const problem = (wanted: string, found: string) =>
    wrong(`${label}: expected ${wanted}, got ${found}`);
  let { text } = given;
  if (file) {
    if (text === "") return problem("the path of a file", "nothing");
    const content = readText(text, outside);
    if (!content.ok) return problem("a readable file", `${quote(text)} (${content.problem})`);
    if (content.value.length > MAX_SECRET_LENGTH) {
      return problem("a file of at most 64KiB", "more");
    }
    text = content.value.trim();
    if (text === "") return problem(spec.kind.wanted, `the empty file ${quote(given.text)}`);
  }
  if (!spec.secret) text = text.trim();
  if (text === "") {
    if (spec.default !== null) return problem(spec.kind.wanted, "nothing");
    if (spec.secret) return problem(spec.kind.wanted, "nothing (leave it out for none)");
    return done(NONE);
  }
  const parsed = spec.kind.parse(text);
  if (parsed.ok) return done({ value: parsed.value, shown: spec.secret ? "***" : text });
  if (parsed.problems) return wrong(...parsed.problems.map((what) => `${label}: ${what}`));
  const show = spec.kind.show ?? quote;
  const found = spec.secret && !spec.kind.show ? "***" : parsed.found ?? show(text);
  return problem(parsed.wanted ?? spec.kind.wanted, found);
}

/** Throws for a default that its own kind refuses: that is a bug in the table. */
function defaultOf(spec: SettingSpec, host: Host): Value {
  if (spec.default === null) return NONE;
  const text = typeof spec.default === "string" ? spec.default : spec.default.from(host);
  const parsed = spec.kind.parse(text);
  if (!parsed.ok) throw new Error(`the default of ${spec.name} is no ${spec.kind.wanted}`);
  return { value: parsed.value, shown: text };
}

/** Reads a file; a failure is reported in the system's words, without what it was reading. */
export function readText(path: string, { readFile }: Pick<Outside, "readFile">): Result<string> {
  try {
    return done(readFile(path));
  } catch (error) {
    const [first = ""] = messageOf(error).split("\n");
    const words = first.replace(/, (?:open|read|stat).*$/, "").slice(0, 120);
    return failed(words || "unreadable");
  }
}

/**
 * Flags: `--name value`, `--name=value`, for booleans also `--name` and `--no-name`.
 *
 * What cannot be understood may be a secret that slipped: the value of an unknown flag is never
 * printed, nor is a stray word that follows a secret. That is why `parseArgs` of `node:util` does not
 * split the line: it takes `--table --ack` for a table that is called `--ack`, `-backlog` for seven
 * flags, and leaves the value of an unknown flag as a word, to be named in a message.
 *
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
  const gone = word.startsWith("--") ? GONE.get(name) : undefined;
  if (gone !== undefined) return `${shown}: ${gone}`;
  return `${shown}: unknown flag${hint(name, names.keys(), (known) => `--${known}`)}`;
}

/**
 * Environment. Every variable that begins with `SHISHI_` is the collector's and must be known, except
 * those that Kubernetes makes up for a service that is called shishi.
 *
 * An empty variable counts as not set, which is how compose files and unit files pass "nothing". Not
 * so for a secret: there it is far more often a mistake that would switch a protection off.
 *
 * @param names the settings of this command; @param others every setting: known, but not used here.
 */
export function readEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  names: Names,
  others: Names,
): Gathered {
  const byVariable = new Map([...names].map(([name, meant]) => [envName(name), { name, meant }]));
  const gone = new Map([...GONE].map(([name, what]) => [envName(name), what]));
  const known = new Set([...others.keys()].map(envName));
  const givens: Given[] = [];
  const problems: string[] = [];
  for (const [variable, text] of Object.entries(env)) {
    if (!variable.startsWith(ENV_PREFIX) || text === undefined) continue;
    const found = byVariable.get(variable);
    if (found) {
      const { spec, file } = found.meant;
      if (text === "" && !spec.secret) continue;
      const label = `${found.name} (environment ${variable})`;
      givens.push({ spec, source: "environment", label, text, file });
    } else if (gone.has(variable) && text !== "") {
      problems.push(`${variable}: ${gone.get(variable)}`);
    } else if (
      !known.has(variable) && !OF_COMMANDS.has(variable) && !isFromKubernetes(variable, text)
    ) {
      const bare = (name: string) => name.slice(ENV_PREFIX.length);
      const suggestion = hint(bare(variable), [...known].map(bare), (name) => ENV_PREFIX + name);
      problems.push(`${printable(variable)}: unknown environment variable${suggestion}`);
    }
  }
  return { givens, problems };
}

/** `SHISHI_SERVICE_HOST`, `SHISHI_PORT=tcp://…`, `SHISHI_PORT_8080_TCP_ADDR`: docker-style links. */
function isFromKubernetes(variable: string, text: string): boolean {
  return /_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)$/.test(variable) ||
    /_PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/.test(variable) ||
    (/_PORT$/.test(variable) && /^(?:tcp|udp|sctp):\/\//.test(text));
}

/** Settings whose value is the path of a file that only few may read. */
const FILES: readonly string[] = ["tls-cert", "tls-key", "tls-client-ca", "ca-file", "nats-creds"];

/** Whether a setting can be given as a credential. */
export function takesCredential({ name, secret }: SettingSpec): boolean {
  return secret === true || FILES.includes(name);
}

/**
 * Credentials. A service manager puts each into a file of the folder that `CREDENTIALS_DIRECTORY` names
 * (systemd's `LoadCredential=`), readable by the service alone. One that is called like a secret setting
 * is its value; like a setting that is a file's path, that file. Any other is another program's.
 * @param names the settings of this command.
 */
function readCredentials(names: Names, { env, list }: Outside): readonly Given[] {
  const folder = env["CREDENTIALS_DIRECTORY"] ?? "";
  if (folder === "" || list === undefined) return [];
  return list(folder).flatMap((name): Given[] => {
    const meant = names.get(name);
    if (meant === undefined || meant.file || !takesCredential(meant.spec)) return [];
    const { spec } = meant;
    const label = `${name} (credential)`;
    const file = spec.secret === true;
    return [{ spec, source: "credential", label, text: `${folder}/${name}`, file }];
  });
}

/** Larger is no settings file. */
const MAX_TEXT_LENGTH = 1 << 20;

/**
 * The TOML file. It is flat: a key is a setting's name.
 * @param fileName only for messages.
 * @param names the settings of this command; @param others every setting: known, but not used here.
 */
function readToml(toml: string, fileName: string, names: Names, others: Names): Gathered {
  const path = printable(fileName);
  const givens: Given[] = [];
  const problems: string[] = [];
  if (toml.length > MAX_TEXT_LENGTH) {
    return { givens, problems: [`${path}: expected a TOML file of at most 1MiB, got more`] };
  }
  let entries: [string, unknown][];
  try {
    entries = Object.entries(parse(toml, { integersAsBigInt: true, maxDepth: 16 }));
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const what = (error.message.split("\n")[0] ?? "").replace("Invalid TOML document: ", "");
    return { givens, problems: [`${path}:${error.line}:${error.column}: not TOML: ${what}`] };
  }
  for (const [key, value] of entries) {
    const meant = names.get(key);
    const label = `${printable(key)} (file ${path})`;
    if ((meant ?? others.get(key))?.spec.notInFile) {
      problems.push(`${label}: cannot be set in a file`);
    } else if (!meant && others.has(key)) {
      continue;
    } else if (GONE.has(key)) {
      problems.push(`${label}: ${GONE.get(key)}`);
    } else if (isTable(value)) {
      problems.push(
        `${label}: expected settings without tables, such as clickhouse-url = "…", got a table`,
      );
    } else if (!meant) {
      const inFile = [...others].filter(([, { spec }]) => !spec.notInFile).map(([name]) => name);
      problems.push(`${label}: unknown key${hint(key, inFile, (name) => name)}`);
    } else {
      const { spec, file } = meant;
      const read = file ? readString(value) : readValue(value, spec);
      if (typeof read === "string") {
        givens.push({ spec, source: "file", label, text: read, file });
      } else {
        const wanted = file ? "the path of a file" : spec.kind.wanted;
        const found = spec.secret && read.exact ? "***" : read.found;
        problems.push(`${label}: expected ${wanted}, got ${found}`);
      }
    }
  }
  return { givens, problems };
}

/** `exact`: the words repeat the value. */
interface Unfit {
  readonly found: string;
  readonly exact: boolean;
}

/** The value as a flag would have it, or a word for what it is. */
function readValue(value: unknown, spec: SettingSpec): string | Unfit {
  const accepts = spec.kind.file;
  if (accepts === "number" && isNumber(value)) return String(value);
  if (accepts === "boolean" && typeof value === "boolean") return String(value);
  if (accepts === "list" && Array.isArray(value)) {
    const odd = value.find((item) => typeof item !== "string" || item === "");
    if (odd !== undefined) return { found: "an item that is no text", exact: false };
    const { joint = ",", show = quote } = spec.kind;
    const several = value.find((item) => item.includes(joint));
    if (several !== undefined) {
      const between = joint === "," ? "a comma" : "a line break";
      return { found: `the item ${show(several)}, with ${between}`, exact: true };
    }
    return value.join(joint);
  }
  return readString(value);
}

function readString(value: unknown): string | Unfit {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return { found: "an array", exact: false };
  if (isNumber(value) || typeof value === "boolean") return { found: String(value), exact: true };
  return { found: "a date or time", exact: false };
}

function isNumber(value: unknown): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

function isTable(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(isTable);
  return typeof value === "object" && value !== null && !(value instanceof Date);
}
