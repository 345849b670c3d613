/**
 * Where things lie in the data folder, and of which version they are.
 *
 * `lock` · `version` · `journal/` · `spool/TABLE/SEGMENT` · `quarantine/` · `dead/` · `worker-N/`. The
 * version is written before the spool is begun, so rows never lie there without it. A spool of another
 * version is set aside whole, untouched, and a fresh one begun: rows that cannot be read for certain must
 * not be guessed at. It is the version of what lies in `spool/`, which is as it was in 0.1: so 0.1, started
 * here again, goes on with the segments and leaves the journal as it is, until a later version reads it.
 *
 * What is found in the spool and cannot be trusted is never deleted and never sent: it lies in
 * `quarantine/` until a person has looked at it.
 */

import { basename, dirname, join } from "node:path";
import type { Log } from "../contracts.ts";
import { codeOf, reasonOf, reasonWithoutPath } from "../kernel/errors.ts";
import { fileNameOf, nameAmong, tableOfFolder } from "../kernel/names.ts";
import { DONE, failed, type Result } from "../kernel/result.ts";
import type { Files } from "../contracts.ts";

/** A data folder and the means to work in it. */
export interface DataDir {
  readonly files: Files;
  readonly dataDir: string;
  readonly log: Log;
}

/** What `version` says. */
export const VERSION_TEXT = "shishi spool 1\n";

export const spoolFolder = (dataDir: string): string => join(dataDir, "spool");
export const journalFolder = (dataDir: string): string => join(dataDir, "journal");
export const quarantineFolder = (dataDir: string): string => join(dataDir, "quarantine");
export const deadFolder = (dataDir: string): string => join(dataDir, "dead");

/** A table's folder in the spool, there and safe once this resolves. Rejects with the disk's error. */
export async function makeTableFolder({ files, dataDir }: DataDir, table: string): Promise<string> {
  const spool = spoolFolder(dataDir);
  const plain = fileNameOf(table);
  await files.makeFolder(join(spool, plain));
  const name = nameAmong(await files.list(spool), table, "/").slice(0, -1);
  if (name !== plain) await files.makeFolder(join(spool, name));
  await files.syncFolder(spool);
  return join(spool, name);
}

/**
 * Makes the folders, judges the version. To be called before anything is listed or written, and again
 * when the folder was gone. Never rejects.
 */
export async function openSpool(dir: DataDir): Promise<Result> {
  const { files, dataDir } = dir;
  try {
    await files.makeFolder(dataDir);
    await settleVersion(dir);
    for (const folder of [spoolFolder, quarantineFolder, deadFolder]) {
      await files.makeFolder(folder(dataDir));
    }
    await files.syncFolder(dataDir);
    // The folder above may be closed to us; then it was there before us, and it is not ours to sync.
    await files.syncFolder(dirname(dataDir)).catch(() => {});
    return DONE;
  } catch (error) {
    return failed(`cannot use the data folder ${dataDir}: ${reasonOf(error)}`);
  }
}

async function settleVersion(dir: DataDir): Promise<void> {
  const { files, dataDir, log } = dir;
  const path = join(dataDir, "version");
  const found = await readText(files, path);
  if (found === VERSION_TEXT) return;
  if (found !== null && isDamaged(found)) {
    log.warn("the spool's version file is damaged; it is written anew", { file: path });
  } else if (found !== null) await setAside(dir, found);
  const fresh = await files.append(`${path}.new`);
  try {
    await fresh.truncate(0);
    await fresh.write(new TextEncoder().encode(VERSION_TEXT));
    await fresh.sync();
  } finally {
    await fresh.close();
  }
  await files.rename(`${path}.new`, path);
  await files.syncFolder(dataDir);
}

/**
 * Cut short, or one byte wrong: what a disk does to our text, not what another version would say. The
 * segments carry checksums of their own. Another number in good order counts as another version.
 */
function isDamaged(text: string): boolean {
  if (VERSION_TEXT.startsWith(text)) return true;
  if (text.length !== VERSION_TEXT.length || /^shishi spool \d\n$/.test(text)) return false;
  return [...VERSION_TEXT].filter((char, at) => char !== text[at]).length === 1;
}

async function setAside({ files, dataDir, log }: DataDir, version: string): Promise<void> {
  const names = new Set((await files.list(dataDir)).map((name) => name.replace(/\/$/, "")));
  if (!names.has("spool")) return;
  const label = version.replace(/^shishi spool /, "").trim().replace(/[^A-Za-z0-9.-]+/g, "-");
  const base = `spool.${label.slice(0, 40) || "unknown"}.kept`;
  let name = base;
  for (let number = 2; names.has(name); number++) name = `${base}.${number}`;
  await files.rename(spoolFolder(dataDir), join(dataDir, name));
  await files.syncFolder(dataDir);
  log.error("the spool is of another version; it is kept as it is and a fresh one begun", {
    found: version.trim().slice(0, 80),
    wanted: VERSION_TEXT.trim(),
    kept: join(dataDir, name),
  });
}

/** Null when it is not there. */
async function readText(files: Files, path: string): Promise<string | null> {
  try {
    return new TextDecoder().decode(await files.read(path));
  } catch (error) {
    if (codeOf(error) === "ENOENT") return null;
    throw error;
  }
}

