/**
 * The data folder, opened: locked against a second collector, its version judged, what an earlier
 * process left listed. What is made here is all that the collector knows of the disk.
 */

import type { Clock } from "../contracts.ts";
import { gatherSpools } from "./gather.ts";
import type { Place } from "./layout.ts";
import { openSpool } from "./layout.ts";
import { createLetters, type Letters } from "./letters.ts";
import { takeLock } from "./lock.ts";
import type { Pump } from "./pump.ts";
import type { PumpDeps } from "./pump_deps.ts";
import { listSegments, recover } from "./recovery.ts";
import { restoreAll } from "./restore.ts";
import { Spool } from "./spool.ts";
import { Underway } from "./underway.ts";

/** For what is being written or removed at the end. */
const END_MS = 2_000;

export interface DiskOptions {
  readonly place: Place;
  readonly clock: Clock;
  /** Of dead letters, all tables together. */
  readonly maxDeadBytes: () => number;
  /** Processes that will work in folders of their own in this one; 1, or none given: in itself. */
  readonly workers?: number;
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
  const letters = createLetters({
    files: place.files,
    dataDir: place.dataDir,
    maxBytes: options.maxDeadBytes,
    log: place.log,
    clock,
  });
  await letters.open();
  let spool: Spool | null = null;
  const others = new Underway();
  return {
    spool: (onSynced) => spool = new Spool({ place, onSynced }),
    letters: { ...letters, bury: (...letter) => others.add(letters.bury(...letter)) },
    recoverInto: (pump) => others.add(restoreAll(recover(place, found), pump, place.log, clock)),
    async close() {
      const ended = Promise.all([others.idle(), spool?.close()]);
      let cancel = () => {};
      const late = new Promise<void>((resolve) => cancel = clock.after(END_MS, resolve));
      await Promise.race([ended, late]);
      cancel();
      await lock.release();
    },
  };
}
