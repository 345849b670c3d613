/**
 * One collector on one data folder: the file `lock` in it, and what it says of its owner.
 *
 * Where the system has `flock`, the kernel keeps the lock. It goes with the process that has it, however
 * that ends, and no child inherits it (the runtimes open files with `O_CLOEXEC`). What stands in the
 * file is for people, and for a collector that cannot ask the kernel.
 *
 * Where it has not (Windows, some network file systems), and in version 0.1, the file itself is the
 * lock: its owner is alive when pid and start time say so, and one that cannot be looked at (in another
 * container, on another host) while it touches the file. One taker at a time, the one that has made
 * `lock.next`, judges the lock that is there and renames its own over it.
 *
 * The file is held open for reading alone: a disk on which a file is open for writing cannot be made
 * read-only. An owner looks at it each second: one that was deleted, perhaps with the folder, is put back;
 * one that is another's means that this process must leave the folder alone.
 */

import { constants, readFileSync, readlinkSync } from "node:fs";
import { type FileHandle, mkdir, open, rename, stat, unlink } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { Clock } from "../contracts.ts";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { sleep } from "../kernel/time.ts";

export interface Lock {
  /** Gives it up. Never rejects. */
  release(): Promise<void>;
}

export interface Unlocked {
  /** A sentence that says what to do. */
  readonly problem: string;
  /** Another process has it, or is about to; nothing is wrong with the folder. */
  readonly busy?: true;
}

/** Locks an open file for this process alone, without waiting; false when that cannot be. */
export type Flock = (fd: number) => boolean;

export interface LockOptions {
  readonly clock: Clock;
  readonly me?: Owner;
  /** Resolves with null where the system has none; absent means the same. */
  readonly flock?: () => Promise<Flock | null>;
  /** Called once when another process has the lock: this one must leave the folder alone. */
  readonly onLost?: () => void;
}

/** A process, as far as it can be told from others; `""` where the system does not say. */
export interface Owner {
  readonly pid: number;
  /** Ticks from the machine's boot to the start of the process: a pid alone comes again. */
  readonly started: string;
  readonly boot: string;
  /** Its process namespace: only within one do pids mean the same. */
  readonly space: string;
  readonly host: string;
  /** The kernel keeps its lock. */
  readonly flock?: boolean;
}

/** Between two looks of an owner at its lock. */
export const BEAT_MS = 1000;
/** How long a lock is watched whose owner cannot be looked at. */
export const WATCH_MS = 5000;
const MOST_TRIES = 50;
const { O_RDONLY, O_CREAT } = constants;

/** Makes the folder where needed. Never rejects. */
export async function takeLock(dataDir: string, options: LockOptions): Promise<Lock | Unlocked> {
  const { clock, me = thisProcess(), onLost = () => {} } = options;
  const path = join(dataDir, "lock");
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    let flock = await options.flock?.() ?? null;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (tries > 0) await sleep(clock, clock.random() * 20);
      const taker: Taker = { path, me, clock, flock };
      const taken = await (flock === null ? takeByName(taker) : takeByKernel(taker, flock));
      if (taken === "unable") flock = null;
      else if (taken !== "again") {
        if (!("owner" in taken)) return hold(taken, taker, onLost);
        return { problem: inUse(dataDir, path, taken.owner, me), busy: true };
      }
    }
    const problem = `others are taking the data folder ${dataDir} at this moment; try again`;
    return { problem, busy: true };
  } catch (error) {
    return { problem: `cannot lock the data folder ${dataDir}: ${reasonOf(error)}` };
  }
}

interface Taker {
  readonly path: string;
  readonly me: Owner;
  readonly clock: Clock;
  readonly flock: Flock | null;
}

/** `again`: the lock has changed hands meanwhile. `unable`: `flock` does not work in that folder. */
type Taken = FileHandle | { readonly owner: Owner | null } | "again" | "unable";

