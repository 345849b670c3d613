/**
 * The data folder, opened: locked against a second collector, its version judged, what an earlier
 * process left listed. What is made here is all that the collector knows of the disk.
 */

import type { Clock } from "../contracts.ts";
import { gatherSpools, workerFolder } from "./gather.ts";
import type { Place } from "./layout.ts";
import { openSpool } from "./layout.ts";
import { createLetters, type Letters } from "../dead/letters.ts";
import { type Lock, takeLock } from "./lock.ts";
import type { Pump } from "../batch/pump.ts";
import type { PumpDeps } from "../batch/pump_deps.ts";
import { type Found, listSegments, recover } from "./recovery.ts";
import { restoreAll } from "./restore.ts";
import { Spool } from "./spool.ts";
import { Underway } from "../kernel/time.ts";

/** For what is being written or removed at the end. */
const END_MS = 2_000;
/** Of workers, and of those that follow each other. */
const MOST_FOLDERS = 128;
/** The workers of one that was killed end after it. */
const LET_GO_MS = 10_000;
const LOOK_MS = 100;

export interface DiskOptions {
  readonly place: Place;
  readonly clock: Clock;
  /** Of dead letters, all tables together. */
  readonly maxDeadBytes: () => number;
  /** Processes that will work in folders of their own in this one; 1, or none given: in itself. */
  readonly workers?: number;
  /**
   * Resolves when a collector has gone that has the folder. Until then free ones inside of it are used,
   * and dead letters wait; then all of it is ours.
   */
  readonly predecessor?: Promise<void>;
  /** Resolves with another folder whose spool is ours too, or null. */
  readonly rest?: Promise<string | null>;
  /** Somebody else has taken the folder: it must not be touched any more. */
  readonly onLost: () => void;
  /** Files that are not the system's bring a lock of their own. */
  readonly lock?: typeof takeLock;
}

export interface Disk {
  readonly spool: NonNullable<PumpDeps["spool"]>;
  readonly letters: Letters;
  /** A data folder for each of `workers`. */
  readonly folders: readonly string[];
  /** Resolves with the folder that holds what others left who are gone, for one of `workers`, or null. */
  readonly rest: Promise<string | null>;
  /** Gives the pump what an earlier process left. Never rejects. */
  recoverInto(pump: Pump): Promise<void>;
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
  const { clock, onLost, workers = 1, lock: take = takeLock } = options;
  const lock = await take(place.dataDir, { clock, onLost });
  if ("problem" in lock) return lock;
  const opened = await openSpool(place);
  if (opened.problem !== null) {
    await lock.release();
    return { problem: opened.problem };
  }
  const problem = await gatherSpools(place, workers, (folder) => take(folder, { clock }))
    .catch((error) => `cannot use the data folder ${place.dataDir}: ${String(error)}`);
  if (problem !== null) {
    await lock.release();
    return { problem };
  }
  // Before the first new segment: what is written from now on is not recovered.
  const found = await listSegments(place);
  const letters = lettersOf(options);
  await letters.open();
  return diskOf(options, {
    place,
    found,
    letters,
    folders: Array.from({ length: workers }, (_, at) => workerFolder(place.dataDir, at + 1)),
    rest: options.rest ?? Promise.resolve(null),
    release: () => lock.release(),
  });
}

/**
 * Beside those who still work in the folder: in `worker-N`, the first that nobody has, or the first so
 * many for workers, who take them. Whatever becomes of us or of the others, the next start finds it
 * there.
 */
async function openBeside(
  options: DiskOptions,
  predecessor: Promise<void>,
): Promise<Disk | { readonly problem: string }> {
  const { place, clock, onLost, workers = 1, lock: take = takeLock } = options;
  const { log } = place;
  const mine = new Map<string, Lock>();
  const letGo = () => Promise.all([...mine.values()].map((lock) => lock.release()));
  for (let number = 1; mine.size < workers; number++) {
    const folder = workerFolder(place.dataDir, number);
    const lock = await take(folder, { clock, onLost });
    if (!("problem" in lock)) mine.set(folder, lock);
    else if (number >= MOST_FOLDERS) {
      await letGo();
      return lock;
    }
  }
  const folders = [...mine.keys()];
  const beside = { ...place, dataDir: folders[0] ?? "" };
  if (workers > 1) await letGo();
  else {
    const { problem } = await openSpool(beside);
    if (problem !== null) {
      await letGo();
      return { problem };
    }
  }
  const found = await listSegments(beside);
  const letters = lettersOf(options);
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
    const unmoved = problem ?? await gatherAll(options, folders);
    if (unmoved !== null) log.error("the spool waits for the next start", { error: unmoved });
    await letters.open();
    return place.dataDir;
  }).catch((error) => {
    log.error("the spool waits for the next start", { error: String(error) });
    return null;
  });
  return diskOf(options, {
    place: beside,
    found,
    letters: { ...letters, bury: (...letter) => rest.then(() => letters.bury(...letter)) },
    folders,
    rest,
    async release() {
      await letGo();
      await all?.release();
    },
  });
}

/** Into the folder itself, as soon as nobody but `ours` has one. @returns why not, or null. */
async function gatherAll(
  { place, clock, lock: take = takeLock }: DiskOptions,
  ours: readonly string[],
): Promise<string | null> {
  const untilMs = clock.monotonicMs() + LET_GO_MS;
  for (;;) {
    const problem = await gatherSpools(place, 1, (folder) => take(folder, { clock }), ours);
    if (problem === null || clock.monotonicMs() >= untilMs) return problem;
    await new Promise<void>((resolve) => void clock.after(LOOK_MS, resolve));
  }
}

function lettersOf({ place, maxDeadBytes, clock }: DiskOptions): Letters {
  const { files, dataDir, log } = place;
  return createLetters({ files, dataDir, maxBytes: maxDeadBytes, log, clock });
}

function diskOf({ clock }: DiskOptions, { place, found, letters, folders, rest, release }: {
  readonly place: Place;
  readonly found: Found;
  readonly letters: Letters;
  readonly folders: readonly string[];
  readonly rest: Promise<string | null>;
  readonly release: () => Promise<void>;
}): Disk {
  let spool: Spool | null = null;
  const others = new Underway();

  async function recoverInto(pump: Pump): Promise<void> {
    await restoreAll(recover(place, found), pump, place.log, clock);
    const dataDir = await rest;
    if (dataDir === null) return;
    const all = { ...place, dataDir };
    await restoreAll(recover(all, await listSegments(all)), pump, place.log, clock);
  }

  return {
    spool: (onSynced) => spool = new Spool({ place, onSynced }),
    letters: { ...letters, bury: (...letter) => others.add(letters.bury(...letter)) },
    folders,
    rest,
    recoverInto: (pump) => others.add(recoverInto(pump)),
    async close() {
      const ended = Promise.all([others.idle(), spool?.close()]);
      let cancel = () => {};
      const late = new Promise<void>((resolve) => cancel = clock.after(END_MS, resolve));
      await Promise.race([ended, late]);
      cancel();
      await release();
    },
  };
}
