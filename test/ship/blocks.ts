/**
 * The fenced blocks of README and docs/ that are marked by a word behind their language: "```sh quick-start".
 * A reader does not see the word, and a test finds the lines that a reader types.
 */

import { readdirSync, readFileSync } from "node:fs";

const ROOT = new URL("../../", import.meta.url);

/** README first, then the pages of docs/ in the order of their names. */
function everyPage(): string {
  const docs = readdirSync(new URL("docs/", ROOT)).filter((name) => name.endsWith(".md")).sort();
  return ["README.md", ...docs.map((name) => `docs/${name}`)]
    .map((page) => readFileSync(new URL(page, ROOT), "utf8")).join("\n");
}

export interface Command {
  /** As it stands there, lines that end in a backslash joined. */
  readonly line: string;
  /** The lines right below it that begin with "# ": what it prints. Null where there are none. */
  readonly prints: string | null;
}

/** The text of each block with this mark, in order; throws when there is none. */
export function blocks(mark: string, text = everyPage()): string[] {
  const fence = /^```[a-z]+ (\S+)\n([\s\S]*?)^```$/gm;
  const found = [...text.matchAll(fence)].filter(([, name]) => name === mark);
  if (found.length === 0) throw new Error(`neither README.md nor docs/ has a block marked ${mark}`);
  return found.map(([, , body]) => body!);
}

/** The commands of a shell block, each with what is said to come of it. */
export function commands(block: string): Command[] {
  const found: { line: string; prints: string | null }[] = [];
  for (const line of block.replaceAll("\\\n", "").split("\n")) {
    const last = found.at(-1);
    if (line.startsWith("# ") && last !== undefined) {
      last.prints = `${last.prints ?? ""}${line.slice(2)}\n`;
    } else if (line.trim() !== "" && !line.startsWith("#")) {
      found.push({ line, prints: null });
    }
  }
  return found;
}
