/**
 * Whose files are certainly gone: removed by hand, as nothing of ours removes a file while its rows are
 * held. A folder that cannot be read says nothing of what is in it; one that is not in the folder above
 * is gone with all it held.
 */

import { basename, dirname } from "node:path";
import type { Files } from "./files.ts";
import type { HeldBatch } from "../batch/held.ts";

/** @returns those of some batches on disk whose segments are gone. Never rejects. */
export async function findGone(files: Files, batches: readonly HeldBatch[]): Promise<HeldBatch[]> {
  const segments = new Map(batches.map((batch) => [batch, batch.segment]));
  const pathOf = (batch: HeldBatch) => segments.get(batch)?.path ?? "";
  const names = new Map<string, ReadonlySet<string> | null>();
  for (const folder of new Set(batches.map((batch) => dirname(pathOf(batch))))) {
    names.set(folder, await namesIn(files, folder));
  }
  return batches.filter((batch) => {
    const path = pathOf(batch);
    // One that was written again meanwhile is not in a listing from before.
    return batch.segment === segments.get(batch) &&
      names.get(dirname(path))?.has(basename(path)) === false;
  });
}

/** Null where nobody can tell. */
async function namesIn(files: Files, folder: string): Promise<ReadonlySet<string> | null> {
  const names = await files.list(folder).catch(() => null);
  if (names !== null) return new Set(names);
  const above = await files.list(dirname(folder)).catch(() => null);
  return above === null || above.includes(`${basename(folder)}/`) ? null : new Set();
}
