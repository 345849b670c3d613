/**
 * Folders → archives whose bytes depend on nothing but names, content and the time that is given: sorted,
 * owned by root, everything of the same time, no user's name, no umask. By GNU tar, xz and gzip.
 */

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  linkSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { gzipSync } from "node:zlib";

/** The settings of these tools that somebody keeps in the environment are none of ours. */
const { TAR_OPTIONS: _1, XZ_OPT: _2, XZ_DEFAULTS: _3, ...ENV } = process.env;

/** "stored": in the form of gzip, but as large as before. */
export type Kind = "tar" | "tar.xz" | "tar.gz" | "tar.gz, stored";

/** `folder` → `folder.tar`, `folder.tar.xz` or `folder.tar.gz`, in which it is the one top folder. */
export function archive(folder: string, kind: Kind, epochS: number): string {
  const [parent, name] = [dirname(folder), folder.slice(dirname(folder).length + 1)];
  const paths = ["", ...readdirSync(folder, { recursive: true, encoding: "utf8" })].sort()
    .map((path) => join(name, path));
  for (const path of paths) settle(join(parent, path), epochS);
  const file = `${folder}.${kind.split(",")[0]}`;
  rmSync(file, { force: true });
  const tar = `${folder}.tar`;
  run("tar", [
    ...["--create", "--file", tar, "--format=ustar", "--no-recursion", "--numeric-owner"],
    ...["--owner=0", "--group=0", "--directory", parent, ...paths],
  ], parent);
  if (kind === "tar") return file;
  if (kind === "tar.gz, stored") {
    writeFileSync(file, gzipSync(readFileSync(tar), { level: 0 }));
    rmSync(tar);
    return file;
  }
  if (kind === "tar.gz") {
    run("gzip", ["--force", "--no-name", "-9", tar], parent);
    return file;
  }
  // Always two threads: with one the blocks, and so the bytes, are others.
  run("xz", ["--force", "--threads=2", "-6", tar], parent);
  return file;
}

/** A hundred megabytes need not be there twice, where the file system has a way. */
export function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch {
    copyFileSync(from, to);
  }
}

/** Times and permissions, whatever the umask is. */
function settle(path: string, epochS: number): void {
  const { mode } = statSync(path);
  chmodSync(path, mode & 0o100 ? 0o755 : 0o644);
  utimesSync(path, epochS, epochS);
}

function run(command: string, args: readonly string[], cwd: string): void {
  const { status, error } = spawnSync(command, args, {
    cwd,
    env: { ...ENV, LC_ALL: "C" },
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) throw new Error(`${command}: ${error?.message ?? `exit code ${status}`}`);
}
