/**
 * A machine's disk that loses power. A file system lies on a loop device, that on a file which a small
 * program serves over FUSE (`power_disk.py`); it keeps every write and every flush, in order. So one run
 * is as many power cuts as there are records: each beginning of the log, of which what came before the last
 * flush is safe, and of what came after it chance keeps all, some or none, in any order, torn by sectors.
 *
 * It takes root, /dev/fuse and loop devices. A guard takes everything down when this process is gone.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

const SERVER = fileURLToPath(new URL("./power_disk.py", import.meta.url));
/** Of a disk: written whole or not at all. */
const SECTOR_BYTES = 512;
/** Of a record, before its bytes. */
const HEAD_BYTES = 12;

const MAKE: Readonly<Record<string, readonly string[]>> = {
  ext4: ["mkfs.ext4", "-q", "-F", "-E", "nodiscard"],
  xfs: ["mkfs.xfs", "-q", "-f", "-K"],
  btrfs: ["mkfs.btrfs", "-q", "-f", "-K"],
};

export const FILE_SYSTEMS: readonly string[] = Object.keys(MAKE);
/** XFS takes no smaller one. Most of it is never written. */
const DISK_BYTES = 320 * 1024 * 1024;

const GUARD = 'cat >/dev/null; umount -l "$1/mounted"; ' +
  'for loop in $(losetup -n -O NAME -j "$1/disk"); do losetup -d "$loop"; done; ' +
  'umount -l "$1/disk"; rm -rf "$1"';

/** One file system that is in use, and what was written to its disk so far. */
export class PowerDisk {
  readonly #counter: number;
  #loop: string | null = null;

  private constructor(
    /** Where its files are. */
    readonly path: string,
    readonly dir: string,
    readonly server: ChildProcess,
    readonly guard: ChildProcess,
  ) {
    this.#counter = openSync(join(dir, "counter"), "r");
  }

