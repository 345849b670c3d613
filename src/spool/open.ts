/**
 * The data folder, opened: locked against a second collector, its version judged, what an earlier
 * process left listed. What is made here is all that the collector knows of the disk.
 */

import type { Clock, Spool } from "../contracts.ts";
import { gatherSpools, workerFolder } from "./orphans.ts";
import type { DataDir } from "./data_dir.ts";
import { openSpool } from "./data_dir.ts";
import { type Lock, takeLock } from "./lock.ts";
import {
  type Found,
  listSegments,
  type Quarantined,
  recover,
  type RecoveredSegment,
} from "./recovery.ts";
import { SegmentSpool } from "./spool.ts";
import { sleep, within } from "../kernel/time.ts";

/** For what is being written or removed at the end. */
const END_MS = 2_000;
/** Of collectors that follow each other, and of workers that an earlier version left. */
const MOST_FOLDERS = 128;
/** A collector that was killed may be seen to end some time after its folder is let go. */
const LET_GO_MS = 10_000;
const LOOK_MS = 100;

export interface DiskOptions {
  readonly place: DataDir;
  readonly clock: Clock;
  /**
   * Resolves when a collector has gone that has the folder. Until then a free one inside of it is used;
   * then all of it is ours.
   */
  readonly predecessor?: Promise<void>;
  /** Somebody else has taken the folder: it must not be touched any more. */
  readonly onLost: () => void;
  /** Files that are not the system's bring a lock of their own. */
  readonly lock?: typeof takeLock;
}

export interface Disk {
  readonly spool: Spool;
  /** The folder that new rows go to: the data folder, or one in it while another collector works there. */
  readonly dataDir: string;
  /** Resolves with the data folder when a predecessor has left it to this collector, else with null. */
  readonly rest: Promise<string | null>;
  /**
   * Lets another collector have the folder, when what is under way there has ended; a disk that hangs
   * is not waited for long. To be called after the pump has ended.
   */
  close(): Promise<void>;
}

/** @returns the disk, or a sentence that says why it cannot be used. */
export async function openDisk(options: DiskOptions): Promise<Disk | { readonly problem: string }> {
  const { place } = options;
  try {
    await place.files.makeFolder(place.dataDir);
  } catch (error) {
    return { problem: `cannot use the data folder ${place.dataDir}: ${String(error)}` };
  }
  if (options.predecessor !== undefined) return await openBeside(options, options.predecessor);
  const { clock, onLost, lock: take = takeLock } = options;
  const lock = await take(place.dataDir, { clock, onLost });
  if ("problem" in lock) return lock;
  const opened = await openSpool(place);
  if (opened.problem !== null) {
    await lock.release();
    return { problem: opened.problem };
  }
  const problem = await gatherSpools(place, (folder) => take(folder, { clock }))
    .catch((error) => `cannot use the data folder ${place.dataDir}: ${String(error)}`);
  if (problem !== null) {
    await lock.release();
    return { problem };
  }
  // Before the first new segment: what is written from now on is not recovered.
  const found = await listSegments(place);
  return diskOf(options, {
    place,
    found,
    rest: Promise.resolve(null),
    release: () => lock.release(),
  });
}

/**
 * Beside a collector that still works in the folder: in `worker-N`, the first that is free. Whatever
 * becomes of either, the next start finds it there.
 */
async function openBeside(
  options: DiskOptions,
  predecessor: Promise<void>,
): Promise<Disk | { readonly problem: string }> {
  const { place, clock, onLost, lock: take = takeLock } = options;
  const { log } = place;
  const free = await firstFree(options);
  if ("problem" in free) return free;
  const { folder, lock: own } = free;
  const beside = { ...place, dataDir: folder };
  const opened = await openSpool(beside);
  if (opened.problem !== null) {
    await own.release();
    return { problem: opened.problem };
  }
  const found = await listSegments(beside);
  let all: Lock | null = null;
  const rest = predecessor.then(async () => {
    const lock = await take(place.dataDir, { clock, onLost });
    if ("problem" in lock) {
      log.error(lock.problem);
      onLost();
      return null;
    }
    all = lock;
    const { problem } = await openSpool(place);
    const unmoved = problem ?? await gatherAll(options, [folder]);
    if (unmoved !== null) log.error("the spool waits for the next start", { error: unmoved });
    return place.dataDir;
  }).catch((error) => {
    log.error("the spool waits for the next start", { error: String(error) });
    return null;
  });
  return diskOf(options, {
    place: beside,
    found,
    rest,
    async release() {
      await own.release();
      await all?.release();
    },
  });
}

async function firstFree(
  { place, clock, onLost, lock: take = takeLock }: DiskOptions,
): Promise<{ readonly folder: string; readonly lock: Lock } | { readonly problem: string }> {
  for (let number = 1;; number++) {
    const folder = workerFolder(place.dataDir, number);
    const lock = await take(folder, { clock, onLost });
    if (!("problem" in lock)) return { folder, lock };
    if (number >= MOST_FOLDERS) return lock;
  }
}

/** Into the folder itself, as soon as nobody but `ours` has one. @returns why not, or null. */
async function gatherAll(
  { place, clock, lock: take = takeLock }: DiskOptions,
  ours: readonly string[],
): Promise<string | null> {
  const untilMs = clock.monotonicMs() + LET_GO_MS;
  for (;;) {
    const problem = await gatherSpools(place, (folder) => take(folder, { clock }), ours);
    if (problem === null || clock.monotonicMs() >= untilMs) return problem;
    await sleep(clock, LOOK_MS);
  }
}

function diskOf({ clock }: DiskOptions, { place, found, rest, release }: {
  readonly place: DataDir;
  readonly found: Found;
  readonly rest: Promise<string | null>;
  readonly release: () => Promise<void>;
}): Disk {
  /** In the folder that is ours at once, then in the whole of it. */
  async function* earlier(): AsyncGenerator<RecoveredSegment | Quarantined, void, undefined> {
    yield* recover(place, found);
    const dataDir = await rest;
    if (dataDir === null) return;
    const all = { ...place, dataDir };
    yield* recover(all, await listSegments(all));
  }

  const spool = new SegmentSpool({ dir: place, clock, earlier });
  return {
    spool,
    dataDir: place.dataDir,
    rest,
    async close() {
      await within(clock, END_MS, spool.close(), null);
      await release();
    },
  };
}
