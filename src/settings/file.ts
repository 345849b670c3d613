/**
 * TOML text → given values. The file is flat: a key is a setting's name. Messages carry names, lines
 * and types, never a piece of the text, for it may hold secrets.
 */

import { parse, TomlError } from "smol-toml";
import type { Gathered, Given } from "./given.ts";
import { hint, printable } from "../kernel/text.ts";
import { type Names } from "./names.ts";
import { quote, type SettingSpec } from "./spec.ts";

/** Larger is no settings file. */
const MAX_TEXT_LENGTH = 1 << 20;

/**
 * @param fileName only for messages.
 * @param names the settings of this command; @param others every setting: known, but not used here.
 */
export function readToml(toml: string, fileName: string, names: Names, others: Names): Gathered {
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
    const torn = value.find((item) => item.includes(","));
    if (torn !== undefined) {
      const show = spec.kind.show ?? quote;
      return { found: `the item ${show(torn)}, with a comma`, exact: true };
    }
    return value.join(",");
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
