/**
 * Bun for other machines. It comes from npm like the rest, and nothing is done with it unless its hash
 * is the one in package-lock.json.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { isWindows, type Target } from "./targets.ts";

interface Lock {
  readonly packages: Readonly<
    Record<string, { version: string; integrity?: string; dev?: boolean }>
  >;
}

export function readLock(root: string): Lock {
  return JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
}

export function bunVersion({ packages }: Lock): string {
  return packages["node_modules/bun"]!.version;
}

/**
 * @param folder keeps what was fetched.
 * @returns the path of the executable.
 */
export function fetchRuntime(lock: Lock, target: Target, folder: string): string {
  const pinned = lock.packages[`node_modules/${target.runtime}`];
  if (pinned?.integrity === undefined) {
    throw new Error(`package-lock.json: expected ${target.runtime} with its hash, got none`);
  }
  const home = join(folder, `${target.name}-${pinned.version}`);
  const program = join(home, "package/bin", isWindows(target) ? "bun.exe" : "bun");
  if (existsSync(program)) return program;
  const fresh = `${home}.${process.pid}`;
  mkdirSync(fresh, { recursive: true });
  try {
    run(
      "npm",
      "pack",
      "--silent",
      "--pack-destination",
      fresh,
      `${target.runtime}@${pinned.version}`,
    );
    const [name = ""] = readdirSync(fresh);
    const tarball = join(fresh, name);
    const found = integrityOf(readFileSync(tarball));
    if (found !== pinned.integrity) {
      throw new Error(`${target.runtime}: expected ${pinned.integrity}, got ${found}`);
    }
    run("tar", "--extract", "--gzip", "--file", tarball, "--directory", fresh);
    rmSync(tarball);
    renameSync(fresh, home);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
  return program;
}

/** As lockfiles write it. */
export function integrityOf(bytes: Uint8Array): string {
  return `sha512-${createHash("sha512").update(bytes).digest("base64")}`;
}

function run(command: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr || status}`);
}
