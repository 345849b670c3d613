/**
 * Debian hosts as folders: one bootstrap for all tests, below layers of their own (overlayfs), so that
 * each has a host nobody has touched. They are to be used within `run.sh`, whose end unmounts them all.
 */

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { ROOT } from "../../.release/build.ts";
import { tempDir } from "../kit/temp.ts";
import { type Ended, type How, ok, run } from "./exec.ts";

const SUITE = "bookworm";
/** What the smallest installation lacks and a host that people log in to has. */
const USUAL = ["ca-certificates", "curl", "procps", "sudo", "systemd", "xz-utils"];
const MIRROR = "http://deb.debian.org/debian";
const AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt";
/** A Debian with these packages, kept as the servers of the tests are; no test asks for anything newer. */
const KEPT = join(ROOT, "node_modules/.cache/debian", `${[SUITE, ...USUAL].join("+")}.tar`);
const KEPT_MS = 30 * 24 * 3600_000;

export interface Root {
  readonly path: string;
  /** As root, in the host. */
  run(command: readonly string[], how?: How): Promise<Ended>;
  /** As root, in the host; throws unless the exit code is 0. */
  ok(command: readonly string[], how?: How): Promise<string>;
  /** How to start `command` in it, e.g. by `spawn`. */
  inside(command: readonly string[]): string[];
  /** Text of a file. */
  read(path: string): string;
  close(): Promise<void>;
}

let base: Promise<string> | null = null;

/** The smallest Debian. Never to be written to. */
export function baseRoot(): Promise<string> {
  return base ??= bootstrap();
}

/** By mmdebstrap, which makes what debootstrap makes in half the time: still half a minute. */
async function bootstrap(): Promise<string> {
  if (Date.now() - (statSync(KEPT, { throwIfNoEntry: false })?.mtimeMs ?? 0) > KEPT_MS) {
    mkdirSync(dirname(KEPT), { recursive: true });
    const fresh = KEPT.replace(/\.tar$/, `-${process.pid}.tar`);
    const include = `--include=${USUAL.join(",")}`;
    try {
      await ok(["mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, fresh, MIRROR]);
      renameSync(fresh, KEPT);
    } finally {
      rmSync(fresh, { force: true });
    }
  }
  const path = join(tempDir("base"), "debian");
  mkdirSync(path);
  const whole = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--preserve-permissions"];
  await ok(["tar", "--extract", ...whole, "--file", KEPT, "--directory", path]);
  // Some authority of the host's own may stand between it and the registries.
  copyFileSync(AUTHORITIES, join(path, AUTHORITIES));
  return path;
}

/** A host of its own: /proc is there, nothing runs. */
export async function newRoot(): Promise<Root> {
  const lower = await baseRoot();
  const dir = tempDir("root");
  const [upper, work, path] = ["upper", "work", "host"].map((name) => join(dir, name));
  for (const folder of [upper!, work!, path!]) mkdirSync(folder);
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
  await ok(["mount", "-t", "overlay", "overlay", "-o", options, path!]);
  await ok(["mount", "-t", "proc", "proc", join(path!, "proc")]);
  writeFileSync(join(path!, "etc/hostname"), "bare\n");
  const inside = (command: readonly string[]) => ["chroot", path!, ...command];
  return {
    path: path!,
    inside,
    run: (command, how) => run(inside(command), how),
    ok: (command, how) => ok(inside(command), how),
    read: (file) => readFileSync(join(path!, file), "utf8"),
    async close() {
      await ok(["umount", join(path!, "proc")]);
      const { code, stderr } = await run(["umount", path!]);
      assert.equal(code, 0, `somebody is still in it: ${stderr}`);
      rmSync(dir, { recursive: true });
    },
  };
}
