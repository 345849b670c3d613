/**
 * The data folder, opened: locked against a second collector, its version judged, what an earlier
 * process left listed. What is made here is all that the collector knows of the disk.
 */

import type { Clock } from "../contracts.ts";
import { gatherSpools, workerFolder } from "./gather.ts";
import type { Place } from "./layout.ts";
import { openSpool } from "./layout.ts";
import { createLetters, type Letters } from "./letters.ts";
import { type Lock, takeLock } from "./lock.ts";
import type { Pump } from "./pump.ts";
import type { PumpDeps } from "./pump_deps.ts";
import { listSegments, recover } from "./recovery.ts";
import { restoreAll } from "./restore.ts";
import { Spool } from "./spool.ts";
import { Underway } from "./underway.ts";

/** For what is being written or removed at the end. */
const END_MS = 2_000;
/** Of workers, and of those that follow each other. */
const MOST_FOLDERS = 128;

export interface DiskOptions {
  readonly place: Place;
  readonly clock: Clock;
  /** Of dead letters, all tables together. */
  readonly maxDeadBytes: number;
  /** Processes that will work in folders of their own in this one; 1, or none given: in itself. */
  readonly workers?: number;
  /**
   * Resolves when a collector has gone that works in the folder itself. Until then one inside of it is
   * used, and dead letters wait; then all of it is ours.
   */
  readonly predecessor?: Promise<void>;
  /** Somebody else has taken the folder: it must not be touched any more. */
  readonly onLost: () => void;
  /** Files that are not the system's bring a lock of their own. */
  readonly lock?: typeof takeLock;
}

export interface Disk {
  readonly spool: NonNullable<PumpDeps["spool"]>;
  readonly letters: Letters;
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
  const { clock, onLost, lock: take = takeLock } = options;
  const lock = await take(place.dataDir, { clock, onLost });
  if ("problem" in lock) return lock;
  const opened = await openSpool(place);
  if (opened.problem !== null) {
    await lock.release();
    return { problem: opened.problem };
  }
  const problem = await gatherSpools(
    place,
    options.workers ?? 1,
    (folder) => take(folder, { clock }),
  ).catch((error) => `cannot use the data folder ${place.dataDir}: ${String(error)}`);
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
    letters,
    recoverInto: (pump) => restoreAll(recover(place, found), pump, place.log, clock),
    release: () => lock.release(),
  });
}

/**
 * Beside one that still works in the folder: in `worker-N`, the first that nobody has. Whatever becomes
 * of us or of the other, the next start finds it there.
 */
async function openBeside(
  options: DiskOptions,
  predecessor: Promise<void>,
): Promise<Disk | { readonly problem: string }> {
  const { place, clock, onLost, lock: take = takeLock } = options;
  const { log } = place;
  let mine: Lock | { readonly problem: string } = { problem: "" };
  let beside = place;
  for (let number = 1; "problem" in mine && number <= MOST_FOLDERS; number++) {
    beside = { ...place, dataDir: workerFolder(place.dataDir, number) };
    mine = await take(beside.dataDir, { clock, onLost });
  }
  if ("problem" in mine) return mine;
  const { problem } = await openSpool(beside);
  if (problem !== null) {
    await mine.release();
    return { problem };
  }
  const found = await listSegments(beside);
  const letters = lettersOf(options);
  let all: Lock | null = null;
  const left = predecessor.then(async () => {
    const lock = await take(place.dataDir, { clock, onLost });
    if ("problem" in lock) {
      log.error(lock.problem);
      onLost();
      return null;
    }
    all = lock;
    const { problem } = await openSpool(place);
    const unmoved = problem ??
      await gatherSpools(place, 1, (folder) => take(folder, { clock }), beside.dataDir);
    if (unmoved !== null) log.error("the spool waits for the next start", { error: unmoved });
    await letters.open();
    return await listSegments(place);
  }).catch((error) => {
    log.error("the spool waits for the next start", { error: String(error) });
    return null;
  });
  return diskOf(options, {
    place: beside,
    letters: { ...letters, bury: (...letter) => left.then(() => letters.bury(...letter)) },
    async recoverInto(pump) {
      await restoreAll(recover(beside, found), pump, log, clock);
      const rest = await left;
      if (rest !== null) await restoreAll(recover(place, rest), pump, log, clock);
    },
    async release() {
      await mine.release();
      await all?.release();
    },
  });
}

function lettersOf({ place, maxDeadBytes, clock }: DiskOptions): Letters {
  const { files, dataDir, log } = place;
  return createLetters({ files, dataDir, maxBytes: maxDeadBytes, log, clock });
}

function diskOf({ clock }: DiskOptions, { place, letters, recoverInto, release }: {
  readonly place: Place;
  readonly letters: Letters;
  readonly recoverInto: (pump: Pump) => Promise<void>;
  readonly release: () => Promise<void>;
}): Disk {
  let spool: Spool | null = null;
  const others = new Underway();
  return {
    spool: (onSynced) => spool = new Spool({ place, onSynced }),
    letters: { ...letters, bury: (...letter) => others.add(letters.bury(...letter)) },
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
