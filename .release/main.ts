/**
 * `npm run release [-- TARGET ...]`: dist/release with an archive for each target (all of them unless
 * some are named), Debian packages, the bill of materials and SHA256SUMS. The same commit gives the same
 * bytes, in any folder. Needs git, npm, tar, xz and dpkg-deb. `--plain` leaves tar files as they
 * are, for haste.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { archive } from "./archive.ts";
import { type Bill, finishedBill } from "./bill.ts";
import { build, ROOT } from "./build.ts";
import { textsFor } from "./contents.ts";
import { noticeOf, noticesText, packagesOf } from "./notices.ts";
import { bunVersion, fetchRuntime, readLock } from "./runtime.ts";
import { writeDeb } from "./deb.ts";
import { debTexts } from "./deb_texts.ts";
import { readStamp } from "./stamp.ts";
import { isWindows, type Target, TARGETS } from "./targets.ts";

const DIST = join(ROOT, "dist");
const RELEASE = join(DIST, "release");
const lock = readLock(ROOT);
const bun = bunVersion(lock);
const stamp = readStamp(ROOT);
/** Targets that are a Debian package as well, and what Debian calls the machine. */
const DEBIAN: Readonly<Record<string, "amd64" | "arm64">> = {
  "linux-x64": "amd64",
  "linux-arm64": "arm64",
};
const name = `shishi-${stamp.version}`;

async function release(target: Target): Promise<void> {
  const folder = join(RELEASE, `${name}-${target.name}`);
  const metafile = join(RELEASE, "bundled.json");
  const runtime = fetchRuntime(lock, target, join(DIST, "bun"));
  mkdirSync(folder);
  const program = join(folder, isWindows(target) ? "shishi.exe" : "shishi");
  build({
    entry: "src/main.ts",
    outfile: program,
    stamp,
    foreign: { target, runtime },
    metafile,
  });
  const { inputs } = JSON.parse(readFileSync(metafile, "utf8"));
  rmSync(metafile);
  const notices = packagesOf(Object.keys(inputs)).map((one) => noticeOf(join(ROOT, one)));
  const texts = await textsFor(target, {
    root: ROOT,
    stamp,
    notices: noticesText(notices, bun),
  });
  for (const [path, text] of Object.entries(texts)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  const architecture = DEBIAN[target.name];
  if (architecture !== undefined) {
    const debian = { texts: await debTexts(ROOT, stamp, noticesText(notices, bun)), architecture };
    tell(writeDeb({ ...stamp, ...debian, binary: program, folder: RELEASE, quick: plain }));
  }
  const file = archive(folder, plain ? "tar" : "tar.xz", stamp.epochS);
  rmSync(folder, { recursive: true });
  tell(file);
}

function tell(file: string): void {
  say(`${file.slice(DIST.length + 1)}  ${(statSync(file).size / 1e6).toFixed(1)} MB`);
}

function writeBill(): void {
  const { status, stdout, stderr } = spawnSync(
    "npm",
    ["sbom", "--sbom-format=cyclonedx", "--omit=dev", "--package-lock-only"],
    { cwd: ROOT, encoding: "utf8" },
  );
  if (status !== 0) throw new Error(`npm sbom: ${stderr}`);
  const bill: Bill = finishedBill(JSON.parse(stdout), stamp, bun);
  writeFileSync(join(RELEASE, `${name}.cdx.json`), JSON.stringify(bill, null, 2) + "\n");
}

function writeSums(): void {
  const lines = readdirSync(RELEASE).sort().map((file) => {
    const hash = createHash("sha256").update(readFileSync(join(RELEASE, file))).digest("hex");
    return `${hash}  ${file}\n`;
  });
  writeFileSync(join(RELEASE, "SHA256SUMS"), lines.join(""));
}

const say = (line: string) => console.error(line);

const args = process.argv.slice(2);
const plain = args.includes("--plain");
const asked = args.filter((arg) => arg !== "--plain");
const unknown = asked.filter((one) => !TARGETS.some((target) => target.name === one));
if (unknown.length > 0) {
  say(
    `expected targets of ${TARGETS.map((one) => one.name).join(", ")}; got ${unknown.join(", ")}`,
  );
  process.exit(2);
}
if (stamp.commit.endsWith("-dirty")) say("files differ from the commit: this is no release");
rmSync(RELEASE, { recursive: true, force: true });
mkdirSync(RELEASE, { recursive: true });
for (const target of TARGETS) {
  if (asked.length === 0 || asked.includes(target.name)) await release(target);
}
writeBill();
writeSums();
