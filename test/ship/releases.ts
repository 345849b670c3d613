/** Releases for this machine's kind, made by the very script that makes them all: this one and the next. */

import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../.release/build.ts";
import { writeDeb } from "../../.release/deb.ts";
import { debTexts } from "../../.release/deb_texts.ts";
import { readStamp } from "../../.release/stamp.ts";
import { REPRODUCED } from "../release/reproduced.ts";
import { tempDir } from "../kit/temp.ts";
import { ok } from "./exec.ts";

/** A version as a Debian package. */
export interface Packaged {
  readonly version: string;
  /** Path of the Debian package. */
  readonly deb: string;
}

export interface Release extends Packaged {
  /** Where its files lie; the tar file is not compressed. Not to be written to. */
  readonly folder: string;
}

const NEEDED = [
  ...["src", ".release", "test/grafana", "package-lock.json", "LICENSE"],
  ...["README.md", "docs", "CONTRIBUTING.md", "CHANGELOG.md"],
];
const stamp = readStamp(ROOT);
let [first, next]: [Promise<Release> | null, Promise<Packaged> | null] = [null, null];

/** Of the source as it is. */
export function thisRelease(): Promise<Release> {
  return first ??= isReproduced()
    ? Promise.resolve(releaseIn(join(REPRODUCED, "release")))
    : makeFirst();
}

/** The same source under the next number, e.g. 0.1.1 after 0.1.0. Of it there is the Debian package alone. */
export function nextRelease(): Promise<Packaged> {
  return next ??= makeNext();
}

/** Whether there is a release of these very files, see reproduce.ts. */
function isReproduced(): boolean {
  const [made, release] = ["stamp.json", "release"].map((name) => join(REPRODUCED, name));
  if (!existsSync(release!) || !existsSync(made!)) return false;
  const { atMs, ...of } = JSON.parse(readFileSync(made!, "utf8"));
  if (JSON.stringify(of) !== JSON.stringify(stamp)) return false;
  return [...NEEDED, "package.json"].every((name) => {
    const path = join(ROOT, name);
    const below = statSync(path).isDirectory()
      ? readdirSync(path, { recursive: true, encoding: "utf8" })
      : [""];
    return below.every((file) => statSync(join(path, file)).mtimeMs < atMs);
  });
}

function releaseIn(folder: string): Release {
  const deb = readdirSync(folder).find((name) => name.endsWith("_amd64.deb"));
  return { version: stamp.version, folder, deb: join(folder, deb ?? "") };
}

async function makeFirst(): Promise<Release> {
  const copy = copyAs(stamp.version);
  await ok([process.execPath, ".release/main.ts", "--plain", "linux-x64"], {
    cwd: copy,
    env: { SOURCE_COMMIT: stamp.commit, SOURCE_DATE_EPOCH: String(stamp.epochS) },
  });
  return releaseIn(join(copy, "dist/release"));
}

async function makeNext(): Promise<Packaged> {
  const version = stamp.version.replace(/\d+$/, (patch) => String(Number(patch) + 1));
  const copy = copyAs(version);
  await ok([process.execPath, ".release/build.ts", "--no-bytecode"], { cwd: copy });
  const binary = join(copy, "dist/shishi");
  const texts = await debTexts(ROOT, { ...stamp, version }, "as before");
  const order = { ...stamp, version, texts, binary, folder: copy, quick: true };
  return { version, deb: writeDeb({ ...order, architecture: "amd64" }) };
}

/** What a release is made of, under that number. @returns a folder that ends with the tests. */
function copyAs(version: string): string {
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
  return copy;
}