/** File systems take 255 bytes; the rest is room for an offset or a number. */
const LONGEST_NAME_BYTES = 220;

/**
 * Copies bytes of a file that stays where it is; safe once this resolves. The same name again
 * overwrites, so that a recovery that is repeated leaves one copy. Rejects with the disk's error.
 */
export async function copyToQuarantine(
  { files, dataDir }: DataDir,
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
  { files, dataDir }: DataDir,
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

/** As large as a block of most requests, or a disk that is all but full would seem well. */
const PROBE_BYTES = 64 * 1024;

/**
 * Finds out whether a disk that refused rows takes them again, without risking any.
 * @returns null, or why it does not. Never rejects.
 */
export async function probeDisk(dir: DataDir): Promise<string | null> {
  const path = join(dir.dataDir, "probe");
  try {
    // The folder may have been removed under us, its version with it.
    const opened = await openSpool(dir);
    if (!opened.ok) return opened.problem;
    const file = await dir.files.append(path);
    try {
      await file.truncate(0);
      await file.write(new Uint8Array(PROBE_BYTES));
      await file.sync();
    } finally {
      await file.close();
      await dir.files.remove(path);
    }
    return null;
  } catch (error) {
    return reasonWithoutPath(error);
  }
}

// ------------------------------------------------------------ orphaned spools

/**
 * Inside of the data folder, the data folder number `number`, from 1, of a collector that works beside
 * the one that has it; version 0.1 had one for each worker.
 */
export const folderBeside = (dataDir: string, number: number): string =>
  join(dataDir, `worker-${number}`);

/** The number of a folder of that name; 0 for another folder. */
export const numberBeside = (name: string): number =>
  Number(/^worker-([1-9]\d{0,5})\/?$/.exec(name)?.[1] ?? 0);

/** Keeps others out of a folder while it is emptied. */
export type Hold = (
  dataDir: string,
) => Promise<{ release(): Promise<void> } | { readonly problem: string }>;

/**
 * Moves orphaned spools to the data folder: those of folders beside that no process works in any more. A
 * segment is moved by a rename, so a crash leaves it in one of the two places, and both are looked at
 * again at the next start. A journal is moved whole, into a folder of its own beside the files of the one
 * that is there: its files belong together. What the disk refuses to move stays where it is; the log says
 * so, and it costs no start. To be called by the process that holds the data folder, before a spool is listed.
 * @param except folders that are in use.
 */
export async function takeOrphans(
  dir: DataDir,
  hold: Hold,
  except: readonly string[] = [],
): Promise<Result> {
  const { dataDir } = dir;
  try {
    for (const name of await listOf(dir, dataDir)) {
      const number = name.endsWith("/") ? numberBeside(name) : 0;
      const from = folderBeside(dataDir, number);
      if (number === 0 || except.includes(from)) continue;
      const inside = [await listOf(dir, spoolFolder(from)), await listOf(dir, journalFolder(from))];
      if (inside.every(({ length }) => length === 0)) continue;
      const held = await hold(from);
      if ("problem" in held) return failed(held.problem);
      await moveSpool(dir, from).catch((error) =>
        dir.log.error("an orphaned spool cannot be moved; its rows wait there", {
          from,
          to: dataDir,
          error: reasonOf(error),
        })
      );
      await held.release();
    }
    return DONE;
  } catch (error) {
    return failed(`cannot use the data folder ${dataDir}: ${String(error)}`);
  }
}

async function moveSpool(dir: DataDir, from: string): Promise<void> {
  const { files, log, dataDir: to } = dir;
  // A spool of another version is set aside where it is.
  for (const dataDir of [from, to]) {
    const opened = await openSpool({ ...dir, dataDir });
    if (!opened.ok) throw new Error(opened.problem);
  }
  let moved = 0;
  for (const entry of await listOf(dir, spoolFolder(from))) {
    const named = entry.replace(/\/$/, "");
    const table = tableOfFolder(named);
    if (!entry.endsWith("/") || table === null) continue;
    const source = join(spoolFolder(from), named);
    const names = (await listOf(dir, source)).filter((name) => !name.endsWith("/"));
    if (names.length === 0) continue;
    const target = await makeTableFolder({ ...dir, dataDir: to }, table);
    const there = new Set(await files.list(target));
    for (const name of names) {
      // The same name is the same batch, and one of the two is a copy: neither is to be lost.
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
  if (await moveJournal(dir, from)) moved++;
  if (moved > 0) log.info("orphaned spool taken over", { from, to, moved });
}

/** @returns whether there was one. */
async function moveJournal(dir: DataDir, from: string): Promise<boolean> {
  const { files, dataDir: to } = dir;
  const source = journalFolder(from);
  if ((await listOf(dir, source)).length === 0) return false;
  const above = journalFolder(to);
  await files.makeFolder(above);
  const base = join(above, basename(from));
  let target = base;
  // One that is empty, because all of it has been delivered, is as good as none.
  for (let number = 2; (await listOf(dir, target)).length > 0; number++) {
    target = `${base}.${number}`;
  }
  await files.rename(source, target);
  for (const folder of [above, to, from]) await files.syncFolder(folder);
  return true;
}

async function listOf({ files }: DataDir, folder: string): Promise<readonly string[]> {
  try {
    return await files.list(folder);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}
