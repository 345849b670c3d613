/**
 * What is wrong with a data folder: there or can be made, whose it is, whose lock, and the disk below it:
 * room for what may come to lie there, and how fast it syncs. A file of a few kilobytes is written beside
 * the others and removed at once; that is the only trace, and a short one.
 */

import { open, readdir, stat, statfs, unlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import type { Ack } from "../contracts.ts";
import { codeOf, reasonOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { holderOf } from "./lock.ts";
import { numberBeside } from "./data_dir.ts";

/** What a collector would do there. */
export interface Wanted {
  readonly dataDir: string;
  readonly spoolMaxBytes: number;
  readonly deadMaxBytes: number;
  readonly ack: Ack;
}

/** Never rejects. */
export async function inspectDataDir(wanted: Wanted): Promise<Finding[]> {
  const { dataDir } = wanted;
  const is = about(`data-dir ${dataDir}`);
  let there;
  try {
    there = await stat(dataDir);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") return [is.wrong(reasonOf(error), whatToDo(error, dataDir))];
    return await inspectAbove(wanted);
  }
  if (!there.isDirectory()) return [is.wrong("is no folder", "name another one")];
  const lock = await inspectLock(dataDir);
  return [...ownerOf(there, dataDir), ...lock, ...await inspectDisk(dataDir, wanted)];
}

/** The folder is not there yet: then the one above has to take it. */
async function inspectAbove(wanted: Wanted): Promise<Finding[]> {
  const { dataDir } = wanted;
  const is = about(`data-dir ${dataDir}`);
  let above = dirname(resolve(dataDir));
  while (true) {
    try {
      await stat(above);
      return [is.ok(`not there; will be made in ${above}`), ...await inspectDisk(above, wanted)];
    } catch (error) {
      if (codeOf(error) === "ENOENT" && dirname(above) !== above) above = dirname(above);
      else return [is.wrong(`cannot be made: ${reasonOf(error)}`, whatToDo(error, dataDir))];
    }
  }
}

function ownerOf({ uid, mode }: { uid: number; mode: number }, dataDir: string): Finding[] {
  // Windows shows neither the owner of a folder nor the rights of others.
  if (process.getuid === undefined) return [];
  const is = about(`data-dir ${dataDir}`);
  const bits = (mode & 0o777).toString(8).padStart(3, "0");
  const me = process.getuid();
  const findings = [
    uid === me ? is.ok(`mine, mode ${bits}`) : is.warning(
      `belongs to user ${uid}, and this runs as ${me}: files that one makes may be closed to the other`,
      `run shishi as user ${uid}, or chown -R ${me} ${dataDir}`,
    ),
  ];
  if ((mode & 0o022) !== 0) {
    findings.push(is.warning(`others may write there (mode ${bits})`, `chmod 700 ${dataDir}`));
  }
  return findings;
}

async function inspectLock(dataDir: string): Promise<Finding[]> {
  const is = about(`lock of ${dataDir}`);
  try {
    const holder = await holderOf(dataDir);
    if (holder === null) return [];
    const { pid, alive, host } = holder;
    const away = `another container or on ${
      host || "another host"
    }, which cannot be seen from here`;
    return [
      is.ok(
        alive === "unknown"
          ? `held by pid ${pid} in ${away}`
          : alive
          ? `held by a running collector, pid ${pid}`
          : `left by pid ${pid}, gone; taken over`,
      ),
    ];
  } catch (error) {
    return [is.wrong(reasonOf(error))];
  }
}

/** For an error of the disk. */
function whatToDo(error: unknown, dataDir: string): string {
  const user = process.getuid?.() ?? "the user that runs shishi";
  switch (codeOf(error)) {
    case "EACCES":
    case "EPERM":
      return `chown -R ${user} ${dataDir}, or name another data-dir`;
    case "EROFS":
      return "mount that disk writable, or name another data-dir";
    case "ENOSPC":
    case "EDQUOT":
      return "make room there, or name another data-dir";
    default:
      return "name another data-dir";
  }
}

const SYNCS = 20;
const SYNC_FOR_MS = 1_000;
const PAGE_BYTES = 4096;
/** A write is answered after a sync: beyond this a client feels it. */
const SLOW_MS = 20;
const GIB = 1024 ** 3;
const MOST_FILES = 10_000;

/** @param folder that is there: the data folder, or the one in which it will be made. */
async function inspectDisk(folder: string, wanted: Wanted): Promise<Finding[]> {
  const [room, speed] = [await roomIn(folder, wanted), await speedOf(folder, wanted)];
  return [...room, ...speed];
}

async function roomIn(
  folder: string,
  { dataDir, spoolMaxBytes, deadMaxBytes }: Wanted,
): Promise<Finding[]> {
  const is = about(`disk of ${dataDir}`);
  try {
    const { bavail, bsize } = await statfs(folder);
    const free = bavail * bsize;
    const needed = Math.max(0, spoolMaxBytes + deadMaxBytes - await bytesBelow(dataDir));
    const shown = `${gib(free)} GiB free`;
    return [
      free >= needed ? is.ok(shown) : is.warning(
        `${shown}, less than spool-max-bytes and dead-max-bytes may still take (${
          gib(needed)
        } GiB)`,
        "make room, or lower them: on a full disk writes get 429",
      ),
    ];
  } catch (error) {
    return [is.warning(`its room cannot be told: ${reasonOf(error)}`)];
  }
}

/** What spools, orphaned ones too, and dead letters have already; about, where there are very many files. */
export async function bytesBelow(dataDir: string): Promise<number> {
  const orphaned = (await readdir(dataDir).catch(() => [])).filter((name) =>
    numberBeside(name) > 0
  );
  let bytes = 0;
  const spools = ["", ...orphaned].flatMap((folder) =>
    ["spool", "journal"].map((name) => join(folder, name))
  );
  for (const name of ["dead", ...spools]) {
    const paths = await readdir(join(dataDir, name), { recursive: true }).catch(() => []);
    for (const path of paths.slice(0, MOST_FILES)) {
      bytes += (await stat(join(dataDir, name, path)).catch(() => ({ size: 0 }))).size;
    }
  }
  return bytes;
}

async function speedOf(folder: string, { dataDir, ack }: Wanted): Promise<Finding[]> {
  const is = about(`disk of ${dataDir}`);
  try {
    const times = await timeSyncs(join(folder, `.shishi-check-${crypto.randomUUID()}`));
    const ms = times.sort((a, b) => a - b)[times.length >> 1] ?? 0;
    const shown = `${Math.round(1000 / Math.max(ms, 0.001))} syncs/s, ${ms.toFixed(2)} ms each`;
    return [
      ms <= SLOW_MS || ack === "memory" ? is.ok(shown) : is.warning(
        `${shown}: with ack=${ack} a write waits for one or two of them`,
        "use a faster disk for data-dir, or send more events in a request",
      ),
    ];
  } catch (error) {
    return [is.wrong(`cannot be written: ${reasonOf(error)}`, whatToDo(error, dataDir))];
  }
}

/** Milliseconds of each append and sync, as the spool does them. */
async function timeSyncs(path: string): Promise<number[]> {
  const file = await open(path, "ax", 0o600);
  const times: number[] = [];
  try {
    const page = new Uint8Array(PAGE_BYTES).fill(0x20);
    const untilMs = performance.now() + SYNC_FOR_MS;
    while (times.length < SYNCS && (times.length === 0 || performance.now() < untilMs)) {
      const startedMs = performance.now();
      await file.write(page);
      await file.datasync();
      times.push(performance.now() - startedMs);
    }
  } finally {
    await file.close();
    await unlink(path);
  }
  return times;
}

function gib(bytes: number): string {
  return (bytes / GIB).toFixed(bytes < 10 * GIB ? 2 : 0);
}
