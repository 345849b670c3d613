/** Which commit is built, and when it was made: the only time that a build may contain. */

import { spawnSync } from "node:child_process";
import process from "node:process";
import manifest from "../package.json" with { type: "json" };

export interface Stamp {
  readonly version: string;
  /** Twelve digits, `-dirty` behind them where tracked files differ; `unknown` without a repository. */
  readonly commit: string;
  /** Seconds since 1970. */
  readonly epochS: number;
}

/**
 * Of the repository whose top level is `root`; one that `root` merely lies in has commits of something
 * else. Where there is none (an image's build context, an unpacked archive), SOURCE_COMMIT says the
 * commit; SOURCE_DATE_EPOCH goes before the commit's own time, as reproducible-builds.org has it.
 */
export function readStamp(root: string, env = process.env): Stamp {
  const ours = git(root, "rev-parse", "--show-prefix") === "";
  const ask = (...args: string[]) => ours ? git(root, ...args) : "";
  // No tag may take the place of the digits.
  const commit = ask("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*");
  return {
    version: manifest.version,
    commit: env["SOURCE_COMMIT"] || commit || "unknown",
    epochS: Number(env["SOURCE_DATE_EPOCH"] || ask("log", "-1", "--format=%ct") || 0),
  };
}

/** Empty where git, or a repository, is missing. */
function git(root: string, ...args: string[]): string {
  const { status, stdout } = spawnSync("git", args, { cwd: root, encoding: "utf8" });
  return status === 0 ? stdout.trim() : "";
}
