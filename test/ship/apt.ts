/** The repository for apt, on a host that has just been made: signed, it is trusted by its key alone. */

import assert from "node:assert/strict";
import { appendFileSync, cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { writeApt } from "../../.release/apt.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { ok } from "./exec.ts";
import { nextRelease, type Packaged, type Release, thisRelease } from "./releases.ts";
import { newRoot, type Root } from "./root.ts";

const KEY = "Shishi test <test@shishi.example>";
const SOURCE = "etc/apt/sources.list.d/shishi.sources";
/** No other source has a say. */
const ONLY = [`Dir::Etc::sourcelist=/${SOURCE}`, "Dir::Etc::sourceparts=/dev/null"]
  .flatMap((option) => ["-o", option]);

let root: Root;
let [first, next] = [null, null] as unknown as [Release, Packaged];
let folders: string[] = [];

before(async () => {
  [first, next, root] = await Promise.all([thisRelease(), nextRelease(), newRoot()]);
  folders = [tempDir("gpg"), tempDir("apt")];
  process.env["GNUPGHOME"] = folders[0]!;
  await ok(["chmod", "700", folders[0]!]);
  const make = ["--batch", "--passphrase", "", "--quick-generate-key", KEY, "ed25519", "sign", "0"];
  await ok(["gpg", ...make], { env: { GNUPGHOME: folders[0]! } });
});
after(async () => {
  await root?.close();
  folders.forEach(removeDir);
});

/** Puts a repository into the host as a web server would give it out. */
function serve(debs: readonly string[], key: string | null): void {
  const made = tempDir("repository");
  writeApt(debs, made, { epochS: 1_700_000_000, key });
  rmSync(join(root.path, "srv/apt"), { recursive: true, force: true });
  cpSync(made, join(root.path, "srv/apt"), { recursive: true });
  removeDir(made);
}

function listed(...more: string[]): void {
  const lines = [
    "Types: deb",
    "URIs: file:/srv/apt",
    "Suites: stable",
    "Components: main",
    ...more,
  ];
  writeFileSync(join(root.path, SOURCE), `${lines.join("\n")}\n`);
}

const apt = (...args: string[]) =>
  root.run(["apt-get", "-qq", ...ONLY, ...args], { env: { DEBIAN_FRONTEND: "noninteractive" } });
const update = () => apt("update", "-o", "APT::Update::Error-Mode=any");

test("a release has it, with the very package that lies beside the archives", async () => {
  const packages = readFileSync(
    join(first.folder, "apt/dists/stable/main/binary-amd64/Packages"),
    "utf8",
  );
  const field = (name: string) => new RegExp(`^${name}: (.+)$`, "m").exec(packages)?.[1];
  assert.match(await ok(["sha256sum", first.deb]), new RegExp(`^${field("SHA256")} `));
  const inPool = join(first.folder, "apt", field("Filename")!);
  await ok(["cmp", first.deb, inPool]);
});

test("unsigned, apt takes it only where it is told to trust it", async () => {
  serve([first.deb], null);
  listed();
  const { code, stderr } = await update();
  assert.notEqual(code, 0);
  assert.match(stderr, /is not signed/);
  listed("Trusted: yes");
  assert.deepEqual(await update(), { code: 0, stdout: "", stderr: "" });
});

test("signed, it is trusted by its key, which lies in it", async () => {
  serve([first.deb], KEY);
  listed("Signed-By: /usr/share/keyrings/shishi.asc");
  assert.notEqual((await update()).code, 0, "before the key is known");
  cpSync(join(root.path, "srv/apt/shishi.asc"), join(root.path, "usr/share/keyrings/shishi.asc"));
  assert.deepEqual(await update(), { code: 0, stdout: "", stderr: "" });
  const installed = await apt("install", "-y", "--no-install-recommends", "shishi-collector");
  assert.equal(installed.code, 0, installed.stderr);
  assert.match(await root.ok(["shishi", "--version"]), new RegExp(`^shishi ${first.version} `));
});

test("the next version in it is an upgrade", async () => {
  serve([first.deb, next.deb], KEY);
  assert.deepEqual(await update(), { code: 0, stdout: "", stderr: "" });
  const upgraded = await apt("upgrade", "-y");
  assert.equal(upgraded.code, 0, upgraded.stderr);
  assert.match(await root.ok(["shishi", "--version"]), new RegExp(`^shishi ${next.version} `));
});

test("what somebody changed in it is refused", async () => {
  appendFileSync(join(root.path, "srv/apt/dists/stable/main/binary-amd64/Packages"), "\n");
  rmSync(join(root.path, "srv/apt/dists/stable/main/binary-amd64/Packages.gz"));
  await root.ok(["sh", "-c", "rm -rf /var/lib/apt/lists/*"]);
  assert.notEqual((await update()).code, 0);
});
