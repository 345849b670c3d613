/**
 * `npm run release [-- TARGET ...]`: dist/release with an archive for each target (all of them unless
 * some are named), Debian packages, what npm, Homebrew, apt and Helm install from, the bill of materials and
 * SHA256SUMS. The same commit gives the same bytes, in any folder, but for signatures. Needs git, npm, tar, gzip, xz and
 * dpkg-deb.
 *
 * - `--url=URL`: the folder from which the files will be given out; the formula and the chart's index name it.
 * - `--sign=KEY`: of gpg, which then signs the repository for apt.
 * - `--plain`: compresses nothing, for haste.
 * - `--no-bytecode`: neither compiles the source beforehand; the program takes longer to start.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { archive } from "./archive.ts";
import { type Bill, finishedBill } from "./bill.ts";
import { build, ROOT } from "./build.ts";
import { writeApt } from "./apt.ts";
import { writeChart } from "./chart.ts";
import { textsFor } from "./contents.ts";
import { releaseUrl } from "./homepage.ts";
import { formula, type Packed } from "./homebrew.ts";
import { npmTexts, writeLauncher, writeMachine } from "./npm.ts";
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

/** What the last steps need of those before. */
const made = { archives: [] as Packed[], debs: [] as string[], notices: "" };

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
    bytecode: !args.includes("--no-bytecode"),
  });
  const { inputs } = JSON.parse(readFileSync(metafile, "utf8"));
  rmSync(metafile);
  const notices = packagesOf(Object.keys(inputs)).map((one) => noticeOf(join(ROOT, one)));
  made.notices = noticesText(notices, bun);
  const texts = await textsFor(target, { root: ROOT, stamp, notices: made.notices });
  for (const [path, text] of Object.entries(texts)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  const architecture = DEBIAN[target.name];
  if (architecture !== undefined) {
    const debian = { texts: await debTexts(ROOT, stamp, made.notices), architecture };
    const deb = writeDeb({ ...stamp, ...debian, binary: program, folder: RELEASE, quick: plain });
    made.debs.push(deb);
    tell(deb);
  }
  tell(writeMachine(target, program, npmOrder()));
  const file = archive(folder, plain ? "tar" : "tar.xz", stamp.epochS);
  rmSync(folder, { recursive: true });
  made.archives.push({ target, file: basename(file), sha256: sha256(file) });
  tell(file);
}

const npmOrder = () => ({
  ...stamp,
  folder: folderOf("npm"),
  quick: plain,
  texts: npmTexts(ROOT, made.notices),
});

/** From where people install, for the targets that were made. */
function writeRepositories(): void {
  tell(writeLauncher(TARGETS, npmOrder()));
  writeFileSync(
    join(folderOf("homebrew"), "shishi.rb"),
    formula(stamp.version, made.archives, url),
  );
  if (made.debs.length > 0) writeApt(made.debs, folderOf("apt"), { ...stamp, key });
  writeChart(ROOT, folderOf("helm"), stamp, `${url}/helm`);
}

/** Made where it is missing. */
function folderOf(name: string): string {
  const folder = join(RELEASE, name);
  mkdirSync(folder, { recursive: true });
  return folder;
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
  const lines = readdirSync(RELEASE, { recursive: true, encoding: "utf8" }).sort()
    .filter((path) => statSync(join(RELEASE, path)).isFile())
    .map((path) => `${sha256(join(RELEASE, path))}  ${path}\n`);
  writeFileSync(join(RELEASE, "SHA256SUMS"), lines.join(""));
}

function sha256(file: string): string {
  return createHash("sha256").update(readFileSync(file)).digest("hex");
}

const say = (line: string) => console.error(line);

const args = process.argv.slice(2);
const plain = args.includes("--plain");
const flag = (name: string) => args.find((arg) => arg.startsWith(`--${name}=`))?.split("=")[1];
const url = (flag("url") ?? releaseUrl(stamp.version)).replace(/\/$/, "");
const key = flag("sign") ?? null;
const asked = args.filter((arg) => !/^--(plain$|no-bytecode$|url=|sign=)/.test(arg));
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
writeRepositories();
writeBill();
writeSums();
