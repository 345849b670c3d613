/** Releases for this machine's kind, made by the very script that makes them all: this one and the next. */

import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../.release/build.ts";
import { readStamp } from "../../.release/stamp.ts";
import { tempDir } from "../kit/temp.ts";
import { ok } from "./exec.ts";

export interface Release {
  readonly version: string;
  /** Where its files lie; the tar file is not compressed. */
  readonly folder: string;
  /** Path of the Debian package. */
  readonly deb: string;
}

const NEEDED = [
  ...["src", ".release", "test/grafana", "package-lock.json", "LICENSE"],
  ...["README.md", "docs", "CONTRIBUTING.md", "CHANGELOG.md"],
];
const stamp = readStamp(ROOT);
const made = new Map<string, Promise<Release>>();

/** Of the source as it is. */
export function thisRelease(): Promise<Release> {
  return release(stamp.version);
}

/** The same source under the next number, e.g. 0.1.1 after 0.1.0. */
export async function nextRelease(): Promise<Release> {
  // Not beside it: both would fetch the same Bun into the same place.
  await thisRelease();
  return await release(stamp.version.replace(/\d+$/, (patch) => String(Number(patch) + 1)));
}

/** Once for each version. */
function release(version: string): Promise<Release> {
  const making = made.get(version) ?? make(version);
  made.set(version, making);
  return making;
}

async function make(version: string): Promise<Release> {
  const copy = tempDir("release");
  for (const name of NEEDED) cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  writeFileSync(join(copy, "package.json"), JSON.stringify({ ...manifest, version }));
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
  // What was fetched for one is there for all.
  for (const folder of [join(ROOT, "dist/bun"), join(copy, "dist")]) {
    mkdirSync(folder, { recursive: true });
  }
  symlinkSync(join(ROOT, "dist/bun"), join(copy, "dist/bun"));
  await ok([process.execPath, ".release/main.ts", "--plain", "linux-x64"], {
    cwd: copy,
    env: { SOURCE_COMMIT: stamp.commit, SOURCE_DATE_EPOCH: String(stamp.epochS) },
  });
  const folder = join(copy, "dist/release");
  const deb = readdirSync(folder).find((name) => name.endsWith("_amd64.deb"));
  return { version, folder, deb: join(folder, deb ?? "") };
}
