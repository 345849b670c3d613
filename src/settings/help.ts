/**
 * The settings for people: `--help` and the table of docs/settings.md, both from the one table.
 */

import type { BrokerKind } from "../contracts.ts";
import { type Parameter, SOURCE_PARAMETERS } from "./source_urls.ts";
import { envName, type SettingSpec } from "./spec.ts";
import { type SettingName, TABLE } from "./table.ts";

/** What a command's help says besides its settings. */
export interface HelpPage {
  /** `shishi stop [--target all|GROUP|GROUP.ID] [--timeout DURATION]`; made up where absent. */
  readonly usage?: string;
  /** A sentence or a few paragraphs, wrapped here. */
  readonly about?: string;
  /** One of these comes first: `ls`. */
  readonly words?: readonly string[];
  /** Words that are no flags name files. */
  readonly files?: boolean;
  /** The settings that the command takes, `config` with them; all unless given. */
  readonly only?: readonly SettingName[];
  /** The command's own flags; their section comes first. */
  readonly extra?: readonly SettingSpec[];
}

const WIDTH = 100;
/** Names longer than this stand on a line of their own. */
const NAME_WIDTH = 31;

/** The whole help of a command, at most 100 columns wide, without a newline at its end. */
export function helpText(command: string, page: HelpPage = {}): string {
  const { extra = [], about = "", usage = `shishi ${command} [--SETTING VALUE ...]` } = page;
  const used = settingsOf(page);
  const runs = command === "serve";
  const lines = [`Usage: ${usage}`];
  if (about !== "") {
    lines.push("", ...about.split("\n").flatMap((paragraph) => wrap(paragraph, WIDTH)));
  }
  for (const [section, specs] of bySection([...extra, ...used])) {
    lines.push("", `${section}:`);
    for (const spec of specs) lines.push(...flagLines(spec, !extra.includes(spec), runs));
  }
  if (used.length > 0) lines.push("", ...wrap(footnote(used) + (runs ? RELOADED : ""), WIDTH));
  return lines.join("\n");
}

/** The settings that a command takes. */
export function settingsOf({ only }: HelpPage): readonly SettingSpec[] {
  if (only === undefined) return TABLE;
  return only.length === 0
    ? []
    : TABLE.filter(({ name }) => name === "config" || only.includes(name));
}

/** A GitHub table of all settings: name, value, default, meaning, what takes a change. Ends in a newline. */
export function settingsMarkdown(): string {
  const rows = TABLE.map((spec) => {
    const names = [spec.name, ...aliasesOf(spec)].map((name) => `\`${name}\``).join(", ");
    const value = spec.kind.placeholder || "true\\|false";
    const initial = spec.default === null || typeof spec.default === "object"
      ? shownDefault(spec)
      : `\`${shownDefault(spec)}\``;
    const secret = (spec as SettingSpec).secret ? ` (or \`${spec.name}-file\`)` : "";
    const taken = (spec as SettingSpec).restart ? "restart" : "reload";
    return [names, value, initial, spec.meaning + secret, taken].map(cell);
  });
  const head = [
    ["setting", "value", "default", "meaning", "a change takes a"],
    Array(5).fill("---"),
  ];
  return [...head, ...rows].map((cells) => `| ${cells.join(" | ")} |\n`).join("");
}

/**
 * A GitHub table of the parameters of a source's URL: of those that all have, of one broker's own, or of
 * exits. Ends in a newline.
 */
export function parametersMarkdown(of: "all" | "exits" | BrokerKind): string {
  const { common, own, exits, metas } = SOURCE_PARAMETERS;
  const tables: [scheme: string, parameters: Readonly<Record<string, Parameter>>][] = of === "all"
    ? [["", common]]
    : of === "exits"
    ? Object.entries(exits)
    : [["", own[of]]];
  const many = tables.length > 1;
  const rows = tables.flatMap(([scheme, parameters]) =>
    Object.entries(parameters).map(([name, { kind, default: initial, meaning }]) =>
      [
        ...(many ? [scheme] : []),
        `\`${name}\``,
        kind.placeholder || "true\\|false",
        initial === null ? "" : `\`${initial}\``,
        meaning,
      ].map(cell)
    )
  );
  const head = [...(many ? ["of"] : []), "parameter", "value", "default", "meaning"];
  const table = [head, head.map(() => "---"), ...rows]
    .map((cells) => `| ${cells.join(" | ")} |\n`).join("");
  return of === "all" || of === "exits"
    ? table
    : `${table}\n\`meta\`: ${metas[of].map((name) => `\`${name}\``).join(", ")}\n`;
}

function cell(text: string): string {
  return text.replace(/(?<!\\)\|/g, "\\|").replace(/(?<!`)\*(?!`)/g, "\\*");
}

function bySection(specs: readonly SettingSpec[]): Map<string, SettingSpec[]> {
  const sections = new Map<string, SettingSpec[]>();
  for (const spec of specs) {
    sections.set(spec.section, [...sections.get(spec.section) ?? [], spec]);
  }
  return sections;
}

/** @param everywhere also outside the command line. @param runs the command can reload. */
function flagLines(spec: SettingSpec, everywhere: boolean, runs: boolean): string[] {
  const no = spec.kind.file === "boolean" && everywhere ? "[no-]" : "";
  const name = `  --${no}${spec.name} ${spec.kind.placeholder}`.trimEnd();
  const variable = everywhere ? ` (${envName(spec.name)})` : "";
  const aliases = aliasesOf(spec).map((alias) => ` (also --${alias})`).join("");
  const secret = spec.secret ? ` (or --${spec.name}-file FILE)` : "";
  const initial = spec.default === null ? "" : `  [${shownDefault(spec)}]`;
  const restart = runs && spec.restart ? " (restart)" : "";
  const text = spec.meaning + aliases + secret + restart + initial + variable;
  const [first = "", ...more] = wrap(text, WIDTH - NAME_WIDTH - 2);
  const indent = " ".repeat(NAME_WIDTH + 2);
  const rest = more.map((line) => indent + line);
  return name.length <= NAME_WIDTH
    ? [`${name.padEnd(NAME_WIDTH)}  ${first}`, ...rest]
    : [name, indent + first, ...rest];
}

const RELOADED =
  " At SIGHUP the file, secrets and certificates are read again and changes are taken " +
  "at once, except for settings marked (restart).";

function footnote(used: readonly SettingSpec[]): string {
  const secrets = used.some((spec) => spec.secret)
    ? " A setting with a -file form can be kept in a file: --X-file, SHISHI_X_FILE or x-file names it; " +
      "or in a credential of systemd that is called like the setting."
    : "";
  return "Every setting can be given as a flag (--name VALUE or --name=VALUE), as an environment " +
    "variable (in parentheses) or as a key of the TOML file that --config names; a flag beats the " +
    "environment, the environment beats the file, the file beats the default [in brackets]." +
    secrets +
    " Durations are written 500ms, 1s, 5m or 1h, sizes 64KiB, 10MiB or 1GiB.";
}

function shownDefault(spec: SettingSpec): string {
  if (spec.default === null) return "none";
  return typeof spec.default === "string" ? spec.default : spec.default.shown;
}

function aliasesOf(spec: SettingSpec): readonly string[] {
  return spec.aliases ?? [];
}

/** Breaks at single spaces; a word longer than `width` keeps a line for itself. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/(?<! ) (?! )/)) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word.trimStart();
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