  /** Throws a sentence with what the machine refuses. */
  static async mount(system: string): Promise<PowerDisk> {
    const make = MAKE[system];
    if (make === undefined) throw new Error(`no file system ${system}: ${FILE_SYSTEMS.join()}`);
    const dir = tempDir("power");
    const disk = await PowerDisk.#serve(dir);
    try {
      disk.#loop = must("losetup", "--show", "-f", join(dir, "disk"));
      must(...make, disk.#loop);
      must("mount", "-t", system, disk.#loop, disk.path);
    } catch (problem) {
      await disk.cut();
      disk.remove();
      throw problem;
    }
    return disk;
  }

  static async #serve(dir: string): Promise<PowerDisk> {
    const file = join(dir, "disk");
    writeFileSync(file, "");
    mkdirSync(join(dir, "mounted"));
    const args = [SERVER, file, String(DISK_BYTES), join(dir, "log"), join(dir, "counter")];
    const server = spawn("python3", args, { stdio: ["ignore", "pipe", "pipe"], detached: true });
    let said = "";
    let ended: string | null = null;
    server.once("error", ({ message }) => ended = message);
    server.once("exit", (code) => ended ??= `ended with ${code}`);
    for (const out of [server.stdout, server.stderr]) {
      out.setEncoding("utf8").on("data", (text: string) => said += text);
    }
    const guard = spawn("/bin/sh", ["-c", GUARD, "guard", dir], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
    await eventually(() => {
      if (ended !== null) return;
      if (!said.includes("mounted") || !existsSync(join(dir, "counter"))) {
        throw new Error("the disk does not come up");
      }
    }, { withinMs: 10_000, everyMs: 5 });
    if (ended !== null) {
      guard.kill("SIGKILL");
      removeDir(dir);
      throw new Error(`power cuts take root, python3 and /dev/fuse: ${ended}: ${said.trim()}`);
    }
    return new PowerDisk(join(dir, "mounted"), dir, server, guard);
  }

  /** How many records there are: what is answered now rests on no later one. */
  position(): number {
    const bytes = new Uint8Array(8);
    readSync(this.#counter, bytes, 0, 8, 0);
    return Number(new DataView(bytes.buffer).getBigUint64(0, true));
  }

  /** Nothing is written any more. No program may have a file open. @returns the log. */
  async cut(): Promise<PowerLog> {
    const gone = new Promise<void>((resolve) => {
      if (this.server.exitCode !== null) resolve();
      else this.server.once("exit", () => resolve());
    });
    run("umount", this.path);
    if (this.#loop !== null) run("losetup", "-d", this.#loop);
    // The loop device lets go of its file a moment later.
    await eventually(() => {
      const problem = run("umount", join(this.dir, "disk"));
      if (problem !== null && !problem.includes("not mounted")) throw new Error(problem);
    }, { withinMs: 10_000 });
    await gone;
    closeSync(this.#counter);
    this.guard.kill("SIGKILL");
    this.guard.stdin?.destroy();
    return new PowerLog(readFileSync(join(this.dir, "log")), this.dir);
  }

  remove(): void {
    removeDir(this.dir);
  }
}

interface DiskWrite {
  /** On the disk, and of its bytes in the log. */
  readonly offset: number;
  readonly start: number;
  readonly end: number;
}

/** What became of the writes that no flush had made safe. */
export interface Leftover {
  readonly how: string;
  readonly unsafe: number;
  readonly kept: number;
}

/** Every record of a disk, and what a power cut would have left. Cuts are to be asked for in order. */
export class PowerLog {
  /** By position; null is a flush. */
  readonly records: (DiskWrite | null)[] = [];
  readonly #safe: number;
  /** So many records are in the safe image. */
  #applied = 0;

  constructor(readonly bytes: Uint8Array, readonly dir: string) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at + HEAD_BYTES <= bytes.length;) {
      const start = at + HEAD_BYTES;
      const end = start + view.getUint32(at + 8, true);
      const offset = Number(view.getBigUint64(at, true));
      this.records.push(end === start ? null : { offset, start, end });
      at = end;
    }
    this.#safe = openSync(join(dir, "safe"), "w+");
    ftruncateSync(this.#safe, DISK_BYTES);
  }

  /** The last flush at or before a position. */
  flushedAt(position: number): number {
    let at = position;
    while (at > 0 && this.records[at - 1] !== null) at--;
    return at;
  }

  /**
   * The disk after a power cut when so many records were done.
   * @returns where its image lies until the next one is asked for, and how much luck there was.
   */
  imageAt(position: number, random: () => number): { image: string; leftover: Leftover } {
    const flushed = this.flushedAt(position);
    for (; this.#applied < flushed; this.#applied++) {
      const write = this.records[this.#applied];
      if (write) this.#apply(this.#safe, write);
    }
    const image = join(this.dir, "image");
    removeDir(image);
    const problem = run("cp", "--sparse=always", join(this.dir, "safe"), image);
    if (problem !== null) copyFileSync(join(this.dir, "safe"), image);
    const unsafe = this.records.slice(flushed, position) as DiskWrite[];
    const file = openSync(image, "r+");
    const { how, kept } = survivors(unsafe, random);
    for (const write of kept) this.#apply(file, write);
    closeSync(file);
    return { image, leftover: { how, unsafe: unsafe.length, kept: kept.length } };
  }

  #apply(file: number, { offset, start, end }: DiskWrite): void {
    writeSync(file, this.bytes, start, end - start, offset);
  }

  close(): void {
    closeSync(this.#safe);
  }
}

/** What gets to the disk of writes that are not safe, and in which order. */
function survivors(
  unsafe: readonly DiskWrite[],
  random: () => number,
): { readonly how: string; readonly kept: readonly DiskWrite[] } {
  switch (Math.floor(random() * 8)) {
    case 0:
      return { how: "none", kept: [] };
    case 1:
      return { how: "all", kept: unsafe };
    case 2: {
      const kept = unsafe.slice(0, Math.floor(random() * (unsafe.length + 1)));
      return { how: "the first", kept };
    }
    case 3:
      return { how: "some", kept: shuffled(unsafe.filter(() => random() < 0.5), random) };
    case 4: {
      const kept = unsafe.slice(Math.floor(random() * (unsafe.length + 1)));
      return { how: "the last", kept };
    }
    default: {
      const sectors = unsafe.flatMap(sectorsOf).filter(() => random() < 0.5);
      return { how: "torn", kept: shuffled(sectors, random) };
    }
  }
}

function sectorsOf({ offset, start, end }: DiskWrite): DiskWrite[] {
  const sectors: DiskWrite[] = [];
  for (let at = start; at < end; at += SECTOR_BYTES) {
    sectors.push({ offset: offset + at - start, start: at, end: Math.min(end, at + SECTOR_BYTES) });
  }
  return sectors;
}

function shuffled<T>(all: readonly T[], random: () => number): T[] {
  const mixed = [...all];
  for (let at = mixed.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    [mixed[at], mixed[other]] = [mixed[other]!, mixed[at]!];
  }
  return mixed;
}

/** A disk's image as a file system in use; a guard unmounts it when this process is gone. */
export class MountedImage {
  readonly #guard: ChildProcess;

  /** @param folder where its files will be. */
  constructor(image: string, readonly folder: string, system: string) {
    mkdirSync(folder, { recursive: true });
    // Another process's look at all mounts may keep the image before this one in use for a moment.
    const options = system === "xfs" ? "loop,nouuid" : "loop";
    must("mount", "-t", system, "-o", options, image, folder);
    this.#guard = spawn("/bin/sh", ["-c", 'cat >/dev/null; umount -l "$1"', "guard", folder], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
  }

  /** No program may have a file open. */
  async close(): Promise<void> {
    await eventually(() => {
      const problem = run("umount", this.folder);
      if (problem !== null && !problem.includes("not mounted")) throw new Error(problem);
    }, { withinMs: 10_000 });
    this.#guard.kill("SIGKILL");
    this.#guard.stdin?.destroy();
  }
}

/** What a program printed; throws what it complained of. */
function must(...command: readonly string[]): string {
  const [program = "", ...args] = command;
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  if (status === 0) return stdout.trim();
  throw new Error(
    `power cuts take root and loop devices: ${command.join(" ")}: ` +
      (error?.message ?? (stderr.trim() || `ended with ${status}`)),
  );
}

/** Null when it went well, else what the program said. */
function run(program: string, ...args: readonly string[]): string | null {
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  return status === 0 ? null : error?.message ?? (stderr.trim() || `ended with ${status}`);
}