async function takeByKernel(taker: Taker, flock: Flock): Promise<Taken> {
  const { path, me } = taker;
  const file = await open(path, O_RDONLY | O_CREAT, 0o600);
  let taken: Taken = "again";
  try {
    if (!flock(file.fd)) return taken = await locks(path, flock) ? await read(file) : "unable";
    if (!await isAt(file, path)) return taken;
    const found = await read(file);
    const { owner } = found;
    // Two hosts may have a kernel each for one network folder.
    const isFree = owner === null || owner.flock === true && isNear(owner, me);
    if (!isFree) {
      if (await seemsAlive(found, file, taker)) return taken = found;
      // An owner that was halted for long sees another file there, and leaves the folder alone.
      if (await isAt(file, path)) await unlink(path);
      return taken;
    }
    // A full disk keeps no collector from starting.
    await write(path, taker).catch(() => {});
    return taken = file;
  } finally {
    if (taken !== file) await file.close();
  }
}

/** Whether `flock` works in that folder at all: with a file that no other process knows. */
async function locks(path: string, flock: Flock): Promise<boolean> {
  const name = `${path}.${crypto.randomUUID()}`;
  const file = await open(name, O_RDONLY | O_CREAT, 0o600);
  try {
    await unlink(name);
    return flock(file.fd);
  } finally {
    await file.close();
  }
}

async function takeByName(taker: Taker): Promise<Taken> {
  const { path } = taker;
  const next = `${path}.next`;
  const file = await create(next, taker);
  if (file === null) {
    if (await isLeft(next, taker)) await unlink(next).catch(unless("ENOENT"));
    return "again";
  }
  let taken: Taken = "again";
  try {
    const living = await look(path, async (there) => {
      const found = await read(there);
      return await seemsAlive(found, there, taker) ? found : null;
    });
    if (living !== null) return taken = living;
    await rename(next, path);
    return taken = file;
  } finally {
    if (taken !== file) {
      await unlink(next).catch(unless("ENOENT"));
      await file.close();
    }
  }
}

/** Whether its taker died half way; a living one needs it for little more than `WATCH_MS`. */
async function isLeft(next: string, { me, clock }: Taker): Promise<boolean | null> {
  return await look(next, async (file) => {
    const { owner } = await read(file);
    if (owner !== null && isAlive(owner, me) === false) return true;
    return Math.abs(clock.nowMs() - (await file.stat()).mtimeMs) > 3 * WATCH_MS;
  });
}

/** What `work` finds in the file; null when there is none. */
async function look<T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T | null> {
  const file = await open(path).catch(unless("ENOENT"));
  if (file === null) return null;
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}

function inUse(dataDir: string, path: string, owner: Owner | null, me: Owner): string {
  const away = owner !== null && (owner.host !== me.host || owner.space !== me.space);
  const who = owner === null
    ? ""
    : ` (pid ${owner.pid}${away ? ` on ${owner.host || "another host"}` : ""})`;
  return `the data folder ${dataDir} is in use by another collector${who}; ` +
    `stop that one, or give this one another --data-dir (if there is none, delete ${path})`;
}

function hold(first: FileHandle, taker: Taker, onLost: () => void): Lock {
  const { path, clock } = taker;
  let file = first;
  let ended = false;
  let beating: Promise<void> = Promise.resolve();
  let cancel = clock.after(BEAT_MS, tick);

  function tick(): void {
    // What the disk refuses to show now it may show at the next beat.
    beating = beat().catch(() => {}).then(() => {
      if (!ended) cancel = clock.after(BEAT_MS, tick);
    });
  }

  async function beat(): Promise<void> {
    if (await isAt(file, path)) {
      const nowS = clock.nowMs() / 1000;
      return await file.utimes(nowS, nowS);
    }
    const again = await create(path, taker);
    if (again === null) {
      ended = true;
      return onLost();
    }
    await file.close();
    file = again;
  }

  return {
    async release() {
      ended = true;
      cancel();
      await beating;
      // Deleted while it is locked: a process that has it open sees that it is in no folder any more.
      if (await isAt(file, path).catch(() => false)) await unlink(path).catch(() => {});
      await file.close().catch(() => {});
    },
  };
}

interface Found {
  /** Null: it does not tell of a process. */
  readonly owner: Owner | null;
}

async function read(file: FileHandle): Promise<Found> {
  const bytes = new Uint8Array(4096);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
  return { owner: parseOwner(new TextDecoder().decode(bytes.subarray(0, bytesRead))) };
}

