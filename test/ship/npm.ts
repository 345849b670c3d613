/** The packages for npm, installed from their tarballs into an empty folder, without a network. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageOf, writeLauncher } from "../../.release/npm.ts";
import { TARGETS } from "../../.release/targets.ts";
import { freePort } from "../kit/free_port.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { cleanEnv, ok, run } from "./exec.ts";
import { type Release, thisRelease } from "./releases.ts";

let release: Release;
let folder: string;
/** Nothing that some other installation has fetched. */
let cache: string;

before(async () => {
  release = await thisRelease();
  [folder, cache] = [tempDir("npm"), tempDir("npm-cache")];
  const tarballs = readdirSync(join(release.folder, "npm")).map((name) =>
    join(release.folder, "npm", name)
  );
  await npm("install", "--no-audit", "--no-fund", ...tarballs);
});
after(() => [folder, cache].forEach(removeDir));

/** npm as it is on this host, which asks no registry. */
const npm = (...args: string[]) => inFolder("npm", ...args, "--offline", "--cache", cache);
const npx = (...args: string[]) => run(["npx", "--offline", ...args], { cwd: folder });
const inFolder = (...command: string[]) => ok(command, { cwd: folder });

test("npx shishi runs the program of this machine", async () => {
  const { code, stdout, stderr } = await npx("shishi", "--version");
  assert.deepEqual([code, stderr], [0, ""]);
  assert.ok(
    stdout.startsWith(`shishi ${release.version} (`) && stdout.includes("linux-x64"),
    stdout,
  );
});

test("flags and exit codes are the program's", async () => {
  const { code, stderr } = await npx("shishi", "--backlog", "none");
  assert.equal(code, 2);
  assert.match(stderr, /--backlog: expected a whole number/);
});

test("the collector takes events, and a signal reaches it: it drains", async () => {
  const listen = `127.0.0.1:${await freePort()}`;
  const args = ["--listen", listen, "--clickhouse-url", `http://127.0.0.1:${await freePort()}`];
  const child = spawn(
    "node_modules/.bin/shishi",
    [...args, "--data-dir", join(folder, "data"), "--shutdown-timeout", "100ms"],
    { cwd: folder, env: cleanEnv(), stdio: ["ignore", "ignore", "pipe"] },
  );
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  const ended = new Promise((resolve) => child.once("exit", (code) => resolve(code)));
  await eventually(async () => {
    const init = { method: "POST", body: '{"eventType":"a"}' };
    assert.equal((await fetch(`http://${listen}/events`, init)).status, 202, stderr);
  }, { withinMs: 20_000 });
  child.kill("SIGTERM");
  assert.equal(await ended, 0, stderr);
  assert.match(stderr, /"received":1,/);
});

test("the packages say for which machine each is, and shishi names them all in its own version", () => {
  const read = (name: string) =>
    JSON.parse(readFileSync(join(folder, "node_modules", name, "package.json"), "utf8"));
  const { optionalDependencies, bin, scripts } = read("shishi");
  assert.deepEqual(
    optionalDependencies,
    Object.fromEntries(TARGETS.map((target) => [packageOf(target), release.version])),
  );
  assert.deepEqual([bin, scripts], [{ shishi: "bin/shishi.cjs" }, undefined]);
  const { os, cpu, libc, version } = read("@shishi/linux-x64");
  assert.deepEqual([os, cpu, libc, version], [["linux"], ["x64"], ["glibc"], release.version]);
});

test("where the program was left out, it is said which package is missing", async () => {
  const other = tempDir("npm-other");
  try {
    const order = { version: "1.0.0", epochS: 0, quick: true, folder: other, texts: {} };
    const tarball = writeLauncher([], order);
    const empty = join(other, "empty");
    mkdirSync(empty);
    // Else npm looks for one in the folders above.
    writeFileSync(join(empty, "package.json"), "{}");
    await ok(
      ["npm", "install", "--offline", "--cache", cache, "--no-audit", "--no-fund", tarball],
      {
        cwd: empty,
      },
    );
    const { code, stderr } = await run([join(empty, "node_modules/.bin/shishi")], { cwd: empty });
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^shishi: expected the package @shishi\/linux-x64, which is not installed/,
    );
  } finally {
    rmSync(other, { recursive: true });
  }
});
