/**
 * A folder that apt can install from, once a web server has it: the Debian packages in a pool, and what apt reads of
 * them. Signed with a key of gpg where one is given; without, apt takes it only where it is told to trust it.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { gzipSync } from "node:zlib";
import { linkOrCopy } from "./archive.ts";

const SUITE = "stable";
const COMPONENT = "main";
const POOL = "pool/main/s/shishi-collector";
/** All that hashes of apt's indexes are made with. */
const HASH = "SHA256";

/**
 * @param debs paths of the packages. @param folder gets `dists` and `pool`.
 * @param key of gpg to sign with, by its id or address; null: it is not signed.
 */
export function writeApt(
  debs: readonly string[],
  folder: string,
  { epochS, key }: { readonly epochS: number; readonly key: string | null },
): void {
  const stanzas = debs.map((deb) => {
    const text = ask("dpkg-deb", "--field", deb);
    const bytes = readFileSync(deb);
    const path = `${POOL}/${basename(deb)}`;
    mkdirSync(join(folder, POOL), { recursive: true });
    // The same file as beside the archives.
    linkOrCopy(deb, join(folder, path));
    return {
      architecture: /^Architecture: (.+)$/m.exec(text)?.[1] ?? "",
      text: `${text.trimEnd()}\nFilename: ${path}\nSize: ${bytes.length}\n${HASH}: ${
        sha256(bytes)
      }\n`,
    };
  });
  const architectures = [...new Set(stanzas.map(({ architecture }) => architecture))].sort();
  const indexes = new Map<string, Uint8Array>();
  for (const one of architectures) {
    const text = stanzas.filter(({ architecture }) => architecture === one).map(({ text }) => text);
    const packages = new TextEncoder().encode(text.join("\n"));
    const path = `${COMPONENT}/binary-${one}/Packages`;
    indexes.set(path, packages);
    indexes.set(`${path}.gz`, gzipSync(packages, { level: 9 }));
  }
  const suite = join(folder, "dists", SUITE);
  for (const [path, bytes] of indexes) write(join(suite, path), bytes);
  const release = releaseText(indexes, architectures, epochS);
  write(join(suite, "Release"), release);
  if (key !== null) sign(suite, key);
}

function releaseText(
  indexes: ReadonlyMap<string, Uint8Array>,
  architectures: readonly string[],
  epochS: number,
): string {
  return [
    "Origin: Shishi",
    "Label: Shishi",
    `Suite: ${SUITE}`,
    `Codename: ${SUITE}`,
    `Date: ${new Date(epochS * 1000).toUTCString().replace("GMT", "+0000")}`,
    `Architectures: ${architectures.join(" ")}`,
    `Components: ${COMPONENT}`,
    "Description: Shishi, an edge collector for ClickHouse",
    `${HASH}:`,
    ...[...indexes].map(([path, bytes]) => ` ${sha256(bytes)} ${bytes.length} ${path}`),
    "",
  ].join("\n");
}

/** Both forms that apt looks for, and the key itself, for those who are to trust it. */
function sign(suite: string, key: string): void {
  const gpg = ["--batch", "--yes", "--local-user", key, "--digest-algo", "SHA256"];
  const release = join(suite, "Release");
  ask("gpg", ...gpg, "--clearsign", "--output", join(suite, "InRelease"), release);
  ask("gpg", ...gpg, "--armor", "--detach-sign", "--output", `${release}.gpg`, release);
  write(join(suite, "../../shishi.asc"), ask("gpg", "--batch", "--armor", "--export", key));
}

function write(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

function ask(command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: "utf8",
    env: process.env,
  });
  if (status !== 0) throw new Error(`${command}: ${error?.message ?? stderr}`);
  return stdout;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