/** A new file, open for reading, and locked by the kernel where that is asked; null when another has one there. */
async function create(path: string, taker: Taker): Promise<FileHandle | null> {
  const made = await open(path, "wx", 0o600).catch(unless("EEXIST"));
  if (made === null) return null;
  await made.close();
  let file: FileHandle | null = null;
  try {
    file = await open(path);
    // First: who reads whose it is may ask the kernel at once.
    if (taker.flock !== null && !taker.flock(file.fd)) {
      await file.close();
      return null;
    }
    await write(path, taker);
    return file;
  } catch (error) {
    await file?.close().catch(() => {});
    await unlink(path).catch(() => {});
    throw error;
  }
}

async function write(path: string, { me, clock, flock }: Taker): Promise<void> {
  const since = new Date(clock.nowMs()).toISOString();
  // Version 0.1 respects no lock without a nonce.
  const text = { ...me, since, flock: flock !== null, nonce: crypto.randomUUID() };
  const file = await open(path, "r+");
  try {
    await file.truncate(0);
    await file.write(JSON.stringify(text) + "\n", 0);
  } finally {
    await file.close();
  }
}

/** Whether the open file is the one of that name. Rejects with the disk's error. */
async function isAt(file: FileHandle, path: string): Promise<boolean> {
  const there = await stat(path).catch(unless("ENOENT"));
  const { ino, dev } = await file.stat();
  return there !== null && there.ino === ino && there.dev === dev;
}

/** Null for an error of that code; any other is thrown on. */
function unless(code: string): (error: unknown) => null {
  return (error) => {
    if (codeOf(error) === code) return null;
    throw error;
  };
}

function parseOwner(text: string): Owner | null {
  try {
    const value = JSON.parse(text) as Owner;
    const texts = [value.started, value.boot, value.space, value.host];
    const sound = Number.isSafeInteger(value.pid) && value.pid > 0;
    return sound && texts.every((text) => typeof text === "string") ? value : null;
  } catch {
    return null;
  }
}

async function seemsAlive({ owner }: Found, file: FileHandle, { me, clock }: Taker) {
  const alive = owner === null ? false : isAlive(owner, me);
  if (alive !== "unknown") return alive;
  const { mtimeMs } = await file.stat();
  await sleep(clock, WATCH_MS);
  return (await file.stat()).mtimeMs !== mtimeMs;
}

/** On the same machine, perhaps before it was started anew: under one kernel. */
function isNear(owner: Owner, me: Owner): boolean {
  return owner.host === me.host || owner.boot === me.boot;
}

/** What the file says of the process that has the folder; null where none has. Rejects as the disk does. */
export async function holderOf(
  dataDir: string,
): Promise<Owner & { readonly alive: boolean | "unknown" } | null> {
  const found = await look(join(dataDir, "lock"), read);
  const owner = found?.owner ?? null;
  return owner && { ...owner, alive: isAlive(owner, thisProcess()) };
}

/** `unknown`: the owner is somewhere that `me` cannot look into. */
export function isAlive(owner: Owner, me: Owner): boolean | "unknown" {
  const together = owner.boot === me.boot && owner.space === me.space &&
    (me.space !== "" || owner.host === me.host);
  if (!together) return "unknown";
  const found = startOf(owner.pid);
  if (found !== null) {
    return !found.ended && (owner.started === "" || owner.started === found.started);
  }
  try {
    process.kill(owner.pid, 0);
    // Without a time of start it may be another process by now: only its touch can tell.
    return owner.started === "" ? "unknown" : true;
  } catch (error) {
    // Not ours to signal, so it is there.
    return codeOf(error) === "EPERM";
  }
}

export function thisProcess(): Owner {
  return {
    pid: process.pid,
    started: startOf("self")?.started ?? "",
    boot: orEmpty(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()),
    space: orEmpty(() => readlinkSync("/proc/self/ns/pid")),
    host: orEmpty(hostname),
  };
}

/** Null where the system does not show it: no such process, or no /proc. */
function startOf(pid: number | "self"): { started: string; ended: boolean } | null {
  const stat = orEmpty(() => readFileSync(`/proc/${pid}/stat`, "utf8"));
  // The program's name, in parentheses, may hold anything; the state follows it as field 3.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state = "", started = ""] = [fields[0], fields[22 - 3]];
  return started === "" ? null : { started, ended: state === "Z" || state === "X" };
}

function orEmpty(read: () => string): string {
  try {
    return read();
  } catch {
    return "";
  }
}
