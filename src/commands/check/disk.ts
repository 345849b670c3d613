/** The disk below the data folder: room for what may come to lie there, and how fast it syncs. */

import { open, readdir, stat, statfs, unlink } from "node:fs/promises";
import { join } from "node:path";
import { workerOf } from "../../spool/orphans.ts";
import { reasonOf } from "../../kernel/errors.ts";
import type { Settings } from "../../settings/settings.ts";
import { whatToDo } from "./data_dir.ts";
import { about, type Finding } from "./finding.ts";

const SYNCS = 20;
const SYNC_FOR_MS = 1_000;
const PAGE_BYTES = 4096;
/** A write is answered after a sync: beyond this people feel it. */
const SLOW_MS = 20;
const GIB = 1024 ** 3;
const MOST_FILES = 10_000;

/** @param folder that is there: the data folder, or the one in which it will be made. */
export async function lookAtDisk(folder: string, settings: Settings): Promise<Finding[]> {
  const [room, speed] = [await roomIn(folder, settings), await speedOf(folder, settings)];
  return [...room, ...speed];
}

async function roomIn(
  folder: string,
  { dataDir, spoolMaxBytes, deadMaxBytes }: Settings,
): Promise<Finding[]> {
  const is = about(`disk of ${dataDir}`);
  try {
    const { bavail, bsize } = await statfs(folder);
    const free = bavail * bsize;
    const wanted = Math.max(0, spoolMaxBytes + deadMaxBytes - await bytesBelow(dataDir));
    const shown = `${gib(free)} GiB free`;
    return [
      free >= wanted ? is.ok(shown) : is.warning(
        `${shown}, less than spool-max-bytes and dead-max-bytes may still take (${
          gib(wanted)
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
  const orphaned = (await readdir(dataDir).catch(() => [])).filter((name) => workerOf(name) > 0);
  let bytes = 0;
  for (const name of ["spool", "dead", ...orphaned.map((folder) => join(folder, "spool"))]) {
    const paths = await readdir(join(dataDir, name), { recursive: true }).catch(() => []);
    for (const path of paths.slice(0, MOST_FILES)) {
      bytes += (await stat(join(dataDir, name, path)).catch(() => ({ size: 0 }))).size;
    }
  }
  return bytes;
}

async function speedOf(folder: string, { dataDir, ack }: Settings): Promise<Finding[]> {
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
