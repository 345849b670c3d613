/**
 * `main.ts` of this folder as a binary, compiled as users' one is: the same points of death are to hold
 * in what they run. Made when it is missing or older than its source.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const BINARY = join(ROOT, "dist/crash");

/** @returns its path. */
export function crashBinary(): string {
  if (!isFresh()) build();
  return BINARY;
}

function build(): void {
  mkdirSync(join(ROOT, "dist"), { recursive: true });
  // Another runner may be at it as well.
  const fresh = `${BINARY}.${process.pid}`;
  const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  const command = (scripts.build as string).split(" && ").at(-1)!
    .replace("src/main.ts", "test/crash/main.ts").replace("dist/shishi", fresh);
  assert.ok(command.includes("test/crash/main.ts") && command.includes(fresh), command);
  const { status, stderr } = spawnSync(command, { cwd: ROOT, shell: true, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  renameSync(fresh, BINARY);
}

function isFresh(): boolean {
  if (!existsSync(BINARY)) return false;
  const builtMs = statSync(BINARY).mtimeMs;
  const sources = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" });
  return ["test/crash/main.ts", "package.json", ...sources.map((name) => join("src", name))]
    .every((name) => statSync(join(ROOT, name)).mtimeMs < builtMs);
}
