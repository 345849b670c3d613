/**
 * The README's fenced blocks that are marked by a word behind their language: "```sh quick-start". People
 * do not see it, and a test finds what people are told to type.
 */

import { readFileSync } from "node:fs";

const README = new URL("../../README.md", import.meta.url);

export interface Command {
  /** As it stands there, lines that end in a backslash joined. */
  readonly line: string;
  /** The lines right below it that begin with "# ": what it prints. Null where there are none. */
  readonly prints: string | null;
}

/** The text of each block with this mark, in order; throws when there is none. */
export function blocks(mark: string, text = readFileSync(README, "utf8")): string[] {
  const fence = /^```[a-z]+ (\S+)\n([\s\S]*?)^```$/gm;
  const found = [...text.matchAll(fence)].filter(([, name]) => name === mark);
  if (found.length === 0) throw new Error(`README.md has no block marked ${mark}`);
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
