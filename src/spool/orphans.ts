/**
 * Spools of folders that no process works in any more. A collector that follows another one keeps its
 * rows in a folder of its own in the data folder, `worker-1` and so on, until the next plain start;
 * version 0.1 could also be several processes, each with such a folder. What lies there is moved to the
 * data folder itself. A segment is moved by a rename, so a crash leaves it in one of the two places, and
 * both are looked at again at the next start.
 */

import { join } from "node:path";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { tableOfFolder } from "../kernel/names.ts";
import { type DataDir, makeTableFolder, openSpool, spoolFolder } from "./data_dir.ts";

/** The folder with this number, from 1. */
export const workerFolder = (dataDir: string, number: number): string =>
  join(dataDir, `worker-${number}`);

/** The number of a folder of that name; 0 for another folder. */
export const workerOf = (name: string): number =>
  Number(/^worker-([1-9]\d{0,5})\/?$/.exec(name)?.[1] ?? 0);

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
  place: DataDir,
  hold: Hold,
  except: readonly string[] = [],
): Promise<string | null> {
  const { dataDir } = place;
  const left = (await listOf(place, dataDir)).flatMap((name) => {
    const number = name.endsWith("/") ? workerOf(name) : 0;
    return number > 0 ? [workerFolder(dataDir, number)] : [];
  });
  for (const from of left) {
    if (except.includes(from)) continue;
    if ((await listOf(place, spoolFolder(from))).length === 0) continue;
    const held = await hold(from);
    if ("problem" in held) return held.problem;
    try {
      await moveSpool(place, from, dataDir);
    } catch (error) {
      place.log.error("a spool that nobody uses cannot be moved; its rows wait there", {
        from,
        to: dataDir,
        error: reasonOf(error),
      });
    }
    await held.release();
  }
  return null;
}

async function moveSpool(place: DataDir, from: string, to: string): Promise<void> {
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
  if (moved > 0) log.info("orphaned spool taken over", { from, to, moved });
}

async function listOf({ files }: DataDir, folder: string): Promise<readonly string[]> {
  try {
    return await files.list(folder);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}
