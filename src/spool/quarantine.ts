/**
 * What was found in the spool and cannot be trusted. It is never deleted and never sent: it lies in
 * `quarantine/` until a person has looked at it.
 */

import { dirname, join } from "node:path";
import { type Place, quarantineFolder } from "./layout.ts";

/** File systems take 255 bytes; the rest is room for an offset or a number. */
const LONGEST_NAME_BYTES = 220;

/**
 * Copies bytes of a file that stays where it is; safe once this resolves. The same name again
 * overwrites, so that a recovery that is repeated leaves one copy. Rejects with the disk's error.
 */
export async function copyToQuarantine(
  { files, dataDir }: Place,
  name: string,
  bytes: Uint8Array,
): Promise<string> {
  const folder = quarantineFolder(dataDir);
  await files.makeFolder(folder);
  const path = join(folder, name);
  const file = await files.append(path);
  try {
    if (file.bytes > 0) await file.truncate(0);
    await file.write(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await files.syncFolder(folder);
  return path;
}

/** Moves a file or folder under a name that is not taken. Rejects with the disk's error. */
export async function moveToQuarantine(
  { files, dataDir }: Place,
  from: string,
  name: string,
): Promise<string> {
  const folder = quarantineFolder(dataDir);
  await files.makeFolder(folder);
  const taken = new Set((await files.list(folder)).map((entry) => entry.replace(/\/$/, "")));
  const base = shortened(name);
  let free = base;
  for (let number = 2; taken.has(free); number++) free = `${base}.${number}`;
  const path = join(folder, free);
  await files.rename(from, path);
  await files.syncFolder(folder);
  await files.syncFolder(dirname(from));
  return path;
}

function shortened(name: string): string {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length <= LONGEST_NAME_BYTES) return name;
  return new TextDecoder().decode(bytes.subarray(0, LONGEST_NAME_BYTES)).replace(/\ufffd+$/, "");
}
