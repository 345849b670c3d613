/**
 * `bun test/release/reproduce.ts`: releases made from two copies of these files, in two folders, are the
 * same to the byte, hold what they should, and the binary in them runs. One of them stays for the tests of what is
 * shipped (reproduced.ts). No `_test.ts`: it takes a while and need run only once, not on every runtime. Throws
 * when something is wrong.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { ROOT } from "../../.release/build.ts";
import { MONITORING } from "../../.release/contents.ts";
import { readLock } from "../../.release/runtime.ts";
import { readStamp } from "../../.release/stamp.ts";
import { REPRODUCED } from "./reproduced.ts";

const HERE = join(ROOT, "dist/reproduce");
/** Names of different lengths: a path that got into a file would move what stands behind it. */
const FOLDERS = ["one", "another-folder"].map((name) => join(HERE, name));
const stamp = readStamp(ROOT);
const NAME = `shishi-${stamp.version}-linux-x64`;
const DEB = `shishi-collector_${stamp.version}-1_amd64.deb`;
const PAGES = readdirSync(join(ROOT, "docs")).filter((name) => name.endsWith(".md"));
const IN_IT = [
  ...["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "NOTICES", "README.md"],
  ...["docs", ...PAGES.map((name) => `docs/${name}`), "completions", "completions/_shishi"],
  ...["completions/shishi", "completions/shishi.fish", "shishi", "shishi.1", "shishi.service"],
  ...["shishi.toml", "monitoring", ...MONITORING.map((name) => `monitoring/${name}`)],
];

function run(command: string, args: readonly string[], cwd: string, env = {}): string {
  return execFileSync(command, args, {
    cwd,
    env: { ...process.env, ...env },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 28,
  });
}

/** What git would clone, as it is here, and the packages that are not for development alone. */
function copyInto(folder: string): void {
  const list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const files = run("git", list, ROOT).split("\0");
  const modules = Object.entries(readLock(ROOT).packages)
    .filter(([path, { dev }]) => path !== "" && dev !== true).map(([path]) => path)
    // Those for other machines are in the lockfile alone.
    .filter((path) => existsSync(join(ROOT, path)));
  for (const path of [...files, ...modules].filter(Boolean)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    cpSync(join(ROOT, path), join(folder, path), { recursive: true });
  }
  // What was fetched for one is there for all.
  mkdirSync(join(ROOT, "dist/bun"), { recursive: true });
  mkdirSync(join(folder, "dist"));
  symlinkSync(join(ROOT, "dist/bun"), join(folder, "dist/bun"));
}

function release(folder: string, ...args: string[]): Map<string, Uint8Array> {
  // The copies are no repositories.
  const env = { SOURCE_COMMIT: stamp.commit, SOURCE_DATE_EPOCH: String(stamp.epochS) };
  run(process.execPath, [".release/main.ts", "--plain", ...args], folder, env);
  const made = join(folder, "dist/release");
  const paths = readdirSync(made, { recursive: true, encoding: "utf8" });
  return new Map(
    paths.filter((path) => statSync(join(made, path)).isFile())
      .map((path) => [path, readFileSync(join(made, path))]),
  );
}

for (const folder of [HERE, REPRODUCED]) rmSync(folder, { recursive: true, force: true });
const atMs = Date.now();
try {
  const [first = new Map(), second = new Map()] = FOLDERS.map((folder) => {
    copyInto(folder);
    return release(folder, "linux-x64");
  });
  assert.deepEqual(
    [...first.keys()].sort(),
    [
      "SHA256SUMS",
      `shishi-${stamp.version}.cdx.json`,
      `${NAME}.tar`,
      DEB,
      ...["Release", "main/binary-amd64/Packages", "main/binary-amd64/Packages.gz"]
        .map((name) => `apt/dists/stable/${name}`),
      `apt/pool/main/s/shishi-collector/${DEB}`,
      ...["index.yaml", `shishi-${stamp.version}.tgz`].map((name) => `helm/${name}`),
      "homebrew/shishi.rb",
      ...["shishi", "shishi-linux-x64"].map((name) => `npm/${name}-${stamp.version}.tgz`),
    ].sort(),
  );
  for (const [name, bytes] of first) {
    assert.ok(Buffer.compare(bytes, second.get(name)) === 0, `${name} differs in another folder`);
    assert.ok(!bytes.includes(ROOT), `${name}: expected no path of the checkout, found ${ROOT}`);
  }

  const [folder = ""] = FOLDERS;
  run("sha256sum", ["--check", "--quiet", "SHA256SUMS"], join(folder, "dist/release"));
  run("tar", ["--extract", "--file", join(folder, "dist/release", `${NAME}.tar`)], HERE);
  const unpacked = join(HERE, NAME);
  assert.deepEqual(readdirSync(unpacked, { recursive: true }).sort(), IN_IT.sort());
  assert.match(readFileSync(join(unpacked, "NOTICES"), "utf8"), /\nhono \d/);
  const version = run(join(unpacked, "shishi"), ["--version"], HERE);
  assert.ok(version.includes(`shishi ${stamp.version} (commit ${stamp.commit}, `), version);
  assert.ok(version.includes(", linux-x64)"), version);

  mkdirSync(REPRODUCED);
  renameSync(join(folder, "dist/release"), join(REPRODUCED, "release"));
  writeFileSync(join(REPRODUCED, "stamp.json"), JSON.stringify({ ...stamp, atMs }));

  // Another machine's, whose Bun has to be fetched. Nothing here can run it.
  const names = [...release(folder, "--no-bytecode", "linux-arm64-musl", "windows-x64").keys()];
  assert.ok(names.includes(`shishi-${stamp.version}-linux-arm64-musl.tar`), names.join());
  assert.ok(names.includes(`shishi-${stamp.version}-windows-x64.tar`), names.join());
} finally {
  rmSync(HERE, { recursive: true, force: true });
}
