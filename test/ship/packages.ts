/** The Debian package of this source, and of the version after it. */

import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeDeb } from "../../.release/deb.ts";
import { debTexts } from "../../.release/deb_texts.ts";
import { readStamp } from "../../.release/stamp.ts";
import { ROOT } from "../../.release/build.ts";
import { tempDir } from "../kit/temp.ts";
import { ok } from "./exec.ts";

export interface Packed {
  readonly version: string;
  /** The .deb. */
  readonly path: string;
}

/** Of `dist/shishi`, in a folder of its own. */
export async function packThis(): Promise<Packed> {
  return await pack(readStamp(ROOT).version, join(ROOT, "dist/shishi"));
}

/** The same source under the next number. */
export async function packNext(): Promise<Packed> {
  const version = nextOf(readStamp(ROOT).version);
  const copy = tempDir("next");
  for (const name of ["src", ".release"]) {
    cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  writeFileSync(join(copy, "package.json"), JSON.stringify({ ...manifest, version }));
  mkdirSync(join(copy, "dist"));
  const bun = join(ROOT, "node_modules/.bin/bun");
  await ok([bun, ".release/build.ts", "src/main.ts", "dist/shishi"], { cwd: copy });
  return await pack(version, join(copy, "dist/shishi"));
}

async function pack(version: string, binary: string): Promise<Packed> {
  const stamp = readStamp(ROOT);
  const texts = await debTexts(ROOT, stamp, "");
  const folder = tempDir("deb");
  const order = { version, architecture: "amd64", binary, texts, folder, quick: true } as const;
  return { version, path: writeDeb({ ...order, epochS: stamp.epochS }) };
}

/** @returns e.g. 0.1.1 for 0.1.0. */
function nextOf(version: string): string {
  const [major, minor, patch] = version.split(".");
  return `${major}.${minor}.${Number(patch) + 1}`;
}
