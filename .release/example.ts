/**
 * `shishi.toml`, made from the one table of settings: each with its meaning, and commented out at its
 * default, so that the file as it is changes nothing and every line works once its `#` is gone.
 */

import type { SettingSpec } from "../src/settings/spec.ts";
import { TABLE } from "../src/settings/table.ts";

const WIDTH = 100;
const HEAD = [
  "# Settings of Shishi: shishi --config FILE.",
  "# A line that begins with # and a name is the default; take the # away to change it. Where there is",
  "# no default the value only shows the form. Flags and the environment beat this file. Durations are",
  "# written 500ms, 1s, 5m or 1h, sizes 64KiB, 10MiB or 1GiB. At SIGHUP (systemctl reload) the file is",
  "# read again; a change of a setting that says (restart) waits for that.",
];

/** Ends in a newline. */
export function exampleToml(): string {
  const lines = [...HEAD];
  let section = "";
  for (const spec of TABLE as readonly SettingSpec[]) {
    if (spec.notInFile) continue;
    if (spec.section !== section) {
      section = spec.section;
      lines.push("", `# ${`---- ${section} `.padEnd(WIDTH - 2, "-")}`);
    }
    lines.push("", ...commented(meaningOf(spec)));
    lines.push(`#${spec.name} = ${exampleOf(spec)}`);
    if (spec.secret) lines.push(`#${spec.name}-file = "FILE"`);
  }
  return lines.join("\n") + "\n";
}

/** With its default where that is no text, and whether it takes a restart. */
export function meaningOf(spec: SettingSpec): string {
  const fallback = spec.default === null
    ? " (none unless set)"
    : typeof spec.default === "object"
    ? ` (${spec.default.shown} unless set)`
    : "";
  return `${spec.meaning}${fallback}${spec.restart ? " (restart)" : ""}`;
}

/** The default as TOML (or YAML), or the value's form where there is no fixed default. */
export function exampleOf({ kind, default: initial }: SettingSpec): string {
  if (typeof initial !== "string") return JSON.stringify(kind.placeholder);
  const bare = kind.file === "boolean" || (kind.file === "number" && /^\d+$/.test(initial));
  return bare ? initial : JSON.stringify(initial);
}

/** As a comment of lines of at most 100 columns. */
export function commented(text: string): string[] {
  const lines: string[] = [];
  let line = "#";
  for (const word of text.split(" ")) {
    if (line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = "#";
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
