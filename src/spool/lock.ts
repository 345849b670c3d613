/**
 * One collector on one data folder: a file `lock` that names its owner. The lock of an owner that is
 * gone is taken over; of several that try at once, one succeeds.
 *
 * *Is the owner alive?* On the same machine and in the same process namespace its pid and start time
 * tell. A process in another container, or on another host of a shared disk, cannot be looked at:
 * there its heartbeat tells, a touch of the file each second; who is not seen to touch it is gone. An
 * owner that was halted for longer than that finds its lock taken, and is told.
 *
 * *Why only one?* Each lock has a nonce. To take one over is to create its successor, `lock.NONCE`,
 * which the system lets one process do; to see that `lock` is still the one that was judged; and to
 * rename the successor over it. Nobody else changes `lock`, so who judged an older one sees that it
 * has changed and begins again. A successor whose maker died half way has a successor in turn.
 */

import { mkdir, readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../contracts.ts";
import { identify, type Identity, isAlive } from "./identity.ts";
import { reasonOf } from "../kernel/errors.ts";
import { claim, type LockFile, readLock, removeLock, touchLock, writeLock } from "./lock_file.ts";

export interface Lock {
  /** An owner that is gone had left it. */
  readonly takenOver: boolean;
  /** Gives it up. Never rejects. */
  release(): Promise<void>;
}

export interface Unlocked {
  /** A sentence that says what to do. */
  readonly problem: string;
  /** Somebody else has it, or is about to; nothing is wrong with the folder. */
  readonly busy?: true;
}

export interface LockOptions {
  readonly clock: Clock;
  readonly me?: Identity;
  /** Called once when somebody else has the lock: this process must leave the folder alone. */
  readonly onLost?: () => void;
}

/** Between two touches. */
export const BEAT_MS = 1000;
/** How long a lock is watched whose owner cannot be looked at. */
export const WATCH_MS = 5000;
/** A lock of this machine that was not touched for so long is not watched. */
export const STALE_MS = 15_000;
const GLANCE_MS = 250;
/** For a file system where a lock is seen before its content is. */
const WRITING_MS = 200;
const MOST_TRIES = 50;

/** Makes the folder where needed. Never rejects. */
export async function takeLock(
  dataDir: string,
  { clock, me = identify(), onLost = () => {} }: LockOptions,
): Promise<Lock | Unlocked> {
  const path = join(dataDir, "lock");
  const nonce = crypto.randomUUID();
  const mine = `${path}.new-${nonce}`;
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    await writeLock(mine, me, nonce);
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (tries > 0) await sleep(clock, clock.random() * 20);
      const [current, ...successors] = await chainFrom(path);
      const last = successors.at(-1) ?? current;
      if (last === undefined) {
        if (!await claim(mine, path)) continue;
      } else {
        const life = await lifeOf(last, me, clock);
        if (life === "changed") continue;
        if (life === "alive") {
          return { problem: inUse(dataDir, path, last.file.owner, me), busy: true };
        }
        const successor = `${path}.${last.file.nonce}`;
        if (!await claim(mine, successor)) continue;
        if ((await chainFrom(path)).at(-1)?.file.nonce !== nonce) {
          await removeLock(successor);
          continue;
        }
        await rename(successor, path);
      }
      await sweep(dataDir, clock);
      return hold({ path, nonce, me, clock, onLost, takenOver: last !== undefined });
    }
    const problem = `others are taking the data folder ${dataDir} at this moment; try again`;
    return { problem, busy: true };
  } catch (error) {
    return { problem: `cannot lock the data folder ${dataDir}: ${reasonOf(error)}` };
  } finally {
    await removeLock(mine);
  }
}

interface Link {
  readonly path: string;
  readonly file: LockFile;
}

/** The lock and its successors; empty when there is no lock. */
async function chainFrom(path: string): Promise<Link[]> {
  const chain: Link[] = [];
  for (let at = path; chain.length < MOST_TRIES;) {
    const file = await readLock(at);
    if (file === null) break;
    chain.push({ path: at, file });
    at = `${path}.${file.nonce}`;
  }
  return chain;
}

/** `changed`: it is another lock by now, or none; look again. */
async function lifeOf(
  { path, file }: Link,
  me: Identity,
  clock: Clock,
): Promise<"alive" | "gone" | "changed"> {
  const { owner } = file;
  const alive = owner === null ? false : isAlive(owner, me);
  if (owner !== null && alive !== "unknown") return alive ? "alive" : "gone";
  if (owner !== null && (owner.host === me.host || owner.boot === me.boot)) {
    if (Math.abs(clock.nowMs() - file.touchedMs) > STALE_MS) return "gone";
  }
  const untilMs = clock.monotonicMs() + (owner === null ? WRITING_MS : WATCH_MS);
  while (clock.monotonicMs() < untilMs) {
    await sleep(clock, GLANCE_MS);
    const again = await readLock(path);
    if (again?.nonce !== file.nonce) return "changed";
    if (again.touchedMs !== file.touchedMs) return "alive";
  }
  return "gone";
}

function inUse(dataDir: string, path: string, owner: Identity | null, me: Identity): string {
  const away = owner !== null && (owner.host !== me.host || owner.space !== me.space);
  const who = owner === null
    ? ""
    : ` (pid ${owner.pid}${away ? ` on ${owner.host || "another host"}` : ""})`;
  return `the data folder ${dataDir} is in use by another collector${who}; ` +
    `stop that one, or give this one another --data-dir (if there is none, delete ${path})`;
}

function hold(
  { path, nonce, me, clock, onLost, takenOver }: Required<LockOptions> & {
    readonly path: string;
    readonly nonce: string;
    readonly takenOver: boolean;
  },
): Lock {
  let released = false;
  let beating: Promise<void> = Promise.resolve();
  let cancel = clock.after(BEAT_MS, tick);

  function tick(): void {
    beating = beat().catch(() => {}).then(() => {
      if (!released) cancel = clock.after(BEAT_MS, tick);
    });
  }

  async function beat(): Promise<void> {
    const found = await readLock(path);
    if (found?.nonce === nonce) return await touchLock(path, clock.nowMs());
    if (found !== null) {
      released = true;
      return onLost();
    }
    // Somebody removed it, perhaps with the folder, which may be back by now.
    await writeLock(path, me, nonce);
  }

  return {
    takenOver,
    async release() {
      released = true;
      cancel();
      await beating;
      const found = await readLock(path).catch(() => null);
      if (found?.nonce === nonce) await removeLock(path);
    },
  };
}

/** Removes what takers left behind that died half way. Those at work now have fresh files. */
async function sweep(dataDir: string, clock: Clock): Promise<void> {
  for (const name of await readdir(dataDir)) {
    if (!name.startsWith("lock.")) continue;
    const path = join(dataDir, name);
    const file = await readLock(path).catch(() => null);
    const old = file !== null && Math.abs(clock.nowMs() - file.touchedMs) > 60_000;
    if (old) await removeLock(path);
  }
}

function sleep(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => void clock.after(ms, resolve));
}
