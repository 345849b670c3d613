/**
 * Spools of workers that are no more. Each worker has a data folder of its own in the one of all,
 * `worker-1` to `worker-N`; a collector that is one process works in the folder itself. Where N has
 * changed since the last start, what lies in folders that nobody works in any more is moved to one
 * that somebody will: worker 1, or the only process. A segment is moved by a rename, so a crash leaves
 * it in one of the two places, and both are looked at again at the next start.
 */

import { dirname, join } from "node:path";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { tableOfFolder } from "../kernel/names.ts";
import { makeTableFolder, openSpool, type Place, spoolFolder } from "./layout.ts";

/** The data folder of worker `number`, from 1. */
export const workerFolder = (dataDir: string, number: number): string =>
  join(dataDir, `worker-${number}`);

/** The number of the worker whose folder has this name; 0 for another folder. */
export const workerOf = (name: string): number =>
  Number(/^worker-([1-9]\d{0,5})\/?$/.exec(name)?.[1] ?? 0);

/** The folder that a worker's lies in. */
export const folderOfAll = (workerDir: string): string => dirname(workerDir);

/** Keeps others out of a folder while it is emptied. */
export type Hold = (
  dataDir: string,
) => Promise<{ release(): Promise<void> } | { readonly problem: string }>;

/**
 * To be called by who holds the folder of all, before anybody lists a spool.
 * @param except folders in it that somebody works in.
 * @returns why that cannot be done, a sentence; null when it is done. What the disk refuses to move
 * stays where it is, and is told in the log: it costs no start.
 */
export async function gatherSpools(
  place: Place,
  workers: number,
  hold: Hold,
  except: readonly string[] = [],
): Promise<string | null> {
  const { dataDir } = place;
  const to = workers > 1 ? workerFolder(dataDir, 1) : dataDir;
  const left = (await listOf(place, dataDir)).flatMap((name) => {
    const number = name.endsWith("/") ? workerOf(name) : 0;
    return number > (workers > 1 ? workers : 0) ? [workerFolder(dataDir, number)] : [];
  });
  for (const from of workers > 1 ? [dataDir, ...left] : left) {
    if (except.includes(from)) continue;
    if ((await listOf(place, spoolFolder(from))).length === 0) continue;
    const held = from === dataDir ? null : await hold(from);
    if (held !== null && "problem" in held) return held.problem;
    try {
      await moveSpool(place, from, to);
    } catch (error) {
      place.log.error("a spool that nobody uses cannot be moved; its rows wait there", {
        from,
        to,
        error: reasonOf(error),
      });
    }
    await held?.release();
  }
  return null;
}

async function moveSpool(place: Place, from: string, to: string): Promise<void> {
  const { files, log } = place;
  // A spool of another version is set aside where it is.
  for (const dataDir of [from, to]) {
    const { problem } = await openSpool({ ...place, dataDir });
    if (problem !== null) throw new Error(problem);
  }
  let moved = 0;
  for (const entry of await listOf(place, spoolFolder(from))) {
    const named = entry.replace(/\/$/, "");
    const table = tableOfFolder(named);
    if (!entry.endsWith("/") || table === null) continue;
    const source = join(spoolFolder(from), named);
    const names = (await listOf(place, source)).filter((name) => !name.endsWith("/"));
    if (names.length === 0) continue;
    const target = await makeTableFolder({ ...place, dataDir: to }, table);
    const there = new Set(await files.list(target));
    for (const name of names) {
      // The same name is the same batch, and one of the two is somebody's copy: neither is to be lost.
      if (there.has(name)) {
        log.warn("a spool file stays: there is another one by its name", {
          file: join(source, name),
          other: join(target, name),
        });
        continue;
      }
      await files.rename(join(source, name), join(target, name));
      moved++;
    }
    for (const folder of [target, source]) await files.syncFolder(folder);
  }
  if (moved > 0) log.info("spool of another number of workers taken over", { from, to, moved });
}

async function listOf({ files }: Place, folder: string): Promise<readonly string[]> {
  try {
    return await files.list(folder);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}
