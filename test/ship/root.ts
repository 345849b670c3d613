/**
 * Debian hosts as folders: one bootstrap for all tests, below layers of their own (overlayfs), so that
 * each has a host nobody has touched. They are to be used within `run.sh`, whose end unmounts them all.
 */

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tempDir } from "../kit/temp.ts";
import { type Ended, type How, ok, run } from "./exec.ts";

const SUITE = "bookworm";
/** What the smallest installation lacks and a host that people log in to has. */
const USUAL = ["ca-certificates", "curl", "procps", "sudo", "systemd", "xz-utils"];
const MIRROR = "http://deb.debian.org/debian";
const AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt";

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

/** By mmdebstrap, which makes what debootstrap makes in half the time. */
async function bootstrap(): Promise<string> {
  const path = join(tempDir("base"), "debian");
  const include = `--include=${USUAL.join(",")}`;
  await ok(["mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, path, MIRROR]);
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
