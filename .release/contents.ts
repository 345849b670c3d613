/** What stands in an archive beside the binary. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { exampleToml } from "./example.ts";
import { manual } from "./manual.ts";
import type { Stamp } from "./stamp.ts";
import { isLinux, type Target } from "./targets.ts";

/** Path in the archive → text. */
export type Texts = Readonly<Record<string, string>>;

/** @param notices the text of NOTICES. */
export async function textsFor(
  target: Target,
  { root, stamp, notices }: {
    readonly root: string;
    readonly stamp: Stamp;
    readonly notices: string;
  },
): Promise<Texts> {
  const file = (name: string) => readFileSync(join(root, name), "utf8");
  return {
    "README.md": file("README.md"),
    "CHANGELOG.md": file("CHANGELOG.md"),
    "LICENSE": file("LICENSE"),
    "NOTICES": notices,
    "shishi.toml": exampleToml(),
    ...(isLinux(target) ? {} : {}),
    ...(target.name.startsWith("windows") ? {} : { "shishi.1": await manual(stamp) }),
  };
}
