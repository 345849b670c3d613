/**
 * The data folder, opened: locked against a second collector, its version judged, orphaned spools taken
 * over, what an earlier process left listed. What is made here is all that the collector knows of the
 * spool's disk.
 */

import type { Clock, Spool } from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { sleep, within } from "../kernel/time.ts";
import { type DataDir, folderBeside, openSpool, takeOrphans } from "./data_dir.ts";
import { type Lock, takeLock } from "./lock.ts";
import { type Found, type Listing, listSpool, recover } from "./recovery.ts";
import { JournalSpool } from "./spool.ts";

/** For what is being written or removed at the end. */
const END_MS = 2_000;
/** Of collectors that follow each other, and of workers that an earlier version left. */
const MOST_FOLDERS = 128;
/** A collector that was killed may be seen to end some time before or after its folder is let go. */
const LET_GO_MS = 10_000;
const LOOK_MS = 100;
const WAITS = "the spool waits for the next start";

export interface DiskOptions {
  readonly dir: DataDir;
  readonly clock: Clock;
  /**
   * Resolves when another collector has gone that has the folder. Until then a free one inside of it is
   * used; then all of it is ours.
   */
  readonly vacated?: Promise<void>;
  /** Rows that memory may hold, bytes. */
  readonly memoryBytes?: (() => number) | undefined;
  /** Of a journal file; for tests. */
  readonly journalFileBytes?: number | undefined;
  /** Another process has taken the folder: it must not be touched any more. */
  readonly onLost: () => void;
  /** Files that are not the system's bring a lock of their own. */
  readonly lock?: typeof takeLock;
}

export interface Disk {
  readonly spool: Spool;
  /** The folder that new rows go to: the data folder, or one in it while another collector works there. */
  readonly dataDir: string;
  /** Resolves when no other collector works in the data folder any more; false: it cannot be used. */
  readonly whole: Promise<boolean>;
  /**
   * Lets another collector have the folder, when what is under way there has ended; a disk that hangs
   * is not waited for long. To be called after the pump has ended.
   */
  close(): Promise<void>;
}

export async function openDisk(options: DiskOptions): Promise<Result<Disk>> {
  const { dir: { files, dataDir }, vacated } = options;
  try {
    await files.makeFolder(dataDir);
    return await (vacated === undefined ? openWhole(options) : openBeside(options, vacated));
  } catch (error) {
    return failed(`cannot use the data folder ${dataDir}: ${String(error)}`);
  }
}

async function openWhole(options: DiskOptions): Promise<Result<Disk>> {
  const { dir, clock, onLost, lock: take = takeLock } = options;
  const lock = await take(dir.dataDir, { clock, onLost });
  if ("problem" in lock) return failed(lock.problem);
  const opened = await openSpool(dir);
  const taken = opened.ok ? await takeOrphans(dir, (folder) => take(folder, { clock })) : opened;
  if (!taken.ok) {
    await lock.release();
    return taken;
  }
  // Before the first new file: what is written from now on is not recovered.
  const found = await listSpool(dir);
  return done(
    diskOf(
      options,
      dir,
      found,
      Promise.resolve(true),
      () => recover(dir, found),
      () => lock.release(),
    ),
  );
}

/**
 * Beside a collector that still works in the folder: in `worker-N`, the first that is free. Whatever
 * becomes of either, the next start finds it there.
 */
async function openBeside(options: DiskOptions, vacated: Promise<void>): Promise<Result<Disk>> {
  const { dir } = options;
  const free = await firstFree(options);
  if (!free.ok) return free;
  const { folder, lock } = free.value;
  const beside = { ...dir, dataDir: folder };
  const opened = await openSpool(beside);
  if (!opened.ok) {
    await lock.release();
    return opened;
  }
  const found = await listSpool(beside);
  let all: Lock | null = null;
  const whole = vacated.then(async () => {
    all = await takeAll(options, folder);
    return all !== null;
  }).catch((error) => {
    dir.log.error(WAITS, { error: String(error) });
    return false;
  });
  return done(
    diskOf(options, beside, found, whole, () => bothOf(beside, found, dir, whole), async () => {
      await lock.release();
      await all?.release();
    }),
  );
}

async function firstFree(
  { dir, clock, onLost, lock: take = takeLock }: DiskOptions,
): Promise<Result<{ readonly folder: string; readonly lock: Lock }>> {
  for (let number = 1;; number++) {
    const folder = folderBeside(dir.dataDir, number);
    const lock = await take(folder, { clock, onLost });
    if (!("problem" in lock)) return done({ folder, lock });
    if (number >= MOST_FOLDERS) return failed(lock.problem);
  }
}

/** The data folder, with what lies in folders that others leave. @param ours the folder beside. */
async function takeAll(options: DiskOptions, ours: string): Promise<Lock | null> {
  const { dir, clock, onLost, lock: take = takeLock } = options;
  // The kernel closes the files of a killed process one by one: its pipe may say that it has gone while its
  // lock is still there.
  const lock = await untilFree(
    clock,
    () => take(dir.dataDir, { clock, onLost }),
    (lock) => !("busy" in lock),
  );
  if ("problem" in lock) {
    dir.log.error(lock.problem);
    onLost();
    return null;
  }
  const opened = await openSpool(dir);
  // As soon as no process but this one has a folder beside.
  const taken = !opened.ok ? opened : await untilFree(
    clock,
    () => takeOrphans(dir, (folder) => take(folder, { clock }), [ours]),
    ({ ok }) => ok,
  );
  if (!taken.ok) dir.log.error(WAITS, { error: taken.problem });
  return lock;
}

/** What `take` gives last: when that `isFree`, or the time is over. */
async function untilFree<T>(
  clock: Clock,
  take: () => Promise<T>,
  isFree: (taken: T) => boolean,
): Promise<T> {
  const untilMs = clock.monotonicMs() + LET_GO_MS;
  for (;;) {
    const taken = await take();
    if (isFree(taken) || clock.monotonicMs() >= untilMs) return taken;
    await sleep(clock, LOOK_MS);
  }
}

/** What lies in the folder beside, and then in the data folder when that is ours. */
async function* bothOf(
  beside: DataDir,
  found: Listing,
  dir: DataDir,
  whole: Promise<boolean>,
): AsyncGenerator<Found, void, undefined> {
  for await (const each of recover(beside, found)) {
    yield each.kind === "memos" ? { ...each, all: false } : each;
  }
  if (await whole) yield* recover(dir, await listSpool(dir));
}

function diskOf(
  { clock, memoryBytes, journalFileBytes: fileBytes }: DiskOptions,
  dir: DataDir,
  { segments, journals }: Listing,
  whole: Promise<boolean>,
  earlier: () => AsyncIterable<Found>,
  release: () => Promise<void>,
): Disk {
  const unread = segments.length + journals.length > 0;
  const spool = new JournalSpool({ dir, clock, unread, earlier, memoryBytes, fileBytes });
  return {
    spool,
    dataDir: dir.dataDir,
    whole,
    async close() {
      await within(clock, END_MS, spool.close(), undefined);
      await release();
    },
  };
}
