/**
 * The packages for npm: one for each machine, which holds the program and says for whom it is (`os`, `cpu`,
 * `libc`), and `shishi`, which has all of them as optional dependencies, so that npm installs the one that fits.
 * None has an install script.
 */

import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import manifest from "../package.json" with { type: "json" };
import { archive, linkOrCopy } from "./archive.ts";
import { HOMEPAGE } from "./homepage.ts";
import { isLinux, isWindows, type Target } from "./targets.ts";

const LAUNCHER = fileURLToPath(new URL("npm/shishi.cjs", import.meta.url));

export interface NpmOrder {
  readonly version: string;
  /** Where the tarball is written. */
  readonly folder: string;
  /** Seconds since 1970, of every file in it. */
  readonly epochS: number;
  /** For tests, which have no minute to spare. */
  readonly quick: boolean;
  /** Name → text of what lies in the package besides. */
  readonly texts: Readonly<Record<string, string>>;
}

/** `@shishi/linux-x64-musl` */
export const packageOf = ({ name }: Target) => `@shishi/${name}`;

/** The package for one machine. @param binary path of its program. @returns the tarball's path. */
export function writeMachine(target: Target, binary: string, order: NpmOrder): string {
  const program = isWindows(target) ? "shishi.exe" : "shishi";
  const [system = "", cpu = "", libc] = target.name.split("-");
  return pack(order, {
    name: packageOf(target),
    description: `${manifest.description} The program for ${target.name}.`,
    os: [isWindows(target) ? "win32" : system],
    cpu: [cpu],
    ...(isLinux(target) ? { libc: [libc ?? "glibc"] } : {}),
    // No program is to be unpacked from the archive of a package manager.
    preferUnplugged: true,
  }, (tree) => {
    mkdirSync(join(tree, "bin"));
    linkOrCopy(binary, join(tree, "bin", program));
    chmodSync(join(tree, "bin", program), 0o755);
  });
}

/** `shishi` itself. @param targets that there are packages for. @returns the tarball's path. */
export function writeLauncher(targets: readonly Target[], order: NpmOrder): string {
  return pack(order, {
    name: manifest.name,
    description: manifest.description,
    keywords: ["clickhouse", "events", "collector", "analytics", "ingest"],
    bin: { shishi: "bin/shishi.cjs" },
    engines: { node: ">=16" },
    optionalDependencies: Object.fromEntries(
      targets.map((target) => [packageOf(target), order.version]),
    ),
  }, (tree) => {
    mkdirSync(join(tree, "bin"));
    copyFileSync(LAUNCHER, join(tree, "bin/shishi.cjs"));
    chmodSync(join(tree, "bin/shishi.cjs"), 0o755);
  });
}

/** As `npm pack` does it, but with one time for all, and only stored where that is asked for. */
function pack(order: NpmOrder, more: PackageJson, fill: (tree: string) => void): string {
  const { version, texts, folder, epochS, quick } = order;
  const tree = join(folder, "package");
  mkdirSync(tree);
  const { license } = manifest;
  writeFileSync(
    join(tree, "package.json"),
    JSON.stringify({ ...more, version, license, homepage: HOMEPAGE }, null, 2) + "\n",
  );
  for (const [name, text] of Object.entries(texts)) writeFileSync(join(tree, name), text);
  fill(tree);
  const packed = archive(tree, quick ? "tar.gz, stored" : "tar.gz", epochS);
  rmSync(tree, { recursive: true });
  const file = join(folder, `${more.name.replace(/^@/, "").replace("/", "-")}-${version}.tgz`);
  renameSync(packed, file);
  return file;
}

interface PackageJson {
  readonly name: string;
  readonly [key: string]: unknown;
}

/** What every package says of itself. */
export function npmTexts(root: string, notices: string): Readonly<Record<string, string>> {
  const license = readFileSync(join(root, "LICENSE"), "utf8");
  return { "LICENSE": license, "NOTICES": notices, "README.md": README };
}

const README = `# Shishi

An edge collector for ClickHouse: \`curl\` events to it, and what it acknowledged is in ClickHouse soon after.

    npx shishi --clickhouse-url http://127.0.0.1:8123
    curl -d '{"eventType":"click","userId":"u1"}' localhost:8080/events

The program is a binary for this machine; node only starts it. \`npx shishi --help\` has every setting.
`;
