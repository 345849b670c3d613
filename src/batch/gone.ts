/**
 * Whose files are certainly gone: removed by hand, as nothing of ours removes a file while its rows are
 * held. A folder that cannot be read says nothing of what is in it; one that is not in the folder above
 * is gone with all it held.
 */

import { basename, dirname } from "node:path";
import type { Files } from "./files.ts";
import type { HeldBatch } from "./held.ts";

/** @returns those of some batches on disk whose segments are gone. Never rejects. */
export async function findGone(files: Files, batches: readonly HeldBatch[]): Promise<HeldBatch[]> {
  const paths = new Map(batches.map((batch) => [batch, batch.segment?.path ?? ""]));
  const names = new Map<string, ReadonlySet<string> | null>();
  for (const folder of new Set([...paths.values()].map((path) => dirname(path)))) {
    names.set(folder, await namesIn(files, folder));
  }
  return [...paths].filter(([, path]) => names.get(dirname(path))?.has(basename(path)) === false)
    .map(([batch]) => batch);
}

/** Null where nobody can tell. */
async function namesIn(files: Files, folder: string): Promise<ReadonlySet<string> | null> {
  const names = await files.list(folder).catch(() => null);
  if (names !== null) return new Set(names);
  const above = await files.list(dirname(folder)).catch(() => null);
  return above === null || above.includes(`${basename(folder)}/`) ? null : new Set();
}
